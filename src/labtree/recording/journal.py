"""The journal: samples in the order they came, one sequential write per packet.

A stream's journal is a folder of segments, ``<first row>.journal``. A segment is a
header (magic, length and CRC-32 of a JSON object with dtype, n_channels and fs) and then
records: magic, number of rows, first row, CRC-32 of these and of the payload, the time
stamps (float64), the samples (rows x channels). All numbers are little-endian. A record
that is cut short or whose CRC is wrong ends the segment.
"""

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labtree.errors import FormatError
from labtree.recording.files import parse_json, sync_file, sync_folder

__all__ = [
    "Block",
    "JournalWriter",
    "Segment",
    "header_size",
    "parse_records",
    "read_segment",
    "segments",
]

_SEGMENT_MAGIC = b"LTJRNL\x00\x01"
_SEGMENT_HEADER = struct.Struct("<8sII")
_RECORD_MAGIC = int.from_bytes(b"LTrc", "little")
_RECORD_START = struct.Struct("<IIQ")
_RECORD_HEADER = struct.Struct("<IIQII")
# A segment that has grown beyond this is followed by a new one.
SEGMENT_BYTES = 32 * 2**20
_RUN = 512


class Block(NamedTuple):
    """Samples in a row: ``times`` (rows,) float64 s and ``data`` (rows, channels)."""

    times: np.ndarray
    data: np.ndarray


class Segment(NamedTuple):
    """What one segment holds, and the bytes behind its last good record.

    ``torn`` says that these are a record cut short: a packet whose `append` never returned.
    """

    first_row: int
    block: Block
    fs: float
    bytes_left: int
    torn: bool


class JournalWriter:
    """Appends packets of one stream; a packet is in the journal whole or not at all.

    Parameters
    ----------
    folder
        The stream's journal folder; made here.
    dtype, n_channels, fs
        Of the samples, as declared.
    durable
        Wait for the disk (fsync) at every packet.
    """

    def __init__(
        self,
        folder: Path,
        dtype: np.dtype[Any],
        n_channels: int,
        fs: float,
        *,
        durable: bool = False,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.dtype = dtype
        self.n_channels = n_channels
        self.rows = 0
        # (path, first row) of every segment so far, and the good bytes of each of them;
        # the reader in the background looks at `sizes` only after `append` has set it.
        self.files: list[tuple[Path, int]] = []
        self.sizes: list[int] = []
        self._fs = fs
        self._durable = durable
        self.largest = 0  # rows of the longest packet
        self._synced = 0
        self._file: Any = None
        self._start_segment()

    def append(self, times: np.ndarray, data: np.ndarray) -> None:
        """Write one packet: contiguous little-endian ``times`` and ``data``, checked."""
        if self._file is None or self.sizes[-1] >= SEGMENT_BYTES:
            self._start_segment()
        start = _RECORD_START.pack(_RECORD_MAGIC, len(times), self.rows)
        time_bytes, data_bytes = times.data.cast("B"), data.data.cast("B")
        crc = zlib.crc32(data_bytes, zlib.crc32(time_bytes, zlib.crc32(start)))
        record = b"".join((start, struct.pack("<II", crc, 0), time_bytes, data_bytes))
        self._write(record)
        self.largest = max(self.largest, len(times))
        self.rows += len(times)
        self.sizes[-1] += len(record)

    def sync(self) -> None:
        """Wait until everything appended so far is on the disk (from another thread)."""
        count = len(self.sizes)
        for path, _ in self.files[self._synced : count]:
            # A segment that is gone has its samples in zarr, and those are on the disk.
            with contextlib.suppress(FileNotFoundError):
                sync_file(path)
        sync_folder(self.folder)
        self._synced = count - 1

    def close(self) -> None:
        """Let go of the file; the journal stays on disk."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _start_segment(self) -> None:
        self.close()
        path = self.folder / f"{self.rows:020d}.journal"
        header = json.dumps(
            {"dtype": self.dtype.str, "n_channels": self.n_channels, "fs": self._fs}
        ).encode()
        # A segment of this name can only be one that took no sample: its start had failed.
        self._file = path.open("wb", buffering=0)
        if not self.files or self.files[-1][0] != path:
            self.files.append((path, self.rows))
            self.sizes.append(0)
        self.sizes[-1] = 0
        head = _SEGMENT_HEADER.pack(_SEGMENT_MAGIC, len(header), zlib.crc32(header)) + header
        self._write(head)
        self.sizes[-1] = len(head)
        if self._durable:
            sync_folder(self.folder)

    def _write(self, content: bytes) -> None:
        file = self._file
        try:
            written = file.write(content)
            while written < len(content):  # a full disk takes a part first
                written += file.write(memoryview(content)[written:])
            if self._durable:
                os.fsync(file.fileno())
        except BaseException:
            # Back to the last whole packet. Where even that fails, the next packet goes
            # to a new segment, and the torn record here ends this one for every reader.
            try:
                file.truncate(self.sizes[-1])
                file.seek(self.sizes[-1])
            except OSError:
                self.close()
            if self.sizes[-1] == 0:
                self.close()
            raise


@lru_cache(maxsize=64)
def _record_layout(rows: int, dtype: str, n_channels: int) -> np.dtype[Any]:
    return np.dtype(
        [
            ("magic", "<u4"),
            ("rows", "<u4"),
            ("first", "<u8"),
            ("crc", "<u4"),
            ("spare", "<u4"),
            ("times", "<f8", (rows,)),
            ("data", dtype, (rows, n_channels)),
        ]
    )


def parse_records(
    buffer: memoryview, dtype: np.dtype[Any], n_channels: int, first_row: int, *, verify: bool
) -> Iterator[tuple[int, Block]]:
    """Yield (bytes, samples) for each run of equally long whole records in ``buffer``.

    Stops at the first record that is not whole, does not carry on from ``first_row``, or,
    where ``verify`` asks for it, fails its CRC.
    """
    offset = 0
    while len(buffer) - offset >= _RECORD_HEADER.size:
        magic, rows, first, _, _ = _RECORD_HEADER.unpack_from(buffer, offset)
        size = _RECORD_HEADER.size + rows * (8 + n_channels * dtype.itemsize)
        count = min((len(buffer) - offset) // size, _RUN)
        if magic != _RECORD_MAGIC or rows == 0 or first != first_row or count == 0:
            return
        layout = _record_layout(rows, dtype.str, n_channels)
        records = np.frombuffer(buffer, layout, count, offset)
        expected = np.uint64(first_row) + np.uint64(rows) * np.arange(count, dtype="u8")
        good = (
            (records["magic"] == _RECORD_MAGIC)
            & (records["rows"] == rows)
            & (records["first"] == expected)
        )
        if verify:
            for index in range(count):
                at = offset + index * size
                crc = zlib.crc32(buffer[at : at + _RECORD_START.size])
                crc = zlib.crc32(buffer[at + _RECORD_HEADER.size : at + size], crc)
                good[index] &= crc == records["crc"][index]
        run = count if good.all() else int(np.argmin(good))
        if run == 0:
            return
        times = records["times"][:run].reshape(-1)
        data = records["data"][:run].reshape(-1, n_channels)
        yield run * size, Block(times, data)
        offset += run * size
        first_row += run * rows


def header_size(start: bytes) -> int:
    """Return where the records begin in a segment that begins with ``start``."""
    return _SEGMENT_HEADER.size + int(_SEGMENT_HEADER.unpack_from(start)[1])


def segments(folder: Path) -> list[tuple[Path, int]]:
    """Return (path, first row) of a journal's segments, in order."""
    found = [
        (path, int(path.stem))
        for path in folder.iterdir()
        if path.suffix == ".journal" and path.stem.isdecimal()
    ]
    return sorted(found, key=lambda segment: segment[1])


def read_segment(path: Path) -> Segment | None:
    """Read one segment, each record checked; None if it was never given its header.

    Raises
    ------
    FormatError
        If the file is no journal segment, or of a version that is not known here.
    """
    buffer = memoryview(path.read_bytes())
    if len(buffer) < _SEGMENT_HEADER.size:
        return None
    magic, length, crc = _SEGMENT_HEADER.unpack_from(buffer)
    header = bytes(buffer[_SEGMENT_HEADER.size : _SEGMENT_HEADER.size + length])
    if magic[:7] == _SEGMENT_MAGIC[:7] and magic != _SEGMENT_MAGIC:
        raise FormatError(f"{path}: journal version {magic[7]}, this labtree reads version 1")
    if magic == _SEGMENT_MAGIC and len(header) < length:
        return None
    if magic != _SEGMENT_MAGIC or zlib.crc32(header) != crc:
        raise FormatError(f"{path}: not a journal segment; it begins with {bytes(magic)!r}")
    about = parse_json(header, str(path))
    dtype, n_channels, fs = np.dtype(about["dtype"]), about["n_channels"], about["fs"]
    first_row = int(path.stem)
    position = _SEGMENT_HEADER.size + length
    times = [np.empty(0)]
    data = [np.empty((0, n_channels), dtype)]
    rows = parse_records(buffer[position:], dtype, n_channels, first_row, verify=True)
    for size, block in rows:
        position += size
        times.append(block.times)
        data.append(block.data)
    rest = buffer[position:]
    torn = len(rest) < _RECORD_HEADER.size
    if not torn:
        found, count, *_ = _RECORD_HEADER.unpack_from(rest)
        size = _RECORD_HEADER.size + count * (8 + n_channels * dtype.itemsize)
        torn = found == _RECORD_MAGIC and size > len(rest)
    block = Block(np.concatenate(times), np.concatenate(data))
    return Segment(first_row, block, fs, len(rest), torn)
