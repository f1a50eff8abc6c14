"""Items of a workspace as groups of SpikeLab's file, and what is lost on the way."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.interop.spikelab_hdf5 import decode_array, encode_array, typed_group, write_array
from labtree.objects import (
    pairwise,
    rate_data,
    rate_slice_stack,
    spike_data,
    spike_slice_stack,
)
from labtree.objects.spike_kinds import KINDS
from labtree.objects.unit_attributes import MASK, REAL_NAME, alike

__all__ = ["Writer"]

_NAMES = {
    spike_data.KIND: "SpikeData",
    rate_data.KIND: "RateData",
    rate_slice_stack.KIND: "RateSliceStack",
    spike_slice_stack.KIND: "SpikeSliceStack",
    pairwise.MATRIX: "PairwiseCompMatrix",
    pairwise.STACK: "PairwiseCompMatrixStack",
}
_VARIABLES = {
    "spike_times", "row_size", "raw_data", "raw_time", "rate", "time", "length", "raw_row_size",
    "slice_start", "slice_end", "matrix", "matrix_mask", "label_i", "label_j",
}  # fmt: skip
_ATTRIBUTES = {"start_time", "length", "metadata", "step_size", "slice_metadata"}
_LARGEST_EXACT = 2**53


class _LostError(DataError):
    """A value cannot be held at all."""


class Writer:
    """Writes items and keeps, in words, what did not arrive as it was."""

    def __init__(self) -> None:
        self.losses: list[str] = []

    def workspace(self, file: h5py.File, tree: xr.DataTree) -> dict[str, Any]:
        """Write all items; give the index."""
        name, created_at = tree.ws.name, float(tree.ws.created_at)
        file.attrs["__workspace_id__"] = tree.ws.workspace_id
        file.attrs["__workspace_name__"] = name or ""
        file.attrs["__created_at__"] = created_at
        index: dict[str, dict[str, Any]] = {}
        for namespace in tree.ws.list_namespaces():
            for key in tree.ws.list_keys(namespace):
                info = tree.ws.get_info(namespace, key)
                where = f"{namespace}/{key}"
                try:
                    if namespace.startswith("__"):
                        raise _LostError("SpikeLab hides a namespace that starts with '__'")
                    _check_name(namespace)
                    _check_name(key)
                    obj = tree.ws.get(namespace, key)
                    entry = self._item(file, where, obj)
                except _LostError as reason:
                    if where in file:
                        del file[where]
                    self.losses.append(f"{where}: left out: {reason}")
                    continue
                group = file[where]
                group.attrs["__created_at__"] = entry["created_at"] = float(info["created_at"])
                if info.get("note") is not None:
                    group.attrs["__note__"] = entry["note"] = str(info["note"])
                index.setdefault(namespace, {})[key] = entry
        return {
            "workspace_id": tree.ws.workspace_id,
            "name": name,
            "created_at": created_at,
            "index": index,
        }

    def _item(self, parent: h5py.Group, where: str, obj: Any) -> dict[str, Any]:
        """Write one object into a new group; give its entry in the index."""
        if isinstance(obj, np.ndarray):
            values = self._array(where, obj)
            group = typed_group(parent, where, "ndarray")
            write_array(group, "data", values)
            return {"type": "ndarray", "shape": list(obj.shape), "dtype": str(obj.dtype)}
        if isinstance(obj, dict):
            self._dictionary(typed_group(parent, where, "dict"), where, obj)
            return {"type": "dict"}
        kind = obj.attrs.get("labtree_kind") if isinstance(obj, xr.Dataset) else None
        if kind not in KINDS:
            raise _LostError(
                f"SpikeLab stores arrays, dicts and its own classes, not {type(obj).__name__}"
            )
        KINDS[kind].validate(obj)
        self._rest(where, obj)
        group = typed_group(parent, where, _NAMES[kind])
        write = {
            spike_data.KIND: self._spike_data,
            rate_data.KIND: self._rate_data,
            rate_slice_stack.KIND: self._rate_slice_stack,
            spike_slice_stack.KIND: self._spike_slice_stack,
        }.get(kind, self._pairwise)
        write(group, where, obj)
        summary = KINDS[kind].summary(obj)
        return {"type": _NAMES[kind], **summary}

    def _spike_data(self, group: h5py.Group, where: str, ds: xr.Dataset) -> None:
        """Write the body that a SpikeData and a slice of a stack have in common."""
        length = float(ds.attrs["length"])
        start = float(ds.attrs["start_time"])
        if length != ds.attrs["length"] or start != ds.attrs["start_time"]:
            self.losses.append(f"{where}: length or start_time is rounded to float64")
        group.attrs["N"] = np.int64(ds.sizes["unit"])
        group.attrs["length_ms"] = length
        group.attrs["start_time"] = start
        group.attrs["__metadata__"] = self._json(where, ds.attrs.get("metadata", {}))
        group["spike_times"] = self._doubles(f"{where}, spike_times", ds["spike_times"].values)
        group["spike_times_index"] = np.cumsum(ds["row_size"].values, dtype=np.int64)
        if "raw_data" in ds and ds["raw_time"].size:
            if ds["raw_data"].size:
                group["raw_data"] = ds["raw_data"].values
            group["raw_time"] = ds["raw_time"].values
        self._attributes(group, where, ds, ("unit",))

    def _rate_data(self, group: h5py.Group, where: str, ds: xr.Dataset) -> None:
        if "units" in ds["rate"].attrs:
            self.losses.append(f"{where}: the unit of the rates, {ds['rate'].attrs['units']}")
        group["inst_Frate_data"] = self._doubles(f"{where}, rate", ds["rate"].values)
        group["times"] = self._doubles(f"{where}, time", ds["time"].values)
        self._attributes(group, where, ds, ("unit",))

    def _rate_slice_stack(self, group: h5py.Group, where: str, ds: xr.Dataset) -> None:
        if "units" in ds["rate"].attrs:
            self.losses.append(f"{where}: the unit of the rates, {ds['rate'].attrs['units']}")
        group.attrs["step_size"] = float(ds.attrs["step_size"])
        group["event_stack"] = self._doubles(f"{where}, rate", ds["rate"].values)
        group["times"] = self._windows(where, ds)
        self._attributes(group, where, ds, ("unit",))

    def _spike_slice_stack(self, group: h5py.Group, where: str, ds: xr.Dataset) -> None:
        group.attrs["N"] = np.int64(ds.sizes["unit"])
        group["times"] = self._windows(where, ds)
        self._attributes(group, where, ds, ("unit",))
        stack = group.create_group("spike_stack")
        for at, part in enumerate(spike_slice_stack.slices_of(ds)):
            self._spike_data(stack.create_group(str(at)), f"{where}, slice {at}", part)

    def _pairwise(self, group: h5py.Group, where: str, ds: xr.Dataset) -> None:
        values = pairwise.matrix_values(ds)
        if values.dtype.kind == "c":
            raise _LostError("SpikeLab keeps only the real part of a complex matrix")
        if isinstance(values, np.ma.MaskedArray):
            self.losses.append(f"{where}: masked values become NaN")
            values = np.ma.filled(values.astype(np.float64), np.nan)
        name = "matrix" if values.ndim == 2 else "stack"
        group[name] = self._doubles(f"{where}, matrix", values)
        group.attrs["__metadata__"] = self._json(where, ds.attrs.get("metadata", {}))
        if "slice_start" in ds.coords:
            group["times"] = self._windows(where, ds)
        if "label_i" in ds.coords:
            labels = ds["label_i"].values
            if labels.ndim == 1 and labels.dtype.kind in "biuf":
                group["labels"] = labels
            else:
                if labels.dtype.kind != "U":
                    self.losses.append(f"{where}: labels become strings")
                write_array(group, "labels", np.array([str(label) for label in labels]))

    def _dictionary(self, group: h5py.Group, where: str, values: Mapping[Any, Any]) -> None:
        for key, value in values.items():
            inner = f"{where}[{key!r}]"
            try:
                if not isinstance(key, str):
                    raise _LostError(f"a key must be a string, found {type(key).__name__}")
                _check_name(key)
                self._value(group, key, inner, value)
            except _LostError as reason:
                if isinstance(key, str) and key and key != "." and key in group:
                    del group[key]
                self.losses.append(f"{inner}: left out: {reason}")

    def _value(self, parent: h5py.Group, key: str, where: str, value: Any) -> None:
        if isinstance(value, np.ndarray | dict | xr.Dataset):
            # The item writes at a path; its place in the words is another.
            inner = Writer()
            try:
                inner._item(parent, key, value)
            finally:
                self.losses += [where + loss.removeprefix(key) for loss in inner.losses]
            parent[key].attrs["__created_at__"] = 0.0
        elif value is None:
            typed_group(parent, key, "none")
        elif isinstance(value, str):
            _check_text(value)
            typed_group(parent, key, "scalar_str").attrs["__scalar_value__"] = str(value)
        elif isinstance(value, bool | int | float | np.number | np.bool_):
            self._scalar(parent, key, where, value)
        elif isinstance(value, list | tuple | set | frozenset):
            self._sequence(parent, key, where, value)
        else:
            raise _LostError(f"a dict cannot hold a {type(value).__name__}")

    def _scalar(self, parent: h5py.Group, key: str, where: str, value: Any) -> None:
        if isinstance(value, np.complexfloating | np.longdouble):
            raise _LostError(f"a dict cannot hold a {type(value).__name__}")
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise _LostError("a whole number beyond 64 bits")
        if isinstance(value, np.generic):
            self.losses.append(
                f"{where}: {type(value).__name__} becomes {type(value.item()).__name__}"
            )
        group = typed_group(parent, key, "scalar")
        plain = value.item() if isinstance(value, np.floating | np.bool_) else value
        group.attrs["__scalar_value__"] = plain
        group.attrs["__scalar_kind__"] = type(value).__name__

    def _sequence(self, parent: h5py.Group, key: str, where: str, value: Iterable[Any]) -> None:
        kind = type(value).__name__
        members = list(value)
        types = {type(member) for member in members}
        if (
            not types <= {str}
            and not types <= {int}
            and not types <= {float}
            and not types <= {bool}
        ):
            raise _LostError(f"a {kind} must hold strings, or numbers of one type")
        for member in members:
            if isinstance(member, str):
                _check_text(member)
        if kind == "list":
            self.losses.append(f"{where}: a list becomes an array")
        try:
            values = np.array(members, dtype=str if types == {str} else None)
        except OverflowError:
            raise _LostError("a whole number beyond 64 bits") from None
        if values.dtype.hasobject:
            raise _LostError("a whole number beyond 64 bits")
        group = typed_group(parent, key, "ndarray" if kind == "list" else kind)
        if kind == "list":
            group.attrs["__created_at__"] = 0.0
        write_array(group, "data", values)

    def _array(self, where: str, values: NDArray[Any]) -> NDArray[Any]:
        if isinstance(values, np.ma.MaskedArray):
            raise _LostError("SpikeLab drops the mask of an array")
        if values.dtype.kind not in "biufcUSV" or values.dtype.hasobject:
            raise _LostError(f"SpikeLab cannot store an array of dtype {values.dtype}")
        if values.dtype.kind == "V":
            kinds = [values.dtype[name].kind for name in values.dtype.names or ()]
            if not kinds or not set(kinds) <= set("biufc"):
                raise _LostError(f"SpikeLab cannot store an array of dtype {values.dtype}")
        if values.dtype.kind == "S":
            self.losses.append(f"{where}: bytes become str")
            try:
                values = np.char.decode(values, "utf-8")
            except UnicodeDecodeError:
                raise _LostError("bytes that are no UTF-8 text") from None
        if values.dtype.kind == "U":
            for text in values.ravel().tolist():
                _check_text(text)
        return values

    def _doubles(self, where: str, values: NDArray[Any]) -> NDArray[Any]:
        if values.dtype == np.float64:
            return values
        doubles = values.astype(np.float64)
        exact = np.array_equal(
            doubles.astype(values.dtype), values, equal_nan=values.dtype.kind == "f"
        )
        how = "" if exact else ", and is rounded"
        self.losses.append(f"{where}: dtype {values.dtype} becomes float64{how}")
        return doubles

    def _windows(self, where: str, ds: xr.Dataset) -> NDArray[Any]:
        pairs = np.stack([ds["slice_start"].values, ds["slice_end"].values], axis=1)
        return self._doubles(f"{where}, times", pairs)

    def _rest(self, where: str, ds: xr.Dataset) -> None:
        """Say what a Dataset has beyond its kind."""
        for name, variable in ds.variables.items():
            per_unit = name in ds.coords and variable.dims[:1] in (("unit",), ("slice",))
            if name not in _VARIABLES and not per_unit:
                self.losses.append(f"{where}: the variable {name!r} is left out")
        for name in ds.attrs:
            if name not in _ATTRIBUTES and not str(name).startswith("labtree_"):
                self.losses.append(f"{where}: the attribute {name!r} is left out")

    def _attributes(
        self, group: h5py.Group, where: str, ds: xr.Dataset, dims: tuple[str, ...]
    ) -> None:
        own = {
            name: coord.variable
            for name, coord in ds.coords.items()
            if coord.dims[: len(dims)] == dims and name not in _VARIABLES
        }
        masks = {variable.attrs.get(MASK) for variable in own.values()}
        for name, variable in own.items():
            if name in masks:
                continue
            real = str(variable.attrs.get(REAL_NAME, name))
            inner = f"{where}, attribute {real!r}"
            mask = own.get(variable.attrs.get(MASK))
            missing = (
                np.zeros(variable.shape[0], bool) if mask is None else np.asarray(mask.values)
            )
            try:
                _check_name(real)
                self._column(
                    group.require_group("neuron_attributes"),
                    real,
                    inner,
                    variable.values,
                    missing,
                )
            except _LostError as reason:
                self.losses.append(f"{inner}: left out: {reason}")

    def _column(
        self,
        group: h5py.Group,
        name: str,
        where: str,
        values: NDArray[Any],
        missing: NDArray[np.bool_],
    ) -> None:
        there = values[~missing]
        if values.ndim > 1:
            if values.dtype.kind not in "biuf":
                raise _LostError(f"arrays of dtype {values.dtype}")
            group[name] = values
            group[name].attrs["__missing_unit_indices__"] = np.flatnonzero(missing)
            return
        if values.dtype.kind == "U":
            if (there == "").any():
                raise _LostError("SpikeLab takes an empty string for a missing value")
            for text in there.tolist():
                _check_text(text)
            write_array(group, name, np.where(missing, "", values), mark=False)
            return
        if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
            raise _LostError(
                f"values of {'several types' if values.dtype.hasobject else values.dtype}"
            )
        if values.dtype.kind == "f" and np.isnan(there).any():
            raise _LostError("SpikeLab takes NaN for a missing value")
        if (
            values.dtype.kind in "iu"
            and there.size
            and max(map(abs, there.tolist())) > _LARGEST_EXACT
        ):
            raise _LostError("SpikeLab rounds whole numbers beyond 2**53")
        if values.dtype not in (np.dtype(bool), np.dtype(np.int64), np.dtype(np.float64)):
            self.losses.append(f"{where}: dtype {values.dtype} is not kept")
        group[name] = np.where(missing, np.nan, values.astype(np.float64))
        kind = {"b": "bool", "i": "int", "u": "int"}.get(values.dtype.kind)
        if kind:
            group[name].attrs["__scalar_kind__"] = kind

    def _json(self, where: str, metadata: Mapping[Any, Any]) -> str:
        kept = {}
        for key, value in metadata.items():
            try:
                text = json.dumps({key: value}, default=encode_array)
                exact = alike(json.loads(text, object_hook=decode_array), {key: value})
            except (TypeError, ValueError) as error:
                self.losses.append(f"{where}, metadata {key!r}: left out: {error}")
                continue
            if not exact:
                self.losses.append(f"{where}, metadata {key!r}: becomes {text}")
            kept[key] = value
        return json.dumps(kept, default=encode_array)


def _check_name(name: str) -> None:
    if "/" in name or name in (".", ".."):
        raise _LostError(f"SpikeLab cannot load an item called {name!r}")


def _check_text(text: str) -> None:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise _LostError("text with NUL or a lone surrogate")
