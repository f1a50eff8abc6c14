"""Opening HDF5 files of other programs: their locks, and heaps that are damaged."""

import contextlib
import errno
import mmap
import os
from pathlib import Path
from typing import Any

import h5py
from h5py import h5d, h5o

from labtree.errors import BusyFileError, FormatError, damage_as_format_error
from labtree.storage.files import retry_while_busy

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}
_HEAP = b"GCOL\1\0\0\0"
# How much of a file is searched for damaged heaps when it is opened: in 10 ms.
_SEARCHED = 1 << 24
_MOST_OBJECTS = 20_000  # of a file that is looked through for what lies beside its arrays
_MOST_ENTRIES = 1 << 20  # of heaps; a hostile file may have heaps within heaps


def open_hdf5(path: str | Path) -> Any:
    """Open an HDF5 file for reading, also where the file system has no locks.

    Before texts or references of any length are read from it, :func:`check_heaps`.

    Raises
    ------
    BusyFileError
        If another program is writing the file.
    OSError
        If HDF5 cannot open it.
    """
    try:
        return retry_while_busy(lambda: h5py.File(path, "r"))
    except BusyFileError as error:
        raise BusyFileError(
            f"{path} is open for writing in another program; close it there, or wait until it "
            "is done"
        ) from error
    except OSError as error:
        # Some network file systems have no locks, which a reader can do without.
        if error.errno not in _NO_LOCKS:
            raise
        return h5py.File(path, "r", locking=False)


def check_heaps(path: str | Path, opened: Any = None) -> None:
    """Refuse a file with a damaged global heap, in which HDF5 would search forever.

    HDF5 keeps texts and references of any length there.

    Parameters
    ----------
    path
        The file.
    opened
        The same, open in h5py: 16 MiB of it are searched for heaps, or as much beside its
        contiguous arrays where it is larger. Where there is more to search, nothing is.
        Without it the whole file is searched.

    Raises
    ------
    FormatError
        If a heap has an entry of no size, or of one that is larger than the file.
    """
    length = os.path.getsize(path)  # noqa: PTH202, for str too
    if not length:
        return
    parts = [(0, length)]
    if opened is not None and length > _SEARCHED:
        parts = _beside_arrays(opened, length)
        if sum(stop - start for start, stop in parts) > _SEARCHED:
            return
    if _endless_heap(path, parts) is None:
        return
    # Values of an array may look like such a heap, as those of a file's bytes do.
    if opened is None:
        with damage_as_format_error(str(path)), open_hdf5(path) as found:
            parts = _beside_arrays(found, length)
    else:
        parts = _beside_arrays(opened, length)
    heap = _endless_heap(path, parts)
    if heap is not None:
        raise FormatError(
            f"{path}: what HDF5 keeps at byte {heap} (a global heap) is damaged, "
            "and HDF5 would search there forever; restore the file from a copy"
        )


def _endless_heap(path: str | Path, parts: list[tuple[int, int]]) -> int | None:
    """Return where the first heap begins in which HDF5 finds no end; None without one."""
    left = _MOST_ENTRIES
    with (
        open(path, "rb") as file,  # noqa: PTH123
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        for part in parts:
            start = data.find(_HEAP, *part)
            while start >= 0:
                left, is_endless = _search_heap(data, start, left)
                if is_endless:
                    return start
                start = data.find(_HEAP, start + 1, part[1])
    return None


def _search_heap(data: mmap.mmap, start: int, left: int) -> tuple[int, bool]:
    """Return how many more entries may be looked at, and whether HDF5 finds no end here."""
    end = start + int.from_bytes(data[start + 8 : start + 16], "little")
    place = start + 16
    while place + 16 <= min(end, len(data)) and left > 0:
        left -= 1
        number = int.from_bytes(data[place : place + 2], "little")
        size = int.from_bytes(data[place + 8 : place + 16], "little")
        if (number == 0 and size == 0) or size > len(data):
            return left, True
        place += 16 + (size + 7) // 8 * 8 if number else size
    return left, False


def _beside_arrays(opened: Any, length: int) -> list[tuple[int, int]]:
    """Return the parts of a file, from one place to the next, without contiguous arrays.

    No values are read for it, and no heaps.
    """
    arrays: list[tuple[int, int]] = []
    count = 0

    def look(name: bytes) -> bool | None:
        nonlocal count
        count += 1
        with contextlib.suppress(Exception):  # what is damaged is told when it is read
            found = h5o.open(opened.id, name)
            if isinstance(found, h5d.DatasetID) and found.get_offset() is not None:
                arrays.append((found.get_offset(), found.get_storage_size()))
        return True if count >= _MOST_OBJECTS else None

    with contextlib.suppress(Exception):
        h5o.visit(opened.id, look)
    parts, place = [], 0
    for start, size in sorted(arrays):
        if start > place:
            parts.append((place, start))
        place = max(place, start + size)
    return [*parts, (place, max(place, length))]
