"""Read the files of SpikeLab's AnalysisWorkspace, without SpikeLab.

An item that cannot be read does not stop the others: what went wrong is collected, with
the path in the file and the reason. Only hard links are followed, so that a file can
lead nowhere else. Attributes and arrays are read through h5py's low-level calls: a file
has many small parts, and an object of h5py for each costs more than the part.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import xarray as xr
from h5py import h5a, h5d, h5g, h5l, h5o, h5s
from numpy.typing import NDArray

from labtree.errors import DataError, FormatError, damage_as_format_error, missing_file
from labtree.formats import takes
from labtree.interop.common import left_out
from labtree.interop.workspaces import Item, finish_import, store_items
from labtree.objects import spike_data
from labtree.objects.pairwise import pairwise_matrix, pairwise_stack
from labtree.objects.rate_data import rate_data
from labtree.objects.rate_slice_stack import rate_slice_stack
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.spike_slice_stack import spike_slice_stack
from labtree.objects.unit_attributes import Column, masked_column
from labtree.storage.hdf5_files import check_heaps, open_hdf5
from labtree.storage.json_files import read_json
from labtree.workspace.operations import create_workspace, identity_attributes

_LARGE = 64 * 2**20
_MOST_PACKED = 1000

_MEMBERS = {
    "ndarray": {"data"},
    "tuple": {"data"},
    "set": {"data"},
    "frozenset": {"data"},
    "SpikeData": {
        "spike_times", "spike_times_index", "raw_data", "raw_time", "neuron_attributes",
    },
    "RateData": {"inst_Frate_data", "times", "neuron_attributes"},
    "RateSliceStack": {"event_stack", "times", "neuron_attributes"},
    "SpikeSliceStack": {"times", "spike_stack", "neuron_attributes"},
    "PairwiseCompMatrix": {"matrix", "labels"},
    "PairwiseCompMatrixStack": {"stack", "times", "labels"},
}  # fmt: skip


class SpikeLabWorkspace(NamedTuple):
    """What was read of a workspace, and a line for each part that could not be read."""

    workspace_id: str | None
    name: str | None
    created_at: float | None
    items: list[Item]
    problems: list[str]


@takes("a workspace of SpikeLab", "spikelab")
def import_spikelab(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a file of SpikeLab into a workspace.

    Every item keeps its type, time and note; items are ordered by name. Those that
    SpikeLab itself cannot load again, such as keys with "/" in them, are read as well.

    Parameters
    ----------
    path : path-like
        With or without ``.h5``. The ``.json`` beside it, if it is there, says how names
        with "/" are to be split into namespace and key.

    Returns
    -------
    DataTree
        A workspace with the id, name and time of the file.

    Raises
    ------
    MissingFileError
        A FileNotFoundError, if there is no such file.
    FormatError
        A ValueError, if the file is not of SpikeLab.

    Warns
    -----
    LossWarning
        If a part could not be read or is not valid. The warning names each with its path
        and the reason; so does the attribute ``spikelab_problems`` of the workspace.

    Examples
    --------
    >>> import numpy as np
    >>> import labtree
    >>> tree = labtree.create_workspace("pilot")
    >>> tree.ws.store("rec1", "rates", np.zeros(3))
    >>> path = labtree.export_spikelab(tree, "for-spikelab")
    >>> labtree.import_spikelab(path).ws["rec1", "rates"]
    array([0., 0., 0.])
    """
    given = Path(path)
    beside = given.with_name(given.name + ".h5")
    source = beside if not given.is_file() and beside.is_file() else given
    tree, problems = build_workspace(read_spikelab(source))
    text = f"{path}: not everything could be read as it should be"
    finish_import(tree, source, problems, text, attribute="spikelab_problems")
    return tree


def build_workspace(found: SpikeLabWorkspace) -> tuple[xr.DataTree, list[str]]:
    """Build a workspace; return it, and a line for each part that it lacks."""
    tree = create_workspace(found.name)
    tree.attrs = identity_attributes(found.workspace_id, found.name, found.created_at)
    return tree, found.problems + store_items(tree, found.items)


def read_spikelab(path: Path) -> SpikeLabWorkspace:
    """Read every item of a SpikeLab file, ordered by name.

    Raises
    ------
    FormatError
        A ValueError, if this is no HDF5 file or nothing in it is of SpikeLab.
    """
    if not path.is_file():
        raise missing_file(f"there is no file {path}", path)
    with contextlib.ExitStack() as stack:
        with damage_as_format_error(path):
            file = stack.enter_context(open_hdf5(path))
            check_heaps(path, file)
            root = h5g.open(file.id, b"/")
        reader = _Reader(path)
        items = sorted(reader.items(root), key=lambda item: (item.namespace, item.key))
        workspace_id, name, created_at = (
            reader.safely((), attribute, root, f"__{part}__".encode())
            for part in ("workspace_id", "workspace_name", "created_at")
        )
        if workspace_id is None and not items:
            found = ", ".join((reader.safely((), names, root) or [])[:10]) or "nothing"
            raise FormatError(
                f"{path}: not a SpikeLab workspace: expected the attribute __workspace_id__ or "
                f"groups with __type__, found {found}. A file of labtree opens with "
                "labtree.open_workspace(path)"
            )
        return SpikeLabWorkspace(workspace_id, name or None, created_at, items, reader.problems)


class _Reader:
    """Walks one file; keeps what went wrong and which groups it has met."""

    def __init__(self, path: Path) -> None:
        self.problems: list[str] = []
        self.met: set[Any] = set()
        self.names = _names_of_index(path.with_suffix(".json"))

    def items(self, gid: Any, parents: tuple[str, ...] = ()) -> list[Item]:
        found: list[Item] = []
        for name, child in self.groups(gid, parents):
            path = (*parents, name)
            found += self.safely(path, self.items_at, child, path) or []
        return found

    def items_at(self, gid: Any, path: tuple[str, ...]) -> list[Item]:
        kind = attribute(gid, b"__type__")
        if kind is None:
            self.meet(gid)
            return self.items(gid, path)
        item = self.safely(path, self.item, gid, path, kind)
        found = [] if item is None else [item]
        # A key such as "a/b" beside a key "a" lies inside of the group of "a".
        members = _MEMBERS.get(kind, set())
        if kind == "dict":
            inner = [(n, g) for n, g in self.groups(gid, path) if (*path, n) in self.names]
        else:
            more = not members.issuperset(names(gid))
            inner = list(self.groups(gid, path, skip=members)) if more else []
        for name, child in inner:
            if h5a.exists(child, b"__type__"):
                found += self.items_at(child, (*path, name))
        return found

    def item(self, gid: Any, path: tuple[str, ...], kind: Any) -> Item:
        namespace, key = self.names.get(path) or (path[0], "/".join(path[1:]) or ".")
        created_at = attribute(gid, b"__created_at__")
        note = attribute(gid, b"__note__")
        return Item(
            namespace,
            key,
            self.value(gid, path, kind),
            None if created_at is None else float(created_at),
            None if note is None else str(note),
            _place(path),
        )

    def groups(
        self, gid: Any, parents: tuple[str, ...], skip: set[str] | None = None
    ) -> Iterator[tuple[str, Any]]:
        for raw, link in self.safely(parents, links, gid) or ():
            name = raw.decode("utf-8", "backslashreplace")
            if skip and name in skip:
                continue
            path = (*parents, name)
            if link != h5l.TYPE_HARD:
                self.left_out(path, "a link to elsewhere is not followed")
                continue
            child = self.safely(path, h5o.open, gid, raw)
            if isinstance(child, h5g.GroupID):
                yield name, child
            # The datasets of an item are read with it.
            elif child is not None and not self.safely(parents, h5a.exists, gid, b"__type__"):
                self.left_out(path, "a dataset that belongs to no item")

    def meet(self, gid: Any) -> None:
        """Raise FormatError if a group was read before: links may run in circles."""
        address = h5o.get_info(gid).addr
        if address in self.met:
            raise FormatError("the same group was met before")
        self.met.add(address)

    def safely(self, path: tuple[str, ...], read: Callable[..., Any], *arguments: Any) -> Any:
        """Read a part, or list it and return None: a damaged file fails anywhere."""
        try:
            return read(*arguments)
        except Exception as error:
            self.left_out(path, error)
            return None

    def left_out(self, path: tuple[str, ...], reason: str | Exception) -> None:
        self.problems.append(left_out(_place(path), reason))

    def value(self, gid: Any, path: tuple[str, ...], kind: Any) -> Any:
        match kind:
            case "ndarray":
                return array(gid, "data")
            case "SpikeData":
                return self.validated(self.spike_data(gid, path), path)
            case "RateData":
                rates = array(gid, "inst_Frate_data")
                return rate_data(
                    rates,
                    array(gid, "times"),
                    unit=None,
                    neuron_attributes=self.attributes(gid, path, len(rates)),
                )
            case "RateSliceStack":
                stack = array(gid, "event_stack")
                return rate_slice_stack(
                    stack,
                    array(gid, "times"),
                    step_size=attribute(
                        gid, b"__step_size__", attribute(gid, b"step_size", 1.0)
                    ),
                    neuron_attributes=self.attributes(gid, path, len(stack)),
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
                return set(_nested_tuple(array(gid, "data").tolist()))
            case "frozenset":
                return frozenset(_nested_tuple(array(gid, "data").tolist()))
        known = ", ".join([*_MEMBERS, "dict", "scalar", "scalar_str", "none"])
        raise FormatError(f"unknown __type__ {kind!r}, expected one of {known}")

    def dictionary(self, gid: Any, path: tuple[str, ...]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        self.meet(gid)
        for name, child in self.groups(gid, path):
            if (*path, name) in self.names:
                continue
            try:
                kind = attribute(child, b"__type__")
                out[name] = self.value(child, (*path, name), kind)
            except Exception as error:
                self.left_out((*path, name), error)
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
        return spike_data.assemble(
            spike_times,
            row_size,
            length=float(required_attribute(gid, b"length_ms")),
            start_time=float(attribute(gid, b"start_time", 0.0)),
            neuron_attributes=self.attributes(gid, path, n_units),
            metadata=self.metadata(gid, path),
            raw=raw_traces(optional_array(gid, "raw_data"), optional_array(gid, "raw_time")),
        )

    def validated(self, ds: xr.Dataset, path: tuple[str, ...]) -> xr.Dataset:
        try:
            spike_data.validate(ds)
        except DataError as error:
            self.problems.append(
                f"{_place(path)}: was imported as a plain dataset, because it is not valid: "
                f"{error}"
            )
            # Nothing is lost, and nothing takes it for valid spike trains.
            del ds.attrs[KIND_ATTRIBUTE]
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
                self.left_out((*path, "neuron_attributes", name), error)
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
        self.problems.append(f"{_place(path)}: metadata were imported as text: {reason}")
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


def raw_traces(data: Any, time: Any) -> tuple[Any, Any] | None:
    """Return raw traces and their times; of times alone, traces of no channel."""
    if time is None:
        return None
    return np.zeros((0, np.size(time))) if data is None else data, time


def _scalar(gid: Any) -> Any:
    value = required_attribute(gid, b"__scalar_value__")
    kind = attribute(gid, b"__scalar_kind__")
    builtin = {"int": int, "float": float, "bool": bool, "bool_": np.bool_}.get(kind)
    if builtin is not None:
        return builtin(value)
    # The type that it had, if that is one of numbers and holds this very value.
    try:
        scalar = np.dtype(kind).type
        restored = scalar(value) if issubclass(scalar, np.number | np.bool_) else value
    except (TypeError, OverflowError):
        return value
    return restored if restored == value or value != value else value


def _nested_tuple(value: Any) -> Any:
    return tuple(map(_nested_tuple, value)) if isinstance(value, list) else value


def _names_of_index(path: Path) -> dict[tuple[str, ...], tuple[str, str]]:
    """Return the names that the index tells apart and the paths do not."""
    try:
        index = read_json(path)["index"]
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


def _place(path: tuple[str, ...]) -> str:
    return "/" + "/".join(path)


def links(gid: Any) -> list[tuple[bytes, int]]:
    """Return the names and the types of all links of a group."""
    found: list[tuple[bytes, int]] = []
    if gid.get_num_objs():
        gid.links.iterate(lambda name, info: found.append((name, info.type)), info=True)
    return found


def names(gid: Any) -> list[str]:
    """Return the names of all links of a group."""
    return [name.decode("utf-8", "backslashreplace") for name, _ in links(gid)]


def attribute(oid: Any, name: bytes, default: Any = None) -> Any:
    """Read an attribute as Python's own type, an array as an array."""
    if not h5a.exists(oid, name):
        return default
    handle = h5a.open(oid, name)
    dtype = handle.dtype
    value = np.empty(handle.shape, dtype)
    handle.read(value)
    if value.shape:
        return value
    found = value[()]
    if isinstance(found, bytes):
        return found.decode("utf-8")
    return found.item() if isinstance(found, np.generic) and dtype.names is None else found


def required_attribute(oid: Any, name: bytes) -> Any:
    """Read an attribute that must be there."""
    value = attribute(oid, name)
    if value is None:
        raise FormatError(f"the attribute {name.decode()} is missing")
    return value


def array(gid: Any, name: str) -> NDArray[Any]:
    """Read a dataset that must be there."""
    if not gid.links.exists(name.encode()):
        raise FormatError(f"the dataset {name!r} is missing")
    link = gid.links.get_info(name.encode())
    if link.type != h5l.TYPE_HARD:
        raise FormatError(f"the dataset {name!r} is a link to elsewhere, which is not followed")
    return _read(h5d.open(gid, name.encode()))


def optional_array(gid: Any, name: str) -> NDArray[Any] | None:
    """Read a dataset, or return None if it is not there."""
    return array(gid, name) if gid.links.exists(name.encode()) else None


def _read(dataset: Any) -> NDArray[Any]:
    dtype, shape = dataset.dtype, dataset.shape
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > _LARGE and size > _MOST_PACKED * dataset.get_storage_size():
        raise FormatError(
            f"a dataset says that it holds {size} bytes, but hardly any are stored"
        )
    if dtype.kind == "O" and h5py.check_string_dtype(dtype):
        return np.asarray(h5py.Dataset(dataset).asstr()[()], dtype=str)
    if dtype.hasobject:
        return np.asarray(h5py.Dataset(dataset)[()])
    values = np.empty(shape, dtype)
    if values.size:
        dataset.read(h5s.ALL, h5s.ALL, values)
    return values


def decode_array(found: dict[str, Any]) -> Any:
    """Make an array of what SpikeLab writes for one into JSON."""
    if found.get("__ndarray__") is not True:
        return found
    try:
        values = np.array(found["values"], dtype=np.dtype(found["dtype"]))
        return values.reshape(found["shape"])
    except (KeyError, TypeError, ValueError):
        return found
