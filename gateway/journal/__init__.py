"""The event store: one record per call, append-only, crash-safe."""
