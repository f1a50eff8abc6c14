"""XDF files, as LabRecorder writes them, to session trees."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import (
    FormatError,
    MissingFileError,
    RecordingWarning,
    SessionError,
    UnknownNameError,
)
from labtree.optional import require
from labtree.recording.session import labels_to_dataset, stream_dataset

__all__ = ["import_xdf"]


def _field(about: Any, *path: str) -> Any:
    """Return a value of pyxdf's header, in which everything is a list of one; or None."""
    for key in path:
        if isinstance(about, list):
            about = about[0] if about else None
        if not isinstance(about, dict) or key not in about:
            return None
        about = about[key]
    while isinstance(about, list) and len(about) == 1:
        about = about[0]
    return about


def _channels(info: Any, count: int) -> tuple[list[str] | None, str | None]:
    """Return names and the one unit of the channels, where the header gives them all."""
    listed = _field(info, "desc", "channels", "channel")
    listed = listed if isinstance(listed, list) else [listed]
    names = [_field(channel, "label") for channel in listed]
    units = {_field(channel, "unit") for channel in listed}
    complete = len(names) == count and all(isinstance(name, str) for name in names)
    unit = units.pop() if len(units) == 1 else None
    return (
        names if complete and len(set(names)) == count else None,
        unit if isinstance(unit, str) else None,
    )


def import_xdf(
    path: str | Path,
    *,
    labels: str | None = None,
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> xr.DataTree:
    """Return an XDF file as a session tree, in memory.

    Every stream becomes ``streams/<name>``; one of text (markers) has ``data`` of strings.
    Streams of the same name get their number in the file behind it.

    Parameters
    ----------
    path
        The file.
    labels
        Name of a stream of text whose entries are the labels, each a class that holds from
        its time on.
    class_names
        The texts that are classes 0, 1, ...; by default the different texts in order of
        appearance. Any other text ends a class and starts none.
    **options
        For ``pyxdf.load_xdf``, such as ``dejitter_timestamps=False``.

    Returns
    -------
    DataTree
        As `labtree.open_session` gives it, with ``.session``.

    Raises
    ------
    MissingDependencyError
        (an ImportError) If pyxdf is not installed.
    FormatError
        If pyxdf cannot read the file.

    Warns
    -----
    RecordingWarning
        If a stream's channel names are missing or not all different, they are left out.
    """
    pyxdf = require("pyxdf", purpose="XDF files", extra="xdf")
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: expected an XDF file, found none")
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"XDF:" and start[:2] != b"\x1f\x8b":  # pyxdf reads gzip, too
        raise FormatError(f"{path}: expected an XDF file, found one that begins with {start!r}")
    try:
        found, header = pyxdf.load_xdf(str(path), verbose=False, **options)
    except Exception as error:  # pyxdf raises whatever its parsing meets
        raise FormatError(f"{path}: expected an XDF file ({error!r})") from error
    if not found:
        raise FormatError(f"{path}: expected an XDF file with streams, found none")
    streams: dict[str, xr.Dataset] = {}
    for number, item in enumerate(found):
        info = item["info"]
        name = str(_field(info, "name") or "stream").replace("/", "-")
        if name in streams:
            name = f"{name}_{number}"
            warnings.warn(
                f"{path}: two streams share a name; the later one is {name!r}",
                RecordingWarning,
                stacklevel=2,
            )
        streams[name] = _stream(item, f"{path}: stream {name!r}")
    names, events = _labels(streams, labels, class_names, path)
    attributes = {
        "session_path": str(path),
        "created": _field(header, "info", "datetime"),
        "class_names": names,
    }
    tree = xr.DataTree(
        xr.Dataset(attrs={k: v for k, v in attributes.items() if isinstance(v, str | list)})
    )
    tree.children = {
        "streams": xr.DataTree(
            children={name: xr.DataTree(dataset) for name, dataset in streams.items()}
        ),
        "labels": xr.DataTree(labels_to_dataset(events, names)),
    }
    return tree


def _stream(item: dict[str, Any], where: str) -> xr.Dataset:
    info = item["info"]
    times = np.asarray(item["time_stamps"], np.float64)
    series = item["time_series"]
    count = int(_field(info, "channel_count") or 1)
    if isinstance(series, np.ndarray):
        data = series.reshape(len(times), -1) if series.size else series.reshape(0, count)
    else:
        data = np.empty((len(times), count), object)
        for row, texts in enumerate(series):
            data[row] = texts
    names, unit = _channels(info, data.shape[1])
    dataset = stream_dataset(
        data,
        times,
        fs=float(_field(info, "nominal_srate") or 0),
        channel_names=names,
        units=unit,
        where=where,
    )
    kind = _field(info, "type")
    return dataset.assign_attrs(type=kind) if isinstance(kind, str) else dataset


def _labels(
    streams: dict[str, xr.Dataset],
    stream_name: str | None,
    class_names: Sequence[str] | None,
    path: Path,
) -> tuple[list[str] | None, list[tuple[float, int]]]:
    if stream_name is None:
        return (None if class_names is None else list(class_names)), []
    if stream_name not in streams:
        raise UnknownNameError(f"{path}: no stream {stream_name!r}; streams: {list(streams)}")
    dataset = streams[stream_name]
    if dataset["data"].dtype != object:
        raise SessionError(
            f"{path}: stream {stream_name!r} holds {dataset['data'].dtype}, labels are text"
        )
    texts = [str(row[0]) for row in dataset["data"].values]
    names = list(dict.fromkeys(texts)) if class_names is None else list(class_names)
    number = {name: index for index, name in enumerate(names)}
    moments = dataset["time"].values.tolist()
    return names, [
        (moment, number.get(text, -1)) for moment, text in zip(moments, texts, strict=True)
    ]
