"""The catalogue after the end of a file: what is in it, and where.

It stands after the last byte that belongs to HDF5 (see :mod:`labtree.storage.hdf5_end`),
so that one read is enough. HDF5 ignores it. A program that changes the file through HDF5
cuts it off when it closes the file.

The text is a JSON header and then a JSON record a node, each on a line of its own, so that
one record is found without reading the others. The values are those of small index
coordinates. A file that was changed in place has further texts: a header, records that
replace those of the same path or are new, and ``{"path": [...], "removed": true}``.
"""

import json
import os
import re
import time
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from labtree.errors import DamageWarning, FormatError, damage_as_format_error, warn
from labtree.storage.hdf5_end import (
    SIGNATURE,
    SUPERBLOCK_SIZE,
    VERSION,
    Record,
    append_first,
    last_record,
    read_at,
    read_chain,
)
from labtree.storage.records import NodeRecord, shift_inline
from labtree.storage.sources import identity
from labtree.storage.versions import check_version

#: Where the format is described.
PAGE = "file-format.md in the documentation of labtree"

_OLD_MAGIC = b"labtree\n"
_OLD_FOOTER = 48


class Catalogue(NamedTuple):
    """The content of a catalogue: its header, its text, and values of index coordinates.

    `last` is the last record of the file that it was read from.
    """

    header: dict[str, Any]
    text: bytes
    values: bytes
    last: Record | None = None

    def records(self) -> list[NodeRecord]:
        """Return the records of all nodes, parents before children."""
        lines = self.text.split(b"\n")[1:]
        return _parse(b"[" + b",".join(lines) + b"]")  # type: ignore[no-any-return]

    def record(self, path: list[str]) -> NodeRecord | None:
        """Return the record of one node, or None; the others are not parsed."""
        start = self.text.find(b'\n{"path":' + _dump(path) + b",")
        if start < 0:
            return None
        end = self.text.find(b"\n", start + 1)
        line = self.text[start + 1 :] if end < 0 else self.text[start + 1 : end]
        return _parse(line)  # type: ignore[no-any-return]

    def alone(self, path: list[str]) -> NodeRecord | None:
        """Return a node's record, if it takes nothing from the nodes above or below it."""
        above = [self.record(path[:depth]) for depth in range(len(path))]
        if any(record is None or record["variables"] for record in above):
            return None
        return None if self.has_below(path) else self.record(path)

    def has_below(self, path: list[str]) -> bool:
        """Return whether there are nodes below the one of that path."""
        return self.text.find(b'\n{"path":' + _dump(path)[:-1] + b",") >= 0

    def names_below(self, path: list[str]) -> list[str]:
        """Return the names of the nodes right below the one of that path, in their order."""
        above = _dump(path)[:-1] + b"," if path else b"["
        found = re.findall(re.escape(b'\n{"path":' + above) + _NAME + rb"\],", self.text)
        return [*map(str, _parse(b"[" + b",".join(found) + b"]"))]


_NAME = rb'("(?:[^"\\]|\\.)*")'


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the catalogue of the file is no JSON: {error}") from error


def _dump(value: Any) -> bytes:
    return _COMPACT.encode(value).encode()


_COMPACT = json.JSONEncoder(separators=(",", ":"))


def catalogue_text(header: dict[str, Any], records: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the text of a catalogue, or of what changed in one."""
    return b"\n".join(map(_dump, (header, *records)))


def write_catalogue(
    path: Path, header: dict[str, Any], records: list[NodeRecord], values: bytes
) -> None:
    """Put a catalogue after the end of a closed HDF5 file, in the place of any other."""
    append_first(path, catalogue_text(header, records), values)


def catalogue_of(file: int, path: Path) -> Catalogue | None:
    """Return the catalogue of an open file, or None where it has none that still holds.

    Warns
    -----
    DamageWarning
        If it has one that is damaged or cut short.

    Raises
    ------
    FormatError
        If the file is not HDF5, or is of another version of labtree's format.
    """
    start = read_at(file, SUPERBLOCK_SIZE, 0)
    if not start.startswith(SIGNATURE):
        raise FormatError(_foreign(path, start))
    _check_version(file, path)
    for pause_s in (0.001, 0.01, None):
        try:
            last = last_record(file)
            if last is None:
                return None
            chain = read_chain(file, last)
            parts = [(record.text(file), record.values(file)) for record in chain]
            with damage_as_format_error(path, "its catalogue"):
                return merged(parts)._replace(last=last)
        except FormatError as error:
            if pause_s is None:
                _warn_of_damage(path, error)
                return None
            time.sleep(pause_s)  # a change may be replacing these very bytes
    raise AssertionError("unreachable")


def file_version(path: Path) -> Hashable:
    """Return what changes when a file does: its last record, or else its time and size.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    """
    known = identity(path)
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        return last_record(file) or known
    except FormatError:
        return known
    finally:
        os.close(file)


def merged(parts: list[tuple[bytes, bytes]]) -> Catalogue:
    """Return one catalogue of the text and values of a whole one and its changes."""
    (text, values), *changes = parts
    if not changes:
        return Catalogue(_parse(text.partition(b"\n")[0]), text, values)
    header: dict[str, Any] = {}
    nodes: dict[tuple[str, ...], NodeRecord] = {}
    joined = bytearray()
    for part, copies in parts:
        header, *records = _parse(b"[" + part.replace(b"\n", b",") + b"]")
        for record in records:
            path = tuple(record["path"])
            if record.get("removed"):
                nodes = {key: each for key, each in nodes.items() if key[: len(path)] != path}
                continue
            nodes[path] = shift_inline(record, len(joined))
        joined += copies
    # A node that was removed and made again may stand before one that is above it.
    ordered = sorted(nodes.values(), key=lambda record: len(record["path"]))
    return Catalogue(header, catalogue_text(header, ordered), bytes(joined))


def _check_version(file: int, path: Path) -> None:
    """Refuse a file of another version, which tells it at its end or after HDF5's."""
    size = os.fstat(file).st_size
    tail = read_at(file, _OLD_FOOTER, max(0, size - _OLD_FOOTER))
    if tail.startswith(_OLD_MAGIC) and tail[8:12] == b"\1\0\0\0":
        check_version(1, VERSION, path)
    end = int.from_bytes(read_at(file, 8, 28), "little")
    head = read_at(file, 12, end) if SUPERBLOCK_SIZE < end < size else b""
    if head.startswith(_OLD_MAGIC) and len(head) == 12:
        check_version(int.from_bytes(head[8:], "little"), VERSION, path)


def _warn_of_damage(path: Path, error: Exception) -> None:
    warn(
        f"{path}: labtree's catalogue after the end of the HDF5 file is damaged or cut short "
        f"({error}); the file is read without it, more slowly. To find all damage, run "
        f"labtree verify {path}",
        DamageWarning,
    )


def _foreign(path: Path, start: bytes) -> str:
    known = {
        b"": "an empty file",
        b"PK": "a zip archive",
        b"CDF": "a netCDF-3 file; open it with xarray.open_dataset",
        b"{": "a JSON file; the workspace is the .h5 file beside it",
        b"\x1f\x8b": "a gzip archive",
    }
    for magic, what in known.items():
        if start.startswith(magic) and (magic or not start):
            return f"{path} is {what}, not a workspace (HDF5)"
    return (
        f"{path} is not a workspace: it begins with {start[:8]!r}, an HDF5 file with "
        f"{SIGNATURE!r}"
    )
