"""Times of one device on the clock of another."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from labtree.clocks.matching import FloatArray
from labtree.errors import DataError, RecordingWarning, unknown_name, warn


class _Pieces(NamedTuple):
    """The clock as one line per stretch of the time that is converted from."""

    knots: FloatArray  # times at which one stretch ends and the next begins
    slope: FloatArray  # one per stretch, one more than knots
    x: FloatArray
    y: FloatArray  # each line goes through (x, y); NaN where there is no counterpart


def _pieces(clock: xr.Dataset) -> _Pieces:
    a_ref, b_ref, rate, first, last, jump = (
        np.asarray(clock[name].values, np.float64)
        for name in ("a_ref", "b_ref", "rate", "a_first", "a_last", "jump_s")
    )
    knots, slope, x, y = [], [rate[0]], [a_ref[0]], [b_ref[0]]
    for at in range(1, len(rate)):
        low, high = last[at - 1], first[at]
        start = b_ref[at - 1] + rate[at - 1] * (low - a_ref[at - 1])
        stop = b_ref[at] + rate[at] * (high - a_ref[at])
        known = jump[at] == 0
        knots += [low, high]
        slope += [(stop - start) / (high - low) if known and high > low else np.nan, rate[at]]
        x += [low, a_ref[at]]
        y += [start if known else np.nan, b_ref[at]]
    return _Pieces(*(np.array(part, np.float64) for part in (knots, slope, x, y)))


def _forward(pieces: _Pieces, times: FloatArray) -> FloatArray:
    at = np.searchsorted(pieces.knots, times, "left")
    # The first anchor after a gap belongs to what follows it.
    on_knot = np.isin(times, pieces.knots[1::2])
    at = np.where(on_knot, np.searchsorted(pieces.knots, times, "right"), at)
    return np.asarray(pieces.y[at] + pieces.slope[at] * (times - pieces.x[at]))


def _backward(pieces: _Pieces, times: FloatArray) -> FloatArray:
    """Return where each stretch passes ``times``; NaN where none does, or more than one."""
    edges = np.concatenate([[-np.inf], pieces.knots, [np.inf]])
    found = np.full(len(times), np.nan)
    count = np.zeros(len(times), np.int64)
    for number, slope in enumerate(pieces.slope):
        if not np.isfinite(slope) or slope <= 0:
            continue
        value = pieces.x[number] + (times - pieces.y[number]) / slope
        low, high = edges[number], edges[number + 1]
        # A stretch between two anchors holds neither: the segments beside it do.
        between = number % 2 == 1
        inside = (value > low) & (value < high) if between else (value >= low) & (value <= high)
        found[inside] = value[inside]
        count += inside
    found[count > 1] = np.nan
    return found


def _warn_outside(clock: xr.Dataset, times: FloatArray, inverse: bool) -> None:
    """Warn of times that are farther from the anchors than these are from each other."""
    if not {"time_a", "time_b", "segment_of_anchor"} <= set(clock.variables):
        return
    used = clock["segment_of_anchor"].values >= 0
    anchors = np.sort(clock["time_b" if inverse else "time_a"].values[used])
    away = np.maximum(anchors[0] - times, times - anchors[-1])
    outside = int((away > np.diff(anchors).max(initial=0.0)).sum())
    if outside:
        warn(
            f"{outside} of {times.size} times lie outside the anchors, which go from"
            f" {anchors[0]:.9g} to {anchors[-1]:.9g} s, by up to {np.nanmax(away):.6g} s; there"
            " the clock is extrapolated",
            RecordingWarning,
        )


def convert(
    clock: xr.Dataset,
    times: Any,
    *,
    inverse: bool = False,
    columns: str | list[str] | None = None,
) -> Any:
    """Return times of device a on the clock of device b.

    Parameters
    ----------
    clock
        What `fit` gave.
    times
        Seconds: a number, an array, a Series or a DataArray. Or a DataFrame (labels,
        trials), of which ``columns`` are converted. Or a `spike_data` Dataset, whose times
        are milliseconds.
    inverse
        From b to a instead.
    columns
        Columns of a DataFrame, in s; ``timestamp`` if left out.

    Returns
    -------
    As ``times``
        NaN where a time lies between the two anchors around a jump, or (with ``inverse``)
        was shown twice or never. Before the first and after the last anchor the outer
        segments are extrapolated, with a warning if that is farther than two anchors are
        apart.

    Raises
    ------
    DataError
        If spikes have no counterpart, or would change their order.

    Warns
    -----
    RecordingWarning
        If finite times became NaN, or lie far outside the anchors.

    Examples
    --------
    >>> import pandas as pd
    >>> from labtree import clocks
    >>> clock = clocks.fit(pd.DataFrame({"time_a": [0.0, 10.0], "time_b": [5.0, 15.0]}))
    >>> float(clocks.convert(clock, 2.5)), float(clocks.convert(clock, 7.5, inverse=True))
    (7.5, 2.5)
    """
    if not isinstance(clock, xr.Dataset):
        raise DataError(
            f"expected a clock first, as labtree.clocks.fit gives it, found "
            f"{type(clock).__name__}; write labtree.clocks.convert(clock, times)"
        )
    absent = {"a_ref", "b_ref", "rate", "a_first", "a_last", "jump_s"} - set(clock.variables)
    if absent:
        raise DataError(
            f"expected a clock as labtree.clocks.fit gives it, {sorted(absent)} are missing"
        )
    pieces = _pieces(clock)
    lead = _backward if inverse else _forward

    def lead_all(values: Any) -> FloatArray:
        array = np.asarray(values, np.float64)
        found = lead(pieces, array.reshape(-1)).reshape(array.shape)
        lost = int((np.isnan(found) & np.isfinite(array)).sum())
        if lost:
            warn(
                f"{lost} of {array.size} times lie where the clock jumps, they become NaN",
                RecordingWarning,
            )
        _warn_outside(clock, array, inverse)
        return found

    if isinstance(times, pd.DataFrame):
        columns = "timestamp" if columns is None else columns
        converted = {}
        for name in [columns] if isinstance(columns, str) else columns:
            if name not in times.columns:
                raise unknown_name("column", name, times.columns, DataError)
            converted[name] = lead_all(times[name].to_numpy(np.float64, na_value=np.nan))
        result = times.assign(**converted)
        result.attrs = dict(times.attrs)
        return result
    if columns is not None:
        raise DataError("columns= names those of a DataFrame; leave it out for other times")
    if isinstance(times, xr.Dataset):
        return _convert_spikes(times, lead_all)
    if isinstance(times, xr.DataArray):
        return times.copy(data=lead_all(times.values))
    if isinstance(times, pd.Series):
        return pd.Series(
            lead_all(times.to_numpy(np.float64, na_value=np.nan)), times.index, name=times.name
        )
    return lead_all(times)[()]  # a number where it was one


def _convert_spikes(spikes: xr.Dataset, lead_all: Callable[[Any], FloatArray]) -> xr.Dataset:
    if "spike_times" not in spikes.variables or "start_time" not in spikes.attrs:
        raise DataError(
            "of Datasets spike_data is converted; convert others by their variables:"
            " ds.assign(time=labtree.clocks.convert(clock, ds.time))"
        )
    times = spikes["spike_times"].values
    ends = np.array([0.0, spikes.attrs["length"]]) + spikes.attrs["start_time"]
    moved = lead_all(np.concatenate([ends, times]) / 1000) * 1000
    start, stop = moved[:2]
    found = moved[2:]
    if not np.isfinite(moved).all():
        raise DataError(
            f"{int((~np.isfinite(found)).sum())} spikes, or an end of the recording, lie where"
            " the clock jumps; write labtree.spikes.select_time(ds, start_ms, stop_ms) for the"
            " time before it, or after it, first"
        )
    order = np.diff(times) >= 0
    if bool((np.diff(found)[order] < 0).any()):
        raise DataError(
            "the clock steps back among these spikes: their order would change; write"
            " labtree.spikes.select_time(ds, start_ms, stop_ms) for the time before the jump,"
            " or after it, first"
        )
    length = max(stop - start, float((found - start).max(initial=0.0)))
    result = spikes.assign(spike_times=spikes["spike_times"].copy(data=found))
    return result.assign_attrs(start_time=float(start), length=float(length))
