"""What an NWB file holds, each as labtree has it: tables, units, series, plain facts."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError, FormatError
from labtree.interop.lazy_arrays import ClockArray, lazy_or_array
from labtree.objects import spike_data
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.unit_attributes import column
from labtree.storage.dtypes import object_array
from labtree.storage.lazy import as_lazy

__all__ = [
    "Extent",
    "array_of",
    "column_values",
    "extents",
    "facts_of",
    "plain_value",
    "series_dataset",
    "table_frame",
    "table_item",
    "units_dataset",
    "waveforms_dataset",
]

_MS = 1000.0
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
    variables: dict[str, Any] = {}
    for name in others.columns:
        variables[str(name)] = ("row", others[name].to_numpy())
    for each in wide:
        data = lazy_or_array(each.data)
        dims = ("row", *(f"{each.name}_{axis}" for axis in range(1, np.ndim(each.data))))
        variables[each.name] = xr.Variable(dims, data, {"description": each.description})
    dataset = xr.Dataset(variables, {"row": others.index.to_numpy()})
    dataset.attrs["description"] = str(table.description)
    return dataset


def table_frame(table: Any, skip: Iterable[str] = ()) -> pd.DataFrame:
    """Return a table as a DataFrame whose index holds the ids of its rows."""
    ids = pd.Index(np.asarray(table.id.data[:]), name="id")
    skipped = set(skip)
    columns = {
        name: column_values(table[name]) for name in table.colnames if name not in skipped
    }
    frame = pd.DataFrame(
        {name: _plain_column(values) for name, values in columns.items()}, index=ids
    )
    about = {name: str(table[name].description) for name in columns}
    frame.attrs["description"] = str(table.description)
    frame.attrs["columns"] = about
    return frame


def column_values(source: Any) -> NDArray[Any]:
    """Return one value, array or list for each row of a column."""
    kind = type(source).__name__
    if hasattr(source, "target"):
        flat, ends = column_values(source.target), np.asarray(source.data[:]).astype(np.int64)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        pairs = zip(starts.tolist(), ends.tolist(), strict=True)
        if flat.dtype.kind == "O":
            return object_array([flat[start:end].tolist() for start, end in pairs])
        return object_array([flat[start:end] for start, end in pairs])
    if hasattr(source, "table") and "Region" in kind:
        rows = np.asarray(source.data[:])
        return np.asarray(np.asarray(source.table.id.data[:])[rows])
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
    index = table["spike_times"]
    ends = np.asarray(index.data[:]).astype(np.int64)
    times = np.asarray(index.target.data[:], dtype=np.float64) * _MS
    counts = np.diff(ends, prepend=0)
    if times.size != (ends[-1] if ends.size else 0) or (counts < 0).any():
        raise FormatError("spike_times and spike_times_index disagree")
    starts = ends - counts
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if np.any(np.diff(times[start:end]) < 0):
            times[start:end] = np.sort(times[start:end])
    begin, end, stated = _observed(table, times, known)
    attributes: dict[str, Any] = {}
    for name in table.colnames:
        if name not in ("spike_times", "obs_intervals", "waveforms"):
            attributes[name] = _attribute(column_values(table[name]))
    dataset = spike_data.assemble(
        times, counts, length=end - begin, start_time=begin, neuron_attributes=attributes
    )
    dataset.attrs["length_from"] = stated
    for name in attributes:
        if name in dataset.coords:
            dataset[name].attrs["description"] = str(table[name].description)
    if "unit_id" not in attributes:
        dataset = dataset.assign_coords(unit_id=("unit", np.asarray(table.id.data[:])))
    if table.resolution is not None and np.isfinite(table.resolution):
        dataset.attrs["resolution_s"] = float(table.resolution)
    if "obs_intervals" in table.colnames and ends.size:
        found = [
            np.asarray(each, float) * _MS for each in column_values(table["obs_intervals"])
        ]
        if any(not np.array_equal(each, [[begin, end]]) for each in found):
            dataset = dataset.assign_coords(obs_intervals_ms=("unit", object_array(found)))
    try:
        spike_data.validate(dataset)
    except DataError as error:
        del dataset.attrs[KIND_ATTRIBUTE]
        return dataset, f"read as a plain dataset, as it is no valid spike_data: {error}"
    return dataset, None


def _observed(
    table: Any, times: NDArray[np.float64], known: Iterable[Extent]
) -> tuple[float, float, str]:
    """Return start and end of the recording in ms, and what says so; no spike lies outside."""
    spikes = times[np.isfinite(times)]
    first, last = (spikes.min(), spikes.max()) if spikes.size else (0.0, 0.0)
    begin, end, stated = 0.0, 0.0, "the last spike"
    if "obs_intervals" in table.colnames:
        intervals = table["obs_intervals"].target.data[:]
        found = np.asarray(intervals, dtype=np.float64).ravel() * _MS
        finite = found[np.isfinite(found)]
        if finite.size:
            begin, end, stated = finite.min(), finite.max(), "obs_intervals"
    if stated != "obs_intervals":
        # What begins after the last spike counts from another zero, as unix time does.
        beside = [each for each in known if each.start_s * _MS <= max(last, 0.0)]
        longest = max(beside, key=lambda each: each.stop_s, default=None)
        if longest is not None and longest.stop_s * _MS > 0:
            begin = min(0.0, *(each.start_s * _MS for each in beside))
            end, stated = longest.stop_s * _MS, longest.what
    if last > end:
        stated = "the last spike"
    return float(min(begin, first)), float(max(end, last)), stated


def _attribute(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.dtype.kind == "O":
        return column(list(values))
    return values


def waveforms_dataset(table: Any) -> xr.Dataset:
    """Return single waveforms over ``waveform``, with the counts of each spike and unit."""
    by_spike = table["waveforms"]
    by_unit = None
    inner = by_spike.target
    if hasattr(inner, "target"):
        by_unit, by_spike = by_spike, inner
        inner = by_spike.target
    data = lazy_or_array(inner.data)
    dims = ("waveform", *("sample", "channel")[: np.ndim(inner.data) - 1])
    attrs = {"units": "volts"}
    variables: dict[str, Any] = {"waveforms": xr.Variable(dims, data, attrs)}
    counts = np.diff(np.asarray(by_spike.data[:]).astype(np.int64), prepend=0)
    along = "spike" if by_unit is not None else "unit"
    ragged = {"sample_dimension": "waveform"}
    variables["row_size"] = xr.Variable(along, counts, ragged)
    if by_unit is not None:
        ends = np.asarray(by_unit.data[:]).astype(np.int64)
        variables["spikes_of_unit"] = xr.Variable(
            "unit", np.diff(ends, prepend=0), {"sample_dimension": "spike"}
        )
    dataset = xr.Dataset(variables)
    if table.waveform_rate is not None:
        dataset.attrs["fs"] = float(table.waveform_rate)
    return dataset


def series_dataset(series: Any, where: str, shift_s: float = 0.0) -> xr.Dataset:
    """Return a TimeSeries as ``data (time, ...)`` with ``time`` in s, without an index."""
    kind = next(
        (each.__name__ for each in type(series).__mro__ if each.__name__ in _DIMENSIONS), ""
    )
    data = series.data
    shape = np.shape(data)
    absent = data is None or (len(shape) == 3 and shape[0] == 0 and len(series.fields) > 0)
    variables: dict[str, Any] = {}
    coords: dict[str, xr.Variable] = {}
    attrs: dict[str, Any] = {"neurodata_type": type(series).__name__, "nwb_path": where}
    if not absent:
        more = _DIMENSIONS.get(kind, ("channel",))
        dims = [*more[: len(shape) - 1]]
        dims += [f"dimension_{axis}" for axis in range(len(dims) + 1, len(shape))]
        physical: dict[str, Any] = {"units": plain_value(series.unit)}
        for name, neutral in (("conversion", None), ("offset", 0.0), ("resolution", -1.0)):
            value = getattr(series, name, None)
            if value is not None and value != neutral:
                physical[name] = float(value)
        variables["data"] = xr.Variable(("time", *dims), lazy_or_array(data), physical)
    if series.timestamps is not None:
        times = series.timestamps
        dim = "time" if absent or len(times) == shape[0] else "timestamp"
        found = np.asarray(times[:]) + shift_s if shift_s else lazy_or_array(times)
        coords[dim] = xr.Variable(dim, found, {"units": "s"})
    elif series.rate is not None and not absent:
        start, rate = float(series.starting_time or 0.0) + shift_s, float(series.rate)
        clock = as_lazy(ClockArray(start, rate, shape[0]))
        coords["time"] = xr.Variable("time", clock, {"units": "s"})
        attrs["fs"] = rate
        attrs["starting_time"] = start
    elif series.rate is not None:
        attrs["fs"] = float(series.rate)
    if not absent:
        coords |= _along_channels(series, dict(zip(("time", *dims), shape, strict=True)))
    if getattr(series, "control", None) is not None and not absent:
        coords["control"] = xr.Variable("time", np.asarray(series.control[:]))
        attrs["control_description"] = [plain_value(x) for x in series.control_description]
    for name, value in series.fields.items():
        plain = None if name in _PLACED else plain_value(value)
        if plain is not None and plain not in ("no comments", "no description"):
            attrs[name] = plain
    return xr.Dataset(variables, xr.Coordinates(coords, indexes={}), attrs)


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
