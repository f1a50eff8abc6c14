"""Run the command line as ``python -m labtree``."""

from labtree.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
