"""Writing a tree into an empty zarr store, through zarr-python."""

import asyncio
import base64
import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import UnsupportedTypeError
from labtree.storage import codecs
from labtree.storage.arrays import Column
from labtree.storage.blocks import (
    BlockArray,
    blocks_from_elsewhere,
    checked_block,
    is_computed_here,
)
from labtree.storage.records import NodeRecord
from labtree.storage.walking import Naming, Node, PlainArray, PlainVariable, noted, walk
from labtree.storage.zarr.arrays import ZarrArray, chunk_shape, native_values
from labtree.storage.zarr.locations import Location
from labtree.storage.zarr.metadata import (
    array_metadata,
    dump,
    file_names,
    group_metadata,
    shown_attributes,
    stored_as,
)

# Index coordinates up to this size stand in the catalogue: xarray reads them when it
# opens a tree, and there they cost no request of their own.
_INLINE = 1 << 24
_AT_ONCE = 1 << 26  # bytes of values that are under way at once
_NAMING = Naming(file_names, lambda names, *_: {name: name for name in names})


@dataclass(slots=True)
class WrittenStore:
    """What was written: the records of the catalogue, and the metadata by path."""

    records: list[NodeRecord] = field(default_factory=list)
    values: bytearray = field(default_factory=bytearray)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    moves: list[tuple[ZarrArray, str]] = field(default_factory=list)

    def relocate(self, location: Location) -> None:
        """Let arrays that were read from the replaced store read from the new one."""
        for array, path in self.moves:
            if array.location.name == location.name:
                array.move(location, path)


def write_nodes(
    tree: xr.DataTree,
    store: Any,
    *,
    prefix: str = "",
    separator: str = ".",
    compression: str | None = None,
    inline: int = _INLINE,
) -> WrittenStore:
    """Write the groups and arrays of a tree; the root's own metadata come last.

    Parameters
    ----------
    tree
        Of any depth; arrays may be in memory, lazy or dask's.
    store
        zarr's store, where nothing stands below `prefix`.
    prefix
        The group that the root of the tree becomes.
    separator
        What stands between the numbers of a chunk's key.
    compression
        None, ``"gzip"`` or ``"zstd"``, for all arrays.
    inline
        Up to how many bytes an index coordinate also stands in the catalogue.

    Raises
    ------
    TypeError
        If a part cannot be kept exactly; the message has its path.
    """
    writer = _Writer(store, prefix, separator, compression, inline)
    writer.nodes(tree)
    writer.flush()
    return writer.written


@dataclass(slots=True)
class _Writer:
    store: Any
    prefix: str
    separator: str
    compression: str | None
    inline: int
    written: WrittenStore = field(default_factory=WrittenStore)
    waiting: list[tuple[str, np.ndarray]] = field(default_factory=list)
    waiting_bytes: int = 0
    described: int = 0  # how much of the metadata is in the store

    def nodes(self, tree: xr.DataTree) -> None:
        """Write a tree; of metadata and values most still wait then."""
        # The folders of the nodes above the next one, and what each calls its members.
        above: list[tuple[list[str], dict[str, str]]] = []
        for node in walk(tree, _NAMING):
            del above[len(node.path) :]
            folder, real_name = [self.prefix] if self.prefix else [], {}
            if node.path:
                parent, files = above[-1]
                name = node.path[-1]
                folder = [*parent, files[name]]
                if files[name] != name:
                    real_name = {"labtree_real_name": json.dumps(name)}
            with noted(node.path):
                self._metadata(folder, group_metadata(_shown(node) | real_name))
                variables = [v.record(self._variable(v, folder)) for v in node.variables()]
                self.written.records.append(node.record(variables))
            above.append((folder, node.files))

    def _metadata(self, folder: list[str], metadata: dict[str, Any]) -> None:
        key = "/".join(folder)
        if key in self.written.metadata:
            raise UnsupportedTypeError(f"{key} would be written twice; rename a variable")
        self.written.metadata[key] = metadata

    def _variable(self, variable: PlainVariable, group: list[str]) -> list[Column]:
        attrs, spec = variable.attrs, variable.spec
        own = {key: _json(value) for key, value in variable.own.items()}
        if variable.fill_value is not None:
            own["_FillValue"] = _shown_fill_value(variable.fill_value)
        compression = self.compression or variable.compression
        columns = []
        for array in variable.arrays:
            folder = [*group, array.name]
            codec, shown = None, dict[str, Any](array.own)
            if not array.role:
                codec = spec
                shown = shown_attributes(attrs, variable.coded, variable.hidden) | own
            columns.append(self._array(array, codec, folder, shown, compression))
            if isinstance(array.blob, ZarrArray):
                self.written.moves.append((array.blob, "/".join(folder)))
        copied = variable.index_values(self.inline)
        if copied is not None:
            columns[0] = columns[0]._replace(inline=len(self.written.values))
            self.written.values += copied
        return columns

    def _array(
        self,
        plain: PlainArray,
        spec: codecs.Spec | None,
        folder: list[str],
        shown: dict[str, Any],
        compression: str | None,
    ) -> Column:
        """Write one plain array; return its column."""
        values, dims = plain.values, plain.dims
        data_type, is_shorter = stored_as(spec, values.dtype)
        if plain.is_blocks and data_type == "float16":
            data_type = "uint16"
        shape = values.shape[:-1] if is_shorter else values.shape
        extra = codecs.last_dimension(spec, values.shape)
        if extra is not None and not is_shorter:
            dims = (*dims, extra)
        if data_type in ("string", "bool"):
            shown = {key: value for key, value in shown.items() if key not in _NOT_SHOWN}
        width = max(1, math.prod(values.shape[len(shape) :]) * values.dtype.itemsize)
        if plain.is_blocks:
            chunks = _block_chunks(values, width)
            chunks = (*chunks, *(max(1, size) for size in shape[len(chunks) :]))
        else:
            chunks = chunk_shape(shape, width)
        metadata = array_metadata(
            data_type,
            values.dtype,
            shape,
            chunks,
            dims,
            shown,
            self.separator,
            compression,
        )
        self._metadata(folder, metadata)
        key = "/".join(folder)
        if plain.is_blocks:
            from zarr import Array

            self.flush()
            _write_blocks(values, Array(self._opened(key)))
        elif values.nbytes or data_type == "string":
            self.waiting.append((key, native_values(values, data_type)))
            self.waiting_bytes += values.nbytes
            if self.waiting_bytes > _AT_ONCE:
                self.flush()
        return Column(
            folder[-1], values.dtype.str, list(values.shape), data_type, chunks=compression
        )

    def _opened(self, key: str) -> Any:
        from zarr.core.array import AsyncArray
        from zarr.core.metadata import ArrayV3Metadata
        from zarr.storage import StorePath

        metadata = ArrayV3Metadata.from_dict(self.written.metadata[key])
        config: Any = {"write_empty_chunks": True}  # a chunk that lacks is damage
        return AsyncArray(metadata, StorePath(self.store, key), config=config)

    def flush(self) -> None:
        """Write the values that wait, and before them the metadata of all but the root."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        buffer = default_buffer_prototype().buffer
        metadata = list(self.written.metadata.items())[self.described :]
        self.described = len(self.written.metadata)
        arrays = [(self._opened(key), values) for key, values in self.waiting]
        self.waiting, self.waiting_bytes = [], 0

        async def write() -> None:
            # icechunk takes chunks only of arrays that it knows.
            await _all(
                self.store.set(f"{key}/zarr.json", buffer.from_bytes(dump(each)))
                for key, each in metadata
                if key
            )
            await _all(array.setitem(..., values) for array, values in arrays)

        sync(write())


async def _all(tasks: Iterable[Any]) -> None:
    """Wait for all tasks, also where one fails: none must write when the folder goes."""
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


_NOT_SHOWN = frozenset({"_Encoding", "dtype"})


def _json(value: Any) -> Any:
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value


def _shown_fill_value(value: np.ndarray) -> Any:
    """Return a fill value as xarray writes it into the attributes of an array of zarr."""
    if value.dtype.kind == "f":
        return base64.b64encode(struct.pack("<d", float(value))).decode()
    return value.item()


def _shown(node: Node) -> dict[str, Any]:
    """Return the attributes of a group, and which of its variables are coordinates."""
    layout = node.layout
    shown = shown_attributes(
        node.attrs, node.coded, frozenset({"coordinates"} if layout else ())
    )
    if layout:
        shown["labtree_layout"] = layout
    coords = [name for name in layout.get("coords", []) if node.files[name] == name]
    coords = [name for name in coords if " " not in name]
    if coords and "coordinates" not in node.attrs:
        shown["coordinates"] = " ".join(coords)
    return shown


def _block_chunks(blocks: BlockArray, itemsize: int) -> tuple[int, ...]:
    """Return the shape of chunks: that of dask's blocks, where one fits all."""
    array = blocks.array
    is_regular = all(
        len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0] for sizes in array.chunks
    )
    if not is_regular:
        return chunk_shape(array.shape, itemsize)
    return tuple(max(1, size) for size in array.chunksize)


def _write_blocks(blocks: BlockArray, target: Any) -> None:
    """Write every block where it is computed, on a cluster by its workers."""
    import dask
    from zarr.storage import LocalStore

    delayed: Any = dask.delayed  # type: ignore[attr-defined]
    compute: Any = dask.compute  # type: ignore[attr-defined]
    put = delayed(_put_block)
    size = target.chunks[: blocks.array.ndim]
    array = blocks.array.rechunk(size)
    data_type = str(target.metadata.to_dict()["data_type"])
    # What is written to an object store becomes one commit, of this process.
    if not isinstance(target.store, LocalStore) and not is_computed_here(array):
        for part, block in blocks_from_elsewhere(array):
            _put_block(target, part, block, array.dtype, data_type)
        return
    parts = array.to_delayed()
    tasks = []
    for index in np.ndindex(*parts.shape):
        part = tuple(
            slice(int(i) * chunk, min((int(i) + 1) * chunk, length))
            for i, chunk, length in zip(index, size, array.shape, strict=True)
        )
        tasks.append(put(target, part, parts[index], array.dtype, data_type))
    compute(*tasks)


def _put_block(
    target: Any, part: tuple[slice, ...], block: Any, dtype: np.dtype[Any], data_type: str
) -> None:
    shape = tuple(each.stop - each.start for each in part)
    plain = codecs.encode_block(checked_block(np.asarray(block), dtype, shape))
    target[part] = native_values(plain, data_type)
