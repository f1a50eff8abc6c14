"""Writing a tree to a new netCDF-4 file, one array at a time."""

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from h5py import h5t

from labtree.storage import codecs, json_values
from labtree.storage.arrays import Chunks, Column, array_of_column
from labtree.storage.attributes import (
    CONVENTIONS,
    write_attribute,
    write_attributes,
    write_native,
)
from labtree.storage.catalogue import PAGE, write_catalogue
from labtree.storage.compression import Compression, find_compression
from labtree.storage.hdf5_end import VERSION
from labtree.storage.names import file_name
from labtree.storage.netcdf_writer import (
    NON_COORDINATE,
    Dimension,
    NetCDFWriter,
    create_file,
    interrupts_kept,
)
from labtree.storage.nodes import own_variables
from labtree.storage.records import NodeRecord
from labtree.storage.sources import FileSource
from labtree.storage.walking import (
    Naming,
    Node,
    PlainArray,
    PlainVariable,
    node_of,
    noted,
    walk,
)

# Index coordinates up to this size also stand in the catalogue, so that opening a
# file reads nothing else.
_INLINE = 1 << 16
# Dimensions that as many groups have alike are made once for all of them.
_FEW = 4


def _members(names: list[str]) -> dict[str, str]:
    """Return what variables and groups are called in a file, no two the same.

    Groups, which come last, have the name that `file_name` gives.
    """
    given = {name: file_name(name) for name in names}
    if len(set(given.values())) == len(given):
        return given
    return _names_beside(reversed(names), ())


def _dimensions(
    names: list[str], members: dict[str, str], variables: Container[str]
) -> dict[str, str]:
    """Return what dimensions are called in a file: like the variable of the same name."""
    alone = [name for name in names if name not in variables]
    own = _names_beside(alone, members.values()) if alone else {}
    return {name: own[name] if name in own else members[name] for name in names}


def _names_beside(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Return names for a file beside those that are taken; what it holds as it is stays so."""
    given = {name: file_name(name) for name in names}
    used = set(taken)
    given = dict(sorted(given.items(), key=lambda pair: pair[0] != pair[1]))
    for name, file in given.items():
        unique, count = file, 0
        while unique in used:
            count += 1
            unique = f"{file}%~{count}"
        given[name] = unique
        used.add(unique)
    return given


_NAMING = Naming(_members, _dimensions)


@dataclass(slots=True)
class Written:
    """A finished file: its catalogue's records, and where unchanged arrays moved to."""

    records: list[NodeRecord] = field(default_factory=list)
    values: bytearray = field(default_factory=bytearray)
    moves: list[tuple[list[Any], int, Column]] = field(default_factory=list)

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
    with interrupts_kept():
        _write_file(tree, path, chosen, written, about)
    return written


def _write_file(
    tree: xr.DataTree,
    path: Path,
    compression: Compression | None,
    written: Written,
    about: dict[str, Any],
) -> None:
    writer = create_file(path)
    try:
        write_native(writer.file, "labtree_file_format", VERSION)
        write_native(writer.file, "labtree_file_page", PAGE)
        _write_nodes(writer, tree, written, compression)
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


def _write_nodes(
    writer: NetCDFWriter, tree: xr.DataTree, written: Written, compression: Compression | None
) -> None:
    groups: list[_Group] = []  # those that are open, each in the one before
    every: list[dict[str, Dimension]] = []
    for node in walk(tree, _NAMING):
        del groups[len(node.path) :]
        group, above = writer.file, _Group()
        with noted(node.path):
            if node.path:
                above = groups[-1]
                name = node.path[-1]
                group = writer.group(above.group, above.files[name])
                if above.files[name] != name:
                    write_native(group, "labtree_real_name", json.dumps(name))
            record = _write_node(
                writer, group, node, written, above.seen, compression, above.shared
            )
            sizes = _common_dimensions(node)
            shared = {}
            if sizes:
                files = {file_name(name): size for name, size in sizes.items()}
                names = {file_name(n): json.dumps(n) for n in sizes if file_name(n) != n}
                shared = writer.share(group, files, names)
                record["shared"] = sizes
                every.append(shared)
            written.records.append(record)
        seen = above.seen.union(node.dims.values(), shared)
        groups.append(_Group(group, seen, node.files, shared))
    for shared in every:
        writer.list_users(shared)


class _Group(NamedTuple):
    """An open group: the dimensions that those below see, names in the file, what it shares."""

    group: Any = None
    seen: frozenset[str] = frozenset()
    files: dict[str, str] = {}  # noqa: RUF012
    shared: dict[str, Dimension] = {}  # noqa: RUF012


def _common_dimensions(node: Node) -> dict[str, int]:
    """Return the dimensions without values that several groups below a node have alike.

    They are made once, in the group of the node.
    """
    if len(node.children) < _FEW:
        return {}
    counts: Counter[tuple[Any, int]] = Counter()
    for child in node.children.values():
        variables = own_variables(child)
        sizes = {
            (dim, size)
            for variable in variables.values()
            for dim, size in zip(variable.dims, variable.shape, strict=True)
        }
        counts.update(each for each in sizes if each[0] not in variables)
    taken = {*node.files.values(), *node.dims.values()}
    found: dict[str, int] = {}
    for (name, size), count in counts.most_common():
        if count < _FEW:
            break
        if type(name) is str and name and file_name(name) not in taken:
            found.setdefault(name, size)
    return found


def write_dataset(
    writer: NetCDFWriter,
    group: Any,
    dataset: xr.Dataset,
    path: list[str],
    written: Written,
    above: frozenset[str] = frozenset(),
    compression: Compression | None = None,
) -> NodeRecord:
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
    node = node_of(dataset, path, _NAMING)
    return _write_node(writer, group, node, written, above, compression)


def write_group_attributes(group: Any, dataset: xr.Dataset, path: list[str]) -> None:
    """Write the attributes of an open group that has none: a dataset's, and its layout."""
    _write_group(group, node_of(dataset, path, _NAMING))


def _write_node(
    writer: NetCDFWriter,
    group: Any,
    node: Node,
    written: Written,
    above: frozenset[str],
    compression: Compression | None,
    shared: Mapping[str, Dimension] = MappingProxyType({}),
) -> NodeRecord:
    _write_group(group, node)
    sink = _GroupWriter(writer, group, {*node.dims.values()}, above, written, compression)
    record = node.record(variable.record(sink.write(variable)) for variable in node.variables())
    names = {
        file: json.dumps(name)
        for name, file in (*node.files.items(), *node.dims.items())
        if file != name
    }
    writer.connect(group, sink.sizes, sink.connections, names, shared)
    return record


def _write_group(group: Any, node: Node) -> None:
    _write_layout(group, node)
    # Other programs read these as the list of coordinates, and as labtree's word for CF.
    taken = frozenset({"coordinates", "Conventions"})
    write_attributes(group, node.attrs, node.where, taken)
    if not node.path:
        given = node.attrs.get("Conventions")
        is_text = type(given) is str and given.isascii() and "\0" not in given
        write_native(group, "Conventions", given if is_text else CONVENTIONS)


def _write_layout(group: Any, node: Node) -> None:
    """Write which variables are coordinates: for all programs, and in full where needed."""
    coords = node.layout.get("coords", [])
    is_told = all(" " not in name and node.files[name] == name for name in coords)
    is_told = is_told and "coordinates" not in node.attrs
    if node.layout and not (is_told and set(node.layout) == {"coords"}):
        write_native(group, "labtree_layout", json_values.dumps(node.layout))
    if coords and "coordinates" not in node.attrs:
        write_native(group, "coordinates", " ".join(node.files[name] for name in coords))


@dataclass(slots=True)
class _GroupWriter:
    """Writes the variables of one group and gathers its dimensions."""

    writer: NetCDFWriter
    group: Any
    dimensions: set[str]
    above: frozenset[str]
    written: Written
    compression: Compression | None
    sizes: dict[str, int] = field(default_factory=dict)
    connections: list[tuple[str, tuple[str, ...], Any]] = field(default_factory=list)

    def write(self, variable: PlainVariable) -> list[Column]:
        """Write one variable; return its columns."""
        compression = self.compression or find_compression(variable.compression)
        columns = []
        for array in variable.arrays:
            name, dims = array.name, array.dims
            if not array.role:
                clash = name in self.dimensions and dims[:1] != (name,)
                if clash or (not dims and name in self.above):
                    name = NON_COORDINATE + name
                extra = codecs.last_dimension(variable.spec, array.values.shape)
                dims = dims if extra is None else (*dims, extra)
            column, dataset = self._array(array, name, dims, compression)
            for key, value in array.own.items():
                write_native(dataset, key, value)
            if not array.role:
                self._describe(dataset, variable)
            columns.append(column)
        copied = variable.index_values(_INLINE)
        if copied is not None:
            columns[0] = columns[0]._replace(inline=len(self.written.values))
            self.written.values += copied
        return columns

    def _array(
        self,
        array: PlainArray,
        name: str,
        dims: tuple[str, ...],
        compression: Compression | None,
    ) -> tuple[Column, Any]:
        """Write one plain array; return its column and its open dataset."""
        values = array.values
        shape, dtype = tuple(values.shape), values.dtype
        if not shape or not values.nbytes:
            compression = None
        dataset = self.writer.variable(self.group, name, dtype, shape, compression)
        column = Column(name, dtype.str, list(shape), 0)
        if compression is not None:
            places, crc = self.writer.write_chunks(
                dataset, lambda start, stop: values[start:stop], dtype, compression
            )
            chunk = compression.chunk_shape(shape, dtype.itemsize)
            chunks = Chunks(compression.name, list(chunk), places)
            column = column._replace(place=None, crc=crc, chunks=chunks)
        elif array.is_blocks:
            place, crc = self.writer.write_blocks(dataset, values.array, dtype, shape)
            column = column._replace(place=place, crc=crc)
        else:
            known = getattr(array.blob, "crc", None)
            place, crc = self.writer.write(dataset, values, known)
            column = column._replace(place=place, crc=crc)
        if array.blobs is not None:
            self.written.moves.append((array.blobs, array.number, column))
        total = np.array(column.crc, "<u4")
        write_attribute(dataset, b"labtree_crc32c", h5t.STD_U32LE, total)
        self.sizes.update(zip(dims, shape, strict=True))
        self.connections.append((name, dims, dataset))
        return column, dataset

    def _describe(self, dataset: Any, variable: PlainVariable) -> None:
        """Write what a variable is, for labtree and for others, and its attributes."""
        for key, value in variable.own.items():
            write_native(dataset, key, value)
        if variable.fill_value is not None:
            write_native(dataset, "_FillValue", variable.fill_value)
        if variable.attrs:
            write_attributes(dataset, variable.attrs, variable.path, variable.hidden)
