"""Made-up data of every kind that labtree reads, for tests and for trying things out."""
