"""Relations between spike trains: spike time tiling and correlograms of all pairs."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from labtree.errors import DataError
from labtree.objects import spike_data
from labtree.objects.pairwise import pairwise_matrix
from labtree.objects.unit_attributes import untouched_variable
from labtree.spikes.counts import bin_numbers
from labtree.spikes.trains import (
    MergedTrains,
    first_after,
    merged_trains,
    recording_span,
    require_kind,
    scalar_unit_coords,
)
from labtree.storage import ragged
from labtree.storage.arguments import from_zero, positive
from labtree.storage.missing import ANCILLARY, mark_missing, masks_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Pairs of spikes that are held in memory at a time.
_BLOCK = 1 << 20
#: Seconds after which a progress bar is shown.
_PATIENCE_S = 2.0


def sttc(ds: xr.Dataset, delta_ms: float = 20.0) -> xr.Dataset:
    r"""Return the spike time tiling coefficient of every pair of units.

    With :math:`P_A` the share of the spikes of A that have a spike of B within
    :math:`\pm\Delta t`, and :math:`T_A` the share of the recording that lies within
    :math:`\pm\Delta t` of a spike of A, it is

    .. math:: \frac12\left(\frac{P_A - T_B}{1 - P_A T_B}
        + \frac{P_B - T_A}{1 - P_B T_A}\right)

    [1]_, where 0/0 is 1. It takes time with the number of spikes that are close to each
    other, and 8 bytes for each pair of units.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    delta_ms : float
        :math:`\Delta t` in ms; a spike at exactly this distance counts.

    Returns
    -------
    Dataset
        Of the kind ``pairwise_matrix``: ``matrix(unit_i, unit_j)``, 1 on the diagonal, NaN
        in the rows and columns of silent units.

    References
    ----------
    .. [1] Cutts and Eglen 2014, doi:10.1523/JNEUROSCI.2767-14.2014

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[100.0, 500.0], [105.0, 505.0], []], length=1000)
    >>> labtree.spikes.sttc(ds, delta_ms=10).matrix.values
    array([[ 1.,  1., nan],
           [ 1.,  1., nan],
           [nan, nan, nan]])
    """
    require_kind(ds, "sttc", spike_data.KIND)
    delta = from_zero("delta_ms", delta_ms)
    row_size = ds["row_size"].values
    n_units = row_size.size
    merged = merged_trains(ds)
    near = np.empty((n_units, n_units))
    tiled = np.empty(n_units)
    start, stop = recording_span(ds)
    trains = ragged.split_rows(np.asarray(ds["spike_times"].values, np.float64), row_size)
    for unit, train in enumerate(_shown(trains, "spike time tiling")):
        near[:, unit] = _near_counts(merged, train, delta)
        tiled[unit] = _tiled_share(train, delta, start, stop)
    with np.errstate(invalid="ignore", divide="ignore"):
        near /= row_size[:, None]
        product = near * tiled[None, :]
        one_way = np.where(product == 1, 1.0, (near - tiled[None, :]) / (1 - product))
    values = (one_way + one_way.T) / 2
    silent = row_size == 0
    values[np.arange(n_units), np.arange(n_units)] = 1.0
    values[silent] = values[:, silent] = np.nan
    matrix = pairwise_matrix(values, metadata={"method": "STTC", "delta_ms": delta})
    matrix["matrix"].attrs["long_name"] = "spike time tiling coefficient"
    return matrix.assign_coords(_both_sides(ds))


def _shown(items: Any, what: str) -> Iterator[Any]:
    return iter(tqdm(items, what, leave=False, disable=None, delay=_PATIENCE_S))


def _near_counts(merged: MergedTrains, train: Floats, delta: float) -> Ints:
    """Return how many spikes of each unit lie within a distance of a train's spikes."""
    if not train.size:
        return np.zeros(merged.n_units, np.int64)
    first = first_after(merged.times, train, -delta, inclusive=True)
    last = first_after(merged.times, train, delta, inclusive=False)
    # Ranges rise; what the one before holds already is not counted again.
    first[1:] = np.maximum(first[1:], last[:-1])
    sizes = np.maximum(last - first, 0)
    places = ragged.positions_of_ranges(first, sizes)
    return np.bincount(merged.units[places], minlength=merged.n_units)


def _tiled_share(train: Floats, delta: float, start: float, stop: float) -> float:
    """Return the share of the recording within a distance of a train's spikes."""
    if not train.size:
        return 0.0
    if stop <= start:
        return 1.0
    low = np.clip(train - delta, start, stop)
    high = np.clip(train + delta, start, stop)
    overlap = np.clip(high[:-1] - low[1:], 0, None)
    return float(min(1.0, ((high - low).sum() - overlap.sum()) / (stop - start)))


def correlograms(ds: xr.Dataset, bin_ms: float = 1.0, window_ms: float = 50.0) -> xr.DataArray:
    """Count the time differences between the spikes of every pair of units.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    bin_ms : float
        Width of a bin in ms.
    window_ms : float
        How far the differences reach on both sides, in ms: whole bins.

    Returns
    -------
    DataArray of shape (unit_i, unit_j, lag)
        How many pairs of spikes have ``t_j - t_i`` in a bin; a bin holds its left edge and
        not its right one, only the last holds both, as in :func:`numpy.histogram`. A spike
        does not pair with itself. ``lag`` is the center of a bin in ms. It takes 4 bytes
        for each pair of units and bin, and time with the number of pairs of spikes in the
        window.

    Raises
    ------
    DataError
        A ValueError, if the window does not hold whole bins.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[100.0, 200.0], [103.0]], length=1000)
    >>> counts = labtree.spikes.correlograms(ds, bin_ms=5, window_ms=10)
    >>> counts.sel(unit_i=0, unit_j=1).values.tolist(), counts.lag.values.tolist()
    ([0, 0, 1, 0], [-7.5, -2.5, 2.5, 7.5])
    """
    require_kind(ds, "correlograms", spike_data.KIND)
    bin_ms, window = positive("bin_ms", bin_ms), positive("window_ms", window_ms)
    half = round(window_ms / bin_ms)
    if half < 1 or abs(window_ms / bin_ms - half) > 1e-9 * half:
        raise DataError(
            f"window_ms must be a whole number of bins: {window_ms} ms is "
            f"{window_ms / bin_ms:g} bins of {bin_ms} ms; write "
            f"window_ms={max(half, 1) * bin_ms:g}"
        )
    n_bins = 2 * half
    edges = np.linspace(-window, window, n_bins + 1)
    merged = merged_trains(ds)
    n_units = merged.n_units
    out = np.zeros(n_units * n_units * n_bins, np.int32)
    ends = first_after(merged.times, merged.times, window, inclusive=False)
    sizes = ends - np.arange(ends.size) - 1
    for begin, stop in _shown(list(_blocks(sizes)), "correlograms"):
        here = sizes[begin:stop]
        first = np.repeat(np.arange(begin, stop), here)
        second = ragged.positions_of_ranges(np.arange(begin + 1, stop + 1), here)
        difference = merged.times[second] - merged.times[first]
        i, j = merged.units[first], merged.units[second]
        for one, other, lag in ((i, j, difference), (j, i, -difference)):
            cells = (one * n_units + other) * n_bins + bin_numbers(lag, edges, closed=True)
            if out.size <= 4 * cells.size:
                out += np.bincount(cells, minlength=out.size).astype(np.int32)
            else:
                np.add.at(out, cells, 1)
    about_lag = {"units": "ms", "long_name": "time of unit_j from unit_i"}
    coords: dict[Any, Any] = {
        "unit_i": np.arange(n_units),
        "unit_j": np.arange(n_units),
        "lag": ("lag", (edges[:-1] + edges[1:]) / 2, about_lag),
    }
    return xr.DataArray(
        out.reshape(n_units, n_units, n_bins),
        coords | _both_sides(ds),
        ("unit_i", "unit_j", "lag"),
        name="correlogram",
        attrs={
            "long_name": "number of pairs of spikes",
            "bin_ms": bin_ms,
            "window_ms": window,
        },
    )


def _blocks(sizes: Ints) -> Iterator[tuple[int, int]]:
    """Divide rows so that each block holds about as many pairs as memory should."""
    ends = np.cumsum(sizes)
    begin = 0
    while begin < sizes.size:
        done = ends[begin - 1] if begin else 0
        stop = max(begin + 1, int(np.searchsorted(ends, done + _BLOCK, "right")))
        yield begin, stop
        begin = stop


def _both_sides(ds: xr.Dataset) -> dict[str, Any]:
    """Return the scalar attributes of the units along both sides of a pair."""
    found: dict[str, Any] = {}
    own = scalar_unit_coords(ds)
    masks = masks_of(own)
    for name, variable in own.items():
        if name in masks.values():
            continue
        attrs = {k: v for k, v in variable.attrs.items() if k != ANCILLARY}
        holes = own[masks[name]].values if name in masks else False
        for side in ("i", "j"):
            copy = untouched_variable((f"unit_{side}",), variable.values, attrs)
            found |= mark_missing(f"{name}_{side}", copy, holes)
    return found
