"""What the processes of a gateway share: control channel, sockets, state directory."""
