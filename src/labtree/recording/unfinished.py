"""Reading a recording that was not finished: from its arrays and its journal."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from labtree.errors import FormatError, LabtreeError
from labtree.recording.chunks import ArrayReader, stream_arrays
from labtree.recording.journal import Block, Segment, joined, read_segment, segments
from labtree.recording.recording_files import FolderStore

JOURNAL = "journal"
LOCK = ".recording.lock"


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

    def fill(self, start: int, stop: int, following: Block) -> Block | None:
        """Return the rows that a journal lacks before ``following``, as far as they are here.

        Where an earlier, interrupted recovery wrote the following samples in the place of
        some already, those are not here.
        """
        there = self.read(start, min(stop, self.rows)) if start < self.rows else None
        if there is None:
            return None
        first = following.times[0]
        same = (there.times == first) | (np.isnan(there.times) & np.isnan(first))
        for at in np.flatnonzero(same).tolist():
            count = min(len(following.times), self.rows - start - at)
            written = self.read(start + at, start + at + count)
            if written is not None and all(
                np.array_equal(part[:count], other, equal_nan=other.dtype.kind == "f")
                for part, other in zip(following[:2], written[:2], strict=True)
            ):
                return Block(*(part[:at] for part in there))
        return there

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


def read_segments(folder: Path) -> Iterator[tuple[str, Segment]]:
    """Yield name and content of every segment."""
    for path, _ in segments(folder):
        yield path.name, read_segment(path)


def journal_blocks(
    found: Iterable[tuple[str, Segment]],
    what: str,
    row: int,
    stored: StoredRows | None,
    findings: Findings,
) -> Iterator[Block]:
    """Yield the samples of a journal from ``row`` on.

    Rows that damage took are filled from the arrays where these have them; else what
    follows moves up, and a note says so.
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
                kept = None if stored is None else stored.fill(row, first, block)
                if kept is not None and len(kept.times):
                    stop = row + len(kept.times)
                    note = f"{what} {row} to {stop} are taken from the chunks"
                    if unknown := int(np.isnan(kept.times).sum()):
                        note += f", {unknown} of them without a time stamp"
                    findings.notes.append(note)
                    yield kept
                    row = stop
                if row < first:
                    findings.notes.append(
                        f"{what} {row} to {first} are lost; the samples after them are kept and"
                        " follow directly"
                    )
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


def read_unfinished(folder: Path, name: str) -> Unfinished:
    """Return what a stream of an unfinished recording holds beyond its zarr arrays.

    Raises
    ------
    FileNotFoundError
        If the recorder removed a segment meanwhile: read again.
    """
    # The journal first: rows leave it only when zarr's metadata count them already.
    found = list(read_segments(folder / JOURNAL / "streams" / name))
    stored, findings = StoredRows(folder, name), Findings()
    empty = Block(
        np.empty(0), np.empty((0, stored.data.shape[1]), stored.data.dtype), np.empty(0)
    )
    blocks = journal_blocks(found, f"stream {name!r}, sample", stored.rows, stored, findings)
    return Unfinished(stored.rows, joined([empty, *blocks]), findings)


def read_labels_journal(folder: Path) -> tuple[list[tuple[float, int]], Findings]:
    """Return (timestamp, class_index) of every label in the journal, in call order."""
    found, findings = read_segments(folder / JOURNAL / "labels"), Findings()
    empty = Block(np.empty(0), np.empty((0, 1), "<i8"), np.empty(0))
    labels = joined([empty, *journal_blocks(found, "label", 0, None, findings)])
    pairs = zip(labels.times.tolist(), labels.data[:, 0].tolist(), strict=True)
    return list(pairs), findings
