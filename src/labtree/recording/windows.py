"""Windows of a stream as DataArrays, lazily: which samples, of which class, and why not.

On clean data they are MyoGestic's, sample for sample: ``int(window_ms * fs / 1000)``
samples, one every ``max(1, int(hop_ms * fs / 1000))``, from the sample nearest to a label
until the one nearest to the next. What happens on other data is said in
`labtree.recording.timeline` and in `labeled_windows`.
"""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from labtree.errors import FormatError, RecordingWarning, SessionError, warn
from labtree.optional import require
from labtree.recording.session import class_name
from labtree.recording.session_streams import (
    POLICIES,
    DropLog,
    Policy,
    Sessions,
    StreamOfSession,
    rate_problem,
    session_closer,
    stream_of_dataset,
    streams_for_windows,
)
from labtree.recording.window_array import WindowArray
from labtree.recording.window_batches import iter_in_blocks
from labtree.storage.arguments import one_of, positive
from labtree.storage.lazy import as_lazy


def window_samples(milliseconds: float, fs: float) -> int:
    """Return the samples in so many milliseconds: ``int(milliseconds * fs / 1000)``."""
    return int(milliseconds * fs / 1000)


@dataclass
class WindowIndex:
    """Which windows there are: per window its stream, first row and class."""

    stream: np.ndarray
    start: np.ndarray
    class_index: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def chosen(self, kept: np.ndarray) -> "WindowIndex":
        """Return some of the windows."""
        return WindowIndex(self.stream[kept], self.start[kept], self.class_index[kept])

    def starts_in(self, number: int) -> np.ndarray:
        """Return the first rows of the windows of one stream."""
        return np.asarray(self.start[self.stream == number])


def label_segments(stream: StreamOfSession, drops: DropLog) -> list[tuple[int, int, int]]:
    """Return (first row, row after the last, class) of every label, by time.

    A label that lies after the stream has no samples, and is noted.
    """
    moments, classes = stream.labels_by_time()
    n = len(stream.timeline.times)
    nothing = None
    if len(moments) == 0:
        nothing = "the session has no labels"
    elif not (classes >= 0).any():
        nothing = "no label of the session starts a class"
    elif n == 0:
        nothing = "the stream has no samples"
    elif not stream.timeline.has_usable:
        nothing = "no time stamp of the stream is finite"
    if nothing:
        drops.add(stream.session, float("nan"), -1, f"session left out: {nothing}")
        return []
    if not np.isfinite(moments).all():
        raise FormatError(
            f"{stream.session}: label {int(np.argmin(np.isfinite(moments)))} has the time"
            " nan or inf; nothing says where its class, or the one before, ends"
        )
    at = stream.timeline.locate(moments)
    late = stream.timeline.is_after_end(moments)
    if (named := classes >= 0).any() and late[named].all():
        warn(
            f"{stream.where}: all {int(named.sum())} labels are after the end of the stream, at"
            f" {stream.timeline.span[1]:.9g} s; the first is at {moments[named][0]:.9g}: are"
            " they milliseconds (write times / 1000), or of another clock?",
            RecordingWarning,
        )
    ends = np.append(at, n)[1:]
    segments = []
    for start, end, index, moment, behind in zip(at, ends, classes, moments, late, strict=True):
        if index >= 0 and behind:
            drops.add(stream.session, moment, int(index), "label is after the stream's end")
        elif index >= 0:
            segments.append((int(start), int(end), int(index)))
    return segments


def label_starts(
    stream: StreamOfSession, win: int, hop: int, classes: set[int] | None, drops: DropLog
) -> tuple[np.ndarray, np.ndarray]:
    """Return first rows and classes of the labeled windows of one stream, gaps included."""
    starts, indices = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first, end, index in label_segments(stream, drops):
        if classes is not None and index not in classes:
            continue
        found = np.arange(first, end - win + 1, hop)
        if len(found) == 0:
            drops.add(
                stream.session,
                float(stream.timeline.times[first]) if first < end else float("nan"),
                index,
                f"label holds {max(end - first, 0)} samples, fewer than the {win} of a window",
            )
        starts.append(found)
        indices.append(np.full(len(found), index))
    return np.concatenate(starts), np.concatenate(indices)


def window_index(
    streams: list[StreamOfSession],
    win: int,
    hop: int,
    on_gap: Policy,
    drops: DropLog,
    classes: set[int] | None = None,
    *,
    labeled: bool = False,
) -> WindowIndex:
    """Return the windows without gaps of whole streams, or of their labels."""
    parts = []
    for number, stream in enumerate(streams):
        if labeled:
            starts, indices = label_starts(stream, win, hop, classes, drops)
        else:
            starts = window_starts(stream, win, hop, drops)
            indices = np.full(len(starts), -1)
        reasons = broken_windows(stream, starts, np.full(len(starts), win), on_gap)
        drops.add_all(stream, starts, reasons, indices)
        index = WindowIndex(np.full(len(starts), number), starts, indices)
        parts.append(index.chosen(reasons == ""))
    return WindowIndex(
        np.concatenate([part.stream for part in parts]),
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.class_index for part in parts]),
    )


def kept_windows(
    stream: StreamOfSession, starts: np.ndarray, reasons: np.ndarray, drops: DropLog
) -> np.ndarray:
    """Return which windows have no reason to be left out, "".

    The others are noted; that none is left is a warning.
    """
    drops.add_all(stream, starts, reasons)
    kept: np.ndarray = reasons == ""
    if len(kept) and not kept.any():
        warn(
            f"{stream.where}: all of {len(kept)} windows are left out:"
            f" {', '.join(dict.fromkeys(reasons.tolist()))}",
            RecordingWarning,
        )
    return kept


def broken_windows(
    stream: StreamOfSession, starts: np.ndarray, lengths: np.ndarray, on_gap: Policy
) -> np.ndarray:
    """Return why each window cannot be used, "" where it can; warn about it or reject it.

    Parameters
    ----------
    stream
        That the windows are cut from.
    starts, lengths
        (n,) first row and number of rows of each window.
    on_gap
        As in `labeled_windows`.
    """
    unusable, gap = stream.timeline.breaks(starts, lengths)
    standing = stream.timeline.standing(starts, lengths)
    broken = unusable | gap | standing
    if not broken.any():
        return np.full(len(starts), "", object)
    times = stream.timeline.times
    count = int(broken.sum())
    text = (
        f"{stream.where}: {count} of {len(starts)} windows hold a gap, or a"
        " sample whose time stamp is not finite or goes backward; the first one starts at"
        f" {times[starts[broken][0]]:.9g} s"
    )
    if standing.any():
        text += (
            f"; time stamps stand still for up to {stream.timeline.longest_run} samples, longer"
            " than a window (float32 cannot hold Unix time)"
        )
    if on_gap == "raise":
        raise SessionError(f'{text}; write on_gap="drop" to go on without them')
    if on_gap == "warn" or count == len(starts):
        text += "; if the time stamps jitter, gap_s says how long a step may be"
        warn(text, RecordingWarning)
    reasons = np.full(len(starts), "", object)
    reasons[gap] = "gap"
    reasons[standing] = "time stamps stand still for longer than a window"
    reasons[unusable] = "time stamp not finite or out of order"
    return reasons


def window_and_hop(stream: StreamOfSession, window_ms: float, hop_ms: float) -> tuple[int, int]:
    """Return window and hop in samples; a window without a sample is an error."""
    window_ms = positive("window_ms", window_ms, SessionError)
    hop_ms = positive("hop_ms", hop_ms, SessionError)
    win, hop = window_samples(window_ms, stream.fs), window_samples(hop_ms, stream.fs)
    if win >= 2**31:
        raise SessionError(f"window_ms={window_ms:g} is longer than any recording")
    if win < 1:
        raise SessionError(
            f"window_ms={window_ms!r}, hop_ms={hop_ms!r} at {stream.fs:g} Hz are {win} and"
            f" {hop} samples; a window takes at least {1000 / stream.fs:g} ms,"
            " a hop more than 0. Are they seconds? Write"
            f" window_ms={1000 * window_ms:g}, hop_ms={1000 * hop_ms:g}"
        )
    return win, max(1, hop)


def window_starts(stream: StreamOfSession, win: int, hop: int, drops: DropLog) -> np.ndarray:
    """Return the first rows of the windows of a whole stream, gaps included."""
    n = len(stream.timeline.times)
    if n < win:
        reason = f"session left out: its {n} samples are fewer than the {win} of a window"
        drops.add(stream.session, float("nan"), -1, reason)
    return np.arange(0, n - win + 1, hop)


def _warn_of_unknown(streams: list[StreamOfSession], classes: set[int] | None) -> None:
    """Warn of wanted classes that no label of any session has."""
    if not classes:
        return
    known: dict[int, str] = {}
    for stream in streams:
        for index in np.unique(stream.labels["class_index"].to_numpy(np.int64)):
            if index >= 0:
                known[int(index)] = class_name(int(index), stream.class_names)
    unknown = sorted(classes - known.keys())
    if known and unknown:
        listed = ", ".join(f"{index} {name!r}" for index, name in sorted(known.items()))
        warn(
            f"no label has the class {', '.join(map(str, unknown))}; there are: {listed}",
            RecordingWarning,
        )


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
    """Return every labeled window of some sessions as one lazy DataArray.

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
        finite or goes backward. ``"drop"`` leaves the window out and notes it in the drop
        log, ``"warn"`` also warns, and ``"raise"`` raises an error. A session without any
        other windows always gives a warning.
    on_mismatch
        The same for a session that does not open, lacks the stream, has a rate more than
        1 % off the declared one, or differs from the first session in channels, channel
        names, rate, type, units, class names or conditioning (filters before recording).

    Returns
    -------
    DataArray
        (window, channel, time), with coordinates ``time`` in s from the window's start, and
        per window ``start_time`` in s on the session's clock, ``class_index``,
        ``class_name`` and ``session``. `labtree.recording.drop_log` lists what was left
        out.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> windows = labtree.labeled_windows(record_emg("sessions"), "emg", 200, 50, classes={1})
    >>> windows.dims, set(windows.class_name.values.tolist())
    (('window', 'channel', 'time'), {'fist'})
    """
    with streams_for_windows(
        paths, [stream_name], gap_s=gap_s, on_gap=on_gap, on_mismatch=on_mismatch, dtype=dtype
    ) as ((streams,), drops):
        win, hop = window_and_hop(streams[0], window_ms, hop_ms)
        wanted = class_set(classes)
        _warn_of_unknown(streams, wanted)
        index = window_index(streams, win, hop, on_gap, drops, wanted, labeled=True)
        return window_array(streams, index, win, drops, dtype, chunks)


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
        As in `labeled_windows`. One warning at the end sums up what was left out.

    Yields
    ------
    DataArray
        (channel, time), in memory, with its coordinates.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> path = record_emg("sessions")
    >>> window = next(labtree.iter_labeled_windows(path, "emg", 200, 50))
    >>> window.dims, window.class_name.item()
    (('channel', 'time'), 'rest')
    """
    windows = labeled_windows(paths, stream_name, window_ms, hop_ms, classes, **options)
    return iter_in_blocks(windows)


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
    one_of("on_gap", on_gap, POLICIES, SessionError)
    if labels is None and classes is not None:
        raise SessionError("classes are chosen among labels; give labels=tree.session.labels")
    stream = stream_of_dataset(dataset, labels, class_names, gap_s=gap_s)
    if problem := rate_problem(stream, "this", needed=True):
        raise SessionError(f"the stream {problem}")
    win, hop = window_and_hop(stream, window_ms, hop_ms)
    wanted, drops = class_set(classes), DropLog()
    _warn_of_unknown([stream], wanted)
    index = window_index([stream], win, hop, on_gap, drops, wanted, labeled=labels is not None)
    return window_array([stream], index, win, drops, dtype, chunks)


def window_array(
    streams: list[StreamOfSession],
    index: WindowIndex,
    win: int,
    drops: DropLog,
    dtype: Any = None,
    chunks: Any = None,
    *,
    lengths: np.ndarray | None = None,
    coordinates: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Return the windows of an index as one lazy DataArray.

    With `lengths`, how many samples each has, shorter ones end in NaN, and the dtype is one
    of floats that holds the samples. `coordinates` stand in the place of the classes.
    """
    first = streams[0]
    variables = [stream.dataset["data"].variable for stream in streams]
    own = np.result_type(*[variable.dtype for variable in variables])
    if lengths is None:
        lengths = np.full(len(index), win)
    else:
        own = np.result_type(own, np.float16)
    array = WindowArray(
        variables,
        index.stream,
        index.start,
        lengths,
        win,
        np.dtype(own if dtype is None else dtype),
    )
    starts = np.empty(len(index))
    sessions, names = np.empty(len(index), object), np.empty(len(index), object)
    for number, stream in enumerate(streams):
        mine = index.stream == number
        starts[mine] = stream.timeline.times[index.start[mine]]
        sessions[mine] = stream.session
        for value in np.unique(index.class_index[mine]):
            name = class_name(int(value), stream.class_names)
            names[mine & (index.class_index == value)] = name
    per_window: dict[str, Any] = {"start_time": ("window", starts, {"units": "s"})}
    if coordinates is None:
        per_window["class_index"] = ("window", index.class_index.astype(np.int64))
        per_window["class_name"] = ("window", names)
    if any(stream.session for stream in streams):  # arrays of one's own are of none
        per_window["session"] = ("window", sessions)
    axes: dict[str, Any] = {"time": ("time", np.arange(win) / first.fs, {"units": "s"})}
    if "channel" in first.dataset.coords:
        axes["channel"] = first.dataset["channel"].variable
    attributes = {**first.dataset["data"].attrs, "fs": first.fs}
    if first.conditioning is not None:
        attributes["conditioning"] = first.conditioning
    attributes["dropped"] = len(drops.rows)
    attributes["drop_log"] = drops.text()
    variable = xr.Variable(("window", "channel", "time"), as_lazy(array))
    if chunks is not None:  # of the samples only; the coordinates are in memory
        require("dask.array", purpose="windows with chunks=", extra="dask")
        variable = variable.chunk(chunks)
    windows = xr.DataArray(variable, axes, name="windows", attrs=attributes)
    # The constructor would copy the texts one by one.
    windows = windows.assign_coords({**per_window, **(coordinates or {})})
    windows.set_close(session_closer(streams))
    return windows
