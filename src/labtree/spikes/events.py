"""Spikes around events: cut out, counted, averaged, and their latencies."""

from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError, LabtreeWarning, warn
from labtree.event_times import NO_END, NO_TIME, Events, drop_log_text, events_from
from labtree.objects import psth as psth_kind
from labtree.objects import spike_data, spike_slice_stack
from labtree.objects.layout import slice_coords
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.spikes.counts import bin_centers, bin_edges, bin_numbers, count_cells
from labtree.spikes.trains import (
    first_after,
    recording_span,
    require_kind,
    scalar_unit_coords,
    unit_coords,
    whole_bins,
)
from labtree.storage import ragged
from labtree.storage.arguments import from_zero, positive

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Edge = Literal["start", "end"]

_OUTSIDE = "the window leaves the recording"


class _Windows(NamedTuple):
    """The events that are kept, and the bounds of their windows from the event in ms."""

    events: Events
    kept: Ints
    times: Floats
    before: float
    after: Floats
    log: str


def peri_event(
    ds: xr.Dataset,
    events_ms: Any,
    pre_ms: float,
    post_ms: float,
    *,
    on: str | None = None,
    edge: Edge | None = None,
    clock: str | None = None,
    until: Any = None,
) -> xr.Dataset:
    """Cut the spikes around events out of spike trains.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    events_ms : array-like of shape (event,), or DataFrame
        Times in ms on the clock of the recording; or a trial table, with `on`.
    pre_ms, post_ms : float
        How far the window reaches before and after the event, in ms. A spike exactly at
        its far end is not taken.
    on : str, optional
        What of a table says when: a column of seconds, or a state of ``df.msw``. The
        table's columns and index become coordinates along ``slice``.
    edge : {"start", "end"}, optional
        Which end of the state; by default its start.
    clock : str, optional
        The clock of a state's times, see ``df.msw.state_time``; by default "session".
    until : str, (str, "start" or "end"), or array-like of shape (event,), optional
        Where each trial ends: a column of seconds, a state (its start, or the edge named
        beside it), or times in ms. The window then reaches to `post_ms` after it, and
        slices differ in length.

    Returns
    -------
    Dataset
        Of the kind ``spike_slice_stack``: ``row_size(slice, unit)``, ``spike_times(spike)``
        in ms from the event, ``slice_start`` and ``slice_end`` in ms on the recording's
        clock, ``event(slice)``, the position among the events, ``event_time(slice)``.
        Events whose window leaves the recording are left out; ``labtree.drop_log`` names
        them.

    Raises
    ------
    DataError
        A ValueError, if no event is left, the window is empty, a table comes without
        `on`, or one of its columns has a name that the result needs.
    UnknownNameError
        A KeyError, if the table has no such column or state.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[900.0, 1100.0, 2050.0], [1950.0]], length=3000)
    >>> around = labtree.spikes.peri_event(ds, [1000, 2000], pre_ms=200, post_ms=200)
    >>> around.row_size.values.tolist(), around.spike_times.values.tolist()
    ([[2, 0], [1, 1]], [-100.0, 100.0, 50.0, -50.0])
    """
    require_kind(ds, "peri_event", spike_data.KIND)
    own_names = {*spike_data.RESERVED, "event", "event_time"}
    found = _events(ds, events_ms, own_names, "slice", on, edge, clock, until)
    windows = _windows(ds, found, pre_ms, post_ms)
    sizes, relative = _spikes_around(ds, windows)
    lengths = windows.before + windows.after
    spans = np.stack([windows.times - windows.before, windows.times + windows.after], axis=1)
    coords = slice_coords(spans, windows.kept.size)
    coords["event"] = xr.Variable("slice", windows.kept)
    coords["event_time"] = xr.Variable("slice", windows.times, {"units": "ms"})
    coords |= unit_coords(ds) | found.chosen(windows.kept)
    variables = {
        "spike_times": xr.Variable(
            "spike", relative, {"units": "ms", "long_name": "time from the event"}
        ),
        "row_size": xr.Variable(("slice", "unit"), sizes, {ragged.SAMPLE_DIMENSION: "spike"}),
    }
    attrs: dict[str, Any] = {"start_time": -windows.before}
    if found.until is None:
        attrs["length"] = float(lengths[0])
    else:
        variables["length"] = xr.Variable("slice", lengths, {"units": "ms"})
    attrs |= {"drop_log": windows.log, KIND_ATTRIBUTE: spike_slice_stack.KIND}
    stack = xr.Dataset(variables, coords, attrs)
    spike_slice_stack.validate(stack)
    return stack


def peri_event_counts(
    ds: xr.Dataset,
    events_ms: Any,
    pre_ms: float,
    post_ms: float,
    bin_ms: float,
    *,
    on: str | None = None,
    edge: Edge | None = None,
    clock: str | None = None,
    until: Any = None,
) -> xr.DataArray:
    """Count the spikes of each unit in bins around events.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    events_ms : array-like of shape (event,), or DataFrame
        Times in ms on the clock of the recording; or a trial table, with `on`.
    pre_ms, post_ms : float
        How far the window reaches before and after the event, in ms.
    bin_ms : float
        Width of a bin in ms. Only whole bins count: edges are ``-pre_ms + k * bin_ms``.
        A bin holds its left edge and not its right one.
    on, edge, clock, until
        As in :func:`labtree.spikes.peri_event`; the table's columns become coordinates
        along ``event``. With `until`, bins that a trial does not fill are NaN, and
        ``length(event)`` says how long its window is in ms.

    Returns
    -------
    DataArray of shape (event, unit, time)
        Integers; floats with `until`. ``time`` is the center of a bin in ms from the event,
        ``event`` the position among the events, ``event_time`` in ms on the recording's
        clock. ``labtree.drop_log`` names the events that were left out, because their
        window leaves the recording.

    Raises
    ------
    DataError, UnknownNameError
        As :func:`labtree.spikes.peri_event`.

    Examples
    --------
    >>> import labtree, pandas as pd
    >>> ds = labtree.spike_data([[900.0, 1100.0, 2050.0], [1950.0]], length=3000)
    >>> trials = pd.DataFrame({"go": [1.0, 2.0], "choice": ["left", "right"]})
    >>> counts = labtree.spikes.peri_event_counts(ds, trials, 200, 200, 100, on="go")
    >>> counts.groupby("choice").mean("event").sel(choice="left").values.tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    require_kind(ds, "peri_event_counts", spike_data.KIND)
    own_names = {"event", "event_time", "unit", "time", "length"}
    found = _events(ds, events_ms, own_names, "event", on, edge, clock, until)
    windows = _windows(ds, found, pre_ms, post_ms, bin_ms)
    longest = windows.before + float(windows.after.max())
    edges = bin_edges(-windows.before, whole_bins("bin_ms", longest, bin_ms), bin_ms)
    sizes, relative = _spikes_around(ds, windows)
    n_events, n_units, n_bins = windows.kept.size, ds.sizes["unit"], edges.size - 1
    rows = sizes.ravel()
    bins = bin_numbers(relative, edges, closed=False)
    cells = np.repeat(np.arange(rows.size) * n_bins, rows) + bins
    inside = bins >= 0
    counts: NDArray[Any] = count_cells(
        cells if inside.all() else cells[inside], (n_events, n_units, n_bins)
    )
    coords: dict[str, Any] = {
        "time": bin_centers(edges, "time from the event"),
        "event": ("event", windows.kept),
        "event_time": ("event", windows.times, {"units": "ms"}),
    }
    if found.until is not None:
        lengths = windows.before + windows.after
        # Up to rounding, as whole_bins has it.
        filled = [int(np.floor(round(length / bin_ms, 9))) for length in lengths.tolist()]
        short = np.arange(n_bins) >= np.array(filled)[:, None]
        counts = np.where(short[:, None, :], np.nan, counts)
        coords["length"] = ("event", lengths, {"units": "ms"})
    return xr.DataArray(
        counts,
        coords | scalar_unit_coords(ds) | found.chosen(windows.kept),
        ("event", "unit", "time"),
        name="spike_count",
        attrs={
            "long_name": "number of spikes",
            "pre_ms": float(pre_ms),
            "post_ms": float(post_ms),
            "bin_ms": float(bin_ms),
            "drop_log": windows.log,
        },
    )


def psth(
    ds: xr.Dataset,
    events_ms: Any,
    pre_ms: float,
    post_ms: float,
    bin_ms: float,
    *,
    on: str | None = None,
    edge: Edge | None = None,
    clock: str | None = None,
    until: Any = None,
) -> xr.Dataset:
    """Average the firing rates around events (peri-stimulus time histogram).

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    events_ms, pre_ms, post_ms, bin_ms, on, edge, clock, until
        As in :func:`labtree.spikes.peri_event_counts`.

    Returns
    -------
    Dataset
        ``rate(unit, time)``, the mean over events, and ``sem(unit, time)``, its standard
        error (with ``ddof=1``; NaN for one event), both in Hz; ``n_events(time)``, how many
        events a bin has. ``labtree.drop_log`` names the events that were left out.
        ``.ws.plot()`` draws the rates of all units, ``.ws.plot(unit=0)`` one with its error,
        ``.ws.plot(array="sem")`` another array. For each condition of a trial table give the
        table's rows: ``psth(ds, trials[trials.side == "left"], ..., on="onset")``.

    Raises
    ------
    DataError, UnknownNameError
        As :func:`labtree.spikes.peri_event`.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[900.0, 1100.0, 2050.0], [1950.0]], length=3000)
    >>> labtree.spikes.psth(ds, [1000, 2000], 100, 100, 100).rate.values.tolist()
    [[5.0, 5.0], [5.0, 0.0]]
    """
    counts = peri_event_counts(
        ds, events_ms, pre_ms, post_ms, bin_ms, on=on, edge=edge, clock=clock, until=until
    )
    scale = 1000 / float(bin_ms)
    values = counts.values
    n_events = np.full(counts.sizes["time"], counts.sizes["event"])
    if counts.sizes["unit"]:
        n_events = np.isfinite(values[:, 0, :]).sum(axis=0)
    total = np.nansum(values, axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / n_events
        squares = np.zeros_like(total)
        for row in values:  # one event after the other: no second array of all counts
            off = row - mean
            squares += np.where(np.isnan(off), 0.0, off * off)
        sem = np.sqrt(squares / (n_events - 1) / n_events)
    sem[..., n_events < 2] = np.nan
    about = {"units": "Hz"}
    dims = ("unit", "time")
    return xr.Dataset(
        {
            "rate": (dims, mean * scale, about | {"long_name": "mean firing rate"}),
            "sem": (dims, sem * scale, about | {"long_name": "standard error of the mean"}),
            "n_events": ("time", n_events, {"long_name": "number of events"}),
        },
        unit_coords(ds) | {"time": counts["time"].variable},
        {name: value for name, value in counts.attrs.items() if name != "long_name"}
        | {KIND_ATTRIBUTE: psth_kind.KIND},
    )


def latencies(
    ds: xr.Dataset,
    events_ms: Any,
    within_ms: float,
    *,
    on: str | None = None,
    edge: Edge | None = None,
    clock: str | None = None,
) -> xr.DataArray:
    """Return the time from each event to the first spike of each unit at or after it.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    events_ms : array-like of shape (event,), or DataFrame
        Times in ms on the clock of the recording; or a trial table, with `on`.
    within_ms : float
        How long to wait for a spike, in ms; one at exactly this latency counts.
    on, edge, clock
        As in :func:`labtree.spikes.peri_event`; the table's columns become coordinates
        along ``event``.

    Returns
    -------
    DataArray of shape (event, unit)
        In ms; NaN where there is no spike in time, and in the rows of events without a
        time.

    Raises
    ------
    DataError, UnknownNameError
        As :func:`labtree.spikes.peri_event`; also if no event lies in the recording.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[12.0, 105.0], [300.0]], length=1000)
    >>> labtree.spikes.latencies(ds, [10, 100], within_ms=50).values.tolist()
    [[2.0, nan], [5.0, nan]]
    """
    require_kind(ds, "latencies", spike_data.KIND)
    within_ms = from_zero("within_ms", within_ms)
    _warn_of_short(1.0, within_ms=within_ms)
    own_names = {"event", "event_time", "unit"}
    found = _events(ds, events_ms, own_names, "event", on, edge, clock, None)
    start, stop = recording_span(ds)
    finite = np.isfinite(found.times)
    inside = finite & (found.times >= start) & (found.times <= stop)
    if not inside.any():
        raise _none_left(found.times[finite], start, stop, found.column)
    moments = np.where(finite, found.times, 0.0)
    out = np.full((moments.size, ds.sizes["unit"]), np.nan)
    trains = ragged.split_rows(ds["spike_times"].values, ds["row_size"].values)
    for unit, train in enumerate(trains):
        first = first_after(train, moments, 0.0, inclusive=True)
        reached = first < train.size
        waited = train[first[reached]] - moments[reached]
        out[reached, unit] = np.where(waited <= within_ms, waited, np.nan)
    out[~finite] = np.nan
    coords: dict[str, Any] = {
        "event": ("event", np.arange(moments.size)),
        "event_time": ("event", found.times, {"units": "ms"}),
    }
    return xr.DataArray(
        out,
        coords | scalar_unit_coords(ds) | found.coords,
        ("event", "unit"),
        name="latency",
        attrs={
            "units": "ms",
            "long_name": "time to the first spike",
            "within_ms": within_ms,
        },
    )


def _events(
    ds: xr.Dataset,
    events_ms: Any,
    own_names: set[str],
    dim: str,
    on: str | None,
    edge: Edge | None,
    clock: str | None,
    until: Any,
) -> Events:
    """Return events in ms; `own_names` and those of the units are taken in the result."""
    return events_from(
        events_ms,
        on=on,
        edge=edge,
        clock=clock,
        until=until,
        unit="ms",
        taken=own_names | set(map(str, unit_coords(ds))),
        dim=dim,
        name="events_ms",
    )


def _warn_of_seconds(times: Floats, start: float, stop: float) -> None:
    """Warn of times that are ms, and would fill the recording if they were seconds."""
    if start <= times.min() and (stop - start) / 4000 < times.max() <= (stop - start) / 1000:
        warn(
            f"all events lie in the first {times.max():g} ms of a recording of {stop - start:g}"
            " ms. Are these seconds? Write events_ms=1000 * times",
            LabtreeWarning,
        )


def _none_left(times: Floats, start: float, stop: float, column: str | None) -> DataError:
    """Return the error for events of which none has a window in the recording."""
    seen = f"they lie from {times.min():g} to {times.max():g} ms" if times.size else ""
    text = (
        f"no event has its whole window in the recording, from {start:g} to {stop:g} ms: {seen}"
    )
    if column is not None:
        return DataError(
            f"{text}. The column {column!r} is taken as seconds on the recording's clock; if "
            f"it holds ms, write table.assign({column!s}=table[{column!r}] / 1000)"
        )
    seconds = (
        " Are these seconds? Write events_ms=1000 * times"
        if times.size and start <= 1000 * times.min() and 1000 * times.max() <= stop
        else ""
    )
    return DataError(f"{text}. Are the times in ms, on the recording's clock?{seconds}")


def _warn_of_short(shortest_ms: float, **given_ms: float) -> None:
    """Warn of parts of ms that together are shorter than any such window."""
    values = given_ms.values()
    if sum(map(abs, values)) < shortest_ms and any(value % 1 for value in values):
        found = ", ".join(f"{name}={value:g}" for name, value in given_ms.items())
        line = ", ".join(f"{name}={1000 * value:g}" for name, value in given_ms.items())
        warn(f"{found}: hardly a spike lies there. Are these seconds? Write {line}")


def _windows(
    ds: xr.Dataset, found: Events, pre_ms: float, post_ms: float, bin_ms: float | None = None
) -> _Windows:
    """Return the events whose window lies in the recording, and why the others do not."""
    before, post = float(pre_ms), float(post_ms)
    if not (np.isfinite(before) and np.isfinite(post)):
        raise DataError(f"pre_ms and post_ms must be finite, found {pre_ms!r} and {post_ms!r}")
    if found.until is None:
        if not before + post > 0:
            raise DataError(
                f"the window from {-before} ms to {post} ms around an event is empty"
            )
        bins = {} if bin_ms is None else {"bin_ms": positive("bin_ms", bin_ms)}
        _warn_of_short(3.0, pre_ms=before, post_ms=post, **bins)
    times = found.times
    after = np.full(times.size, post) if found.until is None else found.until - times + post
    start, stop = recording_span(ds)
    slack = 1e-9 * max(1.0, abs(start), abs(stop))  # a window may touch the recording's end
    with np.errstate(invalid="ignore"):
        inside = (times - before >= start - slack) & (times + after <= stop + slack)
        has_end = np.isfinite(after) & (before + after > 0)
    finite = np.isfinite(times)
    kept = np.flatnonzero(finite & has_end & inside)
    if kept.size > 1 and not found.coords:
        _warn_of_seconds(times[finite], start, stop)
    if not kept.size:
        ended = finite & has_end
        if finite.any() and not ended.any():
            raise DataError(f"no event has an end: {NO_END}")
        raise _none_left(times[ended], start, stop, found.column)
    reasons = np.where(inside, "", _OUTSIDE)
    reasons = np.where(has_end, reasons, NO_END)
    reasons = np.where(finite, reasons, NO_TIME)
    gone = np.setdiff1d(np.arange(times.size), kept)
    log = drop_log_text(
        [found.labels[at] for at in gone.tolist()], times[gone], reasons[gone].tolist()
    )
    return _Windows(found, kept, times[kept], before, after[kept], log)


def _spikes_around(ds: xr.Dataset, windows: _Windows) -> tuple[Ints, NDArray[Any]]:
    """Return how many spikes each (event, unit) has, and their times from the event."""
    times, offsets = ds["spike_times"].values, ragged.row_offsets(ds["row_size"].values)
    n_events = windows.times.size
    origins = np.concatenate([windows.times, windows.times])
    from_event = np.concatenate([np.full(n_events, -windows.before), windows.after])
    found = _first_after(times, offsets, origins, from_event)
    first, last = found[:, :n_events], found[:, n_events:]
    sizes = np.maximum(last - first, 0).T
    places = ragged.positions_of_ranges(first.T.ravel(), sizes.ravel())
    return sizes, times[places] - np.repeat(windows.times, sizes.sum(axis=1))


def _first_after(times: NDArray[Any], offsets: Ints, origins: Floats, offset: Floats) -> Ints:
    """Return for each (unit, origin) the first spike at or after an offset from the origin.

    As `first_after` does for one unit; for all of them it is checked at once whether
    rounding matters.
    """
    bounds = origins + offset
    pairs = list(pairwise(offsets.tolist()))
    found = np.empty((len(pairs), origins.size), np.int64)
    for row, (start, stop) in zip(found, pairs, strict=True):
        row[:] = times[start:stop].searchsorted(bounds)
    found += offsets[:-1, None]
    if times.size:
        here = times[np.minimum(found, times.size - 1)] - origins
        before = times[np.maximum(found - 1, 0)] - origins
        late = (found < offsets[1:, None]) & (here < offset)
        early = (found > offsets[:-1, None]) & (before >= offset)
        for unit in np.flatnonzero((late | early).any(axis=1)).tolist():
            start, stop = pairs[unit]
            found[unit] = start + first_after(
                times[start:stop], origins, offset, inclusive=True
            )
    return found
