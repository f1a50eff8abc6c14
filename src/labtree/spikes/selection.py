"""Select units, slices or time, and with them their spikes; put recordings together.

``ds.isel(unit=...)`` alone selects rows and leaves the spikes behind.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.objects import rate_data, spike_data, spike_slice_stack
from labtree.objects.unit_attributes import alike, records, unit_attributes
from labtree.spikes.trains import require_kind, require_whole, spike_trains
from labtree.storage import ragged


def select_units(ds: xr.Dataset, units: Any) -> xr.Dataset:
    """Select units, and with them their spikes.

    Parameters
    ----------
    ds : Dataset
        Of any kind with units; of a pairwise kind both dimensions are selected.
    units : int, slice, array-like of int or bool
        Positions in the order wanted, or a mask such as ``ds.channel == 3``.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        A ValueError, if there is no such unit, or spikes were left behind by ``ds.isel``.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data(
    ...     [[1.0], [2.0, 3.0], [4.0]], neuron_attributes={"channel": [3, 4, 3]}
    ... )
    >>> labtree.spikes.spike_trains(labtree.spikes.select_units(ds, ds.channel == 3))
    [array([1.]), array([4.])]
    """
    dims = [dim for dim in ("unit", "unit_i", "unit_j") if dim in ds.sizes]
    positions = _positions(ds, "select_units", dims, units, "unit")
    return ragged.isel(ds, dict.fromkeys(dims, positions))


def select_slices(ds: xr.Dataset, slices: Any) -> xr.Dataset:
    """Select slices of a stack, and with them their spikes.

    Parameters
    ----------
    ds : Dataset
        A stack of any kind.
    slices : int, slice, array-like of int or bool
        Positions in the order wanted, or a mask such as ``ds.slice_start > 1000``.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        A ValueError, if there is no such slice.

    Examples
    --------
    >>> import labtree
    >>> parts = [labtree.spike_data([[time]], length=5) for time in (1.0, 2.0, 3.0)]
    >>> stack = labtree.spike_slice_stack(parts, [(0, 5), (10, 15), (20, 25)])
    >>> labtree.spikes.select_slices(stack, [2, 0]).spike_times.values
    array([3., 1.])
    """
    dims = ["slice"] if "slice" in ds.sizes else []
    positions = _positions(ds, "select_slices", dims, slices, "slice")
    part = ragged.isel(ds, {"slice": positions})
    metadata = ds.attrs.get("slice_metadata")
    if metadata is None:
        return part
    return part.assign_attrs(slice_metadata=[metadata[at] for at in positions])


def select_time(ds: xr.Dataset, start_ms: float, stop_ms: float) -> xr.Dataset:
    """Cut out a stretch of time; times stay on the clock of the recording.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spike_data` or :func:`labtree.rate_data`.
    start_ms, stop_ms : float
        In ms. `start_ms` is inside, `stop_ms` is not, so that stretches that follow each other
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
    >>> part = labtree.spikes.select_time(ds, 2, 6)
    >>> labtree.spikes.spike_trains(part), part.start_time, part.length
    ([array([5.]), array([2.])], 2.0, 4.0)
    """
    require_kind(ds, "select_time", spike_data.KIND, rate_data.KIND)
    start, stop = start_ms, stop_ms
    if not start <= stop:
        raise DataError(
            f"stop_ms must not come before start_ms, found start_ms {start}, stop_ms {stop}"
        )
    if "rate" in ds:
        return ds.isel(time=_inside(ds["time"].values, start, stop, math.inf))
    first, length = ds.attrs["start_time"], ds.attrs["length"]
    end = first + length
    if start < first or stop > end:
        low, high = max(start, first), min(stop, end)
        line = f"; write labtree.spikes.select_time(ds, {low}, {high})" if low < high else ""
        raise DataError(
            f"the stretch from {start} to {stop} ms is not inside the recording, from "
            f"{first} to {end} ms{line}"
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


def concatenate_time(datasets: Sequence[xr.Dataset], *, gap_ms: float = 0.0) -> xr.Dataset:
    """Put recordings of the same units one after the other.

    Parameters
    ----------
    datasets : sequence of Dataset
        From :func:`labtree.spike_data`. The first keeps its clock; each next one starts
        `gap_ms` after the end of the one before.
    gap_ms : float
        Time between the end of one and the start of the next.

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
    >>> both = labtree.spikes.concatenate_time([first, second])
    >>> labtree.spikes.spike_trains(both), both.length
    ([array([ 1., 12.]), array([13.])], 15.0)
    """
    parts = _parts(datasets, "concatenate_time")
    attributes = [unit_attributes(part) for part in parts]
    for at, (part, own) in enumerate(zip(parts, attributes, strict=True)):
        if part.sizes["unit"] != parts[0].sizes["unit"]:
            raise DataError(
                f"part 0 has {parts[0].sizes['unit']} units, part {at} has "
                f"{part.sizes['unit']}; write labtree.spikes.select_units(part, units) for the "
                "units that all have"
            )
        if not alike(own, attributes[0]):
            raise DataError(
                f"the attributes of the units of part 0 and part {at} differ: give both "
                "the same, or drop those that differ with ds.drop_vars(...)"
            )
    end = parts[0].attrs["start_time"]
    pieces, raw = [], []
    for at, part in enumerate(parts):
        shift = spike_data.whole_number(end + gap_ms * (at > 0) - part.attrs["start_time"])
        pieces.append((_shifted(part["spike_times"].values, shift), part["row_size"].values))
        if "raw_data" in part:
            raw.append((part["raw_data"].values, _shifted(part["raw_time"].values, shift)))
        end = end + gap_ms * (at > 0) + part.attrs["length"]
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
        raw=_joined_raw(raw),
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
    >>> labtree.spikes.spike_trains(labtree.spikes.concatenate_units([first, second]))
    [array([1.]), array([2.]), array([3.])]
    """
    parts = _parts(datasets, "concatenate_units")
    for at, part in enumerate(parts):
        for name in ("start_time", "length"):
            if part.attrs[name] != parts[0].attrs[name]:
                raise DataError(
                    f"part 0 has {name} {parts[0].attrs[name]} ms, part {at} has "
                    f"{part.attrs[name]} ms: cut both with labtree.spikes.select_time(...)"
                )
    raw = [
        (part["raw_data"].values, part["raw_time"].values)
        for part in parts
        if "raw_data" in part
    ]
    if not all(alike(traces, raw[0]) for traces in raw):
        raise DataError("the parts have different raw_data: drop_vars('raw_data') first")
    joined = spike_data.assemble(
        *spike_data.flat_trains([train for part in parts for train in spike_trains(part)]),
        length=parts[0].attrs["length"],
        start_time=parts[0].attrs["start_time"],
        neuron_attributes=[record for part in parts for record in unit_attributes(part)],
        metadata=_metadata(parts),
        raw=raw[0] if raw else None,
    )
    spike_data.validate(joined)
    return joined


def slices_of(ds: xr.Dataset) -> list[xr.Dataset]:
    """Return the slices of a stack, each a Dataset as of :func:`labtree.spike_data`.

    Attributes that are the same in all slices belong to the stack and stay with it.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_slice_stack`` or ``rate_slice_stack``.

    Returns
    -------
    list of Dataset
        One for each slice.

    Examples
    --------
    >>> import labtree
    >>> part = labtree.spike_data([[1.0], [2.0, 3.0]], length=5)
    >>> stack = labtree.spike_slice_stack([part, part], [(10, 15), (30, 35)])
    >>> labtree.spikes.slices_of(stack)[1].equals(part)
    True
    """
    n_slices, n_units = ds["row_size"].shape
    own = ds.drop_vars(
        [name for name, coord in ds.coords.items() if coord.dims[:1] == ("unit",)]
    )
    attributes = records(own, ("slice", "unit"))
    spikes = ragged.split_rows(ds["spike_times"].values, ds["row_size"].values.sum(axis=1))
    metadata = ds.attrs.get("slice_metadata", [None] * n_slices)
    lengths = spike_slice_stack.slice_lengths(ds)
    raw: list[Any] = [None] * n_slices
    if "raw_data" in ds:
        parts = ragged.split_rows(np.arange(ds.sizes["raw_sample"]), ds["raw_row_size"].values)
        data, time = ds["raw_data"].values, ds["raw_time"].values
        raw = [(data[..., part], time[part]) for part in parts]
    return [
        spike_data.assemble(
            spikes[at],
            ds["row_size"].values[at],
            length=lengths[at],
            start_time=ds.attrs["start_time"],
            neuron_attributes=attributes[at * n_units : (at + 1) * n_units],
            metadata=metadata[at],
            raw=raw[at],
        )
        for at in range(n_slices)
    ]


def _positions(
    ds: xr.Dataset, verb: str, dims: list[str], chosen: Any, what: str
) -> NDArray[Any]:
    """Return the positions that were chosen along dimensions of one size."""
    if not dims:
        raise DataError(
            f"nothing to select from: dimensions {tuple(ds.sizes)}, expected {what!r}"
        )
    require_whole(ds, verb)
    size = ds.sizes[dims[0]]
    if isinstance(chosen, slice):
        return np.arange(size)[chosen]
    given = np.atleast_1d(np.asarray(chosen))
    if given.dtype == bool:
        if given.shape != (size,):
            raise DataError(
                f"a mask needs one value for each of {size} {what}s, found {given.size}"
            )
        return np.flatnonzero(given)
    if given.size == 0:
        given = given.astype(np.int64)
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise DataError(f"{what}s must be positions or a mask, found {chosen!r}")
    outside = given[(given < -size) | (given >= size)]
    if outside.size:
        raise DataError(
            f"there is no {what} {outside[0]}: the Dataset holds {size} {what}s, from 0"
        )
    return given


def _inside(times: NDArray[Any], start: float, stop: float, last: Any) -> NDArray[np.bool_]:
    before = times <= stop if stop >= last else times < stop
    return np.asarray((times >= start) & before)


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
        require_kind(part, verb, spike_data.KIND)
        spike_data.validate(part)
    return parts


def _joined_raw(raw: list[tuple[Any, Any]]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return voltage traces one after the other, and their times; None where there are none."""
    if not raw:
        return None
    data, times = zip(*raw, strict=True)
    return np.concatenate(data, axis=-1), np.concatenate(times)


def _metadata(parts: Sequence[xr.Dataset]) -> dict[str, Any]:
    found: list[dict[str, Any]] = [part.attrs.get("metadata", {}) for part in parts]
    return found[0] if all(alike(own, found[0]) for own in found) else {"parts": found}
