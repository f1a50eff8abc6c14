"""Writing a tree to a new netCDF-4 file, one array at a time."""

import contextlib
import math
import threading
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.core.variable import Variable

from labtree.storage import codecs, exact
from labtree.storage.arrays import StoredArray, stored_array
from labtree.storage.attributes import write_attributes, write_native
from labtree.storage.blobs import Blob, FileSource, checksum
from labtree.storage.catalogue import VERSION, write_catalogue
from labtree.storage.names import encode_name, is_legal
from labtree.storage.netcdf import NON_COORDINATE, NetCDFWriter
from labtree.storage.records import dataset_layout, kept_variables, variable_values

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
        """Let the arrays that were copied unchanged read from the new file from now on."""
        for blob, offset in self.moves:
            blob.offset, blob.source = offset, source


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
        _write_node(writer, writer.file, tree, [], written)
        writer.close()
    except BaseException:
        # The first error tells; closing what could not be written would raise another.
        with contextlib.suppress(Exception):
            writer.close()
        raise
    content = {"version": VERSION, **about, "nodes": written.records}
    write_catalogue(path, content, bytes(written.values))
    return written


def _write_node(
    writer: NetCDFWriter, group: Any, node: xr.DataTree, path: list[str], written: Written
) -> None:
    where = "/" + "/".join(path)
    dataset = node.to_dataset(inherit=False)
    record = _write_dataset(writer, group, dataset, path, written)
    written.records.append(record)
    names: dict[str, str] = {}
    for name, child in node.children.items():
        encoded = name if is_legal(name) else encode_name(name)
        if encoded != name:
            names[encoded] = name
        try:
            _write_node(writer, writer.group(group, encoded), child, [*path, name], written)
        except (TypeError, ValueError, OSError) as error:
            if not getattr(error, "__notes__", None):
                error.add_note(f"while writing {where.rstrip('/')}/{name}")
            raise
    _write_layout(group, record, names)


def _write_layout(group: Any, record: dict[str, Any], names: dict[str, str]) -> None:
    layout = dict(record.get("layout") or {})
    if names:
        layout["groups"] = names
    if layout:
        write_native(group, "labtree_layout", exact.dumps(layout))
    coords = layout.get("coords", [])
    readable = [name for name in coords if " " not in name and encode_name(name) == name]
    if readable and "coordinates" not in record["attrs"]:
        write_native(group, "coordinates", " ".join(readable))


def _write_dataset(
    writer: NetCDFWriter, group: Any, dataset: xr.Dataset, path: list[str], written: Written
) -> dict[str, Any]:
    where = "/" + "/".join(path)
    attrs = dict(dataset.attrs)
    record: dict[str, Any] = {"path": path, "attrs": exact.encode(attrs, f"{where}.attrs")}
    layout = dataset_layout(dataset, where)
    variables = kept_variables(dataset)
    files = _file_names((*variables, *dataset.sizes))
    renamed = {encoded: name for name, encoded in files.items() if encoded != name}
    if renamed:
        layout["names"] = renamed
    if layout:
        record["layout"] = layout
    write_attributes(group, attrs, where, frozenset({"coordinates"} if layout else ()))
    indexes = set(dataset.xindexes)
    node = _NodeWriter(writer, group, files, {files[str(dim)] for dim in dataset.sizes}, written)
    record["variables"] = [
        node.write(name, variable, f"{where.rstrip('/')}/{name}", name in indexes)
        for name, variable in variables.items()
    ]
    writer.connect(group, node.sizes, node.connections)
    return record


def _file_names(names: Iterable[Hashable]) -> dict[str, str]:
    files = {}
    for name in names:
        if type(name) is not str or not name:
            raise TypeError(f"names of variables and dimensions are str, not {name!r}")
        files[name] = name if is_legal(name) else encode_name(name)
    return files


@dataclass(slots=True)
class _NodeWriter:
    """Writes the variables of one group and gathers its dimensions."""

    writer: NetCDFWriter
    group: Any
    files: dict[str, str]
    dimensions: set[str]
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
                _write_blocks(self.writer, dataset, array)
            else:
                self.writer.write(dataset, array)
            if i == 0:
                _write_codec(dataset, spec, variable, path)
            offset = dataset.get_offset() if 0 not in array.shape else 0
            if blobs is not None:
                self.written.moves.append((blobs[i], offset))
            column = [file_name, array.dtype.str, list(array.shape), offset, crc]
            if i == 0 and is_index and array.nbytes <= _INLINE:  # an index is never dask's
                column.append(len(self.written.values))
                self.written.values += array.tobytes()
            columns.append(column)
            self.connections.append((file_name, dims, dataset))
        attributes = exact.encode(dict(variable.attrs), f"{path}.attrs") if variable.attrs else {}
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
        if file_name in self.dimensions and dims[:1] != (file_name,):
            file_name = NON_COORDINATE + file_name
        return file_name, dims


def _write_codec(dataset: Any, spec: codecs.Spec | None, variable: Variable, path: str) -> None:
    hints: dict[str, str] = {}
    if spec is not None:
        text = exact.dumps(spec)
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
    stored = stored_array(variable)
    if stored is not None:
        return _copied(stored)
    if variable.chunks is not None and variable.dtype.kind not in "OT":
        spec, dtype, extra = codecs.view_spec(variable.dtype)
        planned = _Planned(variable.data, dtype, variable.shape + extra)
        return spec, [planned], [None], None
    if variable.chunks is not None:
        variable = variable.compute()
    spec, arrays = codecs.encode(variable_values(variable, path), path)
    return spec, list(arrays), [checksum(array) for array in arrays], None


def _copied(
    stored: StoredArray,
) -> tuple[codecs.Spec | None, list[Any], list[int | None], list[Blob] | None]:
    arrays: list[Any] = [blob.read() for blob in stored.blobs]
    movable = all(type(blob) is Blob for blob in stored.blobs)
    crcs = [
        checksum(array) if blob.crc is None else blob.crc
        for blob, array in zip(stored.blobs, arrays, strict=True)
    ]
    return stored.spec, arrays, crcs, stored.blobs if movable else None


class _BlockTarget:
    """What dask stores into: takes a block and the place where it belongs."""

    def __init__(self, writer: NetCDFWriter, dataset: Any, planned: _Planned):
        self._writer, self._dataset, self._planned = writer, dataset, planned
        self._lock = threading.Lock()

    def __setitem__(self, key: tuple[slice, ...], block: Any) -> None:
        raw = codecs.encode_block(np.asarray(block))
        extra = tuple(slice(0, size) for size in raw.shape[len(key) :])
        with self._lock:
            self._writer.write_part(self._dataset, (*key, *extra), raw)


def _write_blocks(writer: NetCDFWriter, dataset: Any, planned: _Planned) -> None:
    import dask.array
    from dask.array.core import slices_from_chunks
    from dask.base import get_scheduler

    target = _BlockTarget(writer, dataset, planned)
    array = planned.array
    scheduler = get_scheduler(collections=[array])
    if type(getattr(scheduler, "__self__", None)).__module__.startswith("distributed"):
        # An open file cannot travel to other processes: the blocks come here instead.
        array = array.persist()
        for key in slices_from_chunks(array.chunks):
            target[key] = array[key].compute()
    else:
        dask.array.store(array, target, lock=False)
