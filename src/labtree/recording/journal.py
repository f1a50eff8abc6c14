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
# A packet beyond this is written as several records, still as a whole.
_RECORD_BYTES = 64 * 2**20
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
        self.largest = 0  # rows of the longest record
        # (path, first row) of every segment so far, and the bytes of those that are full.
        self.files: list[tuple[Path, int]] = []
        self.sizes: list[int] = []
        # Segment, its good bytes, and the rows so far: set in one go when a packet is in,
        # so that neither an interrupt nor the thread that follows sees half of it.
        self.end = (-1, 0, 0)
        self._fs = fs
        self._durable = durable
        self._synced = 0
        self._file: Any = None
        self._start_segment()

    @property
    def rows(self) -> int:
        """Rows in the journal."""
        return self.end[2]

    def append(self, times: np.ndarray, data: np.ndarray) -> None:
        """Write one packet: contiguous little-endian ``times`` and ``data``, checked."""
        if self._file is None or self.end[1] >= SEGMENT_BYTES:
            self._start_segment()
        segment, size, rows = self.end
        if self._file.tell() != size:  # an earlier append was interrupted
            self._back()
        step = max(1, _RECORD_BYTES // (8 + self.n_channels * self.dtype.itemsize))
        for first in range(0, len(times), step):
            part = slice(first, first + step)
            size += self._write_record(times[part], data[part], rows + first)
        self.largest = max(self.largest, min(step, len(times)))
        self.end = (segment, size, rows + len(times))

    def size(self, segment: int) -> int:
        """Return the good bytes of a segment so far (from another thread)."""
        last, size, _ = self.end
        return size if segment == last else self.sizes[segment]

    def sync(self) -> None:
        """Wait until everything appended so far is on the disk (from another thread)."""
        count = len(self.files)
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
        _, size, rows = self.end
        path = self.folder / f"{rows:020d}.journal"
        header = json.dumps(
            {"dtype": self.dtype.str, "n_channels": self.n_channels, "fs": self._fs}
        ).encode()
        # A segment of this name can only be one that took no sample: its start had failed.
        self._file = path.open("wb", buffering=0)
        if not self.files or self.files[-1][0] != path:
            if len(self.sizes) < len(self.files):
                self.sizes.append(size)
            self.files.append((path, rows))
        self.end = (len(self.files) - 1, 0, rows)
        head = _SEGMENT_HEADER.pack(_SEGMENT_MAGIC, len(header), zlib.crc32(header)) + header
        self._write(head)
        if self._durable:
            sync_folder(self.folder)
        self.end = (len(self.files) - 1, len(head), rows)

    def _write_record(self, times: np.ndarray, data: np.ndarray, first_row: int) -> int:
        start = _RECORD_START.pack(_RECORD_MAGIC, len(times), first_row)
        time_bytes, data_bytes = times.data.cast("B"), data.data.cast("B")
        crc = zlib.crc32(data_bytes, zlib.crc32(time_bytes, zlib.crc32(start)))
        record = b"".join((start, struct.pack("<II", crc, 0), time_bytes, data_bytes))
        self._write(record)
        return len(record)

    def _write(self, content: bytes) -> None:
        file = self._file
        try:
            written = file.write(content)
            while written < len(content):  # a full disk takes a part first
                written += file.write(memoryview(content)[written:])
            if self._durable:
                os.fsync(file.fileno())
        except BaseException:
            self._back()
            raise

    def _back(self) -> None:
        """Go back to the last whole packet.

        Where even that fails, the next packet goes to a new segment, and the torn record
        here ends this one for every reader.
        """
        size = self.end[1]
        try:
            self._file.truncate(size)
            self._file.seek(size)
        except OSError:
            self.close()
        if size == 0:
            self.close()


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
