"""The admin port: health, /metrics and the API."""
