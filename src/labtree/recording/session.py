"""Saved recordings as lazy trees."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import xarray as xr

from labtree.errors import (
    FormatError,
    LabtreeError,
    MissingFileError,
    RecordingWarning,
    SessionError,
    UnknownNameError,
    missing_file,
    unknown_name,
    warn,
)
from labtree.formats import takes
from labtree.recording.chunks import ArrayReader, RowsArray
from labtree.recording.meta import parse_labels, parse_meta, whole_labels
from labtree.recording.models import StreamInfo, declared_stream
from labtree.recording.recording_files import (
    SUFFIX,
    FolderStore,
    SessionStore,
    ZipStore,
    stored_json,
)
from labtree.recording.unfinished import (
    JOURNAL,
    LOCK,
    Findings,
    read_labels_journal,
    read_unfinished,
)
from labtree.storage.arguments import one_of
from labtree.storage.files import open_regular
from labtree.storage.json_files import MAX_JSON_BYTES, parse_json
from labtree.storage.lazy import as_lazy
from labtree.storage.locks import is_locked

OnMissing = Literal["warn", "raise"]


@takes("a recording", "recording")
def open_recording(path: str | Path, *, on_missing: OnMissing = "warn") -> xr.DataTree:
    """Open a recording as a lazy tree; samples are read when they are indexed.

    The tree has ``streams/<name>`` with ``data (time, channel)`` and ``time (time)`` in
    seconds, and ``labels`` with ``timestamp``, ``class_index`` and ``class_name`` over
    ``label``, sorted by time. ``time`` has no index, because an index would have to be
    read: ``tree.session.continuous(name)`` has one. Nothing stays open between two reads.

    A recording whose process died opens completely, from its chunks and its journal, and a
    warning says what was found. One that is still being recorded opens with what is there
    at that moment.

    Parameters
    ----------
    path
        A recording's folder, of labtree or MyoGestic, or its ``.session.zip``.
    on_missing
        What to do about a file that is damaged. ``"warn"``: the samples before the damage
        are kept, and a warning says how many. A missing data chunk of a MyoGestic file may
        be real zeros, which zarr does not store: it is read as zeros, with a warning.
        ``"raise"``: an error for each of these.

    Returns
    -------
    DataTree
        The session, lazy; see ``tree.session``.

    Raises
    ------
    MissingFileError
        If there is nothing at ``path``, or no ``meta.json`` in it.
    FormatError
        If it is no recording, unsafe, damaged, or of a version that is not known here.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> tree = labtree.open_session(record_emg("sessions"))
    >>> tree["streams/emg/data"].dims
    ('time', 'channel')
    """
    one_of("on_missing", on_missing, get_args(OnMissing), SessionError)
    path = Path(path)
    store = _store(path)
    attempts = 50
    while True:
        attempts -= 1
        opening = _Opening(store, path.is_dir() and (path / JOURNAL).is_dir())
        try:
            tree = _read(opening)
            break
        except FileNotFoundError as error:
            # The recorder moved samples from the journal while we looked; look again.
            if not opening.is_unfinished or not (path / "meta.json").exists():
                raise
            if attempts == 0:
                raise FormatError(
                    f"{path}: damaged, {error.filename or error} is missing; run"
                    f" labtree.recover({str(path)!r})"
                ) from error
            time.sleep(0.01)
    remarks, damage = opening.remarks, opening.damage
    if damage and on_missing == "raise":
        raise FormatError(f"{path}: " + "; ".join(damage))
    if tree.attrs["recording_state"] == "unfinished":
        whole = "" if damage else "; every sample and label is here"
        remarks.insert(
            0,
            f"the recording was not finished{whole}; 'labtree recover {path}' gives the folder"
            " its finished layout",
        )
    if found := remarks + damage:
        tree.attrs["repairs"] = tree.attrs.get("repairs", []) + found
        warn(f"{path}: " + "; ".join(found), RecordingWarning)
    tree.set_close(store.close)
    return tree


@dataclass
class _Opening:
    """A session that is being opened, and what was found: what is merely so, and damage."""

    store: SessionStore
    is_unfinished: bool
    is_alive: bool = False  # somebody records into it now
    is_own: bool = False  # of labtree, not of MyoGestic
    remarks: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)

    def add(self, findings: Findings) -> None:
        """Note what a journal holds, unless it is still written."""
        if not self.is_alive:
            (self.damage if findings.damaged else self.remarks).extend(findings.notes)


def _store(path: Path) -> SessionStore:
    if path.is_dir():
        return FolderStore(path)
    if not path.exists():
        raise missing_file(f"{path}: expected a session, found nothing", path)
    with os.fdopen(open_regular(path), "rb") as file:
        start = file.read(8)
    if start[:2] == b"PK":
        return ZipStore(path)
    if start == b"\x89HDF\r\n\x1a\n":
        raise FormatError(
            f"{path} is an HDF5 file, not a recording; write"
            f" labtree.load_session({str(path)!r})"
        )
    raise FormatError(
        f"{path}: expected a recording's folder or a {SUFFIX} file, found a file that begins"
        f" with {start!r}"
    )


def _read(opening: _Opening) -> xr.DataTree:
    store, damage = opening.store, opening.damage
    try:
        meta = parse_meta(stored_json(store, "meta.json"), f"{store.path}/meta.json")
    except KeyError:
        raise MissingFileError(
            f"{store.path}: expected a session, found no meta.json{_hint_without_meta(store)}"
        ) from None
    except FormatError as error:
        if "expected JSON" not in str(error):
            raise
        raise FormatError(f"{error}{_hint_without_meta(store)}") from error
    own = meta.get("labtree", {})
    opening.is_own = "labtree" in meta
    if not isinstance(own, dict):
        damage.append(f"meta.json has {own!r} under 'labtree', and no object")
        own = {}
    opening.is_alive = opening.is_unfinished and is_locked(store.path / LOCK)
    if opening.is_own and not opening.is_alive:
        _compare_with_root(store, meta, damage)
    facts = own.get("time_stamps")
    streams = {}
    for name, about in meta.get("streams", {}).items():
        odd = facts.get(name) if isinstance(facts, dict) else None
        try:
            streams[name] = xr.DataTree(_stream(opening, name, about, odd))
        except FormatError:
            arrays = (f"{name}.zarr", f"{name}_timestamps.zarr")
            problems = [text for array in arrays if (text := _array_problem(store, array))]
            if not problems:
                raise
            damage.append(
                f"stream {name!r} is left out: {' and '.join(problems)}{_hint(store)}"
            )
    names = meta.get("class_names")
    state = "finished"
    if opening.is_unfinished:
        state = "recording" if opening.is_alive else "unfinished"
    attributes = {
        "session_path": str(store.path),
        "app_name": meta.get("app_name"),
        "created": meta.get("created"),
        "name": meta.get("name"),
        "class_names": names,
        "schema_version": meta.get("schema_version"),
        "pose_convention": meta.get("pose_convention"),
        "recording_state": state,
    }
    for key in ("extras", "control_space"):
        if key in meta:
            attributes[key] = json.dumps(meta[key])
    attributes["started"] = own.get("started")
    attributes["clock_to_unix_s"] = own.get("clock_to_unix_s")
    if isinstance(repairs := own.get("repairs"), list):
        attributes["repairs"] = repairs
    known = {key: value for key, value in attributes.items() if value is not None}
    tree = xr.DataTree(xr.Dataset(attrs=known))
    tree.children = {
        "streams": xr.DataTree(children=streams),
        "labels": xr.DataTree(labels_to_dataset(_labels(opening), names)),
    }
    return tree


def _compare_with_root(store: SessionStore, meta: dict[str, Any], damage: list[str]) -> None:
    """Note what the root's zarr.json has of the recording, and meta.json or the folder not."""
    try:
        root = stored_json(store, "zarr.json")
        created = root["attributes"]["created"]
        arrays = set(root["consolidated_metadata"]["metadata"])
    except (LabtreeError, KeyError, TypeError):
        return
    if created and meta.get("created", created) != created:
        damage.append(
            f"meta.json is of another recording, created {meta['created']}, the arrays were"
            f" created {created}: rates, units and names may be wrong. Put the right one in its"
            f" place, or move it away{_hint(store, 'one from the arrays')}"
        )
    for array in sorted(arrays):
        name = array.removesuffix("_timestamps.zarr").removesuffix("_arrivals.zarr")
        if name == array:
            continue
        is_known = name in meta.get("streams", {})
        if array.endswith("_timestamps.zarr") and not is_known:
            damage.append(f"stream {name!r} is left out: meta.json does not name it")
        elif array.endswith("_arrivals.zarr") and is_known and not _is_here(store, array):
            damage.append(f"stream {name!r} has no arrivals: {array} is missing")


def _is_here(store: SessionStore, array: str) -> bool:
    folder = store.path / array
    return store.size(f"{array}/zarr.json") is not None or folder.is_dir()


def _array_problem(store: SessionStore, array: str) -> str | None:
    """Return what keeps an array from being read at all, or None."""
    name = f"{array}/zarr.json"
    if isinstance(store, FolderStore) and not store.size(name):
        if (store.path / name).is_symlink():
            return f"{name} is a link to what is not here"
        if not (store.path / array).exists():
            return f"{array} is missing"
    try:
        stored_json(store, name)
    except KeyError:
        return f"{name} is missing"
    except FormatError as error:
        if "expected JSON" not in str(error):
            raise
        return f"{name} is {'damaged' if store.size(name) else 'empty'}"
    return None


def _hint(store: SessionStore, makes: str = "again what it can") -> str:
    folder = repr(str(store.path)) if store.path.is_dir() else "folder"
    unpack = "" if store.path.is_dir() else "unpack the archive, and "
    return f"; {unpack}labtree.recover({folder}) makes {makes}"


def _hint_without_meta(store: SessionStore) -> str:
    if (store.path / "meta.json").is_symlink():
        return "; it is a link to what is not here, or damaged ('git annex get' fetches it)"
    if store.path.is_dir() and not any(store.path.glob("*_timestamps.zarr")):
        return ""
    return _hint(store, "one from the arrays")


def _labels(opening: _Opening) -> list[tuple[float, int]]:
    store = opening.store
    if opening.is_unfinished:
        labels, findings = read_labels_journal(store.path)
        opening.add(findings)
        return labels
    try:
        content = store.read("labels.json", MAX_JSON_BYTES)
    except KeyError:
        if opening.is_own:
            opening.damage.append("labels.json is missing: the labels are lost")
        return []
    where = f"{store.path}/labels.json"
    try:
        found = parse_json(content, where)
    except FormatError:
        found = whole_labels(content)
        opening.damage.append(f"labels.json is damaged: {len(found)} complete labels are kept")
    return parse_labels(found, where)


def _stream(
    opening: _Opening, name: str, about: dict[str, Any], odd: dict[str, int] | None
) -> xr.Dataset:
    store, damage = opening.store, opening.damage
    # The journal first: rows leave it only when the arrays count them.
    found = read_unfinished(store.path, name) if opening.is_unfinished else None
    if found is not None:
        opening.add(found.findings)
    data = ArrayReader(store, f"{name}.zarr")
    times = ArrayReader(store, f"{name}_timestamps.zarr")
    where = f"{store.path}: stream {name!r}"
    if len(data.shape) != 2 or len(times.shape) != 1 or times.dtype != np.float64:
        raise FormatError(
            f"{where} is {data.shape} {data.dtype} with time stamps"
            f" {times.shape} {times.dtype}; expected (samples, channels) and (samples,) float64"
        )
    declared = (about.get("n_channels", data.shape[1]), about.get("dtype", data.dtype.name))
    if declared != (data.shape[1], data.dtype.name):
        raise FormatError(
            f"{where} is declared as {declared[0]} channels of"
            f" {declared[1]}, its array has {data.shape[1]} of {data.dtype}"
        )
    if found is not None:
        stored = found.stored_rows
    else:
        stored = min(data.shape[0], times.shape[0])
        if data.shape[0] != times.shape[0]:
            damage.append(
                f"stream {name!r} has {data.shape[0]} samples and {times.shape[0]} time stamps;"
                f" the first {stored} are kept"
            )
    whole = _undamaged(opening, name, data, times, stored)
    tail = None if found is None else found.tail
    if tail is not None and whole < stored:
        damage.append(f"stream {name!r}: {len(tail.times)} samples stay in the journal")
        tail = None
    rows = whole + (0 if tail is None else len(tail.times))
    arrivals = None
    arrived = f"{name}_arrivals.zarr"
    has_arrivals = _is_here(store, arrived)
    if has_arrivals and (problem := _array_problem(store, arrived)):
        damage.append(f"stream {name!r} has no arrivals: {problem}{_hint(store)}")
    elif has_arrivals:
        reader = ArrayReader(store, arrived)
        if len(reader.shape) == 1 and reader.shape[0] >= whole:
            arrivals = RowsArray(reader, rows, None if tail is None else tail.arrivals)
    return stream_dataset(
        RowsArray(data, rows, None if tail is None else tail.data),
        RowsArray(times, rows, None if tail is None else tail.times),
        arrivals,
        odd=odd,
        fs=about.get("fs"),
        channel_names=about.get("channel_names"),
        units=about.get("units"),
        grids=about.get("channel_grids"),
        where=where,
    )


def _undamaged(
    opening: _Opening, name: str, data: ArrayReader, times: ArrayReader, rows: int
) -> int:
    """Return how many of the first ``rows`` are whole; note what is missing."""
    whole = min(rows, times.whole_rows())
    zeros, whole = data.missing_chunks(whole)
    if zeros and opening.is_own:
        whole = min(whole, zeros[0] * data.chunk_rows)
        zeros = []
    if whole < rows:
        text = f"stream {name!r} is damaged: {whole} of its {rows} samples can be read"
        if opening.is_own and whole == times.whole_rows():
            text += f", {times.name} lacks a part{_hint(opening.store)}"
        opening.damage.append(text)
    if zeros:
        opening.damage.append(
            f"stream {name!r}: {_chunk_list(zeros)} of {data.name} missing, read as zeros,"
            " which zarr does not store; they may be lost samples"
        )
    return whole


def _chunk_list(indices: list[int]) -> str:
    shown = ", ".join(f"c/{index}" for index in indices[:5])
    more = f" and {len(indices) - 5} more" if len(indices) > 5 else ""
    return f"chunk{'s' if len(indices) > 1 else ''} {shown}{more}"


def stream_dataset(
    data: Any,
    times: Any,
    arrivals: Any = None,
    *,
    odd: Mapping[str, int] | None = None,
    fs: float | None = None,
    channel_names: Iterable[str] | None = None,
    units: str | None = None,
    grids: Any = None,
    where: str = "stream",
) -> xr.Dataset:
    """Return a stream's Dataset: ``data (time, channel)`` and ``time``, without an index.

    ``data`` and ``times`` are numpy arrays, or lazy ones of a recording. ``arrivals`` becomes
    the variable ``arrival`` (time), ``odd`` attributes that count odd time stamps.
    """
    lazy = isinstance(data, RowsArray)
    time = xr.Variable("time", as_lazy(times) if lazy else times, {"units": "s"})
    attributes: dict[str, Any] = {
        "fs": fs,
        "channel_grids": None if grids is None else json.dumps(grids),
    }
    for key in ("backward", "not_finite"):
        if odd and isinstance(count := odd.get(key), int) and count:
            attributes[f"{key}_time_stamps"] = count
    dataset = xr.Dataset(
        {
            "data": xr.Variable(
                ("time", "channel"),
                as_lazy(data) if lazy else data,
                {} if units is None else {"units": units},
            )
        },
        coords=xr.Coordinates({"time": time}, indexes={}),
        attrs={key: value for key, value in attributes.items() if value is not None},
    )
    if arrivals is not None:
        dataset["arrival"] = xr.Variable(
            "time", as_lazy(arrivals) if lazy else arrivals, {"units": "s"}
        )
    if channel_names is None:
        return dataset
    names = list(channel_names)
    if len(names) != data.shape[1]:
        raise FormatError(f"{where}: {len(names)} channel names for {data.shape[1]} channels")
    return dataset.assign_coords(channel=("channel", np.array(names, dtype=object)))


def labels_to_dataset(labels: list[tuple[float, int]], names: list[str] | None) -> xr.Dataset:
    """Return labels as a Dataset over ``label``, sorted by time, in call order on ties."""
    times = np.array([time for time, _ in labels], float)
    indices = np.array([index for _, index in labels], np.int64)
    order = np.argsort(times, kind="stable")
    return xr.Dataset(
        {
            "timestamp": ("label", times[order], {"units": "s"}),
            "class_index": ("label", indices[order]),
            "class_name": (
                "label",
                np.array([class_name(index, names) for index in indices[order]], dtype=object),
            ),
        }
    )


def class_name(index: int, names: list[str] | None) -> str:
    """Return the name of a class: the session's, else its number; "" for a terminator."""
    if index < 0:
        return ""
    return names[index] if names is not None and index < len(names) else str(index)


class _Streams(dict[str, xr.Dataset]):
    """Streams by name; an unknown one is an error that lists those there are."""

    def __init__(self, tree: xr.DataTree) -> None:
        nodes = tree.children["streams"].children if "streams" in tree.children else {}
        super().__init__((name, node.to_dataset()) for name, node in nodes.items())
        self._attrs = tree.attrs

    def __missing__(self, name: str) -> xr.Dataset:
        if "labtree_workspace_id" in self._attrs:
            raise UnknownNameError(
                f"no stream {name!r}: this tree is a labtree workspace: write tree.ws"
            )
        where = self._attrs.get("session_path", "this tree")
        raise unknown_name("stream", name, self, where=f" in {where}")


def streams(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the streams of a session, each as its lazy Dataset.

    An unknown name is an error that lists those there are.
    """
    return _Streams(tree)


def stream(tree: xr.DataTree, name: str) -> xr.Dataset:
    """Return one stream; an unknown name is an error that lists those there are."""
    return streams(tree)[name]


def stream_info(tree: xr.DataTree, name: str) -> StreamInfo:
    """Return what is declared about one stream."""
    dataset = stream(tree, name)
    about = {
        "n_channels": dataset.sizes["channel"],
        "fs": dataset.attrs.get("fs", 0.0),
        "dtype": dataset["data"].dtype.name,
        "units": dataset["data"].attrs.get("units"),
    }
    if "channel" in dataset.coords:
        about["channel_names"] = dataset["channel"].values.tolist()
    return declared_stream(about, f"stream {name!r}")


def labels_frame(tree: xr.DataTree) -> pd.DataFrame:
    """Return the labels as a DataFrame: timestamp, class_index, class_name, by time."""
    if "labels" not in tree.children:
        return labels_to_dataset([], None).to_dataframe()
    return tree.children["labels"].to_dataset().to_dataframe()


def class_names(tree: xr.DataTree) -> list[str]:
    """Return the names of the classes; empty if the session has none."""
    return list(tree.attrs.get("class_names", []))


class SessionSplit(NamedTuple):
    """Sessions by whether they have a stream."""

    with_stream: list[Path]
    without_stream: list[Path]
    unreadable: list[tuple[Path, Exception]]


def split_sessions_by_stream(
    paths: str | Path | Iterable[str | Path], stream_name: str
) -> SessionSplit:
    """Sort sessions into those with a stream, those without, and those that do not open.

    Parameters
    ----------
    paths
        Sessions, as `open_recording` takes them.
    stream_name
        The stream; a stream without samples counts.

    Returns
    -------
    SessionSplit
        ``with_stream``, ``without_stream`` and ``unreadable``, the last with the errors.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> split = labtree.split_sessions_by_stream(record_emg("sessions"), "force")
    >>> len(split.with_stream), len(split.without_stream)
    (1, 0)
    """
    split = SessionSplit([], [], [])
    for path in [paths] if isinstance(paths, str | Path) else paths:
        try:
            with open_recording(path) as tree:
                found = stream_name in streams(tree)
        except (SessionError, FormatError, OSError) as error:
            split.unreadable.append((Path(path), error))
        else:
            (split.with_stream if found else split.without_stream).append(Path(path))
    return split
