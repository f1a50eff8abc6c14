"""A netCDF-4 or HDF5 file that xarray's h5netcdf engine reads, and its lazy variables."""

import contextlib
import functools
import math
import threading
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5o, h5r
from xarray.backends import H5NetCDFStore

from labtree.errors import ClosedError, DamageWarning, FormatError, damage_as_format_error, warn
from labtree.storage import codecs
from labtree.storage._xarray import DummyFileManager, Variable, data_of
from labtree.storage.blobs import ContiguousArray, contiguous_array, outer_indexed
from labtree.storage.h5netcdf_files import File
from labtree.storage.hdf5_files import check_heaps, open_hdf5
from labtree.storage.hdf5_members import Members
from labtree.storage.lazy import LazyArray, as_lazy, axis_positions
from labtree.storage.sources import FileSource, identity

#: What a selection may ask for beyond what deflate can pack into the bytes that are stored.
SLACK = 1 << 28
_MOST_PACKED = 1100


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
        self._members: Members | None = None
        self._file: File | None = None
        self._stores: dict[str, GroupStore] = {}
        self._datasets: dict[str, dict[int, str]] = {}
        self._closed = False
        #: The paths of what could not be read, and why.
        self.left_out: dict[str, str] = {}

    @property
    def file(self) -> File:
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
                    if self._members is None:
                        self._members = Members(hdf5, self.name, self.leave_out)
                    self._file = File(hdf5, self._members, self.leave_out)
            return self._file

    def leave_out(self, where: str, reason: object) -> None:
        """Warn, once, that a part of the file is left out."""
        if where not in self.left_out:
            self.left_out[where] = str(reason)
            warn(
                f"{self.name}: {where} cannot be read and was left out ({reason})",
                DamageWarning,
            )

    def store(self, group: str) -> "GroupStore":
        """Return the engine's store of a group."""
        with self._lock:
            _ = self.file
            if group not in self._stores:
                self._stores[group] = GroupStore(self, group)
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


class GroupStore(H5NetCDFStore):
    """A group of the engine's; variables that cannot be read are left out, one by one.

    Parameters
    ----------
    source
        The file.
    where
        The path of the group.
    """

    def __init__(self, source: NetCDFSource, where: str):
        group = None if where == "/" else where
        super().__init__(DummyFileManager(source.file), group=group, mode="r")
        self.source, self.where = source, where

    def path_of(self, name: str) -> str:
        """Return the path of a variable."""
        return f"{self.where.rstrip('/')}/{name}"

    def get_variables(self) -> dict[str, Any]:
        """Return the variables that can be read."""
        found = {}
        for name in self.ds.variables:
            try:
                found[name] = self.lazy_variable(name)
            except Exception as error:  # h5py raises whatever a damaged object makes it
                self.source.leave_out(self.path_of(name), error)
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
        data = data_of(variable)
        # xarray casts values that are not native to a dtype that has no fields.
        shown = dtype.newbyteorder("=") if data.dtype.names else data.dtype
        shape, dims = data.shape, variable.dims
        if dtype.subdtype is not None:  # of arrays; the engine forgets their dimensions
            shown, inner = dtype.subdtype
            shape += inner
            dims += tuple(f"{name}_dim_{axis}" for axis in range(len(inner)))
        limit = SLACK + _MOST_PACKED * dataset.id.get_storage_size()
        array = _EngineArray(self, name, shape, shown, limit, self._plain_array(dataset, data))
        return Variable(dims, as_lazy(array), variable.attrs, variable.encoding)

    def _plain_array(self, dataset: Any, data: Any) -> ContiguousArray | None:
        """Return the array of a dataset that lies in the file in one piece, or None."""
        dtype = dataset.dtype
        own = h5o.get_info(self.source.file.hdf5["/"].id).fileno
        if h5o.get_info(dataset.id).fileno != own:
            return None  # a link leads to another file
        creation = dataset.id.get_create_plist()
        if creation.get_layout() != h5d.CONTIGUOUS or creation.get_external_count():
            return None
        offset = dataset.id.get_offset()
        if offset is None or dtype != data.dtype or dataset.shape != data.shape:
            return None
        if not (codecs.plain(dtype) or dtype == np.dtype("S1")) or h5py.check_enum_dtype(dtype):
            return None
        shape = list(dataset.shape)
        return contiguous_array(self.source.plain, offset, dtype, shape, None, dataset.name)

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
        parts = [part for part in self.where.split("/") if part]
        above = ["/" + "/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]
        return ChainMap(*map(self.source.datasets_in, above))

    def get_attrs(self) -> Any:
        """Return the attributes that can be read."""
        return {
            name: value.decode("utf-8", "surrogateescape")
            if isinstance(value, bytes) and name not in ("_FillValue", "missing_value")
            else value
            for name, value in self.ds.attrs.items()
        }


class _EngineArray(LazyArray):
    """An array of the engine's, read no further than the file can hold values.

    It holds the file and no store: stores are made anew when the file was closed meanwhile.
    """

    def __init__(
        self,
        store: GroupStore,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        limit: int,
        plain: ContiguousArray | None,
    ):
        self.source, self.where = store.source, store.where
        self.name, self.path = name, store.path_of(name)
        self.shape, self.dtype, self.limit, self.plain = shape, dtype, limit, plain

    def read(self, key: tuple[Any, ...]) -> Any:
        """Return the part that `key` selects."""
        if self.plain is not None:
            return self.plain.select(key)
        counts = [len(axis_positions(part, n)) for part, n in zip(key, self.shape, strict=True)]
        size = math.prod(counts) * max(self.dtype.itemsize, 1)
        if size > self.limit:
            raise FormatError(
                f"{self.source.name}: {self.path} declares {size} bytes of values, which are "
                "not in the file; select a part of it"
            )
        if 0 in counts:  # older h5netcdf fails on empty lists of positions
            kept = [n for n, part in zip(counts, key, strict=True) if not _is_number(part)]
            return np.empty(kept, self.dtype)
        with damage_as_format_error(self.source.name, self.path):
            store = self.source.store(self.where)
            stored = store.ds.variables[self.name]
            if stored._h5ds.dtype.subdtype is not None:
                return outer_indexed(np.asarray(stored._h5ds[()]), key)
            raw: Any = store.open_store_variable(self.name, stored)  # type: ignore[no-untyped-call]
            variable = Variable([f"axis_{n}" for n in range(len(self.shape))], data_of(raw))
            values = np.asarray(variable[key].values)
            if values.ndim and all(map(_is_number, key)):  # one array of any length
                whole = np.empty((), object)
                whole[()] = values
                return whole
            return values.astype(self.dtype, copy=False) if self.dtype.names else values


def _is_number(part: Any) -> bool:
    return isinstance(part, (int, np.integer))
