"""Read an NWB file into a workspace: units, tables and series, large arrays lazily."""

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError, FormatError, LossWarning, MissingFileError
from labtree.interop.lazy_arrays import ClockArray, lazy_or_array
from labtree.interop.nwb.columns import restored
from labtree.objects import spike_data
from labtree.objects.pairwise import pairwise_matrix, pairwise_stack
from labtree.objects.rate_data import rate_data
from labtree.objects.unit_attributes import ABSENT, column, masked_column
from labtree.optional import require
from labtree.storage._xarray import data_of
from labtree.storage.lazy import as_lazy
from labtree.workspace.state import mark_saved
from labtree.workspace.verbs import create_workspace, store_item

__all__ = ["import_nwb", "is_nwb"]

_PURPOSE = "reading NWB files"
_MS = 1000.0
_MOST_JSON = 64 * 2**20
_FACTS = (
    "session_description", "identifier", "session_start_time", "timestamps_reference_time",
    "session_id", "experimenter", "experiment_description", "institution", "lab", "keywords",
    "notes", "pharmacology", "protocol", "related_publications", "slices", "source_script",
    "source_script_file_name", "was_generated_by", "data_collection", "surgery", "virus",
    "stimulus_notes",
)  # fmt: skip
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


def import_nwb(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read an NWB file, HDF5 or zarr, into a workspace.

    Parameters
    ----------
    path : path-like
        A file, or a folder in NWB's zarr layout (which needs the library hdmf-zarr).

    Returns
    -------
    DataTree
        A workspace. The namespace that is called like the file, without its ending, holds
        ``units`` (a ``spike_data`` in ms with every column of the table), ``electrodes``,
        ``trials`` and other intervals as DataFrames with times in s, and each series of
        acquisition and stimulus under its name. Each processing module is a namespace.
        Series are Datasets with the variable ``data``, as stored, and ``time`` in s; the
        attributes ``units``, ``conversion`` and ``offset`` of ``data`` lead to physical
        values. Arrays above 1 MiB stay in the file until they are indexed; ``close()`` of
        the tree closes it. Facts of session and subject are attributes of the root.

    Raises
    ------
    MissingFileError
        A FileNotFoundError, if there is no such file.
    FormatError
        A ValueError, if pynwb cannot read the file.
    MissingDependencyError
        A ModuleNotFoundError, if pynwb, or hdmf-zarr for zarr, is not installed.

    Warns
    -----
    LossWarning
        If a part could not be read; the list stays in ``tree.attrs["nwb_problems"]``.

    Notes
    -----
    Times of spikes are multiplied by 1000, which may round the last bit. Where a file
    comes from :func:`labtree.export_nwb`, its items come back under their own namespaces
    and keys, with their notes.

    Examples
    --------
    >>> import labtree
    >>> tree = labtree.import_nwb("sub-1_ses-2.nwb")  # doctest: +SKIP
    >>> tree.ws["sub-1_ses-2", "units"]  # doctest: +SKIP
    >>> tree["sub-1_ses-2/ElectricalSeries"].data[:1000]  # doctest: +SKIP
    """
    source = Path(path)
    if not source.exists():
        raise MissingFileError(f"there is no file {source}")
    if not (source.is_file() or source.is_dir()):
        raise FormatError(f"{source} is neither a file nor a folder")
    with _quiet():
        io = _open(source)
        try:
            file = io.read()
        except Exception as error:  # a damaged file fails anywhere in hdmf
            io.close()
            raise FormatError(
                f"{source} cannot be read as NWB: {error or type(error).__name__}"
            ) from error
        tree = create_workspace(source.stem)
        reader = _Reader(source, file)
        try:
            reader.read()
            problems = reader.problems + reader.store(tree)
        except BaseException:
            io.close()
            raise
    tree.attrs.update(reader.facts)
    tree.set_close(io.close)
    if problems:
        tree.attrs["nwb_problems"] = problems
        listed = "\n".join(problems)
        warnings.warn(
            f"{source}: not everything could be read:\n{listed}", LossWarning, stacklevel=2
        )
    mark_saved(tree)  # it is on the disk, in the other format
    return tree


def is_nwb(path: Path) -> bool:
    """Whether a file or folder says that it is NWB; pynwb is not needed."""
    if path.is_dir():
        for name in ("zarr.json", ".zattrs"):
            with contextlib.suppress(OSError, ValueError, RecursionError):
                found = json.loads((path / name).read_bytes())
                attributes = found.get("attributes", {}) if name == "zarr.json" else found
                if "nwb_version" in attributes:
                    return True
        return False
    with contextlib.suppress(OSError), h5py.File(path, "r") as file:
        return "nwb_version" in file.attrs
    return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence pynwb's warnings about cached namespaces and old versions of the format."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(path: Path) -> Any:
    if path.is_dir():
        zarr = require("hdmf_zarr", purpose="reading NWB files in zarr", extra="nwb-zarr")
        _check_zarr_links(path)
        reader: Callable[..., Any] = zarr.NWBZarrIO
        where: Any = str(path)
    else:
        pynwb = require("pynwb", purpose=_PURPOSE, extra="nwb")
        _check_links(path)
        reader, where = pynwb.NWBHDF5IO, path
    try:
        return reader(where, mode="r", load_namespaces=True)
    except Exception as error:
        raise FormatError(f"{path} cannot be read as NWB: {error}") from error


def _check_zarr_links(path: Path) -> None:
    """Refuse a zarr folder whose links lead outside of the folder that it lies in."""
    folder = path.resolve().parent
    outside: list[str] = []

    def sources(found: Any) -> Iterator[str]:
        if isinstance(found, dict):
            if isinstance(found.get("source"), str) and "path" in found:
                yield found["source"]
            for inner in found.values():
                yield from sources(inner)
        elif isinstance(found, list):
            for inner in found:
                yield from sources(inner)

    for name in (*path.rglob(".zattrs"), *path.rglob("zarr.json")):
        try:
            if not name.is_file() or name.stat().st_size > _MOST_JSON:
                raise ValueError("no regular file of at most 64 MiB")
            outside += [
                f"{name.relative_to(path)} -> {source}"
                for source in sources(json.loads(name.read_bytes()))
                if not (path.resolve() / source).resolve().is_relative_to(folder)
            ]
        except (OSError, ValueError, RecursionError) as error:
            raise FormatError(f"{name} cannot be read: {error}") from error
    if outside:
        raise FormatError(
            f"{path} leads to files outside of its folder, which are not opened: "
            + ", ".join(outside[:5])
        )


def _check_links(path: Path) -> None:
    """Refuse a file that would make HDF5 open files outside of its folder."""
    folder = path.resolve().parent
    outside: list[str] = []

    def inside(target: str) -> bool:
        return (folder / target).resolve().is_relative_to(folder)

    def look(name: bytes, info: Any) -> None:
        if info.type == h5py.h5l.TYPE_EXTERNAL:
            target = os.fsdecode(root.links.get_val(name)[0])
            if not inside(target):
                outside.append(f"{name.decode('utf-8', 'replace')} -> {target}")

    def look_at_dataset(name: str, obj: Any) -> None:
        if isinstance(obj, h5py.Dataset):
            files = [each[0] for each in obj.external or ()]
            if obj.is_virtual:
                files += [each.file_name for each in obj.virtual_sources()]
            outside.extend(f"{name} -> {each}" for each in files if not inside(each))

    try:
        with h5py.File(path, "r") as file:
            root = file.id
            root.links.visit(look, info=True)
            file.visititems(look_at_dataset)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as NWB: {error}") from error
    if outside:
        raise FormatError(
            f"{path} leads to files outside of its folder, which are not opened: "
            + ", ".join(outside[:5])
        )


class Place(NamedTuple):
    """Where an item of labtree's own export was, by its path in the NWB file."""

    namespace: str
    key: str
    kind: str
    note: str | None
    created_at: float
    offset_ms: float
    types: dict[str, Any]


class _Reader:
    """Collects the items of one file; what cannot be read is listed."""

    def __init__(self, path: Path, file: Any) -> None:
        self.file, self.name = file, path.stem
        self.problems: list[str] = []
        self.items: dict[str, tuple[str, str, Any]] = {}
        self.skipped: set[str] = set()
        self.taken: set[tuple[str, str]] = set()
        self.facts: dict[str, Any] = {}
        self.places: dict[str, Place] = {}
        self.metadata: dict[tuple[str, str], Any] = {}

    def store(self, tree: xr.DataTree) -> list[str]:
        """Store what was read; return a line for each item that cannot be kept."""
        problems = []
        for where, (namespace, key, obj) in self.items.items():
            place = self.places.get(where)
            try:
                if place is None:
                    store_item(tree, namespace, key, obj)
                else:
                    namespace, key = place.namespace, place.key
                    created = place.created_at
                    store_item(tree, namespace, key, obj, note=place.note, created_at=created)
            except (TypeError, ValueError) as error:
                problems.append(f"{where}: left out: {error}")
        return problems

    def read(self) -> None:
        """Read everything."""
        file = self.file
        self.facts = {
            name: value
            for name in _FACTS
            if (value := _plain(getattr(file, name, None))) is not None
        }
        if file.subject is not None:
            self.facts["subject"] = _facts(file.subject)
        if len(file.lab_meta_data):
            self.facts["lab_meta_data"] = {
                each.name: _facts(each) for each in file.lab_meta_data.values()
            }
        own = self.name
        self._own_tables()
        if file.units is not None:
            self._add_units("/units", own, file.units)
        if file.electrodes is not None:
            where = "/general/extracellular_ephys/electrodes"
            self._add(where, own, "electrodes", table_frame, file.electrodes)
        for kind in ("devices", "electrode_groups", "imaging_planes", "icephys_electrodes"):
            found = getattr(file, kind, None)
            if found:
                facts = {each.name: _facts(each) for each in found.values()}
                self._add(f"/general/{kind}", own, kind, dict, facts)
        for name in ("trials", "epochs", "invalid_times"):
            table = getattr(file, name)
            if table is not None:
                self._add(f"/intervals/{name}", own, name, table_frame, table)
        for group in ("intervals", "events", "acquisition", "stimulus", "stimulus_template"):
            for each in (getattr(file, group, None) or {}).values():
                self._container(f"/{group}/{each.name}", own, each)
        for group in ("analysis", "scratch"):
            for each in (getattr(file, group, None) or {}).values():
                self._container(f"/{group}/{each.name}", group, each)
        for module in file.processing.values():
            namespace = module.name if module.name != own else f"{module.name}_processing"
            for each in module.data_interfaces.values():
                where = f"/processing/{module.name}/{each.name}"
                self._container(where, namespace, each)
        for name in ("sweep_table", "intracellular_recordings"):
            table = getattr(file, name, None)
            if table is not None:
                self._add(f"/general/{name}", own, name, table_frame, table)

    def _add(
        self, where: str, namespace: str, key: str, read: Callable[[Any], Any], source: Any
    ) -> None:
        if where in self.items or where in self.skipped:
            return
        place = self.places.get(where)
        try:
            if place is None:
                obj = read(source)
            else:
                leaves = self.metadata.get((place.namespace, place.key))
                obj = _own_item(source, where, place, _nested(leaves) if leaves else None)
        except Exception as error:  # a damaged file fails anywhere in hdmf and h5py
            self.problems.append(f"{where}: left out: {error or type(error).__name__}")
            return
        unique, parent = key, where.split("/")[-2]
        if (namespace, unique) in self.taken:
            unique = f"{parent}_{key}"
        while (namespace, unique) in self.taken:
            unique += "_"
        self.taken.add((namespace, unique))
        self.items[where] = (namespace, unique, obj)

    def _container(self, where: str, namespace: str, obj: Any) -> None:
        kinds = [each.__name__ for each in type(obj).__mro__]
        if "TimeSeries" in kinds:
            self._add(where, namespace, obj.name, lambda each: _series(each, where), obj)
        elif "Units" in kinds:
            self._add_units(where, namespace, obj)
        elif "DynamicTable" in kinds:
            self._add(where, namespace, obj.name, table_item, obj)
        elif "ScratchData" in kinds or "Image" in kinds:
            self._add(where, namespace, obj.name, _array, obj)
        else:
            inner = [child for child in obj.children if child.name != obj.name]
            if not inner:
                self._add(where, namespace, obj.name, _facts, obj)
            for child in inner:
                self._container(f"{where}/{child.name}", namespace, child)

    def _add_units(self, where: str, namespace: str, table: Any) -> None:
        self._add(where, namespace, table.name, self._units, table)
        if {"waveforms", "spike_times"} <= set(table.colnames):
            key = f"{table.name}_waveforms"
            self._add(f"{where}/waveforms", namespace, key, _waveforms, table)

    def _units(self, table: Any) -> xr.Dataset | pd.DataFrame:
        if "spike_times" not in table.colnames:
            return table_frame(table)
        dataset, problem = _spike_data(table)
        if problem:
            self.problems.append(f"units {table.name!r}: {problem}")
        return dataset

    def _own_tables(self) -> None:
        """Read where labtree's export put what, and what it knew of each item."""
        module = self.file.processing.get("labtree") if self.file.processing else None
        found = {} if module is None else module.data_interfaces
        table, metadata = found.get("workspace"), found.get("metadata")
        if table is None or "nwb_path" not in getattr(table, "colnames", ()):
            return
        where = "/processing/labtree/"
        text = (self.file.scratch or {}).get("labtree_types")
        types = {} if text is None else json.loads(_text_of(text.data))
        self.skipped.add("/scratch/labtree_types")
        row: Any
        for row in table_frame(table).itertuples():
            self.places[str(row.nwb_path)] = Place(
                str(row.item_namespace), str(row.item_key), str(row.kind),
                str(row.note) or None, float(row.stored_at), float(row.clock_offset_ms),
                types.get(str(row.nwb_path), {}),
            )  # fmt: skip
        self.skipped.add(where + "workspace")
        if metadata is not None:
            self.skipped.add(where + "metadata")
            for row in table_frame(metadata).itertuples():
                place = str(row.item_namespace), str(row.item_key)
                leaves = self.metadata.setdefault(place, [])
                leaves.append((json.loads(row.metadata_path), json.loads(row.metadata_value)))


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
    columns = {name: _column(table[name]) for name in table.colnames if name not in skipped}
    frame = pd.DataFrame(
        {name: _plain_column(values) for name, values in columns.items()}, index=ids
    )
    about = {name: str(table[name].description) for name in columns}
    frame.attrs["description"] = str(table.description)
    frame.attrs["columns"] = about
    return frame


def _plain_column(values: NDArray[Any]) -> Any:
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        return pd.array(values.tolist(), dtype="str") if len(values) else values
    if values.ndim > 1:
        return _objects(list(values))
    return values


def _column(source: Any) -> NDArray[Any]:
    """Return one value, array or list for each row of a column."""
    kind = type(source).__name__
    if hasattr(source, "target"):
        flat, ends = _column(source.target), np.asarray(source.data[:]).astype(np.int64)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        pairs = zip(starts.tolist(), ends.tolist(), strict=True)
        if flat.dtype.kind == "O":
            return _objects([flat[start:end].tolist() for start, end in pairs])
        return _objects([flat[start:end] for start, end in pairs])
    if hasattr(source, "table") and "Region" in kind:
        rows = np.asarray(source.data[:])
        return np.asarray(np.asarray(source.table.id.data[:])[rows])
    if hasattr(source, "elements") and source.elements is not None:
        names = np.array([_plain(name) for name in source.elements.data[:]], object)
        return np.asarray(names[np.asarray(source.data[:])])
    data = source.data
    values = data[:] if hasattr(data, "__getitem__") else data
    if kind == "TimeSeriesReferenceVectorData":
        return _objects([_reference(each) for each in values])
    if isinstance(values, np.ndarray) and values.dtype.kind in "biufcV":
        return values
    return _objects([_plain(each) for each in values])


def _objects(values: list[Any]) -> NDArray[Any]:
    out = np.empty(len(values), object)
    for at, value in enumerate(values):
        out[at] = value
    return out


def _reference(found: Any) -> str:
    start, count, series = found
    return f"{series.name}[{int(start)}:{int(start) + int(count)}]"


def _spike_data(table: Any) -> tuple[xr.Dataset, str | None]:
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
    begin, end = _observed(table, times)
    attributes: dict[str, Any] = {}
    for name in table.colnames:
        if name not in ("spike_times", "obs_intervals", "waveforms"):
            attributes[name] = _attribute(_column(table[name]))
    dataset = spike_data.assemble(
        times, counts, length=end - begin, start_time=begin, neuron_attributes=attributes
    )
    for name in attributes:
        if name in dataset.coords:
            dataset[name].attrs["description"] = str(table[name].description)
    if "unit_id" not in attributes:
        dataset = dataset.assign_coords(unit_id=("unit", np.asarray(table.id.data[:])))
    if table.resolution is not None and np.isfinite(table.resolution):
        dataset.attrs["resolution_s"] = float(table.resolution)
    if "obs_intervals" in table.colnames and ends.size:
        found = [np.asarray(each, float) * _MS for each in _column(table["obs_intervals"])]
        if any(not np.array_equal(each, [[begin, end]]) for each in found):
            dataset = dataset.assign_coords(obs_intervals_ms=("unit", _objects(found)))
    try:
        spike_data.validate(dataset)
    except DataError as error:
        del dataset.attrs["labtree_kind"]
        return dataset, f"read as a plain dataset, as it is no valid spike_data: {error}"
    return dataset, None


def _observed(table: Any, times: NDArray[np.float64]) -> tuple[float, float]:
    """Return start and end of the recording in ms, so that every spike lies within."""
    bounds = [0.0]
    if "obs_intervals" in table.colnames:
        intervals = table["obs_intervals"].target.data[:]
        found = np.asarray(intervals, dtype=np.float64).ravel() * _MS
        finite = found[np.isfinite(found)]
        if finite.size:
            bounds = [finite.min(), finite.max()]
    finite = times[np.isfinite(times)]
    if finite.size:
        bounds += [finite.min(), finite.max()]
    return float(min(bounds)), float(max(bounds))


def _attribute(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.dtype.kind == "O":
        return column(list(values))
    return values


def _waveforms(table: Any) -> xr.Dataset:
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


def _series(series: Any, where: str, shift_s: float = 0.0) -> xr.Dataset:
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
        physical: dict[str, Any] = {"units": _plain(series.unit)}
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
        attrs["control_description"] = [_plain(x) for x in series.control_description]
    for name, value in series.fields.items():
        plain = None if name in _PLACED else _plain(value)
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
                    coords[name] = xr.Variable(along, _column(values)[rows])
    factors = getattr(series, "channel_conversion", None)
    if factors is not None and len(factors) == sizes.get("channel"):
        coords["channel_conversion"] = xr.Variable("channel", np.asarray(factors[:]))
    features = getattr(series, "features", None)
    if features is not None and len(features) == sizes.get("feature"):
        coords["feature"] = xr.Variable("feature", _objects([_plain(x) for x in features]))
        units = _objects([_plain(x) for x in series.feature_units])
        coords["feature_units"] = xr.Variable("feature", units)
    bands = getattr(series, "bands", None)
    if bands is not None and "band" in sizes and len(bands) == sizes["band"]:
        for name in bands.colnames:
            values = _column(bands[name])
            coords[f"band_{name.removeprefix('band_')}"] = xr.Variable(
                "band" if values.ndim == 1 else ("band", f"{name}_side"), values
            )
    return coords


def _array(obj: Any) -> Any:
    """Return the array of a ScratchData or an image."""
    data = lazy_or_array(obj.data)
    if isinstance(data, np.ndarray):
        return data[()] if data.ndim == 0 else data
    dims = [f"dim_{axis}" for axis in range(len(data.shape))]
    return xr.DataArray(xr.Variable(dims, data), name=obj.name)


def _facts(container: Any) -> dict[str, Any]:
    """Return the simple fields of a container."""
    return {
        name: plain
        for name, value in container.fields.items()
        if (plain := _plain(value)) is not None
    }


def _plain(value: Any) -> Any:
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
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "object_id"):
        return str(value.name)
    if hasattr(value, "shape"):
        array = np.asarray(value[()])
        return array if array.dtype.kind in "biufc" else [_plain(x) for x in array.ravel()]
    return str(value)


def _own_item(source: Any, where: str, place: Place, metadata: Any) -> Any:
    """Return an item of labtree's export as it was before."""
    about, shift = place.types, place.offset_ms
    if place.kind == "spike_data":
        return _own_units(source, about, shift, metadata)
    if place.kind == "rate_data":
        records = json.loads(source.comments)["unit_attributes"]
        rates = _series(source, where)
        times = rates["time"].values * _MS + shift
        unit = None if source.unit == "unknown" else source.unit
        values = rates["data"].values.T
        return rate_data(values, times, unit=unit, neuron_attributes=records)
    if place.kind == "series":
        return _own_series(_series(source, where, shift / _MS), about)
    if place.kind in ("pairwise_matrix", "pairwise_stack"):
        values = np.asarray(source["matrix"].data[:])
        if "imaginary" in source.colnames:
            values = values + 1j * np.asarray(source["imaginary"].data[:])
        labels = None
        if "label" in about:
            labels = restored(_column(source["label"]), about["label"])
        if place.kind == "pairwise_matrix":
            matrix = pairwise_matrix(values, labels=labels, metadata=metadata)
        else:
            matrix = pairwise_stack(
                values, labels=labels, times=about.get("times"), metadata=metadata
            )
        return matrix.assign_attrs(about["attrs"])
    if place.kind in ("table", "trials"):
        return _own_frame(source, about, shift / _MS) if about else table_frame(source)
    return _array(source)


def _text_of(data: Any) -> str:
    value = np.asarray(data[()] if hasattr(data, "shape") else data).item()
    return str(_plain(value))


def _own_units(table: Any, about: dict[str, Any], shift: float, metadata: Any) -> xr.Dataset:
    counts: Any = np.empty(0, np.int64)
    times = np.empty(0)
    if "spike_times" in table.colnames:
        index = table["spike_times"]
        counts = np.diff(np.asarray(index.data[:]).astype(np.int64), prepend=0)
        times = np.asarray(index.target.data[:], np.float64) * _MS + shift
    attributes = {
        kept["name"]: _own_column(_column(table[name]), kept)
        for name, kept in about["columns"].items()
        if name in table.colnames
    }
    attrs = about["attrs"]
    dataset = spike_data.assemble(
        times,
        counts,
        length=attrs["length"],
        start_time=attrs["start_time"],
        neuron_attributes=attributes,
        metadata=metadata,
    ).assign_attrs(attrs)
    if "unit_id" in about:
        ids = np.asarray(table.id.data[:]).astype(about["unit_id"])
        dataset = dataset.assign_coords(unit_id=("unit", ids))
    return dataset


def _own_column(values: Any, kept: dict[str, Any]) -> Any:
    if values.dtype.kind == "O" and "form" not in kept and len(values):
        values = np.stack(list(values))  # rows of one length, which NWB holds as lists
    back = restored(values, kept)
    missing = np.zeros(len(back), bool)
    missing[kept.get("missing", [])] = True
    if back.dtype.kind == "O":
        pairs = zip(back, missing, strict=True)
        return column([ABSENT if gap else value for value, gap in pairs])
    return masked_column(back, missing)


def _own_series(series: xr.Dataset, about: dict[str, Any]) -> xr.Dataset:
    data = series["data"].variable
    variable = xr.Variable(about["dims"], data_of(data), about["data"])  # stays in the file
    coords: dict[str, Any] = {"time": series["time"].variable}
    if "channel" in about:
        values, kept = about["channel"]
        coords["channel"] = xr.Variable("channel", restored(np.asarray(values), kept))
    for name, coord in series.coords.items():
        if name not in ("time", "channel", "channel_name", "group", "group_name", "location"):
            coords[str(name)] = coord.variable
    return xr.Dataset({"data": variable}, xr.Coordinates(coords, indexes={}), about["attrs"])


def _own_frame(table: Any, about: dict[str, Any], shift_s: float) -> pd.DataFrame:
    columns: dict[int, Any] = {}
    names: list[Any] = [None] * len(about["columns"])
    for nwb_name, kept in about["columns"].items():
        values = _column(table[nwb_name])
        if nwb_name in ("start_time", "stop_time", "timestamp") and "form" not in kept:
            values = values + shift_s
        columns[kept["at"]] = restored(values, kept)
        names[kept["at"]] = kept["name"]
    frame = pd.DataFrame({at: columns[at] for at in sorted(columns)})
    tuples = [tuple(name) if isinstance(name, list) else name for name in names]
    several = bool(tuples) and all(isinstance(name, tuple) for name in tuples)
    if tuples:
        frame.columns = pd.MultiIndex.from_tuples(tuples) if several else pd.Index(tuples)
    index = about.get("index")
    if index is not None:
        kind, name, dtype = index
        if kind == "id":
            frame.index = pd.Index(np.asarray(table.id.data[:]).astype(dtype), name=name)
        else:
            first = frame.columns[0]
            frame = frame.set_index(first)
            frame.index.name = name
    frame.attrs = about.get("attrs", {})
    return frame


def _nested(leaves: list[tuple[list[Any], Any]]) -> dict[str, Any]:
    """Return nested metadata from the paths and values of its leaves."""
    out: dict[str, Any] = {}
    for path, value in leaves:
        node: Any = out
        for step, following in zip(path, [*path[1:], None], strict=True):
            if following is None:
                new: Any = value
            else:
                new = [] if isinstance(following, int) else {}
            if isinstance(node, list):
                if step == len(node):
                    node.append(new)
            else:
                node.setdefault(step, new)
            node = node[step]
    return out
