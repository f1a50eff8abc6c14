"""Murine Shift Work: names, formats, codec, models, trial tables."""
