"""Items of labtree's own export, as they were before."""

import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from labtree.interop.common import MS_PER_S
from labtree.interop.nwb.exact_columns import restored
from labtree.interop.nwb.imported_objects import (
    array_of,
    column_values,
    plain_value,
    series_dataset,
    spike_times_ms,
    table_frame,
)
from labtree.objects import spike_data
from labtree.objects.pairwise import pairwise_matrix, pairwise_stack
from labtree.objects.rate_data import rate_data
from labtree.objects.unit_attributes import column, masked_column
from labtree.storage._xarray import data_of
from labtree.storage.missing import ABSENT


class Place(NamedTuple):
    """The place of an item of labtree's own export, by its path in the NWB file."""

    namespace: str
    key: str
    kind: str
    note: str | None
    created_at: float
    offset_ms: float
    types: dict[str, Any]


def own_item(source: Any, where: str, place: Place, metadata: Any) -> Any:
    """Return an item of labtree's export as it was before."""
    about, shift = place.types, place.offset_ms
    match place.kind:
        case "spike_data":
            return _own_units(source, about, shift, metadata)
        case "rate_data":
            rates = series_dataset(source, where)
            made = rate_data(
                rates["data"].values.T,
                rates["time"].values * MS_PER_S + shift,
                unit=None if source.unit == "unknown" else source.unit,
                neuron_attributes=json.loads(source.comments)["unit_attributes"],
            ).assign_attrs(about.get("attrs", {}))
            made["rate"].attrs.update(about.get("rate", {}))
            return made if metadata is None else made.assign_attrs(metadata=metadata)
        case "series":
            return _own_series(series_dataset(source, where, shift / MS_PER_S), about)
        case "pairwise_matrix" | "pairwise_stack":
            return _own_matrix(source, place, metadata)
        case "table" | "trials":
            return _own_frame(source, about, shift / MS_PER_S) if about else table_frame(source)
    found = array_of(source)
    if "array" not in about or isinstance(found, xr.DataArray):  # a large one stays in the file
        return found
    dtype, shape = about["array"]  # pynwb reads an array of one value as a scalar
    return np.asarray(found).reshape(shape).astype(dtype)


def text_of(data: Any) -> str:
    """Return the one text of a dataset."""
    value = np.asarray(data[()] if hasattr(data, "shape") else data).item()
    return str(plain_value(value))


def _own_matrix(table: Any, place: Place, metadata: Any) -> xr.Dataset:
    about = place.types
    values = np.asarray(table["matrix"].data[:])
    if "imaginary" in table.colnames:
        values = values + 1j * np.asarray(table["imaginary"].data[:])
    labels = None
    if "label" in about:
        labels = restored(column_values(table["label"]), about["label"])
    if place.kind == "pairwise_matrix":
        made = pairwise_matrix(values, labels=labels, metadata=metadata)
    else:
        times = about.get("times")
        made = pairwise_stack(values, labels=labels, times=times, metadata=metadata)
    return made.assign_attrs(about["attrs"])


def _own_units(table: Any, about: dict[str, Any], shift: float, metadata: Any) -> xr.Dataset:
    times, counts = np.empty(0), np.empty(0, np.int64)
    if "spike_times" in table.colnames:
        times, counts = spike_times_ms(table)
    attributes = {
        kept["name"]: _own_column(column_values(table[name]), kept)
        for name, kept in about["columns"].items()
        if name in table.colnames
    }
    attrs = about["attrs"]
    dataset = spike_data.assemble(
        times + shift,
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
    names: list[Any] = []
    kept_in_order = sorted(about["columns"].items(), key=lambda column: column[1]["at"])
    for at, (nwb_name, kept) in enumerate(kept_in_order):
        values = column_values(table[nwb_name])
        if nwb_name in ("start_time", "stop_time", "timestamp") and "form" not in kept:
            values = values + shift_s
        columns[at] = restored(values, kept)
        names.append(_label(kept["name"]))
    frame = pd.DataFrame(columns)
    if names:
        several = all(isinstance(name, tuple) for name in names)
        frame.columns = pd.MultiIndex.from_tuples(names) if several else pd.Index(names)
    levels = about.get("levels")
    index = about.get("index")
    if index is not None:
        kind, name, dtype = index
        if kind == "id":
            ids = np.asarray(table.id.data[:]).astype(dtype)
            frame.index = pd.Index(ids, name=_label(name))
        else:
            frame = frame.set_index(frame.columns[0])
            frame.index.name = _label(name)
    if levels is not None and len(levels) == frame.columns.nlevels:
        frame.columns.names = [_label(name) for name in levels]
    frame.attrs = about.get("attrs", {})
    return frame


def _label(name: Any) -> Any:
    """Return a label, of which JSON made a list if it was a tuple."""
    return tuple(map(_label, name)) if isinstance(name, list) else name


def nested(leaves: list[tuple[list[Any], Any]]) -> dict[str, Any]:
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
