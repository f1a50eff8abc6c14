"""``name.json``: the index of a workspace file, for people and scripts.

The ``.h5`` file is authoritative. An index that is missing, truncated or of another
workspace is written again; a file that is valid JSON of something else is never replaced.
"""

import json
import zlib
from collections.abc import Callable, Container, Iterable
from contextlib import AbstractContextManager
from itertools import repeat
from pathlib import Path

import xarray as xr

from labtree.errors import (
    BusyFileError,
    DamageWarning,
    FormatError,
    MissingFileError,
    WorkspaceError,
    warn,
)
from labtree.storage.files import read_file, replace_file, temporary_path
from labtree.storage.locks import folder_lock
from labtree.workspace.items import describe_item, real_name

# No index is larger: 100 million items of 40 bytes.
_MOST = 1 << 32
# Every index begins with this, written by labtree or by SpikeLab.
_HEAD = '"workspace_id"'


class Index:
    """The text of an index; what it says of an item is kept until the item changes."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[str, str]] = {}  # by the names of the nodes
        self._spaces: dict[str, str] = {}  # all lines of a namespace in one text

    def forget(self, paths: Iterable[tuple[str, ...]]) -> None:
        """Make the lines of these nodes again the next time."""
        for path in paths:
            if path:
                self._spaces.pop(path[0], None)
            if len(path) == 1:
                self._lines.pop(path[0], None)
            elif path:
                self._lines.get(path[0], {}).pop(path[1], None)

    def take(self, text: bytes, root: xr.DataTree, saved: Container[tuple[str, ...]]) -> None:
        """Take over the lines of an index that was written of a tree that now is `root`.

        Parameters
        ----------
        text
            Surely the index that belongs to what is saved.
        root
            The tree.
        saved
            The paths of those nodes that may be in it.
        """
        spaces = {real_name(group): group for group in root.children.values()}
        group, lines, keys = None, {}, {}
        for line in text.decode(errors="replace").split("\n"):
            if line.startswith('   "') and group is not None:
                key, _ = _DECODER.raw_decode(line, 3)
                if (name := keys.get(key)) is not None and (group.name, name) in saved:
                    lines[name] = line.removesuffix(",")
            elif line.startswith('  "'):
                group = spaces.get(_DECODER.raw_decode(line, 2)[0])
                if group is not None:
                    keys = {real_name(node): name for name, node in group.children.items()}
                    lines = self._lines.setdefault(str(group.name), {})

    def text(self, root: xr.DataTree) -> bytes:
        """Return the text of a workspace's index: id, name, time, and its items."""
        about = {
            "workspace_id": root.attrs["labtree_workspace_id"],
            "name": root.attrs.get("labtree_name"),
            "created_at": root.attrs["labtree_created_at"],
        }
        # A line an item: json's own indentation would be written by slow Python code.
        head = ",\n".join(f" {_JSON(name)}: {_JSON(value)}" for name, value in about.items())
        spaces = [
            self._spaces.get(name) or self._space(name, group)
            for name, group in root.children.items()
        ]
        text = f'{{\n{head},\n "index": {_block(spaces, " ")}\n}}\n'
        return text.encode(errors="backslashreplace")

    def _space(self, name: str, group: xr.DataTree) -> str:
        known, children = self._lines.get(name, {}), group.children
        lines = dict(zip(children, map(known.get, children, repeat("")), strict=True))
        for key in [key for key, line in lines.items() if not line]:
            node = children[key]
            lines[key] = f"   {_JSON(real_name(node))}: {_JSON(describe_item(node))}"
        self._lines[name] = lines
        text = f"  {_JSON(real_name(group))}: {_block([*lines.values()], '  ')}"
        self._spaces[name] = text
        return text


_JSON = json.JSONEncoder(ensure_ascii=False).encode
_DECODER = json.JSONDecoder()


def _block(lines: list[str], indent: str) -> str:
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}" if lines else "{}"


def check(file: Path, agreed: int | None = None) -> None:
    """Refuse to replace a file that is not the index of a workspace.

    Parameters
    ----------
    file
        Where it goes.
    agreed
        The checksum of the index that was written there last, if it is known.

    Raises
    ------
    WorkspaceError
        If it is a pipe or a device, or valid JSON of something else.
    """
    try:
        content = read_file(file, _MOST)
    except MissingFileError:
        return
    except (FormatError, OSError) as error:
        raise WorkspaceError(
            f"{error}; the index of the workspace goes there: move it away or save under "
            "another name"
        ) from error
    if zlib.crc32(content) != agreed and not _is_index(content):
        raise WorkspaceError(
            f"{file} exists and is not the index of a workspace; move it away or save "
            "under another name"
        )


def _is_index(content: bytes) -> bool:
    """Return whether content is an index, whole or damaged, or nothing at all."""
    text = content.decode(errors="replace").lstrip("\ufeff \t\r\n\0")
    if not text:  # a power cut can leave an empty file, or zeros
        return True
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        # Cut, damaged or nested to death: no valid JSON that could be of use to anybody.
        return text.startswith("{") or _HEAD in text[:1000]
    return isinstance(value, dict) and "workspace_id" in value


def renew(
    file: Path,
    root: xr.DataTree,
    agreed: int | None,
    lock: Callable[[], AbstractContextManager[None]],
    still_there: Callable[[], bool],
) -> None:
    """Write an index again, with a warning, if it does not say what the workspace holds.

    Parameters
    ----------
    file
        The index; nothing is done where there is none.
    root
        The workspace, as it was opened.
    agreed
        The checksum of the index that was written with the workspace, if it is known.
    lock
        Keeps those who save the workspace away; while one of them is at work nothing is done.
    still_there
        Says whether the workspace's file is still the one that was opened.
    """
    try:
        found = read_file(file, _MOST)
    except MissingFileError:
        return
    except (FormatError, OSError) as error:
        _warn(file, f"it was left as it is: {error}")
        return
    if agreed is not None and zlib.crc32(found) == agreed:
        return
    expected = Index().text(root)
    try:
        # A save replaces both under these locks: what is found here is not half of a save.
        with lock(), folder_lock(file.parent), temporary_path(file) as text:
            if not still_there() or read_file(file, _MOST) == expected:
                return
            check(file)
            text.write_bytes(expected)
            replace_file(text, file)
        done = "it was written again from the .h5 file"
    except BusyFileError:
        return
    except (OSError, WorkspaceError, FormatError) as error:
        done = f"it was left as it is: {error}"
    _warn(file, done)


def _warn(file: Path, done: str) -> None:
    warn(f"{file} does not say what the .h5 file holds; {done}", DamageWarning)
