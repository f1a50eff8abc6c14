r"""Records after the end of an HDF5 file: the catalogue, and what still has to be written.

HDF5 keeps the address of its end in the superblock and ignores what stands after it. A file
of labtree has a *record* at exactly that address, and may have further ones after the first:
each is a change of the file that was committed but whose bytes may not all stand in the place
where HDF5 looks for them. A program that changes the file through HDF5 cuts all records off
when it closes the file, so a record that is there belongs to the file as it is.

Layout, little-endian. The first record stands at the end-of-file address of the superblock;
after it may follow, any number of times, a *head*, new bytes of HDF5, and a record:

======== =========================================================================
head     ``labtree+``, transaction (u64), size of HDF5's new bytes (u64), CRC-32C of
         these 24 bytes (u32), four zero bytes
record   ``labtree\n``, version (u32), 1 if the catalogue is whole or 0 if it says what
         changed (u32), the file's random id (16 bytes), transaction (u64), place of this
         record (u64), place of the record that its catalogue builds on (u64, 0 for none),
         where HDF5's new bytes begin (u64), sizes of redo list, values and text (3 u64),
         CRC-32C of redo list, values, text and HDF5's new bytes (4 u32), CRC-32C of all
         the above (u32), four zero bytes; then redo list, values and text
redo     runs of bytes that replace old ones: offset (u64), length (u32), bytes
======== =========================================================================
"""

import os
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from labtree.errors import FormatError

#: The format that this version writes and reads.
VERSION = 2
#: What HDF5 files begin with.
SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUPERBLOCK_SIZE = 48

_MAGIC = b"labtree\n"
_HEADER = struct.Struct("<8sII16sQQQQQQQIIII")
_CHECK = struct.Struct("<I4x")
_HEADER_SIZE = _HEADER.size + _CHECK.size
_HEAD = struct.Struct("<8sQQ")
_HEAD_MAGIC = b"labtree+"
HEAD_SIZE = _HEAD.size + _CHECK.size
_RUN = struct.Struct("<QI")
_BLOCK = 1 << 24


class Record(NamedTuple):
    """One record; see the module for what the numbers mean.

    Attributes
    ----------
    is_whole
        Whether the catalogue stands by itself.
    file_id
        Random, the same in all records of a file.
    transaction
        0 for a file that was written whole, then one more for each change.
    place
        Where the record begins: HDF5's end after this transaction.
    previous
        Place of the record that the catalogue builds on, or 0.
    hdf5_start
        Where the new bytes of HDF5 begin; they end at `place`.
    sizes, sums
        Of redo list, values and text; the sums have that of HDF5's new bytes after them.
    """

    is_whole: bool
    file_id: bytes
    transaction: int
    place: int
    previous: int
    hdf5_start: int
    sizes: tuple[int, int, int]
    sums: tuple[int, int, int, int]

    @property
    def end(self) -> int:
        """The first byte after the record."""
        return self.place + _HEADER_SIZE + sum(self.sizes)

    def redo(self, file: int) -> bytes:
        """Read the redo list."""
        return self._part(file, 0, "redo list")

    def values(self, file: int) -> bytes:
        """Read the values of small index coordinates."""
        return self._part(file, 1, "values")

    def text(self, file: int) -> bytes:
        """Read the text of the catalogue."""
        return self._part(file, 2, "text")

    def _part(self, file: int, part: int, name: str) -> bytes:
        start = self.place + _HEADER_SIZE + sum(self.sizes[:part])
        data = read_at(file, self.sizes[part], start)
        if len(data) < self.sizes[part] or crc32c(data) != self.sums[part]:
            raise FormatError(
                f"the {name} of the catalogue record at byte {self.place} is damaged: its "
                "CRC-32C does not match"
            )
        return data


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """Return the CRC-32C of some bytes."""
    return int(google_crc32c.value(bytes(data)))


def _region_sum(file: int, start: int, stop: int) -> int:
    """Return the CRC-32C of a region of a file; of a shorter one where the file ends."""
    total = 0
    while start < stop:
        data = read_at(file, min(_BLOCK, stop - start), start)
        if not data:
            break
        total = google_crc32c.extend(total, data)
        start += len(data)
    return int(total)


def pack_record(
    file: int,
    *,
    file_id: bytes,
    transaction: int,
    place: int,
    previous: int,
    hdf5_start: int,
    redo: bytes,
    values: bytes,
    text: bytes,
    is_whole: bool,
) -> bytes:
    """Return the bytes of a record; HDF5's new bytes must stand in the file already."""
    parts = (redo, values, text)
    header = _HEADER.pack(
        _MAGIC,
        VERSION,
        int(is_whole),
        file_id,
        transaction,
        place,
        previous,
        hdf5_start,
        *map(len, parts),
        *map(crc32c, parts),
        _region_sum(file, hdf5_start, place) if hdf5_start else 0,
    )
    return header + _CHECK.pack(crc32c(header)) + b"".join(parts)


def pack_head(transaction: int, size: int) -> bytes:
    """Return the head that stands before the new bytes of HDF5."""
    head = _HEAD.pack(_HEAD_MAGIC, transaction, size)
    return head + _CHECK.pack(crc32c(head))


def pack_redo(runs: list[tuple[int, bytes]]) -> bytes:
    """Return runs of bytes, each with its offset, as one redo list."""
    return b"".join(_RUN.pack(offset, len(data)) + data for offset, data in runs)


def unpack_redo(redo: bytes) -> list[tuple[int, bytes]]:
    """Return the runs of a redo list."""
    runs, at = [], 0
    while at < len(redo):
        offset, length = _RUN.unpack_from(redo, at)
        at += _RUN.size
        runs.append((offset, redo[at : at + length]))
        at += length
    return runs


def append_first(path: Path, text: bytes, values: bytes) -> bytes:
    """Put the first record, with a whole catalogue, after a closed new HDF5 file.

    Parameters
    ----------
    path
        A file that HDF5 just closed; its superblock has version 2 or 3.
    text, values
        The catalogue.

    Returns
    -------
    bytes
        The random id of the file.
    """
    file = os.open(path, os.O_RDWR)
    try:
        place = end_of_hdf5(read_at(file, SUPERBLOCK_SIZE, 0))
        if place is None:
            raise FormatError(f"{path}: the superblock of HDF5 is not of version 2 or 3")
        file_id = secrets.token_bytes(16)
        data = pack_record(
            file,
            file_id=file_id,
            transaction=0,
            place=place,
            previous=0,
            hdf5_start=0,
            redo=b"",
            values=values,
            text=text,
            is_whole=True,
        )
        os.ftruncate(file, place)
        write_at(file, data, place)
    finally:
        os.close(file)
    return file_id


def read_at(file: int, size: int, offset: int) -> bytes:
    """Read bytes at an offset of a file; fewer where it ends."""
    if hasattr(os, "pread"):
        return os.pread(file, size, offset)
    os.lseek(file, offset, os.SEEK_SET)
    return os.read(file, size)


def write_at(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of some bytes at an offset of a file."""
    view = memoryview(data)
    while view:
        if hasattr(os, "pwrite"):
            count = os.pwrite(file, view[:_BLOCK], offset)
        else:
            os.lseek(file, offset, os.SEEK_SET)
            count = os.write(file, view[:_BLOCK])
        view, offset = view[count:], offset + count


def end_of_hdf5(superblock: bytes) -> int | None:
    """Return the end-of-file address in a superblock, or None where it is of no known kind.

    Raises
    ------
    FormatError
        If the checksum of the superblock is wrong.
    """
    if len(superblock) < SUPERBLOCK_SIZE or not superblock.startswith(SIGNATURE):
        return None
    version, offsets, lengths = superblock[8:11]
    if version not in (2, 3) or (offsets, lengths) != (8, 8):
        return None
    base, _, end, _, check = struct.unpack("<QQQQI", superblock[12:48])
    if _lookup3(superblock[:44]) != check:
        raise FormatError("the superblock of the HDF5 file is damaged: wrong checksum")
    return None if base else int(end)


def superblock_with_end(superblock: bytes, end: int) -> bytes:
    """Return a superblock with another end-of-file address."""
    body = superblock[:28] + struct.pack("<Q", end) + superblock[36:44]
    return body + struct.pack("<I", _lookup3(body))


def _lookup3(data: bytes) -> int:
    """Return Jenkins' lookup3 hash, the checksum of HDF5's metadata."""
    mask = 0xFFFFFFFF

    def rotated(value: int, bits: int) -> int:
        return ((value << bits) | (value >> (32 - bits))) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    words = struct.unpack(f"<{-(-len(data) // 12) * 3}I", data + b"\0" * (-len(data) % 12))
    for at in range(0, len(words), 3):
        a = (a + words[at]) & mask
        b = (b + words[at + 1]) & mask
        c = (c + words[at + 2]) & mask
        if at + 3 < len(words):
            for left, middle, right in ((4, 6, 8), (16, 19, 4)):
                a = ((a - c) & mask) ^ rotated(c, left)
                c = (c + b) & mask
                b = ((b - a) & mask) ^ rotated(a, middle)
                a = (a + c) & mask
                c = ((c - b) & mask) ^ rotated(b, right)
                b = (b + a) & mask
    c = ((c ^ b) - rotated(b, 14)) & mask
    a = ((a ^ c) - rotated(c, 11)) & mask
    b = ((b ^ a) - rotated(a, 25)) & mask
    c = ((c ^ b) - rotated(b, 16)) & mask
    a = ((a ^ c) - rotated(c, 4)) & mask
    b = ((b ^ a) - rotated(a, 14)) & mask
    return ((c ^ b) - rotated(b, 24)) & mask


def _read_record(file: int, place: int) -> Record | None:
    """Return the record at a place, or None where there is none that is whole."""
    record = unpack_record(read_at(file, _HEADER_SIZE, place), place)
    return record if record and record.end <= os.fstat(file).st_size else None


def unpack_record(data: bytes, place: int) -> Record | None:
    """Return the record that begins with some bytes, or None where these are of none."""
    if len(data) < _HEADER_SIZE or not data.startswith(_MAGIC):
        return None
    (check,) = _CHECK.unpack_from(data, _HEADER.size)
    if crc32c(data[: _HEADER.size]) != check:
        return None
    _, version, whole, file_id, transaction, own, previous, start, *rest = _HEADER.unpack(
        data[: _HEADER.size]
    )
    if version != VERSION or own != place:
        return None
    sizes, sums = (rest[0], rest[1], rest[2]), (rest[3], rest[4], rest[5], rest[6])
    return Record(bool(whole), file_id, transaction, place, previous, start, sizes, sums)


def walk(file: int, after: Record | None = None) -> Iterator[Record]:
    """Yield the record at HDF5's end, then those of changes that were committed after it.

    Parameters
    ----------
    file
        The number of the open file.
    after
        Yield only the records after this one, which is known to be right.

    Yields
    ------
    Record
        Nothing where another program changed the file and so cut the records off.

    Raises
    ------
    FormatError
        If the superblock or the first record is damaged, or of another version.
    """
    record = after
    if record is None:
        end = end_of_hdf5(read_at(file, SUPERBLOCK_SIZE, 0))
        if end is None or os.fstat(file).st_size <= end:
            return
        record = _read_record(file, end)
        if record is None:
            raise _damage(file, end)
        yield record
    following = _next(file, record)
    while following is not None:
        record, following = following, _next(file, following)
        # A change begins when the one before it is durable, so only the last one can lack
        # bytes; those of the others may have been replaced by later changes already.
        if following is None and not _is_complete(file, record):
            return
        yield record


def last_record(file: int) -> Record | None:
    """Return the record of the last change that was committed, or None where there is none.

    It tells one state of a file from every other: it has sums of what the change brought.
    """
    last = None
    for last in walk(file):  # noqa: B007
        pass
    return last


def continues(file: int, record: Record) -> bool:
    """Return whether a file still is the one that had a record, with changes after it.

    What stood in the file then still stands there at the same place.
    """
    try:
        found = next(walk(file), None)
        return (
            found is not None
            and found.file_id == record.file_id
            and _read_record(file, record.place) == record
        )
    except FormatError:
        return False


def _damage(file: int, place: int) -> FormatError:
    """Return what is wrong with bytes after HDF5's end that are no record."""
    data = read_at(file, _HEADER_SIZE, place)
    if data.startswith(_MAGIC) and len(data) >= 12:
        (version,) = struct.unpack_from("<I", data, 8)
        if version != VERSION:
            return FormatError(
                f"written in version {version} of labtree's format; this labtree reads "
                f"version {VERSION}"
            )
    return FormatError(
        f"the catalogue record at byte {place}, after HDF5's end, is damaged or cut short"
    )


def _next(file: int, record: Record) -> Record | None:
    """Return the record of the next transaction, or None where none was committed."""
    data = read_at(file, HEAD_SIZE, record.end)
    if len(data) < HEAD_SIZE or not data.startswith(_HEAD_MAGIC):
        return None
    _, transaction, size = _HEAD.unpack(data[: _HEAD.size])
    (check,) = _CHECK.unpack_from(data, _HEAD.size)
    if crc32c(data[: _HEAD.size]) != check or transaction != record.transaction + 1:
        return None
    start = aligned(record.end + HEAD_SIZE)
    if start + size > os.fstat(file).st_size:
        return None
    following = _read_record(file, start + size)
    if (
        following is None
        or following.transaction != transaction
        or following.file_id != record.file_id
        or following.hdf5_start != start
    ):
        return None
    try:  # the whole of it must be there, or it was not committed
        following.redo(file)
        following.values(file)
        following.text(file)
    except FormatError:
        return None
    return following


def _is_complete(file: int, record: Record) -> bool:
    """Return whether HDF5's new bytes of a change are all there."""
    return _region_sum(file, record.hdf5_start, record.place) == record.sums[3]


def aligned(offset: int) -> int:
    """Return the next multiple of 8: where HDF5 may put new objects."""
    return -(-offset // 8) * 8


def read_chain(file: int, last: Record) -> list[Record]:
    """Return the records that a catalogue is made of, the whole one first.

    Raises
    ------
    FormatError
        If a record that a later one builds on is not there.
    """
    chain = [last]
    while not chain[-1].is_whole:
        place = chain[-1].previous
        record = _read_record(file, place) if place < chain[-1].place else None
        if record is None or record.file_id != last.file_id:
            raise FormatError(f"the catalogue record at byte {place} is damaged")
        chain.append(record)
    return chain[::-1]
