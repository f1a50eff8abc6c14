"""Reading netCDF-4 and HDF5 files of other programs, and labtree's that others changed.

xarray's h5netcdf engine reads them. What it cannot read is left out with a warning, and
the rest opens. In a file that labtree wrote, the attributes that labtree put on variables
say what their values are.
"""

import contextlib
import errno
import functools
import math
import mmap
import os
import threading
from collections import ChainMap
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr
from h5py import h5d, h5o, h5r, h5z
from xarray.backends import H5NetCDFStore

from labtree.errors import (
    BusyFileError,
    ClosedError,
    DamageWarning,
    FormatError,
    damage_as_format_error,
    warn,
)
from labtree.storage import codecs, json_values
from labtree.storage._xarray import DummyFileManager, Variable, data_of
from labtree.storage.attributes import merge_attributes
from labtree.storage.blobs import ContiguousArray, Key, checksum, contiguous_array
from labtree.storage.files import retry_while_busy
from labtree.storage.lazy import LazyArray, as_lazy, axis_positions, is_whole
from labtree.storage.records import DatasetBuilder, NodeRecord, node_record
from labtree.storage.sources import FileSource, identity
from labtree.storage.versions import check_version

__all__ = [
    "NetCDFSource",
    "OpenedGroup",
    "check_heaps",
    "file_version",
    "open_groups",
    "open_hdf5",
]

# What a selection may ask for beyond what deflate can pack into the bytes that are stored.
_SLACK = 1 << 28
_MOST_PACKED = 1100
_HEAP = b"GCOL\1\0\0\0"
# How much of a file is searched for damaged heaps when it is opened: in 10 ms.
_SEARCHED = 1 << 24
_MOST_OBJECTS = 20_000  # of a file that is looked through for what lies beside its arrays
_MOST_ENTRIES = 1 << 20  # of heaps; a hostile file may have heaps within heaps
_DEEPEST = 200  # groups below one another
_MOST_REPEATED = 1000  # groups that are read again; links in links can make them countless
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


class NetCDFSource:
    """A file that h5netcdf reads; pickles as its path.

    Parameters
    ----------
    plain
        The same file, for arrays that lie there as plain bytes: HDF5, and its lock, are
        then needed only while the file is looked through, and for other arrays.
    """

    def __init__(self, plain: FileSource):
        self.plain = plain
        self.name, self.known = plain.name, plain.known
        self._lock = threading.RLock()
        self._lister: _Lister | None = None
        self._file: _File | None = None
        self._stores: dict[str, _Store] = {}
        self._datasets: dict[str, dict[int, str]] = {}
        self._closed = False
        #: The paths of what could not be read, and why.
        self.left_out: dict[str, str] = {}

    @property
    def file(self) -> "_File":
        """The file, opened when first needed.

        Raises
        ------
        BusyFileError
            If another program is writing the file.
        FormatError
            If HDF5 cannot read it: it is cut short or damaged.
        """
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self.name} was closed; open it again to read from it")
            if self._file is None:
                if identity(self.name) != self.known:
                    raise FormatError(
                        f"{self.name} changed on disk after it was opened; open it again"
                    )
                with damage_as_format_error(self.name):
                    hdf5 = open_hdf5(self.name)
                    check_heaps(self.name, hdf5)
                    if self._lister is None:
                        folder = os.path.dirname(os.path.realpath(self.name))  # noqa: PTH120
                        lister = _Lister(hdf5, folder, self.name, self.left_out)
                        lister.find()
                        self._lister = lister
                    self._file = _File(hdf5, self._lister)
            return self._file

    def store(self, group: str) -> "_Store":
        """Return the engine's store of a group."""
        with self._lock:
            _ = self.file
            if group not in self._stores:
                self._stores[group] = _Store(self, group)
            return self._stores[group]

    def datasets_in(self, where: str) -> dict[int, str]:
        """Return the names of the datasets in a group by their addresses in the file."""
        found = self._datasets.get(where)
        if found is None:
            found, group = {}, self.file.hdf5[where]
            for name in group:
                with contextlib.suppress(KeyError, OSError, RuntimeError, ValueError):
                    info = h5o.get_info(group.id, name.encode())
                    if info.type == h5o.TYPE_DATASET:
                        found.setdefault(info.addr, name)
            self._datasets[where] = found
        return found

    def release(self) -> None:
        """Close HDF5's file until it is needed again."""
        with self._lock:
            self._stores, self._datasets = {}, {}
            if self._file is not None:
                self._file.close()
                self._file.hdf5.close()
                self._file = None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._closed = True
            self.release()

    def __reduce__(self) -> Any:
        return NetCDFSource, (self.plain,)


def check_heaps(path: str | Path, opened: Any = None) -> None:
    """Refuse a file with a damaged global heap, in which HDF5 would search for ever.

    HDF5 keeps texts and references of any length there.

    Parameters
    ----------
    path
        The file.
    opened
        The same, open in h5py: 16 MiB of it are searched for heaps, or as much beside its
        contiguous arrays where it is larger. Where there is more to search, nothing is.
        Without it the whole file is searched.

    Raises
    ------
    FormatError
        If a heap has an entry of no size, or of one that is larger than the file.
    """
    length = os.path.getsize(path)  # noqa: PTH202, for str too
    parts = [(0, length)]
    if opened is not None and length > _SEARCHED:
        parts = _beside_arrays(opened, length)
        if sum(stop - start for start, stop in parts) > _SEARCHED:
            return
    if not length:
        return
    with (
        open(path, "rb") as file,  # noqa: PTH123
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        left = _MOST_ENTRIES
        for part in parts:
            start = data.find(_HEAP, *part)
            while start >= 0:
                left = _check_heap(data, path, start, left)
                start = data.find(_HEAP, start + 1, part[1])


def _check_heap(data: mmap.mmap, path: str | Path, start: int, left: int) -> int:
    """Look at the entries of one heap; return how many more may be looked at."""
    end = start + int.from_bytes(data[start + 8 : start + 16], "little")
    place = start + 16
    while place + 16 <= min(end, len(data)) and left > 0:
        left -= 1
        number = int.from_bytes(data[place : place + 2], "little")
        size = int.from_bytes(data[place + 8 : place + 16], "little")
        if (number == 0 and size == 0) or size > len(data):
            raise FormatError(
                f"{path}: what HDF5 keeps at byte {start} (a global heap) is damaged, "
                "and HDF5 would search there forever; restore the file from a copy"
            )
        place += 16 + (size + 7) // 8 * 8 if number else size
    return left


def _beside_arrays(opened: Any, length: int) -> list[tuple[int, int]]:
    """Return the parts of a file, from one place to the next, without contiguous arrays.

    No values are read for it, and no heaps.
    """
    arrays: list[tuple[int, int]] = []
    count = 0

    def look(name: bytes) -> bool | None:
        nonlocal count
        count += 1
        with contextlib.suppress(Exception):  # what is damaged is told when it is read
            found = h5o.open(opened.id, name)
            if isinstance(found, h5d.DatasetID) and found.get_offset() is not None:
                arrays.append((found.get_offset(), found.get_storage_size()))
        return True if count >= _MOST_OBJECTS else None

    with contextlib.suppress(Exception):
        h5o.visit(opened.id, look)
    parts, place = [], 0
    for start, size in sorted(arrays):
        if start > place:
            parts.append((place, start))
        place = max(place, start + size)
    return [*parts, (place, max(place, length))]


def open_hdf5(path: str | Path) -> Any:
    """Open an HDF5 file for reading, also where the file system has no locks.

    Before texts or references of any length are read from it, :func:`check_heaps`.

    Raises
    ------
    BusyFileError
        If another program is writing the file.
    OSError
        If HDF5 cannot open it.
    """
    try:
        return retry_while_busy(lambda: h5py.File(path, "r"))
    except BusyFileError as error:
        raise BusyFileError(
            f"{path} is open for writing in another program; close it there, or wait until it "
            "is done"
        ) from error
    except OSError as error:
        # Some network file systems have no locks, which a reader can do without.
        if error.errno not in _NO_LOCKS:
            raise
        return h5py.File(path, "r", locking=False)


class _Kept:
    """Keeps the HDF5 object: h5netcdf looks it up by its path for each question."""

    _kept: Any = None

    @property
    def _h5ds(self) -> Any:
        if self._kept is None:
            self._kept = super()._h5ds  # type: ignore[misc]
        return self._kept


class _Attributes(h5netcdf.attrs.Attributes):  # type: ignore[misc]
    """Attributes of h5netcdf's: references to objects as paths, and all that can be read."""

    def __init__(self, owner: Any):
        object_ = owner._h5group if isinstance(owner, h5netcdf.Group) else owner._h5ds
        root = owner._root
        super().__init__(object_.attrs, root._check_valid_netcdf_dtype, root._h5py)
        self._id, self._where, self._lister = object_.id, object_.name, root.lister

    def __getitem__(self, name: str) -> Any:
        attribute = self._h5attrs.get_id(name)
        kind = attribute.dtype
        parts = h5py.check_vlen_dtype(kind)
        if isinstance(parts, np.dtype) and h5py.check_ref_dtype(parts) is not None:
            lists = self._h5attrs[name] if attribute.shape else [self._h5attrs[name]]
            return [self._paths(each) for each in lists]
        if h5py.check_ref_dtype(kind) is None:
            return _as_utf8(super().__getitem__(name))
        paths = self._paths(np.ravel(np.asarray(self._h5attrs[name], object)))
        return paths[0] if len(paths) == 1 else paths

    def _paths(self, references: Any) -> list[str]:
        return [(h5r.get_name(each, self._id) or b"").decode() for each in references]

    def items(self) -> Any:
        """Return the names and values of those that can be read."""
        found = {}
        for name in self:
            try:
                found[name] = self[name]
            except Exception as error:  # h5py raises whatever a damaged object makes it
                self._lister.leave_out(f"{self._where}, attribute {name!r}", error)
        return found.items()


def _as_utf8(value: Any) -> Any:
    """Return a text that a program marked as ASCII, as netCDF-C does, for what it is."""
    if isinstance(value, list):
        return [_as_utf8(each) for each in value]
    if not isinstance(value, str) or value.isascii():
        return value
    try:
        return value.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        return value


class _Variable(_Kept, h5netcdf.Variable):  # type: ignore[misc]
    @property
    def attrs(self) -> Any:
        return _Attributes(self)


class _Group(h5netcdf.Group):  # type: ignore[misc]
    """A group of h5netcdf's without the members that must not be opened."""

    _variable_cls = _Variable
    _visible: Any = None

    @property
    def _group_cls(self) -> Any:
        return _Group

    @property
    def name(self) -> str:
        """The path, which h5netcdf takes from the other file where a link leads to one."""
        return str(self._h5path)

    @property
    def attrs(self) -> Any:
        return _Attributes(self)

    @property
    def _h5group(self) -> Any:
        if self._visible is None:
            found = _Visible(self._root._h5file[self._h5path].id)
            found.hidden = self._root.lister.hidden.get(self._h5path, set())
            self._visible = found
        return self._visible


class _Visible(h5py.Group):  # type: ignore[misc]
    hidden: set[str]

    def __iter__(self) -> Iterator[str]:
        return (name for name in super().__iter__() if name not in self.hidden)


class _File(_Group, h5netcdf.File):  # type: ignore[misc]
    """A file of h5netcdf's; what it cannot open is left out."""

    def __init__(self, hdf5: Any, lister: "_Lister"):
        self._closed = True  # until h5netcdf has it open: it is closed when collected
        self.hdf5, self.lister = hdf5, lister
        h5netcdf.File.__init__(self, hdf5, "r", phony_dims="access", decode_vlen_strings=True)

    @property
    def _root(self) -> Any:
        return self

    @property
    def parent(self) -> Any:
        return None

    def store(self, group: str | None) -> Any:
        """Return the arguments of an engine's store of a group."""
        return {"manager": DummyFileManager(self), "group": group, "mode": "r"}


def file_version(attrs: Any) -> object:
    """Return the version of labtree's format that a root's attributes state, or None."""
    found = attrs.get("labtree_file_format")
    return int(found) if isinstance(found, np.integer) else found


class OpenedGroup:
    """A group of a file: its path, its dataset, and what of it could not be read.

    Parameters
    ----------
    path
        Names in the tree.
    dataset
        Lazy.
    """

    def __init__(self, path: list[str], dataset: xr.Dataset):
        self.path, self.dataset = path, dataset


def open_groups(source: NetCDFSource, **decoding: Any) -> Iterator[OpenedGroup]:
    """Open every group of a file, parents before children.

    Parameters
    ----------
    source
        The file.
    **decoding
        xarray's options, such as ``mask_and_scale``, for what labtree did not write.

    Warns
    -----
    DamageWarning
        For each part that cannot be read and is left out.
    """
    root = source.file
    attrs = _attributes(root)
    version = file_version(attrs)
    if version is not None:
        check_version(version, 2, source.name)
    elif "labtree_workspace_id" in attrs and "_NCProperties" in root.hdf5.attrs:
        made = root.hdf5.attrs["_NCProperties"]
        if "version=2,h5py=" in str(made):
            check_version(1, 2, source.name)
    for path in root.lister.groups:
        names = list(path)
        where = "/" + "/".join(path)
        try:
            store = source.store(where)
            dataset = _open_group(store, source, where, version is not None, decoding)
            if version is not None and path and "labtree_real_name" in store.ds.attrs:
                names[-1] = str(json_values.loads(store.ds.attrs["labtree_real_name"]))
        except Exception as error:  # of a damaged or hostile group it can be anything
            root.lister.leave_out(where, error)
            if path:
                continue
            dataset = xr.Dataset()
        yield OpenedGroup(names, dataset)


class _Lister:
    """Finds the groups of a file, and the members that must not be followed."""

    def __init__(self, file: Any, folder: str, name: str, left_out: dict[str, str]):
        self._file, self._folder, self._name = file, folder, name
        self._left_out = left_out
        self._seen: set[tuple[int, int]] = set()
        self._repeated = 0
        #: The paths of the groups, parents before children.
        self.groups: list[tuple[str, ...]] = []
        #: By the path of a group: members that must not be opened.
        self.hidden: dict[str, set[str]] = {}

    def leave_out(self, where: str, reason: object) -> None:
        """Warn, once, that a part of the file is left out."""
        if where not in self._left_out:
            self._left_out[where] = str(reason)
            warn(
                f"{self._name}: {where} cannot be read and was left out ({reason})",
                DamageWarning,
            )

    def find(self) -> None:
        """Look at every member of every group."""
        self._group(self._file["/"], (), frozenset())
        del self._file

    def _group(
        self, group: Any, path: tuple[str, ...], above: frozenset[tuple[int, int]]
    ) -> None:
        hidden: set[str] = set()
        self.hidden["/" + "/".join(path)] = hidden
        self.groups.append(path)
        above |= {_address(group)}
        self._seen |= above
        below = []
        for name in group:
            where = "/" + "/".join([*path, name])
            try:
                reason = self._refused(group, name)
                member = group[name] if reason is None else None
                if isinstance(member, h5py.Group):
                    reason = self._group_refused(member, path, above)
                    if reason is None:
                        below.append((name, member))
                elif isinstance(member, h5py.Dataset):
                    reason = self._outside(member) or _is_half_labeled(member)
                    reason = reason or _lacks_filter(member)
                elif member is not None and not isinstance(member, h5py.Datatype):
                    reason = "it is no group and no dataset"
            except Exception as error:  # h5py raises whatever a damaged object makes it
                reason = str(error)
            if reason is not None:
                hidden.add(name)
                self.leave_out(where, reason)
        for name, member in below:
            self._group(member, (*path, name), above)

    def _group_refused(
        self, group: Any, path: tuple[str, ...], above: frozenset[tuple[int, int]]
    ) -> str | None:
        address = _address(group)
        if address in above:
            return "it is a link to a group that contains it"
        if len(path) >= _DEEPEST:
            return f"groups are nested more than {_DEEPEST} deep"
        if address in self._seen:
            self._repeated += 1
            if self._repeated > _MOST_REPEATED:
                return f"more than {_MOST_REPEATED} links lead to groups that were read already"
        self._seen.add(address)
        return None

    def _refused(self, group: Any, name: str) -> str | None:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink) and not self._is_inside(link.filename):
            return f"it is a link to {link.filename}, which is no file in this file's folder"
        return None

    def _outside(self, dataset: Any) -> str | None:
        """Return why the data of a dataset must not be read, or None."""
        plist = dataset.id.get_create_plist()
        files = []
        if plist.get_layout() == h5d.VIRTUAL:
            if self._reads_itself(dataset.name, ()):
                return "it is a virtual dataset that reads itself"
            files = [plist.get_virtual_filename(i) for i in range(plist.get_virtual_count())]
        elif plist.get_layout() == h5d.CONTIGUOUS:
            files = [plist.get_external(i)[0] for i in range(plist.get_external_count())]
        for each in files:
            file = each.decode(errors="surrogateescape") if isinstance(each, bytes) else each
            if file != "." and not self._is_inside(file):
                return f"its data are in {file}, which is no file in this file's folder"
        return None

    def _reads_itself(self, name: str, above: tuple[str, ...]) -> bool:
        """Return whether a virtual dataset has itself among its sources: HDF5 would crash."""
        found = self._file.get(name)
        if not isinstance(found, h5py.Dataset) or not found.is_virtual:
            return False
        if found.name in above or len(above) > _DEEPEST:
            return True
        own = (".", os.path.basename(self._name), self._name)  # noqa: PTH119
        return any(
            self._reads_itself(source.dset_name, (*above, found.name))
            for source in found.virtual_sources()
            if source.file_name in own
        )

    def _is_inside(self, file: str) -> bool:
        target = os.path.realpath(os.path.join(self._folder, file))  # noqa: PTH118
        if os.path.exists(target) and not os.path.isfile(target):  # noqa: PTH110, PTH113
            return False  # a pipe or a device
        return os.path.commonpath([self._folder, target]) == self._folder


def _is_half_labeled(dataset: Any) -> str | None:
    """Return why h5netcdf refuses the dimensions of a dataset, and its whole file, or None."""
    if len(dataset.shape or ()) < 2 or "DIMENSION_LIST" not in dataset.attrs:
        return None
    counts = {len(scales) for scales in dataset.attrs["DIMENSION_LIST"]}
    return "some of its dimensions have a scale and others none" if {0} < counts else None


def _address(member: Any) -> tuple[int, int]:
    """Return what tells an HDF5 object from others: its file, and its place there."""
    info = h5o.get_info(member.id)
    return info.fileno, info.addr


def _lacks_filter(dataset: Any) -> str | None:
    """Return why the chunks of a dataset cannot be unpacked here, or None."""
    creation = dataset.id.get_create_plist()
    for place in range(creation.get_nfilters()):
        code, _, _, name = creation.get_filter(place)
        if h5z.filter_avail(code):
            continue
        with contextlib.suppress(ImportError):
            import_module("hdf5plugin")  # which adds its filters to h5py
        if h5z.filter_avail(code) or _is_skipped(dataset, place):
            continue
        what = f"filter {code} ({name.decode(errors='replace')})"
        return f"it is compressed with {what}, which is not installed; hdf5plugin has many"
    return None


def _is_skipped(dataset: Any, place: int) -> bool:
    """Return whether all chunks were written without a filter of the dataset's."""
    chunks = range(dataset.id.get_num_chunks())
    return all(dataset.id.get_chunk_info(n).filter_mask >> place & 1 for n in chunks)


class _Store(H5NetCDFStore):
    """A group of the engine's; members that cannot be read are left out, one by one."""

    def __init__(self, source: NetCDFSource, group: str):
        super().__init__(**source.file.store(None if group == "/" else group))
        self._source = source
        self._where = group

    def get_variables(self) -> dict[str, Any]:
        """Return the variables that can be read."""
        found = {}
        for name in self.ds.variables:
            try:
                found[name] = self.lazy_variable(name)
            except Exception as error:  # h5py raises whatever a damaged object makes it
                where = f"{self._where.rstrip('/')}/{name}"
                self._source.file.lister.leave_out(where, error)
        return found

    def lazy_variable(self, name: str) -> Any:
        """Return a variable that is read no further than its file can hold values."""
        stored = self.ds.variables[name]
        dataset = stored._h5ds
        if dataset.shape is None:
            raise ValueError("it has no values (a null dataspace)")
        dtype = dataset.dtype
        if dtype.kind == "V" and dtype.hasobject:
            raise ValueError(f"labtree cannot read the HDF5 type {dtype}")
        if h5py.check_ref_dtype(dtype) is not None:
            raise ValueError("it holds references to objects")
        names = self._dimensions_of(dataset)
        if names is not None and getattr(stored, "_dimensions", ()) is None:
            stored._dimensions = names  # else h5netcdf asks HDF5 for each name by a search
        variable: Any = self.open_store_variable(name, stored)  # type: ignore[no-untyped-call]
        limit = _SLACK + _MOST_PACKED * dataset.id.get_storage_size()
        data = data_of(variable)
        fileno = h5o.get_info(self._source.file.hdf5["/"].id).fileno
        blob = _plain_blob(dataset, self._source.plain, data, fileno)
        where = self._where, name
        # xarray casts values that are not native to a dtype that has no fields.
        shown = dtype.newbyteorder("=") if data.dtype.names else data.dtype
        shape, dims = data.shape, variable.dims
        if dtype.subdtype is not None:  # of arrays; the engine forgets their dimensions
            shown, inner = dtype.subdtype
            shape += inner
            dims += tuple(f"{name}_dim_{axis}" for axis in range(len(inner)))
        array = _Guarded(self._source, where, shape, shown, limit, blob)
        return Variable(dims, as_lazy(array), variable.attrs, variable.encoding)

    def _dimensions_of(self, dataset: Any) -> tuple[str, ...] | None:
        """Return the names of a variable's dimensions, or None where h5netcdf must tell.

        h5netcdf asks HDF5 for the name of each dimension scale, and HDF5 searches the file
        for it: in a group of 900 variables that took 22 s. Here the scales of the group and of
        those above it are found once, by their addresses.
        """
        attrs = dataset.attrs
        if "DIMENSION_LIST" not in attrs or "_Netcdf4Coordinates" in attrs:
            return None
        names = []
        for references in attrs["DIMENSION_LIST"]:
            if not len(references):
                return None
            scale = h5r.dereference(references[-1], dataset.id)
            name = self._names.get(h5o.get_info(scale).addr)
            if name is None:
                return None
            names.append(name)
        return tuple(names)

    @functools.cached_property
    def _names(self) -> Mapping[int, str]:
        """The names of the datasets in the group and in those above it, by their addresses."""
        parts = [part for part in self._where.split("/") if part]
        above = ["/" + "/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]
        return ChainMap(*map(self._source.datasets_in, above))

    def get_attrs(self) -> Any:
        """Return the attributes that can be read."""
        return _attributes(self.ds)


def _attributes(owner: Any) -> dict[str, Any]:
    """Return the attributes of a group, as the engine reads them, that can be read."""
    return {
        name: value.decode("utf-8", "surrogateescape")
        if isinstance(value, bytes) and name not in ("_FillValue", "missing_value")
        else value
        for name, value in owner.attrs.items()
    }


def _plain_blob(
    dataset: Any, source: FileSource, data: Any, fileno: int
) -> ContiguousArray | None:
    """Return the array of a dataset that lies in the file in one piece, or None."""
    dtype = dataset.dtype
    if h5o.get_info(dataset.id).fileno != fileno:
        return None  # a link leads to another file
    creation = dataset.id.get_create_plist()
    if creation.get_layout() != h5d.CONTIGUOUS or creation.get_external_count():
        return None
    offset = dataset.id.get_offset()
    if offset is None or dtype != data.dtype or dataset.shape != data.shape:
        return None
    if not (codecs.plain(dtype) or dtype == np.dtype("S1")) or h5py.check_enum_dtype(dtype):
        return None
    return contiguous_array(source, offset, dtype, list(dataset.shape), None, dataset.name)


class _Guarded(LazyArray):
    """An array of the engine's, read no further than the file can hold values."""

    def __init__(
        self,
        source: NetCDFSource,
        where: tuple[str, str],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        limit: int,
        blob: ContiguousArray | None,
    ):
        self.source, self.where, self.limit, self.blob = source, where, limit, blob
        self.shape, self.dtype = shape, dtype

    def read(self, key: tuple[Any, ...]) -> Any:
        """Return the part that `key` selects."""
        if self.blob is not None:
            return self.blob.select(key)
        group, name = self.where
        path = f"{group.rstrip('/')}/{name}"
        counts = [len(axis_positions(part, n)) for part, n in zip(key, self.shape, strict=True)]
        size = math.prod(counts) * max(self.dtype.itemsize, 1)
        if size > self.limit:
            raise FormatError(
                f"{self.source.name}: {path} declares {size} bytes of values, which are not in "
                "the file; select a part of it"
            )
        if 0 in counts:  # older h5netcdf fails on empty lists of positions
            kept = [n for n, part in zip(counts, key, strict=True) if not _is_number(part)]
            return np.empty(kept, self.dtype)
        with damage_as_format_error(self.source.name, path):
            store = self.source.store(group)
            stored = store.ds.variables[name]
            if stored._h5ds.dtype.subdtype is not None:
                whole = np.asarray(stored._h5ds[()])
                for axis, part in reversed(list(enumerate(key))):
                    whole = whole[(*(slice(None),) * axis, part, ...)]
                return whole
            raw: Any = store.open_store_variable(name, stored)  # type: ignore[no-untyped-call]
            data = data_of(raw)
            variable = Variable([f"axis_{n}" for n in range(len(self.shape))], data)
            values = np.asarray(variable[key].values)
            if values.ndim and all(map(_is_number, key)):  # one array of any length
                whole = np.empty((), object)
                whole[()] = values
                return whole
            return values.astype(self.dtype, copy=False) if self.dtype.names else values


def _is_number(part: Any) -> bool:
    return isinstance(part, (int, np.integer))


def _open_group(
    store: _Store, source: NetCDFSource, where: str, is_ours: bool, decoding: dict[str, Any]
) -> xr.Dataset:
    raw, attrs = store.get_variables(), store.get_attrs()
    if not is_ours:
        return _decoded(store, raw, attrs, where, decoding)
    ours = {
        name
        for name, variable in raw.items()
        if not codecs.MARKS.isdisjoint(variable.attrs) and "labtree_crc32c" in variable.attrs
    }
    others = {name: variable for name, variable in raw.items() if name not in ours}
    record, columns = _record(raw, attrs, ours, source, where, store)
    if others:
        plain = _decoded(store, others, {}, where, decoding)
    builder = DatasetBuilder(lambda path, column: columns[column[0]])
    dataset = builder.build(record)
    return dataset if not others else dataset.merge(plain, combine_attrs="override")


def _decoded(
    store: _Store, raw: dict[str, Any], attrs: Any, where: str, decoding: dict[str, Any]
) -> xr.Dataset:
    """Return what the engine makes of raw variables; those that it cannot decode go."""
    whole = _Given(store, raw, dict(attrs))
    try:
        return xr.open_dataset(whole, cache=False, **decoding)
    except Exception:
        bad: dict[str, str] = {}
        ragged: dict[str, Any] = {}
        for name, variable in raw.items():
            try:
                xr.open_dataset(_Given(store, {name: variable}, {}), cache=False, **decoding)
            except Exception as reason:
                if variable.dtype.kind == "O":  # arrays of any length, which have no CF
                    ragged[name] = variable
                else:
                    bad[name] = str(reason)
        if not bad and not ragged:
            raise
        for name, text in bad.items():
            store._source.file.lister.leave_out(f"{where.rstrip('/')}/{name}", text)
        kept = {name: each for name, each in raw.items() if name not in bad | ragged}
        given = _Given(store, kept, dict(attrs))
        dataset = xr.open_dataset(given, cache=False, **decoding).assign(ragged)
        return dataset[[name for name in raw if name in dataset.variables]]


class _Given(xr.backends.common.AbstractDataStore):
    """Variables that were read already, for xarray to decode."""

    def __init__(self, store: _Store, variables: dict[str, Any], attrs: dict[str, Any]):
        self._variables, self._attrs, self._store = variables, attrs, store

    def load(self) -> Any:
        """Return the variables and attributes."""
        return self._variables, self._attrs

    def get_encoding(self) -> dict[str, Any]:
        """Return the group's encoding."""
        return dict(self._store.get_encoding())  # type: ignore[no-untyped-call]


def _record(
    raw: dict[str, Any],
    attrs: dict[str, Any],
    ours: set[str],
    source: NetCDFSource,
    where: str,
    store: _Store,
) -> tuple[NodeRecord, dict[str, "_Column"]]:
    """Return the record of a group that labtree wrote, and its plain arrays by name."""
    names = {name: _real_name(name, raw[name].attrs) for name in ours}
    dims = _dimension_names(store)
    columns = {name: _Column(raw[name], source, f"{where.rstrip('/')}/{name}") for name in ours}
    coords: list[str] = []
    variables: list[list[Any]] = []
    for name, variable in raw.items():
        if name not in ours or "labtree_beside" in variable.attrs:
            continue
        spec = codecs.spec_of_marks(variable.attrs, columns[name].dtype)
        if spec is not None and spec["codec"] == "utf8":
            columns[name].widen(np.dtype(spec["dtype"]).itemsize // 4)
        parts = [name]
        hints: set[str] = {"coordinates", *codecs.cf_attributes(spec)}
        if "labtree_text" in variable.attrs:
            parts.append(str(variable.attrs["labtree_text"]))
            hints.add("labtree_text")
        if codecs.has_mask(spec):
            parts.append(str(variable.attrs["ancillary_variables"]).split()[-1])
            hints.add("ancillary_variables")
        axes = list(variable.dims)
        if codecs.last_dimension(spec, columns[name].shape) is not None:
            axes.pop()
        own = merge_attributes(variable.attrs, frozenset(hints))
        words = str(variable.attrs.get("coordinates", "")).split()
        if "coordinates" not in own:
            if all(word in raw for word in words):
                coords += [names.get(word, word) for word in words]
            else:  # another program wrote it
                own["coordinates"] = variable.attrs["coordinates"]
        axes = [dims.get(axis, axis) for axis in axes]
        coded = json_values.encode(own)
        variables.append([names[name], axes, spec, coded, [[part, None] for part in parts]])
    layout: dict[str, Any] = {}
    if "labtree_layout" in attrs:
        layout = json_values.loads(attrs["labtree_layout"])
    else:
        told = str(attrs.get("coordinates", "")).split()
        layout = {"coords": [names.get(word, word) for word in told]}
    known = {each[0] for each in variables}
    for levels in layout.get("multiindexes", {}).values():
        known.difference_update(levels)
    coords = [name for name in (*layout.get("coords", []), *coords) if name in known]
    layout["coords"] = list(dict.fromkeys(coords))
    own = merge_attributes(attrs, frozenset({"coordinates", "Conventions"}))
    given = attrs.get("Conventions")
    if where == "/" and given is not None and given != "CF-1.11":
        own["Conventions"] = given
    return node_record([], json_values.encode(own), layout, variables), columns


def _real_name(name: str, attrs: dict[str, Any]) -> str:
    named = attrs.get("labtree_real_name")
    return name if named is None else str(json_values.loads(named))


def _dimension_names(store: _Store) -> dict[str, str]:
    """Return the real names of dimensions that are called otherwise in the file."""
    found = {}
    for name in store.ds.dimensions:
        group = store.ds._h5group
        while "%" in name and name not in group and group.name != "/":
            group = group.parent
        if "%" in name and name in group and "labtree_real_name" in group[name].attrs:
            found[name] = str(json_values.loads(group[name].attrs["labtree_real_name"]))
    return found


class _Column:
    """A variable of labtree's in a file that another program changed, undecoded."""

    def __init__(self, variable: Any, source: NetCDFSource, name: str):
        self._variable = Variable(variable.dims, data_of(variable))
        self.dtype, self.shape, self.name = variable.dtype, variable.shape, name
        self.crc = int(variable.attrs["labtree_crc32c"])
        self.place = (source, 0)
        self._padding = 0

    def widen(self, width: int) -> None:
        """Pad characters to a width: xarray writes no more than the longest text needs."""
        if self.shape and self.shape[-1] < width:
            size = math.prod(self.shape[:-1]) * width
            if size > _SLACK:
                raise FormatError(
                    f"{self.place[0].name}: {self.name} declares texts of {size} bytes, which "
                    "are not in the file"
                )
            self._padding = width - self.shape[-1]
            self.shape = (*self.shape[:-1], width)

    def _padded(self, values: np.ndarray) -> np.ndarray:
        if not self._padding:
            return values
        empty = np.zeros((*values.shape[:-1], self._padding), values.dtype)
        return np.concatenate([values, empty], axis=-1)

    def read(self) -> np.ndarray:
        """Return the whole array, checked against its checksum."""
        values = self._padded(np.asarray(self._variable.values))
        if checksum(values) != self.crc:
            source = self.place[0]
            raise FormatError(
                f"{source.name}: the values of {self.name} are not those that labtree wrote: "
                "another program changed them, or they are damaged. To accept them: labtree "
                f"verify --accept {source.name} {self.name.rpartition('/')[0].strip('/')}"
            )
        return values

    def select(self, key: Key) -> np.ndarray:
        """Return the part that `key` (an int, slice or 1-d index per axis) selects."""
        if is_whole(key, self._variable.shape):
            return self.read()
        return self._padded(np.asarray(self._variable[key].values))
