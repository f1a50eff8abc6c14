"""The session's clock against an ephys clock, by barcodes on a TTL line.

A barcode lasts 1.355 s: HIGH, LOW, HIGH of 10 ms each, 37 bits of 35 ms, the least
significant first (HIGH is 1), then LOW, HIGH, LOW of 10 ms each. Its value is the wall
time in whole milliseconds modulo 2 to the 37th.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labtree.errors import TrialTableError

__all__ = [
    "BARCODE_BITS",
    "BIT_S",
    "PULSE_S",
    "Alignment",
    "barcode_durations",
    "decode_barcodes",
    "fit_clock",
]

BARCODE_BITS = 37
BIT_S = 0.035
PULSE_S = 0.010
_DATA_S = BARCODE_BITS * BIT_S
_LENGTH_S = _DATA_S + 6 * PULSE_S
FloatArray = npt.NDArray[np.float64]


def barcode_durations(value: int) -> list[float]:
    """Give the durations, in s, of the 43 states that send a barcode."""
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
        ``time`` (s, the first rising edge) and ``value`` (int), a row a barcode. What has a
        barcode's first pulses, and then an edge where none can be or another ending, is
        left out: a wrong value would be worse than none.

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
        raise TrialTableError(f"times {t.shape} and states {high.shape} are not one a edge")
    order = np.argsort(t, kind="stable")
    t, high = t[order], high[order]
    # Repeated reports of a level that has not changed are no edges.
    changed = np.concatenate([[True], high[1:] != high[:-1]])[: len(t)]
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
        found.append((float(t0), int(sum(1 << int(b) for b in bits[levels[:-3]]))))
    return pd.DataFrame(
        {
            "time": np.array([time for time, _ in found], np.float64),
            "value": np.array([value for _, value in found], np.int64),
        }
    )


@dataclass(frozen=True)
class Alignment:
    """A straight line between two clocks, and what it rests on.

    Attributes
    ----------
    slope, intercept : float
        ``ephys = slope * session + intercept``, in seconds.
    anchors : pandas.DataFrame
        A row a matched barcode: ``value``, ``session_time``, ``ephys_time``,
        ``residual_s`` (ephys minus the line) and ``used``.
    """

    slope: float
    intercept: float
    anchors: pd.DataFrame

    @property
    def rms_s(self) -> float:
        """Root mean square of the residuals of the anchors that were used, s."""
        used = self.anchors["residual_s"].to_numpy()[self.anchors["used"].to_numpy()]
        return float(np.sqrt(np.mean(used**2)))

    def to_ephys(self, session_time: Any) -> Any:
        """Give ephys times, s, for session times, s."""
        return session_time * self.slope + self.intercept

    def to_session(self, ephys_time: Any) -> Any:
        """Give session times, s, for ephys times, s."""
        return (ephys_time - self.intercept) / self.slope


def fit_clock(
    session: pd.DataFrame,
    ephys: pd.DataFrame,
    *,
    max_residual_s: float = 0.005,
    max_drift: float = 1e-3,
) -> Alignment:
    """Match barcodes by value and fit a line that wrong anchors do not move.

    Parameters
    ----------
    session, ephys : pandas.DataFrame
        Columns ``time`` (s) and ``value``, a row a barcode, in each clock.
    max_residual_s : float
        An anchor that lies further from the line is not used.
    max_drift : float
        How far the slope may be from 1.

    Returns
    -------
    Alignment
        Least squares through the anchors on which the most agree; every anchor's
        residual is told, used or not.

    Notes
    -----
    The line to start from goes through the two anchors that the most others agree
    with; it holds as long as more than half of the anchors are right.

    Raises
    ------
    TrialTableError
        Fewer than two anchors, or no line that more than half of them agree on.
    """
    pairs = session.merge(ephys, on="value", suffixes=("_session", "_ephys"))
    # A value that was seen twice gives every pairing; only those on the line are used.
    x = pairs["time_session"].to_numpy(np.float64)
    y = pairs["time_ephys"].to_numpy(np.float64)
    n_values = int(pairs["value"].nunique())
    told = (
        f"{len(session)} barcodes in the session, {len(ephys)} on the line, "
        f"{n_values} values in common"
    )
    if n_values < 2:
        raise TrialTableError(f"{told}; a clock needs two (is it the right line?)")
    slope, intercept, inside = _consensus(x, y, max_residual_s, max_drift)
    n_agreeing = int(pairs["value"][inside].nunique())
    if n_agreeing < 2 or n_agreeing * 2 <= n_values:
        raise TrialTableError(
            f"{told}, of which only {n_agreeing} lie within {max_residual_s} s of one clock; "
            "expected more than half"
        )
    for _ in range(5):
        middle = x[inside].mean()
        slope, height = np.polyfit(x[inside] - middle, y[inside], 1)
        intercept = height - slope * middle
        closer = np.abs(y - slope * x - intercept) <= max_residual_s
        if closer.sum() < 2 or (closer == inside).all():
            break
        inside = closer
    anchors = pd.DataFrame(
        {
            "value": pairs["value"].to_numpy(),
            "session_time": x,
            "ephys_time": y,
            "residual_s": y - slope * x - intercept,
            "used": inside,
        }
    )
    return Alignment(float(slope), float(intercept), anchors)


def _consensus(
    x: FloatArray, y: FloatArray, max_residual_s: float, max_drift: float
) -> tuple[float, float, npt.NDArray[np.bool_]]:
    """Give the line through two points that has the most points near it."""
    i, j = np.triu_indices(len(x), 1)
    if len(i) > 20_000:
        # Enough pairs to meet many right ones; the same ones at every call.
        chosen = np.random.default_rng(0).choice(len(i), 20_000, replace=False)
        i, j = i[chosen], j[chosen]
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (y[j] - y[i]) / (x[j] - x[i])
    near = np.abs(slopes - 1) <= max_drift
    i, slopes = i[near], slopes[near]
    best, counted = (1.0, 0.0, np.zeros(len(x), bool)), (0, 0.0)
    for first, slope in zip(i, slopes, strict=True):
        intercept = y[first] - slope * x[first]
        residuals = np.abs(y - slope * x - intercept)
        inside = residuals <= max_residual_s
        score = (int(inside.sum()), -float(residuals[inside].sum()))
        if score > counted:
            best, counted = (float(slope), float(intercept), inside), score
    return best
