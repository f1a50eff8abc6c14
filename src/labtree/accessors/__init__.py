"""Doors: one thin accessor class a file, whose methods call the rooms."""
