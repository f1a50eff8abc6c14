"""Items of labtree's own export, as they were before."""

import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from labtree.interop.nwb.columns import restored
from labtree.interop.nwb.containers import (
    array_of,
    column_values,
    plain_value,
    series_dataset,
    table_frame,
)
from labtree.objects import spike_data
from labtree.objects.pairwise import pairwise_matrix, pairwise_stack
from labtree.objects.rate_data import rate_data
from labtree.objects.unit_attributes import column, masked_column
from labtree.storage._xarray import data_of
from labtree.storage.missing import ABSENT

__all__ = ["Place", "nested", "own_item", "text_of"]

_MS = 1000.0


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
    if place.kind == "spike_data":
        return _own_units(source, about, shift, metadata)
    if place.kind == "rate_data":
        records = json.loads(source.comments)["unit_attributes"]
        rates = series_dataset(source, where)
        times = rates["time"].values * _MS + shift
        unit = None if source.unit == "unknown" else source.unit
        values = rates["data"].values.T
        return rate_data(values, times, unit=unit, neuron_attributes=records)
    if place.kind == "series":
        return _own_series(series_dataset(source, where, shift / _MS), about)
    if place.kind in ("pairwise_matrix", "pairwise_stack"):
        values = np.asarray(source["matrix"].data[:])
        if "imaginary" in source.colnames:
            values = values + 1j * np.asarray(source["imaginary"].data[:])
        labels = None
        if "label" in about:
            labels = restored(column_values(source["label"]), about["label"])
        if place.kind == "pairwise_matrix":
            matrix = pairwise_matrix(values, labels=labels, metadata=metadata)
        else:
            matrix = pairwise_stack(
                values, labels=labels, times=about.get("times"), metadata=metadata
            )
        return matrix.assign_attrs(about["attrs"])
    if place.kind in ("table", "trials"):
        return _own_frame(source, about, shift / _MS) if about else table_frame(source)
    return array_of(source)


def text_of(data: Any) -> str:
    """Return the one text of a dataset."""
    value = np.asarray(data[()] if hasattr(data, "shape") else data).item()
    return str(plain_value(value))


def _own_units(table: Any, about: dict[str, Any], shift: float, metadata: Any) -> xr.Dataset:
    counts: Any = np.empty(0, np.int64)
    times = np.empty(0)
    if "spike_times" in table.colnames:
        index = table["spike_times"]
        counts = np.diff(np.asarray(index.data[:]).astype(np.int64), prepend=0)
        times = np.asarray(index.target.data[:], np.float64) * _MS + shift
    attributes = {
        kept["name"]: _own_column(column_values(table[name]), kept)
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
        values = column_values(table[nwb_name])
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
