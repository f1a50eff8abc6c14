"""Clocks of two devices that saw the same events, compared and converted.

The rules:

- Pulses are matched by the intervals between them, which survives lost and additional
  pulses and steps of either clock; events that carry a value (barcodes) by the value.
- A clock is a sequence of segments, in each of which ``b`` is a straight line of ``a``. Where
  there is more than one, each holds at least four anchors.
- More than half of the anchors must lie within ``max_residual_s`` of their segment.
- From one segment to the next the clock either bends (the rate drifted: times between
  their anchors are interpolated) or jumps (one clock was set or lost time: where exactly
  is unknown, so a time between the two anchors has no counterpart and becomes NaN).
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from labtree.errors import DataError, RecordingWarning, unknown_name

__all__ = ["convert", "fit", "match_pulses"]

FloatArray = npt.NDArray[np.float64]
# Pulses in a row that agree before a match counts; fewer agree by chance.
_SHORTEST_CHAIN = 4
# A pulse may be missing on one side: intervals over one and two pulses are compared.
_SKIP = 2
_MOST_CANDIDATES = 20_000_000
_REMAINDERS = 2**25 - 39  # a prime
_SMALLEST_SEGMENT = 4


def _seconds(name: str, values: Any) -> FloatArray:
    """Return ``values`` as finite float64 seconds."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise DataError(
            f"{name}: expected a list of numbers in seconds, found {array.dtype} of shape"
            f" {array.shape}"
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        at = int(np.argmin(np.isfinite(array)))
        raise DataError(f"{name}[{at}] is {array[at]}, expected finite seconds")
    return array


def _positive(name: str, value: float) -> float:
    if not (isinstance(value, int | float | np.number) and 0 < value < float("inf")):
        raise DataError(f"{name} is a number above 0, found {value!r}")
    return float(value)


# --- matching -----------------------------------------------------------------------------


def match_pulses(
    times_a: npt.ArrayLike,
    times_b: npt.ArrayLike,
    *,
    values_a: npt.ArrayLike | None = None,
    values_b: npt.ArrayLike | None = None,
    tolerance_s: float = 0.005,
    max_drift: float = 1e-3,
) -> pd.DataFrame:
    """Return which event of one device is which event of the other.

    Parameters
    ----------
    times_a, times_b
        (n,) and (m,) in s, each on its own clock, in the order in which they happened. A
        clock may step back.
    values_a, values_b
        (n,) and (m,), what each event says of itself, such as the value of a barcode.
        Given, events of equal values belong together; a value that was seen twice gives
        every pairing, of which `fit` uses the right one.
    tolerance_s
        How far two intervals may differ.
    max_drift
        How far the clocks' rates may differ, as a share: 1e-3 is 1 ms per second.

    Returns
    -------
    DataFrame
        One row per pair: ``time_a``, ``time_b`` (s), ``index_a``, ``index_b`` (positions in
        the arguments), and ``value`` if there are values.

    Raises
    ------
    DataError
        If nothing matches, or the intervals are so regular that more than one matching is
        as good: pulses every second do not say which is which.

    Examples
    --------
    >>> from labtree import clocks
    >>> pulses = [0.0, 1.1, 1.9, 3.4, 4.1, 5.3]
    >>> pairs = clocks.match_pulses(pulses, [100 + time for time in pulses[1:]])
    >>> pairs.index_a.tolist()
    [1, 2, 3, 4, 5]
    """
    a, b = _seconds("times_a", times_a), _seconds("times_b", times_b)
    tolerance, drift = _positive("tolerance_s", tolerance_s), _positive("max_drift", max_drift)
    if (values_a is None) != (values_b is None):
        raise DataError("values_a and values_b are given both or neither")
    if values_a is not None and values_b is not None:
        return _match_values(a, b, np.asarray(values_a), np.asarray(values_b))
    first, second = _candidates(a, b, tolerance, drift)
    pairs = _chains(a, b, first, second, tolerance, drift)
    if len(pairs) == 0:
        raise DataError(
            f"no {_SHORTEST_CHAIN} of {len(a)} and {len(b)} pulses have the same intervals"
            f" within tolerance_s={tolerance:g}. Are both from the same line? If so, write a"
            " larger tolerance_s=, or values_a= and values_b= where pulses carry numbers"
        )
    i, j = pairs.T
    return pd.DataFrame({"time_a": a[i], "time_b": b[j], "index_a": i, "index_b": j})


def _match_values(
    a: FloatArray, b: FloatArray, values_a: np.ndarray, values_b: np.ndarray
) -> pd.DataFrame:
    for name, times, values in (("a", a, values_a), ("b", b, values_b)):
        if values.shape != times.shape:
            raise DataError(
                f"values_{name} {values.shape} and times_{name} {times.shape} differ"
            )
    left = pd.DataFrame({"time_a": a, "index_a": np.arange(len(a)), "value": values_a})
    right = pd.DataFrame({"time_b": b, "index_b": np.arange(len(b)), "value": values_b})
    pairs = left.merge(right, on="value")
    if len(pairs) == 0:
        raise DataError(
            f"{len(a)} values of one device and {len(b)} of the other have none in common."
            " Is it the right line? Without values_a= and values_b= the intervals are compared"
        )
    found: pd.DataFrame = pairs[["time_a", "time_b", "index_a", "index_b", "value"]]
    return found


def _slack(interval: np.ndarray, tolerance: float, drift: float) -> np.ndarray:
    return np.asarray(tolerance + drift * np.abs(interval))


def _candidates(
    a: FloatArray, b: FloatArray, tolerance: float, drift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of pulses with two intervals beside them that are equally long in both.

    One interval agrees with many by chance. Intervals with none before and none behind
    them that agrees, too, are left out early; what a small table of remainders cannot
    tell apart stays.
    """
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    total = 0
    for p in range(1, _SKIP + 1):
        for q in range(1, _SKIP + 1):
            left, right = a[p:] - a[:-p], b[q:] - b[:-q]
            order = np.argsort(right, kind="stable")
            slack = _slack(left, tolerance, drift)
            low = np.searchsorted(right[order], left - slack, "left")
            high = np.searchsorted(right[order], left + slack, "right")
            count = high - low
            total += int(count.sum())
            if total > _MOST_CANDIDATES:
                raise DataError(
                    f"the intervals of {len(a)} and {len(b)} pulses are too regular to say"
                    " which is which; give values_a and values_b, or fewer pulses"
                )
            i = np.repeat(np.arange(len(left)), count)
            within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            j = order[np.repeat(low, count) + within]
            starts.append(i * len(b) + j)
            ends.append((i + p) * len(b) + j + q)
    begins, stops = np.concatenate(starts), np.concatenate(ends)
    carries_on = _seen(stops, begins) | _seen(begins, stops)
    keys = np.sort(np.concatenate([begins[carries_on], stops[carries_on]]))
    keys = keys[np.diff(keys, prepend=-1) > 0]
    return keys // max(1, len(b)), keys % max(1, len(b))


def _seen(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return which of the wanted keys may be among some: False is certain."""
    table = np.zeros(_REMAINDERS, bool)
    table[keys % _REMAINDERS] = True
    return np.asarray(table[wanted % _REMAINDERS])


def _chains(
    a: FloatArray,
    b: FloatArray,
    i: np.ndarray,
    j: np.ndarray,
    tolerance: float,
    drift: float,
) -> np.ndarray:
    """Return (n, 2) matched positions: the longest chains of candidates that agree.

    A chain goes from one candidate to the next over at most two intervals on each side; a
    step of a clock ends it, and the next chain carries on behind.
    """
    before = _links(a, b, i, j, tolerance, drift)
    deep = _in_long_chains(before)
    # The links among those that stay; a link to one that goes leads to none.
    place = np.append(np.where(deep, np.cumsum(deep) - 1, deep.sum()), deep.sum())
    i, j, before = i[deep], j[deep], place[before[:, deep]]
    alive = np.ones(len(i), bool)
    taken: list[np.ndarray] = []
    while True:
        chain = _longest_chain(i, before, alive)
        if len(chain) < _SHORTEST_CHAIN:
            break
        if not taken:
            _refuse_ambiguous(a, b, i, j, before, chain)
        taken.append(chain)
        first, last = chain[0], chain[-1]
        # What is left lies before this chain on both sides, or behind it on both.
        ahead = (i < i[first]) & (j < j[first])
        behind = (i > i[last]) & (j > j[last])
        alive &= ahead | behind
    if not taken:
        return np.empty((0, 2), np.int64)
    nodes = np.concatenate(taken)
    pairs = np.column_stack([i[nodes], j[nodes]])
    return pairs[np.argsort(pairs[:, 0], kind="stable")]


def _links(
    a: FloatArray,
    b: FloatArray,
    i: np.ndarray,
    j: np.ndarray,
    tolerance: float,
    drift: float,
) -> np.ndarray:
    """Return (4, n) the candidates that may stand before each in a chain; n for none."""
    n = len(i)
    keys = i * len(b) + j
    before = np.full((_SKIP * _SKIP, n), n)
    for row, (p, q) in enumerate(np.ndindex(_SKIP, _SKIP)):
        fits = (i > p) & (j > q)
        wanted = (i - p - 1) * len(b) + j - q - 1
        at = np.minimum(np.searchsorted(keys, wanted), n - 1)
        fits &= keys[at] == wanted
        left = a[i] - a[np.maximum(i - p - 1, 0)]
        right = b[j] - b[np.maximum(j - q - 1, 0)]
        fits &= np.abs(left - right) <= _slack(left, tolerance, drift)
        before[row, fits] = at[fits]
    return before


def _in_long_chains(before: np.ndarray) -> np.ndarray:
    """Return which candidates stand in a chain that is long enough to count."""
    n = before.shape[1]
    ahead, behind = np.ones(n + 1, np.int64), np.ones(n + 1, np.int64)
    for _ in range(_SHORTEST_CHAIN - 1):
        ahead[n] = 0
        ahead[:n] = 1 + ahead[before].max(axis=0, initial=0)
        longer = behind.copy()
        for row in before:  # no two candidates have the same one before them at this distance
            longer[row] = np.maximum(longer[row], 1 + behind[:n])
        behind = longer
    return np.asarray(ahead[:n] + behind[:n] > _SHORTEST_CHAIN)


def _longest_chain(i: np.ndarray, before: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Return the positions of the candidates in the longest chain of those alive, in order."""
    n = len(i)
    if not alive.any():
        return np.empty(0, np.int64)
    length = np.zeros(n + 1, np.int64)
    starts = np.flatnonzero(np.diff(i, prepend=-1))
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), n], strict=True):
        longest = 1 + length[before[:, start:stop]].max(axis=0)
        length[start:stop] = longest * alive[start:stop]
    at = int(length.argmax())
    chain = []
    while at < n:
        chain.append(at)
        options = before[:, at]
        at = int(options[length[options].argmax()]) if length[at] > 1 else n
    return np.array(chain[::-1], np.int64)


def _refuse_ambiguous(
    a: FloatArray,
    b: FloatArray,
    i: np.ndarray,
    j: np.ndarray,
    before: np.ndarray,
    chain: np.ndarray,
) -> None:
    """Refuse pulses for which another matching is nearly as long as the longest."""
    partner = np.full(len(a), -1)
    partner[i[chain]] = j[chain]
    # The same pulses with other partners, and not just the longest chain a pulse further.
    other = (partner[i] >= 0) & (partner[i] != j)
    rival = _longest_chain(i, before, other)
    if len(rival) >= max(_SHORTEST_CHAIN, 0.7 * len(chain)):
        offsets = [float(b[j[nodes[0]]] - a[i[nodes[0]]]) for nodes in (chain, rival)]
        raise DataError(
            f"the pulses match in more than one way ({len(chain)} with a difference of"
            f" {offsets[0]:.6g} s, {len(rival)} with {offsets[1]:.6g} s): their intervals are"
            " too regular; give values_a and values_b, or cut both to the same stretch"
        )


# --- fitting ------------------------------------------------------------------------------


class _Line(NamedTuple):
    """``b = b_ref + rate * (a - a_ref)`` between two anchors."""

    a_ref: float
    b_ref: float
    rate: float

    def __call__(self, a: Any) -> Any:
        return self.b_ref + self.rate * (a - self.a_ref)


def fit(
    pairs: pd.DataFrame,
    *,
    max_residual_s: float = 0.005,
    max_drift: float = 1e-3,
    min_jump_s: float | None = None,
) -> xr.Dataset:
    """Return the clock that leads from one device's time to the other's.

    Parameters
    ----------
    pairs
        Anchors: columns ``time_a`` and ``time_b`` in s, and ``value`` if there is one, as
        `match_pulses` gives them.
    max_residual_s
        An anchor that lies farther from every segment is not used.
    max_drift
        How far the rate may be from 1.
    min_jump_s
        A difference between two segments is a jump from here on, and a bend below; by
        default 12 times the anchors' jitter, and at least 0.5 ms.

    Returns
    -------
    Dataset
        Along ``segment``: ``a_ref``, ``b_ref`` (s) and ``rate``, with
        ``b = b_ref + rate * (a - a_ref)``; ``a_first``, ``a_last`` (s), its first and last
        anchor; ``jump_s``, how far ``b`` jumps before it (0 where the clock bends, NaN for
        the first). Along ``anchor``, in order of ``time_a``: ``time_a``, ``time_b``,
        ``residual_s`` (b minus the line, NaN if unused), ``segment_of_anchor`` (-1 if
        unused) and ``value``. Attributes: ``n_used``, ``n_jumps``, ``rms_s`` and
        ``largest_residual_s``. A workspace stores it.

    Raises
    ------
    DataError
        If there are fewer than two anchors, or no more than half of them lie on a clock.

    Warns
    -----
    RecordingWarning
        If the clock jumps; the message says where and how far.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from labtree import clocks
    >>> times = np.arange(0, 100, 1.7)
    >>> clock = clocks.fit(pd.DataFrame({"time_a": times, "time_b": 50 + 1.00001 * times}))
    >>> clock.sizes["segment"], round(clock.rate.item(), 6)
    (1, 1.00001)
    """
    missing = {"time_a", "time_b"} - set(pairs.columns)
    if missing:
        raise unknown_name("column", sorted(missing)[0], pairs.columns, DataError)
    tolerance, drift = (
        _positive("max_residual_s", max_residual_s),
        _positive("max_drift", max_drift),
    )
    ordered = pairs.sort_values("time_a", kind="stable").reset_index(drop=True)
    a, b = _seconds("time_a", ordered["time_a"]), _seconds("time_b", ordered["time_b"])
    value = pd.factorize(ordered["value"])[0] if "value" in ordered else np.arange(len(a))
    n_events = len(np.unique(value))
    if n_events < 2:
        raise DataError(
            f"a clock needs two anchors, found {n_events}; write pairs of more pulses, out of a"
            " longer stretch of both recordings"
        )
    jitter = _jitter(a, b)
    close = min(tolerance, max(6 * jitter, 2e-4))
    good = np.flatnonzero(_good_anchors(a, b, close, drift))
    lines, member = _fit_segments(a, b, good, tolerance, drift, jitter)
    used = member >= 0
    carried = len(np.unique(value[used]))
    if carried < 2 or 2 * carried <= n_events:
        raise DataError(
            f"only {carried} of {n_events} anchors lie within {tolerance:g} s of one clock;"
            " expected more than half (are both from the same line?)"
        )
    residual = np.full(len(a), np.nan)
    for number, line in enumerate(lines):
        mine = member == number
        residual[mine] = b[mine] - line(a[mine])
    smallest = max(12 * jitter, 5e-4) if min_jump_s is None else min_jump_s
    clock = _clock(a, b, lines, member, residual, smallest)
    if "value" in ordered:
        clock["value"] = ("anchor", ordered["value"].to_numpy())
    _tell_jumps(clock)
    return clock


def _jitter(a: FloatArray, b: FloatArray) -> float:
    """Return the standard deviation of one anchor's error, whatever jumps and bad ones."""
    if len(a) < 4:
        return 0.0
    difference = (b - b[0]) - (a - a[0])
    bend = difference[2:] - 2 * difference[1:-1] + difference[:-2]
    return float(1.4826 * np.median(np.abs(bend)) / np.sqrt(6))


def _good_anchors(a: FloatArray, b: FloatArray, close: float, drift: float) -> np.ndarray:
    """Return which anchors lie on a line with others around them."""
    n = len(a)
    label = np.full(n, -1)
    several = n >= 2 * _SMALLEST_SEGMENT
    least = _SMALLEST_SEGMENT if several else 2
    for number in range(n if several else 1):
        free = np.flatnonzero(label < 0)
        inside = _consensus(a[free], b[free], close, drift)
        if inside.sum() < least:
            break
        label[free[inside]] = number
    # An anchor that lies on a line by chance stands alone among its neighbors.
    labeled = np.flatnonzero(label >= 0)
    good = label >= 0
    for at, anchor in enumerate(labeled):
        around = label[labeled[max(0, at - 3) : at + 4]]
        good[anchor] = (around == label[anchor]).sum() >= min(3, len(around))
    return good


def _consensus(a: FloatArray, b: FloatArray, close: float, drift: float) -> np.ndarray:
    """Return which anchors lie near the line through two of them that most lie near."""
    n = len(a)
    random = np.random.default_rng(0)
    if n * (n - 1) // 2 <= 4000:
        i, j = np.triu_indices(n, 1)
    else:
        # Near and far partners: a far one gives the better rate, a near one the likelier.
        i = random.integers(0, n, 4000)
        j = i + random.choice([1, 2, 5, 20, 100, max(1, n // 4)], 4000)
        i, j = i[j < n], j[j < n]
    looked = np.arange(n) if n <= 2000 else np.sort(random.choice(n, 2000, replace=False))
    x, y = a[looked], b[looked]
    step = a[j] - a[i]
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = (b[j] - b[i]) / step
    good = (step > 0) & (np.abs(rate - 1) <= drift + 2 * close / np.where(step > 0, step, 1))
    i, rate = i[good], np.clip(rate[good], 1 - drift, 1 + drift)
    best, score = np.zeros(n, bool), (0, 0.0)
    for first, slope in zip(i, rate, strict=True):
        away = np.abs(y - b[first] - slope * (x - a[first]))
        inside = away <= close
        found = (int(inside.sum()), -float(away[inside].sum()))
        if found > score:
            score = found
            best = np.abs(b - b[first] - slope * (a - a[first])) <= close
    for _ in range(5):
        if best.sum() < 2:
            break
        line = _least_squares(a[best], b[best], drift)
        nearer = np.abs(b - line(a)) <= close
        if nearer.sum() < best.sum() or (nearer == best).all():
            break
        best = nearer
    return best


def _least_squares(a: FloatArray, b: FloatArray, drift: float) -> _Line:
    a_ref, b_ref = float(a.mean()), float(b.mean())
    spread = float(((a - a_ref) ** 2).sum())
    rate = float(((a - a_ref) * (b - b_ref)).sum() / spread) if spread > 0 else 1.0
    return _Line(a_ref, b_ref, float(np.clip(rate, 1 - drift, 1 + drift)))


def _fit_segments(
    a: FloatArray,
    b: FloatArray,
    good: np.ndarray,
    tolerance: float,
    drift: float,
    jitter: float,
) -> tuple[list[_Line], np.ndarray]:
    """Return the line of every segment, and the segment of every anchor (-1 for none)."""
    todo = [good] if len(good) else []
    parts: list[np.ndarray] = []
    while todo:
        part = todo.pop(0)
        split = _hidden_jump(a[part], b[part], jitter)
        if split is not None:
            todo = [part[:split], part[split:], *todo]
        elif parts and not _is_two(
            a[joined := np.concatenate([parts[-1], part])], b[joined], len(parts[-1]), jitter
        ):
            parts[-1] = joined
        else:
            parts.append(part)
    lines: list[_Line] = []
    found = np.full(len(a), -1)
    for part in parts:
        line = _least_squares(a[part], b[part], drift)
        near = part[np.abs(b[part] - line(a[part])) <= tolerance]
        if len(near) >= 2:
            found[near] = len(lines)
            lines.append(line)
    return lines, found


def _hidden_jump(a: FloatArray, b: FloatArray, jitter: float) -> int | None:
    """Return where one line is better told as two, or None.

    A small jump tilts the one line that is laid over it.
    """
    least = _SMALLEST_SEGMENT + 1
    if len(a) < 2 * least + 2:
        return None
    x = a - a.mean()
    y = (b - b.mean()) - x
    cuts = np.arange(least, len(a) - least + 1)
    both = _squares(x, y)[cuts - 1] + _squares(x[::-1], y[::-1])[::-1][cuts]
    cut = int(cuts[both.argmin()])
    return cut if _is_two(a, b, cut, jitter) else None


def _is_two(a: FloatArray, b: FloatArray, cut: int, jitter: float) -> bool:
    """Return whether two lines explain what one cannot, by far more than jitter lets them."""
    x = a - a.mean()
    y = (b - b.mean()) - x
    one = float(_squares(x, y)[-1])
    two = float(_squares(x[:cut], y[:cut])[-1] + _squares(x[cut:], y[cut:])[-1])
    noise = max(two / max(1, len(a) - 4), jitter**2 / 4, 1e-16)
    return bool((one - two) / noise > 60 + 6 * np.log(len(a)))


def _squares(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the squared error of a line through the first 1, 2, ... points."""
    count = np.arange(1, len(x) + 1)
    sx, sy, sxx = np.cumsum(x), np.cumsum(y), np.cumsum(x * x)
    sxy, syy = np.cumsum(x * y), np.cumsum(y * y)
    xx, xy, yy = sxx - sx * sx / count, sxy - sx * sy / count, syy - sy * sy / count
    with np.errstate(divide="ignore", invalid="ignore"):
        explained = np.where(xx > 0, xy * xy / xx, 0.0)
    return np.asarray(np.maximum(yy - explained, 0))


def _clock(
    a: FloatArray,
    b: FloatArray,
    lines: list[_Line],
    member: np.ndarray,
    residual: FloatArray,
    smallest_jump: float,
) -> xr.Dataset:
    ends = [np.flatnonzero(member == number)[[0, -1]] for number in range(len(lines))]
    first, last = a[[end[0] for end in ends]], a[[end[1] for end in ends]]
    jumps = [np.nan]
    for number in range(1, len(lines)):
        middle = (last[number - 1] + first[number]) / 2
        jump = float(lines[number](middle) - lines[number - 1](middle))
        jumps.append(jump if abs(jump) >= smallest_jump else 0.0)
    used = residual[member >= 0]
    seconds = {"units": "s"}
    return xr.Dataset(
        {
            "a_ref": ("segment", [line.a_ref for line in lines], seconds),
            "b_ref": ("segment", [line.b_ref for line in lines], seconds),
            "rate": ("segment", [line.rate for line in lines]),
            "a_first": ("segment", first, seconds),
            "a_last": ("segment", last, seconds),
            "jump_s": ("segment", jumps, seconds),
            "time_a": ("anchor", a, seconds),
            "time_b": ("anchor", b, seconds),
            "residual_s": ("anchor", residual, seconds),
            "segment_of_anchor": ("anchor", member.astype(np.int64)),
        },
        attrs={
            "n_used": len(used),
            "n_jumps": int(np.count_nonzero(np.nan_to_num(jumps))),
            "rms_s": float(np.sqrt(np.mean(used**2))),
            "largest_residual_s": float(np.abs(used).max()),
        },
    )


def _tell_jumps(clock: xr.Dataset) -> None:
    jumps = np.nan_to_num(clock["jump_s"].values)
    where = np.flatnonzero(jumps)
    if len(where) == 0:
        return
    told = ", ".join(
        f"by {jumps[at]:+.6g} s between {clock['a_last'].values[at - 1]:.9g} and"
        f" {clock['a_first'].values[at]:.9g} s"
        for at in where[:5]
    )
    more = f" and {len(where) - 5} more" if len(where) > 5 else ""
    warnings.warn(f"the clock jumps {told}{more}", RecordingWarning, stacklevel=3)


# --- converting ---------------------------------------------------------------------------


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
    # The first anchor behind a gap belongs to what follows it.
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
        was shown twice or never. Before the first and behind the last anchor the outer
        segments go on.

    Raises
    ------
    DataError
        If spikes have no counterpart, or would change their order.

    Warns
    -----
    RecordingWarning
        If finite times became NaN.

    Examples
    --------
    >>> import pandas as pd
    >>> from labtree import clocks
    >>> clock = clocks.fit(pd.DataFrame({"time_a": [0.0, 10.0], "time_b": [5.0, 15.0]}))
    >>> float(clocks.convert(clock, 2.5)), float(clocks.convert(clock, 7.5, inverse=True))
    (7.5, 2.5)
    """
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
            warnings.warn(
                f"{lost} of {array.size} times lie where the clock jumps, they become NaN",
                RecordingWarning,
                stacklevel=4,
            )
        return found

    if isinstance(times, pd.DataFrame):
        names = (
            ["timestamp"]
            if columns is None
            else [columns]
            if isinstance(columns, str)
            else columns
        )
        for name in names:
            if name not in times.columns:
                raise unknown_name("column", name, times.columns, DataError)
        converted = {
            name: lead_all(times[name].to_numpy(np.float64, na_value=np.nan)) for name in names
        }
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
    found = lead_all(times)
    return found if found.ndim else found[()]


def _convert_spikes(spikes: xr.Dataset, lead_all: Any) -> xr.Dataset:
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
