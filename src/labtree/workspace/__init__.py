"""Workspace trees: the verbs on them, the lazy one, the manager."""
