"""State shared by the workers of one machine or of many."""
