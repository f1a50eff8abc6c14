"""Change an HDF5 file in place so that a crash at any moment leaves the old or the new state.

HDF5 runs over an `_Overlay`: what it writes below the old end of the file goes to memory,
what it writes after goes to the file, where nothing refers to it yet. To commit, the bytes
that differ go into a record after HDF5's new end (see :mod:`labtree.storage.hdf5_end`),
and one fsync makes the whole durable. Only then are the old bytes replaced, the superblock
last, and synced; the next program that opens the file for changes after a crash does that
from the record.

Programs that read through HDF5 meanwhile would see its structure change under them, so old
bytes are replaced only while no reader holds HDF5's lock; until then the changes are pending:
they are durable, and labtree's readers, which find arrays through the records, see them.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from h5py import h5f, h5fd, h5p

from labtree.errors import BusyFileError, FormatError
from labtree.storage.files import sync_folder
from labtree.storage.hdf5_end import (
    HEAD_SIZE,
    SUPERBLOCK_SIZE,
    Record,
    aligned,
    end_of_hdf5,
    pack_head,
    pack_record,
    pack_redo,
    read_at,
    superblock_with_end,
    unpack_record,
    unpack_redo,
    walk,
    write_at,
)
from labtree.storage.interrupts import deferred_interrupts
from labtree.storage.locks import try_lock
from labtree.storage.sources import as_bytes

_PAGE = 4096
_GAP = 16  # runs of changed bytes that are closer than this are one run
_TRIES = 3
_PAUSE_S = 0.001

if sys.platform == "win32":

    def _lock(file: int, *, exclusive: bool) -> bool:
        return True  # Windows lets no other program open the file while it is written

    def _unlock(file: int) -> None:
        pass

else:
    import fcntl

    def _lock(file: int, *, exclusive: bool) -> bool:
        """Take HDF5's lock on the file, or say that another program holds it."""
        return try_lock(file, shared=not exclusive)

    def _unlock(file: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


class _Pending(NamedTuple):
    """A committed change whose old bytes are not replaced yet."""

    place: int
    runs: list[tuple[int, bytes]]


class RedoLog:
    """A file that is changed in place, one transaction after the other.

    Parameters
    ----------
    path
        A file of labtree's. What was committed before a crash is put in its place first.

    Raises
    ------
    FormatError
        If the file has no record at HDF5's end: another program changed it.
    BusyFileError
        If another program has the file open for writing.

    Notes
    -----
    The caller holds a lock that keeps other writers of labtree away.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._failed: Record | None = None  # of a change that was not committed
        self._file = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            # Who wrote the file may have ended before its name was durable.
            sync_folder(path.resolve().parent)
            self._load()
        except BaseException:
            os.close(self._file)
            raise

    def _load(self) -> None:
        """Read the records and put committed changes in their place."""
        self._is_sure = False  # whether what this object knows is what the file says
        self._take_lock()
        records = list(walk(self._file))
        if not records:
            raise FormatError(
                f"{self.path}: another program changed this file, so it cannot be changed in "
                "place; save the workspace under another name"
            )
        if len(records) > 1 and records[-1] == self._failed:
            del records[-1]
        self._pending: list[_Pending] = []
        self._patches: dict[int, list[tuple[int, bytes]]] = {}  # of pages, by pending changes
        self._superblock = read_at(self._file, SUPERBLOCK_SIZE, 0)
        for record in records:
            self._add_pending(record.place, unpack_redo(record.redo(self._file)))
        self._last = records[-1]
        os.ftruncate(self._file, self._last.end)
        self._failed = None
        self._is_sure = True
        if len(records) > 1:
            # Who committed them may have ended before the disk had the records, and without
            # a record nothing repeats the replacing that a power cut breaks off.
            os.fsync(self._file)
        self.apply()

    def fileno(self) -> int:
        """Return the number of the open file."""
        return self._file

    @property
    def last(self) -> Record:
        """The record of the last change that was committed."""
        if not self._is_sure:  # an error came while it was committed: the file tells
            self._load()
        return self._last

    @property
    def has_failed(self) -> bool:
        """Whether a change that the disk did not take could not be cut off either."""
        return self._failed is not None

    def settle(self) -> None:
        """Cut such a change off."""
        self._load()

    @property
    def is_pending(self) -> bool:
        """Whether committed changes wait for readers to close the file."""
        return bool(self._pending)

    def transaction(self) -> "Transaction":
        """Start a change; see `Transaction`."""
        if not self._is_sure:
            self._load()
        self._take_lock()
        return Transaction(self)

    def apply(self, patience_s: float = 0.0) -> bool:
        """Put pending changes in their place if no other program has the file open.

        Parameters
        ----------
        patience_s
            How long to wait for other programs.

        Returns
        -------
        bool
            Whether nothing is pending any more.
        """
        if not self._pending:
            _unlock(self._file)
            return True
        end = time.monotonic() + patience_s
        tries = 0
        while not _lock(self._file, exclusive=True):
            tries += 1
            if tries >= _TRIES and time.monotonic() > end:
                # Keeps programs that would write, and so cut the records off, away.
                _lock(self._file, exclusive=False)
                return False
            time.sleep(_PAUSE_S if patience_s < 1 else 0.01)
        try:
            self._replace_bytes()
        finally:
            _unlock(self._file)
        return True

    def close(self, patience_s: float = 1.0) -> bool:
        """Apply what is pending, if other programs let it, and close the file."""
        if self._file < 0:
            return True
        try:
            if not self._is_sure:
                self._load()
            return self.apply(patience_s)
        finally:
            # Forgotten first: who closed it twice could close another thread's file.
            file, self._file = self._file, -1
            _unlock(file)  # a process that was forked meanwhile would hold it on
            os.close(file)

    def _take_lock(self) -> None:
        """Keep programs that write through HDF5 away; readers only delay the replacing."""
        for _ in range(_TRIES):
            if _lock(self._file, exclusive=True) or _lock(self._file, exclusive=False):
                return
            time.sleep(_PAUSE_S)
        raise BusyFileError(
            f"{self.path} is open for writing in another program; close it there first"
        )

    def _is_unchanged(self) -> bool:
        """Return whether the file on disk still is as this log left it."""
        status = os.fstat(self._file)
        try:
            is_there = os.path.samestat(status, self.path.stat())
        except OSError:
            is_there = False
        found = read_at(self._file, SUPERBLOCK_SIZE, 0)
        # An interrupt may have come between replacing the superblock and noting it.
        known = [self._superblock]
        known += [superblock_with_end(self._superblock, each.place) for each in self._pending]
        # Another workspace may have committed a change that waits for readers.
        is_last = next(walk(self._file, self._last), None) is None
        return is_there and found in known and status.st_size >= self._last.end and is_last

    def _add_pending(self, place: int, runs: list[tuple[int, bytes]]) -> None:
        superblock = superblock_with_end(self._page(0)[:SUPERBLOCK_SIZE], place)
        for offset, data in [*runs, (0, superblock)]:
            number, start = divmod(offset, _PAGE)
            while data:
                part, data = data[: _PAGE - start], data[_PAGE - start :]
                self._patches.setdefault(number, []).append((start, part))
                number, start = number + 1, 0
        self._pending.append(_Pending(place, runs))

    def _page(self, number: int) -> bytes:
        """Return a page of the file as the committed changes leave it."""
        page = read_at(self._file, _PAGE, number * _PAGE)
        page += b"\0" * (_PAGE - len(page))
        if number not in self._patches:
            return page
        patched = bytearray(page)
        for start, part in self._patches[number]:
            patched[start : start + len(part)] = part
        return bytes(patched)

    def _replace_bytes(self) -> None:
        """Replace old bytes by those of the pending changes, the superblock last."""
        changed = False
        for pending in self._pending:
            for offset, data in pending.runs:
                if read_at(self._file, len(data), offset) != data:
                    write_at(self._file, data, offset)
                    changed = True
        superblock = self._page(0)[:SUPERBLOCK_SIZE]
        if changed or superblock != self._superblock:
            # One change alone is repeated from its own record, whichever bytes arrive first.
            if len(self._pending) > 1:
                os.fsync(self._file)
            write_at(self._file, superblock, 0)
            os.fsync(self._file)
        self._superblock = superblock
        self._pending.clear()
        self._patches.clear()


def repair(path: Path) -> None:
    """Put in its place what was committed to a file before a crash, if anything was.

    Other programs find it from then on. A file that is damaged, or that another program
    changed, stays as it is.
    """
    with contextlib.suppress(FormatError, FileNotFoundError):
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            is_whole = len(list(walk(file))) < 2
        finally:
            os.close(file)
        if not is_whole:
            RedoLog(path).close(0)


class Transaction:
    """A change of a file: HDF5 writes into it, then all of it is committed or nothing.

    Examples
    --------
    ::

        with log.transaction() as change:
            with change.hdf5() as file:  # an h5py.h5f.FileID
                ...
            change.commit(text, values, is_whole=False)
    """

    def __init__(self, log: RedoLog) -> None:
        self._log = log
        self.start = aligned(log._last.end + HEAD_SIZE)
        self._overlay = _Overlay(log, self.start)
        self._is_done = False
        if not log._is_unchanged():
            _unlock(log._file)
            raise FormatError(
                f"{log.path} was changed, moved or removed by another program after it was "
                "opened; open it again"
            )

    def __enter__(self) -> "Transaction":
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_done:
            self._discard()

    @contextlib.contextmanager
    def hdf5(self) -> Iterator[Any]:
        """Open the file in HDF5 for changes, through h5py's low-level interface.

        Raises
        ------
        OSError
            What went wrong in a write, after HDF5 has closed the file.
        """
        # KeyboardInterrupt must not propagate into HDF5, which calls the overlay.
        with deferred_interrupts():
            try:
                file = _open_hdf5(self._log.path, self._overlay)
                try:
                    yield file
                except BaseException:
                    self._overlay.give_up()
                    raise
                finally:
                    file.close()
            except BaseException:
                self._overlay.check()  # a fault of the disk explains what HDF5 stumbled over
                raise
        self._overlay.check()

    def check(self) -> None:
        """Raise what went wrong in a write of HDF5."""
        self._overlay.check()

    def write_at(self, offset: int, array: np.ndarray) -> None:
        """Put the values of a new array where HDF5 has reserved space for them."""
        if offset < self.start:
            raise ValueError("new arrays lie after the old end of the file")
        write_at(self._log._file, as_bytes(array), offset)
        self._overlay.size = max(self._overlay.size, offset + array.nbytes)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return what was written at an offset."""
        return read_at(self._log._file, size, offset)

    def commit(self, text: bytes, values: bytes, *, is_whole: bool) -> Record:
        """Make the change durable and, if no reader is in the way, put it in its place.

        Parameters
        ----------
        text, values
            The catalogue: whole, or what changed since the last record.
        is_whole
            Which of both.

        Returns
        -------
        Record
            The record of this change.

        Raises
        ------
        OSError
            If the disk is full or fails; the file is as it was before.
        """
        log, file = self._log, self._log._file
        runs, place = self._overlay.runs()
        last = log._last
        is_durable = False
        log._is_sure = False
        try:
            head = pack_head(last.transaction + 1, place - self.start)
            write_at(file, head + b"\0" * (self.start - last.end - len(head)), last.end)
            data = pack_record(
                file,
                file_id=last.file_id,
                transaction=last.transaction + 1,
                place=place,
                previous=0 if is_whole else last.place,
                hdf5_start=self.start,
                redo=pack_redo(runs),
                values=values,
                text=text,
                is_whole=is_whole,
            )
            log._failed = record = unpack_record(data, place)
            assert record is not None
            write_at(file, data, place)
            os.ftruncate(file, place + len(data))
            os.fsync(file)
            is_durable = True
            log._failed = None
        finally:
            self._is_done = True
            if not is_durable:
                self._discard()
        with contextlib.suppress(OSError):  # it is durable; what stays pending is tried again
            log._add_pending(place, runs)
            log._last = record
            log._is_sure = True
            log.apply()
        return record

    def _discard(self) -> None:
        """Cut off what was written."""
        self._is_done = True
        log = self._log
        log._is_sure = False
        os.ftruncate(log._file, log._last.end)
        log._failed = None
        log._is_sure = True
        if not log._pending:
            _unlock(log._file)


def _open_hdf5(path: Path, overlay: "_Overlay") -> Any:
    access = h5p.create(h5p.FILE_ACCESS)
    try:
        access.set_fileobj_driver(h5fd.fileobj_driver, overlay)
        access.set_fclose_degree(h5f.CLOSE_STRONG)
        access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_V110)
        return h5f.open(os.fsencode(path), h5f.ACC_RDWR, access)
    finally:
        # HDF5 holds the overlay for as long as the list lives, unseen by Python. Held by an
        # error that the overlay keeps, the list would live until the interpreter crashes.
        access.close()


class _Overlay:
    """The file as HDF5 sees it: its old part in memory where it changes, the rest on disk.

    HDF5 cannot close a file on a disk that fails, so it sees no failure: from the first on
    all that it writes stays in memory. What went wrong is kept and raised afterwards.
    """

    def __init__(self, log: RedoLog, start: int) -> None:
        self._log = log
        self._start = start
        self._pages: dict[int, bytearray] = {}
        self._lost: dict[int, bytearray] = {}  # after the old end, after a failure
        self._position = 0
        self._failure: BaseException | None = None
        self._is_given_up = False
        self.size = start
        # HDF5 puts new objects after the end that it finds here: after the last record.
        first = bytearray(log._page(0))
        first[:SUPERBLOCK_SIZE] = superblock_with_end(bytes(first[:SUPERBLOCK_SIZE]), start)
        self._pages[0] = first

    def give_up(self) -> None:
        """Write nothing more: the change will not be committed."""
        self._is_given_up = True

    def check(self) -> None:
        """Raise what went wrong in a write."""
        if self._failure is not None:
            raise self._failure

    def runs(self) -> tuple[list[tuple[int, bytes]], int]:
        """Return the old bytes that change, and the new end of HDF5's part.

        The superblock is not among them: it follows from the end.
        """
        self.check()
        if self._is_given_up:
            raise ValueError("a change that failed in the middle cannot be committed")
        runs: list[tuple[int, bytes]] = []
        for number in sorted(self._pages):
            stop = min(_PAGE, self._start - number * _PAGE)
            new, old = bytes(self._pages[number][:stop]), self._log._page(number)[:stop]
            if number == 0:
                superblock = new[:SUPERBLOCK_SIZE]
                old = superblock + old[SUPERBLOCK_SIZE:]
            runs += _differences(old, new, number * _PAGE)
        place = end_of_hdf5(superblock)
        expected = superblock_with_end(self._log._page(0)[:SUPERBLOCK_SIZE], place or 0)
        if place is None or place < self._start or superblock != expected:
            raise FormatError("HDF5 changed the superblock in a way that is not known")
        return runs, place

    # What follows is called by HDF5, through h5py's driver for Python's files.

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        base = {0: 0, 1: self._position, 2: self.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the place."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read from the place on."""
        view = memoryview(buffer).cast("B")
        position, done = self._position, 0
        while done < len(view):
            data = self._read(position, len(view) - done)
            view[done : done + len(data)] = data
            done, position = done + len(data), position + len(data)
        self._position = position
        return done

    def _read(self, position: int, size: int) -> bytes:
        """Return at least one byte at a position, at most some number of them."""
        number, offset = divmod(position, _PAGE)
        if position < self._start:
            page = self._pages.get(number) or self._on_disk(number)
            return bytes(page[offset : min(offset + size, self._start - number * _PAGE)])
        if self._lost or self._failure:
            return bytes((self._lost.get(number) or self._on_disk(number))[offset:][:size])
        try:  # what is reserved but not written is zero
            return read_at(self._log._file, size, position) or b"\0" * size
        except BaseException as error:
            self._failure = error
            return self._read(position, size)

    def _on_disk(self, number: int) -> bytes:
        """Return a page that is not in memory; zeros where the disk fails."""
        try:
            return self._log._page(number)
        except BaseException as error:
            self._failure = self._failure or error
            return b"\0" * _PAGE

    def write(self, data: Any) -> int:
        """Write at the place: into memory below the old end, else into the file."""
        view = memoryview(data).cast("B")
        position = self._position
        self._position += len(view)
        below = max(0, min(len(view), self._start - position))
        self._keep(self._pages, view[:below], position)
        view, position = view[below:], position + below
        if not self._failure and not self._is_given_up:
            try:
                write_at(self._log._file, view, position)
            except BaseException as error:
                self._failure = error
        if self._failure or self._is_given_up:
            self._keep(self._lost, view, position)
        if view:
            self.size = max(self.size, position + len(view))
        return len(data)

    def _keep(self, pages: dict[int, bytearray], view: memoryview, position: int) -> None:
        """Put bytes into pages in memory."""
        while view:
            number, offset = divmod(position, _PAGE)
            part, view = view[: _PAGE - offset], view[_PAGE - offset :]
            page = pages.get(number)
            if page is None:
                page = pages[number] = bytearray(self._on_disk(number))
            page[offset : offset + len(part)] = part
            position += len(part)

    def truncate(self, size: int | None = None) -> int:
        """Do nothing: records stand after HDF5's end."""
        return self._position if size is None else size

    def flush(self) -> None:
        """Do nothing: the commit makes the change durable."""


def _differences(old: bytes, new: bytes, offset: int) -> list[tuple[int, bytes]]:
    """Return the runs of bytes of a page that differ."""
    where = np.flatnonzero(np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8))
    if not len(where):
        return []
    breaks = np.flatnonzero(np.diff(where) > _GAP)
    starts = where[np.concatenate([[0], breaks + 1])]
    stops = where[np.concatenate([breaks, [len(where) - 1]])] + 1
    return [
        (offset + start, new[start:stop])
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    ]
