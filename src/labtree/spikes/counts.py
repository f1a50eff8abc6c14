"""Spike counts and rates: of whole recordings, in bins, and smoothed."""

import math
from typing import Any, Literal, overload

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.objects import rate_data, spike_data
from labtree.optional import require
from labtree.spikes.trains import (
    recording_span,
    require_kind,
    scalar_unit_coords,
    unit_coords,
    whole_bins,
)
from labtree.storage import ragged
from labtree.storage.arguments import positive

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Where a Gaussian is cut off, in standard deviations.
_TRUNCATE = 5.0


def spike_counts(ds: xr.Dataset) -> xr.DataArray:
    """Count the spikes of each unit.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.

    Returns
    -------
    DataArray of shape (unit,)
        Integers, with the attributes of the units as coordinates.

    Examples
    --------
    >>> import labtree
    >>> labtree.spikes.spike_counts(labtree.spike_data([[1.0], [2.0, 3.0]])).values
    array([1, 2])
    """
    require_kind(ds, "spike_counts", spike_data.KIND)
    counts = ds["row_size"].drop_attrs().rename("spike_count")
    return counts.assign_attrs(long_name="number of spikes")


def firing_rates(ds: xr.Dataset) -> xr.DataArray:
    """Return the mean firing rate of each unit over the recording.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.

    Returns
    -------
    DataArray of shape (unit,)
        In Hz; NaN for a recording without length.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0], [2.0, 3.0]], length=1000)
    >>> labtree.spikes.firing_rates(ds).values
    array([1., 2.])
    """
    require_kind(ds, "firing_rates", spike_data.KIND)
    length_s = ds.attrs["length"] / 1000
    counts = ds["row_size"].drop_attrs().astype(float)
    rates = counts / length_s if length_s > 0 else xr.full_like(counts, np.nan)
    return rates.rename("firing_rate").assign_attrs(units="Hz", long_name="mean firing rate")


def count_cells(cells: Ints, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return how often each cell of an array occurs among flat positions that never fall."""
    out = np.zeros(math.prod(shape), np.int32)
    again = np.flatnonzero(cells[1:] == cells[:-1])
    if again.size < cells.size // 4:  # short bins: few hold several
        out[cells] = 1
        np.add.at(out, cells[again], 1)
    elif cells.size:
        first = np.flatnonzero(ragged.begins_run(cells))
        out[cells[first]] = np.diff(first, append=cells.size)
    return out.reshape(shape)


def bin_numbers(times: Floats, edges: Floats, *, closed: bool) -> Ints:
    """Return the bin of each time between equally spaced edges, -1 outside of them.

    A bin holds its left edge and not its right one; with `closed` the last holds both. It
    counts what the edges say, whatever the division rounds to.
    """
    n_bins = edges.size - 1
    inside = (times >= edges[0]) & (times <= edges[-1] if closed else times < edges[-1])
    everything = bool(inside.all())
    width = (edges[-1] - edges[0]) / n_bins
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        place = (times - edges[0]) * (1 / width)
        if not everything:
            place = np.where(inside, place, 0.0)
        bins = np.clip(place, 0, n_bins - 1).astype(np.int64)
        # Rounding matters near an edge only: there the edges decide.
        slack = 1e-9 + 4e-15 * (np.abs(edges[[0, -1]]).max() / width + n_bins)
        place -= bins
        near = np.flatnonzero(~((place > slack) & (place < 1 - slack)))
    near = near[inside[near]]
    moved = bins[near]
    moved -= (times[near] < edges[moved]) & (moved > 0)
    moved += (times[near] >= edges[moved + 1]) & (moved < n_bins - 1)
    bins[near] = moved
    return bins if everything else np.where(inside, bins, -1)


@overload
def binned_counts(
    ds: xr.Dataset,
    bin_ms: float,
    *,
    start_ms: float | None = None,
    stop_ms: float | None = None,
    sparse: Literal[False] = False,
) -> xr.DataArray: ...
@overload
def binned_counts(
    ds: xr.Dataset,
    bin_ms: float,
    *,
    start_ms: float | None = None,
    stop_ms: float | None = None,
    sparse: Literal[True],
) -> Any: ...
def binned_counts(
    ds: xr.Dataset,
    bin_ms: float,
    *,
    start_ms: float | None = None,
    stop_ms: float | None = None,
    sparse: bool = False,
) -> Any:
    """Count the spikes of each unit in bins of equal width.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    bin_ms : float
        Width of a bin in ms.
    start_ms, stop_ms : float, optional
        Where the first bin starts, and what no bin passes; by default the recording's
        ends. Only whole bins count: edges are ``start_ms + k * bin_ms``.
    sparse : bool
        True: a ``scipy.sparse.csr_array`` of the same shape, for many short bins.

    Returns
    -------
    DataArray of shape (unit, time), or scipy.sparse.csr_array
        Integers. A bin holds its left edge and not its right one; only the last bin holds
        both, as in :func:`numpy.histogram`. ``time`` is the center of a bin in ms. The
        dense array takes 4 bytes for each unit and bin.

    Raises
    ------
    DataError
        A ValueError, if there is no whole bin.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0, 2.0], [4.0]], length=4)
    >>> counts = labtree.spikes.binned_counts(ds, 2.0)
    >>> counts.values.tolist(), counts.time.values.tolist()
    ([[1, 1], [0, 1]], [1.0, 3.0])
    """
    require_kind(ds, "binned_counts", spike_data.KIND)
    edges = _edges(ds, "bin_ms", bin_ms, start_ms, stop_ms)
    n_units, n_bins = ds.sizes["unit"], edges.size - 1
    bins, units = _bins_and_units(ds, edges)
    if sparse:
        scipy_sparse = require(
            "scipy.sparse", purpose="binned_counts(..., sparse=True)", extra="mea"
        )
        cells = units * n_bins + bins
        first = np.flatnonzero(ragged.begins_run(cells))
        counts = np.diff(np.append(first, cells.size)).astype(np.int32)
        ends = np.searchsorted(units[first], np.arange(n_units + 1))
        return scipy_sparse.csr_array((counts, bins[first], ends), shape=(n_units, n_bins))
    values = count_cells(units * n_bins + bins, (n_units, n_bins))
    return xr.DataArray(
        values,
        scalar_unit_coords(ds) | {"time": bin_centers(edges)},
        ("unit", "time"),
        name="spike_count",
        attrs={"long_name": "number of spikes", "bin_ms": float(bin_ms)},
    )


def bin_centers(edges: Floats, long_name: str = "center of the bin") -> xr.Variable:
    """Return the centers of bins as the coordinate ``time`` in ms."""
    attrs = {"units": "ms", "long_name": long_name}
    return xr.Variable("time", (edges[:-1] + edges[1:]) / 2, attrs)


def bin_edges(first: float, n_bins: int, width: float) -> Floats:
    """Return the edges of bins of equal width."""
    return np.asarray(first + np.arange(n_bins + 1) * float(width), np.float64)


def _edges(
    ds: xr.Dataset, name: str, width: float, start: float | None, stop: float | None
) -> Floats:
    begin, end = recording_span(ds)
    first = begin if start is None else float(start)
    last = end if stop is None else float(stop)
    if not -np.inf < first < last < np.inf:
        raise DataError(
            f"the stretch from {first} to {last} ms is empty or has no end; write a finite "
            "start_ms before stop_ms, or leave both out"
        )
    return bin_edges(first, whole_bins(name, last - first, width), width)


def _bins_and_units(ds: xr.Dataset, edges: Floats) -> tuple[Ints, Ints]:
    """Return the bin and the unit of each spike within edges, unit after unit."""
    times = np.asarray(ds["spike_times"].values, np.float64)
    bins = bin_numbers(times, edges, closed=True)
    units = ragged.row_of_sample(ds["row_size"].values)
    inside = bins >= 0
    return (bins, units) if inside.all() else (bins[inside], units[inside])


def gaussian(sigma_bins: float) -> Floats:
    """Return a Gaussian whose sum is 1, cut off at five standard deviations."""
    reach = int(_TRUNCATE * sigma_bins + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_bins) ** 2)
    return np.asarray(weights / weights.sum())


def smooth(
    bins: Ints, rows: Ints, weights: Floats, shape: tuple[int, int], amount: Any = 1.0
) -> Floats:
    """Return the sum of a kernel around each event: (row, time), zero beyond the ends.

    Parameters
    ----------
    bins, rows : array of shape (n,)
        Where the events are, row after row.
    weights : array of odd size
        The kernel.
    shape
        Rows and bins.
    amount : float or array of shape (n,)
        What each event weighs.
    """
    n_rows, n_bins = shape
    reach = weights.size // 2
    out = np.zeros(shape)
    amounts = np.broadcast_to(np.asarray(amount, float), bins.shape)
    ends = np.searchsorted(rows, np.arange(n_rows + 1))
    size = n_bins + 2 * reach
    n_fft = 1 << (size - 1).bit_length()
    # Adding the kernel at each event is exact; with many events a transform is faster.
    limit = 8 * n_fft * max(1, n_fft.bit_length())
    transformed: Any = None
    for row in range(n_rows):
        here = slice(int(ends[row]), int(ends[row + 1]))
        count = here.stop - here.start
        if not count:
            continue
        if count * weights.size <= limit:
            padded = np.zeros(size)
            for at, much in zip(bins[here].tolist(), amounts[here].tolist(), strict=True):
                padded[at : at + weights.size] += weights * much
            out[row] = padded[reach : reach + n_bins]
        else:
            if transformed is None:
                transformed = np.fft.rfft(weights, n_fft)
            counts = np.bincount(bins[here], amounts[here], minlength=n_bins)
            filtered = np.fft.irfft(np.fft.rfft(counts, n_fft) * transformed, n_fft)
            out[row] = np.maximum(filtered[reach : reach + n_bins], 0)
    return out


def smoothed_rates(ds: xr.Dataset, step_ms: float, sigma_ms: float) -> xr.Dataset:
    """Return firing rates smoothed by a Gaussian.

    Spikes are counted in bins of `step_ms`, filtered as
    ``scipy.ndimage.gaussian_filter1d(counts, sigma_ms / step_ms, mode="constant",
    truncate=5)`` does, and divided by the width of a bin. Near the ends of the recording
    the rate is too low, because nothing is known beyond them.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    step_ms : float
        Time between two rates in ms.
    sigma_ms : float
        Standard deviation of the Gaussian in ms.

    Returns
    -------
    Dataset
        Of the kind ``rate_data``: ``rate(unit, time)`` in Hz, ``time`` in ms at the centers
        of the bins. It takes 8 bytes for each unit and bin.

    Raises
    ------
    DataError
        A ValueError, if a parameter is not positive or there is no whole bin.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[500.0]], length=1000)
    >>> rates = labtree.spikes.smoothed_rates(ds, step_ms=10, sigma_ms=50)
    >>> round(float(rates.rate.sum() * 0.01), 6)
    1.0
    """
    require_kind(ds, "smoothed_rates", spike_data.KIND)
    edges = _edges(ds, "step_ms", step_ms, None, None)
    weights = gaussian(positive("sigma_ms", sigma_ms) / step_ms)
    bins, units = _bins_and_units(ds, edges)
    rates = smooth(bins, units, weights, (ds.sizes["unit"], edges.size - 1))
    rates *= 1000 / float(step_ms)
    time = bin_centers(edges)
    smoothed = rate_data.rate_data(rates, time.values).assign_coords(unit_coords(ds))
    smoothed["rate"].attrs |= {
        "long_name": "smoothed firing rate",
        "step_ms": float(step_ms),
        "sigma_ms": float(sigma_ms),
    }
    return smoothed


def population_rate(
    ds: xr.Dataset, bin_ms: float, sigma_ms: float | None = None
) -> xr.DataArray:
    """Return the firing rate of all units together, divided by their number.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``. Silent units count as units.
    bin_ms : float
        Width of a bin in ms; only whole bins from the recording's start on.
    sigma_ms : float, optional
        Standard deviation in ms of a Gaussian that smooths it, as in
        :func:`labtree.spikes.smoothed_rates`.

    Returns
    -------
    DataArray of shape (time,)
        In Hz per unit; NaN without units. ``time`` is the center of a bin in ms.

    Raises
    ------
    DataError
        A ValueError, if a parameter is not positive or there is no whole bin.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[100.0, 200.0], []], length=1000)
    >>> labtree.spikes.population_rate(ds, 500).values
    array([2., 0.])
    """
    require_kind(ds, "population_rate", spike_data.KIND)
    edges = _edges(ds, "bin_ms", bin_ms, None, None)
    bins, _ = _bins_and_units(ds, edges)
    counts = np.bincount(bins, minlength=edges.size - 1).astype(float)
    attrs: dict[str, Any] = {
        "units": "Hz",
        "long_name": "firing rate per unit",
        "bin_ms": float(bin_ms),
        "n_units": ds.sizes["unit"],
    }
    if sigma_ms is not None:
        weights = gaussian(positive("sigma_ms", sigma_ms) / bin_ms)
        filled = np.flatnonzero(counts)
        shape = (1, counts.size)
        counts = smooth(filled, np.zeros_like(filled), weights, shape, counts[filled])[0]
        attrs["sigma_ms"] = float(sigma_ms)
    n_units = ds.sizes["unit"]
    rates = counts * (1000 / float(bin_ms)) / n_units if n_units else counts * np.nan
    return xr.DataArray(
        rates, {"time": bin_centers(edges)}, ("time",), name="population_rate", attrs=attrs
    )
