"""The journal: samples in the order they came, one sequential write per packet.

A stream's journal is a folder of segments, ``<first row>.journal``. A segment is a
header (magic, length and CRC-32 of a JSON object with dtype, n_channels, fs and the name of
the payloads' checksum) and then records: a header (magic, number of rows, first row, arrival
time, checksum of the payload, CRC-32 of this header) and the payload, which is the time
stamps (float64) and the samples (rows x channels). All numbers are little-endian.

Payloads have a CRC-32C, which processors compute some ten times as fast as zlib its CRC-32.

A record whose header is whole and whose payload is cut short by the end of the file is an
append that never returned. Anything else that does not check out is damage: reading goes
on at the next record whose header is right.
"""

import contextlib
import json
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from labtree.errors import FormatError
from labtree.storage.blobs import checksum
from labtree.storage.files import read_file, sync_file, sync_folder
from labtree.storage.json_files import parse_json
from labtree.storage.versions import check_version

_SEGMENT_MAGIC = b"LTJRNL\x00"
_VERSION = 3
# Version 2 names no checksum; it is CRC-32.
_KNOWN_VERSIONS = (2, _VERSION)
_SEGMENT_HEADER = struct.Struct("<8sII")
_RECORD_MAGIC = int.from_bytes(b"LTrc", "little")
_RECORD_START = struct.Struct("<IIQdI")
_RECORD_HEADER = struct.Struct("<IIQdII")
RECORD_HEADER_BYTES = _RECORD_HEADER.size
# A segment that has grown beyond this is followed by a new one.
SEGMENT_BYTES = 32 * 2**20
# A packet beyond this is written as several records, still as a whole.
_RECORD_BYTES = 64 * 2**20
# What no packet may exceed, so that no segment exceeds it by much.
MOST_PACKET_BYTES = 2**30
_MOST_SEGMENT_BYTES = MOST_PACKET_BYTES + 2**27
# Records beyond this are written in two calls rather than copied together.
_JOINED_BYTES = 2**19
_RUN = 512
_KINDS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64")


# The dtype of samples, and of how many channels they are.
Samples = tuple[np.dtype[Any], int]
# Of a payload, and of what stands before it.
Checksum = Callable[..., int]


def _crc32c(payload: Any, before: int = 0) -> int:
    return checksum(np.frombuffer(payload, np.uint8), before)


_CHECKSUMS: dict[str, Checksum] = {"crc32": zlib.crc32, "crc32c": _crc32c}
# In plain Python, where the library has no compiled part, it would take milliseconds.
_CHECKSUM = "crc32c" if google_crc32c.implementation == "c" else "crc32"


class Block(NamedTuple):
    """Samples in a row: ``times``, ``arrivals`` (rows,) in s and ``data`` (rows, channels).

    The arrival of a sample is that of its packet, on the recorder's clock.
    """

    times: np.ndarray
    data: np.ndarray
    arrivals: np.ndarray

    def from_row(self, row: int) -> "Block":
        """Return the samples from ``row`` on."""
        return Block(self.times[row:], self.data[row:], self.arrivals[row:])


class Run(NamedTuple):
    """Records of equal length, one after the other, as they lie in the file.

    ``times`` (records, rows), ``data`` (records, rows, channels), ``arrivals`` (records,).
    """

    times: np.ndarray
    data: np.ndarray
    arrivals: np.ndarray

    @property
    def rows(self) -> int:
        """Samples in all."""
        return self.times.size

    def block(self) -> Block:
        """Return the samples in a row."""
        records, rows = self.times.shape
        return Block(
            self.times.reshape(-1),
            self.data.reshape(records * rows, -1),
            np.repeat(self.arrivals, rows),
        )


class Segment(NamedTuple):
    """What one segment holds: (first row, samples) of every stretch, and what is odd.

    ``torn`` bytes at the end are an append that never returned, ``damage`` is (after which
    row, how many bytes) of every place that does not check out. One that is not begun has
    no header yet.
    """

    first_row: int
    stretches: list[tuple[int, Block]]
    torn: int
    damage: list[tuple[int, int]]
    is_begun: bool = True


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
        self._in_append = False
        self._file: Any = None
        self._record = memoryview(bytearray(2**16))
        self._start_segment()
        if durable:
            sync_folder(folder.parent)

    @property
    def rows(self) -> int:
        """Rows in the journal."""
        return self.end[2]

    def append(self, times: np.ndarray, data: np.ndarray, arrival: float) -> None:
        """Write one packet: contiguous little-endian ``times`` and ``data``, checked."""
        payload = times.nbytes + data.nbytes
        if payload <= _JOINED_BYTES:
            if len(self._record) < RECORD_HEADER_BYTES + payload:
                self._record = memoryview(bytearray(RECORD_HEADER_BYTES + payload))
            start = RECORD_HEADER_BYTES + times.nbytes
            self._record[RECORD_HEADER_BYTES:start] = _bytes_of(times)
            self._record[start : start + data.nbytes] = _bytes_of(data)
            self._append_record(len(times), RECORD_HEADER_BYTES + payload, arrival)
            return
        segment, size, rows = self._begin()
        step = max(1, _RECORD_BYTES // (8 + self.n_channels * self.dtype.itemsize))
        for first in range(0, len(times), step):
            part = slice(first, first + step)
            size += self._write_record(times[part], data[part], rows + first, arrival)
        self._end(min(step, len(times)), (segment, size, rows + len(times)))

    def append_bytes(self, count: int, payload: bytes, arrival: float) -> None:
        """Write one packet of ``count`` rows, given as a record holds them: times, samples."""
        stop = RECORD_HEADER_BYTES + len(payload)
        self._record[RECORD_HEADER_BYTES:stop] = payload
        self._append_record(count, stop, arrival)

    def _append_record(self, count: int, stop: int, arrival: float) -> None:
        """Write the record of which everything but its header stands in the buffer."""
        segment, size, rows = self._begin()
        record = self._record[:stop]
        code = _CHECKSUMS[_CHECKSUM](record[RECORD_HEADER_BYTES:])
        record[:RECORD_HEADER_BYTES] = _record_header(count, rows, arrival, code)
        self._write(record)
        self._end(count, (segment, size + stop, rows + count))

    def _begin(self) -> tuple[int, int, int]:
        if self._in_append and self._file is not None:  # the last one was interrupted
            self._back()
        if self._file is None or self.end[1] >= SEGMENT_BYTES:
            self._start_segment()
        self._in_append = True
        return self.end

    def _end(self, largest: int, end: tuple[int, int, int]) -> None:
        if self._durable:
            self._sync_or_back()
        if largest > self.largest:
            self.largest = largest
        self.end = end
        self._in_append = False

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
        """Close the file; the journal stays on disk."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _start_segment(self) -> None:
        self.close()
        _, size, rows = self.end
        path = self.folder / f"{rows:020d}.journal"
        header = json.dumps(
            {
                "dtype": self.dtype.str,
                "n_channels": self.n_channels,
                "fs": self._fs,
                "checksum": _CHECKSUM,
            }
        ).encode()
        # A segment of this name can only be one that took no sample: its start had failed.
        self._file = path.open("wb", buffering=0)
        if not self.files or self.files[-1][0] != path:
            if len(self.sizes) < len(self.files):
                self.sizes.append(size)
            self.files.append((path, rows))
        self.end = (len(self.files) - 1, 0, rows)
        magic = _SEGMENT_MAGIC + bytes([_VERSION])
        head = _SEGMENT_HEADER.pack(magic, len(header), zlib.crc32(header)) + header
        self._write(head)
        if self._durable:
            self._sync_or_back()
            sync_folder(self.folder)
        self.end = (len(self.files) - 1, len(head), rows)

    def _write_record(
        self, times: np.ndarray, data: np.ndarray, first_row: int, arrival: float
    ) -> int:
        time_bytes, data_bytes = _bytes_of(times), _bytes_of(data)
        sum_of = _CHECKSUMS[_CHECKSUM]
        code = sum_of(data_bytes, sum_of(time_bytes))
        self._write(_record_header(len(times), first_row, arrival, code) + time_bytes)
        self._write(data_bytes)
        return RECORD_HEADER_BYTES + len(time_bytes) + len(data_bytes)

    def _write(self, content: bytes | memoryview) -> None:
        file = self._file
        try:
            written = file.write(content)
            while written < len(content):  # a full disk takes a part first
                written += file.write(memoryview(content)[written:])
        except BaseException:
            self._back()
            raise

    def _sync_or_back(self) -> None:
        try:
            os.fsync(self._file.fileno())
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


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _record_header(rows: int, first_row: int, arrival: float, payload: int) -> bytes:
    start = _RECORD_START.pack(_RECORD_MAGIC, rows, first_row, arrival, payload)
    return start + zlib.crc32(start).to_bytes(4, "little")


@lru_cache(maxsize=64)
def _record_layout(rows: int, dtype: str, n_channels: int) -> np.dtype[Any]:
    return np.dtype(
        [
            ("magic", "<u4"),
            ("rows", "<u4"),
            ("first", "<u8"),
            ("arrival", "<f8"),
            ("payload", "<u4"),
            ("header", "<u4"),
            ("times", "<f8", (rows,)),
            ("data", dtype, (rows, n_channels)),
        ]
    )


def parse_records(
    buffer: memoryview,
    dtype: np.dtype[Any],
    n_channels: int,
    first_row: int,
    sum_of: Checksum | None = None,
) -> Iterator[tuple[int, Run]]:
    """Yield (bytes, records) for each run of equally long whole records in ``buffer``.

    Stops at the first record that is not whole, does not carry on from ``first_row``, or,
    where the payloads' checksum is given, fails it or that of its header.
    """
    offset = 0
    while len(buffer) - offset >= RECORD_HEADER_BYTES:
        magic, rows, first, *_ = _RECORD_HEADER.unpack_from(buffer, offset)
        size = RECORD_HEADER_BYTES + rows * (8 + n_channels * dtype.itemsize)
        count = min((len(buffer) - offset) // size, _RUN)
        if magic != _RECORD_MAGIC or rows == 0 or first != first_row or count == 0:
            return
        records = np.frombuffer(
            buffer, _record_layout(rows, dtype.str, n_channels), count, offset
        )
        expected = np.uint64(first_row) + np.uint64(rows) * np.arange(count, dtype="u8")
        good = (
            (records["magic"] == _RECORD_MAGIC)
            & (records["rows"] == rows)
            & (records["first"] == expected)
        )
        run = count if good.all() else int(np.argmin(good))
        if sum_of is not None:
            run = _verified(buffer, offset, size, run, sum_of)
        if run == 0:
            return
        yield (
            run * size,
            Run(records["times"][:run], records["data"][:run], records["arrival"][:run]),
        )
        offset += run * size
        first_row += run * rows


def _verified(buffer: memoryview, offset: int, size: int, count: int, sum_of: Checksum) -> int:
    """Return how many of ``count`` records have the right checksums."""
    for index in range(count):
        at = offset + index * size
        *_, payload, header = _RECORD_HEADER.unpack_from(buffer, at)
        if zlib.crc32(buffer[at : at + _RECORD_START.size]) != header:
            return index
        if sum_of(buffer[at + RECORD_HEADER_BYTES : at + size]) != payload:
            return index
    return count


def header_size(start: bytes) -> int:
    """Return where the records begin in a segment that begins with ``start``."""
    return _SEGMENT_HEADER.size + int(_SEGMENT_HEADER.unpack_from(start)[1])


def segments(folder: Path) -> list[tuple[Path, int]]:
    """Return (path, first row) of a journal's segments, in order."""
    found = [
        (path, int(path.stem))
        for path in folder.iterdir()
        if path.suffix == ".journal"
        and path.stem.isdecimal()
        and not path.name.startswith("._")
    ]
    return sorted(found, key=lambda segment: segment[1])


def read_segment(path: Path, like: Callable[[], Samples] | None = None) -> Segment:
    """Read one segment, each record checked.

    Parameters
    ----------
    path
        The segment.
    like
        Says what the samples are where the header is damaged; without it such a segment is
        damage as a whole.

    Raises
    ------
    FormatError
        If it is of a version, or describes samples, that are not known here.
    """
    buffer = memoryview(read_file(path, _MOST_SEGMENT_BYTES))
    first_row = int(path.stem)
    if len(buffer) < _SEGMENT_HEADER.size and _SEGMENT_MAGIC.startswith(bytes(buffer[:7])):
        return Segment(first_row, [], 0, [], is_begun=False)
    if len(buffer) < _SEGMENT_HEADER.size:
        return Segment(first_row, [], 0, [(first_row, len(buffer))])
    magic, length, crc = _SEGMENT_HEADER.unpack_from(buffer)
    header = bytes(buffer[_SEGMENT_HEADER.size : _SEGMENT_HEADER.size + length])
    if is_ours := magic[:7] == _SEGMENT_MAGIC:
        check_version(magic[7], _KNOWN_VERSIONS, path)
    position, row = _SEGMENT_HEADER.size + length, first_row
    stretches: list[tuple[int, Block]] = []
    damage: list[tuple[int, int]] = []
    if is_ours and zlib.crc32(header) == crc:
        dtype, n_channels, sum_of = _described(parse_json(header, str(path)), path)
    else:
        begin = _next_record(buffer, 0, first_row)
        if begin is None and is_ours and len(header) < length:
            return Segment(first_row, [], 0, [], is_begun=False)
        if begin is None or like is None:
            # What a power cut leaves of a segment that was just begun, or worse.
            return Segment(first_row, [], 0, [(first_row, len(buffer))])
        damage.append((row, begin[0]))
        position, row = begin
        dtype, n_channels = like()
        sum_of = _fitting_checksum(buffer[position:], dtype, n_channels, row)
    while True:
        runs = list(parse_records(buffer[position:], dtype, n_channels, row, sum_of))
        if runs:
            stretches.append((row, joined([run.block() for _, run in runs])))
            position += sum(size for size, _ in runs)
            row += sum(run.rows for _, run in runs)
        left = len(buffer) - position
        if left == 0 or _is_torn(buffer[position:], dtype, n_channels, row):
            return Segment(first_row, stretches, left, damage)
        following = _next_record(buffer, position + 1, row)
        if following is None:
            return Segment(first_row, stretches, 0, [*damage, (row, left)])
        damage.append((row, following[0] - position))
        position, row = following


def _fitting_checksum(
    buffer: memoryview, dtype: np.dtype[Any], n_channels: int, row: int
) -> Checksum:
    """Return the checksum that the record at the start of ``buffer`` has."""
    for sum_of in _CHECKSUMS.values():
        if next(parse_records(buffer, dtype, n_channels, row, sum_of), None):
            return sum_of
    return _CHECKSUMS[_CHECKSUM]


def _described(about: Any, path: Path) -> tuple[np.dtype[Any], int, Checksum]:
    """Return dtype, channels and the payloads' checksum that a segment's header declares."""
    try:
        dtype, n_channels, fs = np.dtype(about["dtype"]), about["n_channels"], about["fs"]
        good = dtype.name in _KINDS and type(n_channels) is int and 0 < n_channels < 2**24
        good &= type(fs) in (int, float) and 0 <= fs < math.inf
        sum_of = _CHECKSUMS[about.get("checksum", "crc32")]
    except (KeyError, TypeError, ValueError, AttributeError):
        good = False
    if not good:
        raise FormatError(
            f"{path}: expected a journal segment that declares dtype, n_channels and fs, found"
            f" {about!r}"
        )
    return dtype, n_channels, sum_of


def joined(blocks: list[Block]) -> Block:
    """Return the samples of blocks in a row."""
    if len(blocks) == 1:
        return blocks[0]
    return Block(*(np.concatenate(part) for part in zip(*blocks, strict=True)))


def _is_torn(rest: memoryview, dtype: np.dtype[Any], n_channels: int, row: int) -> bool:
    """Return whether the last bytes are the beginning of a record, and no more than that."""
    if len(rest) < RECORD_HEADER_BYTES:
        return True
    magic, rows, first, _, _, crc = _RECORD_HEADER.unpack_from(rest)
    size = RECORD_HEADER_BYTES + rows * (8 + n_channels * dtype.itemsize)
    whole = magic == _RECORD_MAGIC and crc == zlib.crc32(rest[: _RECORD_START.size])
    return bool(whole and first == row and size > len(rest))


def _next_record(buffer: memoryview, start: int, row: int) -> tuple[int, int] | None:
    """Return (position, first row) of the next record header that checks out, or None."""
    content = bytes(buffer[start : start + _RECORD_BYTES + 2**20])
    at = content.find(b"LTrc")
    while at >= 0 and start + at + RECORD_HEADER_BYTES <= len(buffer):
        _, rows, first, _, _, crc = _RECORD_HEADER.unpack_from(buffer, start + at)
        head = buffer[start + at : start + at + _RECORD_START.size]
        # Rows carry on or are lost; no damage makes a row number that no disk could hold.
        if zlib.crc32(head) == crc and rows > 0 and row <= first < row + 2**40:
            return start + at, int(first)
        at = content.find(b"LTrc", at + 1)
    return None
