"""Read a file of SpikeLab's AnalysisWorkspace, item by item, without SpikeLab.

An item that cannot be read does not stop the others: what went wrong is collected, with
the path in the file and the reason. Only hard links are followed, so that a file can
lead nowhere else.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import xarray as xr
from h5py import h5d, h5g, h5l, h5o

from labtree.errors import DataError, FormatError
from labtree.interop.spikelab_hdf5 import (
    array,
    attribute,
    decode_array,
    links,
    names,
    optional_array,
    required_attribute,
)
from labtree.objects import spike_data
from labtree.objects.pairwise import pairwise_matrix, pairwise_stack
from labtree.objects.rate_data import rate_data
from labtree.objects.rate_slice_stack import rate_slice_stack
from labtree.objects.spike_slice_stack import spike_slice_stack
from labtree.objects.unit_attributes import Column, masked_column

__all__ = ["Item", "SpikeLabFile", "read_spikelab"]

_MEMBERS = {
    "ndarray": {"data"},
    "tuple": {"data"},
    "set": {"data"},
    "frozenset": {"data"},
    "SpikeData": {
        "spike_times",
        "spike_times_index",
        "raw_data",
        "raw_time",
        "neuron_attributes",
    },
    "RateData": {"inst_Frate_data", "times", "neuron_attributes"},
    "RateSliceStack": {"event_stack", "times", "neuron_attributes"},
    "SpikeSliceStack": {"times", "spike_stack", "neuron_attributes"},
    "PairwiseCompMatrix": {"matrix", "labels"},
    "PairwiseCompMatrixStack": {"stack", "times", "labels"},
}


class Item(NamedTuple):
    """One object of the file, where it belongs, and what was noted with it."""

    namespace: str
    key: str
    obj: Any
    created_at: float | None
    note: str | None


class SpikeLabFile(NamedTuple):
    """All that could be read of a file, and in words what could not."""

    workspace_id: str | None
    name: str | None
    created_at: float | None
    items: list[Item]
    problems: list[str]


def read_spikelab(path: Path) -> SpikeLabFile:
    """Read every item of a SpikeLab file, ordered by name.

    Raises
    ------
    FormatError
        A ValueError, if this is no HDF5 file or nothing in it is of SpikeLab.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if not path.is_file():
            raise
        raise FormatError(f"{path}: not an HDF5 file that can be opened ({error})") from error
    with file:
        reader = _Reader(path)
        root = h5g.open(file.id, b"/")
        items = sorted(reader.items(root), key=lambda item: item[:2])
        workspace_id = attribute(root, b"__workspace_id__")
        if workspace_id is None and not items:
            found = ", ".join(sorted(file)[:10]) or "nothing"
            raise FormatError(
                f"{path}: not a SpikeLab workspace: expected the attribute __workspace_id__ or "
                f"groups with __type__, found {found}. A file of labtree opens with "
                "labtree.open_workspace(path)"
            )
        return SpikeLabFile(
            workspace_id,
            attribute(root, b"__workspace_name__") or None,
            attribute(root, b"__created_at__"),
            items,
            reader.problems,
        )


class _Reader:
    """Walks one file; keeps what went wrong and which groups it has met."""

    def __init__(self, path: Path) -> None:
        self.problems: list[str] = []
        self.met: set[Any] = set()
        self.names = _names_of_index(path.with_suffix(".json"))

    def items(self, gid: Any, parents: tuple[str, ...] = ()) -> Iterator[Item]:
        for name, child in self.groups(gid, parents):
            path = (*parents, name)
            kind = attribute(child, b"__type__")
            if kind is None:
                if self.is_new(child, path):
                    yield from self.items(child, path)
                continue
            yield from self.item(child, path, kind)
            # A key such as "a/b" beside a key "a" lies inside of the group of "a".
            if kind != "dict" and not _MEMBERS.get(kind, set()) >= set(names(child)):
                yield from self.inner_items(child, path, kind)
            elif kind == "dict" and self.names:
                yield from (
                    item
                    for inner, group in self.groups(child, path)
                    if (*path, inner) in self.names
                    for item in self.item(group, (*path, inner), attribute(group, b"__type__"))
                )

    def inner_items(self, gid: Any, path: tuple[str, ...], kind: str) -> Iterator[Item]:
        for name, child in self.groups(gid, path, skip=_MEMBERS.get(kind, set())):
            inner = attribute(child, b"__type__")
            if inner is not None:
                yield from self.item(child, (*path, name), inner)

    def item(self, gid: Any, path: tuple[str, ...], kind: Any) -> Iterator[Item]:
        where = "/" + "/".join(path)
        namespace, key = self.names.get(path) or (path[0], "/".join(path[1:]) or ".")
        # Whatever is wrong with one item, the others shall come in.
        try:
            obj = self.value(gid, path, kind)
            created_at, note = attribute(gid, b"__created_at__"), attribute(gid, b"__note__")
            created_at = None if created_at is None else float(created_at)
        except Exception as error:
            self.problems.append(f"{where}: left out: {_reason(error)}")
            return
        yield Item(namespace, key, obj, created_at, note)

    def groups(
        self, gid: Any, parents: tuple[str, ...], skip: set[str] | None = None
    ) -> Iterator[tuple[str, Any]]:
        for raw, link in links(gid):
            name = raw.decode("utf-8", "backslashreplace")
            if skip and name in skip:
                continue
            where = "/" + "/".join((*parents, name))
            if link != h5l.TYPE_HARD:
                self.problems.append(f"{where}: left out: a link to elsewhere is not followed")
                continue
            try:
                child = h5o.open(gid, raw)
            except Exception as error:
                self.problems.append(f"{where}: left out: {_reason(error)}")
                continue
            if not isinstance(child, h5g.GroupID):
                # The members of an item are read with it.
                if not skip and attribute(gid, b"__type__") is None:
                    self.problems.append(
                        f"{where}: left out: a dataset that belongs to no item"
                    )
                continue
            yield name, child

    def is_new(self, gid: Any, path: tuple[str, ...]) -> bool:
        info = h5o.get_info(gid)
        if info.addr in self.met:
            where = "/" + "/".join(path)
            self.problems.append(f"{where}: left out: the same group was met before")
            return False
        self.met.add(info.addr)
        return True

    def value(self, gid: Any, path: tuple[str, ...], kind: Any) -> Any:
        match kind:
            case "ndarray":
                return array(gid, "data")
            case "SpikeData":
                return self.valid(self.spike_data(gid, path), path)
            case "RateData":
                rates = array(gid, "inst_Frate_data")
                attributes = self.attributes(gid, path, len(rates))
                times = array(gid, "times")
                return rate_data(rates, times, unit=None, neuron_attributes=attributes)
            case "RateSliceStack":
                stack = array(gid, "event_stack")
                step = attribute(gid, b"__step_size__", attribute(gid, b"step_size", 1.0))
                attributes = self.attributes(gid, path, len(stack))
                times = array(gid, "times")
                return rate_slice_stack(
                    stack, times, step_size=step, neuron_attributes=attributes
                )
            case "SpikeSliceStack":
                return self.spike_slices(gid, path)
            case "PairwiseCompMatrix":
                return pairwise_matrix(
                    array(gid, "matrix"),
                    labels=optional_array(gid, "labels"),
                    metadata=self.metadata(gid, path),
                )
            case "PairwiseCompMatrixStack":
                return pairwise_stack(
                    array(gid, "stack"),
                    labels=optional_array(gid, "labels"),
                    times=optional_array(gid, "times"),
                    metadata=self.metadata(gid, path),
                )
            case "dict" | None:
                return self.dictionary(gid, path)
            case "scalar":
                return _scalar(gid)
            case "scalar_str":
                return str(required_attribute(gid, b"__scalar_value__"))
            case "none":
                return None
            case "tuple":
                return _nested_tuple(array(gid, "data").tolist())
            case "set":
                return {_nested_tuple(value) for value in array(gid, "data").tolist()}
            case "frozenset":
                return frozenset(map(_nested_tuple, array(gid, "data").tolist()))
        known = ", ".join([*_MEMBERS, "dict", "scalar", "scalar_str", "none"])
        raise FormatError(f"unknown __type__ {kind!r}, expected one of {known}")

    def dictionary(self, gid: Any, path: tuple[str, ...]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if not self.is_new(gid, path):
            raise FormatError("the same group was met before")
        for name, child in self.groups(gid, path):
            if (*path, name) in self.names:
                continue
            try:
                kind = attribute(child, b"__type__")
                out[name] = self.value(child, (*path, name), kind)
            except Exception as error:
                where = "/" + "/".join((*path, name))
                self.problems.append(f"{where}: left out: {_reason(error)}")
        return out

    def spike_data(self, gid: Any, path: tuple[str, ...]) -> xr.Dataset:
        spike_times = array(gid, "spike_times")
        ends = array(gid, "spike_times_index")
        row_size = np.diff(ends, prepend=np.zeros(1, ends.dtype)).astype(np.int64)
        n_units = int(attribute(gid, b"N", row_size.size))
        if n_units != row_size.size:
            raise FormatError(
                f"N is {n_units}, but spike_times_index ends {row_size.size} trains"
            )
        raw_time, raw_data = optional_array(gid, "raw_time"), optional_array(gid, "raw_data")
        raw = None
        if raw_time is not None:
            # Times without traces: SpikeLab writes no dataset of size 0.
            empty = np.zeros((0, raw_time.size))
            raw = (empty if raw_data is None else raw_data, raw_time)
        return spike_data.assemble(
            spike_times,
            row_size,
            length=float(required_attribute(gid, b"length_ms")),
            start_time=float(attribute(gid, b"start_time", 0.0)),
            neuron_attributes=self.attributes(gid, path, n_units),
            metadata=self.metadata(gid, path),
            raw=raw,
        )

    def valid(self, ds: xr.Dataset, path: tuple[str, ...]) -> xr.Dataset:
        try:
            spike_data.validate(ds)
        except DataError as error:
            where = "/" + "/".join(path)
            self.problems.append(f"{where}: came in as it is, but is not valid: {error}")
        return ds

    def spike_slices(self, gid: Any, path: tuple[str, ...]) -> xr.Dataset:
        group = h5g.open(gid, b"spike_stack")
        numbers = sorted(names(group), key=int)
        slices = [
            self.spike_data(h5g.open(group, name.encode()), (*path, "spike_stack", name))
            for name in numbers
        ]
        n_units = int(attribute(gid, b"N", slices[0].sizes["unit"] if slices else 0))
        attributes = self.attributes(gid, path, n_units)
        return spike_slice_stack(slices, array(gid, "times"), neuron_attributes=attributes)

    def attributes(
        self, gid: Any, path: tuple[str, ...], n_units: int
    ) -> dict[str, Column] | None:
        if "neuron_attributes" not in names(gid):
            return None
        group = h5g.open(gid, b"neuron_attributes")
        columns = {}
        for name in names(group):
            try:
                found = _attribute_column(group, name)
                if len(found.values) != n_units:
                    raise FormatError(f"{len(found.values)} values for {n_units} units")
                columns[name] = found
            except Exception as error:
                where = "/" + "/".join((*path, "neuron_attributes", name))
                self.problems.append(f"{where}: left out: {_reason(error)}")
        return columns

    def metadata(self, gid: Any, path: tuple[str, ...]) -> dict[str, Any]:
        text = attribute(gid, b"__metadata__", "{}")
        try:
            found = json.loads(text, object_hook=decode_array)
            if isinstance(found, dict):
                return found
            reason = "not a JSON object"
        except ValueError as error:
            reason = str(error)
        where = "/" + "/".join(path)
        self.problems.append(f"{where}: metadata came in as text: {reason}")
        return {"__metadata__": text}


def _attribute_column(group: Any, name: str) -> Column:
    values = array(group, name)
    if values.ndim == 0:
        raise FormatError("one value, expected one for each unit")
    dataset = h5d.open(group, name.encode())
    if values.ndim > 1:
        missing = np.zeros(len(values), bool)
        listed = attribute(dataset, b"__missing_unit_indices__")
        if listed is not None:
            missing[np.asarray(listed, dtype=np.int64)] = True
        elif values.dtype.kind == "f" and values[0].size:
            missing = np.isnan(values).all(axis=tuple(range(1, values.ndim)))
        return masked_column(values, missing)
    if values.dtype.kind == "U":
        return masked_column(values, values == "")
    if values.dtype.kind != "f":
        return Column(values)
    missing = np.isnan(values)
    there = values[~missing]
    # The kind is that of the first value alone; it must not change the others.
    match attribute(dataset, b"__scalar_kind__"):
        case "bool" if np.isin(there, (0, 1)).all():
            values = np.where(missing, 0, values).astype(bool)
        case "int" if (np.trunc(there) == there).all() and (abs(there) < 2.0**63).all():
            values = np.where(missing, 0, values).astype(np.int64)
    return masked_column(values, missing)


def _scalar(gid: Any) -> Any:
    value = required_attribute(gid, b"__scalar_value__")
    kind = attribute(gid, b"__scalar_kind__")
    match kind:
        case "int" | "float" | "bool":
            return {"int": int, "float": float, "bool": bool}[kind](value)
        case "bool_":
            return np.bool_(value)
    try:
        scalar = np.dtype(kind).type
    except TypeError:
        return value
    # Only numbers, and only where the type holds this very value.
    if not issubclass(scalar, np.number | np.bool_):
        return value
    restored = scalar(value)
    return restored if restored == value or value != value else value


def _nested_tuple(value: Any) -> Any:
    return tuple(map(_nested_tuple, value)) if isinstance(value, list) else value


def _names_of_index(path: Path) -> dict[tuple[str, ...], tuple[str, str]]:
    """Where the index tells names apart that the paths do not."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))["index"]
        pairs = [(namespace, key) for namespace, keys in index.items() for key in keys]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    out = {}
    for namespace, key in pairs:
        path_in_file = key if key.startswith("/") else f"{namespace}/{key}"
        parts = tuple(part for part in path_in_file.split("/") if part not in ("", "."))
        if parts != (namespace, key) and "\0" not in namespace + key:
            out[parts] = (namespace, key)
    return out


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
