"""netCDF-4 structure, written through h5py's low-level calls.

h5netcdf writes the same groups, dimension scales and attributes, but opens every
object again and again through Python objects, which costs most of the time of a file
with many small items. The layout follows the netCDF-4 file format as Unidata
documents it (appendix "File format specifications") and the HDF5 dimension scale
specification.
"""

import contextlib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5g, h5o, h5p, h5s, h5t

from labtree.storage.attributes import write_native
from labtree.storage.blocks import write_blocks
from labtree.storage.output import Output

__all__ = ["NON_COORDINATE", "NetCDFWriter", "SharedDimensions", "read_users"]

#: What netCDF-4 puts before the name of a variable that is named like a dimension
#: but is no coordinate of it.
NON_COORDINATE = "_nc4_non_coord_"
_BARE = "This is a netCDF dimension but not a netCDF variable.%10d"

_ORDERED = h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED
_SCALAR = h5s.create(h5s.SCALAR)
_ONE = h5s.create_simple((1,))
_REFERENCES = h5t.vlen_create(h5t.STD_REF_OBJ)
_VLEN = np.dtype([("len", np.uint64), ("address", np.uint64)])
_BACK = np.dtype([("dataset", np.uint64), ("dimension", np.int32), ("pad", np.int32)])
_CHARACTER = h5t.TypeID.copy(h5t.C_S1)


def _back_type() -> Any:
    kind = h5t.create(h5t.COMPOUND, _BACK.itemsize)
    kind.insert(b"dataset", 0, h5t.STD_REF_OBJ)
    kind.insert(b"dimension", 8, h5t.STD_I32LE)
    return kind


_BACK_TYPE = _back_type()


def _scale_text(size: int) -> Any:
    kind = h5t.TypeID.copy(h5t.C_S1)
    kind.set_size(size)
    return kind


_CLASS_TYPE, _CLASS = _scale_text(16), np.array(b"DIMENSION_SCALE\0", "S16")


def _file_type(dtype: np.dtype[Any]) -> Any:
    return _CHARACTER if dtype.kind == "S" else h5t.py_create(dtype)


class NetCDFWriter:
    """A new netCDF-4 file: groups, dimensions, variables, each written once."""

    def __init__(self, path: Path):
        self._output = Output(path)
        access = h5p.create(h5p.FILE_ACCESS)
        access.set_fileobj_driver(h5fd.fileobj_driver, self._output)
        access.set_fclose_degree(h5f.CLOSE_STRONG)
        access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_V110)
        creation = h5p.create(h5p.FILE_CREATE)
        creation.set_link_creation_order(_ORDERED)
        creation.set_attr_creation_order(_ORDERED)
        self._group_creation = h5p.create(h5p.GROUP_CREATE)
        self._group_creation.set_link_creation_order(_ORDERED)
        self._group_creation.set_attr_creation_order(_ORDERED)
        self._contiguous = self._dataset_creation()
        # Space at once and no fill values: the bytes are then put where they belong
        # without passing through HDF5.
        self._contiguous.set_fill_time(h5d.FILL_TIME_NEVER)
        self._contiguous.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        self._bare = self._dataset_creation()
        self._dimensions = 0
        self._types: dict[np.dtype[Any], Any] = {}
        self._spaces: dict[tuple[int, ...], Any] = {(): _SCALAR}
        self.file = h5f.create(bytes(path), h5f.ACC_EXCL, creation, access)
        version = f"version=2,h5py={h5py.__version__},hdf5={h5py.version.hdf5_version}"
        write_native(self.file, "_NCProperties", version)

    @staticmethod
    def _dataset_creation() -> Any:
        creation = h5p.create(h5p.DATASET_CREATE)
        creation.set_attr_creation_order(_ORDERED)
        creation.set_obj_track_times(False)
        return creation

    def _space(self, shape: tuple[int, ...]) -> Any:
        space = self._spaces.get(shape)
        if space is None:
            space = h5s.create_simple(shape)
            if len(self._spaces) < 1000:
                self._spaces[shape] = space
        return space

    def group(self, parent: Any, name: str) -> Any:
        """Create a group below an open one."""
        return h5g.create(parent, name.encode(), gcpl=self._group_creation)

    def variable(
        self, group: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> Any:
        """Create a variable in one piece, its values not yet written."""
        kind = self._types.get(dtype)
        if kind is None:
            kind = self._types[dtype] = _file_type(dtype)
        creation = self._contiguous
        return h5d.create(group, name.encode(), kind, self._space(shape), dcpl=creation)

    def write(self, variable: Any, array: np.ndarray) -> int:
        """Write all values of a variable; return where in the file they begin."""
        if not array.size:
            return 0
        offset: int = variable.get_offset()
        self._output.write_at(offset, array)
        return offset

    def write_blocks(self, variable: Any, array: Any, shape: tuple[int, ...]) -> int:
        """Write an array of dask block by block; return where in the file it begins."""
        offset: int = variable.get_offset() or 0
        output = self._output
        write_blocks(array, shape, lambda place, run: output.write_at(offset + place, run))
        return offset

    def connect(
        self,
        group: Any,
        sizes: Mapping[str, int],
        variables: Iterable[tuple[str, tuple[str, ...], Any]],
        shared: "SharedDimensions | None" = None,
    ) -> None:
        """Make the dimensions of a group and say which variable has which.

        Parameters
        ----------
        group
            The open group.
        sizes
            Name and size of each dimension.
        variables
            File name, dimensions and open dataset of each variable. A variable that is
            named like its first dimension becomes the coordinate of it.
        shared
            Where dimensions without a coordinate are made once for many groups.
        """
        variables = list(variables)
        coordinates = {
            name: (variable, dims) for name, dims, variable in variables if name in dims[:1]
        }
        scales: dict[str, _Scale] = {}
        for name, size in sizes.items():
            variable, _ = coordinates.get(name, (None, None))
            scale = None if variable is not None or shared is None else shared.get(name, size)
            if scale is None:
                scale = self._scale(group, name, size, variable)
            scales[name] = scale
        for variable, dims in coordinates.values():
            if len(dims) > 1:
                numbers = np.array([scales[dim].number for dim in dims], np.int32)
                write_native(variable, "_Netcdf4Coordinates", numbers)
        for name, dims, variable in variables:
            if not dims or name == dims[0]:
                continue
            _set_dimensions(variable, [scales[dim].address for dim in dims])
            address = h5o.get_info(variable).addr
            for axis, dim in enumerate(dims):
                scales[dim].users.append((address, axis))
        for scale in scales.values():
            if not scale.is_shared:
                scale.finish()

    def _scale(
        self, group: Any, name: str, size: int, variable: Any, is_shared: bool = False
    ) -> "_Scale":
        """Make a dimension out of a variable, or out of nothing."""
        scale, title = variable, name
        if scale is None:
            space, title = self._space((size,)), _BARE % size
            scale = h5d.create(group, name.encode(), h5t.IEEE_F32BE, space, dcpl=self._bare)
        _set_scale(scale, title, self._dimensions)
        self._dimensions += 1
        return _Scale(scale, h5o.get_info(scale).addr, self._dimensions - 1, is_shared)

    def close(self) -> None:
        """Write everything out and close the file.

        Raises
        ------
        OSError
            If something could not be written; the file is incomplete and must be removed.
        """
        try:
            self.file.close()
        finally:
            self._output.close()

    def abandon(self) -> None:
        """Let go of a file that is not finished, writing nothing more."""
        self._output.abandon()
        with contextlib.suppress(Exception):  # keep the original error
            self.close()


@dataclass(slots=True)
class _Scale:
    """A dimension in a file: its dataset, address and number, and who refers to it."""

    dataset: Any
    address: int
    number: int
    is_shared: bool
    users: list[tuple[int, int]] = field(default_factory=list)

    def finish(self) -> None:
        if self.users:
            _set_users(self.dataset, self.users)


class SharedDimensions:
    """Dimensions of a group that the groups below it use: a name and size is made once.

    Only dimensions without a coordinate are shared; in netCDF-4 they are visible in all
    groups below.
    """

    def __init__(self, writer: NetCDFWriter, group: Any, taken: Iterable[str]):
        self._writer, self._group, self._taken = writer, group, set(taken)
        self._scales: dict[tuple[str, int], _Scale] = {}

    def get(self, name: str, size: int) -> _Scale | None:
        """Return the scale of a dimension, or None where the name is taken."""
        scale = self._scales.get((name, size))
        if scale is None and name not in self._taken:
            self._taken.add(name)
            scale = self._writer._scale(self._group, name, size, None, is_shared=True)
            self._scales[name, size] = scale
        return scale

    def finish(self) -> None:
        """Write down who uses the dimensions."""
        for scale in self._scales.values():
            scale.finish()


@functools.lru_cache(maxsize=1000)
def _title(text: str) -> tuple[Any, np.ndarray]:
    data = text.encode() + b"\0"
    return _scale_text(len(data)), np.array(data, f"S{len(data)}")


def _set_scale(scale: Any, title: str, number: int) -> None:
    h5a.create(scale, b"CLASS", _CLASS_TYPE, _SCALAR).write(_CLASS, mtype=_CLASS_TYPE)
    kind, text = _title(title)
    h5a.create(scale, b"NAME", kind, _SCALAR).write(text, mtype=kind)
    attribute = h5a.create(scale, b"_Netcdf4Dimid", h5t.STD_I32LE, _SCALAR)
    attribute.write(np.array(number, np.int32), mtype=h5t.STD_I32LE)


def _set_dimensions(variable: Any, addresses: list[int]) -> None:
    # An object reference is the object's address; a variable-length item is its
    # length and where in memory it lies. Handing both over as they are spares h5py's
    # conversion of nested Python objects.
    references = np.array(addresses, np.uint64)
    items = np.empty(len(addresses), _VLEN)
    items["len"] = 1
    items["address"] = references.ctypes.data + 8 * np.arange(len(addresses), dtype=np.uint64)
    space = _ONE if len(addresses) == 1 else h5s.create_simple((len(addresses),))
    h5a.create(variable, b"DIMENSION_LIST", _REFERENCES, space).write(items, mtype=_REFERENCES)


def read_users(scale: Any) -> list[tuple[int, int]]:
    """Return the addresses and axes of the variables that have a dimension, from its scale."""
    if not h5a.exists(scale, b"REFERENCE_LIST"):
        return []
    attribute = h5a.open(scale, b"REFERENCE_LIST")
    back = np.zeros(attribute.shape, _BACK)
    attribute.read(back, mtype=_BACK_TYPE)
    return list(zip(back["dataset"].tolist(), back["dimension"].tolist(), strict=True))


def _set_users(scale: Any, pairs: list[tuple[int, int]]) -> None:
    back = np.zeros(len(pairs), _BACK)
    back["dataset"], back["dimension"] = zip(*pairs, strict=True)
    space = _ONE if len(pairs) == 1 else h5s.create_simple((len(pairs),))
    h5a.create(scale, b"REFERENCE_LIST", _BACK_TYPE, space).write(back, mtype=_BACK_TYPE)
