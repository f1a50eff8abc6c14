"""The command line: ``labtree COMMAND``.

Each command prints what it found, as text or (``--json``) as one JSON value. Errors are one
line on standard error; the exit code is 0 where all is well, 1 for an error or a damaged
file, 2 for a wrong call. Names and notes are data: whatever in them would act on a terminal
is printed as an escape.
"""

import argparse
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from labtree._version import __version__
from labtree.cli.checking import compact, recover, verify
from labtree.cli.exporting import convert, export, merge
from labtree.cli.looking import info, ls
from labtree.cli.terminal import complain, say
from labtree.errors import LabtreeError
from labtree.formats import FORMATS

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code.

    Parameters
    ----------
    arguments
        Of the command line, without the program's name; those of this process if None.
    """
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        # Those of libraries to their developers are of no use here.
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: complain(message)
        try:
            code: int = options.run(options) or 0
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as head, has stopped reading
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt:
            complain("interrupted")
            return 130
        except Exception as error:
            # Damaged files fail anywhere in the libraries that read them.
            if options.traceback:
                raise
            complain(_sentence(error))
            return 1
    return code


def _sentence(error: Exception) -> str:
    if isinstance(error, LabtreeError | OSError):
        return str(error)
    return f"{type(error).__name__}: {error} (--traceback shows where)"


def _parser() -> argparse.ArgumentParser:
    formats = "".join(f"  {each.what}\n" for each in FORMATS.values())
    parser = argparse.ArgumentParser(
        prog="labtree",
        description="A lab's data as xarray trees and pandas tables.",
        epilog=f"Files and folders that labtree opens:\n{formats}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"labtree {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[Any], int | None], text: str, *examples: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  labtree {each}" for each in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="print one JSON value")
        made.add_argument("--traceback", action="store_true", help="show where an error arose")
        return made

    anything = "a file, a folder, a URL or a pattern"
    made = command(
        "ls", ls, "list what is in files and folders", "ls study.h5", "ls .", "ls *.h5 --json"
    )
    made.add_argument("paths", nargs="+", metavar="PATH", help=anything)
    made = command(
        "info",
        info,
        "describe files, or items of a workspace",
        "info study.h5",
        "info study.h5 rec1",
        "info study.h5 rec1/rates",
        "info *.session.zip",
    )
    made.add_argument(
        "paths",
        nargs="+",
        metavar="PATH [NAMESPACE[/KEY]]",
        help="files or folders, each with the namespaces and items of it to describe",
    )
    made = command(
        "verify",
        verify,
        "read everything, and compare it with its checksums",
        "verify study.h5",
        "verify recordings/",
        "verify --accept study.h5 rec1/rates",
    )
    made.add_argument("paths", nargs="+", metavar="PATH", help=anything)
    made.add_argument(
        "--accept",
        action="store_true",
        help="PATH is a file and a group in it: accept the values that another program wrote "
        "there",
    )
    made = command(
        "compact",
        compact,
        "rewrite workspaces without the bytes that deleted and replaced items left",
        "compact study.h5",
        "compact *.h5",
    )
    made.add_argument("paths", nargs="+", metavar="FILE", help="a .h5 workspace, or a pattern")
    made = command(
        "convert",
        convert,
        "write SRC as a .h5 file or .zarr store",
        "convert study.h5 study.zarr",
        "convert sessions/2026-* converted/",
        "convert recordings/ converted/ --to zarr",
    )
    made.add_argument("sources", nargs="+", metavar="SRC", help="what to convert")
    made.add_argument(
        "target", metavar="DST", help="a name that ends in .h5 or .zarr, or a folder"
    )
    made.add_argument(
        "--to", choices=("h5", "zarr"), default="h5", help="what is written into a folder"
    )
    made = command(
        "merge",
        merge,
        "merge workspaces into one; OUT may exist already",
        "merge all.h5 monday.h5 tuesday.h5",
        "merge all.h5 days/ --overwrite",
    )
    made.add_argument("out", metavar="OUT", help="the workspace that takes the items")
    made.add_argument("sources", nargs="+", metavar="IN", help="workspaces, or folders of them")
    made.add_argument("--overwrite", action="store_true", help="replace items of the same name")
    made = command(
        "export",
        export,
        "write SRC for another program",
        "export nwb study.h5 study.nwb",
        "export csv mouse-session/ tables/",
        "export csv study.h5 trials.csv rec1/trials",
        "export spikelab study.h5 for-spikelab.h5 --lossy",
    )
    made.add_argument("format", choices=("nwb", "csv", "spikelab"), help="what to write")
    made.add_argument("source", metavar="SRC", help="a file or folder that labtree opens")
    made.add_argument(
        "target", metavar="DST", help="the file; for csv a folder, or one file for one ITEM"
    )
    made.add_argument("item", nargs="?", metavar="NAMESPACE/KEY", help="for csv: one item only")
    made.add_argument(
        "--lossy", action="store_true", help="leave out what SpikeLab cannot hold, and say so"
    )
    made = command(
        "recover",
        recover,
        "finish recordings that were interrupted",
        "recover sessions/2026-11-29_17-43-11_3d5ca8cf",
        "recover sessions/",
    )
    made.add_argument(
        "paths", nargs="+", metavar="FOLDER", help="recordings, or folders of them"
    )
    made = command(
        "demo", _demo, "build, save, reopen and draw a real workspace", "demo --out tour"
    )
    made.add_argument("--out", type=Path, default=Path("labtree-demo"), metavar="FOLDER")
    return parser


def _demo(options: argparse.Namespace) -> None:
    from labtree import demo

    if not options.json:
        demo.run(options.out)
        return
    with contextlib.redirect_stdout(io.StringIO()):
        path = demo.run(options.out)
    say(options, {"path": str(path)}, "")
