"""Writing a tree to a new netCDF-4 file, one array at a time."""

import json
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
from labtree.storage.arrays import StoredArray, array_of_column, stored_array
from labtree.storage.attributes import write_attributes, write_native
from labtree.storage.blobs import checksum
from labtree.storage.blocks import checked_block, is_dask
from labtree.storage.catalogue import PAGE, VERSION, write_catalogue
from labtree.storage.compression import ChunkedBlob, Compression, find_compression
from labtree.storage.missing import mask_name
from labtree.storage.names import LONGEST, encode_name, file_name
from labtree.storage.netcdf_writer import NON_COORDINATE, NetCDFWriter, create_file
from labtree.storage.records import dataset_layout, kept_variables, variable_values
from labtree.storage.sources import FileSource

__all__ = ["Written", "write_dataset", "write_group_attributes", "write_tree"]

# Index coordinates up to this size also stand in the catalogue, so that opening a
# file reads nothing else.
_INLINE = 1 << 16
_CONVENTIONS = "CF-1.11"


@dataclass(slots=True)
class Written:
    """A finished file: its catalogue's records, and where unchanged arrays moved to."""

    records: list[dict[str, Any]] = field(default_factory=list)
    values: bytearray = field(default_factory=bytearray)
    moves: list[tuple[list[Any], int, list[Any]]] = field(default_factory=list)

    def relocate(self, source: FileSource) -> None:
        """Let arrays that were copied from an older file read from the new one from now on.

        Those in a scratch file stay there: their space is given back only when nothing
        refers to them, and the new file may go before them.
        """
        for blobs, i, column in self.moves:
            if isinstance(blobs[i].place[0], FileSource):
                blobs[i] = array_of_column(source, column, blobs[i].name)


def write_tree(
    tree: xr.DataTree, path: Path, compression: str | None = None, **about: Any
) -> Written:
    """Write all nodes of a tree to a new, empty file.

    Parameters
    ----------
    tree
        Of any depth; arrays may be in memory, lazy or dask's.
    path
        The file.
    compression
        ``"gzip"`` or ``"zstd"`` for all arrays; without it those that were compressed in
        another file stay so.
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
    chosen = find_compression(compression)
    writer = create_file(path)
    try:
        write_native(writer.file, "labtree_file_format", VERSION)
        write_native(writer.file, "labtree_file_page", PAGE)
        _write_node(writer, writer.file, tree, [], written, frozenset(), chosen)
        writer.close()
        header = {
            "format": "labtree",
            "version": VERSION,
            "next_dimension": writer.next_dimension,
            **about,
        }
        write_catalogue(path, header, written.records, bytes(written.values))
    except BaseException as error:
        writer.abandon()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    return written


def _write_node(
    writer: NetCDFWriter,
    group: Any,
    node: xr.DataTree,
    path: list[str],
    written: Written,
    above: frozenset[str],
    compression: Compression | None,
) -> None:
    """Write a node and all below it; `above` are the dimensions that its group sees."""
    where = "/" + "/".join(path)
    dataset = node.to_dataset(inherit=False)
    written.records.append(
        write_dataset(writer, group, dataset, path, written, above, compression)
    )
    dimensions = above.union(file_name(str(name)) for name in dataset.sizes)
    for name, child in node.children.items():
        encoded = file_name(name)
        below = writer.group(group, encoded)
        if encoded != name:
            write_native(below, "labtree_real_name", json.dumps(name))
        try:
            _write_node(writer, below, child, [*path, name], written, dimensions, compression)
        except (TypeError, ValueError, OSError) as error:
            if not getattr(error, "__notes__", None):
                error.add_note(f"while writing {where.rstrip('/')}/{name}")
            raise


def write_dataset(
    writer: NetCDFWriter,
    group: Any,
    dataset: xr.Dataset,
    path: list[str],
    written: Written,
    above: frozenset[str] = frozenset(),
    compression: Compression | None = None,
) -> dict[str, Any]:
    """Write a dataset into an open, empty group; return its record.

    Parameters
    ----------
    writer, group
        The file and the group.
    dataset
        What is written.
    path
        Of the group in the tree.
    written
        Takes copies of index coordinates and arrays that were moved.
    above
        Dimensions of the groups above, which the group sees: other readers would take a
        variable without dimensions of that name for their coordinate.
    compression
        Of all its arrays.
    """
    where = "/" + "/".join(path)
    attrs = dict(dataset.attrs)
    coded = json_values.encode(attrs, f"{where}.attrs")
    record: dict[str, Any] = {"path": path, "attrs": coded}
    indexes = dataset.xindexes if dataset.coords else {}
    layout = dataset_layout(dataset, where)
    if layout:
        record["layout"] = layout
    variables = kept_variables(dataset)
    files = _file_names((*variables, *dataset.sizes))
    write_group_attributes(group, dataset, path)
    dimensions = {files[str(dim)] for dim in dataset.sizes}
    node = _NodeWriter(writer, group, files, dimensions, above, written, compression)
    record["variables"] = [
        node.write(name, variable, f"{where.rstrip('/')}/{name}", name in indexes)
        for name, variable in variables.items()
    ]
    names = {file: json.dumps(name) for name, file in files.items() if file != name}
    writer.connect(group, node.sizes, node.connections, names)
    return record


def write_group_attributes(group: Any, dataset: xr.Dataset, path: list[str]) -> None:
    """Write the attributes of an open group that has none: a dataset's, and its layout."""
    where = "/" + "/".join(path)
    attrs = dict(dataset.attrs)
    files = _file_names((*kept_variables(dataset), *dataset.sizes))
    _write_layout(group, dataset_layout(dataset, where), files, attrs)
    # Other programs read these as the list of coordinates, and as labtree's word for CF.
    write_attributes(group, attrs, where, frozenset({"coordinates", "Conventions"}))
    if not path:
        given = attrs.get("Conventions")
        is_text = type(given) is str and given.isascii() and "\0" not in given
        write_native(group, "Conventions", given if is_text else _CONVENTIONS)


def _write_layout(
    group: Any, layout: dict[str, Any], files: dict[str, str], attrs: dict[Any, Any]
) -> None:
    """Write which variables are coordinates: for all programs, and in full where needed."""
    coords = layout.get("coords", [])
    is_told = all(" " not in name and files[name] == name for name in coords)
    is_told = is_told and "coordinates" not in attrs
    if layout and not (is_told and set(layout) == {"coords"}):
        write_native(group, "labtree_layout", json_values.dumps(layout))
    if coords and "coordinates" not in attrs:
        write_native(group, "coordinates", " ".join(files[name] for name in coords))


def _file_names(names: Iterable[Hashable]) -> dict[str, str]:
    files = {}
    for name in names:
        if type(name) is not str or not name:
            raise UnsupportedTypeError(
                f"names of variables and dimensions are str, not {name!r}"
            )
        files[name] = file_name(name)
    return files


@dataclass(slots=True)
class _NodeWriter:
    """Writes the variables of one group and gathers its dimensions."""

    writer: NetCDFWriter
    group: Any
    files: dict[str, str]
    dimensions: set[str]
    above: frozenset[str]
    written: Written
    compression: Compression | None
    sizes: dict[str, int] = field(default_factory=dict)
    connections: list[tuple[str, tuple[str, ...], Any]] = field(default_factory=list)

    def write(self, name: str, variable: Variable, path: str, is_index: bool) -> list[Any]:
        """Write one variable; return its part of the record."""
        plain = _plain_arrays(variable, path)
        attrs = {key: value for key, value in variable.attrs.items() if key not in codecs.MARKS}
        main = self.files[name]
        dims = tuple(self.files[str(dim)] for dim in variable.dims)
        extra = codecs.extra_dimension(plain.spec, plain.arrays[0].shape)
        clash = main in self.dimensions and dims[:1] != (main,)
        if clash or (not dims and main in self.above):
            main = NON_COORDINATE + main
        columns, shown = [], {}
        for i, role in enumerate(["", *codecs.companions(plain.spec)]):
            file_name, here = main, dims if extra is None else (*dims, extra)
            if role == "text":
                file_name = self._companion(f"labtree_text_{self.files[name]}")
                here = (self._companion(f"labtree_bytes_{self.files[name]}"),)
                shown["labtree_text"] = file_name
            elif role == "missing":
                file_name, here = self._companion(mask_name(self.files[name])), dims
                shown["ancillary_variables"] = file_name
            column, dataset = self._array(plain, i, file_name, here)
            if i == 0:
                first = dataset
                if is_index and plain.arrays[0].nbytes <= _INLINE:  # never dask's
                    column[5] = len(self.written.values)
                    self.written.values += plain.arrays[0].tobytes()
            elif role == "missing":
                write_native(dataset, "dtype", "bool")
            columns.append(column)
        self._describe(first, name, plain, attrs, shown, path)
        coded = json_values.encode(attrs, f"{path}.attrs") if attrs else {}
        return [name, list(variable.dims), plain.spec, coded, columns]

    def _array(
        self, plain: "_Plain", i: int, file_name: str, dims: tuple[str, ...]
    ) -> tuple[list[Any], Any]:
        """Write one plain array; return its column and its open dataset."""
        array, crc = plain.arrays[i], plain.crcs[i]
        shape, dtype = tuple(array.shape), array.dtype
        compression = self.compression or plain.compression
        if not shape or not array.nbytes:
            compression = None
        dataset = self.writer.variable(self.group, file_name, dtype, shape, compression)
        column: list[Any] = [file_name, dtype.str, list(shape), 0, crc, None]
        if compression is not None:
            slab = array.slab if isinstance(array, _Planned) else lambda a, b: array[a:b]
            places, column[4] = self.writer.write_chunks(dataset, slab, dtype, compression)
            chunk = compression.chunk_shape(shape, dtype.itemsize)
            column[3] = None
            column.append([compression.name, list(chunk), places])
        elif isinstance(array, _Planned):
            column[3], column[4] = self.writer.write_blocks(dataset, array.array, dtype, shape)
        else:
            column[3] = self.writer.write(dataset, array)
        if plain.blobs is not None:
            self.written.moves.append((plain.blobs, i, column))
        write_native(dataset, "labtree_crc32c", np.array(column[4], "<u4"))
        self.sizes.update(zip(dims, shape, strict=True))
        self.connections.append((file_name, dims, dataset))
        return column, dataset

    def _describe(
        self,
        dataset: Any,
        name: str,
        plain: "_Plain",
        attrs: dict[Any, Any],
        shown: dict[str, str],
        path: str,
    ) -> None:
        """Write what a variable is, for labtree and for others, and its attributes."""
        hints = codecs.hints(plain.spec)
        marks = codecs.marks(plain.spec, plain.arrays[0].dtype)
        if self.files[name] != name:
            marks["labtree_real_name"] = json.dumps(name)
        if "ancillary_variables" in shown and type(attrs.get("ancillary_variables")) is str:
            words = attrs["ancillary_variables"]
            shown["ancillary_variables"] = f"{words} {shown['ancillary_variables']}"
        for key, value in (marks | hints | shown).items():
            write_native(dataset, key, value)
        fill = attrs.get("_FillValue")
        if plain.spec is None and fill is not None:
            native = _fill_value(fill, plain.arrays[0].dtype)
            if native is not None:
                write_native(dataset, "_FillValue", native)
        if attrs:
            write_attributes(dataset, attrs, path, frozenset({*hints, *shown}))

    def _companion(self, name: str) -> str:
        """Return a name for what stands beside a variable that no other has."""
        if len(name.encode()) > LONGEST:
            name = encode_name(name)
        taken = {*self.files.values(), *self.sizes, *(each for each, _, _ in self.connections)}
        while name in taken:
            name += "_"
        return name


def _fill_value(value: Any, dtype: np.dtype[Any]) -> np.ndarray | None:
    """Return a fill value in the type of its variable, as netCDF wants it, or None."""
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool):
        return None
    with np.errstate(all="ignore"):
        try:
            cast = np.array(value).astype(dtype)
        except (TypeError, ValueError, OverflowError):
            return None
    return cast if np.array_equal(cast, np.array(value), equal_nan=dtype.kind == "f") else None


class _Planned:
    """A dask array that will be written block by block, as its plain dtype and shape."""

    def __init__(self, array: Any, dtype: np.dtype[Any], shape: tuple[int, ...]):
        self.array, self.dtype, self.shape = array, dtype, shape
        self.nbytes = math.prod(shape) * dtype.itemsize

    def slab(self, start: int, stop: int) -> np.ndarray:
        """Return the plain values between two positions of the first axis."""
        part = self.array[start:stop]
        return codecs.encode_block(checked_block(part.compute(), part.dtype, part.shape))


@dataclass(slots=True)
class _Plain:
    """A variable as plain arrays, and where they come from."""

    spec: codecs.Spec | None
    arrays: list[Any]
    crcs: list[int | None]
    blobs: list[Any] | None = None
    compression: Compression | None = None


def _plain_arrays(variable: Variable, path: str) -> _Plain:
    if not isinstance(data_of(variable), np.ndarray):
        stored = stored_array(variable)
        if stored is not None and stored.is_plain:
            return _copied(stored)
    sized = not any(math.isnan(size) for size in variable.shape)
    if is_dask(variable) and sized and variable.dtype.kind not in "OT":
        spec, dtype, extra = codecs.view_spec(variable.dtype)
        planned = _Planned(variable.data, dtype, variable.shape + extra)
        return _Plain(spec, [planned], [None])
    if is_dask(variable):  # texts have no width that their blocks agree on
        variable = variable.compute()
    spec, arrays = codecs.encode(variable_values(variable, path), path)
    return _Plain(spec, list(arrays), [checksum(array) for array in arrays])


def _copied(stored: StoredArray) -> _Plain:
    arrays: list[Any] = [blob.read() for blob in stored.blobs]
    crcs: list[int | None] = [
        checksum(array) if blob.crc is None else blob.crc
        for blob, array in zip(stored.blobs, arrays, strict=True)
    ]
    chunked = next((blob for blob in stored.blobs if isinstance(blob, ChunkedBlob)), None)
    compression = None if chunked is None else chunked.compression
    return _Plain(stored.spec, arrays, crcs, stored.blobs, compression)
