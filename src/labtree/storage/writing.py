"""Writing a tree to a new netCDF-4 file, one array at a time."""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import UnsupportedTypeError
from labtree.storage import codecs, json_values
from labtree.storage._xarray import Variable, data_of
from labtree.storage.arrays import StoredArray, stored_array
from labtree.storage.attributes import write_attributes, write_native
from labtree.storage.blobs import Blob, checksum
from labtree.storage.blocks import is_dask
from labtree.storage.catalogue import VERSION, write_catalogue
from labtree.storage.names import encode_name, is_legal
from labtree.storage.netcdf import NON_COORDINATE, NetCDFWriter, SharedDimensions
from labtree.storage.records import dataset_layout, kept_variables, variable_values
from labtree.storage.sources import FileSource

__all__ = ["Written", "write_tree"]

# Index coordinates up to this size also stand in the catalogue, so that opening a
# file reads nothing else.
_INLINE = 1 << 16


@dataclass(slots=True)
class Written:
    """A finished file: its catalogue's records, and where unchanged arrays moved to."""

    records: list[dict[str, Any]] = field(default_factory=list)
    values: bytearray = field(default_factory=bytearray)
    moves: list[tuple[Blob, int]] = field(default_factory=list)

    def relocate(self, source: FileSource) -> None:
        """Let arrays that were copied from an older file read from the new one from now on.

        Those in a scratch file stay there: their space is given back only when nothing
        refers to them, and the new file may go before them.
        """
        for blob, offset in self.moves:
            if isinstance(blob.place[0], FileSource):
                blob.place = (source, offset)


def write_tree(tree: xr.DataTree, path: Path, **about: Any) -> Written:
    """Write all nodes of a tree to a new file that must not exist.

    Parameters
    ----------
    tree
        Of any depth; arrays may be in memory, lazy or dask's.
    path
        The file to create.
    **about
        JSON values that go into the catalogue beside the records.

    Raises
    ------
    TypeError
        If a part cannot be kept exactly; the message has its path.
    OSError
        If the disk is full or the folder cannot be written to.
    """
    written = Written()
    writer = NetCDFWriter(path)
    try:
        scope = _Scope(frozenset(), _scalar_names(tree))
        _write_node(writer, writer.file, tree, [], written, scope)
        writer.close()
        header = {"format": "labtree", "version": VERSION, **about}
        write_catalogue(path, header, written.records, bytes(written.values))
    except BaseException as error:
        writer.abandon()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    return written


@dataclass(slots=True)
class _Scope:
    """What netCDF lets a group see of the groups above it.

    A variable without dimensions must not be named like a dimension that its group sees:
    other readers would take it for the coordinate. So dimensions of the groups above
    are known here, and those that are made once for many groups avoid all such names.
    """

    dimensions: frozenset[str]
    scalars: frozenset[str]
    shared: SharedDimensions | None = None


def _scalar_names(tree: xr.DataTree) -> frozenset[str]:
    return frozenset(
        _file_name(str(name))
        for node in tree.subtree
        for name, variable in node.variables.items()
        if not variable.dims
    )


def _write_node(
    writer: NetCDFWriter,
    group: Any,
    node: xr.DataTree,
    path: list[str],
    written: Written,
    scope: _Scope,
) -> None:
    where = "/" + "/".join(path)
    dataset = node.to_dataset(inherit=False)
    record, taken = _write_dataset(writer, group, dataset, path, written, scope)
    written.records.append(record)
    if not node.children:
        _write_layout(group, record, {})
        return
    files = {name: _file_name(name) for name in node.children}
    own = SharedDimensions(writer, group, {*taken, *files.values(), *scope.scalars})
    dimensions = scope.dimensions.union(map(_file_name, map(str, dataset.sizes)))
    below_scope = _Scope(dimensions, scope.scalars, own)
    for name, child in node.children.items():
        below = writer.group(group, files[name])
        try:
            _write_node(writer, below, child, [*path, name], written, below_scope)
        except (TypeError, ValueError, OSError) as error:
            if not getattr(error, "__notes__", None):
                error.add_note(f"while writing {where.rstrip('/')}/{name}")
            raise
    own.finish()
    _write_layout(group, record, {file: name for name, file in files.items() if file != name})


def _write_layout(group: Any, record: dict[str, Any], names: dict[str, str]) -> None:
    layout = dict(record.get("layout") or {})
    if names:
        layout["groups"] = names
    if layout:
        write_native(group, "labtree_layout", json_values.dumps(layout))
    coords = layout.get("coords", [])
    readable = [name for name in coords if " " not in name and encode_name(name) == name]
    if readable and "coordinates" not in record["attrs"]:
        write_native(group, "coordinates", " ".join(readable))


def _write_dataset(
    writer: NetCDFWriter,
    group: Any,
    dataset: xr.Dataset,
    path: list[str],
    written: Written,
    scope: _Scope,
) -> tuple[dict[str, Any], set[str]]:
    """Write a node's own variables; return its record and the names that it uses."""
    where = "/" + "/".join(path)
    attrs = dict(dataset.attrs)
    record: dict[str, Any] = {
        "path": path,
        "attrs": json_values.encode(attrs, f"{where}.attrs"),
    }
    indexes = dataset.xindexes if dataset.coords else {}
    layout = dataset_layout(dataset, where)
    variables = kept_variables(dataset)
    files = _file_names((*variables, *dataset.sizes))
    renamed = {encoded: name for name, encoded in files.items() if encoded != name}
    if renamed:
        layout["names"] = renamed
    if layout:
        record["layout"] = layout
    # Other programs read a group's attribute of this name as its list of coordinates.
    write_attributes(group, attrs, where, frozenset({"coordinates"}))
    dimensions = {files[str(dim)] for dim in dataset.sizes}
    node = _NodeWriter(writer, group, files, dimensions, scope.dimensions, written)
    record["variables"] = [
        node.write(name, variable, f"{where.rstrip('/')}/{name}", name in indexes)
        for name, variable in variables.items()
    ]
    writer.connect(group, node.sizes, node.connections, scope.shared)
    return record, {*node.sizes, *(name for name, _, _ in node.connections)}


def _file_names(names: Iterable[Hashable]) -> dict[str, str]:
    files = {}
    for name in names:
        if type(name) is not str or not name:
            raise UnsupportedTypeError(
                f"names of variables and dimensions are str, not {name!r}"
            )
        files[name] = _file_name(name)
    return files


def _file_name(name: str) -> str:
    return name if is_legal(name) else encode_name(name)


@dataclass(slots=True)
class _NodeWriter:
    """Writes the variables of one group and gathers its dimensions."""

    writer: NetCDFWriter
    group: Any
    files: dict[str, str]
    dimensions: set[str]
    inherited: frozenset[str]
    written: Written
    sizes: dict[str, int] = field(default_factory=dict)
    connections: list[tuple[str, tuple[str, ...], Any]] = field(default_factory=list)

    def write(self, name: str, variable: Variable, path: str, is_index: bool) -> list[Any]:
        """Write one variable; return its part of the record."""
        spec, arrays, crcs, blobs = _plain_arrays(variable, path)
        columns = []
        for i, (array, crc) in enumerate(zip(arrays, crcs, strict=True)):
            file_name, dims = self._place(name, variable, spec, array.shape, i)
            dataset = self.writer.variable(self.group, file_name, array.dtype, array.shape)
            if isinstance(array, _Planned):
                offset = self.writer.write_blocks(dataset, array.array, array.shape)
            else:
                offset = self.writer.write(dataset, array)
            if i == 0:
                _write_codec(dataset, spec, variable, path)
            if blobs is not None:
                self.written.moves.append((blobs[i], offset))
            column = [file_name, array.dtype.str, list(array.shape), offset, crc]
            if i == 0 and is_index and array.nbytes <= _INLINE:  # an index is never dask's
                column.append(len(self.written.values))
                self.written.values += array.tobytes()
            columns.append(column)
            self.connections.append((file_name, dims, dataset))
        attributes = (
            json_values.encode(dict(variable.attrs), f"{path}.attrs") if variable.attrs else {}
        )
        return [name, list(variable.dims), spec, attributes, columns]

    def _place(
        self,
        name: str,
        variable: Variable,
        spec: codecs.Spec | None,
        shape: tuple[int, ...],
        part: int,
    ) -> tuple[str, tuple[str, ...]]:
        """Return the name in the file and the dimensions of a plain array."""
        file_name = self.files[name]
        if part:
            dims: tuple[str, ...] = (f"labtree_text_{shape[0]}",)
            file_name = f"{codecs.companion(spec)}{file_name}"
        else:
            dims = tuple(self.files[str(dim)] for dim in variable.dims)
            extra = codecs.extra_dimension(spec, shape)
            dims = dims if extra is None else (*dims, extra)
        self.sizes.update(zip(dims, shape, strict=True))
        clash = file_name in self.dimensions and dims[:1] != (file_name,)
        if clash or (not dims and file_name in self.inherited):
            file_name = NON_COORDINATE + file_name
        return file_name, dims


def _write_codec(dataset: Any, spec: codecs.Spec | None, variable: Variable, path: str) -> None:
    hints: dict[str, str] = {}
    if spec is not None:
        text = json_values.dumps(spec)
        hints = codecs.hints(spec)
        write_native(dataset, "labtree_codec", text)
        for name, value in hints.items():
            write_native(dataset, name, value)
    if variable.attrs:
        write_attributes(dataset, variable.attrs, path, frozenset(hints))


class _Planned:
    """A dask array that will be written block by block, as its plain dtype and shape."""

    def __init__(self, array: Any, dtype: np.dtype[Any], shape: tuple[int, ...]):
        self.array, self.dtype, self.shape = array, dtype, shape
        self.nbytes = math.prod(shape) * dtype.itemsize


def _plain_arrays(
    variable: Variable, path: str
) -> tuple[codecs.Spec | None, list[Any], list[int | None], list[Blob] | None]:
    if not isinstance(data_of(variable), np.ndarray):
        stored = stored_array(variable)
        if stored is not None and stored.is_plain:
            return _copied(stored)
    if is_dask(variable) and variable.dtype.kind not in "OT":
        spec, dtype, extra = codecs.view_spec(variable.dtype)
        planned = _Planned(variable.data, dtype, variable.shape + extra)
        return spec, [planned], [None], None
    if is_dask(variable):  # texts have no width that their blocks agree on
        variable = variable.compute()
    spec, arrays = codecs.encode(variable_values(variable, path), path)
    return spec, list(arrays), [checksum(array) for array in arrays], None


def _copied(
    stored: StoredArray,
) -> tuple[codecs.Spec | None, list[Any], list[int | None], list[Blob] | None]:
    arrays: list[Any] = [blob.read() for blob in stored.blobs]
    crcs: list[int | None] = [
        checksum(array) if blob.crc is None else blob.crc
        for blob, array in zip(stored.blobs, arrays, strict=True)
    ]
    return stored.spec, arrays, crcs, stored.blobs
