"""Intervals between the spikes of a unit: their statistics, and bursts."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.objects import spike_data
from labtree.spikes.trains import require_kind, unit_coords
from labtree.storage import ragged
from labtree.storage.arguments import from_zero

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def isi_statistics(ds: xr.Dataset, refractory_ms: float = 1.5) -> xr.Dataset:
    r"""Return statistics of the intervals between the spikes of each unit.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    refractory_ms : float
        Intervals shorter than this count as violations.

    Returns
    -------
    Dataset over unit
        ``n_intervals``; ``mean_ms`` and ``median_ms``; ``cv``, the population standard
        deviation over the mean (NaN for one interval); ``cv2``, the mean of
        :math:`2 |I_{k+1} - I_k| / (I_{k+1} + I_k)` [1]_; ``lv``, the mean of
        :math:`3 (I_{k+1} - I_k)^2 / (I_{k+1} + I_k)^2` [2]_; ``violations``, the share of
        intervals shorter than `refractory_ms`. What a unit has too few spikes for is NaN,
        and so are ``cv2`` and ``lv`` where two successive intervals are 0.

    References
    ----------
    .. [1] Holt et al. 1996, doi:10.1152/jn.1996.75.5.1806
    .. [2] Shinomoto et al. 2003, doi:10.1162/089976603322518759

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[0.0, 1.0, 11.0, 21.0], [5.0]])
    >>> isi = labtree.spikes.isi_statistics(ds)
    >>> isi.mean_ms.values, isi.median_ms.values, isi.violations.values.round(2)
    (array([ 7., nan]), array([10., nan]), array([0.33,  nan]))
    """
    require_kind(ds, "isi_statistics", spike_data.KIND)
    refractory_ms = from_zero("refractory_ms", refractory_ms)
    intervals, units = _intervals(ds)
    n_units = ds.sizes["unit"]
    number = np.bincount(units, minlength=n_units)

    def mean(values: Any, of: Ints, count: Ints) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.bincount(of, values, minlength=n_units) / count)

    average = mean(intervals, units, number)
    spread = np.sqrt(mean((intervals - average[units]) ** 2, units, number))
    with np.errstate(invalid="ignore", divide="ignore"):
        cv = np.where(number > 1, spread / average, np.nan)
        same = units[1:] == units[:-1]
        sums = (intervals[1:] + intervals[:-1])[same]
        change = (intervals[1:] - intervals[:-1])[same] / sums
    pairs = units[1:][same]
    n_pairs = np.bincount(pairs, minlength=n_units)
    ms = {"units": "ms"}
    columns: dict[str, tuple[Any, dict[str, Any]]] = {
        "n_intervals": (number, {"long_name": "number of intervals"}),
        "mean_ms": (average, ms | {"long_name": "mean interval"}),
        "median_ms": (
            _medians(intervals, units, number),
            ms | {"long_name": "median interval"},
        ),
        "cv": (cv, {"long_name": "coefficient of variation"}),
        "cv2": (mean(2 * np.abs(change), pairs, n_pairs), {"long_name": "CV2"}),
        "lv": (mean(3 * change**2, pairs, n_pairs), {"long_name": "local variation"}),
        "violations": (
            mean(intervals < refractory_ms, units, number),
            {"long_name": "share of intervals shorter than the refractory period"},
        ),
    }
    return xr.Dataset(
        {name: ("unit", values, attrs) for name, (values, attrs) in columns.items()},
        unit_coords(ds),
        {"refractory_ms": refractory_ms},
    )


def _times_and_units(ds: xr.Dataset) -> tuple[NDArray[Any], Ints]:
    """Return the spikes of all units, as times of which differences are right, and units."""
    times = ds["spike_times"].values
    if times.dtype.kind in "iu":
        times = times.astype(np.int64)
    return times, ragged.row_of_sample(ds["row_size"].values)


def _intervals(ds: xr.Dataset) -> tuple[Floats, Ints]:
    """Return the intervals of all units, unit after unit, and the unit of each."""
    times, units = _times_and_units(ds)
    same = units[1:] == units[:-1]
    return np.diff(times)[same].astype(np.float64), units[1:][same]


def _medians(intervals: Floats, units: Ints, number: Ints) -> Floats:
    ordered = intervals[np.lexsort((intervals, units))]
    first = ragged.row_offsets(number)[:-1]
    out = np.full(number.size, np.nan)
    has = number > 0
    low = first[has] + (number[has] - 1) // 2
    high = first[has] + number[has] // 2
    out[has] = (ordered[low] + ordered[high]) / 2
    return out


def bursts(ds: xr.Dataset, max_isi_ms: float = 100.0, min_spikes: int = 3) -> pd.DataFrame:
    """Find bursts: spikes of a unit that follow each other closely.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    max_isi_ms : float
        Spikes at most this far apart belong to one burst.
    min_spikes : int
        How many spikes a burst has at least; 1 makes bursts of lone spikes too.

    Returns
    -------
    DataFrame
        One row for each burst, unit after unit: ``unit`` (position), ``start_ms`` and
        ``stop_ms`` (its first and last spike), ``n_spikes``.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[0.0, 50.0, 120.0, 900.0], [10.0]])
    >>> labtree.spikes.bursts(ds)
       unit  start_ms  stop_ms  n_spikes
    0     0       0.0    120.0         3
    """
    require_kind(ds, "bursts", spike_data.KIND)
    max_isi_ms = from_zero("max_isi_ms", max_isi_ms)
    if min_spikes < 1:
        raise DataError(f"min_spikes must be at least 1, found {min_spikes!r}")
    times, units = _times_and_units(ds)
    begins = ragged.begins_run(units)
    begins[1:] |= np.diff(times) > max_isi_ms
    first = np.flatnonzero(begins)
    sizes = np.diff(np.append(first, times.size))
    kept = sizes >= min_spikes
    first, sizes = first[kept], sizes[kept]
    return pd.DataFrame(
        {
            "unit": units[first],
            "start_ms": times[first],
            "stop_ms": times[first + sizes - 1],
            "n_spikes": sizes,
        }
    )
