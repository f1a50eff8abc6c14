"""Streams and windows to MNE-Python, and raw data back."""

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from labtree.errors import DataError, SessionError
from labtree.interop.common import VOLTS
from labtree.optional import require
from labtree.recording.session import class_name, stream_dataset
from labtree.recording.timeline import Timeline

# MNE takes these kinds of channel in volts; the others it leaves as they are.
_IN_VOLTS = ("eeg", "emg", "ecg", "eog", "seeg", "ecog", "dbs", "bio")


def _scale(array: xr.DataArray, ch_types: str) -> float:
    """Return the factor from the array's unit to the one that MNE wants."""
    if ch_types not in _IN_VOLTS:
        return 1.0
    units = array.attrs.get("units")
    if str(units).lower() not in VOLTS:
        raise SessionError(
            f"MNE takes {ch_types} in volts, the unit here is {units!r}; write"
            ' array.attrs["units"] = "uV" (or V, mV, nV), or ch_types="misc" for no unit'
        )
    return VOLTS[str(units).lower()]


def _info(mne: Any, array: xr.DataArray, fs: float, ch_types: str) -> Any:
    """Return MNE's description of the channels; the coordinate ``bad`` marks bad ones."""
    given = array["channel"].values if "channel" in array.coords else range(array.shape[1])
    names = list(map(str, given))
    info = mne.create_info(names, fs, ch_types)
    bad = array.coords.get("bad")
    if bad is not None and bad.dims == ("channel",) and bad.dtype == bool:
        # Of names that repeat MNE makes others.
        made = zip(info["ch_names"], bad.values, strict=True)
        info["bads"] = [name for name, is_bad in made if is_bad]
    return info


def _unit(instance: Any) -> str | None:
    """Return V if all channels are of a kind that MNE keeps in volts."""
    return "V" if set(instance.get_channel_types()) <= set(_IN_VOLTS) else None


def to_mne_raw(
    dataset: xr.Dataset, labels: pd.DataFrame | None = None, *, ch_types: str = "emg"
) -> Any:
    """Return one stream as an ``mne.io.RawArray``, labels as annotations.

    Parameters
    ----------
    dataset
        A stream of a session: ``tree.session.streams["emg"]``. Its samples are read.
    labels
        ``tree.session.labels``; the classes from 0 on become annotations from each label to
        the next, described by their names.
    ch_types
        MNE's channel type. Those that MNE takes in volts are scaled from the unit.

    Returns
    -------
    mne.io.RawArray
        The first sample is at 0 s; ``info["description"]`` says when that is on the
        session's clock.

    Raises
    ------
    SessionError
        If the unit is unknown, the stream has no samples or no rate, or the time stamps
        hold a gap or are out of order: MNE has one rate from the first to the last sample.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> tree = labtree.open_session(record_emg("sessions"))
    >>> raw = labtree.to_mne_raw(tree.session.streams["emg"], tree.session.labels)
    >>> len(raw.ch_names)
    8
    """
    mne = require("mne", purpose="MNE's objects", extra="mne")
    if not isinstance(dataset, xr.Dataset):
        raise SessionError(
            f"to_mne_raw takes the Dataset of one stream, found {type(dataset).__name__}; "
            "write labtree.to_mne_raw(tree.session.streams['emg'], tree.session.labels)"
        )
    data = dataset["data"]
    timeline = Timeline(
        np.asarray(dataset["time"].values, float), float(dataset.attrs.get("fs", 0))
    )
    if timeline.fs <= 0 or len(timeline.times) == 0:
        raise SessionError(
            f"a stream of {timeline.fs:g} Hz and {len(timeline.times)} samples is no MNE raw "
            'object; it needs both. Of the rate write dataset.attrs["fs"] = rate_hz'
        )
    problem = timeline.rate_problem()
    if len(timeline.gaps) or len(timeline.unusable):
        problem = (
            f"has {len(timeline.gaps)} gaps and {len(timeline.unusable)} unusable time stamps"
        )
    if problem:
        raise SessionError(
            f"the stream {problem}; MNE has one rate throughout. Export a part of it:"
            " dataset.isel(time=slice(...)), or windows with to_mne_epochs"
        )
    info = _info(mne, data, timeline.fs, ch_types)
    start = float(timeline.times[0])
    info["description"] = f"labtree: first sample at {start!r} s"
    values = np.ascontiguousarray(data.values.T, np.float64) * _scale(data, ch_types)
    raw = mne.io.RawArray(values, info, verbose="error")
    if labels is not None and len(labels):
        raw.set_annotations(_annotations(mne, labels, timeline))
    return raw


def _bad_coordinate(info: Any) -> dict[str, Any]:
    """Return which channels MNE holds to be bad, as a coordinate; none if none is."""
    if not info["bads"]:
        return {}
    return {"bad": ("channel", np.isin(info["ch_names"], info["bads"]))}


def _annotations(mne: Any, labels: pd.DataFrame, timeline: Timeline) -> Any:
    ordered = labels.sort_values("timestamp", kind="stable")
    n = len(timeline.times)
    moments = ordered["timestamp"].to_numpy(float)
    at = timeline.locate(moments)
    # Of a part of a stream: a label before it has samples here if the next one does.
    starts = np.where(timeline.is_before_start(moments), 0, at)
    starts = np.where(timeline.is_after_end(moments), n, starts)
    ends = np.append(starts, n)[1:]
    keep = (ordered["class_index"].to_numpy() >= 0) & (ends > starts)
    if "class_name" in ordered:
        names = ordered["class_name"].astype(str).to_numpy()
    else:
        names = np.array([class_name(int(i), None) for i in ordered["class_index"]], object)
    onset, duration = starts / timeline.fs, (ends - starts) / timeline.fs
    return mne.Annotations(onset[keep], duration[keep], list(names[keep]))


def to_mne_epochs(windows: xr.DataArray, *, ch_types: str = "emg") -> Any:
    """Return windows as ``mne.EpochsArray``, one epoch per window.

    Parameters
    ----------
    windows
        As `labtree.labeled_windows` or ``tree.session.peri_event`` give them; they are read.
    ch_types
        MNE's channel type, as in `to_mne_raw`.

    Returns
    -------
    mne.EpochsArray
        The coordinates per window are its ``metadata``; classes are its events.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> windows = labtree.labeled_windows(record_emg("sessions"), "emg", 200, 200)
    >>> epochs = labtree.to_mne_epochs(windows)
    >>> len(epochs) == windows.sizes["window"]
    True
    """
    mne = require("mne", purpose="MNE's objects", extra="mne")
    dimension = windows.dims[0]
    if windows.dims[1:] != ("channel", "time") or len(windows) == 0:
        raise SessionError(
            f"expected windows (window, channel, time), found {dict(windows.sizes)}; write "
            "labtree.labeled_windows(...), or tree.session.peri_event(...)"
        )
    if "fs" not in windows.attrs:
        raise SessionError(
            "the windows do not say their rate, which arithmetic drops; write "
            "windows = windows.assign_attrs(fs=rate_hz)"
        )
    own = {k: v.values for k, v in windows.coords.items() if v.dims == (dimension,)}
    metadata = pd.DataFrame(own)
    n = len(windows)
    classes = np.asarray(own.get("class_index", np.zeros(n)), float)
    if not np.isfinite(classes).all():
        raise SessionError(
            "class_index is missing in some windows, and an event of MNE has a number; write "
            "windows[np.isfinite(windows.class_index)]"
        )
    codes = classes.astype(np.int64)
    # An event of MNE has a sample number of its own; the true times are in the metadata.
    events = np.column_stack([np.arange(n), np.zeros(n, np.int64), codes + 1])
    names = own.get("class_name", np.full(n, "event", object))
    event_id = {str(name): int(code) + 1 for name, code in zip(names, codes, strict=True)}
    if len(event_id) != len(np.unique(codes)):
        event_id = {str(code): int(code) + 1 for code in np.unique(codes)}
    return mne.EpochsArray(
        np.ascontiguousarray(windows.values, np.float64) * _scale(windows, ch_types),
        _info(mne, windows, float(windows.attrs["fs"]), ch_types),
        events,
        tmin=float(windows["time"].values[0]),
        event_id=event_id,
        metadata=metadata,
        verbose="error",
    )


def from_mne_raw(raw: Any, *, start_s: float = 0.0) -> xr.Dataset:
    """Return an MNE raw object as one stream's Dataset, in MNE's units.

    Parameters
    ----------
    raw
        Any ``mne.io.BaseRaw``.
    start_s
        Time of its first sample, in s.

    Returns
    -------
    Dataset
        ``data`` (time, channel) float64 and ``time``; ``units`` is V if all channels are
        of a kind that MNE keeps in volts. The coordinate ``bad`` marks bad channels, and
        ``attrs["annotations"]`` has the annotations as JSON, a list of ``onset_s`` (on the
        clock of ``time``), ``duration_s`` and ``description``; where there are any.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> tree = labtree.open_session(record_emg("sessions"))
    >>> raw = labtree.to_mne_raw(tree.session.streams["emg"])
    >>> labtree.from_mne_raw(raw)["data"].dims
    ('time', 'channel')
    """
    if not hasattr(raw, "info"):
        raise DataError(
            f"from_mne_raw takes an mne.io.Raw, found {type(raw).__name__}; write "
            "labtree.from_mne_raw(mne.io.read_raw(path))"
        )
    fs = float(raw.info["sfreq"])
    dataset = stream_dataset(
        raw.get_data().T,
        start_s + np.arange(raw.n_times) / fs,
        fs=fs,
        channel_names=raw.ch_names,
        units=_unit(raw),
    ).assign_coords(_bad_coordinate(raw.info))
    if len(raw.annotations):
        # MNE counts their times from where its recording began, before a part was taken.
        onsets = raw.annotations.onset - raw.first_time + start_s
        durations, texts = raw.annotations.duration, raw.annotations.description
        rows = [
            {"onset_s": float(onset), "duration_s": float(duration), "description": str(text)}
            for onset, duration, text in zip(onsets, durations, texts, strict=True)
        ]
        dataset.attrs["annotations"] = json.dumps(rows)
    return dataset


def from_mne_epochs(epochs: Any) -> xr.DataArray:
    """Return MNE epochs as windows, with their metadata as coordinates.

    Parameters
    ----------
    epochs
        Any ``mne.BaseEpochs``; its data are loaded.

    Returns
    -------
    DataArray
        (window, channel, time), float64, with ``time`` in s from the event, and along
        ``window`` ``class_index`` (from 0 on, in order of the event ids), ``class_name``,
        ``start_time`` (s from the first sample of the recording) and every column of the
        metadata. Numbers in columns ``class_index`` and ``start_time``, as `to_mne_epochs`
        writes them, go before what the events say; another column of a name that is taken
        gets ``metadata_`` before it. ``units`` is V if all channels are of a kind that MNE
        keeps in volts, and the coordinate ``bad`` marks bad channels. `labtree.drop_log`
        names the epochs that MNE dropped.

    Examples
    --------
    >>> import mne, numpy as np, labtree
    >>> info = mne.create_info(["a", "b"], 100.0, "emg")
    >>> epochs = mne.EpochsArray(np.zeros((3, 2, 50)), info, tmin=-0.1, verbose="error")
    >>> windows = labtree.from_mne_epochs(epochs)
    >>> windows.dims, float(windows.time[0])
    (('window', 'channel', 'time'), -0.1)
    """
    fs = float(epochs.info["sfreq"])
    # Events stay in samples of the recording when epochs are decimated or resampled.
    event_fs = float(getattr(epochs, "_raw_sfreq", None) or fs)
    names = {code: name for name, code in epochs.event_id.items()}
    codes = epochs.events[:, 2]
    order = {code: number for number, code in enumerate(sorted(names))}
    named = np.array([names[code] for code in codes], object)
    coordinates: dict[str, Any] = {
        "time": ("time", np.asarray(epochs.times, float), {"units": "s"}),
        "channel": ("channel", np.array(epochs.ch_names, object)),
        "class_index": ("window", np.array([order[code] for code in codes], np.int64)),
        "class_name": ("window", named),
        **_bad_coordinate(epochs.info),
        "start_time": (
            "window",
            epochs.events[:, 0] / event_fs + epochs.times[0],
            {"units": "s"},
        ),
    }
    if epochs.metadata is not None:
        _add_metadata(coordinates, epochs.metadata)
    log = _drop_log(epochs)
    attrs = {
        "fs": fs,
        "units": _unit(epochs),
        "dropped": len(log),
        "drop_log": log.to_json(orient="split", index=False, double_precision=15),
    }
    return xr.DataArray(
        epochs.get_data(copy=True),
        coordinates,
        ("window", "channel", "time"),
        name="windows",
        attrs={name: value for name, value in attrs.items() if value is not None},
    )


def _add_metadata(coordinates: dict[str, Any], metadata: pd.DataFrame) -> None:
    """Add the columns of epochs' metadata; those that `to_mne_epochs` wrote go before."""
    class_names = coordinates["class_name"][1].tolist()
    for column in metadata:
        values = metadata[column]
        plain = values if values.dtype.kind in "biufcmM" else values.astype(object)
        name = str(column)
        own = (name, values.dtype.kind) in (("class_index", "i"), ("start_time", "f"))
        own |= name == "class_name" and values.astype(str).tolist() == class_names
        if own:
            coordinates[name] = ("window", plain.to_numpy(), *coordinates[name][2:])
        else:
            is_free = name not in (*coordinates, "window")
            coordinates[name if is_free else f"metadata_{name}"] = ("window", plain.to_numpy())


def _drop_log(epochs: Any) -> pd.DataFrame:
    """Return which epochs MNE dropped, and why, as `labtree.drop_log` reads it."""
    return pd.DataFrame(
        [
            ("", float("nan"), -1, f"epoch {at}: {', '.join(why)}")
            for at, why in enumerate(epochs.drop_log)
            if why and why != ("IGNORED",)
        ],
        columns=["session", "start_time", "class_index", "reason"],
    )
