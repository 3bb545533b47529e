"""Pure decisions: values in, values out; no clock, I/O, randomness, logging or environment."""
