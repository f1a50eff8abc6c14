"""What commands share: how they find what they are given, and how they print."""

import argparse
import glob
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labtree.display.formatting import aligned, printable
from labtree.errors import FormatError
from labtree.formats import FORMATS, Format, contents, find, recognize

if TYPE_CHECKING:
    import xarray as xr


WORKSPACE = "labtree_workspace_id"
BLOCK = 64 * 2**20  # bytes that are read at a time


def complain(message: object) -> None:
    """Print a message on standard error."""
    print(f"labtree: {printable(' '.join(str(message).split()))}", file=sys.stderr)


def say(options: argparse.Namespace, value: Any, text: str) -> None:
    """Print what a command found, as JSON where that is asked for."""
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


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return aligned columns; those without content are left out."""
    if not rows:
        return "nothing in it"
    return "\n".join(aligned([printable(cell) for cell in row] for row in rows))


def expanded(paths: Iterable[str]) -> list[str]:
    """Return paths, with patterns that the shell left alone replaced by what they match."""
    found: list[str] = []
    for path in paths:
        is_pattern = glob.has_magic(path) and not Path(path).exists() and "://" not in path
        # Not Path.glob: the pattern may be absolute.
        matches = sorted(glob.glob(path)) if is_pattern else []  # noqa: PTH207
        found += matches or [path]
    return found


def open_path(path: str | Path) -> "tuple[Format, xr.DataTree]":
    """Open a file, a folder or a URL; return what it is, too."""
    if "://" in str(path):
        from labtree.workspace.workspace_files import open_workspace

        return FORMATS["workspace"], open_workspace(path)
    found = recognize(path)
    return found, found.open(find(path))


def things_in(path: str | Path) -> "list[tuple[Path, Format]] | None":
    """Return what a folder that is no format of its own holds; None for anything else."""
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


def each_path(paths: Iterable[str]) -> Iterator[Path | str]:
    """Yield every file and folder that is meant, folders of several as what they hold."""
    for path in expanded(paths):
        things = things_in(path)
        yield from [path] if things is None else (each for each, _ in things)


def size_on_disk(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else (file for file in path.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)


def namespace_and_key(tree: "xr.DataTree", item: str) -> tuple[str, str]:
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
