"""What can be stored: one file a kind, and the registry of kinds."""
