"""Sortings of SpikeInterface, recognized by their methods: it is not imported."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.interop.common import MS_PER_S, attribute_name
from labtree.objects.spike_data import spike_data
from labtree.objects.spike_slice_stack import spike_slice_stack

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
        attribute_name(key): _values(sorting.get_property(key))
        for key in sorting.get_property_keys()
    }
    metadata = {
        key: sorting.get_annotation(key)
        for key in getattr(sorting, "get_annotation_keys", list)()
    }
    segments = [_segment(sorting, at, ids, rate) for at in range(sorting.get_num_segments())]
    if len(segments) == 1:
        trains, start, length = segments[0]
        made = spike_data(trains, start_time=start, length=length, neuron_attributes=properties)
    else:
        slices = [
            spike_data([train - start for train in trains], length=length)
            for trains, start, length in segments
        ]
        windows = [(start, start + length) for _, start, length in segments]
        made = spike_slice_stack(slices, windows, neuron_attributes=properties)
    if metadata:
        made.attrs["metadata"] = metadata
    return made.assign_coords(unit_id=("unit", np.asarray(ids))).assign_attrs(
        sample_rate_hz=rate
    )


def _segment(
    sorting: Any, segment: int, ids: list[Any], rate: float
) -> tuple[list[NDArray[np.float64]], float, float]:
    """Return the trains, start and length of a segment, in ms."""
    trains = [
        MS_PER_S
        * np.asarray(
            sorting.get_unit_spike_train(unit, segment_index=segment, return_times=True),
            np.float64,
        )
        for unit in ids
    ]
    start, length = _extent(sorting, segment, rate)
    first = min([start, *(train.min(initial=start).item() for train in trains)])
    last = max([first, *(train.max(initial=first).item() for train in trains)])
    return trains, first, max(length, last - first)


def _extent(sorting: Any, segment: int, rate: float) -> tuple[float, float]:
    """Return start and length of a segment in ms, as far as the sorting knows them."""
    has_recording = getattr(sorting, "has_recording", None)
    if has_recording is not None and has_recording():
        samples = sorting.get_num_samples(segment_index=segment)
        first = float(sorting.sample_index_to_time(0, segment_index=segment))
        last = float(sorting.sample_index_to_time(samples - 1, segment_index=segment))
        return first * MS_PER_S, (last - first + 1 / rate) * MS_PER_S
    to_time = getattr(sorting, "sample_index_to_time", None)
    return (
        0.0 if to_time is None else float(to_time(0, segment_index=segment)) * MS_PER_S
    ), 0.0


def _values(values: Any) -> Any:
    """Return a property with None for values that SpikeInterface leaves out as such."""
    array = np.asarray(values)
    return list(array) if array.dtype.kind == "O" else array
