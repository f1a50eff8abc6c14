"""Reading what is in a file that has no catalogue, or one that no longer holds.

Another program has written or changed the file. Groups and datasets are visited in
the order of their creation, and a dimension is known by the address of its scale:
asking HDF5 for the name of a scale searches the file, once a variable.
"""

import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5, h5a, h5d, h5g, h5l, h5o, h5p, h5r, h5t

from labtree.errors import ClosedError, FormatError
from labtree.storage import codecs, dtypes, json_values
from labtree.storage.attributes import read_attributes, read_native
from labtree.storage.netcdf import NON_COORDINATE, read_users
from labtree.storage.sources import identity

__all__ = ["NetCDFSource", "NetCDFVariable", "walk"]

_BARE = "This is a netCDF dimension but not a netCDF variable"
_TEXTS = "labtree_text_"


class NetCDFSource:
    """An open HDF5 file for what does not lie there as plain bytes; pickles as its path."""

    def __init__(self, path: str | Path, known: tuple[int, int, int, int] | None = None):
        self.name = str(path)
        self.known = known or identity(path)
        self.lock = threading.RLock()
        self._file: h5py.File | None = None
        self._closed = False

    @property
    def file(self) -> h5py.File:
        """The file, opened when first needed."""
        with self.lock:
            if self._closed:
                raise ClosedError(f"{self.name} was closed; open it again to read from it")
            if self._file is None:
                self.check()
                self._file = h5py.File(self.name, "r")
            return self._file

    def check(self) -> None:
        """Raise an error if another file took the place of the one that is known."""
        if identity(self.name) != self.known:
            raise FormatError(f"{self.name} changed on disk after it was opened; open it again")

    def close(self) -> None:
        """Let go of the file."""
        with self.lock:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None

    def __reduce__(self) -> Any:
        return NetCDFSource, (self.name, self.known)


class NetCDFVariable:
    """A variable that HDF5 must read: compressed, chunked, of text, or of unlimited size."""

    __slots__ = ("crc", "dtype", "name", "place", "shape", "source")

    def __init__(
        self, source: NetCDFSource, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
    ):
        self.source = source
        self.place = (source, 0)
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self.crc = None

    def read(self) -> np.ndarray:
        """Return the whole array."""
        return self.select((slice(None),) * len(self.shape))

    def select(self, key: tuple[Any, ...]) -> np.ndarray:
        """Return the part that `key` (an int, slice or 1-d index per axis) selects."""
        first, then = [], []
        for part, size in zip(key, self.shape, strict=True):
            read, cut = _forward(part, size)
            first.append(read)
            then.append(cut)
        with self.source.lock:
            stored = self.source.file[self.name]
            if h5py.check_string_dtype(stored.dtype) is not None:
                stored = stored.asstr("utf-8", "surrogateescape")
            values = np.asarray(stored[tuple(first)])
        for axis, cut in reversed(list(enumerate(then))):
            values = values[(*(slice(None),) * axis, cut, ...)]
        return values if values.dtype == self.dtype else values.astype(self.dtype)


def _forward(part: Any, size: int) -> tuple[slice, Any]:
    """Return a forward slice that h5py reads, and what to take of it."""
    if isinstance(part, slice):
        positions = range(*part.indices(size))
        if not positions:
            return slice(0, 0), slice(None)
        low, high = min(positions[0], positions[-1]), max(positions[0], positions[-1])
        step = abs(positions.step)
        return slice(low, high + 1, step), slice(None, None, 1 if positions.step > 0 else -1)
    if np.ndim(part) == 0:
        place = int(part) % size
        return slice(place, place + 1), 0
    places = np.asarray(part)
    if not places.size:
        return slice(0, 0), places
    low = int(places.min())
    return slice(low, int(places.max()) + 1), places - low


def walk(path: Path, source: NetCDFSource) -> list[dict[str, Any]]:
    """Return the records of all groups of a file, as a catalogue would hold them.

    Raises
    ------
    FormatError
        If HDF5 cannot read the file: it is cut short or damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            return _Walker(file.id).group(h5g.open(file.id, b"/"), [], "")
    except FormatError:
        raise
    except Exception as error:
        raise FormatError(
            f"{path} cannot be read: {error}. It is cut short or damaged; restore it from "
            "a copy"
        ) from error


class _Walker:
    def __init__(self, file: Any):
        self._file = file
        self._scales: dict[int, str] = {}  # the address of a scale -> its dimension
        self._numbers: dict[int, str] = {}  # netCDF's number of a dimension -> its name
        self._users: dict[tuple[int, int], set[str]] = {}  # address and axis -> dimensions
        self._seen: set[int] = set()

    def group(self, group: Any, path: list[str], file_path: str) -> list[dict[str, Any]]:
        """Return the records of a group and of all below it."""
        address = h5o.get_info(group).addr
        if address in self._seen:
            raise FormatError(f"/{'/'.join(path)} is linked from two places, or into itself")
        self._seen.add(address)
        layout = _json(group, "labtree_layout") or {}
        groups, datasets = _members(group)
        names = layout.pop("names", {})
        children = layout.pop("groups", {})
        variables = self._variables(datasets, file_path, names)
        known = {variable[0] for variable in variables}
        words = read_native(group, "coordinates") if _has(group, "coordinates") else None
        listed = isinstance(words, str) and bool(layout or known.issuperset(words.split()))
        if listed and "coords" not in layout:
            layout["coords"] = str(words).split()
        ours = listed or words is None
        attrs = read_attributes(group, frozenset({"coordinates"} if ours else ()))
        layout["coords"] = [name for name in layout.get("coords", ()) if name in known]
        record: dict[str, Any] = {"path": path, "attrs": json_values.encode(attrs)}
        if any(layout.values()):
            record["layout"] = layout
        records = [record | {"variables": variables}]
        for name, child in groups:
            below = [*path, children.get(name, name)]
            records += self.group(child, below, f"{file_path}/{name}")
        return records

    def _variables(
        self, datasets: list[tuple[str, Any]], path: str, names: dict[str, str]
    ) -> list[list[Any]]:
        for name, dataset in datasets:
            if _has(dataset, "CLASS"):
                self._scales[h5o.get_info(dataset).addr] = name
                for user in read_users(dataset):
                    self._users.setdefault(user, set()).add(name)
            if _has(dataset, "_Netcdf4Dimid"):
                self._numbers[int(read_native(dataset, "_Netcdf4Dimid"))] = name
        variables: list[list[Any]] = []
        texts: dict[str, list[Any]] = {}
        for stored_name, dataset in datasets:
            if _has(dataset, "NAME") and str(read_native(dataset, "NAME")).startswith(_BARE):
                continue
            name = stored_name.removeprefix(NON_COORDINATE)
            column = _column(dataset, stored_name, f"{path}/{stored_name}")
            if name.startswith(_TEXTS):
                texts[name] = column
                continue
            spec = _json(dataset, "labtree_codec")
            dims = self._dimensions(stored_name, dataset, column[2])
            if codecs.extra_dimension(spec, tuple(column[2])) is not None:
                dims = dims[:-1]
            attrs = read_attributes(dataset, frozenset(codecs.hints(spec)))
            dims = [names.get(dim, dim) for dim in dims]
            variables.append(
                [names.get(name, name), dims, spec, json_values.encode(attrs), [column]]
            )
            if codecs.companion(spec) is not None:
                variables[-1][4].append(_TEXTS + name)
        for variable in variables:
            variable[4] = [
                texts[item] if isinstance(item, str) else item for item in variable[4]
            ]
        return variables

    def _dimensions(self, name: str, dataset: Any, shape: list[int]) -> list[str]:
        unknown = [f"phony_dim_{axis}_{size}" for axis, size in enumerate(shape)]
        if _has(dataset, "_Netcdf4Coordinates"):
            numbers = np.atleast_1d(read_native(dataset, "_Netcdf4Coordinates")).tolist()
            return [self._numbers.get(number, unknown[i]) for i, number in enumerate(numbers)]
        if _has(dataset, "CLASS"):
            return [name]
        if not _has(dataset, "DIMENSION_LIST"):
            return unknown
        # What the scales say of their users is enough where it is clear. It spares a read
        # for each variable, and HDF5 checks it: it may hang in a damaged DIMENSION_LIST.
        address = h5o.get_info(dataset).addr
        users = [self._users.get((address, axis), set()) for axis in range(len(shape))]
        if all(len(names) == 1 for names in users):
            return [next(iter(names)) for names in users]
        attribute = h5a.open(dataset, b"DIMENSION_LIST")
        lists = np.empty(attribute.shape, attribute.dtype)
        attribute.read(lists)
        dims = []
        for axis, references in enumerate(lists):
            scale = h5r.dereference(references[0], self._file) if len(references) else None
            address = h5o.get_info(scale).addr if scale is not None else -1
            dims.append(self._scales.get(address, unknown[axis]))
        return dims


def _has(owner: Any, name: str) -> bool:
    return bool(h5a.exists(owner, name.encode()))


def _json(owner: Any, name: str) -> Any:
    return json_values.loads(read_native(owner, name)) if _has(owner, name) else None


def _members(group: Any) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Open the groups and datasets of a group, in the order of their creation."""
    order = group.get_create_plist().get_link_creation_order() if group.id else 0
    tracked = bool(order & h5p.CRT_ORDER_TRACKED)
    names: list[bytes] = []
    group.links.iterate(names.append, idx_type=h5.INDEX_CRT_ORDER if tracked else h5.INDEX_NAME)
    groups, datasets = [], []
    for name in names:
        text = name.decode(errors="surrogateescape")
        if group.links.get_info(name).type != h5l.TYPE_HARD:
            raise FormatError(f"{text!r} is a link to elsewhere, which labtree does not follow")
        member = h5o.open(group, name)
        if isinstance(member, h5g.GroupID):
            groups.append((text, member))
        elif isinstance(member, h5d.DatasetID):
            datasets.append((text, member))
    return groups, datasets


def _column(dataset: Any, name: str, path: str) -> list[Any]:
    """Return a dataset's column; where HDF5 must read it, a path and no offset."""
    kind = dataset.get_type()
    dtype = dataset.dtype
    creation = dataset.get_create_plist()
    shape = list(dataset.shape)
    layout = creation.get_layout()
    if layout == h5d.VIRTUAL or creation.get_external_count():
        raise FormatError(f"{path}: its data are in another file, where labtree does not look")
    in_one_piece = layout == h5d.CONTIGUOUS and (codecs.plain(dtype) or dtype == np.dtype("S1"))
    if in_one_piece:
        offset = dataset.get_offset()
        if offset is not None or 0 in shape:
            return [name, dtype.str, shape, offset or 0, None]
    name = path
    if kind.get_class() == h5t.STRING and kind.is_variable_str():
        return [name, "O", shape, None, None]
    if dtype.hasobject:
        raise FormatError(f"{path}: labtree cannot read the HDF5 type {dtype}")
    return [name, dtypes.dtype_to_json(dtype), shape, None, None]
