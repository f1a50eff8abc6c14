"""Pipeline sessions: trees that steps fill, with checkpoints that resume."""
