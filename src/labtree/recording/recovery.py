"""Finishing a recording: from journals to the layout of a finished session.

The recorder ends every recording through the same door as `recover`, so what a crash
needs is what every recording uses.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labtree.errors import FormatError, MissingFileError, RecordingWriteError
from labtree.recording.archive import FolderStore
from labtree.recording.chunks import ArrayReader
from labtree.recording.compaction import ChunkFiller
from labtree.recording.files import read_json, replace_file, sync_folder, write_json
from labtree.recording.journal import Block, Segment, read_segment, segments
from labtree.recording.lock import lock, release
from labtree.recording.meta import parse_meta

__all__ = [
    "JOURNAL",
    "LOCK",
    "Unfinished",
    "finish",
    "read_labels_journal",
    "read_unfinished",
    "recover",
]

JOURNAL = "journal"
LOCK = ".recording.lock"
_DAMAGED = "journal-damaged"
_DONE = ".journal-done"


class Unfinished(NamedTuple):
    """A stream that is part in zarr, part in its journal."""

    stored_rows: int
    tail: Block
    notes: list[str]
    damaged: bool


def _read_segments(folder: Path) -> list[tuple[str, Segment]]:
    """Return name and content of every segment that was given its header."""
    found = [(path.name, read_segment(path)) for path, _ in segments(folder)]
    return [(name, segment) for name, segment in found if segment is not None]


def _join(found: list[tuple[str, Segment]], name: str, stored: int, empty: Block) -> Unfinished:
    """Put together the rows of a journal from row ``stored`` on."""
    notes: list[str] = []
    damaged = False
    blocks, rows = [empty], stored
    for file, segment in found:
        end = segment.first_row + len(segment.block.times)
        if segment.first_row > rows:
            notes.append(
                f"{name}: {rows} to {segment.first_row} are lost; what follows them is kept"
                " in the journal only"
            )
            damaged = True
            break
        if end > rows:
            skip = rows - segment.first_row
            blocks.append(Block(segment.block.times[skip:], segment.block.data[skip:]))
            rows = end
        if segment.bytes_left:
            what = "an append that never returned" if segment.torn else "damage"
            notes.append(
                f"{name}: {segment.bytes_left} bytes in {file} behind {end} are {what}"
            )
            damaged |= not segment.torn
    tail = Block(
        np.concatenate([block.times for block in blocks]),
        np.concatenate([block.data for block in blocks]),
    )
    return Unfinished(stored, tail, notes, damaged)


def read_unfinished(folder: Path, name: str) -> Unfinished:
    """Return what a stream of an unfinished recording holds beyond its zarr arrays.

    Raises
    ------
    FileNotFoundError
        If the recorder removed a segment meanwhile: read again.
    """
    # The journal first: rows leave it only when zarr's metadata count them already.
    found = _read_segments(folder / JOURNAL / "streams" / name)
    store = FolderStore(folder)
    data, times = (
        ArrayReader(store, f"{name}.zarr"),
        ArrayReader(store, f"{name}_timestamps.zarr"),
    )
    stored = min(data.shape[0], times.shape[0])
    empty = Block(np.empty(0), np.empty((0, data.shape[1]), data.dtype))
    return _join(found, f"stream {name!r}, sample", stored, empty)


def read_labels_journal(folder: Path) -> tuple[list[tuple[float, int]], Unfinished]:
    """Return (timestamp, class_index) of every label in the journal, in call order."""
    empty = Block(np.empty(0), np.empty((0, 1), "<i8"))
    found = _join(_read_segments(folder / JOURNAL / "labels"), "label", 0, empty)
    times, indices = found.tail.times.tolist(), found.tail.data[:, 0].tolist()
    return list(zip(times, indices, strict=True)), found


def finish(folder: Path) -> list[str]:
    """Give an unfinished recording its finished layout; return what had to be repaired.

    Can be interrupted at any moment and run again: the journal goes last, and a damaged
    one is kept as ``journal-damaged``.
    """
    meta = parse_meta(read_json(folder / "meta.json"), str(folder / "meta.json"))
    notes: list[str] = []
    damaged = False
    for name in meta["streams"]:
        found = read_unfinished(folder, name)
        _store_tail(folder, name, found)
        notes += found.notes
        damaged |= found.damaged
    labels, found = read_labels_journal(folder)
    notes += found.notes
    damaged |= found.damaged
    write_json(
        folder / "labels.json",
        [{"timestamp": time, "class_index": index} for time, index in labels],
    )
    write_root(folder, meta)
    meta["labtree"]["state"] = "finished"
    if notes:
        meta["labtree"]["repairs"] = meta["labtree"].get("repairs", []) + notes
    write_json(folder / "meta.json", meta)
    kept = folder / _DAMAGED
    if damaged and not kept.exists():
        (folder / JOURNAL).rename(kept)
        notes.append(f"the damaged journal is kept as {kept}")
    else:
        # Renamed first, so that a folder with half a journal never looks unfinished.
        gone = folder / _DONE
        shutil.rmtree(gone, ignore_errors=True)
        (folder / JOURNAL).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    sync_folder(folder)
    return notes


def _store_tail(folder: Path, name: str, found: Unfinished) -> None:
    """Write the rows of a journal behind the whole chunks that stand in zarr."""
    store = FolderStore(folder)
    data, times = (
        ArrayReader(store, f"{name}.zarr"),
        ArrayReader(store, f"{name}_timestamps.zarr"),
    )
    stored = found.stored_rows
    whole = stored - stored % data.chunk_rows
    filler = ChunkFiller(
        folder / data.name,
        folder / times.name,
        (data.chunk_rows, data.shape[1]),
        data.dtype,
        whole,
    )
    filler.add(Block(times.read(whole, stored), data.read(whole, stored)))
    filler.add(found.tail)
    filler.finish()


def write_root(folder: Path, meta: dict[str, Any]) -> None:
    """Write the root group, which lets ``xr.open_zarr(folder)`` see every array."""
    arrays = {}
    for name in meta["streams"]:
        for array in (f"{name}.zarr", f"{name}_timestamps.zarr"):
            arrays[array] = json.loads((folder / array / "zarr.json").read_bytes())
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            "app_name": meta.get("app_name", ""),
            "created": meta.get("created", ""),
        },
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": arrays,
        },
    }
    replace_file(folder / "zarr.json", json.dumps(group, indent=2).encode())


def recover(folder: str | Path) -> list[str]:
    """Finish a recording whose process died, in place.

    Every sample and label that the recorder had acknowledged is brought into the layout of
    a finished recording. Nothing is removed before its copy is on the disk. A recording
    that is finished already is left alone. A MyoGestic folder that lost its ``meta.json``
    gets one from its arrays, with one second per chunk as its rate.

    Parameters
    ----------
    folder
        The recording's folder.

    Returns
    -------
    list of str
        What was repaired; empty if nothing was amiss.

    Raises
    ------
    MissingFileError
        If there is no recording.
    RecordingWriteError
        If another process still records here, or the disk refuses a write. The folder is
        as good as before.

    Examples
    --------
    >>> from labtree.recording import recover
    >>> from labtree.testing.recordings import record_emg
    >>> recover(record_emg("sessions"))
    []
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: expected a recording's folder, found none")
    if not (folder / "meta.json").exists():
        return _rebuild_meta(folder)
    if not (folder / JOURNAL).is_dir():
        shutil.rmtree(folder / _DONE, ignore_errors=True)
        return []
    try:
        held = lock(folder / LOCK)
    except BlockingIOError as error:
        raise RecordingWriteError(
            f"{folder} is still being recorded; close the recorder first"
        ) from error
    try:
        # Someone else may have finished it while we waited for the lock.
        return finish(folder) if (folder / JOURNAL).is_dir() else []
    except OSError as error:
        raise RecordingWriteError.of(
            error, f"{folder} cannot be finished, nothing is lost"
        ) from error
    finally:
        release(held)


def _rebuild_meta(folder: Path) -> list[str]:
    """Write the meta.json of a folder whose recorder died before it wrote any."""
    store = FolderStore(folder)
    streams = {}
    for path in sorted(folder.glob("*_timestamps.zarr")):
        name = path.name.removesuffix("_timestamps.zarr")
        if (folder / f"{name}.zarr").is_dir():
            data = ArrayReader(store, f"{name}.zarr")
            if len(data.shape) != 2:
                raise FormatError(
                    f"{data.where}: expected (rows, channels), found {data.shape}"
                )
            streams[name] = {
                "n_channels": data.shape[1],
                "fs": float(data.chunk_rows),
                "dtype": data.dtype.name,
            }
    if not streams:
        raise MissingFileError(
            f"{folder}: expected a recording's folder, found neither meta.json nor any"
            " <stream>.zarr with <stream>_timestamps.zarr"
        )
    note = "meta.json was missing: streams and rates are taken from the arrays; labels are lost"
    write_json(folder / "meta.json", {"streams": streams, "repairs": [note]})
    return [note]
