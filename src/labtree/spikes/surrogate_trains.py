"""Surrogate spike trains: what a statistic would be if units did not fire together."""

from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from labtree.errors import DataError
from labtree.objects import spike_data
from labtree.spikes.trains import recording_span, require_kind
from labtree.storage import ragged
from labtree.storage.arguments import one_of

Method = Literal["shift", "jitter", "isi_shuffle"]


def surrogates(
    ds: xr.Dataset,
    method: Method,
    *,
    seed: int | np.random.Generator,
    window_ms: float | None = None,
) -> xr.Dataset:
    """Return spike trains in which the units no longer fire together.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    method : {"shift", "jitter", "isi_shuffle"}
        "shift" rotates each train within the recording by a random time, which keeps its
        intervals but one; "jitter" moves each spike by up to `window_ms` either way, and
        those that would leave the recording are reflected at its end; "isi_shuffle" puts
        the intervals of each train in random order, between its first and last spike.
    seed : int, or numpy.random.Generator
        The same seed gives the same trains.
    window_ms : float, optional
        For "jitter", in ms.

    Returns
    -------
    Dataset
        Of the kind ``spike_data``, with the same units, counts and length. Without raw
        data.

    Raises
    ------
    DataError
        A ValueError, if the method is not known, or `window_ms` is missing or of no use.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0, 2.0, 4.0, 8.0]], length=10)
    >>> shuffled = labtree.spikes.surrogates(ds, "isi_shuffle", seed=0)
    >>> sorted(np.diff(shuffled.spike_times.values).tolist())
    [1.0, 2.0, 4.0]
    """
    require_kind(ds, "surrogates", spike_data.KIND)
    one_of("method", method, get_args(Method))
    if method == "jitter" and window_ms is None:
        raise DataError("the method 'jitter' needs window_ms=, how far a spike may move in ms")
    if method != "jitter" and window_ms is not None:
        raise DataError(f"window_ms= is for the method 'jitter' only, not for {method!r}")
    random = np.random.default_rng(seed)
    row_size = ds["row_size"].values
    times = ds["spike_times"].values.astype(np.float64)
    start, stop = recording_span(ds)
    length = float(ds.attrs["length"])
    units = ragged.row_of_sample(row_size)
    if method == "shift":
        if length > 0:
            shift = random.uniform(0, length, row_size.size)
            times = start + np.mod(times - start + shift[units], length)
        times = ragged.sort_rows(np.clip(times, start, stop), row_size)
    elif method == "jitter":
        if window_ms is None or not (np.isfinite(window_ms) and 0 < window_ms <= length):
            raise DataError(
                f"window_ms must be above 0 and at most the recording's {length} ms, found "
                f"{window_ms!r}"
            )
        times = times + random.uniform(-window_ms, window_ms, times.size)
        times = np.where(times < start, 2 * start - times, times)
        times = np.where(times > stop, 2 * stop - times, times)
        times = ragged.sort_rows(np.clip(times, start, stop), row_size)
    else:
        times = _shuffled(times, units, row_size, random)
    attrs: dict[str, Any] = {
        "method": method,
        "seed": int(seed) if isinstance(seed, int | np.integer) else "generator",
    }
    if window_ms is not None:
        attrs["window_ms"] = float(window_ms)
    raw = [name for name in ("raw_data", "raw_time") if name in ds.variables]
    made = ds.drop_vars(raw).assign(spike_times=ds["spike_times"].variable.copy(data=times))
    made.attrs["surrogate"] = attrs
    spike_data.validate(made)
    return made


def _shuffled(
    times: np.ndarray, units: np.ndarray, row_size: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Return trains with their intervals in random order, each from its first spike on."""
    if times.size < 2:
        return times
    inner = units[1:] == units[:-1]
    intervals = np.diff(times)[inner]
    order = np.lexsort((random.random(intervals.size), units[1:][inner]))
    offsets = ragged.row_offsets(row_size)
    filled = np.flatnonzero(row_size)
    out = times.copy()
    at = 0
    for unit in filled.tolist():
        first, last = int(offsets[unit]), int(offsets[unit + 1])
        own = intervals[order[at : at + last - first - 1]]
        at += last - first - 1
        out[first + 1 : last] = np.minimum(times[first] + np.cumsum(own), times[last - 1])
    return out
