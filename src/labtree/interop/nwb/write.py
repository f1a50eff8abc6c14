"""Write a workspace's spike trains, rates and metadata as an NWB file.

NWB counts in seconds from the start of the session. If anything in the workspace starts
before 0 ms, the session starts that much earlier, and all times are counted from there.
"""

import json
import os
import re
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import DataError, LossWarning
from labtree.objects import rate_data, spike_data
from labtree.objects.unit_attributes import unit_attributes
from labtree.optional import require
from labtree.spikes.trains import spike_trains
from labtree.storage.files import replace_file

__all__ = ["export_nwb"]

_PURPOSE = "export to NWB"
_MS = 1000.0


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
    """Write the spike trains, rates and metadata of a workspace as an NWB file.

    Parameters
    ----------
    tree : DataTree
        A workspace.
    path : path-like
        Ends in ``.nwb``. A file that stands there is replaced once the new one is whole.
    session_start_time : datetime, optional
        The moment of 0 ms, with a time zone; by default the time at which the workspace
        was created.
    session_description : str, optional
        By default the name of the workspace.
    subject : mapping, optional
        Fields of ``pynwb.file.Subject``, such as subject_id, species, sex and age.
    resolution : float, optional
        Smallest difference between two spike times in s, which is one over the sampling
        rate; by default that of the raw data, or else of the numbers themselves.
    **fields
        Further fields of ``pynwb.NWBFile``, such as experimenter, lab, institution,
        keywords and experiment_description.

    Returns
    -------
    Path

    Raises
    ------
    DataError
        A ValueError, if there are neither spike trains nor rates, or the start has no
        time zone.

    Warns
    -----
    LossWarning
        If something in the workspace has no place in NWB.

    Notes
    -----
    The one spike_data of a workspace becomes the table ``units``; of several, each becomes
    a Units table in the processing module ``ecephys``. Rates become TimeSeries there. The
    table ``workspace`` lists the items with their notes, the table ``metadata`` what is
    known of each, one value a row.
    """
    pynwb = require("pynwb", purpose=_PURPOSE, extra="nwb")
    target = Path(path)
    own = tree.ws.path
    if own is not None and own.resolve() == target.resolve():
        raise DataError(f"{target} is the file of this workspace: export under another name")
    items, others = _items(tree)
    if not items:
        raise DataError("the workspace holds neither spike_data nor rate_data to export")
    if others:
        _lost([f"{name}: NWB export takes spike_data and rate_data alone" for name in others])
    for ds in items.values():
        (spike_data if "spike_times" in ds else rate_data).validate(ds)
    start = session_start_time or datetime.fromtimestamp(float(tree.ws.created_at), UTC)
    if start.tzinfo is None:
        raise DataError(
            "session_start_time needs a time zone: datetime(..., tzinfo=datetime.UTC)"
        )
    zero = min([0.0, *map(_first_ms, items.values())])
    file = pynwb.NWBFile(
        session_description=session_description or tree.ws.name or "labtree workspace",
        identifier=str(uuid.uuid4()),
        session_start_time=start + timedelta(milliseconds=zero),
        session_id=tree.ws.workspace_id,
        subject=pynwb.file.Subject(**subject) if subject else None,
        **fields,
    )
    module = file.create_processing_module(
        "ecephys", "Spike trains and firing rates of a labtree workspace"
    )
    names: set[str] = {"workspace", "metadata"}
    one = sum("spike_times" in ds for ds in items.values()) == 1
    for (namespace, key), ds in items.items():
        name = _unused(re.sub(r"[/:]", "_", f"{namespace}_{key}"), names)
        if "spike_times" not in ds:
            module.add(_time_series(pynwb, name, ds, zero))
            continue
        units = pynwb.misc.Units(
            name="units" if one else name,
            description=f"Units of {namespace}/{key}",
            resolution=resolution or _resolution(ds, zero),
        )
        _fill(units, ds, zero, f"{namespace}/{key}")
        if one:
            file.units = units
        else:
            module.add(units)
    module.add(_workspace_table(tree, items, zero))
    if any(True for ds in items.values() for _ in _leaves(ds.attrs.get("metadata", {}))):
        module.add(_metadata_table(items))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        new = Path(folder) / target.name
        with pynwb.NWBHDF5IO(new, "w") as io:
            io.write(file)
        replace_file(new, target)
    return target


def _items(tree: xr.DataTree) -> tuple[dict[tuple[str, str], xr.Dataset], list[str]]:
    items, others = {}, []
    for namespace in tree.ws.list_namespaces():
        for key in tree.ws.list_keys(namespace):
            obj = tree.ws.get(namespace, key)
            kind = obj.attrs.get("labtree_kind") if isinstance(obj, xr.Dataset) else None
            if kind in (spike_data.KIND, rate_data.KIND):
                items[namespace, key] = obj
            else:
                others.append(f"{namespace}/{key}")
    return items, others


def _first_ms(ds: xr.Dataset) -> float:
    if "spike_times" in ds:
        return float(ds.attrs["start_time"])
    return float(ds["time"].values[0]) if ds.sizes["time"] else 0.0


def _resolution(ds: xr.Dataset, zero: float) -> float:
    time = ds["raw_time"].values if "raw_time" in ds.variables else np.empty(0)
    if time.size > 1 and time[-1] > time[0]:
        return float(time[-1] - time[0]) / (time.size - 1) / _MS
    return float(np.spacing((ds.attrs["start_time"] + ds.attrs["length"] - zero) / _MS))


def _fill(units: Any, ds: xr.Dataset, zero: float, where: str) -> None:
    # What the table calls its own cannot be a column of ours.
    names = {column["name"] for column in units.__columns__} | set(dir(units))
    named = {
        _unused(re.sub(r"[/:]", "_", column), names): values
        for column, values in _columns(ds, where).items()
    }
    for column in named:
        units.add_column(name=column, description=f"Attribute {column!r} of the units")
    observed = (ds.attrs["start_time"] - zero) / _MS
    interval = [[observed, observed + ds.attrs["length"] / _MS]]
    for unit, train in enumerate(spike_trains(ds)):
        seconds = (train - np.float64(zero)) / _MS
        units.add_unit(
            id=unit,
            spike_times=seconds,
            obs_intervals=interval,
            **{column: values[unit] for column, values in named.items()},
        )
    if "raw_data" in ds:
        _lost([f"{where}: raw_data"])


def _columns(ds: xr.Dataset, where: str) -> dict[str, Any]:
    """Give each attribute one type that NWB holds; missing is NaN or an empty string."""
    records = unit_attributes(ds)
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        values = [record.get(name) for record in records]
        there = [value for value in values if value is not None]
        whole = len(there) == len(values)
        numbers = all(isinstance(value, int | float | np.number | np.bool_) for value in there)
        if there and whole and (numbers or all(isinstance(value, str) for value in there)):
            columns[name] = values if len({*map(type, values)}) == 1 else _floats(values)
        elif there and numbers:
            columns[name] = _floats([np.nan if value is None else value for value in values])
        elif all(isinstance(value, str) for value in there):
            columns[name] = ["" if value is None else value for value in values]
        elif whole and _one_form(there):
            columns[name] = values
        else:
            _lost([f"{where}, attribute {name!r}: kept as JSON text"])
            columns[name] = [_json(value, f"{where}, {name!r}") for value in values]
    return columns


def _one_form(values: list[Any]) -> bool:
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    forms = {(value.shape, value.dtype) for value in arrays}
    return len(arrays) == len(values) and len(forms) == 1 and arrays[0].dtype.kind in "biuf"


def _floats(values: list[Any]) -> list[float]:
    return [float(value) for value in values]


def _time_series(pynwb: Any, name: str, ds: xr.Dataset, zero: float) -> Any:
    seconds = (ds["time"].values.astype(np.float64) - zero) / _MS
    timing: dict[str, Any] = {"timestamps": seconds}
    steps = np.diff(seconds)
    if steps.size and steps.min() > 0 and np.allclose(steps, steps[0], rtol=1e-9, atol=0):
        timing = {"starting_time": seconds[0], "rate": 1 / steps.mean()}
    return pynwb.TimeSeries(
        name=name,
        data=ds["rate"].transpose("time", "unit").values,
        unit=ds["rate"].attrs.get("units", "unknown"),
        description="Firing rates, one column for each unit",
        comments=json.dumps({"unit_attributes": [_plain(r) for r in unit_attributes(ds)]}),
        **timing,
    )


def _workspace_table(
    tree: xr.DataTree, items: Mapping[tuple[str, str], xr.Dataset], zero: float
) -> Any:
    common = require("hdmf.common", purpose=_PURPOSE, extra="nwb")
    table = common.DynamicTable(
        name="workspace",
        description=f"Items of the workspace; times are counted from {zero} ms",
    )
    for column, description in {
        "item_namespace": "Namespace of the item",
        "item_key": "Key of the item",
        "kind": "Kind of the item",
        "note": "Note of the item",
        "stored_at": "When the item was stored, in seconds since 1970",
    }.items():
        table.add_column(name=column, description=description)
    for (namespace, key), ds in items.items():
        info = tree.ws.get_info(namespace, key)
        table.add_row(
            item_namespace=namespace,
            item_key=key,
            kind=ds.attrs["labtree_kind"],
            note=info.get("note") or "",
            stored_at=float(info["created_at"]),
        )
    return table


def _metadata_table(items: Mapping[tuple[str, str], xr.Dataset]) -> Any:
    common = require("hdmf.common", purpose=_PURPOSE, extra="nwb")
    table = common.DynamicTable(name="metadata", description="What is known of each item")
    for column, description in {
        "item_namespace": "Namespace of the item",
        "item_key": "Key of the item",
        "metadata_key": "Where the value stands, keys and positions joined by '/'",
        "metadata_value": "The value, as JSON",
    }.items():
        table.add_column(name=column, description=description)
    for (namespace, key), ds in items.items():
        for where, value in _leaves(ds.attrs.get("metadata", {})):
            table.add_row(
                item_namespace=namespace,
                item_key=key,
                metadata_key=where,
                metadata_value=_json(value, f"{namespace}/{key}, metadata {where!r}"),
            )
    return table


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        inner = list(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(v, dict | list) for v in value):
        inner = list(enumerate(value))
    else:
        if where:
            yield where, value
        return
    for key, part in inner:
        yield from _leaves(part, f"{where}/{key}" if where else str(key))


def _json(value: Any, where: str) -> str:
    lost: list[str] = []

    def plain(inner: Any) -> Any:
        if isinstance(inner, np.ndarray | np.generic):
            return inner.tolist()
        if isinstance(inner, set | frozenset):
            return sorted(inner, key=repr)
        lost.append(f"{where}: a {type(inner).__name__} becomes text")
        return repr(inner)

    text = json.dumps(_plain(value), default=plain)
    if lost:
        _lost(lost)
    return text


def _plain(value: Any) -> Any:
    """Make every key a string; JSON has no others."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _unused(name: str, used: set[str]) -> str:
    while name in used:
        name += "_"
    used.add(name)
    return name


def _lost(what: list[str]) -> None:
    listed = "\n".join(what)
    warnings.warn(f"not all of it has a place in NWB:\n{listed}", LossWarning, stacklevel=3)
