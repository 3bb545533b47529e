"""What each provider API says and means, sans-io: bytes in, facts out."""
