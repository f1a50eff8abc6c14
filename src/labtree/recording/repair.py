"""Making again what a recording's folder lacks, so that it can be finished and opened."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labtree.errors import (
    BusyFileError,
    FormatError,
    LabtreeError,
    MissingFileError,
    RecordingWriteError,
    missing_file,
)
from labtree.formats import takes
from labtree.recording.chunks import (
    ZSTD_MAGIC,
    ArrayReader,
    create_array,
    create_times,
    set_rows,
    stream_arrays,
    write_chunk,
)
from labtree.recording.journal import segments
from labtree.recording.meta import own_meta, parse_labels, parse_meta, stream_meta, whole_labels
from labtree.recording.models import chunk_rows, declared_stream
from labtree.recording.recording_files import FolderStore
from labtree.recording.recovery import (
    DONE,
    add_repairs,
    fill_unknown,
    finish,
    is_lost,
    odd_time_stamps,
    set_aside,
    write_labels,
    write_root,
)
from labtree.recording.unfinished import JOURNAL, LOCK
from labtree.storage.files import read_file, write_file
from labtree.storage.folders import replace_folder, sync_tree, temporary_folder
from labtree.storage.json_files import MAX_JSON_BYTES, parse_json, read_json, write_json
from labtree.storage.locks import hold_file_lock, release_file_lock


@takes("a recording", "recording")
def recover(folder: str | Path) -> list[str]:
    """Finish a recording whose process died, in place, and repair what can be.

    `recover` brings every sample and label that the recorder had acknowledged into the
    layout of a finished recording. It removes nothing before its copy is on the disk, and
    nothing that it does not understand. It does not change a finished recording. It makes a
    missing or damaged ``meta.json`` again from the arrays (rates, units, names of channels
    and classes; arrays of MyoGestic have only the integer part of the rate), and the
    ``zarr.json`` of an array from that of the root or from ``meta.json`` and the chunks.
    Missing time stamps are taken from the journal, or become NaN if it lacks them, also in a
    finished recording of labtree; `labtree.dejitter` gives their samples the time of their
    position. It keeps the complete entries of a damaged ``labels.json``, and tells which
    samples are lost. It may be interrupted and run again.

    Parameters
    ----------
    folder
        The recording's folder. `labtree.open_session` opens it, before and after.

    Returns
    -------
    list of str
        What was repaired, and what cannot be; empty if nothing is damaged.

    Raises
    ------
    MissingFileError
        If there is no recording.
    RecordingWriteError
        If another process still records here, or the disk refuses a write. The folder is
        as good as before.
    FormatError
        If a symbolic link stands where something would be written, such as one of git-annex
        whose content is not here.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> labtree.recover(record_emg("sessions"))
    []
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise missing_file(f"{folder}: expected a recording's folder, found none", folder)
    if not _needs_repair(folder):
        shutil.rmtree(folder / DONE, ignore_errors=True)
        return _lost_samples(folder)
    try:
        held = hold_file_lock(folder / LOCK)
    except BusyFileError as error:
        raise RecordingWriteError(
            f"{folder} is still being recorded; close the recorder first"
        ) from error
    except OSError as error:
        raise RecordingWriteError.of(error, f"{folder} cannot be written to") from error
    try:
        of_arrays = _repair_arrays(folder, {name: {} for name in _stream_names(folder)})
        notes = _repair_meta(folder)
        meta = parse_meta(read_json(folder / "meta.json"), str(folder / "meta.json"))
        of_arrays += _repair_arrays(folder, meta.get("streams", {}))
        # Someone else may have finished it while we waited for the lock.
        if (folder / JOURNAL).is_dir():
            return of_arrays + notes + finish(folder, earlier=of_arrays)
        _note_in_meta(folder, of_arrays)
        of_times = _repair_times(folder)
        if of_arrays or of_times or notes:
            _note_time_stamps(folder)
        notes += _repair_labels(folder, made_meta=bool(notes))
        return of_arrays + of_times + notes + _repair_root(folder) + _lost_samples(folder)
    except LabtreeError:
        raise
    except OSError as error:
        raise RecordingWriteError.of(
            error, f"{folder} cannot be finished, nothing is lost"
        ) from error
    finally:
        release_file_lock(held)


def _needs_repair(folder: Path) -> bool:
    if (folder / JOURNAL).is_dir() or _damaged_json(folder / "meta.json"):
        return True
    meta = read_json(folder / "meta.json")
    own = isinstance(meta, dict) and isinstance(meta.get("labtree"), dict)
    if own and _damaged_json(folder / "zarr.json"):
        return True
    for name in _stream_names(folder):
        data, times, _ = arrays = stream_arrays(folder, name)
        if any(_damaged_json(path / "zarr.json") for path in arrays if path.is_dir()):
            return True
        if not times.exists() and data.is_dir():
            return True
    for _, array, stop in _own_times(folder):
        if any(is_lost(array, at) for at in range(-(-stop // array.chunk_rows))):
            return True
    labels = folder / "labels.json"
    return _damaged_json(labels) if labels.exists() or labels.is_symlink() else own


def _damaged_json(path: Path) -> bool:
    """Return whether a file is missing or holds no JSON; what JSON says is another matter."""
    try:
        parse_json(read_file(path, MAX_JSON_BYTES), str(path))
        return False
    except MissingFileError:
        pass
    except FormatError:
        if not path.is_file():
            raise
    if path.is_symlink():
        raise FormatError(
            f"{path} is a symbolic link, and what it leads to is not here, or damaged; fetch it"
            " ('git annex get', 'datalad get'), or put the file in its place"
        )
    return True


def _set_aside(path: Path) -> str:
    """Keep a damaged file beside itself; return what a note says of it."""
    return set_aside(path, path.with_name(f"{path.name}.damaged"))


def _repair_meta(folder: Path) -> list[str]:
    """Write the meta.json of a folder that has none, from its arrays; return notes."""
    if not _damaged_json(folder / "meta.json"):
        return []
    store, streams, class_names = FolderStore(folder), {}, None
    for name in _stream_names(folder):
        if not (folder / f"{name}.zarr").is_dir():
            continue
        try:
            data = ArrayReader(store, f"{name}.zarr")
        except FormatError:
            # Its recorder died in the middle of making it.
            if (folder / JOURNAL).is_dir():
                continue
            raise
        if len(data.shape) != 2:
            raise FormatError(f"{data.where}: expected (rows, channels), found {data.shape}")
        own = data.attributes
        names = own.get("channel_names")
        about = {
            "n_channels": data.shape[1],
            "fs": own.get("fs", float(data.chunk_rows)),
            "dtype": data.dtype.name,
            "channel_names": names,
            "units": own.get("units"),
        }
        streams[name] = stream_meta(declared_stream(about, data.where))
        class_names = class_names or own.get("class_names")
    if not streams and not (folder / JOURNAL).is_dir():
        raise MissingFileError(
            f"{folder}: expected a recording's folder, found neither meta.json nor any"
            " <stream>.zarr with <stream>_timestamps.zarr"
        )
    note = f"meta.json {_set_aside(folder / 'meta.json')}; it is made again from the arrays"
    meta: dict[str, Any] = {**_root_attributes(folder), "streams": streams}
    if class_names is not None:
        meta["class_names"] = class_names
    journal = (folder / JOURNAL).is_dir()
    if journal or (folder / "zarr.json").exists():
        meta["labtree"] = own_meta("recording" if journal else "finished")
        meta["labtree"]["repairs"] = [note]
    else:  # of MyoGestic
        meta["repairs"] = [note]
    write_json(folder / "meta.json", meta)
    return [note]


def _root_attributes(folder: Path) -> dict[str, str]:
    """Return who recorded and when, as the root's zarr.json says."""
    try:
        found = read_json(folder / "zarr.json")["attributes"]
        return {key: found[key] for key in ("app_name", "created") if found[key]}
    except (LabtreeError, KeyError, TypeError):
        return {}


def _repair_labels(folder: Path, *, made_meta: bool) -> list[str]:
    """Write the labels.json of a finished folder that has none, or half of one."""
    path = folder / "labels.json"
    if not path.exists():
        own = "labtree" in read_json(folder / "meta.json")
        notes = ["labels.json was missing: the labels are lost"] if own or made_meta else []
        labels: list[dict[str, Any]] = []
    elif _damaged_json(path):
        labels = whole_labels(read_file(path, MAX_JSON_BYTES))
        parse_labels(labels, str(path))
        notes = [f"labels.json {_set_aside(path)}: {len(labels)} complete labels are kept"]
    else:
        return []
    if notes:
        write_labels(folder, labels)
        _note_in_meta(folder, notes)
    return notes


def _note_in_meta(folder: Path, notes: list[str]) -> None:
    """Say in meta.json what was repaired."""
    if not notes:
        return
    meta = read_json(folder / "meta.json")
    own = meta.get("labtree")
    holder = own if isinstance(own, dict) else meta
    add_repairs(holder, notes)
    write_json(folder / "meta.json", meta)


# --- arrays -------------------------------------------------------------------------------


def _stream_names(folder: Path) -> list[str]:
    """Return the streams that have arrays of samples, times or arrivals."""
    names = {path.name.removesuffix("_timestamps.zarr") for path in folder.glob("*.zarr")}
    names = {name.removesuffix("_arrivals.zarr").removesuffix(".zarr") for name in names}
    return sorted(name for name in names if not name.startswith("."))


def _repair_arrays(folder: Path, streams: Mapping[str, Any]) -> list[str]:
    """Make again the metadata of arrays that lack them; return notes.

    A stream of which nothing is known (``{}``) gets what the root's zarr.json says.
    """
    by_root = _arrays_of_root(folder)
    notes = []
    for name, about in streams.items():
        data, times, arrivals = stream_arrays(folder, name)
        journal = folder / JOURNAL / "streams" / name
        held = segments(journal) if journal.is_dir() else []
        for path in (data, times, arrivals):
            if not path.is_dir() or not _damaged_json(path / "zarr.json"):
                continue
            metadata = by_root.get(path.name) or _array_metadata(path, data, times, about)
            if metadata is None:
                continue
            if path.is_symlink():
                raise FormatError(
                    f"{path} is a symbolic link; a recording is not written through one"
                )
            # A segment of a journal is removed when the chunks of its samples count.
            rows = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
            removed = -(-held[0][1] // rows) * rows if held else 0
            metadata["shape"][0] = max(metadata["shape"][0], removed)
            notes.append(
                f"{path.name}/zarr.json {_set_aside(path / 'zarr.json')}; it is made again"
            )
            write_file(path / "zarr.json", json.dumps(metadata, indent=2).encode())
        in_journal = held and held[0][1] == 0  # every sample, for arrays that are made again
        if in_journal or not about or _damaged_or_gone(data):
            continue
        for path, what in ((times, "time stamps"), (arrivals, "arrivals")):
            gone = _damaged_or_gone(path) and not list((path / "c").glob("*"))
            if gone and (path == times or path.exists()):
                note = _make_times(folder, name, path, what)
                notes.append(f"{note} that its journal lacks" if held else note)
    return notes


def _damaged_or_gone(array: Path) -> bool:
    return not array.is_dir() or _damaged_json(array / "zarr.json")


def _arrays_of_root(folder: Path) -> dict[str, Any]:
    """Return the arrays' metadata that the root's zarr.json repeats."""
    try:
        found = read_json(folder / "zarr.json")["consolidated_metadata"]["metadata"]
        return {
            name: metadata
            for name, metadata in found.items()
            if metadata["shape"] and metadata["chunk_grid"]["configuration"]["chunk_shape"]
        }
    except (LabtreeError, KeyError, TypeError, AttributeError):
        return {}


def _array_metadata(path: Path, data: Path, times: Path, about: Any) -> dict[str, Any] | None:
    """Return an array's metadata from what the stream and the array beside it say, or None."""
    chunks = sorted((path / "c").glob("[0-9]*"), key=lambda chunk: (len(chunk.name), chunk))
    if not about or not chunks:
        return None
    info = declared_stream(about, str(path))
    rows, counted = chunk_rows(info), None
    sibling = times if path == data else data
    if not _damaged_or_gone(sibling):
        beside = ArrayReader(FolderStore(path.parent), sibling.name)
        rows, counted = beside.chunk_rows, beside.shape[0]
    shape = (rows, info.n_channels) if path == data else (rows,)
    dtype = np.dtype(info.dtype if path == data else "float64")
    first = chunks[0] / "0" if path == data else chunks[0]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "array.zarr"
        create_array(made, shape, dtype, None, {})
        metadata: dict[str, Any] = read_json(made / "zarr.json")
    if read_file(first, 2**30)[:4] == ZSTD_MAGIC:  # as MyoGestic writes
        metadata["codecs"][1:] = [
            {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
        ]
    # Without the array beside it the zeros after the last sample count, too.
    metadata["shape"][0] = (int(chunks[-1].name) + 1) * rows if counted is None else counted
    return metadata


def _make_times(folder: Path, name: str, times: Path, what: str) -> str:
    """Make times that are NaN, in the place of an array that is gone; return a note."""
    samples = ArrayReader(FolderStore(folder), stream_arrays(folder, name).data.name)
    rows, count = samples.chunk_rows, samples.shape[0]
    with temporary_folder(times) as made:
        create_times(made, name, rows)
        for index in range(-(-count // rows)):
            write_chunk(made, index, np.full(rows, np.nan))
        set_rows(made, count)
        sync_tree(made)
        replace_folder(made, times)
    return f"stream {name!r}: its {count} {what} are gone; NaN stands for each of them"


def _own_times(folder: Path) -> Iterator[tuple[str, ArrayReader, int]]:
    """Yield the times of each stream of labtree: their name, array, and number of samples.

    Samples count up to the first chunk that is missing, however many the metadata declare.
    """
    store = FolderStore(folder)
    for name in _stream_names(folder):
        data, *arrays = stream_arrays(folder, name)
        for path, what in zip(arrays, ("time stamps", "arrivals"), strict=True):
            if _damaged_or_gone(path) or _damaged_or_gone(data):
                continue
            if path.is_symlink() or (path / "c").is_symlink():
                continue  # it is not written through
            with contextlib.suppress(FormatError):
                array, samples = ArrayReader(store, path.name), ArrayReader(store, data.name)
                if len(array.shape) == 1 and array.is_own:
                    stop = min(array.shape[0], samples.whole_rows())
                    yield f"stream {name!r}, {what}", array, stop


def _repair_times(folder: Path) -> list[str]:
    """Put NaN in the place of times of a finished recording that cannot be read."""
    notes: list[str] = []

    def tell(found: list[str]) -> None:
        _note_in_meta(folder, found)
        notes.extend(found)

    for what, array, stop in _own_times(folder):
        fill_unknown(array, stop, what, tell)
    return notes


def _note_time_stamps(folder: Path) -> None:
    """Say in meta.json how many time stamps are odd."""
    meta = read_json(folder / "meta.json")
    if not isinstance(own := meta.get("labtree"), dict):
        return
    odd = {}
    for name in meta.get("streams", {}):
        times = stream_arrays(folder, name).times
        with contextlib.suppress(FormatError):
            array = ArrayReader(FolderStore(folder), times.name)
            if array.whole_rows() == array.shape[0]:
                odd[name] = odd_time_stamps(folder, name)
    if (found := {name: facts for name, facts in odd.items() if facts}) != own.get(
        "time_stamps", {}
    ):
        own["time_stamps"] = found
        write_json(folder / "meta.json", meta)


def _lost_samples(folder: Path) -> list[str]:
    """Return what is to be said of samples of a recording that are gone."""
    notes = []
    for name in _stream_names(folder):
        data, times, _ = stream_arrays(folder, name)
        if not data.exists():
            notes.append(f"stream {name!r}: {data.name} is missing, and cannot be made again")
            continue
        for path in (data, times):
            with contextlib.suppress(FormatError):
                array = ArrayReader(FolderStore(folder), path.name)
                rows, whole = array.shape[0], array.whole_rows()
                # A chunk of another program's samples may be zeros, which zarr does not store.
                if whole < rows and (array.is_own or path == times):
                    notes.append(
                        f"stream {name!r}: {whole} of {rows} samples can be read; the next"
                        f" chunk of {path.name} is missing or empty, and cannot be made again"
                    )
                    break
    return notes


def _repair_root(folder: Path) -> list[str]:
    """Write the root's zarr.json of a finished folder where it is gone or damaged."""
    meta = read_json(folder / "meta.json")
    if not isinstance(meta.get("labtree"), dict) or not _damaged_json(folder / "zarr.json"):
        return []
    note = f"zarr.json {_set_aside(folder / 'zarr.json')}; it is made again from the arrays"
    write_root(folder, meta, durable=True)
    _note_in_meta(folder, [note])
    return [note]
