"""``name.json``: the index of a workspace file, for people and scripts.

The ``.h5`` file is the truth. An index that is missing, cut or of another workspace is
written anew; a file that is valid JSON of something else is never replaced.
"""

import json
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from labtree.errors import DamageWarning, FormatError, MissingFileError, WorkspaceError
from labtree.storage.files import read_file, replace_file, temporary_path
from labtree.storage.locks import folder_lock
from labtree.workspace.verbs import describe

__all__ = ["check", "index_text", "renew"]

# No index is larger: 100 million items of 40 bytes.
_MOST = 1 << 32
# Every index begins with this, written by labtree or by SpikeLab.
_HEAD = '"workspace_id"'


def index_text(root: xr.DataTree) -> bytes:
    """Return the text of a workspace's index: id, name, time, and its items."""
    about = {
        "workspace_id": root.attrs["labtree_workspace_id"],
        "name": root.attrs.get("labtree_name"),
        "created_at": root.attrs["labtree_created_at"],
    }
    # A line an item: json's own indentation would be written by slow Python code.
    head = ",\n".join(f" {_JSON(name)}: {_JSON(value)}" for name, value in about.items())
    index = _block(
        {
            namespace: _block({key: _JSON(info) for key, info in keys.items()}, "  ")
            for namespace, keys in describe(root).items()
        },
        " ",
    )
    text = f'{{\n{head},\n "index": {index}\n}}\n'
    return text.encode(errors="backslashreplace")


_JSON = json.JSONEncoder(ensure_ascii=False).encode


def _block(entries: dict[str, str], indent: str) -> str:
    lines = ",\n".join(f"{indent} {_JSON(name)}: {text}" for name, text in entries.items())
    return f"{{\n{lines}\n{indent}}}" if lines else "{}"


def check(file: Path) -> None:
    """Refuse to replace a file that is not the index of a workspace.

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
    if not _is_index(content):
        raise WorkspaceError(
            f"{file} is there and is not the index of a workspace; move it away or save "
            "under another name"
        )


def _is_index(content: bytes) -> bool:
    """Say whether content is an index, whole or damaged, or nothing at all."""
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
    file: Path, root: xr.DataTree, agreed: int | None, still_there: Callable[[], bool]
) -> None:
    """Write an index anew, with a warning, if it does not say what the workspace holds.

    Parameters
    ----------
    file
        The index; nothing is done where there is none.
    root
        The workspace, as it was opened.
    agreed
        The checksum of the index that was written with the workspace, if it is known.
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
    expected = index_text(root)
    try:
        # A save replaces both under this lock: what is found here is not half of a save.
        with folder_lock(file.parent), temporary_path(file) as text:
            if not still_there() or read_file(file, _MOST) == expected:
                return
            check(file)
            text.write_bytes(expected)
            replace_file(text, file)
        done = "it was written anew from the .h5 file"
    except (OSError, WorkspaceError, FormatError) as error:
        done = f"it was left as it is: {error}"
    _warn(file, done)


def _warn(file: Path, done: str) -> None:
    warnings.warn(
        f"{file} does not say what the .h5 file holds; {done}", DamageWarning, stacklevel=5
    )
