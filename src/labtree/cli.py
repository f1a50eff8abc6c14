"""The command line: ``labtree COMMAND``.

Each command prints what it found, as text or (``--json``) as one JSON value. Errors are one
line on standard error; the exit code is 0 where all is well, 1 for an error or a damaged
file, 2 for a wrong call. Names and notes are data: whatever in them would act on a terminal
is printed as an escape.
"""

import argparse
import contextlib
import glob
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from labtree._version import __version__
from labtree.display.formatting import age, date, format_bytes, plural, printable, truncate
from labtree.errors import (
    AlreadyExistsError,
    FormatError,
    LabtreeError,
    LossWarning,
    missing_file,
    warn,
)

if TYPE_CHECKING:
    import xarray as xr

    from labtree.opening import Format

__all__ = ["main"]

_BLOCK = 64 * 2**20  # bytes that are read at a time
_WORKSPACE = "labtree_workspace_id"


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
        warnings.showwarning = lambda message, *_: _complain(message)
        try:
            code: int = options.run(options) or 0
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as head, has stopped reading
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt:
            _complain("interrupted")
            return 130
        except Exception as error:
            # Damaged files fail anywhere in the libraries that read them.
            if options.traceback:
                raise
            _complain(_sentence(error))
            return 1
    return code


def _complain(message: object) -> None:
    print(f"labtree: {printable(' '.join(str(message).split()))}", file=sys.stderr)


def _sentence(error: Exception) -> str:
    if isinstance(error, LabtreeError | OSError):
        return str(error)
    return f"{type(error).__name__}: {error} (--traceback shows where)"


# --- the parser


class _Parser(argparse.ArgumentParser):
    def format_help(self) -> str:
        # What labtree opens is listed where it is asked for: the list takes h5py to load.
        if self.prog == "labtree":
            from labtree.opening import FORMATS

            lines = "".join(f"  {each.what}\n" for each in FORMATS.values())
            self.epilog = f"Files and folders that labtree opens:\n{lines}"
        return super().format_help()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="labtree",
        description="A lab's data as xarray trees and pandas tables.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"labtree {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

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
        "ls", _ls, "list what is in files and folders", "ls study.h5", "ls .", "ls *.h5 --json"
    )
    made.add_argument("paths", nargs="+", metavar="PATH", help=anything)
    made = command(
        "info",
        _info,
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
        _verify,
        "read all of what is there, and check it against its checksums",
        "verify study.h5",
        "verify recordings/",
        "verify --accept study.h5 rec1/rates",
    )
    made.add_argument("paths", nargs="+", metavar="PATH", help=anything)
    made.add_argument(
        "--accept",
        action="store_true",
        help="PATH is a file and a group in it: values that another program wrote there are "
        "taken as right",
    )
    made = command(
        "compact",
        _compact,
        "write workspaces anew without what deleted and replaced items left in them",
        "compact study.h5",
        "compact *.h5",
    )
    made.add_argument("paths", nargs="+", metavar="FILE", help="a .h5 workspace, or a pattern")
    made = command(
        "convert",
        _convert,
        "write what is in SRC as a .h5 file or .zarr store",
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
        _merge,
        "gather workspaces in one; OUT may be there already",
        "merge all.h5 monday.h5 tuesday.h5",
        "merge all.h5 days/ --overwrite",
    )
    made.add_argument("out", metavar="OUT", help="the workspace that takes the items")
    made.add_argument("sources", nargs="+", metavar="IN", help="workspaces, or folders of them")
    made.add_argument("--overwrite", action="store_true", help="replace items of the same name")
    made = command(
        "export",
        _export,
        "write what is in SRC for another program",
        "export nwb study.h5 study.nwb",
        "export csv mouse-session/ tables/",
        "export csv study.h5 trials.csv rec1/trials",
        "export spikelab study.h5 for-spikelab.h5 --lossy",
    )
    made.add_argument("format", choices=("nwb", "csv", "spikelab"), help="what to write")
    made.add_argument("source", metavar="SRC", help="a file or folder that labtree opens")
    made.add_argument(
        "target", metavar="DST", help="the file; of csv a folder, or one file for one ITEM"
    )
    made.add_argument("item", nargs="?", metavar="NAMESPACE/KEY", help="of csv: one item only")
    made.add_argument(
        "--lossy", action="store_true", help="leave out what SpikeLab cannot hold, and say so"
    )
    made = command(
        "recover",
        _recover,
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


# --- what commands print


def _say(options: argparse.Namespace, value: Any, text: str) -> None:
    if not options.json:
        print("\n".join(map(printable, text.split("\n"))))
        return
    content = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    print("\n".join(_json_line(line) for line in content.split("\n")))


def _json_line(line: str) -> str:
    """Return a line of JSON in which what does not print stands as JSON's own escape."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return aligned columns; those without content are left out."""
    if not rows:
        return "nothing in it"
    shown = [[printable(cell) for cell in row] for row in rows]
    columns = [column for column in zip(*shown, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
    )
    return "\n".join(line.rstrip() for line in lines)


# --- paths


def _expanded(paths: Iterable[str]) -> list[str]:
    """Return paths, with patterns that the shell left alone replaced by what they match."""
    found: list[str] = []
    for path in paths:
        is_pattern = glob.has_magic(path) and not Path(path).exists() and "://" not in path
        # Not Path.glob: the pattern may be absolute.
        matches = sorted(glob.glob(path)) if is_pattern else []  # noqa: PTH207
        found += matches or [path]
    return found


def _open(path: str | Path) -> "tuple[Format, xr.DataTree]":
    from labtree.opening import FORMATS, find, recognize
    from labtree.opening import open as open_any

    if "://" in str(path):
        return FORMATS["workspace"], open_any(path)
    found = recognize(path)
    return found, found.opens(find(path))


def _things(path: str | Path) -> "list[tuple[Path, Format]] | None":
    """Return what a folder that is no format of its own holds; None for anything else."""
    from labtree.opening import contents, find, recognize

    if "://" in str(path):
        return None
    folder = find(path)
    if not folder.is_dir():
        return None
    try:
        recognize(folder)
    except FormatError:
        things = contents(folder)
        if not things:
            raise
        return things
    return None


def _each(paths: Iterable[str]) -> Iterator[Path | str]:
    """Yield every file and folder that is meant, folders of several as what they hold."""
    for path in _expanded(paths):
        things = _things(path)
        yield from [path] if things is None else (each for each, _ in things)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else (file for file in path.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)


# --- ls


def _ls(options: argparse.Namespace) -> None:
    paths = _expanded(options.paths)
    parts = {path: _listing(path) for path in paths}
    if len(paths) == 1:
        _say(options, *parts[paths[0]])
        return
    text = "\n\n".join(f"{path}:\n{text}" for path, (_, text) in parts.items())
    _say(options, {path: value for path, (value, _) in parts.items()}, text)


def _listing(path: str) -> tuple[Any, str]:
    """Return what is in a file or folder, for JSON and as text."""
    from labtree.opening import find
    from labtree.workspace import verbs

    things = _things(path)
    if things is not None:
        return _folder_listing(find(path), things)
    _, tree = _open(path)
    with tree:
        if _WORKSPACE in tree.attrs:
            index = verbs.describe(tree)
            return index, _table(_item_rows(tree))
        nodes = {
            node.path: {str(name): _array(array) for name, array in node.variables.items()}
            for node in tree.subtree
        }
        rows = [
            (f"{node.path.rstrip('/')}/{name}", *_array_cells(array))
            for node in tree.subtree
            for name, array in node.variables.items()
        ]
        return nodes, _table(rows)


def _folder_listing(folder: Path, things: "Iterable[tuple[Path, Format]]") -> tuple[Any, str]:
    value, rows = [], []
    for thing, found in things:
        nbytes, modified = _size(thing), thing.stat().st_mtime
        name = str(thing.relative_to(folder))
        value.append(
            {"name": name, "format": found.name, "bytes": nbytes, "modified": modified}
        )
        rows.append((name, found.what, format_bytes(nbytes), date(modified)))
    return value, _table(rows)


def _item_rows(tree: "xr.DataTree", namespace: str | None = None) -> list[tuple[str, ...]]:
    from labtree.workspace.items import describe_item, iterate_items
    from labtree.workspace.workspace_panel import item_cells

    rows: list[tuple[str, ...]] = []
    for space, key, node in iterate_items(tree):
        if namespace in (None, space):
            _, note, kind, facts, nbytes = item_cells(node)
            created = date(describe_item(node)["created_at"])
            rows.append((f"{space}/{key}", kind, facts, nbytes, created, note))
    return rows


def _array(array: Any) -> dict[str, Any]:
    dims = [str(dim) for dim in array.dims]
    return {"dims": dims, "shape": list(array.shape), "dtype": str(array.dtype)}


def _array_cells(array: Any) -> tuple[str, ...]:
    sizes = " × ".join(f"{dim} {size}" for dim, size in array.sizes.items())
    unit = truncate(array.attrs.get("units", ""), 24)
    return sizes, str(array.dtype), unit, format_bytes(array.nbytes)


# --- info


def _info(options: argparse.Namespace) -> None:
    parts = [_about(path, items) for path, items in _with_items(options.paths)]
    if len(parts) == 1:
        _say(options, *parts[0])
        return
    _say(options, [value for value, _ in parts], "\n\n".join(text for _, text in parts))


def _with_items(arguments: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return each path with what is asked of it: what is no path is an item of the last."""
    found: list[tuple[str, list[str]]] = []
    for argument in _expanded(arguments):
        is_path = "://" in argument or any(
            Path(argument + suffix).expanduser().exists() for suffix in ("", ".h5")
        )
        if is_path or not found:
            found.append((argument, []))
        else:
            found[-1][1].append(argument)
    return found


def _about(path: str, items: list[str]) -> tuple[Any, str]:
    """Return what a file, a folder or items of a workspace are, for JSON and as text."""
    from labtree.opening import find

    things = _things(path)
    if things is not None:
        value, text = _folder_listing(find(path), things)
        return value, f"{path} is a folder with\n{text}"
    found, tree = _open(path)
    with tree:
        if items and _WORKSPACE not in tree.attrs:
            raise FormatError(f"{path} is {found.what}; only workspaces have items")
        if items:
            parts = [_item(tree, item) for item in items]
            if len(parts) == 1:
                return parts[0]
            return [value for value, _ in parts], "\n\n".join(text for _, text in parts)
        about: dict[str, Any] = {"format": found.name, "path": str(path)}
        lines = [f"{path} is {found.what}"]
        if "://" not in str(path):
            file = find(path)
            nbytes, modified = _size(file), file.stat().st_mtime
            about |= {"bytes": nbytes, "modified": modified}
            lines.append(f"{format_bytes(nbytes)} on the disk, changed {_moment(modified)}")
        if _WORKSPACE in tree.attrs:
            about |= {
                "workspace_id": tree.ws.workspace_id,
                "name": tree.ws.name,
                "created_at": tree.ws.created_at,
                "namespaces": {name: len(keys) for name, keys in tree.ws.list_keys().items()},
            }
            panels = [tree.ws._panel()]
        else:
            about["groups"] = list(tree.groups)
            panels = tree.session._panels()
        return about, "\n".join([*lines, *(panel.text(with_calls=False) for panel in panels)])


def _moment(when: float) -> str:
    return f"{date(when)} ({age(when)})" if age(when) else date(when)


def _item(tree: "xr.DataTree", item: str) -> tuple[Any, str]:
    """Return what an item, or a namespace, of a workspace is."""
    from labtree.workspace.items import find_item

    if item.rstrip("/") in tree.ws.list_namespaces():
        name = item.rstrip("/")
        return tree.ws.describe()[name], f"{name}/\n{_table(_item_rows(tree, name))}"
    namespace, key = _split(tree, item)
    info = tree.ws.get_info(namespace, key)
    node = find_item(tree, namespace, key)
    assert node is not None
    facts = dict(info) | {"created_at": _moment(info["created_at"])}
    lines = [f"{name}: {truncate(value, 400)}" for name, value in facts.items()]
    return info, "\n".join([*lines, "", repr(node.to_dataset(inherit=False))])


def _split(tree: "xr.DataTree", item: str) -> tuple[str, str]:
    """Return namespace and key of ``a/b/c``, in which either may hold a slash."""
    from labtree.workspace.items import missing_item

    parts = item.split("/")
    for i in range(1, len(parts)):
        place = "/".join(parts[:i]), "/".join(parts[i:])
        if all(place) and tree.ws.get_info(*place) is not None:
            return place
    if len(parts) < 2:
        spaces = ", ".join(map(repr, tree.ws.list_namespaces()[:20])) or "none"
        raise FormatError(
            f"no namespace {item!r} (there are: {spaces}); of an item write NAMESPACE/KEY"
        )
    raise missing_item(tree, parts[0], "/".join(parts[1:]))


# --- compact


def _compact(options: argparse.Namespace) -> int:
    from labtree.workspace.files import open_workspace

    rows, lines = [], []
    for path in _expanded(options.paths):
        if not Path(path).is_file():  # mode "a" would make one
            raise missing_file(f"{path} is no file of a workspace", path)
        before = Path(path).stat().st_size
        with open_workspace(path, mode="a") as tree:
            tree.ws.compact()
        after = Path(path).stat().st_size
        rows.append({"path": str(path), "before": before, "after": after})
        lines.append(f"{path}: {format_bytes(before)} before, {format_bytes(after)} now")
    _say(options, rows, "\n".join(lines))
    return 0


# --- verify


def _verify(options: argparse.Namespace) -> int:
    if options.accept:
        return _accept(options)
    paths = list(_each(options.paths))
    reports = [_report(path) if len(paths) == 1 else _report_or_error(path) for path in paths]
    lines: list[str] = []
    for report in reports:
        where = "" if len(paths) == 1 else f"{report['path']}: "
        if report["problems"]:
            lines += [where + problem for problem in report["problems"]]
        else:
            lines.append(f"{report['path']}: all of it can be read, nothing is wrong")
            if "n_checked" in report:
                lines[-1] += f"; {plural(report['n_checked'], 'array')} checked by their sums"
            if report.get("n_unchecked"):
                lines[-1] += f", {report['n_unchecked']} of other programs have none"
    bad = sum(1 for report in reports if report["problems"])
    if len(reports) > 1:
        lines.append(f"{plural(len(reports), 'file')}, {bad or 'none'} with problems")
    _say(options, reports[0] if len(reports) == 1 else reports, "\n".join(lines))
    return 1 if bad else 0


def _accept(options: argparse.Namespace) -> int:
    from labtree.storage.verifying import accept_values

    if len(options.paths) != 2:
        raise FormatError("write labtree verify --accept FILE NAMESPACE/KEY")
    file, group = options.paths
    accepted = accept_values(file, str(group))
    text = "\n".join(accepted) or "all values are those that were written"
    _say(options, {"path": str(file), "accepted": accepted}, text)
    return 0


def _report(path: Path | str) -> dict[str, Any]:
    """Return what is wrong with a file or folder, whatever its format is."""
    from labtree.msw import validate_session
    from labtree.opening import find, recognize
    from labtree.storage.verifying import verify_file
    from labtree.storage.zarr.stores import is_zarr_folder
    from labtree.storage.zarr.verifying import verify_store

    if "://" in str(path):
        return {"path": str(path), "format": "workspace", **verify_store(path)._asdict()}
    file = find(path)
    found = recognize(file)
    if found.name in ("workspace", "pipeline", "session", "tree", "zarr"):
        if file.is_file():
            return {"path": str(file), "format": found.name, **verify_file(file)._asdict()}
        if is_zarr_folder(file):
            return {"path": str(file), "format": found.name, **verify_store(file)._asdict()}
    problems = validate_session(file).issues if found.name == "msw" else _read_all(file)
    return {"path": str(file), "format": found.name, "problems": problems}


def _report_or_error(path: Path | str) -> dict[str, Any]:
    """Return what is wrong with one file of several; one that cannot be opened is reported."""
    try:
        return _report(path)
    except (LabtreeError, OSError) as error:
        return {"path": str(path), "format": None, "problems": [str(error)]}


def _read_all(path: Path | str) -> list[str]:
    """Read every array of what is there, block by block; return what went wrong."""
    problems: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _, tree = _open(path)
            with tree:
                for node in tree.subtree:
                    for name, variable in node.variables.items():
                        if problem := _unreadable(variable):
                            problems.append(f"{node.path.rstrip('/')}/{name}: {problem}")
        except (LabtreeError, OSError) as error:
            problems.append(str(error))
    # What is left out of a foreign format is no damage.
    told = [each.message for each in caught if not isinstance(each.message, LossWarning)]
    return problems + list(dict.fromkeys(map(str, told)))


def _unreadable(variable: Any) -> str:
    """Return what goes wrong when an array is read, block by block; "" for nothing."""
    import numpy as np

    try:
        if variable.ndim == 0:
            np.asarray(variable)
            return ""
        rows = max(1, _BLOCK * len(variable) // max(1, variable.nbytes))
        for start in range(0, len(variable), rows):
            np.asarray(variable[start : start + rows])
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


# --- convert, merge, export, recover, demo


def _convert(options: argparse.Namespace) -> None:
    target = Path(options.target)
    if target.suffix in (".h5", ".zarr"):
        if len(options.sources) > 1:
            raise FormatError(f"several sources go into a folder, and {target} is one file")
        done = [_convert_one(options.sources[0], target)]
    elif len(options.sources) == 1 and target.suffix and not target.is_dir():
        raise FormatError(f"{target}: the name of DST ends in .h5 or .zarr, or is a folder")
    else:
        done = []
        target.mkdir(parents=True, exist_ok=True)
        for source in _each(options.sources):
            name = Path(source).name.removesuffix(".session.zip")
            name = Path(name).stem if Path(source).is_file() else name
            done.append(_convert_one(source, target / f"{name}.{options.to}"))
    text = "\n".join(
        f"{each['source']} ({each['what']}) is now {each['target']}" for each in done
    )
    _say(options, done[0] if len(done) == 1 else done, text)


def _convert_one(source: Path | str, target: Path) -> dict[str, Any]:
    from labtree.storage import save_tree
    from labtree.storage.zarr.trees import save_zarr_tree
    from labtree.workspace.files import save_workspace

    if target.exists():
        raise AlreadyExistsError(f"{target} is there already; choose another name")
    found, tree = _open(source)
    with tree:
        if _WORKSPACE in tree.attrs:
            save_workspace(tree, target)
        elif target.suffix == ".zarr":
            save_zarr_tree(tree, target)
        else:
            save_tree(tree, target)
    return {
        "source": str(source),
        "format": found.name,
        "what": found.what,
        "target": str(target),
    }


def _merge(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from labtree.workspace.files import open_workspace, save_workspace
    from labtree.workspace.merging import merge_workspace
    from labtree.workspace.stores import store_at
    from labtree.workspace.verbs import create_workspace

    out = store_at(options.out, new=True).location
    report: dict[str, Any] = {"path": str(out)}
    asked = set(_expanded(options.sources))
    sources = [str(path) for path in _each(options.sources)]
    with open_workspace(out) if out.exists() else create_workspace(lazy=True) as target:
        for source in tqdm(sources, unit="file", disable=None):
            found, tree = _open(source)
            with tree:
                if _WORKSPACE not in tree.attrs:
                    if source not in asked:  # it lies in a folder with workspaces
                        _complain(f"{source} is {found.what}, and left out")
                        continue
                    raise FormatError(f"{source} is {found.what}; merge takes workspaces only")
                report[source] = merge_workspace(target, tree, options.overwrite)
        save_workspace(target, out)
    lines = [
        f"{name}: {done['merged']} merged, {done['skipped']} skipped"
        + "".join(f"\n    there already: {'/'.join(place)}" for place in done["skipped_keys"])
        for name, done in report.items()
        if name != "path"
    ]
    _say(options, report, "\n".join([*lines, f"saved {out}"]))


def _export(options: argparse.Namespace) -> None:
    import labtree

    if Path(options.target).exists():
        raise AlreadyExistsError(f"{options.target} is there already; choose another name")
    if options.item is not None and options.format != "csv":
        raise FormatError(f"export {options.format} takes all of SRC; only csv takes one item")
    found, tree = _open(options.source)
    with tree:
        if options.format == "csv":
            written = _export_csv(found.what, tree, Path(options.target), options.item)
        elif options.format == "nwb":
            written = [labtree.export_nwb(tree, options.target)]
        else:
            if _WORKSPACE not in tree.attrs:
                raise FormatError(
                    f"{options.source} is {found.what}; SpikeLab has workspaces only"
                )
            written = [
                labtree.export_spikelab(
                    tree, options.target, on_loss="warn" if options.lossy else "raise"
                )
            ]
    value = {"source": options.source, "format": found.name, "written": list(map(str, written))}
    _say(options, value, "\n".join(f"wrote {path}" for path in written))


def _export_csv(what: str, tree: "xr.DataTree", target: Path, item: str | None) -> list[Path]:
    """Write the tables and streams of a tree; return the files."""
    if item is not None:
        if _WORKSPACE not in tree.attrs:
            raise FormatError(f"this is {what}; only workspaces have items")
        table = _as_table(tree.ws[_split(tree, item)])
        if table is None:
            raise FormatError(f"{item} is no table; csv takes tables (DataFrame, Series) only")
        return _write_csv(table, target)
    written = []
    for parts, table in _tables(tree):
        path = target.joinpath(*(quote(part, safe=" ()+,-=@~") for part in parts))
        path = path.with_name(path.name + ".csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        written += _write_csv(table, path)
    if not written:
        raise FormatError(f"there are no tables or streams in {what}; nothing was written")
    return written


def _write_csv(table: Any, path: Path) -> list[Path]:
    """Write a DataFrame, or a stream's Dataset block by block; return the files."""
    import pandas as pd

    from labtree.msw import save_trial_tables
    from labtree.msw.trial_times import ATTRIBUTE

    if ATTRIBUTE in getattr(table, "attrs", {}):
        return save_trial_tables(table, path)
    if isinstance(table, pd.DataFrame):
        table.to_csv(path)
        return [path]
    rows = max(1, _BLOCK // max(1, table["data"].nbytes // max(1, table.sizes["time"])) // 16)
    for start in range(0, max(1, table.sizes["time"]), rows):
        block = table.isel(time=slice(start, start + rows)).load()
        names = block["channel"].values if "channel" in block.coords else None
        index = pd.Index(block["time"].values, name="time")
        frame = pd.DataFrame(block["data"].values, index=index, columns=names)
        frame.to_csv(path, mode="a" if start else "w", header=not start)
    return [path]


def _as_table(obj: Any) -> Any:
    """Return a DataFrame or a Series as a DataFrame; None for anything else."""
    import pandas as pd

    if isinstance(obj, pd.Series):
        return obj.to_frame()
    return obj if isinstance(obj, pd.DataFrame) else None


def _tables(tree: "xr.DataTree") -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield tables and streams by their names: items, trials, streams, labels."""
    from labtree.msw import MswSession
    from labtree.msw.msw_panel import is_msw_session
    from labtree.recording.session import streams

    if _WORKSPACE in tree.attrs:
        left_out = []
        for namespace, keys in tree.ws.list_keys().items():
            for key in keys:
                table = _as_table(tree.ws[namespace, key])
                if table is None:
                    left_out.append(f"{namespace}/{key}")
                else:
                    yield (namespace, key), table
        if left_out:
            names = ", ".join(left_out[:5]) + (", …" if len(left_out) > 5 else "")
            warn(
                f"left out what is no table ({plural(len(left_out), 'item')}): {names}",
                LossWarning,
            )
        return
    if is_msw_session(tree):
        frame = MswSession.from_tree(tree).df
        if frame is not None:
            yield ("trials",), frame
    for name, stream in streams(tree).items():
        yield ("streams", name), stream
    if "labels" in tree.children:
        yield ("labels",), tree.session.labels


def _recover(options: argparse.Namespace) -> None:
    from labtree.recording import recover

    done = [
        {"folder": str(folder), "repaired": recover(folder)}
        for path in _expanded(options.paths)
        for folder in _recordings(path)
    ]
    lines: list[str] = []
    for each in done:
        lines += each["repaired"] or [f"{each['folder']}: nothing to repair"]
    _say(options, done[0] if len(done) == 1 else done, "\n".join(lines))


def _recordings(path: str) -> list[Path]:
    """Return the folders of recordings that a path means."""
    from labtree.opening import contents, find, recognize

    folder = find(path)
    try:
        found = recognize(folder)
    except FormatError:
        things = contents(folder) if folder.is_dir() else []
        folders = [each for each, form in things if form.name == "recording" and each.is_dir()]
        # A recording without its meta.json is no format; it can still be rebuilt.
        return folders or [folder]
    if found.name != "recording" or folder.is_file():
        raise FormatError(f"{path} is {found.what}; recover takes folders of recordings only")
    return [folder]


def _demo(options: argparse.Namespace) -> None:
    from labtree import demo

    if not options.json:
        demo.run(options.out)
        return
    with contextlib.redirect_stdout(io.StringIO()):
        path = demo.run(options.out)
    _say(options, {"path": str(path)}, "")


if __name__ == "__main__":
    sys.exit(main())
