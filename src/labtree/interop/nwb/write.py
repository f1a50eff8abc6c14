"""Write a workspace or session as an NWB file.

NWB counts in seconds from the start of the session. If anything starts before 0, the
session starts that much earlier, and all times are counted from there.
"""

import json
import os
import uuid
import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.interop.common import MS_PER_S, VOLTS, warn_of_losses
from labtree.interop.nwb.electrodes import Electrodes, is_table_of_electrodes
from labtree.interop.nwb.exact_columns import as_json, for_nwb
from labtree.interop.nwb.exported_items import ExportedItem, sources_of
from labtree.interop.nwb.item_tables import Row, table_of_items, table_of_metadata
from labtree.interop.nwb.tables import (
    PURPOSE,
    Columns,
    hdmf_common,
    nwb_name,
    reserved_names,
    role_of,
    table_of,
    unused,
)
from labtree.interop.workspaces import check_export_target
from labtree.msw.trial_times import ATTRIBUTE as TRIALS
from labtree.objects import pairwise, rate_data, registry, spike_data
from labtree.objects.unit_attributes import alike, attribute_columns, unit_attributes
from labtree.optional import require
from labtree.storage.files import replace_file, temporary_path

_MODULES = {
    "ecephys": "Spike trains and firing rates",
    "labtree": "Tables and matrices of a labtree workspace, and where its items are",
}
_FACTS = (
    "experimenter", "experiment_description", "institution", "lab", "keywords", "notes",
    "pharmacology", "protocol", "related_publications", "slices", "source_script",
    "source_script_file_name", "was_generated_by", "data_collection", "surgery", "virus",
    "stimulus_notes",
)  # fmt: skip


def export_nwb(
    tree: xr.DataTree,
    path: str | os.PathLike[str],
    *,
    session_start_time: datetime | None = None,
    session_description: str | None = None,
    subject: Mapping[str, Any] | None = None,
    resolution: float | None = None,
    **fields: Any,
) -> Path:
    """Write a workspace or session as an NWB file.

    Parameters
    ----------
    tree : DataTree
        A workspace, a recording, a Murine Shift Work session, or a pipeline session.
    path : path-like
        Ends in ``.nwb``. A file that exists is replaced once the new one is whole.
    session_start_time : datetime, optional
        The moment of 0 ms, with a time zone; by default what the tree knows, or else the
        time at which the workspace was created. Without a zone, what a session knows is
        taken for local time.
    session_description : str, optional
        By default what the tree knows, or its name.
    subject : mapping, optional
        Fields of ``pynwb.file.Subject``, such as subject_id, species, sex and age.
    resolution : float, optional
        Smallest difference between two spike times in s, which is one over the sampling
        rate; by default that of the raw data or of the sorting. Where it is not known,
        none is written.
    **fields
        Further fields of ``pynwb.NWBFile``, such as experimenter, lab, institution,
        keywords and experiment_description.

    Returns
    -------
    Path

    Raises
    ------
    DataError
        A ValueError, if there is nothing that NWB can hold, the start has no time zone, or
        `path` is the tree's own file.
    MissingFileError, AlreadyExistsError
        An OSError, if there is no such folder, or `path` is one.

    Warns
    -----
    LossWarning
        If NWB cannot hold something in the tree.

    Notes
    -----
    The one ``spike_data`` of a workspace becomes the table ``units``; of several, each
    becomes a Units table in the processing module ``ecephys``, where rates become
    TimeSeries. Trial tables and tables with the columns start_time and stop_time become
    intervals, the states of a trial table further intervals and its events a table of
    events. Streams and series become TimeSeries of the acquisition, those in volts
    ElectricalSeries, written block by block. The processing module ``labtree`` holds other
    tables, pairwise matrices, and the table ``workspace``, by which
    :func:`labtree.import_nwb` finds namespaces, keys, notes and types again.

    Examples
    --------
    >>> import labtree
    >>> tree = labtree.create_workspace("pilot")
    >>> tree.ws.store("rec1", "units", labtree.spike_data([[1.0, 2.5], [3.0]], length=10))
    >>> labtree.export_nwb(tree, "pilot.nwb")  # doctest: +SKIP
    """
    pynwb = require("pynwb", purpose=PURPOSE, extra="nwb")
    require("pynwb.event", purpose=PURPOSE, extra="nwb")
    target = Path(path)
    check_export_target(tree, target)
    source = sources_of(tree)
    start = session_start_time or source.start
    if start.tzinfo is None:
        raise DataError(
            "session_start_time needs a time zone: datetime(..., tzinfo=datetime.UTC)"
        )
    writer = _Writer(pynwb, source.items, resolution, is_workspace=source.is_workspace)
    if not writer.items:
        found = ", ".join(source.others[:10]) or "nothing"
        raise DataError(f"there is nothing to export that NWB can hold; found {found}")
    known: Any = {name: tree.attrs[name] for name in _FACTS if name in tree.attrs}
    about = tree.attrs.get("subject")
    given = subject or (about if isinstance(about, Mapping) else source.subject)
    file = pynwb.NWBFile(
        session_description=session_description or source.description,
        identifier=str(tree.attrs.get("identifier") or uuid.uuid4()),
        session_start_time=start + timedelta(milliseconds=writer.zero),
        session_id=source.session_id,
        subject=pynwb.file.Subject(**_subject(given)) if given else None,
        **(known | fields),
    )
    writer.write(file)
    writer.losses[:0] = [f"{name}: NWB cannot hold it" for name in source.others]
    with temporary_path(target) as new:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the file's own checks suggest
            try:
                with pynwb.NWBHDF5IO(new, "w") as io:
                    io.write(file)
            except (TypeError, ValueError) as error:
                raise DataError(f"{target} was not written: {error}") from error
        replace_file(new, target)
    warn_of_losses(writer.losses, "NWB cannot hold all of it")
    return target


def _subject(given: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(given)
    if isinstance(fields.get("date_of_birth"), str):
        fields["date_of_birth"] = datetime.fromisoformat(fields["date_of_birth"])
    return fields


class _Writer:
    """Fills an NWB file with items, and keeps where each went."""

    def __init__(
        self, pynwb: Any, items: list[ExportedItem], resolution: float | None,
        *, is_workspace: bool,
    ) -> None:  # fmt: skip
        self.pynwb = pynwb
        self.items, self.resolution = items, resolution
        self.losses: list[str] = []
        self.names: set[str] = {"workspace", "metadata", "labtree_types"}
        self.rows: list[Row] = []
        for item in items:
            if item.kind in (spike_data.KIND, rate_data.KIND):
                registry.validate(item.obj)
        firsts = list(map(_first_ms, items))
        self.zero = min([0.0, *firsts])
        if not is_workspace and any(item.kind == "series" for item in items):
            # A recording's clock starts anywhere; NWB's at the session's start.
            self.zero = min(firsts) if np.isfinite(min(firsts)) else 0.0

    def write(self, file: Any) -> None:
        """Put all items into a file, and a table that says where each went."""
        self.file = file
        kept = next(filter(is_table_of_electrodes, reversed(self.items)), None)
        self.electrodes = Electrodes(file, kept)
        if kept is not None:
            self.items = [item for item in self.items if item is not kept]
            self.rows.append(Row(kept, "/general/extracellular_ephys/electrodes", {}))
        kinds = [item.kind for item in self.items]
        self.has_one_units = kinds.count(spike_data.KIND) == 1
        trials = [item for item in self.items if "trials" in (item.kind, item.key)]
        self.has_one_trials = len(trials) == 1
        for item in self.items:
            self.write_item(item)
        new = hdmf_common().DynamicTable
        self.put("labtree", table_of_items(new, self.rows, self.zero))
        self.file.add_scratch(
            json.dumps({row.nwb_path: row.about for row in self.rows}),
            name="labtree_types",
            description="Names and types of the columns of labtree's items, as JSON",
        )
        table = table_of_metadata(new, self.items, self.lost)
        if table is not None:
            self.put("labtree", table)

    def write_item(self, item: ExportedItem) -> None:
        """Put an item into the file, and note where it went and what restores it."""
        write = {
            spike_data.KIND: self._units,
            rate_data.KIND: self._rates,
            "series": self._series,
            pairwise.MATRIX: self._matrix,
            pairwise.STACK: self._matrix,
            "array": self._array,
            "table": self._frame,
            "trials": self._frame,
        }[item.kind]
        about: dict[str, Any] = {}
        where = write(item, about)
        self.rows.append(Row(item, where, about))

    def name(self, item: ExportedItem) -> str:
        """Return a name for an item that no other has."""
        alone = item.kind in ("series", "trials", "table", "array")
        name = item.key if alone else f"{item.namespace}_{item.key}"
        return unused(nwb_name(name), self.names)

    def put(self, module: str, container: Any) -> str:
        """Put a container into a processing module; return its path in the file."""
        if module not in self.file.processing:
            self.file.create_processing_module(module, _MODULES.get(module, module))
        self.file.processing[module].add(container)
        return f"/processing/{module}/{container.name}"

    def lost(self, item: ExportedItem, what: str) -> None:
        self.losses.append(f"{item.namespace}/{item.key}{what}")

    def seconds(self, times: Any, scale: float = MS_PER_S) -> NDArray[np.float64]:
        """Return times in s, as far as possible those from which the same times follow.

        Parameters
        ----------
        times : array
            In ms, or with a scale of 1 in s.
        scale : float
            Units of the times in a second.
        """
        wanted, zero = np.asarray(times, np.float64), self.zero / MS_PER_S * scale
        found = (wanted - zero) / scale
        for side in (-np.inf, np.inf):
            near = np.nextafter(found, side)
            better = (near * scale + zero == wanted) & (found * scale + zero != wanted)
            found = np.where(better, near, found)
        return np.asarray(found)

    def _units(self, item: ExportedItem, about: dict[str, Any]) -> str:
        ds = item.obj
        name = "units" if self.has_one_units else self.name(item)
        resolution = _resolution(ds) if self.resolution is None else self.resolution
        ids = np.arange(ds.sizes["unit"])
        if "unit_id" in ds.coords:
            given = ds["unit_id"].values
            if given.dtype.kind in "iu" and (given.size == 0 or given.min() >= 0):
                ids, about["unit_id"] = given, str(given.dtype)
        places = self.electrodes.places(ds)
        columns = Columns()
        about["columns"] = self._unit_attributes(item, columns, places, "unit_id" in about)
        self._spikes(ds, columns)
        if "electrodes" in places:
            columns.add_region(
                "electrodes",
                "Electrodes of each unit",
                places["electrodes"],
                self.file.electrodes,
            )
        if "electrode_group" in places:
            columns.add("electrode_group", "Group of electrodes", places["electrode_group"])
        units = self.pynwb.misc.Units(
            name=name,
            description=f"Units of {item.namespace}/{item.key}",
            id=[int(value) for value in ids],
            columns=columns.vectors,
            colnames=columns.names,
            **({} if resolution is None else {"resolution": float(resolution)}),
        )
        for other, variable in ds.variables.items():
            is_attribute = other in ds.coords and variable.dims[:1] == ("unit",)
            if other not in ("spike_times", "row_size") and not is_attribute:
                self.lost(item, f": {other}")
        about["attrs"] = as_json(_own_attributes(ds))
        if self.has_one_units:
            self.file.units = units
            return "/units"
        return self.put("ecephys", units)

    def _unit_attributes(
        self, item: ExportedItem, columns: Columns, places: Mapping[str, Any], has_ids: bool
    ) -> dict[str, Any]:
        """Add the attributes of units as columns; return what restores each, by its name."""
        ds, make = item.obj, self.pynwb.misc.Units
        taken = reserved_names(make)
        for name in ("waveform_mean", "waveform_sd"):  # columns of NWB's own, where they fit
            if name in ds.coords and ds[name].ndim > 1 and ds[name].dtype.kind in "iuf":
                taken.discard(name)
        kept: dict[str, Any] = {}
        for real, variable, missing in attribute_columns(ds):
            if real == "obs_intervals_ms" or (real == "unit_id" and has_ids):
                continue
            column = for_nwb(variable.values, missing)
            name = real if real in places else unused(nwb_name(str(real)), taken)
            kept[name] = {"name": real, **column.about}
            if real not in places:
                for loss in column.losses:
                    self.lost(item, f", attribute {real!r}: {loss}")
                text = str(
                    variable.attrs.get("description") or f"Attribute {real!r} of the units"
                )
                columns.add(name, text, column.data, column.ends)
        return kept

    def _spikes(self, ds: xr.Dataset, columns: Columns) -> None:
        """Add the times of the spikes, and when the units were observed."""
        times = self.seconds(ds["spike_times"].values)
        ends = np.cumsum(ds["row_size"].values)
        columns.add("spike_times", "Times of the spikes in s", times, ends)
        start = ds.attrs["start_time"]
        intervals = [np.array([[start, start + ds.attrs["length"]]])] * ds.sizes["unit"]
        if "obs_intervals_ms" in ds.coords:
            intervals = list(ds["obs_intervals_ms"].values)
        flat = self.seconds(np.concatenate([*intervals, np.empty((0, 2))]))
        ends = np.cumsum([len(each) for each in intervals])
        columns.add("obs_intervals", "When the units were observed, in s", flat, ends)

    def _rates(self, item: ExportedItem, about: dict[str, Any]) -> str:
        ds = item.obj
        records = [as_json(record) for record in unit_attributes(ds)]
        for name, variable in ds.variables.items():
            is_attribute = name in ds.coords and variable.dims == ("unit",)
            if name not in ("rate", "time") and not is_attribute:
                self.lost(item, f": {name}")
        about["attrs"] = as_json(_own_attributes(ds))
        about["rate"] = as_json(ds["rate"].attrs)
        series = self.pynwb.TimeSeries(
            name=self.name(item),
            data=ds["rate"].transpose("time", "unit").values,
            unit=ds["rate"].attrs.get("units", "unknown"),
            description="Firing rates, one column for each unit",
            comments=json.dumps({"unit_attributes": records}),
            **_timing(self.seconds(ds["time"].values)),
        )
        return self.put("ecephys", series)

    def _series(self, item: ExportedItem, about: dict[str, Any]) -> str:
        """Write a stream or series; large ones block by block."""
        ds = item.obj
        data = ds["data"]
        about["data"] = as_json(data.attrs)
        about["attrs"] = as_json(_own_attributes(ds))
        about["dims"] = [str(dim) for dim in data.dims]
        if "channel" in ds.coords:
            column = for_nwb(ds["channel"].values)
            if column.ends is None:
                about["channel"] = [np.asarray(column.data).tolist(), column.about]
        if data.dtype.kind == "O" and not all(isinstance(v, str) for v in data.values.ravel()):
            self.lost(item, ": values that are no text become text")
        fields = self._physical(item)
        is_electrical = "electrodes" in fields
        make = self.pynwb.ecephys.ElectricalSeries if is_electrical else self.pynwb.TimeSeries
        name = self.name(item)
        series = make(name=name, data=_blocks(data), **self._clock(ds), **fields)
        kind = ds.attrs.get("neurodata_type")
        if kind not in (None, type(series).__name__):
            self.lost(item, f": a {kind} becomes a {type(series).__name__}")
        known = {"data", "time", "channel", "channel_conversion"}
        if self.electrodes.kept is not None:
            known |= {str(each) for each in self.electrodes.kept.obj.columns}
        for other, variable in ds.variables.items():
            if other in known:
                continue
            if variable.dims == ("time",) and variable.dtype.kind in "biuf":
                self._along_time(item, str(other))
            else:
                self.lost(item, f": {other}")
        group = str(ds.attrs.get("nwb_path", "/acquisition")).split("/")
        if group[1:2] == ["processing"] and len(group) > 3:
            return self.put(group[2], series)
        if group[1:2] == ["stimulus"]:
            self.file.add_stimulus(series)
            return f"/stimulus/{name}"
        self.file.add_acquisition(series)
        return f"/acquisition/{name}"

    def _physical(self, item: ExportedItem) -> dict[str, Any]:
        """Return unit, conversion, texts and, of a series in volts, the electrodes."""
        ds, data = item.obj, item.obj["data"]
        units = str(data.attrs.get("units", "unknown"))
        factor = VOLTS.get(units.lower())
        conversion = data.attrs.get("conversion", 1.0)
        kind = ds.attrs.get("neurodata_type")
        is_electrical = kind == "ElectricalSeries" or (kind is None and factor is not None)
        region = None
        if is_electrical and data.ndim >= 2 and data.dims[1] == "channel":
            region = self.electrodes.region(item, data.shape[1])
        fields: dict[str, Any] = {
            name: str(ds.attrs[name])
            for name in ("description", "comments")
            if name in ds.attrs
        }
        if region is not None:
            fields["electrodes"] = region
            conversion = conversion * (factor or 1.0)
            if "channel_conversion" in ds.coords:
                fields["channel_conversion"] = ds["channel_conversion"].values
            if "filtering" in ds.attrs:
                fields["filtering"] = str(ds.attrs["filtering"])
        else:
            fields["unit"] = units
            if "channel" in ds.coords and "comments" not in fields:
                names = ", ".join(str(value) for value in ds["channel"].values)
                fields["comments"] = f"Channels: {names}"
        if "resolution" in data.attrs:
            fields["resolution"] = float(data.attrs["resolution"])
        fields["conversion"] = float(conversion)
        fields["offset"] = float(data.attrs.get("offset", 0.0))
        return fields

    def _along_time(self, item: ExportedItem, name: str) -> None:
        """Write another value of each sample, such as when it arrived, as its own series."""
        ds = item.obj
        attrs = {"description": f"{name} of {item.key}, one value for each of its samples"}
        attrs |= {key: ds.attrs[key] for key in ("fs", "starting_time") if key in ds.attrs}
        coords = xr.Coordinates({"time": ds["time"].variable}, indexes={})
        series = xr.Dataset({"data": ds[name].variable}, coords, attrs)
        self.write_item(item._replace(key=f"{item.key}_{name}", obj=series, note=None))

    def _clock(self, ds: xr.Dataset) -> dict[str, Any]:
        start, rate = ds.attrs.get("starting_time"), ds.attrs.get("fs")
        count, zero = ds.sizes["time"], self.zero / MS_PER_S
        if start is not None and rate and count:
            ends = ds["time"][[0, -1]].values
            if np.array_equal(ends, np.array([0, count - 1]) / rate + start):
                return {"starting_time": float(start) - zero, "rate": float(rate)}
        return _timing(ds["time"].values.astype(np.float64) - zero, rate)

    def _matrix(self, item: ExportedItem, about: dict[str, Any]) -> str:
        """Write a matrix as a table with a row for each of its rows."""
        ds = item.obj
        values = pairwise.matrix_values(ds)
        if isinstance(values, np.ma.MaskedArray):
            self.lost(item, ": masked values become NaN")
            values = np.ma.filled(values.astype(np.float64), np.nan)
        known = {"matrix", "matrix_mask", "label_i", "label_j", "slice_start", "slice_end"}
        for name in ds.variables:
            if name not in known:
                self.lost(item, f": {name}")
        columns = Columns()
        if "label_i" in ds.coords:
            if "label_j" in ds and not alike(ds["label_j"].values, ds["label_i"].values):
                self.lost(item, ": label_j, which differs from label_i")
            labels = for_nwb(ds["label_i"].values)
            if labels.ends is None:
                about["label"] = labels.about
                for loss in labels.losses:
                    self.lost(item, f", labels: {loss}")
                columns.add("label", "Label of the row", labels.data)
            else:
                self.lost(item, ": the labels")
        columns.add("matrix", "Values of the row", np.ascontiguousarray(values.real))
        if values.dtype.kind == "c":
            imaginary = np.ascontiguousarray(values.imag)
            columns.add("imaginary", "Imaginary part of the row", imaginary)
        table = hdmf_common().DynamicTable(
            name=self.name(item),
            description=f"Pairwise matrix {item.namespace}/{item.key}",
            columns=columns.vectors,
            id=list(range(len(values))),
        )
        if "slice_start" in ds.coords:
            pairs = np.stack([ds["slice_start"].values, ds["slice_end"].values], axis=1)
            about["times"] = pairs.tolist()
        about["attrs"] = as_json(_own_attributes(ds))
        return self.put("labtree", table)

    def _array(self, item: ExportedItem, about: dict[str, Any]) -> str:
        name, values = self.name(item), item.obj
        about["array"] = [values.dtype.str, list(values.shape)]
        if values.dtype.kind == "U":
            values = values.astype(object)
        described = f"Array {item.namespace}/{item.key}"
        self.file.add_scratch(values, name=name, description=described)
        return f"/scratch/{name}"

    def _frame(self, item: ExportedItem, about: dict[str, Any]) -> str:
        role, _ = role_of(item.obj)
        free = role == "intervals" and getattr(self.file, item.key, 0) is None
        if item.kind == "trials" and self.has_one_trials:
            name = "trials"
        elif item.key in ("trials", "epochs", "invalid_times") and free:
            name = item.key
        else:
            name = self.name(item)
        described = item.obj.attrs.get("description", f"Table {item.namespace}/{item.key}")
        found = table_of(
            pd.DataFrame(item.obj),
            name=name,
            description=str(described),
            seconds=lambda times: self.seconds(times, scale=1.0),
        )
        about.update(found.about)
        kept = {str(k): v for k, v in item.obj.attrs.items() if k != TRIALS}
        about["attrs"] = as_json(kept)
        for loss in found.losses:
            self.lost(item, loss)
        path = self._place(found.table, name, role)
        if item.kind == "trials":
            self._states_and_events(item)
        return path

    def _place(self, table: Any, name: str, role: str) -> str:
        if role == "intervals":
            if name in ("trials", "epochs", "invalid_times"):
                setattr(self.file, name, table)
            else:
                self.file.add_time_intervals(table)
            return f"/intervals/{name}"
        if role == "events":
            self.file.add_events_table(table)
            return f"/events/{name}"
        return self.put("labtree", table)

    def _states_and_events(self, item: ExportedItem) -> None:
        """Write the states of a trial table as intervals, its events as a table of events."""
        trials = item.obj.msw
        states = trials.states(clock="session").rename(
            columns={"start": "start_time", "end": "stop_time"}
        )
        events = trials.events(clock="session").rename(columns={"time": "timestamp"})
        for what, table in (("states", states), ("events", events)):
            if len(table):
                table.attrs = {"description": f"The {what} of {item.key}"}
                key = f"{item.key}_{what}"
                self.write_item(item._replace(key=key, obj=table, kind="table", note=None))


def _first_ms(item: ExportedItem) -> float:
    """Return the first time of an item in ms; infinity for one without times."""
    obj = item.obj
    if item.kind in ("trials", "table"):
        _, fixed = role_of(obj)
        times = obj[next(iter(fixed))].to_numpy(np.float64) if fixed else np.empty(0)
        return float(times[np.isfinite(times)].min(initial=np.inf)) * MS_PER_S
    if item.kind == spike_data.KIND:
        first = float(obj.attrs["start_time"])
    elif item.kind in (rate_data.KIND, "series") and obj.sizes["time"]:
        unit_ms = 1.0 if item.kind == rate_data.KIND else MS_PER_S
        first = float(obj["time"][0].values) * unit_ms
    else:
        return np.inf
    return first if np.isfinite(first) else 0.0


def _own_attributes(ds: xr.Dataset) -> dict[str, Any]:
    return {
        str(name): value
        for name, value in ds.attrs.items()
        if name != "metadata" and not str(name).startswith("labtree_")
    }


def _resolution(ds: xr.Dataset) -> float | None:
    """Return the time between two samples in s, as far as it is known."""
    if "resolution_s" in ds.attrs:
        return float(ds.attrs["resolution_s"])
    if "sample_rate_hz" in ds.attrs:
        return 1 / float(ds.attrs["sample_rate_hz"])
    time = ds["raw_time"].values if "raw_time" in ds.variables else np.empty(0)
    if time.size > 1 and time[-1] > time[0]:
        return float(time[-1] - time[0]) / (time.size - 1) / MS_PER_S
    return None


def _timing(seconds: NDArray[np.float64], nominal: Any = None) -> dict[str, Any]:
    """Return starting time and rate of regular times, or else the times."""
    steps = np.diff(seconds)
    if steps.size and steps.min() > 0 and np.ptp(steps) < 1e-9:
        rate = (seconds.size - 1) / (seconds[-1] - seconds[0])
        if nominal and abs(rate / float(nominal) - 1) < 1e-9:
            rate = float(nominal)
        clock = np.arange(seconds.size) / rate + seconds[0]
        if np.abs(clock - seconds).max() < 1e-9:
            return {"starting_time": float(seconds[0]), "rate": float(rate)}
    return {"timestamps": seconds}


def _blocks(data: xr.DataArray) -> Any:
    """Return an array for pynwb to write; one that is not in memory block by block."""
    if data.dtype.kind in "UO":
        texts = np.array([str(value) for value in data.values.ravel()], object)
        # pynwb cannot tell the type of objects that are none.
        return texts.reshape(data.shape) if texts.size else np.empty(data.shape, "S1")
    if data.nbytes <= 64 * 2**20:
        return data.values
    utilities = require("hdmf.data_utils", purpose=PURPOSE, extra="nwb")

    class Blocks(utilities.GenericDataChunkIterator):  # type: ignore[misc,name-defined]
        """The array in blocks of 64 MiB."""

        def _get_data(self, selection: tuple[slice, ...]) -> NDArray[Any]:
            return np.asarray(data[selection].values)

        def _get_maxshape(self) -> tuple[int, ...]:
            return data.shape

        def _get_dtype(self) -> np.dtype[Any]:
            return data.dtype

    return Blocks(buffer_gb=0.0625)
