"""The command line: ``labtree COMMAND``.

Each command prints what it has to say, as text or (``--json``) as one JSON value. Errors
are one line on standard error; the exit code is 0 where all is well, 1 for an error or a
damaged file, 2 for a wrong call.
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labtree._version import __version__
from labtree.errors import AlreadyExistsError, FormatError, LabtreeError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code.

    Parameters
    ----------
    arguments
        Of the command line, without the program's name; those of this process if None.
    """
    options = _parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_: print(f"labtree: {message}", file=sys.stderr)
    try:
        code: int = options.run(options) or 0
        sys.stdout.flush()
    except (LabtreeError, OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, BrokenPipeError):  # the reader, such as head, has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        print(f"labtree: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("labtree: interrupted", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labtree", description="A lab's data as xarray trees and pandas tables."
    )
    parser.add_argument("--version", action="version", version=f"labtree {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, *, as_json: bool = True) -> Any:
        made = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + "."
        )
        made.set_defaults(run=run)
        if as_json:
            made.add_argument("--json", action="store_true", help="print one JSON value")
        return made

    made = command("ls", _ls, "list what is in a file or folder")
    made.add_argument("file")
    made = command("info", _info, "describe a file, or one item of a workspace")
    made.add_argument("file")
    made.add_argument("item", nargs="?", metavar="NAMESPACE/KEY")
    made = command("verify", _verify, "read all of a file, and check its catalogue")
    made.add_argument("file")
    made = command("merge", _merge, "gather workspaces in one; OUT may be there already")
    made.add_argument("out", metavar="OUT")
    made.add_argument("sources", nargs="+", metavar="IN")
    made.add_argument("--overwrite", action="store_true", help="replace items of the same name")
    made = command("convert", _convert, "write what is in SRC as a .h5 file or .zarr store")
    made.add_argument("source", metavar="SRC")
    made.add_argument("target", metavar="DST", help="ends in .h5 or .zarr; must not exist")
    made = command("recover", _recover, "finish a recording that was interrupted")
    made.add_argument("folder", metavar="FOLDER")
    made = command(
        "demo", _demo, "build, save, reopen and draw a real workspace", as_json=False
    )
    made.add_argument("--out", type=Path, default=Path("labtree-demo"), metavar="FOLDER")
    return parser


def _say(options: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False) if options.json else text)


def _ls(options: argparse.Namespace) -> None:
    from labtree.opening import open as open_any
    from labtree.workspace import verbs

    with open_any(options.file) as tree:
        if "labtree_workspace_id" not in tree.attrs:
            nodes = {
                node.path: {str(name): _array(array) for name, array in node.variables.items()}
                for node in tree.subtree
            }
            rows = [
                (f"{path.rstrip('/')}/{name}", "", _shape(info), "")
                for path, arrays in nodes.items()
                for name, info in arrays.items()
            ]
            _say(options, nodes, _table(rows))
            return
        index = verbs.describe(tree)
    rows = [
        (f"{namespace}/{key}", str(info["type"]), _shape(info), str(info.get("note", "")))
        for namespace, items in index.items()
        for key, info in items.items()
    ]
    _say(options, index, _table(rows))


def _array(array: Any) -> dict[str, Any]:
    dims = [str(dim) for dim in array.dims]
    return {"dims": dims, "shape": list(array.shape), "dtype": str(array.dtype)}


def _shape(info: dict[str, Any]) -> str:
    shape = info.get("shape")
    return (
        "" if shape is None else f"{'x'.join(map(str, shape))} {info.get('dtype', '')}".strip()
    )


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return "nothing in it"
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _info(options: argparse.Namespace) -> None:
    from labtree.opening import find, recognise
    from labtree.workspace.items import find_item

    found = recognise(options.file)
    with found.opens(find(options.file)) as tree:
        if "labtree_workspace_id" not in tree.attrs:
            if options.item is not None:
                raise FormatError(f"{options.file} is {found.what}; only workspaces have items")
            about: dict[str, Any] = {"format": found.name, "groups": list(tree.groups)}
            _say(options, about, f"{options.file} is {found.what}\n{tree.session!r}")
        elif options.item is None:
            about = {
                "format": found.name,
                "workspace_id": tree.ws.workspace_id,
                "name": tree.ws.name,
                "created_at": tree.ws.created_at,
                "path": str(options.file),
                "bytes": _size(find(options.file)),
                "namespaces": {name: len(keys) for name, keys in tree.ws.list_keys().items()},
            }
            _say(options, about, repr(tree.ws).rsplit("\n\n", 1)[0])
        else:
            namespace, key = _split(tree, options.item)
            info = tree.ws.get_info(namespace, key)
            node = find_item(tree, namespace, key)
            assert node is not None
            text = "\n".join(f"{name}: {value}" for name, value in info.items())
            _say(options, info, f"{text}\n\n{node.to_dataset(inherit=False)!r}")


def _size(path: Path) -> int:
    files = [path] if path.is_file() else (file for file in path.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)


def _split(tree: Any, item: str) -> tuple[str, str]:
    """Return namespace and key of ``a/b/c``, in which either may hold a slash."""
    from labtree.workspace.items import missing_item

    parts = item.split("/")
    for i in range(1, len(parts)):
        place = "/".join(parts[:i]), "/".join(parts[i:])
        if all(place) and tree.ws.get_info(*place) is not None:
            return place
    if len(parts) < 2:
        raise FormatError(f"write NAMESPACE/KEY, not {item!r}")
    raise missing_item(tree, parts[0], "/".join(parts[1:]))


def _verify(options: argparse.Namespace) -> int:
    from labtree.storage.verifying import verify_file
    from labtree.workspace.files import workspace_path

    path = workspace_path(options.file)
    problems = verify_file(path)
    text = (
        "\n".join(problems) if problems else f"{path}: all of it can be read, nothing is wrong"
    )
    _say(options, {"path": str(path), "problems": problems}, text)
    return 1 if problems else 0


def _merge(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from labtree.workspace.files import open_workspace, save_workspace, workspace_path
    from labtree.workspace.merging import merge_workspace
    from labtree.workspace.verbs import create_workspace

    out = workspace_path(options.out, new=True)
    report: dict[str, Any] = {"path": str(out)}
    with open_workspace(out) if out.exists() else create_workspace(lazy=True) as target:
        for source in tqdm(options.sources, unit="file", disable=None):
            with open_workspace(source) as tree:
                report[source] = merge_workspace(target, tree, options.overwrite)
        save_workspace(target, out)
    lines = [
        f"{name}: {done['merged']} merged, {done['skipped']} skipped"
        + "".join(f"\n    there already: {'/'.join(place)}" for place in done["skipped_keys"])
        for name, done in report.items()
        if name != "path"
    ]
    _say(options, report, "\n".join([*lines, f"saved {out}"]))


def _convert(options: argparse.Namespace) -> None:
    from labtree.opening import find, recognise
    from labtree.storage import save_tree
    from labtree.storage.zarr_trees import save_zarr_tree
    from labtree.workspace.files import save_workspace

    target = Path(options.target)
    if target.suffix not in (".h5", ".zarr"):
        raise FormatError(f"{target}: the name of DST ends in .h5 or .zarr")
    if target.exists():
        raise AlreadyExistsError(
            f"{target} is there already; move it away or take another name"
        )
    found = recognise(options.source)
    with found.opens(find(options.source)) as tree:
        if "labtree_workspace_id" in tree.attrs:
            save_workspace(tree, target)
        elif target.suffix == ".zarr":
            save_zarr_tree(tree, target)
        else:
            save_tree(tree, target)
    about = {"source": str(options.source), "format": found.name, "target": str(target)}
    _say(options, about, f"{options.source} ({found.what}) is now {target}")


def _recover(options: argparse.Namespace) -> None:
    from labtree.recording import recover

    repaired = recover(options.folder)
    text = "\n".join(repaired) if repaired else f"{options.folder}: nothing was amiss"
    _say(options, {"folder": options.folder, "repaired": repaired}, text)


def _demo(options: argparse.Namespace) -> None:
    from labtree import demo

    demo.run(options.out)


if __name__ == "__main__":
    sys.exit(main())
