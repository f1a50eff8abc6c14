"""Write a workspace as a file that SpikeLab loads.

SpikeLab's format holds less than a workspace does. What would change on the way is
found first, item by item, and named before the file appears.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.interop.common import hdf5_holds, left_out, warn_of_losses
from labtree.interop.spikelab.read import decode_array
from labtree.interop.workspaces import check_export_target
from labtree.objects import (
    pairwise,
    rate_data,
    rate_slice_stack,
    registry,
    spike_data,
    spike_slice_stack,
)
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.unit_attributes import alike, attribute_columns
from labtree.spikes.selection import slices_of
from labtree.storage.arguments import one_of
from labtree.storage.files import replace_file, temporary_path

_NAMES = {
    spike_data.KIND: "SpikeData",
    rate_data.KIND: "RateData",
    rate_slice_stack.KIND: "RateSliceStack",
    spike_slice_stack.KIND: "SpikeSliceStack",
    pairwise.MATRIX: "PairwiseCompMatrix",
    pairwise.STACK: "PairwiseCompMatrixStack",
}
_SPIKES = {"spike_times", "row_size", "raw_data", "raw_time"}
_WINDOWS = {"slice_start", "slice_end"}
_LABELS = {"label_i", "label_j"}
# What each kind's own variables are: all else along its units is an attribute of them.
_VARIABLES: dict[str, set[str]] = {
    spike_data.KIND: _SPIKES,
    rate_data.KIND: {"rate", "time"},
    rate_slice_stack.KIND: {"rate", "time", *_WINDOWS},
    spike_slice_stack.KIND: _SPIKES | _WINDOWS | {"raw_row_size", "length"},
    pairwise.MATRIX: {"matrix", "matrix_mask", *_LABELS},
    pairwise.STACK: {"matrix", "matrix_mask", *_LABELS, *_WINDOWS},
}
_UNITS: dict[str, list[tuple[str, ...]]] = {
    spike_data.KIND: [("unit",)],
    rate_data.KIND: [("unit",)],
    rate_slice_stack.KIND: [("unit",)],
    spike_slice_stack.KIND: [("unit",), ("slice", "unit")],
}
_ATTRIBUTES = {"start_time", "length", "metadata", "step_size", "slice_metadata"}


def export_spikelab(
    tree: xr.DataTree,
    path: str | os.PathLike[str],
    *,
    on_loss: Literal["raise", "warn"] = "raise",
) -> Path:
    """Write a workspace as a file of SpikeLab 0.1, ``path.h5``, and its index ``path.json``.

    Parameters
    ----------
    tree : DataTree
        A workspace.
    path : path-like
        With or without ``.h5``. Files that exist are replaced once the new ones are
        whole.
    on_loss : {"raise", "warn"}
        What to do if something would be left out or rounded, because SpikeLab's format
        cannot hold it. With "raise" nothing is written; with "warn" the rest is. Either
        way all of it is listed.

    Returns
    -------
    Path
        Of the ``.h5`` file.

    Raises
    ------
    DataError
        A ValueError, with ``on_loss="raise"``, that lists what would be left out or
        rounded; and if `path` is the workspace's own file.
    MissingFileError, AlreadyExistsError
        An OSError, if there is no such folder, or `path` is one.

    Warns
    -----
    LossWarning
        If something is written in another form, such as a list as an array; with
        ``on_loss="warn"`` also for what was left out or rounded.

    Examples
    --------
    >>> import numpy as np
    >>> import labtree
    >>> tree = labtree.create_workspace("pilot")
    >>> tree.ws.store("rec1", "rates", np.zeros(3))
    >>> labtree.export_spikelab(tree, "for-spikelab").name
    'for-spikelab.h5'
    """
    one_of("on_loss", on_loss, ("raise", "warn"))
    target = Path(path)
    if target.suffix != ".h5":
        target = target.with_name(target.name + ".h5")
    check_export_target(tree, target)
    index_target = target.with_suffix(".json")
    with temporary_path(index_target) as new_index, temporary_path(target) as new:
        with h5py.File(new, "w", locking=False) as file:  # nobody else knows it
            writer = _Writer()
            index = writer.workspace(file, tree)
        losses = "\n".join(writer.losses)
        if losses and on_loss == "raise":
            raise DataError(
                f"{target} was not written: SpikeLab's format cannot hold all of the "
                f'workspace. Write export_spikelab(tree, path, on_loss="warn") to go on '
                f"without:\n{losses}"
            )
        new_index.write_text(json.dumps(index, indent=2), encoding="utf-8")
        warn_of_losses(
            writer.losses + writer.changes,
            f"{target}: SpikeLab's format does not hold all of it as it is here",
        )
        replace_file(new, target)
        replace_file(new_index, index_target)
    return target


class _LostError(DataError):
    """A value cannot be held at all."""


class _Writer:
    """Writes items and lists what was left out or rounded, and what took another form."""

    def __init__(self) -> None:
        self.losses: list[str] = []
        self.changes: list[str] = []

    def workspace(self, file: h5py.File, tree: xr.DataTree) -> dict[str, Any]:
        """Write all items; return the index."""
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
                    entry = self._item(file, where, where, obj)
                except _LostError as reason:
                    if where in file:
                        del file[where]
                    self.losses.append(left_out(where, reason))
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

    def _item(self, parent: h5py.Group, path: str, where: str, obj: Any) -> dict[str, Any]:
        """Write one object into a new group at a path; return its entry in the index."""
        if isinstance(obj, np.ndarray):
            values = self._array(where, obj)
            group = _typed_group(parent, path, "ndarray")
            _write_array(group, "data", values)
            return {"type": "ndarray", "shape": list(obj.shape), "dtype": str(obj.dtype)}
        if isinstance(obj, dict):
            self._dictionary(_typed_group(parent, path, "dict"), where, obj)
            return {"type": "dict"}
        kind = obj.attrs.get(KIND_ATTRIBUTE) if isinstance(obj, xr.Dataset) else None
        if kind not in _NAMES:
            raise _LostError(
                f"SpikeLab stores arrays, dicts and its own classes, not {type(obj).__name__}"
            )
        registry.validate(obj)
        self._rest(where, kind, obj)
        write = {
            spike_data.KIND: self._spike_data,
            rate_data.KIND: self._rate_data,
            rate_slice_stack.KIND: self._rate_slice_stack,
            spike_slice_stack.KIND: self._spike_slice_stack,
        }.get(kind, self._pairwise)
        write(_typed_group(parent, path, _NAMES[kind]), where, obj)
        return {"type": _NAMES[kind], **registry.summary(obj)}

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
        self._attributes(group, where, ds)

    def _rate_data(self, group: h5py.Group, where: str, ds: xr.Dataset) -> None:
        self._rate_unit(where, ds)
        group["inst_Frate_data"] = self._doubles(f"{where}, rate", ds["rate"].values)
        group["times"] = self._doubles(f"{where}, time", ds["time"].values)
        self._attributes(group, where, ds)

    def _rate_slice_stack(self, group: h5py.Group, where: str, ds: xr.Dataset) -> None:
        if ds["rate"].attrs.get("units") != "Hz":  # as every stack that is read back
            self._rate_unit(where, ds)
        group.attrs["step_size"] = float(ds.attrs["step_size"])
        group["event_stack"] = self._doubles(f"{where}, rate", ds["rate"].values)
        group["times"] = self._windows(where, ds)
        self._attributes(group, where, ds)

    def _spike_slice_stack(self, group: h5py.Group, where: str, ds: xr.Dataset) -> None:
        group.attrs["N"] = np.int64(ds.sizes["unit"])
        group["times"] = self._windows(where, ds)
        self._attributes(group, where, ds)
        stack = group.create_group("spike_stack")
        for at, part in enumerate(slices_of(ds)):
            self._spike_data(stack.create_group(str(at)), f"{where}, slice {at}", part)

    def _rate_unit(self, where: str, ds: xr.Dataset) -> None:
        unit = ds["rate"].attrs.get("units")
        if unit == "Hz":
            self.changes.append(f"{where}: the unit of the rates, Hz, is not in the file")
        elif unit is not None:
            # SpikeLab takes every rate for one in Hz.
            self.losses.append(f"{where}: the unit of the rates, {unit}, is left out")

    def _pairwise(self, group: h5py.Group, where: str, ds: xr.Dataset) -> None:
        values = pairwise.matrix_values(ds)
        if values.dtype.kind == "c":
            raise _LostError("SpikeLab keeps only the real part of a complex matrix")
        if isinstance(values, np.ma.MaskedArray):
            self.changes.append(f"{where}: masked values become NaN")
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
                    self.changes.append(f"{where}: labels become strings")
                _write_array(group, "labels", np.array([str(label) for label in labels]))

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
                self.losses.append(left_out(inner, reason))

    def _value(self, parent: h5py.Group, key: str, where: str, value: Any) -> None:
        if isinstance(value, np.ndarray | dict | xr.Dataset):
            self._item(parent, key, where, value)
            parent[key].attrs["__created_at__"] = 0.0
        elif value is None:
            _typed_group(parent, key, "none")
        elif isinstance(value, str):
            _check_texts([value])
            _typed_group(parent, key, "scalar_str").attrs["__scalar_value__"] = str(value)
        elif isinstance(value, bool | int | float | np.number | np.bool_):
            self._scalar(parent, key, where, value)
        elif isinstance(value, list | tuple | set | frozenset):
            self._sequence(parent, key, where, value)
        else:
            raise _LostError(f"a dict cannot hold a {type(value).__name__}")

    def _scalar(self, parent: h5py.Group, key: str, where: str, value: Any) -> None:
        if isinstance(value, np.complexfloating):
            raise _LostError(f"a dict cannot hold a {type(value).__name__}")
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise _LostError("a whole number beyond 64 bits")
        plain = value.item() if isinstance(value, np.floating | np.bool_) else value
        if isinstance(value, np.longdouble):
            plain = float(value)
            if plain != value and value == value:
                self.losses.append(f"{where}: a longdouble is rounded to float64")
        if isinstance(value, np.generic):
            found = type(value.item()).__name__
            self.changes.append(f"{where}: SpikeLab reads a numpy {value.dtype} as {found}")
        group = _typed_group(parent, key, "scalar")
        group.attrs["__scalar_value__"] = plain
        # numpy 2 calls its own type "bool" too.
        kind = "bool_" if isinstance(value, np.bool_) else type(value).__name__
        group.attrs["__scalar_kind__"] = kind

    def _sequence(self, parent: h5py.Group, key: str, where: str, value: Iterable[Any]) -> None:
        kind = type(value).__name__
        members = list(value)
        _check_texts(members)
        types = {type(member) for member in members}
        try:
            values = np.array(members, dtype=str if types == {str} else None)
        except (OverflowError, ValueError):
            values = np.array(members, dtype=object)
        if values.dtype.kind not in "biufU":
            wide = all(isinstance(member, int) for member in members)
            raise _LostError(
                "a whole number beyond 64 bits"
                if wide
                else f"a {kind} must hold numbers or text, found "
                + ", ".join(sorted(each.__name__ for each in types))
            )
        if kind == "list":
            self.changes.append(f"{where}: a list becomes an array")
        back = values.tolist()
        if values.dtype.kind == "U" and types != {str}:
            self.changes.append(f"{where}: all values of the {kind} become text")
        elif values.dtype.kind != "U" and not _same_numbers(back, members):
            self.losses.append(f"{where}: numbers are rounded to {values.dtype}")
        elif not alike(back, members):
            self.changes.append(f"{where}: numbers become {values.dtype}")
        group = _typed_group(parent, key, "ndarray" if kind == "list" else kind)
        if kind == "list":
            group.attrs["__created_at__"] = 0.0
        _write_array(group, "data", values)

    def _array(self, where: str, values: NDArray[Any]) -> NDArray[Any]:
        if isinstance(values, np.ma.MaskedArray):
            raise _LostError("SpikeLab drops the mask of an array")
        fields = {values.dtype[name].kind for name in values.dtype.names or ()}
        if not (fields <= set("biufc") if fields else values.dtype.kind in "biufcUS"):
            raise _LostError(f"SpikeLab cannot store an array of dtype {values.dtype}")
        if values.dtype.kind == "S":
            self.changes.append(f"{where}: bytes become str")
            try:
                values = np.char.decode(values, "utf-8")
            except UnicodeDecodeError:
                raise _LostError("bytes that are no UTF-8 text") from None
        if values.dtype.kind == "U":
            _check_texts(values.ravel().tolist())
        return values

    def _doubles(self, where: str, values: NDArray[Any]) -> NDArray[Any]:
        if values.dtype == np.float64:
            return values
        doubles = values.astype(np.float64)
        exact = np.array_equal(
            doubles.astype(values.dtype), values, equal_nan=values.dtype.kind == "f"
        )
        if exact:
            self.changes.append(f"{where}: dtype {values.dtype} becomes float64")
        else:
            self.losses.append(f"{where}: dtype {values.dtype} is rounded to float64")
        return doubles

    def _windows(self, where: str, ds: xr.Dataset) -> NDArray[Any]:
        pairs = np.stack([ds["slice_start"].values, ds["slice_end"].values], axis=1)
        return self._doubles(f"{where}, times", pairs)

    def _rest(self, where: str, kind: str, ds: xr.Dataset) -> None:
        """List what a Dataset has beyond its kind."""
        for name, variable in ds.variables.items():
            per_unit = name in ds.coords and any(
                variable.dims[: len(dims)] == dims for dims in _UNITS.get(kind, ())
            )
            if name not in _VARIABLES[kind] and not per_unit:
                what = "coordinate" if name in ds.coords else "variable"
                self.losses.append(f"{where}: the {what} {name!r} is left out")
        for name in ds.attrs:
            if name not in _ATTRIBUTES and not str(name).startswith("labtree_"):
                self.losses.append(f"{where}: the attribute {name!r} is left out")

    def _attributes(self, group: h5py.Group, where: str, ds: xr.Dataset) -> None:
        for name, variable, mask in attribute_columns(ds):
            inner = f"{where}, attribute {name!r}"
            missing = np.zeros(variable.shape[0], bool) if mask is None else mask
            try:
                _check_name(name)
                columns = group.require_group("neuron_attributes")
                self._column(columns, name, inner, variable.values, missing)
            except _LostError as reason:
                self.losses.append(left_out(inner, reason))

    def _column(
        self,
        group: h5py.Group,
        name: str,
        where: str,
        values: NDArray[Any],
        missing: NDArray[np.bool_],
    ) -> None:
        if values.ndim > 1:
            if values.dtype.kind not in "biuf":
                raise _LostError(f"arrays of dtype {values.dtype}")
            group[name] = values
            group[name].attrs["__missing_unit_indices__"] = np.flatnonzero(missing)
            return
        if values.dtype.hasobject:
            values, missing = self._one_type(where, values, missing)
        there = values[~missing]
        if values.dtype.kind == "U":
            if (there == "").any():
                self.changes.append(f"{where}: SpikeLab takes an empty string as missing")
            _check_texts(there.tolist())
            _write_array(group, name, np.where(missing, "", values), mark=False)
            return
        if values.dtype.kind not in "biuf":
            raise _LostError(f"values of {values.dtype}")
        if values.dtype.kind == "f" and np.isnan(there).any():
            self.changes.append(f"{where}: SpikeLab takes NaN as missing")
        doubles = values.astype(np.float64)
        if not _same_numbers(doubles[~missing].tolist(), there.tolist()):
            self.losses.append(f"{where}: values are rounded to float64")
        elif values.dtype not in (np.dtype(bool), np.dtype(np.int64), np.dtype(np.float64)):
            self.changes.append(f"{where}: dtype {values.dtype} is not kept")
        group[name] = np.where(missing, np.nan, doubles)
        kind = {"b": "bool", "i": "int", "u": "int"}.get(values.dtype.kind)
        if kind:
            group[name].attrs["__scalar_kind__"] = kind

    def _one_type(
        self, where: str, values: NDArray[Any], missing: NDArray[np.bool_]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return values of several types as numbers or as text, as SpikeLab does."""
        absent = missing | np.array([value is None for value in values], bool)
        if absent.sum() > missing.sum():
            self.changes.append(f"{where}: None becomes a missing value")
        there = values[~absent].tolist()
        numbers = (bool, int, float, np.bool_, np.integer, np.floating)
        if all(isinstance(value, numbers) for value in there):
            self.changes.append(f"{where}: values of several types become float64")
            filled = np.full(len(values), np.nan)
            try:
                filled[~absent] = [float(value) for value in there]
            except OverflowError:
                raise _LostError("a whole number beyond the range of float64") from None
            if not _same_numbers(filled[~absent].tolist(), there):
                self.losses.append(f"{where}: values are rounded to float64")
            return filled, absent
        if not all(isinstance(value, (str, *numbers)) for value in there):
            kinds = sorted({type(value).__name__ for value in there})
            raise _LostError(f"values of {', '.join(kinds)}")
        if not all(isinstance(value, str) for value in there):
            self.changes.append(f"{where}: values of several types become text")
        texts = np.full(len(values), "", object)
        texts[~absent] = [str(value) for value in there]
        _check_texts(texts)
        return texts.astype(str), absent

    def _json(self, where: str, metadata: Mapping[Any, Any]) -> str:
        kept = {}
        for key, value in metadata.items():
            try:
                text = json.dumps({key: value}, default=_encode_array)
                exact = alike(json.loads(text, object_hook=decode_array), {key: value})
            except (TypeError, ValueError) as error:
                self.losses.append(f"{where}, metadata {key!r}: left out: {error}")
                continue
            if not exact:
                self.changes.append(f"{where}, metadata {key!r}: becomes {text}")
            kept[key] = value
        return json.dumps(kept, default=_encode_array)


def _check_name(name: str) -> None:
    if "/" in name or name == ".":
        raise _LostError(f"SpikeLab cannot load an item called {name!r}")


def _same_numbers(found: Any, expected: Any) -> bool:
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(_same_numbers, found, expected))
    both_nan: bool = found != found and expected != expected
    return both_nan or bool(found == expected)


def _check_texts(values: Iterable[Any]) -> None:
    if not all(hdf5_holds(value) for value in values if isinstance(value, str)):
        raise _LostError("text with NUL or a lone surrogate")


def _typed_group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    """Make a group that says its type."""
    group = parent.create_group(name)
    group.attrs["__type__"] = kind
    return group


def _write_array(
    group: h5py.Group, name: str, values: NDArray[Any], *, mark: bool = True
) -> None:
    """Write an array; strings as UTF-8 of any length."""
    if values.dtype.kind != "U":
        group[name] = values
        return
    dataset = group.create_dataset(name, values.shape, h5py.string_dtype())
    if values.size:
        dataset[...] = values.astype(object)
    if mark:
        dataset.attrs["__string_array__"] = True


def _encode_array(value: Any) -> Any:
    """Return the JSON form of an array or a numpy scalar, for :func:`json.dumps`."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return {
            "__ndarray__": True,
            "dtype": str(value.dtype),
            "shape": list(value.shape),
            "values": value.ravel().tolist(),
        }
    raise TypeError(f"SpikeLab cannot store a {type(value).__name__} there")
