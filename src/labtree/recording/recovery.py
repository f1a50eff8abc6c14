"""Finishing a recording: from journals to the layout of a finished session.

The recorder ends a recording as `recover` does, but does not read again what it has just
taken from the journal itself. The journal takes precedence over the arrays: a part of it is
removed only when its samples are on the disk in whole chunks, so everything from its first
row on is written again, however far the arrays had come. This is correct after a power cut,
and gives the same result when it is interrupted and run again.
"""

import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labtree.errors import (
    FormatError,
    LabtreeError,
)
from labtree.recording.chunks import (
    ArrayReader,
    create_array,
    create_times,
    set_attribute,
    stream_arrays,
    sync_chunk,
    write_chunk,
)
from labtree.recording.compaction import ChunkFiller
from labtree.recording.journal import Block, read_segment, segments
from labtree.recording.meta import (
    own_meta,
    parse_meta,
)
from labtree.recording.models import StreamInfo, chunk_rows, declared_stream
from labtree.recording.recording_files import FolderStore
from labtree.recording.unfinished import (
    JOURNAL,
    KEPT,
    Findings,
    StoredRows,
    journal_blocks,
    read_labels_journal,
    read_segments,
)
from labtree.storage.files import read_file, sync_folder, write_file
from labtree.storage.folders import replace_folder, sync_tree, temporary_folder
from labtree.storage.json_files import read_json, write_json

_DAMAGED = "journal-damaged"
DONE = ".journal-done"
_MOST_KEPT_BYTES = 2**30
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def create_stream(folder: Path, name: str, info: StreamInfo, *, arrivals: bool) -> None:
    """Make the empty arrays of a stream; what stood there is replaced."""
    rows = chunk_rows(info)
    data, times, arrived = stream_arrays(folder, name)
    attributes = {
        "coordinates": times.name,
        "fs": info.fs,
        "units": info.units,
        "channel_names": None if info.channel_names is None else list(info.channel_names),
    }
    create_array(
        data,
        (rows, info.n_channels),
        np.dtype(info.dtype),
        (f"{name}_time", f"{name}_channel"),
        {key: value for key, value in attributes.items() if value is not None},
    )
    create_times(times, name, rows)
    if arrivals:
        create_times(arrived, name, rows)


def finish(
    folder: Path,
    odd: dict[str, dict[str, int]] | None = None,
    fillers: Mapping[str, ChunkFiller] | None = None,
    *,
    earlier: Iterable[str] = (),
) -> list[str]:
    """Give an unfinished recording its finished layout; return what had to be repaired.

    Can be interrupted at any moment and run again: the journal goes last, and a damaged
    one, or one that holds what is not known here, is kept as ``journal-damaged``.

    Parameters
    ----------
    folder
        The recording.
    odd
        What is odd about the time stamps of each stream, as `odd_time_stamps` tells it; it
        is read from the arrays if None.
    fillers
        Of streams whose journal was taken in to its end: only what they still hold is
        written. The others are read from their journals.
    earlier
        What was repaired before, to be noted in meta.json, too.
    """
    meta = parse_meta(read_json(folder / "meta.json"), str(folder / "meta.json"))
    if "streams" not in meta:
        found = ", ".join(meta) or "nothing"
        raise FormatError(
            f"{folder / 'meta.json'}: expected 'streams', found {found}; "
            "move it away and call labtree.recover again, which makes a new one"
        )
    _refuse_links(folder, meta["streams"])
    findings = Findings()
    for name, about in meta["streams"].items():
        if fillers and name in fillers:
            fillers[name].finish()
        else:
            _finish_stream(folder, name, about, findings)
        data = stream_arrays(folder, name).data
        if (names := meta.get("class_names")) and data.is_dir():
            set_attribute(data, "class_names", names)
    _note_strangers(folder, meta["streams"], findings)
    try:
        labels, of_labels = read_labels_journal(folder)
    except FileNotFoundError:
        labels, of_labels = [], Findings(["the journal of the labels is missing"], damaged=True)
    findings.notes += of_labels.notes
    findings.damaged |= of_labels.damaged
    write_labels(folder, [{"timestamp": time, "class_index": at} for time, at in labels])
    write_root(folder, meta, durable=True)
    own = meta.get("labtree")
    if not isinstance(own, dict):  # damaged
        findings.notes.append(f"meta.json had {own!r} under 'labtree', and no object")
        own = meta["labtree"] = own_meta("recording")
    own["state"] = "finished"
    if odd is None:
        odd = {name: odd_time_stamps(folder, name, findings.notes) for name in meta["streams"]}
    if odd := {name: facts for name, facts in odd.items() if facts}:
        own["time_stamps"] = odd
    notes = findings.notes
    if told := [*earlier, *notes]:
        add_repairs(own, told)
    write_json(folder / "meta.json", meta)
    if findings.damaged:
        kept = next(
            path
            for number in range(1, 10**6)
            if not (path := folder / (_DAMAGED + f"-{number}" * (number > 1))).exists()
        )
        (folder / JOURNAL).rename(kept)
        notes.append(f"the damaged journal is kept as {kept}")
    else:
        # Renamed first, so that a folder with half a journal never looks unfinished.
        gone = folder / DONE
        shutil.rmtree(gone, ignore_errors=True)
        (folder / JOURNAL).rename(gone)
        # On the disk before any part goes: half a journal would count for the whole of it.
        sync_folder(folder)
        shutil.rmtree(gone, ignore_errors=True)
    sync_folder(folder)
    return notes


def write_labels(folder: Path, labels: list[dict[str, Any]]) -> None:
    """Write labels.json, one label a line, which takes a tenth of the time of indented JSON."""
    lines = ",\n  ".join(map(_ENCODER.encode, labels))
    text = f"[\n  {lines}\n]" if labels else "[]"
    write_file(folder / "labels.json", text.encode())


def _refuse_links(folder: Path, names: Iterable[str]) -> None:
    journal = folder / JOURNAL
    written = [journal, journal / "labels", journal / "streams"]
    for name in names:
        written.append(journal / "streams" / name)
        for array in stream_arrays(folder, name):
            written += [array, array / "c"]
    for path in written:
        if path.is_symlink():
            raise FormatError(
                f"{path} is a symbolic link; a recording is not written through one. Replace"
                " it by what it leads to, then run recover again"
            )


def _finish_stream(folder: Path, name: str, about: dict[str, Any], findings: Findings) -> None:
    """Write the rows of a journal, from its first on, into the arrays of a stream."""
    journal = folder / JOURNAL / "streams" / name
    files = segments(journal) if journal.is_dir() else []
    if not journal.is_dir():
        findings.damaged = True
        findings.notes.append(f"stream {name!r}: its journal is missing, its chunks are kept")
    first_row = files[0][1] if files else None
    if first_row == 0:
        _remake_arrays(folder, name, about, findings)
    data, times, _ = stream_arrays(folder, name)
    if absent := [path.name for path in (data, times) if not path.is_dir()]:
        findings.damaged = True
        findings.notes.append(
            f"stream {name!r} is left as it is, its journal is kept: {' and '.join(absent)}"
            f" {'is' if len(absent) == 1 else 'are'} missing"
        )
        return
    arrays = StoredRows(folder, name)
    # An earlier call was interrupted after it had found a loss.
    stored = StoredRows(kept, name) if (kept := journal / KEPT).is_dir() else arrays
    rows = stored.data.chunk_rows
    first = stored.rows if first_row is None else min(first_row, stored.rows)
    for array, kind in ((arrays.times, "time stamps"), (arrays.arrivals, "arrivals")):
        if array is not None:
            fill_unknown(array, first, f"stream {name!r}, {kind}", findings.notes.extend)
    if first_row is None and stored.rows % rows:
        return  # nothing to add to rows that were finished before
    # The chunk in which the journal begins is written again, too: the journal is trusted.
    what = f"stream {name!r}, sample"
    start = first - first % rows
    following = min(-(-first // rows) * rows, stored.rows)
    begun = _begun_chunk(stored, files, start, first, following)
    if begun is None:
        findings.damaged = True
        findings.notes.append(
            f"{what} {start} to {following}: their chunk cannot be read and is left as it is;"
            " the journal is kept"
        )
        start = following = -(-first // rows) * rows
    filler = ChunkFiller(folder, name, (rows, stored.data.shape[1]), stored.data.dtype, start)

    def keep() -> None:
        filler.settle()
        _keep_chunks(folder, name, start // rows)

    try:
        if begun is not None:
            filler.add(begun)
        found = read_segments(journal, lambda: stored.samples) if files else ()
        for block in journal_blocks(found, what, following, stored, findings, keep):
            filler.add(block)
        filler.finish()
    finally:  # nothing is written any more when an interrupted call has returned
        filler.stop()


def _keep_chunks(folder: Path, name: str, first: int) -> None:
    """Copy the arrays of a stream, from a chunk on, before samples move up in them.

    So the same samples come out if the recovery is interrupted and run again.
    """
    kept = folder / JOURNAL / "streams" / name / KEPT
    if kept.is_dir():
        return
    with temporary_folder(kept) as made:
        for path in filter(Path.is_dir, stream_arrays(folder, name)):
            (made / path.name / "c").mkdir(parents=True)
            wanted = [path / "zarr.json"]
            wanted += [c for c in path.glob("c/[0-9]*") if c.name.isdecimal()]
            for source in wanted:
                target = made / source.relative_to(folder)
                if source.is_dir() and int(source.name) >= first:
                    shutil.copytree(source, target, ignore_dangling_symlinks=True)
                elif source.is_file() and (source.suffix or int(source.name) >= first):
                    shutil.copy(source, target)
        sync_tree(made)
        replace_folder(made, kept)


def _begun_chunk(
    stored: StoredRows, files: Iterable[tuple[Path, int]], start: int, first: int, stop: int
) -> Block | None:
    """Return the rows of a chunk, from ``first`` on those of a journal where it has them."""
    chunk = stored.read(start, stop)
    if chunk is None:
        return None
    for path, first_row in files:
        if first_row >= stop:
            break
        for row, block in read_segment(path, lambda: stored.samples).stretches:
            low, high = max(row, first), min(row + len(block.times), stop)
            if low < high:
                for whole, part in zip(chunk, block, strict=True):
                    whole[low - start : high - start] = part[low - row : high - row]
    return chunk


def fill_unknown(
    array: ArrayReader, stop: int, what: str, tell: Callable[[list[str]], None]
) -> None:
    """Put NaN in the place of times before row ``stop`` that cannot be read; say so first."""
    folder, rows = array.store.path / array.name, array.chunk_rows
    lost: list[tuple[int, int, str]] = []
    indices = []
    for index in range(-(-stop // rows)):
        path = folder / "c" / str(index)
        if not is_lost(array, index) or path.is_symlink():
            continue
        if path.exists() and not path.is_file():
            continue  # it is not replaced
        fate = set_aside(path, folder / f"c.{index}.damaged")
        indices.append(index)
        start, end = index * rows, min(index * rows + rows, stop)
        if lost and lost[-1][1:] == (start, fate):
            start, *_ = lost.pop()
        lost.append((start, end, fate))
    tell(
        [
            f"{what} {start} to {end}: their part of {array.name} {fate}; NaN stands for"
            " each of them"
            for start, end, fate in lost
        ]
    )
    for index in indices:
        write_chunk(folder, index, np.full(rows, np.nan))
        sync_chunk(folder, index, 1)


def is_lost(array: ArrayReader, index: int) -> bool:
    """Return whether a chunk of an array is missing, or cannot be read."""
    start = index * array.chunk_rows
    try:
        array.read(start, min(start + array.chunk_rows, array.shape[0]))
        return False
    except LabtreeError:
        return True


def set_aside(path: Path, kept: Path) -> str:
    """Keep a damaged file that still holds something; return what a note says of it."""
    if not path.exists():
        return "was missing"
    content = read_file(path, _MOST_KEPT_BYTES)
    if not content.strip(b"\0 \r\n\t"):
        return "was empty"
    names = (f"{kept.name}-{number}" for number in itertools.count(2))
    for name in itertools.chain([kept.name], names):
        place = kept.with_name(name)
        if not place.exists():
            write_file(place, content)
        elif read_file(place, _MOST_KEPT_BYTES) != content:
            continue  # of another damage
        return f"was damaged (kept as {name})"
    raise AssertionError("unreachable")


def _remake_arrays(folder: Path, name: str, about: dict[str, Any], findings: Findings) -> None:
    """Make arrays again whose metadata are not whole; all their rows are in the journal."""
    try:
        StoredRows(folder, name)
        if (arrivals := stream_arrays(folder, name).arrivals).is_dir():
            ArrayReader(FolderStore(folder), arrivals.name)
    except LabtreeError as error:
        info = declared_stream(about, f"{folder / 'meta.json'}: stream {name!r}")
        create_stream(folder, name, info, arrivals=True)
        findings.notes.append(f"stream {name!r}: made again from its journal ({error})")


def _note_strangers(folder: Path, names: Iterable[str], findings: Findings) -> None:
    """Note whatever stands in a journal and is not known here, so that it is kept."""
    journal = folder / JOURNAL
    known = {journal / "labels", journal / "streams"}
    known |= {journal / "streams" / name for name in names}
    for path in sorted(journal.rglob("*")):
        if path in known or path.name.startswith(("._", ".DS_Store")):
            continue
        if KEPT in path.relative_to(journal).parts[2:3]:
            continue
        inside = path.parent in known and path.suffix == ".journal"
        if inside and path.parent != journal / "streams":
            continue
        # A stream that the recorder died in the middle of making has taken no sample.
        unmade = path.parent == journal / "streams" and path.is_dir()
        if unmade and not any(segment.stretches for _, segment in read_segments(path)):
            known.add(path)
            continue
        findings.damaged = True
        findings.notes.append(f"{path.relative_to(folder)} does not belong to this recording")


def odd_time_stamps(folder: Path, name: str, notes: list[str] | None = None) -> dict[str, int]:
    """Return how many time stamps go backward or are not finite, and where the first is.

    Stamps that cannot be read are skipped, and reported in ``notes``.
    """
    array = stream_arrays(folder, name).times
    if not array.is_dir():
        return {}
    times = ArrayReader(FolderStore(folder), array.name)
    facts, last = {"backward": 0, "not_finite": 0}, -math.inf
    first_odd = None
    for start in range(0, times.shape[0], times.chunk_rows):
        stop = min(start + times.chunk_rows, times.shape[0])
        try:
            part = times.read(start, stop)
        except LabtreeError as error:
            if notes is not None:
                notes.append(f"stream {name!r}, time stamps {start} to {stop}: {error}")
            continue
        backward, unknown = odd_stamps(part, last)
        odd = np.flatnonzero(backward | unknown)
        if first_odd is None and len(odd):
            first_odd = start + int(odd[0])
        facts["backward"] += int(backward.sum())
        facts["not_finite"] += int(unknown.sum())
        last = last_finite(part, last)
    return {} if first_odd is None else {**facts, "first_sample": first_odd}


def odd_stamps(times: np.ndarray, last: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which time stamps go backward, from ``last`` on, and which are not finite."""
    finite = np.isfinite(times)
    known = np.concatenate([[last], times[finite]])
    backward = np.zeros(len(times), bool)
    backward[finite] = known[1:] < known[:-1]
    return backward, ~finite


def last_finite(times: np.ndarray, before: float) -> float:
    """Return the last finite time stamp; ``before`` where none is."""
    if math.isfinite(times[-1]):
        return float(times[-1])
    finite = times[np.isfinite(times)]
    return float(finite[-1]) if len(finite) else before


def add_repairs(about: dict[str, Any], notes: list[str]) -> None:
    """Add notes to those that stand in a part of meta.json."""
    earlier = about.get("repairs")
    told = earlier if isinstance(earlier, list) else []
    # A call that was interrupted has told some of them already.
    about["repairs"] = [*told, *(note for note in notes if note not in told)]


def write_root(
    folder: Path,
    meta: dict[str, Any],
    rows_of: Mapping[str, int] | None = None,
    *,
    durable: bool = False,
) -> None:
    """Write the root group, which lets ``xr.open_zarr(folder)`` see every array.

    Its consolidated metadata give all arrays of a stream the same moment's number of rows:
    those of ``rows_of``, or those that the arrays say themselves.
    """
    arrays = {}
    for name in meta["streams"]:
        found = [path for path in stream_arrays(folder, name) if path.is_dir()]
        if len(found) < 2:
            continue
        metadata = [read_json(path / "zarr.json") for path in found]
        rows = min(part["shape"][0] for part in metadata)
        rows = max(rows, (rows_of or {}).get(name, 0))
        for path, part in zip(found, metadata, strict=True):
            arrays[path.name] = {**part, "shape": [rows, *part["shape"][1:]]}
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
    content = json.dumps(group, indent=2).encode()
    write_file(folder / "zarr.json", content, durable=durable)
