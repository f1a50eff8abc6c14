"""Workspace trees: their items, their files, and the manager of several workspaces."""
