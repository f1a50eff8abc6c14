"""The grasshopper demonstration and its recordings."""
