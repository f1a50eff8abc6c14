"""Sortings of SpikeInterface, recognized by their methods: it is not imported."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.objects.spike_slice_stack import spike_slice_stack
from labtree.spikes.trains import from_times

__all__ = ["from_spikeinterface"]

_MS = 1000.0
_NEEDED = ("unit_ids", "get_num_segments", "get_unit_spike_train", "get_sampling_frequency")


def from_spikeinterface(sorting: Any) -> xr.Dataset:
    """Return the spike trains of a sorting of SpikeInterface.

    Parameters
    ----------
    sorting : BaseSorting or SortingAnalyzer
        It is recognized by its methods. Properties become attributes of the units, its
        annotations the metadata.

    Returns
    -------
    Dataset
        Of the kind ``spike_data``, in ms, with the ids as ``unit_id``. Of a sorting in
        several segments a ``spike_slice_stack``, one slice per segment, each on a clock that
        starts at 0 ms; ``slice_start`` and ``slice_end`` are the segment's own times.
        ``length`` is that of the recording if the sorting knows it, else up to the last
        spike. The attribute ``sample_rate_hz`` is its rate.

    Raises
    ------
    DataError
        A ValueError, if this is no sorting.

    Examples
    --------
    >>> import labtree
    >>> labtree.from_spikeinterface(sorting)  # doctest: +SKIP
    """
    sorting = getattr(sorting, "sorting", sorting)
    if not all(hasattr(sorting, name) for name in _NEEDED):
        raise DataError(
            "from_spikeinterface takes a sorting of SpikeInterface, with "
            f"{', '.join(_NEEDED)}; found {type(sorting).__name__}"
        )
    rate = float(sorting.get_sampling_frequency())
    ids = list(sorting.unit_ids)
    properties = {
        _name(key): _values(sorting.get_property(key)) for key in sorting.get_property_keys()
    }
    metadata = {
        key: sorting.get_annotation(key)
        for key in getattr(sorting, "get_annotation_keys", list)()
    }
    segments = [_segment(sorting, at, ids, rate) for at in range(sorting.get_num_segments())]
    if len(segments) == 1:
        times, units, start, length = segments[0]
        ds = from_times(
            times, units, unit_ids=ids, start_ms=start, length_ms=length,
            neuron_attributes=properties,
        )  # fmt: skip
        if metadata:
            ds.attrs["metadata"] = metadata
        return ds.assign_attrs(sample_rate_hz=rate)
    slices = [
        from_times(times - start, units, unit_ids=ids, length_ms=length)
        for times, units, start, length in segments
    ]
    windows = [(start, start + length) for _, _, start, length in segments]
    stack = spike_slice_stack(
        [part.drop_vars("unit_id") for part in slices], windows, neuron_attributes=properties
    )
    if metadata:
        stack.attrs["metadata"] = metadata
    return stack.assign_coords(unit_id=("unit", np.asarray(ids))).assign_attrs(
        sample_rate_hz=rate
    )


def _segment(
    sorting: Any, segment: int, ids: list[Any], rate: float
) -> tuple[NDArray[np.float64], NDArray[Any], float, float]:
    """Return times and their units, start and length of a segment, in ms."""
    trains = [
        np.asarray(
            sorting.get_unit_spike_train(unit, segment_index=segment, return_times=True),
            np.float64,
        )
        for unit in ids
    ]
    owners = [np.full(train.size, at) for at, train in enumerate(trains)]
    times = np.concatenate(trains) * _MS if trains else np.empty(0)
    places = np.concatenate(owners).astype(np.int64) if owners else np.empty(0, np.int64)
    units = np.asarray(ids)[places] if ids else np.empty(0)
    start, length = _extent(sorting, segment, rate)
    start = min(start, times.min(initial=start).item())
    last = times.max(initial=start).item() - start
    return times, units, start, max(length, last)


def _extent(sorting: Any, segment: int, rate: float) -> tuple[float, float]:
    """Return start and length of a segment in ms, as far as the sorting knows them."""
    has_recording = getattr(sorting, "has_recording", None)
    if has_recording is not None and has_recording():
        samples = sorting.get_num_samples(segment_index=segment)
        first = float(sorting.sample_index_to_time(0, segment_index=segment))
        last = float(sorting.sample_index_to_time(samples - 1, segment_index=segment))
        return first * _MS, (last - first + 1 / rate) * _MS
    to_time = getattr(sorting, "sample_index_to_time", None)
    return (0.0 if to_time is None else float(to_time(0, segment_index=segment)) * _MS), 0.0


def _name(key: Any) -> str:
    return "unit_id_" if key == "unit_id" else str(key)


def _values(values: Any) -> Any:
    """Return a property with None for values that SpikeInterface leaves out as such."""
    array = np.asarray(values)
    return list(array) if array.dtype.kind == "O" else array
