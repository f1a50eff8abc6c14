"""Which pulse of one device is which pulse of another."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labtree.errors import DataError
from labtree.storage import ragged
from labtree.storage.arguments import positive

FloatArray = npt.NDArray[np.float64]
# Pulses in a row that agree before a match counts; fewer agree by chance.
_SHORTEST_CHAIN = 4
# A matching of this share of the longest makes it doubtful.
_RIVAL = 0.5
# A share of all partners that is too many for one pulse.
_CROWD = 0.1
# A pulse may be missing on one side: intervals over one and two pulses are compared.
_SKIP = 2
_MOST_CANDIDATES = 20_000_000
_REMAINDERS = 2**25 - 39  # a prime


def finite_seconds(name: str, values: Any) -> FloatArray:
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


def match_pulses(
    times_a: npt.ArrayLike,
    times_b: npt.ArrayLike,
    *,
    values_a: npt.ArrayLike | None = None,
    values_b: npt.ArrayLike | None = None,
    tolerance_s: float = 0.005,
    max_drift: float = 1e-3,
) -> pd.DataFrame:
    """Match the events of one device with those of another.

    Parameters
    ----------
    times_a, times_b
        (n,) and (m,) in s, each on its own clock, in the order in which they happened. A
        clock may step back.
    values_a, values_b
        (n,) and (m,), the value of each event, such as that of a barcode. If given, events
        of equal values are matched; a value that occurs twice gives every pairing, of which
        `fit` uses the right one.
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
        If nothing matches, or the intervals are so regular that several matchings are
        equally good, as for a pulse every second.

    Examples
    --------
    >>> from labtree import clocks
    >>> pulses = [0.0, 1.1, 1.9, 3.4, 4.1, 5.3]
    >>> pairs = clocks.match_pulses(pulses, [100 + time for time in pulses[1:]])
    >>> pairs.index_a.tolist()
    [1, 2, 3, 4, 5]
    """
    a, b = finite_seconds("times_a", times_a), finite_seconds("times_b", times_b)
    tolerance, drift = positive("tolerance_s", tolerance_s), positive("max_drift", max_drift)
    if (values_a is None) != (values_b is None):
        lacking = "values_a" if values_a is None else "values_b"
        raise DataError(f"values_a and values_b belong together; {lacking} is missing")
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
            " Is it the right line? match_pulses without values_a= and values_b= compares the"
            " intervals"
        )
    found: pd.DataFrame = pairs[["time_a", "time_b", "index_a", "index_b", "value"]]
    return found


def _slack(interval: np.ndarray, tolerance: float, drift: float) -> np.ndarray:
    return np.asarray(tolerance + drift * np.abs(interval))


def _candidates(
    a: FloatArray, b: FloatArray, tolerance: float, drift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of pulses with two intervals beside them that are equally long in both.

    One interval agrees with many by chance. Intervals with none before and none after
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
            j = order[ragged.positions_of_ranges(low, count)]
            starts.append(i * len(b) + j)
            ends.append((i + p) * len(b) + j + q)
    begins, stops = np.concatenate(starts), np.concatenate(ends)
    carries_on = _seen(stops, begins) | _seen(begins, stops)
    keys = np.unique(np.concatenate([begins[carries_on], stops[carries_on]]))
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
    step of a clock ends it, and the next chain carries on after.
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
        rival = _rival(len(a), i, j, before, chain, alive)
        doubtful = len(rival) >= max(_SHORTEST_CHAIN, _RIVAL * len(chain))
        # Pulses that fit in many places, of which none explains most of them.
        others = np.bincount(i)[i[chain]] - 1
        if 2 * len(chain) < min(len(a), len(b)) and len(rival) >= _SHORTEST_CHAIN:
            doubtful |= bool(np.median(others) > _CROWD * len(b))
        if doubtful:
            if not taken:
                _refuse_ambiguous(a, b, i, j, chain, rival)
            # Behind the first chain such pulses are left out, with all of their partners.
            out = (i >= i[chain[0]]) & (i <= i[chain[-1]])
            out |= (j >= j[chain[0]]) & (j <= j[chain[-1]])
            alive &= ~out
            continue
        taken.append(chain)
        first, last = chain[0], chain[-1]
        # What is left lies before this chain on both sides, or after it on both.
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
    starts = np.flatnonzero(ragged.begins_run(i))
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


def _rival(
    n: int,
    i: np.ndarray,
    j: np.ndarray,
    before: np.ndarray,
    chain: np.ndarray,
    alive: np.ndarray,
) -> np.ndarray:
    """Return the longest chain of the same pulses with other partners."""
    partner = np.full(n, -1)
    partner[i[chain]] = j[chain]
    return _longest_chain(i, before, alive & (partner[i] >= 0) & (partner[i] != j))


def _refuse_ambiguous(
    a: FloatArray,
    b: FloatArray,
    i: np.ndarray,
    j: np.ndarray,
    chain: np.ndarray,
    rival: np.ndarray,
) -> None:
    """Refuse pulses for which another matching is long beside the longest."""
    offsets = [float(b[j[nodes[0]]] - a[i[nodes[0]]]) for nodes in (chain, rival)]
    raise DataError(
        f"the pulses match in more than one way ({len(chain)} with a difference of"
        f" {offsets[0]:.6g} s, {len(rival)} with {offsets[1]:.6g} s): their intervals are"
        " too regular; give values_a and values_b, or cut both to the same stretch"
    )
