"""Recordings: the recorder, its journal and recovery, sessions, labels, windows."""
