"""The command line: ``labtree demo``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from labtree import __version__
from labtree.errors import LabtreeError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors are one line on standard error, and exit code 1.

    Parameters
    ----------
    arguments
        Of the command line, without the program's name; those of this process if None.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (LabtreeError, OSError) as error:
        print(f"labtree: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labtree", description="A lab's data as xarray trees and pandas tables."
    )
    parser.add_argument("--version", action="version", version=f"labtree {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="build, save, reopen and draw a real workspace")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("labtree-demo"),
        metavar="FOLDER",
        help="where its files go (default: %(default)s)",
    )
    demo.set_defaults(run=_demo)
    return parser


def _demo(options: argparse.Namespace) -> None:
    from labtree import demo

    demo.run(options.out)


if __name__ == "__main__":
    sys.exit(main())
