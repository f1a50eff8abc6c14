"""Time stamps without jitter, for a stream whose own jitter, jump or are missing.

A stretch is what lies between two gaps, or between two steps of the clock; in it time is a
straight line of the sample's number. A step between two samples is such a break if the
stamps around it, on either side the middle of some, differ by what the step says: jitter
and packets that were late come back to the line, lost samples and a clock that was set do
not.
"""

import itertools
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
import xarray as xr

from labtree.errors import SessionError
from labtree.storage.arguments import positive
from labtree.storage.ragged import run_edges

# Samples on each side of a step that say where the line is, and seconds of them.
_AROUND = 64
_AROUND_S = 1.0
# A stretch shorter than this many samples has the rate of all of them.
_OWN_RATE = 100
# Samples between two breaks that say where the line between them is.
_FEWEST = 16


def dejitter(stream: xr.Dataset, *, gap_s: float | None = None) -> xr.Dataset:
    """Return a stream whose time stamps are linear between gaps, without their jitter.

    Samples stay lazy; time stamps are read. Samples without a finite time stamp get the
    time of their position on the line. If the clock goes back, both stretches keep their
    own time.

    Parameters
    ----------
    stream
        A stream of a session: ``tree.session.streams["emg"]``; it needs a rate.
    gap_s
        Steps longer than this are gaps, and so are all steps backward. If None, gaps are
        the steps that later time stamps do not make up for.

    Returns
    -------
    Dataset
        The stream with another ``time`` and the variable ``residual`` (time), the recorded
        stamp minus the clean time in s (NaN where there was no stamp). Attributes:
        ``stretches`` (how many), ``jitter_rms_s`` and ``jitter_max_s``.

    Raises
    ------
    SessionError
        If the stream has no rate, or no finite time stamp.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> tree = labtree.open_session(record_emg("sessions"))
    >>> clean = labtree.dejitter(tree.session.streams["emg"])
    >>> clean.attrs["stretches"], round(float(clean.time[-1] - clean.time[0]), 3)
    (1, 7.999)
    """
    fs = float(stream.attrs.get("fs", 0))
    if not fs > 0:
        raise SessionError(
            "a stream without a sampling rate cannot be dejittered: expected a stream with the "
            "attribute fs in Hz, such as tree.session.streams['emg'], found "
            f"{type(stream).__name__} with {dict(stream.sizes)}"
        )
    gap = None if gap_s is None else positive("gap_s", gap_s, SessionError)
    recorded = np.asarray(stream["time"].values, np.float64)
    known = np.flatnonzero(np.isfinite(recorded))
    if len(known) == 0:
        raise SessionError("no time stamp of the stream is finite; nothing says when it was")
    breaks = _breaks(known, recorded[known], fs, gap)
    time = _clean(len(recorded), known, recorded[known], breaks, fs)
    residual = recorded - time
    finite = residual[known]
    result = stream.assign_coords(time=("time", time, stream["time"].attrs)).drop_indexes(
        "time", errors="ignore"
    )
    result["residual"] = ("time", residual, {"units": "s"})
    return result.assign_attrs(
        stretches=len(breaks) + 1,
        jitter_rms_s=float(np.sqrt(np.mean(finite**2))),
        jitter_max_s=float(np.abs(finite).max()),
    )


def _breaks(known: np.ndarray, times: np.ndarray, fs: float, gap_s: float | None) -> np.ndarray:
    """Return the positions among the known stamps where a new stretch begins."""
    if len(times) < 2:
        return np.empty(0, np.int64)
    period = 1 / fs
    steps, samples = np.diff(times), np.diff(known)
    slack = 4 * np.spacing(np.abs(times).max())
    if gap_s is not None:
        too_long = steps > gap_s + (samples - 1) * period + slack
        return np.flatnonzero(too_long | (steps < -slack)) + 1
    # By how much each step is off the declared rate; a candidate is off by half a sample.
    off = steps - samples * period
    candidates = np.flatnonzero(np.abs(off) > 0.5 * period + slack) + 1
    if len(candidates) == 0:
        return candidates
    away = times - known * period  # a line at the declared rate is level here
    around = max(
        _AROUND, min(int(_AROUND_S * fs), 4096), 4 * int(np.diff(run_edges(times)).max())
    )
    likely = candidates[np.abs(off[candidates - 1]) > 0.75 * period + slack]
    found: list[int] = []
    # Again, while there are more: stamps after the next break say nothing of one before it.
    while True:
        earlier, is_first = [*found, len(away)], not found
        found = []
        for at in likely.tolist():
            place = bisect_left(earlier, at)
            if (high := earlier[place]) == at:
                found.append(at)
                continue
            if not is_first and high >= at + around:
                continue  # nothing new is known of it
            low = max(earlier[place - 1] if place else 0, found[-1] if found else 0)
            high = len(away) if high - at < _FEWEST else high
            before = away[max(low, at - around) : at]
            behind = away[at : min(high, at + around)]
            if _is_break(before, behind, float(off[at - 1]), 0.75 * period):
                found.append(at)
        if len(found) == len(earlier) - 1:
            break
    return np.array(found, np.int64)


def _is_break(before: np.ndarray, behind: np.ndarray, step: float, least: float) -> bool:
    """Return whether stamps differ before and after a step by what the step says."""
    middles = float(np.median(before)), float(np.median(behind))
    shift = middles[1] - middles[0]
    jitter = _jitter(np.concatenate([before - middles[0], behind - middles[1]]))
    # The middle of a few stamps says less than that of many.
    fewest = min(len(before), len(behind))
    least = max(least, jitter * (2 + 8 / np.sqrt(fewest)))
    return bool(abs(shift) > least and 0.5 < step / shift < 2)


def _jitter(values: np.ndarray) -> float:
    """Return the standard deviation of some values, whatever a few of them do."""
    low, high = np.percentile(values, [25, 75])
    return float((high - low) / 1.349)


class _Stretch(NamedTuple):
    row: float
    time: float
    period: float
    size: int


def _clean(
    n: int, known: np.ndarray, times: np.ndarray, breaks: np.ndarray, fs: float
) -> np.ndarray:
    """Return the time of every sample: a line per stretch, through its stamps."""
    edges = [0, *breaks.tolist(), len(known)]
    parts = [slice(low, high) for low, high in itertools.pairwise(edges)]
    own = [_line(known[part], times[part], 1 / fs) for part in parts]
    long = [stretch for stretch in own if stretch.size >= _OWN_RATE]
    size = sum(stretch.size for stretch in long)
    shared = sum(s.period * s.size for s in long) / size if size else 1 / fs
    clean = np.empty(n)
    # Samples without a stamp belong to the stretch before them, the first ones to the first.
    starts = [0, *known[breaks].tolist(), n]
    for stretch, low, high in zip(own, starts[:-1], starts[1:], strict=True):
        period = stretch.period if stretch.size >= _OWN_RATE else shared
        clean[low:high] = stretch.time + (np.arange(low, high) - stretch.row) * period
    return clean


def _line(rows: np.ndarray, times: np.ndarray, period: float) -> _Stretch:
    row, time = float(rows.mean()), float(times[0] + (times - times[0]).mean())
    spread = float(((rows - row) ** 2).sum())
    slope = float(((rows - row) * (times - time)).sum() / spread) if spread > 0 else period
    return _Stretch(row, time, slope, len(rows))
