"""The session's clock against an ephys clock, by barcodes on a TTL line.

A barcode lasts 1.355 s: HIGH, LOW, HIGH of 10 ms each, 37 bits of 35 ms, the least
significant first (HIGH is 1), then LOW, HIGH, LOW of 10 ms each. Its value is the wall
time in whole milliseconds modulo 2 to the 37th.
"""

import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from labtree import clocks
from labtree.errors import DataError, RecordingWarning, TrialTableError
from labtree.msw.trial_queries import (
    barcode_trials,
    column_of,
    is_of_type,
    numbers_of,
    state_time,
)
from labtree.msw.trial_times import START, FloatArray
from labtree.storage import ragged

BARCODE_BITS = 37
BIT_S = 0.035
PULSE_S = 0.010
_DATA_S = BARCODE_BITS * BIT_S
_LENGTH_S = _DATA_S + 6 * PULSE_S


def barcode_durations(value: int) -> list[float]:
    """Return the durations, in s, of the 43 states that send a barcode."""
    if not 0 <= value < 2**BARCODE_BITS:
        raise TrialTableError(f"a barcode has {BARCODE_BITS} bits, and {value} does not fit")
    return [PULSE_S] * 3 + [BIT_S] * BARCODE_BITS + [PULSE_S] * 3


def decode_barcodes(
    times: npt.ArrayLike, states: npt.ArrayLike, *, tolerance_s: float = 0.0025
) -> pd.DataFrame:
    """Find and read the barcodes among the edges of one line.

    Parameters
    ----------
    times : array (edge,)
        When the line changed, s.
    states : array (edge,)
        What it changed to; above 0 is HIGH.
    tolerance_s : float
        How far an edge may lie from where it should be.

    Returns
    -------
    pandas.DataFrame
        ``time`` (s, the first rising edge) and ``value`` (int), one row per barcode. Edges
        that begin like a barcode, but have an edge where none can be or another ending, are
        left out.

    Examples
    --------
    >>> decode_barcodes([], [])
    Empty DataFrame
    Columns: [time, value]
    Index: []
    """
    t = np.asarray(times, np.float64)
    high = np.asarray(states) > 0
    if t.shape != high.shape or t.ndim != 1:
        raise TrialTableError(f"times {t.shape} and states {high.shape} are not one per edge")
    order = np.argsort(t, kind="stable")
    t, high = t[order], high[order]
    # Repeated reports of a level that has not changed are no edges.
    changed = ragged.begins_run(high)
    t, high = t[changed], high[changed]

    gaps = np.diff(t)
    pulse = np.abs(gaps - PULSE_S) <= tolerance_s
    starts = np.flatnonzero(high[:-2] & pulse[:-1] & pulse[1:]) if len(t) > 2 else np.arange(0)
    found: list[tuple[float, int]] = []
    bits = np.arange(BARCODE_BITS)
    # All moments at which the level may change, from the first edge on.
    grid = np.concatenate(
        [
            [0, PULSE_S, 2 * PULSE_S],
            3 * PULSE_S + BIT_S * np.arange(BARCODE_BITS + 1),
            _LENGTH_S - PULSE_S * np.array([2, 1]),
        ]
    )
    for i in starts:
        t0 = t[i]
        last = int(np.searchsorted(t, t0 + _LENGTH_S + tolerance_s))
        offsets = t[i:last] - t0
        nearest = np.abs(offsets[:, None] - grid).min(axis=1)
        data = t0 + 3 * PULSE_S + BIT_S * (bits + 0.5)
        end = t0 + _LENGTH_S - PULSE_S * np.array([2.5, 1.5, 0.5])
        levels = high[np.searchsorted(t, np.concatenate([data, end]), side="right") - 1]
        if nearest.max() > tolerance_s or levels[-3:].tolist() != [False, True, False]:
            continue
        found.append((float(t0), int(np.sum(levels[:-3] * 2**bits))))
    table = pd.DataFrame(found, columns=["time", "value"])
    return table.astype({"time": np.float64, "value": np.int64})


def align_trials(
    frame: pd.DataFrame,
    events: pd.DataFrame,
    *,
    line: int | str | None = None,
    timestamp_column: str | None = None,
    max_residual_s: float = 0.005,
) -> tuple[pd.DataFrame, xr.Dataset]:
    """Put trials on an ephys clock by the barcodes on one of its lines.

    Parameters
    ----------
    frame : pandas.DataFrame
        A session's trials.
    events : pandas.DataFrame
        The edges that the ephys system recorded: ``line``, ``state`` (above 0: HIGH), and
        ``timestamp`` or ``timestamps`` in s.
    line : int or str, optional
        Which line the barcodes are on; needed if there are edges on several.
    timestamp_column : str, optional
        The name of the times' column, if it is another.
    max_residual_s : float
        A barcode further from the clock is not used.

    Returns
    -------
    frame : pandas.DataFrame
        With ``trial_start_ephys`` (s); ``barcode_ephys_time`` and ``barcode_residual`` (s, NaN
        where no barcode was matched); ``alignment_slope`` and ``alignment_intercept``, the
        line that the trial's start lies on (the same in each row, unless the clock bends
        or jumps); and ``n_barcodes_matched``. ``clock="ephys"`` is then known.
    clock : xarray.Dataset
        As `labtree.clocks.fit` returns it, from the session (a) to the ephys system (b), with
        every anchor and its residual. `labtree.clocks.convert` takes it, and a workspace
        stores it.

    Raises
    ------
    TrialTableError
        No barcodes, no such line, or trials of several sessions.
    DataError
        No clock that more than half of the anchors share.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.msw import make_trials, make_ttl_edges
    >>> trials = make_trials(200)
    >>> df = labtree.msw.trials_to_frame(trials)
    >>> aligned, clock = labtree.msw.align_trials(df, make_ttl_edges(trials), line=4)
    >>> int(aligned["n_barcodes_matched"].iloc[0])
    10
    """
    if not isinstance(events, pd.DataFrame):
        raise TrialTableError(
            f"events is {type(events).__name__}; write a DataFrame of the edges on each line: "
            'pd.DataFrame({"timestamp": seconds, "line": 4, "state": [1, 0, ...]})'
        )
    if timestamp_column is None:
        timestamp_column = "timestamps" if "timestamps" in events else "timestamp"
    for name in ("line", "state", timestamp_column):
        column_of(events, name)
    lines = pd.unique(events["line"])
    if line is None and len(lines) == 1:
        line = lines[0]
    edges = events[events["line"] == line]
    if not len(edges):
        known = ", ".join(map(str, lines)) or "none"
        raise TrialTableError(
            f"no edges on line {line!r}; write line=, there are edges on: {known}"
        )
    if "session" in frame and frame["session"].nunique(dropna=False) > 1:
        raise TrialTableError(
            f"this table holds {frame['session'].nunique(dropna=False)} sessions, each with a "
            "clock of its own; align each session.df, then join them with "
            "labtree.msw.concat_trials({name: df, ...})"
        )
    codes = barcode_trials(frame)
    if not len(codes):
        raise TrialTableError("these trials sent no barcode (no row has trial_type 'barcode')")
    sent = pd.DataFrame(
        {
            "row": np.flatnonzero(is_of_type(frame, "barcode")),
            "time": state_time(codes, "barcode_start", clock="session").to_numpy(),
            "value": numbers_of(codes, "barcode_value"),
        }
    ).dropna()
    sent = sent.astype({"value": np.int64})
    seen = decode_barcodes(
        edges[timestamp_column].to_numpy(np.float64), edges["state"].to_numpy()
    )
    if not len(seen):
        raise DataError(
            f"no barcode stands in the {len(edges)} edges on line {line!r}, from "
            f"{edges[timestamp_column].min():g} to {edges[timestamp_column].max():g}: is "
            f"{timestamp_column!r} in seconds, and is it the right line?"
        )
    pairs = clocks.match_pulses(
        sent["time"], seen["time"], values_a=sent["value"], values_b=seen["value"]
    )
    clock = clocks.fit(pairs, max_residual_s=max_residual_s)
    used = clock["segment_of_anchor"].to_numpy() >= 0
    anchors = pd.DataFrame(
        {name: clock[name].to_numpy()[used] for name in ("time_a", "time_b", "residual_s")}
    ).drop_duplicates("time_a")
    matched = sent.merge(anchors, left_on="time", right_on="time_a")
    ephys, residual = np.full((2, len(frame)), np.nan)
    ephys[matched["row"]] = matched["time_b"]
    residual[matched["row"]] = matched["residual_s"]
    starts = numbers_of(frame, START)
    slope, intercept = _lines(clock, starts)
    aligned = frame.assign(
        trial_start_ephys=starts * slope + intercept,
        barcode_ephys_time=ephys,
        barcode_residual=residual,
        alignment_slope=slope,
        alignment_intercept=intercept,
        n_barcodes_matched=len(anchors),
    )
    return aligned, clock


def _lines(clock: xr.Dataset, starts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the line of the clock that each time lies on; NaN where the clock jumps."""
    with warnings.catch_warnings():
        # The times themselves warn of what lies in a jump.
        warnings.simplefilter("ignore", RecordingWarning)
        after = clocks.convert(clock, starts + 1.0)
        before = clocks.convert(clock, starts - 1.0)
    here = np.asarray(clocks.convert(clock, starts))
    n_segments = clock.sizes["segment"]
    if n_segments == 1:
        slope = np.full(len(starts), float(clock["rate"][0]))
    else:
        slope = np.where(np.isnan(after), here - before, after - here)
    intercept = here - slope * starts
    if n_segments == 1:
        line = clock.isel(segment=0)
        intercept[:] = float(line["b_ref"] - line["rate"] * line["a_ref"])
    return slope, intercept
