"""The catalogue at the end of a file: what is in it, and where.

It stands behind the last byte that belongs to HDF5, as a zip archive's directory
does, so that one read from the end of the file tells everything. HDF5 ignores it.
A program that changes the file through HDF5 cuts it off when it closes the file; one
that was stopped before that is noticed by the checksum of the HDF5 superblock.

Layout, from the end of the file backwards: a footer of 48 bytes (magic, version,
checksums and sizes); the text, a JSON header and then a JSON record a node, each on a
line of its own, so that one record is found without reading the others; and the values
of small index coordinates.
"""

import json
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from labtree.errors import FormatError

__all__ = ["MAGIC", "VERSION", "Catalogue", "read_catalogue", "write_catalogue"]

#: The first bytes of the footer.
MAGIC = b"labtree\n"
#: The format that this version writes, and the newest that it reads.
VERSION = 1

# magic, version, crc of text, crc of values, crc of superblock, sizes of text and values
_FOOTER = struct.Struct("<8sIIIIQQ8x")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = 48


class Catalogue(NamedTuple):
    """The content of a catalogue: its header, its text, and values of index coordinates."""

    header: dict[str, Any]
    text: bytes
    values: bytes

    def records(self) -> list[dict[str, Any]]:
        """Return the records of all nodes, parents before children."""
        lines = self.text.split(b"\n")[1:]
        return _parse(b"[" + b",".join(lines) + b"]")  # type: ignore[no-any-return]

    def record(self, path: list[str]) -> dict[str, Any] | None:
        """Return the record of one node, or None; the others are not parsed."""
        start = self.text.find(b'\n{"path":' + _dump(path) + b",")
        if start < 0:
            return None
        end = self.text.find(b"\n", start + 1)
        line = self.text[start + 1 :] if end < 0 else self.text[start + 1 : end]
        return _parse(line)  # type: ignore[no-any-return]

    def alone(self, path: list[str]) -> dict[str, Any] | None:
        """Return a node's record, if it takes nothing from the nodes above or below it."""
        above = [self.record(path[:depth]) for depth in range(len(path))]
        if any(record is None or record["variables"] for record in above):
            return None
        return None if self.has_below(path) else self.record(path)

    def has_below(self, path: list[str]) -> bool:
        """Say whether there are nodes below the one of that path."""
        return self.text.find(b'\n{"path":' + _dump(path)[:-1] + b",") >= 0


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the catalogue of the file is no JSON: {error}") from error


def _dump(value: Any) -> bytes:
    return _COMPACT.encode(value).encode()


_COMPACT = json.JSONEncoder(separators=(",", ":"))


def write_catalogue(
    path: Path, header: dict[str, Any], records: list[dict[str, Any]], values: bytes
) -> None:
    """Append a catalogue to a closed HDF5 file."""
    text = b"\n".join(map(_dump, (header, *records)))
    with path.open("rb+") as file:
        superblock = zlib.crc32(file.read(_SUPERBLOCK))
        file.seek(0, 2)
        file.write(values)
        file.write(text)
        checks = zlib.crc32(text), zlib.crc32(values), superblock
        file.write(_FOOTER.pack(MAGIC, VERSION, *checks, len(text), len(values)))


def read_catalogue(path: Path) -> Catalogue | None:
    """Return the catalogue of a file, or None where it has none that still holds.

    Raises
    ------
    FormatError
        If the file is not HDF5, or its catalogue is of a newer version.
    """
    with path.open("rb") as file:
        superblock = file.read(_SUPERBLOCK)
        if not superblock.startswith(_HDF5):
            raise FormatError(_foreign(path, superblock))
        size = file.seek(0, 2)
        if size < _SUPERBLOCK + _FOOTER.size:
            return None
        # One read fetches the footer and, in all but the largest files, what it tells of.
        start = max(0, size - (1 << 16))
        file.seek(start)
        tail = file.read()
        fields = _FOOTER.unpack(tail[-_FOOTER.size :])
        magic, version, text_crc, values_crc, superblock_crc, text_size, values_size = fields
        if magic != MAGIC:
            return None
        if version > VERSION:
            raise FormatError(
                f"{path}: written in format version {version}; this labtree reads up to "
                f"version {VERSION}. Update labtree: pip install --upgrade labtree"
            )
        needed = _FOOTER.size + text_size + values_size
        if needed > size - _SUPERBLOCK or zlib.crc32(superblock) != superblock_crc:
            return None
        if needed > len(tail):
            file.seek(size - needed)
            tail = file.read()
    block = tail[len(tail) - needed : len(tail) - _FOOTER.size]
    values, text = block[:values_size], block[values_size:]
    if zlib.crc32(text) != text_crc or zlib.crc32(values) != values_crc:
        return None
    return Catalogue(_parse(text.partition(b"\n")[0]), text, values)


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
        f"{path} is not a workspace: it begins with {start[:8]!r}, an HDF5 file with {_HDF5!r}"
    )
