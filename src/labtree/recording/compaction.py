"""Moves samples from a stream's journal into whole zarr chunks, while the recorder goes on."""

import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labtree.errors import FormatError
from labtree.recording.chunks import set_rows, stream_arrays, sync_chunk, write_chunk
from labtree.recording.journal import (
    RECORD_HEADER_BYTES,
    Block,
    JournalWriter,
    Run,
    header_size,
    parse_records,
)
from labtree.storage.files import sync_folder

_READ_BYTES = 2**23
_UNSYNCED = 64  # chunks
_WRITERS = 2
# Journal segments that are removed at a time while samples are behind.
_RELEASED_AT_ONCE = 4
_SYNCS_AT_ONCE = 8


class _Chunk(NamedTuple):
    """A whole chunk of each array, on its way to the files."""

    number: int
    buffers: list[np.ndarray]
    writing: "Future[None] | None"  # None after a failure: to be tried again


class ChunkFiller:
    """Collects samples and writes every chunk that they fill.

    A chunk is compressed and written by threads of its own, while the next one is filled.

    Parameters
    ----------
    folder, name
        The recording and its stream. Arrival times are written if they have an array.
    shape
        Rows and channels of a chunk.
    dtype
        Of the samples.
    first_row
        The row that comes next: the first of a chunk.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        first_row: int = 0,
    ) -> None:
        data, times, arrivals = stream_arrays(folder, name)
        self._shape = shape
        self._dtype = dtype
        # In this order: an array of samples never counts rows without their time stamps.
        self._paths = [times, data]
        if arrivals.is_dir():
            self._paths.insert(0, arrivals)
        self._free: list[list[np.ndarray]] = []
        self._take_buffers()
        self._pending: deque[_Chunk] = deque()
        self._writers: ThreadPoolExecutor | None = None
        self.rows = first_row
        self.synced = first_row // shape[0]

    def _take_buffers(self) -> None:
        rows = self._shape[0]
        made = self._free.pop() if self._free else None
        self._buffers = made or [
            np.empty(rows),
            np.empty(rows),
            np.empty(self._shape, self._dtype),
        ]
        self._arrivals, self._times, self._data = self._buffers

    @property
    def chunk_rows(self) -> int:
        """Rows in a chunk."""
        return self._shape[0]

    def add(self, block: Block) -> None:
        """Take in more samples."""
        taken = 0
        while taken < len(block.times):
            at = self.rows % self.chunk_rows
            count = min(len(block.times) - taken, self.chunk_rows - at)
            part, here = slice(taken, taken + count), slice(at, at + count)
            self._times[here] = block.times[part]
            self._data[here] = block.data[part]
            self._arrivals[here] = block.arrivals[part]
            self._advance(count)
            taken += count

    def add_run(self, run: Run, skip: int) -> None:
        """Take in records after the first ``skip`` samples, many at a time."""
        length = run.times.shape[1]
        record, row = divmod(skip, length)
        while record < len(run.times):
            at = self.rows % self.chunk_rows
            count = min(len(run.times) - record, (self.chunk_rows - at) // length)
            if row == 0 and count:
                part, here = slice(record, record + count), slice(at, at + count * length)
                self._times[here].reshape(count, length)[...] = run.times[part]
                self._data[here].reshape(run.data[part].shape)[...] = run.data[part]
                self._arrivals[here].reshape(count, length)[...] = run.arrivals[part, None]
                self._advance(count * length)
                record += count
            else:  # a record over the end of the chunk
                arrivals = np.broadcast_to(run.arrivals[record], length)
                one = Block(run.times[record], run.data[record], arrivals)
                self.add(one.from_row(row))
                record, row = record + 1, 0

    def finish(self) -> None:
        """Write the last chunk, filled up with zeros, and say how many rows there are."""
        at = self.rows % self.chunk_rows
        if at:
            for buffer in self._buffers:
                buffer[at:] = 0
            self._write(self.rows // self.chunk_rows, self._buffers)
        self.publish(self.rows)
        self.stop()

    def settle(self) -> None:
        """Wait until every whole chunk is written; one that failed is tried again."""
        while self._pending:
            self._settle_oldest()

    def stop(self) -> None:
        """Wait for the threads that write, and end them."""
        if self._writers is not None:
            # Python takes a thread for ended when Ctrl-C comes while it is joined.
            wait([chunk.writing for chunk in self._pending if chunk.writing is not None])
            self._writers.shutdown()
            self._writers = None

    def publish(self, rows: int) -> None:
        """Bring chunks to the disk, then say in the metadata that there are ``rows``."""
        self.settle()
        indices = range(self.synced, -(-rows // self.chunk_rows))
        jobs = [
            (path, index, buffer.ndim)
            for index in indices
            for path, buffer in zip(
                self._paths, self._buffers[-len(self._paths) :], strict=True
            )
        ]
        # A file system brings many files to the disk at once in little more time than one.
        try:
            with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
                list(pool.map(lambda job: sync_chunk(*job), jobs))
        except RuntimeError:  # the interpreter ends, and lets no thread start
            for job in jobs:
                sync_chunk(*job)
        self.synced = rows // self.chunk_rows
        for path in self._paths:
            if rows:
                sync_folder(path / "c")
                sync_folder(path)
            set_rows(path, rows)

    def _advance(self, count: int) -> None:
        # A chunk is handed over before its rows count, so a failure can be tried again.
        if self.rows % self.chunk_rows + count == self.chunk_rows:
            self._hand_over(self.rows // self.chunk_rows)
        self.rows += count

    def _hand_over(self, index: int) -> None:
        while len(self._pending) >= _WRITERS:
            self._settle_oldest()
        self._pending.append(_Chunk(index, self._buffers, self._begin(index, self._buffers)))
        self._take_buffers()

    def _begin(self, index: int, buffers: list[np.ndarray]) -> "Future[None]":
        if self._writers is None:
            self._writers = ThreadPoolExecutor(_WRITERS, "labtree recorder, chunks")
        try:
            return self._writers.submit(self._write, index, buffers)
        except RuntimeError:  # the interpreter ends, and lets no thread start
            self._write(index, buffers)
            done: Future[None] = Future()
            done.set_result(None)
            return done

    def _settle_oldest(self) -> None:
        number, buffers, writing = self._pending[0]
        try:
            (writing or self._begin(number, buffers)).result()
        except Exception:
            self._pending[0] = _Chunk(number, buffers, None)
            raise
        self._pending.popleft()
        self._free.append(buffers)

    def _write(self, index: int, buffers: list[np.ndarray]) -> None:
        for path, buffer in zip(self._paths, buffers[-len(self._paths) :], strict=True):
            write_chunk(path, index, buffer)


class Compactor:
    """Follows one journal that is being written, and removes what it no longer needs.

    Parameters
    ----------
    journal, filler
        Where samples come from, and where they go.
    shown
        Called when more rows can be read in the arrays.
    """

    def __init__(
        self, journal: JournalWriter, filler: ChunkFiller, shown: Callable[[], None]
    ) -> None:
        self.moved_rows = 0
        self.shown_rows = 0  # in whole chunks, which other programs can read
        self._journal = journal
        self.filler = filler
        self._shown = shown
        self._segment = 0
        self._position = 0
        self._first_kept = 0
        self._parsed_rows = 0
        self._buffer = bytearray()

    def run(self) -> None:
        """Move everything that the journal holds now; on an error it can be run again."""
        journal = self._journal
        while True:
            # In this order: the thread that records goes on adding to both.
            last = len(journal.files) - 1
            size = journal.size(self._segment)
            if self._position < size:
                self._move(journal.files[self._segment], size)
            elif self._segment < last:
                self._segment += 1
                self._position = 0
                if self._segment >= self._first_kept + _RELEASED_AT_ONCE:
                    self._release()
            else:
                break
        self.filler.settle()
        self._release()
        rows = self._whole_rows()
        # Streams that are too slow to fill a segment still reach the disk now and then.
        if rows // self.filler.chunk_rows >= self.filler.synced + _UNSYNCED:
            self.filler.publish(rows)
        if rows > self.shown_rows:
            self.shown_rows = rows
            self._shown()

    @property
    def is_level(self) -> bool:
        """Whether every sample of the journal has been taken in."""
        return self._parsed_rows == self._journal.rows == self.filler.rows

    def publish(self) -> None:
        """Bring whole chunks to the disk, and say how many rows stand in them."""
        self.filler.publish(self._whole_rows())

    def _whole_rows(self) -> int:
        return self.filler.rows - self.filler.rows % self.filler.chunk_rows

    def _move(self, segment: tuple[Path, int], size: int) -> None:
        path, first_row = segment
        journal, filler = self._journal, self.filler
        record = RECORD_HEADER_BYTES + journal.largest * (
            8 + journal.n_channels * journal.dtype.itemsize
        )
        if len(self._buffer) < max(_READ_BYTES, record):
            self._buffer = bytearray(max(_READ_BYTES, record))
        with path.open("rb", buffering=0) as file:
            if self._position == 0:
                self._position = header_size(file.read(16))
                self._parsed_rows = first_row
            file.seek(before := self._position)
            wanted = memoryview(self._buffer)[: size - self._position]
            buffer = wanted[: file.readinto(wanted)]
        for taken, run in parse_records(
            buffer, journal.dtype, journal.n_channels, self._parsed_rows
        ):
            # After a failed write a part of this run may have been taken in already.
            filler.add_run(run, filler.rows - self._parsed_rows)
            self._position += taken
            self._parsed_rows += run.rows
            self.moved_rows = self._parsed_rows
        if self._position == before:  # else the one that waits for it would wait for ever
            raise FormatError(
                f"{path}: expected {size - before} bytes of records after {before}, found none"
                " that check out; another program changed the journal"
            )

    def _release(self) -> None:
        """Remove the segments whose samples all stand in whole chunks on the disk."""
        whole = self._whole_rows()
        files = self._journal.files
        done = self._first_kept
        while done < self._segment and files[done + 1][1] <= whole:
            done += 1
        if done == self._first_kept:
            return
        self.filler.publish(whole)
        for path, _ in files[self._first_kept : done]:
            # Windows keeps a file that someone reads; it goes when the recording ends.
            with contextlib.suppress(PermissionError):
                path.unlink()
        self._first_kept = done
