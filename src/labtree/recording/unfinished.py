"""Reading a recording that was not finished: from its arrays and its journal."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from labtree.errors import FormatError, LabtreeError
from labtree.recording.chunks import ArrayReader, stream_arrays
from labtree.recording.journal import Block, Samples, Segment, joined, read_segment, segments
from labtree.recording.recording_files import FolderStore

JOURNAL = "journal"
LOCK = ".recording.lock"
# In a stream's journal: its arrays from before a recovery moved samples up.
KEPT = "chunks"


@dataclass
class Findings:
    """What reading a journal met: notes for people, and whether it is damaged."""

    notes: list[str] = field(default_factory=list)
    damaged: bool = False


class Unfinished(NamedTuple):
    """A stream that is part in zarr, part in its journal."""

    stored_rows: int
    tail: Block
    findings: Findings


class StoredRows:
    """A stream's rows that stand in its arrays already."""

    def __init__(self, folder: Path, name: str) -> None:
        store = FolderStore(folder)
        data, times, arrivals = stream_arrays(folder, name)
        self.data = ArrayReader(store, data.name)
        self.times = ArrayReader(store, times.name)
        self.arrivals = None
        with contextlib.suppress(FormatError):  # no sample stands or falls with them
            self.arrivals = ArrayReader(store, arrivals.name) if arrivals.is_dir() else None
        if len(self.data.shape) != 2 or len(self.times.shape) != 1:
            raise FormatError(
                f"{data} and {times.name}: expected samples by channels and their times, found "
                f"arrays of {len(self.data.shape)} and {len(self.times.shape)} dimensions"
            )
        self.rows = min(self.data.shape[0], self.times.shape[0])

    @property
    def samples(self) -> Samples:
        """What the samples are: their dtype, and the number of channels."""
        return self.data.dtype, self.data.shape[1]

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, Block | None]]:
        """Yield rows from ``start`` on, up to the end of each chunk, and where they end.

        None stands for rows that are not here.
        """
        rows = self.data.chunk_rows
        while start < stop:
            end = min(stop, start - start % rows + rows)
            end = min(end, self.rows) if start < self.rows else stop
            yield end, self.read(start, end)
            start = end

    def read(self, start: int, stop: int) -> Block | None:
        """Return rows, or None if not all samples are there and whole; lost times are NaN."""
        if stop > self.rows:
            return None
        times, arrivals = np.full(stop - start, np.nan), np.full(stop - start, np.nan)
        with contextlib.suppress(LabtreeError):
            times = self.times.read(start, stop)
        with contextlib.suppress(LabtreeError):
            if self.arrivals is not None and stop <= self.arrivals.shape[0]:
                arrivals = self.arrivals.read(start, stop)
        try:
            return Block(times, self.data.read(start, stop), arrivals)
        except LabtreeError:
            return None


def read_segments(
    folder: Path, like: Callable[[], Samples] | None = None
) -> Iterator[tuple[str, Segment]]:
    """Yield name and content of every segment; ``like`` is that of `read_segment`."""
    for path, _ in segments(folder):
        yield path.name, read_segment(path, like)


def journal_blocks(
    found: Iterable[tuple[str, Segment]],
    what: str,
    row: int,
    stored: StoredRows | None,
    findings: Findings,
    on_loss: Callable[[], None] | None = None,
) -> Iterator[Block]:
    """Yield the samples of a journal from ``row`` on.

    Rows that damage took are filled from the arrays where these have them, also those after
    the end of a damaged journal; else what follows moves up, and a note says so. ``on_loss``
    is called before it does.
    """
    is_empty = True
    for file, segment in found:
        is_empty = False
        if not segment.is_begun:
            findings.notes.append(
                f"{what} {segment.first_row} and on: {file} has no header, and holds nothing"
            )
        end = segment.first_row
        for first, block in segment.stretches:
            end = first + len(block.times)
            if first > row:
                findings.damaged = True
                yield from _filled(what, row, first, stored, findings, on_loss)
                row = first
            if end > row:
                yield block.from_row(row - first)
                row = end
        for behind, size in segment.damage:
            findings.damaged = True
            findings.notes.append(f"{what}: {size} bytes in {file} after {behind} are damaged")
        if segment.torn:
            findings.notes.append(
                f"{what}: {segment.torn} bytes in {file} after {end} belong to an append that"
                " did not return"
            )
    if is_empty:
        findings.notes.append(f"{what}: no file of its journal is there")
    if findings.damaged and stored is not None:
        yield from _filled(what, row, stored.rows, stored, findings, on_loss)


def _filled(
    what: str,
    row: int,
    stop: int,
    stored: StoredRows | None,
    findings: Findings,
    on_loss: Callable[[], None] | None,
) -> Iterator[Block]:
    """Yield rows that a journal lacks, as far as the arrays have them; note their fate."""
    parts = [(stop, None)] if stored is None else stored.parts(row, stop)
    for is_lost, group in itertools.groupby(parts, lambda part: part[1] is None):
        ends, blocks = zip(*group, strict=True)
        end = ends[-1]
        if is_lost:
            findings.notes.append(
                f"{what} {row} to {end} are lost; the samples after them are kept and"
                " follow directly"
            )
            if on_loss is not None:
                on_loss()
        else:
            note = f"{what} {row} to {end} are taken from the chunks"
            if unknown := sum(int(np.isnan(block.times).sum()) for block in blocks):
                note += f", {unknown} of them without a time stamp"
            findings.notes.append(note)
            yield from blocks
        row = end


def read_unfinished(folder: Path, name: str) -> Unfinished:
    """Return what a stream of an unfinished recording holds beyond its zarr arrays.

    Raises
    ------
    FileNotFoundError
        If the recorder removed a segment meanwhile: read again.
    """
    # The journal first: rows leave it only when zarr's metadata count them already.
    journal = folder / JOURNAL / "streams" / name
    found = list(read_segments(journal, lambda: StoredRows(folder, name).samples))
    stored, findings = StoredRows(folder, name), Findings()
    row = stored.rows
    if (kept := journal / KEPT).is_dir():
        # What a recovery that was interrupted wrote behind a loss stands elsewhere.
        stored = StoredRows(kept, name)
        row = min([stored.rows, *(segment.first_row for _, segment in found)])
    dtype, n_channels = stored.samples
    empty = Block(np.empty(0), np.empty((0, n_channels), dtype), np.empty(0))
    blocks = journal_blocks(found, f"stream {name!r}, sample", row, stored, findings)
    return Unfinished(row, joined([empty, *blocks]), findings)


def read_labels_journal(folder: Path) -> tuple[list[tuple[float, int]], Findings]:
    """Return (timestamp, class_index) of every label in the journal, in call order."""
    findings, dtype = Findings(), np.dtype("<i8")
    found = read_segments(folder / JOURNAL / "labels", lambda: (dtype, 1))
    empty = Block(np.empty(0), np.empty((0, 1), dtype), np.empty(0))
    labels = joined([empty, *journal_blocks(found, "label", 0, None, findings)])
    pairs = zip(labels.times.tolist(), labels.data[:, 0].tolist(), strict=True)
    return list(pairs), findings
