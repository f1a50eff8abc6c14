"""Moves samples from a stream's journal into whole zarr chunks, behind the recorder's back."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from labtree.recording.chunks import set_rows, sync_chunk, write_chunk
from labtree.recording.files import sync_folder
from labtree.recording.journal import Block, JournalWriter, header_size, parse_records

__all__ = ["ChunkFiller", "Compactor"]

_READ_BYTES = 2**22
_UNSYNCED = 64  # chunks
_SYNCS_AT_ONCE = 8


class ChunkFiller:
    """Collects samples and writes every chunk that they fill, of data and time stamps.

    Parameters
    ----------
    data_path, times_path
        The two zarr arrays of a stream.
    shape
        Rows and channels of a chunk.
    dtype
        Of the samples.
    first_row
        The row that comes next; the first of a chunk, or behind rows added with `add`.
    """

    def __init__(
        self,
        data_path: Path,
        times_path: Path,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        first_row: int = 0,
    ) -> None:
        self.data_path = data_path
        self.times_path = times_path
        self._data = np.zeros(shape, dtype)
        self._times = np.zeros(shape[0])
        self.rows = first_row
        self.synced = first_row // shape[0]

    @property
    def chunk_rows(self) -> int:
        """Rows in a chunk."""
        return len(self._times)

    def add(self, block: Block) -> None:
        """Take in more samples."""
        taken = 0
        while taken < len(block.times):
            at = self.rows % self.chunk_rows
            count = min(len(block.times) - taken, self.chunk_rows - at)
            self._times[at : at + count] = block.times[taken : taken + count]
            self._data[at : at + count] = block.data[taken : taken + count]
            # The chunk is written before the rows count, so a failure can be tried again.
            if at + count == self.chunk_rows:
                self._write(self.rows // self.chunk_rows)
            taken += count
            self.rows += count

    def finish(self) -> None:
        """Write the last chunk, filled up with zeros, and say how many rows there are."""
        at = self.rows % self.chunk_rows
        if at:
            self._data[at:] = 0
            self._times[at:] = 0
            self._write(self.rows // self.chunk_rows)
        self.publish(self.rows, durable=True)

    def publish(self, rows: int, *, durable: bool = False) -> None:
        """Bring chunks to the disk, then say in the metadata that there are ``rows``."""
        indices = range(self.synced, -(-rows // self.chunk_rows))
        # A file system brings many files to the disk at once in little more time than one.
        with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
            list(pool.map(self._sync, indices))
        self.synced = rows // self.chunk_rows
        for path in (self.times_path, self.data_path):
            if rows:
                sync_folder(path / "c")
            set_rows(path, rows, durable=durable)

    def _sync(self, index: int) -> None:
        sync_chunk(self.times_path, index, 1)
        sync_chunk(self.data_path, index, 2)

    def _write(self, index: int) -> None:
        write_chunk(self.times_path, index, self._times)
        write_chunk(self.data_path, index, self._data)


class Compactor:
    """Follows one journal that is being written, and removes what it no longer needs."""

    def __init__(self, journal: JournalWriter, filler: ChunkFiller) -> None:
        self._journal = journal
        self._filler = filler
        self._segment = 0
        self._position = 0
        self._first_kept = 0
        self._parsed_rows = 0

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
                self._release()
            else:
                break
        # Streams that are too slow to fill a segment still reach the disk now and then.
        if self._filler.rows // self._filler.chunk_rows >= self._filler.synced + _UNSYNCED:
            self.publish()

    def publish(self) -> None:
        """Say in the metadata how many rows stand in whole chunks."""
        rows = self._filler.rows
        self._filler.publish(rows - rows % self._filler.chunk_rows)

    def _move(self, segment: tuple[Path, int], size: int) -> None:
        path, first_row = segment
        journal, filler = self._journal, self._filler
        with path.open("rb", buffering=0) as file:
            if self._position == 0:
                self._position = header_size(file.read(16))
                self._parsed_rows = first_row
            file.seek(self._position)
            record = 24 + journal.largest * (8 + journal.n_channels * journal.dtype.itemsize)
            buffer = memoryview(file.read(min(size - self._position, max(_READ_BYTES, record))))
        for taken, block in parse_records(
            buffer, journal.dtype, journal.n_channels, self._parsed_rows, verify=False
        ):
            # After a failed write a part of this run may have been taken in already.
            done = filler.rows - self._parsed_rows
            filler.add(Block(block.times[done:], block.data[done:]))
            self._position += taken
            self._parsed_rows += len(block.times)

    def _release(self) -> None:
        """Remove the segments whose samples all stand in whole chunks on the disk."""
        whole = self._filler.rows - self._filler.rows % self._filler.chunk_rows
        files = self._journal.files
        done = self._first_kept
        while done < self._segment and files[done + 1][1] <= whole:
            done += 1
        if done == self._first_kept:
            return
        self._filler.publish(whole, durable=True)
        for path, _ in files[self._first_kept : done]:
            # Windows keeps a file that someone reads; it goes when the recording ends.
            with contextlib.suppress(PermissionError):
                path.unlink()
        self._first_kept = done
