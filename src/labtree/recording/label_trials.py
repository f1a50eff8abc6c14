"""Trials after labels, and windows around events."""

from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from labtree.errors import RecordingWarning, SessionError, warn
from labtree.event_times import NO_END, NO_TIME, Events, drop_log_text, events_from
from labtree.recording.session import class_name
from labtree.recording.session_streams import (
    POLICIES,
    DropLog,
    Policy,
    StreamOfSession,
)
from labtree.recording.windows import WindowIndex, broken_windows, window_array
from labtree.storage.arguments import from_zero, one_of

# Coordinates and dimensions of windows, which no column of a trial table may have.
_TAKEN = {"event", "channel", "time", "event_time", "window_start", "session"}


def continuous(stream: StreamOfSession) -> xr.DataArray:
    """Return a stream's samples, lazily, with ``time`` as an index for ``.sel``.

    The time stamps are read for the index, samples are not. A rate that the time stamps
    contradict by more than 1 % is a warning.
    """
    _check_rate(stream)
    dataset = stream.dataset
    array = dataset["data"].assign_attrs(dataset.attrs)
    return array if "time" in array.indexes else array.set_xindex("time")


def _check_rate(stream: StreamOfSession, on_mismatch: Policy = "warn") -> None:
    """Warn of a rate that the time stamps contradict, or reject it."""
    if (problem := stream.timeline.rate_problem()) and on_mismatch != "drop":
        text = f"{stream.where}: the stream {problem}"
        if on_mismatch == "raise":
            raise SessionError(f'{text}; write on_mismatch="warn" to go on anyway')
        warn(text, RecordingWarning)


def trials(stream: StreamOfSession, pre_s: float = 0, post_s: float = 0) -> list[xr.DataArray]:
    """Return a lazy (time, channel) DataArray per label of class 0 or more, in time order.

    A trial goes from ``pre_s`` before its label to ``post_s`` after it, or, if that is 0,
    to the next label or the end of the stream. ``time`` is the stream's own, so a gap in a
    trial shows there. A label after the end of the stream gives a trial without samples.

    Returns
    -------
    list of DataArray
        In the stream's dtype, with the scalar coordinates ``label_time`` (s),
        ``class_index`` and ``class_name``; ``attrs["gaps"]`` counts gaps and unusable
        time stamps in it.
    """
    pre_s = from_zero("pre_s", pre_s, SessionError)
    post_s = from_zero("post_s", post_s, SessionError)
    _check_rate(stream)
    timeline = stream.timeline
    moments, classes = stream.labels_by_time()
    starts = timeline.locate_or_end(moments - pre_s)
    if post_s > 0:
        ends = timeline.locate_or_end(moments + post_s)
    else:
        ends = np.append(timeline.locate(moments), len(timeline.times))[1:]
    found = []
    for start, end, moment, index in zip(starts, ends, moments, classes, strict=True):
        if index < 0:
            continue
        trial = stream.dataset["data"].isel(time=slice(int(start), max(int(start), int(end))))
        inside = np.concatenate([timeline.gaps[timeline.gaps > start], timeline.unusable])
        gaps = int(((inside >= start) & (inside < end)).sum())
        found.append(
            trial.assign_coords(
                label_time=float(moment),
                class_index=int(index),
                class_name=class_name(int(index), stream.class_names or None),
            ).assign_attrs(fs=stream.fs, gaps=gaps)
        )
    return found


def peri_event(
    stream: StreamOfSession,
    times: Any,
    pre_s: float,
    post_s: float,
    *,
    on: str | None = None,
    edge: Literal["start", "end"] | None = None,
    clock: str | None = None,
    until: Any = None,
    on_gap: Policy = "drop",
    on_mismatch: Policy = "raise",
) -> xr.DataArray:
    """Return a lazy DataArray (event, channel, time) of the samples around some times.

    The sample nearest to an event is time 0; ``round(pre_s * fs)`` samples before it are
    taken, and ``round(post_s * fs)`` from it on. An event too close to an end of the
    stream, or to a gap, is left out and noted in the drop log. That no event is in the time
    of the stream is a warning, too.

    Parameters
    ----------
    stream
        The stream.
    times
        (n,) in s on the stream's clock; NaN is noted and left out. Or a trial table.
    pre_s, post_s
        Seconds before and after.
    on, edge, clock, until
        What of a trial table says when, and when each trial ends, see
        `labtree.event_times.events_from`. A window then reaches to `post_s` after the end of
        its trial; shorter ones end in NaN.
    on_gap
        As in `labeled_windows`.
    on_mismatch
        What to do about a rate that the time stamps contradict by more than 1 %: the samples
        are then not where ``time`` says. ``"raise"`` an error, ``"warn"`` a warning,
        ``"drop"`` nothing.

    Returns
    -------
    DataArray
        Coordinates: ``time`` in s from the event's sample, ``event`` (position in
        ``times``), ``event_time`` and ``window_start`` in s, ``session``, the columns of a
        trial table, and with `until` ``length`` in s.
    """
    one_of("on_gap", on_gap, POLICIES, SessionError)
    if stream.fs <= 0:
        raise SessionError("a stream without a sampling rate has no windows around events")
    one_of("on_mismatch", on_mismatch, POLICIES, SessionError)
    _check_rate(stream, on_mismatch)
    before = round(from_zero("pre_s", pre_s, SessionError) * stream.fs)
    post_s = from_zero("post_s", post_s, SessionError)
    dtype = stream.dataset["data"].dtype
    if until is not None and dtype.kind in "iu" and dtype.itemsize == 8:
        raise SessionError(
            f"until= pads with NaN, and no float holds every {dtype}; write"
            ' ds.assign(data=ds["data"].astype(float)).session.peri_event(...)'
        )
    if until is None and before + round(post_s * stream.fs) < 1:
        raise SessionError(f"pre_s={pre_s!r} and post_s={post_s!r} hold no sample")
    events = events_from(
        times,
        on=on,
        edge=edge,
        clock=clock,
        until=until,
        unit="s",
        taken=_TAKEN if until is None else {*_TAKEN, "length"},
        name="times",
    )
    windows = _windows_around(stream, events, before, post_s)
    _warn_if_none_inside(stream, events.times)
    chosen = np.flatnonzero(windows.reasons == "")
    windows.reasons[chosen] = broken_windows(
        stream, windows.starts[chosen], windows.lengths[chosen], on_gap
    )
    chosen = np.flatnonzero(windows.reasons == "")
    gone = np.flatnonzero(windows.reasons != "")
    starts, lengths = windows.starts[chosen], windows.lengths[chosen]
    whole = before + round(post_s * stream.fs)
    longest = whole if until is None else int(lengths.max(initial=0))
    coords: dict[str, Any] = {
        "time": ("time", (np.arange(longest) - before) / stream.fs, {"units": "s"}),
        "event": ("event", chosen),
        "event_time": ("event", events.times[chosen], {"units": "s"}),
    }
    if until is not None:
        coords["length"] = ("event", lengths / stream.fs, {"units": "s"})
    log = drop_log_text(
        [events.labels[at] for at in gone], events.times[gone], windows.reasons[gone].tolist()
    )
    array = window_array(
        [stream],
        WindowIndex(np.zeros_like(chosen), starts, np.full(len(chosen), -1)),
        longest,
        DropLog(),
        lengths=None if until is None else lengths,
        coordinates={},
    )
    return (
        array.rename(window="event", start_time="window_start")
        .assign_coords(coords | events.chosen(chosen))
        .assign_attrs(drop_log=log, dropped=len(gone))
    )


def _warn_if_none_inside(stream: StreamOfSession, moments: np.ndarray) -> None:
    """Warn of events of which none is in the time of the stream: of another unit, or clock."""
    timeline, finite = stream.timeline, moments[np.isfinite(moments)]

    def inside(times: np.ndarray) -> bool:
        out = timeline.is_before_start(times) | timeline.is_after_end(times)
        return not bool(out.all())

    if not timeline.has_usable or inside(finite):
        return
    first, last = timeline.span
    question = "are they milliseconds (write times / 1000), or of another clock?"
    if finite.min() > last and inside(finite / 1000):
        question = "are they milliseconds? Write times / 1000"
    warn(
        f"{stream.where}: no event is in the time of the stream, which goes"
        f" from {first:.9g} s to {last:.9g} s, the events from {finite.min():.9g} to"
        f" {finite.max():.9g}; {question}",
        RecordingWarning,
    )


class _Windows(NamedTuple):
    """First row and number of rows of the window of each event; why it has none, or ""."""

    starts: np.ndarray
    lengths: np.ndarray
    reasons: np.ndarray


def _windows_around(
    stream: StreamOfSession, events: Events, before: int, post_s: float
) -> _Windows:
    """Return the windows from so many samples before each event to ``post_s`` after it."""
    moments, timeline, n = events.times, stream.timeline, len(stream.timeline.times)
    finite = np.isfinite(moments)
    after = np.full(len(moments), post_s)
    if events.until is not None:
        after += events.until - moments
    ends = finite & np.isfinite(after)
    behind = np.rint(np.where(ends, after, 0.0) * stream.fs).astype(np.int64)
    lengths = before + behind
    starts = timeline.locate(np.where(finite, moments, 0.0)) - before
    outside = timeline.is_before_start(moments) | timeline.is_after_end(moments)
    outside |= (starts < 0) | (starts + lengths > n)
    away = np.ones(len(moments), bool)
    if n:
        most = max(timeline.gap_s or 0, 1 / stream.fs)
        away = np.abs(timeline.times[np.clip(starts + before, 0, n - 1)] - moments) > most
    reasons = np.full(len(moments), "", object)
    reasons[away] = "no sample at this time"
    reasons[outside] = "reaches beyond the stream"
    reasons[~ends | (lengths < 1)] = NO_END
    reasons[~finite] = NO_TIME
    return _Windows(starts, lengths, reasons)
