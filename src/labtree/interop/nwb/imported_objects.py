"""What an NWB file holds, each as labtree has it: tables, units, series, plain facts."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError, FormatError
from labtree.interop.common import MS_PER_S
from labtree.interop.lazy_arrays import ClockArray, lazy_or_array
from labtree.objects import spike_data
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.unit_attributes import column
from labtree.storage.dtypes import object_array
from labtree.storage.lazy import as_lazy
from labtree.storage.ragged import rows_are_sorted, sort_rows, split_rows

# Dimensions after the first, by the type of the series.
_DIMENSIONS = {
    "ElectricalSeries": ("channel", "sample"),
    "SpikeEventSeries": ("channel", "sample"),
    "SpatialSeries": ("axis",),
    "RoiResponseSeries": ("roi",),
    "ImageSeries": ("x", "y", "z"),
    "TwoPhotonSeries": ("x", "y", "z"),
    "OnePhotonSeries": ("x", "y", "z"),
    "ImageMaskSeries": ("x", "y", "z"),
    "OpticalSeries": ("x", "y", "z"),
    "DecompositionSeries": ("channel", "band"),
    "AbstractFeatureSeries": ("feature",),
}
# Fields of a series that have a place of their own, or say nothing.
_PLACED = {
    "data", "timestamps", "timestamps_unit", "interval", "starting_time", "starting_time_unit",
    "rate", "unit", "conversion", "offset", "resolution", "electrodes", "channel_conversion",
    "rois", "bands", "features", "feature_units", "control", "control_description", "sync",
    "timestamp_link", "data_link", "continuity",
}  # fmt: skip


def table_item(table: Any) -> pd.DataFrame | xr.Dataset:
    """Return a table as a DataFrame; as a Dataset over ``row`` if a column has dimensions."""
    wide = [
        each for each in table.columns if not hasattr(each, "target") and np.ndim(each.data) > 1
    ]
    if not wide:
        return table_frame(table)
    others = table_frame(table, skip={each.name for each in wide})
    along = "row"
    while along in table.colnames:
        along += "_"
    variables: dict[str, Any] = {
        str(name): (along, others[name].to_numpy()) for name in others.columns
    }
    for each in wide:
        data = lazy_or_array(each.data)
        dims = (along, *(f"{each.name}_{axis}" for axis in range(1, np.ndim(each.data))))
        variables[each.name] = xr.Variable(dims, data, {"description": each.description})
    about = {"description": str(table.description)}
    return xr.Dataset(variables, {along: others.index.to_numpy()}, about)


def table_frame(table: Any, skip: Iterable[str] = ()) -> pd.DataFrame:
    """Return a table as a DataFrame whose index holds the ids of its rows."""
    names = [name for name in table.colnames if name not in set(skip)]
    frame = pd.DataFrame(
        {name: _plain_column(column_values(table[name])) for name in names},
        index=pd.Index(_ids(table), name="id"),
    )
    frame.attrs["description"] = str(table.description)
    frame.attrs["columns"] = {name: str(table[name].description) for name in names}
    return frame


def column_values(source: Any) -> NDArray[Any]:
    """Return one value, array or list for each row of a column."""
    kind = type(source).__name__
    if hasattr(source, "target"):
        flat = column_values(source.target)
        rows = split_rows(flat, _row_sizes(source))
        are_objects = flat.dtype.kind == "O"
        return object_array([row.tolist() if are_objects else row for row in rows])
    if hasattr(source, "table") and "Region" in kind:
        return np.asarray(_ids(source.table)[np.asarray(source.data[:])])
    if hasattr(source, "elements") and source.elements is not None:
        names = np.array([plain_value(name) for name in source.elements.data[:]], object)
        return np.asarray(names[np.asarray(source.data[:])])
    data = source.data
    values = data[:] if hasattr(data, "__getitem__") else data
    if kind == "TimeSeriesReferenceVectorData":
        return object_array([_reference(each) for each in values])
    if isinstance(values, np.ndarray) and values.dtype.kind in "biufcV":
        return values
    return object_array([plain_value(each) for each in values])


def _ids(table: Any) -> NDArray[Any]:
    return np.asarray(table.id.data[:])


def _row_sizes(index: Any) -> NDArray[np.int64]:
    """Return the lengths of rows, of which NWB keeps the ends."""
    ends = np.asarray(index.data[:]).astype(np.int64)
    return np.diff(ends, prepend=0).astype(np.int64, copy=False)


def _plain_column(values: NDArray[Any]) -> Any:
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        return pd.array(values.tolist(), dtype="str") if len(values) else values
    if values.ndim > 1:
        return object_array(list(values))
    return values


def _reference(found: Any) -> str:
    start, count, series = found
    return f"{series.name}[{int(start)}:{int(start) + int(count)}]"


class Extent(NamedTuple):
    """From when to when something in a file reaches, in s, and what it is."""

    start_s: float
    stop_s: float
    what: str


def extents(file: Any) -> list[Extent]:
    """Return from when to when each series and table of intervals of a file reaches.

    Templates of stimuli have a clock of their own, and are left out.
    """
    templates = {id(each) for each in (file.stimulus_template or {}).values()}
    found = []
    for each in file.objects.values():
        kinds = [kind.__name__ for kind in type(each).__mro__]
        if "TimeIntervals" in kinds and {"start_time", "stop_time"} <= set(each.colnames):
            times = np.ravel(
                [column_values(each[name]) for name in ("start_time", "stop_time")]
            )
        elif "TimeSeries" in kinds and id(each) not in templates:
            times = np.array(_first_and_end(each))
        else:
            continue
        times = np.asarray(times, np.float64)
        times = times[np.isfinite(times)]
        if times.size:
            what = f"{type(each).__name__} {each.name!r}"
            found.append(Extent(float(times.min()), float(times.max()), what))
    return found


def _first_and_end(series: Any) -> list[float]:
    """Return when a series begins, and when its last sample ends."""
    if series.timestamps is not None and len(series.timestamps):
        return [float(series.timestamps[0]), float(series.timestamps[-1])]
    count = 0 if series.data is None else len(series.data)
    count = count or int(getattr(series, "num_samples", None) or 0)
    if not series.rate or not count:
        return []
    start = float(series.starting_time or 0.0)
    return [start, start + count / float(series.rate)]


def units_dataset(table: Any, known: Iterable[Extent] = ()) -> tuple[xr.Dataset, str | None]:
    """Return the units as spike trains in ms, and what is wrong with them, if anything.

    Parameters
    ----------
    table
        The units of the file.
    known : iterable of Extent
        What else the file holds, which says how long the recording was where no
        ``obs_intervals`` do.
    """
    times, counts = spike_times_ms(table)
    if not rows_are_sorted(times, counts):
        times = sort_rows(times, counts)
    begin, end, stated = _observed(table, times, known)
    attributes = {
        name: _attribute(column_values(table[name]))
        for name in table.colnames
        if name not in ("spike_times", "obs_intervals", "waveforms")
    }
    dataset = spike_data.assemble(
        times, counts, length=end - begin, start_time=begin, neuron_attributes=attributes
    )
    dataset.attrs["length_from"] = stated
    for name in attributes:
        if name in dataset.coords:
            dataset[name].attrs["description"] = str(table[name].description)
    if "unit_id" not in attributes:
        dataset = dataset.assign_coords(unit_id=("unit", _ids(table)))
    if table.resolution is not None and np.isfinite(table.resolution):
        dataset.attrs["resolution_s"] = float(table.resolution)
    if "obs_intervals" in table.colnames and counts.size:
        intervals = column_values(table["obs_intervals"])
        found = [np.asarray(each, float) * MS_PER_S for each in intervals]
        if any(not np.array_equal(each, [[begin, end]]) for each in found):
            dataset = dataset.assign_coords(obs_intervals_ms=("unit", object_array(found)))
    try:
        spike_data.validate(dataset)
    except DataError as error:
        del dataset.attrs[KIND_ATTRIBUTE]
        return dataset, f"read as a plain dataset, as it is no valid spike_data: {error}"
    return dataset, None


def spike_times_ms(table: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the times of all spikes, unit after unit, and how many each unit has."""
    counts = _row_sizes(table["spike_times"])
    times = np.asarray(table["spike_times"].target.data[:], np.float64) * MS_PER_S
    if times.size != counts.sum() or (counts < 0).any():
        raise FormatError("spike_times and spike_times_index disagree")
    return times, counts


def _observed(
    table: Any, times: NDArray[np.float64], known: Iterable[Extent]
) -> tuple[float, float, str]:
    """Return start and end of the recording in ms, and what says so; no spike lies outside."""
    spikes = times[np.isfinite(times)]
    first, last = (spikes.min(), spikes.max()) if spikes.size else (0.0, 0.0)
    begin, end, stated = 0.0, 0.0, "the last spike"
    finite = np.empty(0)
    if "obs_intervals" in table.colnames:
        intervals = table["obs_intervals"].target.data[:]
        finite = np.asarray(intervals, np.float64).ravel() * MS_PER_S
        finite = finite[np.isfinite(finite)]
    if finite.size:
        begin, end, stated = finite.min(), finite.max(), "obs_intervals"
    else:
        # What begins after the last spike counts from another zero, as unix time does.
        beside = [each for each in known if each.start_s * MS_PER_S <= max(last, 0.0)]
        longest = max(beside, key=lambda each: each.stop_s, default=None)
        if longest is not None and longest.stop_s * MS_PER_S > 0:
            begin = min(0.0, *(each.start_s * MS_PER_S for each in beside))
            end, stated = longest.stop_s * MS_PER_S, longest.what
    if last > end:
        stated = "the last spike"
    return float(min(begin, first)), float(max(end, last)), stated


def _attribute(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.dtype.kind == "O":
        return column(list(values))
    return values


def waveforms_dataset(table: Any) -> xr.Dataset:
    """Return single waveforms over ``waveform``, with the counts of each spike and unit."""
    by_unit, by_spike = None, table["waveforms"]
    if hasattr(by_spike.target, "target"):
        by_unit, by_spike = by_spike, by_spike.target
    stored = by_spike.target.data
    dims = ("waveform", *("sample", "channel")[: np.ndim(stored) - 1])
    variables = {
        "waveforms": xr.Variable(dims, lazy_or_array(stored), {"units": "volts"}),
        "row_size": xr.Variable(
            "unit" if by_unit is None else "spike",
            _row_sizes(by_spike),
            {"sample_dimension": "waveform"},
        ),
    }
    if by_unit is not None:
        variables["spikes_of_unit"] = xr.Variable(
            "unit", _row_sizes(by_unit), {"sample_dimension": "spike"}
        )
    dataset = xr.Dataset(variables)
    if table.waveform_rate is not None:
        dataset.attrs["fs"] = float(table.waveform_rate)
    return dataset


def series_dataset(series: Any, where: str, shift_s: float = 0.0) -> xr.Dataset:
    """Return a TimeSeries as ``data (time, ...)`` with ``time`` in s, without an index."""
    data, shape = series.data, np.shape(series.data)
    # A video has an empty array of three dimensions in the place of a file's frames.
    absent = data is None or (len(shape) == 3 and shape[0] == 0 and len(series.fields) > 0)
    variables: dict[str, Any] = {}
    coords: dict[str, xr.Variable] = {}
    attrs: dict[str, Any] = {"neurodata_type": type(series).__name__, "nwb_path": where}
    if not absent:
        dims = _dimensions(series, len(shape))
        variables["data"] = xr.Variable(dims, lazy_or_array(data), _physical(series))
        coords = _along_channels(series, dict(zip(dims, shape, strict=True)))
    if series.timestamps is not None:
        times = series.timestamps
        dim = "time" if absent or len(times) == shape[0] else "timestamp"
        found = np.asarray(times[:]) + shift_s if shift_s else lazy_or_array(times)
        coords = {dim: xr.Variable(dim, found, {"units": "s"}), **coords}
    elif series.rate is not None:
        attrs["fs"] = float(series.rate)
        if not absent:
            start = float(series.starting_time or 0.0) + shift_s
            clock = as_lazy(ClockArray(start, attrs["fs"], shape[0]))
            coords = {"time": xr.Variable("time", clock, {"units": "s"}), **coords}
            attrs["starting_time"] = start
    if getattr(series, "control", None) is not None and not absent:
        coords["control"] = xr.Variable("time", np.asarray(series.control[:]))
        attrs["control_description"] = [plain_value(x) for x in series.control_description]
    for name, value in series.fields.items():
        plain = None if name in _PLACED else plain_value(value)
        if plain is not None and plain not in ("no comments", "no description"):
            attrs[name] = plain
    return xr.Dataset(variables, xr.Coordinates(coords, indexes={}), attrs)


def _dimensions(series: Any, ndim: int) -> tuple[str, ...]:
    kinds = (each.__name__ for each in type(series).__mro__)
    known = next((_DIMENSIONS[kind] for kind in kinds if kind in _DIMENSIONS), ("channel",))
    others = (f"dimension_{axis}" for axis in range(len(known) + 1, ndim))
    return ("time", *known[: ndim - 1], *others)


def _physical(series: Any) -> dict[str, Any]:
    """Return the unit of the values, and what leads to them from those that are stored."""
    physical: dict[str, Any] = {"units": plain_value(series.unit)}
    for name, neutral in (("conversion", None), ("offset", 0.0), ("resolution", -1.0)):
        value = getattr(series, name, None)
        if value is not None and value != neutral:
            physical[name] = float(value)
    return physical


def _along_channels(series: Any, sizes: Mapping[str, int]) -> dict[str, xr.Variable]:
    """Return what is known of electrodes, regions, features and bands as coordinates."""
    coords: dict[str, xr.Variable] = {}
    region = getattr(series, "electrodes", None) or getattr(series, "rois", None)
    along = "channel" if "channel" in sizes else "roi" if "roi" in sizes else None
    if region is not None and along is not None and hasattr(region, "table"):
        rows = np.asarray(region.data[:])
        if rows.size == sizes[along]:
            ids = np.asarray(region.table.id.data[:])[rows]
            coords[along] = xr.Variable(along, ids)
            for name in region.table.colnames:
                values = region.table[name]
                plain = not hasattr(values, "target") and np.ndim(values.data) <= 1
                if plain and name not in ("time", "data", *sizes):
                    coords[name] = xr.Variable(along, column_values(values)[rows])
    factors = getattr(series, "channel_conversion", None)
    if factors is not None and len(factors) == sizes.get("channel"):
        coords["channel_conversion"] = xr.Variable("channel", np.asarray(factors[:]))
    features = getattr(series, "features", None)
    if features is not None and len(features) == sizes.get("feature"):
        coords["feature"] = xr.Variable(
            "feature", object_array([plain_value(x) for x in features])
        )
        units = object_array([plain_value(x) for x in series.feature_units])
        coords["feature_units"] = xr.Variable("feature", units)
    bands = getattr(series, "bands", None)
    if bands is not None and "band" in sizes and len(bands) == sizes["band"]:
        for name in bands.colnames:
            values = column_values(bands[name])
            coords[f"band_{name.removeprefix('band_')}"] = xr.Variable(
                "band" if values.ndim == 1 else ("band", f"{name}_side"), values
            )
    return coords


def array_of(obj: Any) -> Any:
    """Return the array of a ScratchData or an image."""
    data = lazy_or_array(obj.data)
    if isinstance(data, np.ndarray):
        return data[()] if data.ndim == 0 else data
    dims = [f"dim_{axis}" for axis in range(len(data.shape))]
    return xr.DataArray(xr.Variable(dims, data), name=obj.name)


def facts_of(container: Any) -> dict[str, Any]:
    """Return the simple fields of a container."""
    return {
        name: plain
        for name, value in container.fields.items()
        if (plain := plain_value(value)) is not None
    }


def plain_value(value: Any) -> Any:
    """Return a field as Python's own type; the name of another container."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(inner) for inner in value]
    if hasattr(value, "object_id"):
        return str(value.name)
    if hasattr(value, "shape"):
        array = np.asarray(value[()])
        return array if array.dtype.kind in "biufc" else [plain_value(x) for x in array.ravel()]
    return str(value)
