"""Windows of a stream as DataArrays, lazily: which samples, of which class, and why not.

On clean data they are MyoGestic's, sample for sample: ``int(window_ms * fs / 1000)``
samples, one every ``max(1, int(hop_ms * fs / 1000))``, from the sample nearest to a label
until the one nearest to the next. What happens on other data is said in
`labtree.recording.timeline` and in `labeled_windows`.
"""

import operator
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from labtree.errors import FormatError, RecordingWarning, SessionError
from labtree.recording.session import class_name
from labtree.recording.sources import (
    Drops,
    Policy,
    Sessions,
    Source,
    check_policy,
    closer,
    open_sources,
    rate_problem,
    stream_source,
)

__all__ = [
    "WindowIndex",
    "class_coordinate",
    "drop_broken",
    "iter_labeled_windows",
    "labeled_windows",
    "lengths",
    "stream_windows",
    "window_samples",
]


def window_samples(milliseconds: float, fs: float) -> int:
    """Return the samples in so many milliseconds: ``int(milliseconds * fs / 1000)``."""
    return int(milliseconds * fs / 1000)


@dataclass
class WindowIndex:
    """Which windows there are: per window its source, first row and class."""

    source: np.ndarray
    start: np.ndarray
    class_index: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


def label_segments(source: Source, drops: Drops) -> list[tuple[int, int, int]]:
    """Return (first row, row behind the last, class) of every label, by time.

    A label that lies behind the stream has no samples, and is noted.
    """
    labels = source.labels.sort_values("timestamp", kind="stable")
    moments = labels["timestamp"].to_numpy(float)
    classes = labels["class_index"].to_numpy(np.int64)
    if not np.isfinite(moments).all():
        raise FormatError(
            f"{source.session}: label {int(np.argmin(np.isfinite(moments)))} has the time"
            " nan or inf; nothing says where its class, or the one before, ends"
        )
    n = len(source.timeline.times)
    at = source.timeline.locate(moments)
    late = source.timeline.is_late(moments)
    ends = np.append(at, n)[1:]
    segments = []
    for start, end, index, moment, behind in zip(at, ends, classes, moments, late, strict=True):
        if index >= 0 and behind:
            drops.add(source.session, moment, int(index), "label is behind the stream's end")
        elif index >= 0:
            segments.append((int(start), int(end), int(index)))
    return segments


def label_starts(
    source: Source, win: int, hop: int, classes: set[int] | None, drops: Drops
) -> tuple[np.ndarray, np.ndarray]:
    """Return first rows and classes of the labelled windows of one source, gaps included."""
    starts, indices = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first, end, index in label_segments(source, drops):
        if classes is not None and index not in classes:
            continue
        found = np.arange(first, end - win + 1, hop)
        if len(found) == 0:
            drops.add(
                source.session,
                float(source.timeline.times[first]) if first < end else float("nan"),
                index,
                f"label holds {max(end - first, 0)} samples, fewer than the {win} of a window",
            )
        starts.append(found)
        indices.append(np.full(len(found), index))
    return np.concatenate(starts), np.concatenate(indices)


def drop_broken(
    source: Source,
    starts: np.ndarray,
    classes: np.ndarray,
    win: int,
    on_gap: Policy,
    drops: Drops,
) -> np.ndarray:
    """Return which windows are of one piece; note, warn of or refuse the others."""
    unusable, gap = source.timeline.breaks(starts, win)
    broken = unusable | gap
    if not broken.any():
        return np.ones(len(starts), bool)
    times = source.timeline.times
    count = int(broken.sum())
    text = (
        f"{source.session or 'the stream'}: {count} of {len(starts)} windows hold a gap, or a"
        " sample whose time stamp is not finite or goes backward; the first one starts at"
        f" {times[starts[broken][0]]:.9g} s"
    )
    if on_gap == "raise":
        raise SessionError(f'{text}; write on_gap="drop" to go on without them')
    if on_gap == "warn" or count == len(starts):
        text += "; if the time stamps jitter, gap_s says how long a step may be"
        warnings.warn(text, RecordingWarning, stacklevel=4)
    reasons = np.where(unusable, "time stamp not finite or out of order", "gap")
    for index in np.flatnonzero(broken):
        drops.add(
            source.session,
            float(times[starts[index]]),
            int(classes[index]),
            str(reasons[index]),
        )
    kept: np.ndarray = ~broken
    return kept


def lengths(source: Source, window_ms: float, hop_ms: float) -> tuple[int, int]:
    """Return window and hop in samples; a window without a sample is an error."""
    win, hop = window_samples(window_ms, source.fs), window_samples(hop_ms, source.fs)
    if win < 1 or hop_ms <= 0:
        raise SessionError(
            f"window_ms={window_ms!r}, hop_ms={hop_ms!r} at {source.fs:g} Hz are {win} and"
            f" {hop} samples; a window takes at least {1000 / source.fs:g} ms,"
            " a hop more than 0"
        )
    return win, max(1, hop)


def class_set(classes: Iterable[int] | None) -> set[int] | None:
    """Return the wanted classes as a set, None for all of them."""
    if classes is None:
        return None
    try:
        return {operator.index(index) for index in classes}
    except TypeError:
        raise SessionError(
            f"classes are integers, such as {{1, 2}}, or None for all; found {classes!r}"
        ) from None


def labeled_windows(
    paths: Sessions,
    stream_name: str,
    window_ms: float,
    hop_ms: float,
    classes: Iterable[int] | None = None,
    *,
    dtype: Any = None,
    chunks: Any = None,
    gap_s: float | None = None,
    on_gap: Policy = "drop",
    on_mismatch: Policy = "raise",
) -> xr.DataArray:
    """Return every labelled window of some sessions as one lazy DataArray.

    Labels and time stamps are read now, samples when the result is indexed, and then only
    the chunks that it takes.

    Parameters
    ----------
    paths
        Sessions: paths, or trees that are open.
    stream_name
        The stream.
    window_ms, hop_ms
        Length of a window, and from one to the next, in ms; truncated to whole samples.
    classes
        Classes to keep; None for all, an empty set for none.
    dtype
        Of the result; the stream's own if None.
    chunks
        As in `xarray.DataArray.chunk`, such as ``{"window": 256}``; the result is then
        backed by dask.
    gap_s
        Longest step between two samples that is no gap, in s; one and a half sample
        periods if None.
    on_gap
        What happens to a window that holds a gap, or a sample whose time stamp is not
        finite or goes backward. It is left out in any case: ``"drop"`` says so in the drop
        log, ``"warn"`` also in a warning, ``"raise"`` in an error. That a session has no
        other windows is always a warning.
    on_mismatch
        The same for a session that does not open, lacks the stream, has a rate more than
        1 % off the declared one, or differs from the first session in channels, channel
        names, rate, type, units or class names.

    Returns
    -------
    DataArray
        (window, channel, time), with coordinates ``time`` in s from the window's start,
        and per window ``start_time`` in s on the session's clock, ``class_index``,
        ``class_name`` and ``session``. `labtree.recording.drop_log` tells what is missing.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> windows = labtree.labeled_windows(record_emg("sessions"), "emg", 200, 50, classes={1})
    >>> windows.dims, set(windows.class_name.values.tolist())
    (('window', 'channel', 'time'), {'fist'})
    """
    check_policy("on_gap", on_gap)
    drops = Drops()
    (sources,) = open_sources(
        paths, [stream_name], gap_s=gap_s, on_mismatch=on_mismatch, drops=drops, dtype=dtype
    )
    try:
        return windows_of_sources(
            sources, window_ms, hop_ms, class_set(classes), drops, on_gap, dtype, chunks
        )
    except BaseException:
        closer(sources)()
        raise


def windows_of_sources(
    sources: list[Source],
    window_ms: float,
    hop_ms: float,
    classes: set[int] | None,
    drops: Drops,
    on_gap: Policy,
    dtype: Any = None,
    chunks: Any = None,
    *,
    whole: bool = False,
) -> xr.DataArray:
    """Return the windows of sources that are alike; ``whole``: of all samples, no labels."""
    from labtree.recording.window_arrays import window_array

    win, hop = lengths(sources[0], window_ms, hop_ms)
    parts = []
    for number, source in enumerate(sources):
        if whole:
            starts = np.arange(0, len(source.timeline.times) - win + 1, hop)
            indices = np.full(len(starts), -1)
        else:
            starts, indices = label_starts(source, win, hop, classes, drops)
        keep = drop_broken(source, starts, indices, win, on_gap, drops)
        parts.append((np.full(int(keep.sum()), number), starts[keep], indices[keep]))
    index = WindowIndex(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    return window_array(sources, index, win, drops, dtype, chunks)


def class_coordinate(sources: list[Source], index: WindowIndex) -> np.ndarray:
    """Return the class name of every window."""
    names = np.empty(len(index), object)
    for number, source in enumerate(sources):
        mine = index.source == number
        for value in np.unique(index.class_index[mine]):
            names[mine & (index.class_index == value)] = class_name(
                int(value), source.class_names
            )
    return names


def iter_labeled_windows(
    paths: Sessions,
    stream_name: str,
    window_ms: float,
    hop_ms: float,
    classes: Iterable[int] | None = None,
    **options: Any,
) -> Iterator[xr.DataArray]:
    """Yield the windows of `labeled_windows` one by one, as (channel, time) in memory.

    Every window has its own samples, so that changing one changes no other.

    Parameters
    ----------
    paths, stream_name, window_ms, hop_ms, classes, **options
        As in `labeled_windows`. What is left out is also logged by ``labtree.recording``.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> path = record_emg("sessions")
    >>> window = next(labtree.iter_labeled_windows(path, "emg", 200, 50))
    >>> window.dims, window.class_name.item()
    (('channel', 'time'), 'rest')
    """
    from labtree.recording.window_arrays import iterate

    windows = labeled_windows(paths, stream_name, window_ms, hop_ms, classes, **options)
    return iterate(windows)


def stream_windows(
    dataset: xr.Dataset,
    window_ms: float,
    hop_ms: float,
    classes: Iterable[int] | None = None,
    labels: pd.DataFrame | None = None,
    class_names: Sequence[str] = (),
    *,
    dtype: Any = None,
    chunks: Any = None,
    gap_s: float | None = None,
    on_gap: Policy = "drop",
) -> xr.DataArray:
    """Return windows of one stream's Dataset: of ``labels``, or of all of it without any."""
    check_policy("on_gap", on_gap)
    if labels is None and classes is not None:
        raise SessionError("classes are chosen among labels; give labels=tree.session.labels")
    source = stream_source(dataset, labels, class_names, gap_s=gap_s)
    if problem := rate_problem(source, "this", needed=True):
        raise SessionError(f"the stream {problem}")
    wanted = class_set(classes)
    return windows_of_sources(
        [source],
        window_ms,
        hop_ms,
        wanted,
        Drops(),
        on_gap,
        dtype,
        chunks,
        whole=labels is None,
    )
