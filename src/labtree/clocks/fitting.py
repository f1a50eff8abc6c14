"""A clock fitted to anchors, as straight pieces with the jumps between them."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from labtree.clocks.matching import FloatArray, finite_seconds
from labtree.errors import DataError, RecordingWarning, unknown_name, warn
from labtree.storage.arguments import positive

_SMALLEST_SEGMENT = 4


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
    """Fit the clock that converts times of one device to times of another.

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
        The least difference between two segments that is a jump and not a bend; by default
        12 times the anchors' jitter, and at least 0.5 ms.

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
    tolerance = positive("max_residual_s", max_residual_s)
    drift = positive("max_drift", max_drift)
    ordered = pairs.sort_values("time_a", kind="stable").reset_index(drop=True)
    a = finite_seconds("time_a", ordered["time_a"])
    b = finite_seconds("time_b", ordered["time_b"])
    value = pd.factorize(ordered["value"])[0] if "value" in ordered else np.arange(len(a))
    n_events = len(np.unique(value))
    if n_events < 2:
        raise DataError(
            f"a clock needs two anchors, found {n_events}; write pairs of more pulses, out of a"
            " longer stretch of both recordings"
        )
    jitter = _jitter(a, b) if len(a) > 3 else 0.0
    close = min(tolerance, max(6 * jitter, 2e-4))
    good = np.flatnonzero(_good_anchors(a, b, close, drift))
    # Wrong pairs, of a value that was seen twice, must not hide a jump.
    jitter = min(jitter, _jitter(a[good], b[good]))
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
    _warn_of_jumps(clock)
    return clock


def _jitter(a: FloatArray, b: FloatArray) -> float:
    """Return the standard deviation of one anchor's error, whatever jumps and bad ones."""
    if len(a) < 4:
        return float("inf")
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
    """Return where two lines fit much better than one, or None.

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


def _warn_of_jumps(clock: xr.Dataset) -> None:
    jumps = np.nan_to_num(clock["jump_s"].values)
    where = np.flatnonzero(jumps)
    if len(where) == 0:
        return
    shown = ", ".join(
        f"by {jumps[at]:+.6g} s between {clock['a_last'].values[at - 1]:.9g} and"
        f" {clock['a_first'].values[at]:.9g} s"
        for at in where[:5]
    )
    more = f" and {len(where) - 5} more" if len(where) > 5 else ""
    warn(f"the clock jumps {shown}{more}", RecordingWarning)
