"""Verbs on ragged spike trains, none of which loops over spikes.

They take and return the Datasets of :func:`labtree.spike_data`. Units are selected in
:mod:`labtree.objects.selection`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.objects import rate_data, spike_data
from labtree.objects.unit_attributes import alike, unit_attributes
from labtree.storage import ragged

__all__ = [
    "binned_spike_counts",
    "concatenate_time",
    "concatenate_units",
    "select_time",
    "spike_counts",
    "trains",
    "unit_train",
]


def unit_train(ds: xr.Dataset, unit: int) -> NDArray[Any]:
    """Give the spike times of one unit, read alone.

    Parameters
    ----------
    ds : Dataset
        With ``spike_times(spike)`` and ``row_size(unit)``.
    unit : int
        Position of the unit; negative counts from the end.

    Raises
    ------
    DataError
        A ValueError, if there is no such unit.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0], [2.0, 3.0]])
    >>> labtree.unit_train(ds, 1)
    array([2., 3.])
    """
    n_units = ds.sizes["unit"]
    if not -n_units <= unit < n_units:
        raise DataError(f"there is no unit {unit}: the Dataset holds {n_units} units, from 0")
    _only(ds, "unit_train", spike_data.KIND)
    rows = ragged.positions_of_rows(ds["row_size"].values, [unit])
    return np.asarray(ds["spike_times"].isel(spike=rows).values)


def trains(ds: xr.Dataset) -> list[NDArray[Any]]:
    """Give the spike times of all units, one array for each, as views.

    Examples
    --------
    >>> import labtree
    >>> labtree.trains(labtree.spike_data([[1.0], [2.0, 3.0]]))
    [array([1.]), array([2., 3.])]
    """
    _only(ds, "trains", spike_data.KIND)
    return ragged.split_rows(ds["spike_times"].values, ds["row_size"].values)


def select_time(ds: xr.Dataset, start: float, stop: float) -> xr.Dataset:
    """Cut out a stretch of time; times stay on the clock of the recording.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spike_data` or :func:`labtree.rate_data`.
    start, stop : float
        In ms. `start` is inside, `stop` is not, so that stretches that follow each other
        share no spike; but a spike at the very end of a recording belongs to the stretch
        that reaches it.

    Returns
    -------
    Dataset
        With spikes and raw data, or rates, of the stretch alone.

    Raises
    ------
    DataError
        A ValueError, if the stretch is not inside the recording or runs backwards.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0, 5.0], [2.0]], length=10)
    >>> part = labtree.select_time(ds, 2, 6)
    >>> labtree.trains(part), part.start_time, part.length
    ([array([5.]), array([2.])], 2.0, 4.0)
    """
    _only(ds, "select_time", spike_data.KIND, rate_data.KIND)
    if not start <= stop:
        raise DataError(
            f"stop must not come before start, found start {start} ms, stop {stop} ms"
        )
    if "rate" in ds:
        return ds.isel(time=_inside(ds["time"].values, start, stop, math.inf))
    first, length = ds.attrs["start_time"], ds.attrs["length"]
    end = first + length
    if start < first or stop > end:
        raise DataError(
            f"the stretch from {start} to {stop} ms is not inside the recording, from "
            f"{first} to {end} ms"
        )
    times = ds["spike_times"].values
    last = max(end, times.max().item()) if times.size else end
    inside = np.flatnonzero(_inside(times, start, stop if stop < end else last, last))
    row_size = ds["row_size"]
    counts = ragged.count_in_rows(inside, row_size.values)
    indexers: dict[str, Any] = {"spike": inside}
    if "raw_time" in ds.variables:
        kept = _inside(ds["raw_time"].values, start, stop, end)
        indexers["raw_sample"] = np.flatnonzero(kept)
    part = ds.isel(indexers).assign(row_size=row_size.copy(data=counts))
    return part.assign_attrs(
        start_time=spike_data.exact_float(start), length=spike_data.exact_float(stop - start)
    )


def spike_counts(ds: xr.Dataset) -> xr.DataArray:
    """Count the spikes of each unit.

    Returns
    -------
    DataArray of shape (unit,)
        With the attributes of the units as coordinates.

    Examples
    --------
    >>> import labtree
    >>> labtree.spike_counts(labtree.spike_data([[1.0], [2.0, 3.0]])).values
    array([1, 2])
    """
    _only(ds, "spike_counts", spike_data.KIND)
    return ds["row_size"].drop_attrs().rename("spike_count")


def binned_spike_counts(ds: xr.Dataset, edges: Any) -> xr.DataArray:
    """Count the spikes of each unit in bins of time.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spike_data`.
    edges : array-like of shape (n_bins + 1,)
        Rising, in ms. A bin holds its left edge and not its right one; only the last bin
        holds both, as in :func:`numpy.histogram`.

    Returns
    -------
    DataArray of shape (unit, time)
        ``time`` is the left edge of each bin.

    Raises
    ------
    DataError
        A ValueError, if the edges do not rise.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0, 2.0], [3.0]])
    >>> labtree.binned_spike_counts(ds, [0, 2, 3]).values
    array([[1, 1],
           [0, 1]])
    """
    _only(ds, "binned_spike_counts", spike_data.KIND)
    bounds = np.asarray(edges)
    if bounds.ndim != 1 or bounds.size < 2 or not (bounds[1:] > bounds[:-1]).all():
        raise DataError("edges must be at least two rising times in ms")
    times, n_bins, n_units = ds["spike_times"].values, bounds.size - 1, ds.sizes["unit"]
    bins = np.searchsorted(bounds, times, side="right") - 1
    bins[times == bounds[-1]] = n_bins - 1
    inside = (bins >= 0) & (bins < n_bins)
    cells = ragged.row_of_sample(ds["row_size"].values)[inside] * n_bins + bins[inside]
    counts = np.bincount(cells, minlength=n_units * n_bins).reshape(n_units, n_bins)
    coords = dict(ds["row_size"].coords) | {"time": ("time", bounds[:-1], {"units": "ms"})}
    return xr.DataArray(counts, coords, ("unit", "time"), name="spike_count")


def concatenate_time(datasets: Sequence[xr.Dataset], *, gap: float = 0.0) -> xr.Dataset:
    """Put recordings of the same units one after the other.

    Parameters
    ----------
    datasets : sequence of Dataset
        From :func:`labtree.spike_data`. The first keeps its clock; each next one starts
        `gap` ms after the end of the one before.
    gap : float
        In ms.

    Returns
    -------
    Dataset
        Times of whole numbers stay whole where the shifts are; others become float64.
        Attributes of the units must agree. Where metadata differ, they are kept as
        ``{"parts": [...]}``.

    Raises
    ------
    DataError
        A ValueError, if units or their attributes differ, or only some have raw data.

    Examples
    --------
    >>> import labtree
    >>> first = labtree.spike_data([[1.0], []], length=10)
    >>> second = labtree.spike_data([[2.0], [3.0]], length=5)
    >>> both = labtree.concatenate_time([first, second])
    >>> labtree.trains(both), both.length
    ([array([ 1., 12.]), array([13.])], 15.0)
    """
    parts = _parts(datasets, "concatenate_time")
    attributes = [unit_attributes(part) for part in parts]
    for at, (part, own) in enumerate(zip(parts, attributes, strict=True)):
        if part.sizes["unit"] != parts[0].sizes["unit"]:
            raise DataError(
                f"part 0 has {parts[0].sizes['unit']} units, part {at} has {part.sizes['unit']}"
            )
        if not alike(own, attributes[0]):
            raise DataError(
                f"the attributes of the units of part 0 and part {at} differ: give both "
                "the same, or drop those that differ with ds.drop_vars(...)"
            )
    end = parts[0].attrs["start_time"]
    pieces, raw = [], []
    for at, part in enumerate(parts):
        shift = _whole(end + gap * (at > 0) - part.attrs["start_time"])
        pieces.append((_shifted(part["spike_times"].values, shift), part["row_size"].values))
        if "raw_data" in part:
            raw.append((part["raw_data"].values, _shifted(part["raw_time"].values, shift)))
        end = end + gap * (at > 0) + part.attrs["length"]
    if raw and len(raw) != len(parts):
        raise DataError("raw_data must be in all parts or in none: drop_vars('raw_data') first")
    if len({data.shape[:-1] for data, _ in raw}) > 1:
        raise DataError(f"raw_data have different channels: {[data.shape for data, _ in raw]}")
    spike_times, row_size = ragged.concatenate_rows(pieces)
    start_time = parts[0].attrs["start_time"]
    joined = spike_data.assemble(
        spike_times,
        row_size,
        length=spike_data.exact_float(end - start_time),
        start_time=start_time,
        neuron_attributes=attributes[0],
        metadata=_metadata(parts),
        raw=(
            (
                np.concatenate([data for data, _ in raw], axis=-1),
                np.concatenate([time for _, time in raw]),
            )
            if raw
            else None
        ),
    )
    spike_data.validate(joined)
    return joined


def concatenate_units(datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put units of the same stretch of time into one Dataset.

    Parameters
    ----------
    datasets : sequence of Dataset
        From :func:`labtree.spike_data`, with the same start_time and length.

    Returns
    -------
    Dataset
        The units of all, in order. Attributes that some units lack are marked missing.
        Where metadata differ, they are kept as ``{"parts": [...]}``.

    Raises
    ------
    DataError
        A ValueError, if start_time or length differ, or raw data differ.

    Examples
    --------
    >>> import labtree
    >>> first = labtree.spike_data([[1.0]], length=10)
    >>> second = labtree.spike_data([[2.0], [3.0]], length=10)
    >>> labtree.trains(labtree.concatenate_units([first, second]))
    [array([1.]), array([2.]), array([3.])]
    """
    parts = _parts(datasets, "concatenate_units")
    for at, part in enumerate(parts):
        for name in ("start_time", "length"):
            if part.attrs[name] != parts[0].attrs[name]:
                raise DataError(
                    f"part 0 has {name} {parts[0].attrs[name]} ms, part {at} has "
                    f"{part.attrs[name]} ms: cut both with labtree.select_time(ds, start, stop)"
                )
    raw = [
        (part["raw_data"].values, part["raw_time"].values)
        for part in parts
        if "raw_data" in part
    ]
    if any(not alike(one, raw[0]) for one in raw):
        raise DataError("the parts have different raw_data: drop_vars('raw_data') first")
    joined = spike_data.assemble(
        *spike_data.flat_trains([train for part in parts for train in trains(part)]),
        length=parts[0].attrs["length"],
        start_time=parts[0].attrs["start_time"],
        neuron_attributes=[record for part in parts for record in unit_attributes(part)],
        metadata=_metadata(parts),
        raw=raw[0] if raw else None,
    )
    spike_data.validate(joined)
    return joined


def _inside(times: NDArray[Any], start: float, stop: float, last: Any) -> NDArray[np.bool_]:
    before = times <= stop if stop >= last else times < stop
    return np.asarray((times >= start) & before)


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def _shifted(times: NDArray[Any], shift: float) -> NDArray[Any]:
    if shift == 0:
        return times
    if times.dtype.kind in "iu" and isinstance(shift, int):
        return np.asarray(times.astype(np.int64) + shift)
    return np.asarray(times.astype(np.float64) + shift)


def _parts(datasets: Sequence[xr.Dataset], verb: str) -> list[xr.Dataset]:
    parts = list(datasets)
    if not parts:
        raise DataError(f"{verb} needs at least one Dataset")
    for part in parts:
        _only(part, verb, spike_data.KIND)
        spike_data.validate(part)
    return parts


def _metadata(parts: Sequence[xr.Dataset]) -> dict[str, Any]:
    found: list[dict[str, Any]] = [part.attrs.get("metadata", {}) for part in parts]
    return found[0] if all(alike(one, found[0]) for one in found) else {"parts": found}


def _only(ds: xr.Dataset, verb: str, *kinds: str) -> None:
    kind = ds.attrs.get("labtree_kind")
    if kind not in kinds:
        raise DataError(f"{verb} takes a Dataset of kind {' or '.join(kinds)}, found {kind!r}")
