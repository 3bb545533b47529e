"""The two wires: HTTP/1.1 towards the client and towards the upstream."""
