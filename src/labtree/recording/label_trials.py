"""Trials after labels, and windows around events."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from labtree.errors import SessionError
from labtree.events import events_from
from labtree.recording.session import class_name
from labtree.recording.session_streams import (
    DropLog,
    Policy,
    StreamOfSession,
    check_policy,
    warn,
)
from labtree.recording.windows import WindowIndex, unbroken_mask, window_array

__all__ = ["continuous", "peri_event", "trials"]

# Coordinates and dimensions of windows, which no column of a trial table may have.
_TAKEN = ("event", "channel", "time", "event_time", "start_time", "session")


def continuous(stream: StreamOfSession) -> xr.DataArray:
    """Return a stream's samples, lazily, with ``time`` as an index for ``.sel``.

    The time stamps are read for the index, samples are not. A rate that the time stamps
    contradict by more than 1 % is a warning.
    """
    _warn_of_rate(stream)
    dataset = stream.dataset
    array = dataset["data"].assign_attrs(dataset.attrs)
    return array if "time" in array.indexes else array.set_xindex("time")


def _warn_of_rate(stream: StreamOfSession) -> None:
    if problem := stream.timeline.rate_problem():
        warn(f"{stream.session or 'the stream'}: the stream {problem}")


def _seconds(name: str, value: float) -> float:
    if not (np.isfinite(value) and value >= 0):
        raise SessionError(f"{name} is a number of seconds from 0 on, found {value!r}")
    return float(value)


def trials(stream: StreamOfSession, pre_s: float = 0, post_s: float = 0) -> list[xr.DataArray]:
    """Return a lazy (time, channel) DataArray per label of class 0 or more, in time order.

    A trial goes from ``pre_s`` before its label to ``post_s`` behind it, or, if that is 0,
    to the next label or the end of the stream. ``time`` is the stream's own, so a gap in a
    trial shows there. A label behind the end of the stream gives a trial without samples.

    Returns
    -------
    list of DataArray
        In the stream's dtype, with the scalar coordinates ``label_time`` (s),
        ``class_index`` and ``class_name``; ``attrs["gaps"]`` counts gaps and unusable
        time stamps in it.
    """
    pre_s, post_s = _seconds("pre_s", pre_s), _seconds("post_s", post_s)
    _warn_of_rate(stream)
    timeline, n = stream.timeline, len(stream.timeline.times)
    labels = stream.labels.sort_values("timestamp", kind="stable")
    moments = labels["timestamp"].to_numpy(float)
    classes = labels["class_index"].to_numpy(np.int64)
    starts = timeline.locate(moments - pre_s)
    starts = np.where(timeline.is_after_end(moments - pre_s), n, starts)
    if post_s > 0:
        ends = timeline.locate(moments + post_s)
        ends = np.where(timeline.is_after_end(moments + post_s), n, ends)
    else:
        ends = np.append(timeline.locate(moments), n)[1:]
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
    stream, or to a gap, is left out and noted in the drop log.

    Parameters
    ----------
    stream
        The stream.
    times
        (n,) in s on the stream's clock; NaN is noted and left out. Or a trial table.
    pre_s, post_s
        Seconds before and after.
    on, edge, clock
        What of a trial table says when, see `labtree.events.events_from`.
    until
        Not of streams, whose windows are equally long.
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
        ``times``), ``event_time`` and ``start_time`` in s, ``session``, and the columns of a
        trial table.
    """
    if until is not None:
        raise SessionError(
            "windows of a stream are equally long; leave until= out, and give the longest as"
            " post_s"
        )
    check_policy("on_gap", on_gap)
    if stream.fs <= 0:
        raise SessionError("a stream without a sampling rate has no windows around events")
    check_policy("on_mismatch", on_mismatch)
    if (problem := stream.timeline.rate_problem()) and on_mismatch != "drop":
        text = f"{stream.session or 'the stream'}: the stream {problem}"
        if on_mismatch == "raise":
            raise SessionError(f'{text}; write on_mismatch="warn" to go on all the same')
        warn(text)
    before = round(_seconds("pre_s", pre_s) * stream.fs)
    win = before + round(_seconds("post_s", post_s) * stream.fs)
    if win < 1:
        raise SessionError(f"pre_s={pre_s!r} and post_s={post_s!r} hold no sample")
    coordinates: Callable[[np.ndarray], dict[str, xr.Variable]] = lambda chosen: {}  # noqa: E731
    if isinstance(times, pd.DataFrame) or any(part is not None for part in (on, edge, clock)):
        events = events_from(
            times, on=on, edge=edge, clock=clock, unit="s", taken=_TAKEN, name="times"
        )
        moments, coordinates = events.times, events.chosen
    else:
        moments = np.asarray(getattr(times, "to_numpy", lambda: times)(), float).reshape(-1)
    drops = DropLog()
    finite = np.isfinite(moments)
    timeline, n = stream.timeline, len(stream.timeline.times)
    starts = timeline.locate(np.where(finite, moments, 0.0)) - before
    first = timeline.times[:1].min(initial=np.inf)
    early = moments < first - 1 / stream.fs
    outside = early | timeline.is_after_end(moments) | (starts < 0) | (starts + win > n)
    if n:
        most = max(stream.timeline.gap_s or 0, 1 / stream.fs)
        away = np.abs(timeline.times[np.clip(starts + before, 0, n - 1)] - moments) > most
    else:
        away = np.ones(len(moments), bool)
    reasons = np.where(outside, "reaches beyond the stream", "no sample at this time")
    reasons = np.where(finite, reasons, "time is not finite")
    keep = finite & ~outside & ~away
    for at in np.flatnonzero(~keep):
        drops.add(stream.session, float(moments[at]), -1, str(reasons[at]))
    chosen = np.flatnonzero(keep)
    whole = unbroken_mask(stream, starts[chosen], np.full(len(chosen), -1), win, on_gap, drops)
    chosen = chosen[whole]
    index = WindowIndex(
        np.zeros(len(chosen), np.int64), starts[chosen], np.full(len(chosen), -1)
    )
    windows = window_array([stream], index, win, drops)
    return (
        windows.drop_vars(["class_index", "class_name"])
        .rename(window="event")
        .assign_coords(
            time=("time", (np.arange(win) - before) / stream.fs, {"units": "s"}),
            event=("event", chosen),
            event_time=("event", moments[chosen], {"units": "s"}),
        )
        .assign_coords(coordinates(chosen))
    )
