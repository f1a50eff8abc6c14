"""Pipeline sessions: trees with steps and checkpoints."""
