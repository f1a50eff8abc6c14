"""Writing a tree into an empty zarr store, through zarr-python."""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import UnsupportedTypeError
from labtree.storage import codecs, json_values
from labtree.storage._xarray import Variable
from labtree.storage.arrays import stored_array
from labtree.storage.blocks import checked_block, is_dask
from labtree.storage.missing import mask_name
from labtree.storage.names import encode_name
from labtree.storage.records import dataset_layout, kept_variables, variable_values
from labtree.storage.zarr.arrays import ZarrArray, chunk_shape, native_values
from labtree.storage.zarr.metadata import (
    array_metadata,
    dump,
    file_names,
    group_metadata,
    shown_attributes,
    stored_as,
)
from labtree.storage.zarr.stores import Location

__all__ = ["WrittenStore", "write_nodes", "write_object"]

# Index coordinates up to this size stand in the catalogue: xarray reads them when it
# opens a tree, and there they cost no request of their own.
_INLINE = 1 << 24
_AT_ONCE = 1 << 26  # bytes of values that are under way at once


@dataclass(slots=True)
class WrittenStore:
    """What was written: the records of the catalogue, and the metadata by path."""

    records: list[dict[str, Any]] = field(default_factory=list)
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
    writer.node(tree, [], [prefix] if prefix else [])
    writer.finish()
    return writer.written


def write_object(store: Any, key: str, data: bytes) -> None:
    """Write one object into zarr's store."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    sync(store.set(key, default_buffer_prototype().buffer.from_bytes(data)))


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

    def node(self, node: xr.DataTree, path: list[str], folder: list[str]) -> None:
        """Write a node and all below it."""
        where = "/" + "/".join(path)
        dataset = node.to_dataset(inherit=False)
        variables = kept_variables(dataset)
        _check_names((*variables, *dataset.sizes))
        files = file_names([*variables, *node.children])
        attrs = dict(dataset.attrs)
        coded = json_values.encode(attrs, f"{where}.attrs")
        layout = dataset_layout(dataset, where)
        indexes = dataset.xindexes if dataset.coords else {}
        record: dict[str, Any] = {"path": path, "attrs": coded}
        if layout:
            record["layout"] = layout
        shown = shown_attributes(attrs, coded, frozenset({"coordinates"} if layout else ()))
        shown.update(_shown_layout(layout, files, "coordinates" in attrs))
        self._metadata(folder, group_metadata(shown))
        record["variables"] = [
            self._variable(
                name,
                variable,
                f"{where.rstrip('/')}/{name}",
                [*folder, files[name]],
                set(files.values()),
                name in indexes,
            )
            for name, variable in variables.items()
        ]
        self.written.records.append(record)
        for name, child in node.children.items():
            try:
                self.node(child, [*path, name], [*folder, files[name]])
            except (TypeError, ValueError, OSError) as error:
                if not getattr(error, "__notes__", None):
                    error.add_note(f"while writing {where.rstrip('/')}/{name}")
                raise

    def _metadata(self, folder: list[str], metadata: dict[str, Any]) -> None:
        key = "/".join(folder)
        if key in self.written.metadata:
            raise UnsupportedTypeError(f"{key} would be written twice; rename a variable")
        self.written.metadata[key] = metadata

    def _variable(
        self,
        name: str,
        variable: Variable,
        where: str,
        folder: list[str],
        taken: set[str],
        is_index: bool,
    ) -> list[Any]:
        spec, arrays = _plain_arrays(variable, where)
        attrs = {key: value for key, value in variable.attrs.items() if key not in codecs.MARKS}
        coded = json_values.encode(attrs, f"{where}.attrs") if attrs else {}
        dims = tuple(map(str, variable.dims))
        stored = stored_array(variable)
        sources = [] if stored is None else stored.blobs
        columns: list[list[Any]] = []
        companions: dict[str, str] = {}
        for i, role in enumerate(["", *codecs.companions(spec)]):
            if role == "":
                continue
            base = f"labtree_text_{folder[-1]}" if role == "text" else mask_name(folder[-1])
            file_name = _free(base, taken)
            taken.add(file_name)
            below = [*folder[:-1], file_name]
            here = (f"labtree_bytes_{folder[-1]}",) if role == "text" else dims
            shown = {"dtype": "bool"} if role == "missing" else {}
            companions["labtree_text" if role == "text" else "ancillary_variables"] = file_name
            columns.append(self._array(arrays[i], None, here, below, shown))
            self._moved(sources, i, below)
        hints = codecs.hints(spec)
        marks = codecs.marks(spec, arrays[0].dtype)
        own = {key: _json(value) for key, value in hints.items()} | marks | companions
        shown = shown_attributes(attrs, coded, frozenset({*hints, *companions})) | own
        first = self._array(arrays[0], spec, dims, folder, shown)
        self._moved(sources, 0, folder)
        if is_index and arrays[0].nbytes <= self.inline:  # an index is never dask's
            first[5] = len(self.written.values)
            self.written.values += np.ascontiguousarray(arrays[0]).tobytes()
        return [name, list(variable.dims), spec, coded, [first, *columns]]

    def _array(
        self,
        array: Any,
        spec: codecs.Spec | None,
        dims: tuple[str, ...],
        folder: list[str],
        shown: dict[str, Any],
    ) -> list[Any]:
        """Write one plain array; return its column."""
        data_type, is_shorter = stored_as(spec, array.dtype)
        if isinstance(array, _Planned) and data_type == "float16":
            data_type = "uint16"
        shape = array.shape[:-1] if is_shorter else array.shape
        extra = codecs.extra_dimension(spec, array.shape)
        if extra is not None and not is_shorter:
            dims = (*dims, extra)
        if data_type in ("string", "bool"):
            shown = {key: value for key, value in shown.items() if key not in _NOT_SHOWN}
        width = math.prod(array.shape[len(shape) :]) * array.dtype.itemsize
        if isinstance(array, _Planned):
            chunks = array.regular(max(1, width))
            chunks = (*chunks, *(max(1, size) for size in shape[len(chunks) :]))
        else:
            chunks = chunk_shape(shape, max(1, width))
        metadata = array_metadata(
            data_type,
            array.dtype,
            shape,
            chunks,
            dims,
            shown,
            self.separator,
            self.compression,
        )
        self._metadata(folder, metadata)
        key = "/".join(folder)
        if isinstance(array, _Planned):
            self.flush()
            array.write(_array_of(self._opened(key)))
        elif array.nbytes or data_type == "string":
            self.waiting.append((key, native_values(array, data_type)))
            self.waiting_bytes += array.nbytes
            if self.waiting_bytes > _AT_ONCE:
                self.flush()
        return [folder[-1], array.dtype.str, list(array.shape), data_type, None, None]

    def _moved(self, sources: list[Any], i: int, folder: list[str]) -> None:
        if sources and isinstance(sources[i], ZarrArray):
            self.written.moves.append((sources[i], "/".join(folder)))

    def _opened(self, key: str) -> Any:
        from zarr.core.array import AsyncArray
        from zarr.core.metadata import ArrayV3Metadata
        from zarr.storage import StorePath

        metadata = ArrayV3Metadata.from_dict(self.written.metadata[key])
        config: Any = {"write_empty_chunks": True}  # a chunk that lacks is damage
        return AsyncArray(metadata, StorePath(self.store, key), config=config)

    def flush(self) -> None:
        """Write the values that wait."""
        from zarr.core.sync import sync

        arrays = [(self._opened(key), values) for key, values in self.waiting]
        self.waiting, self.waiting_bytes = [], 0

        async def write() -> None:
            await _all(array.setitem(..., values) for array, values in arrays)

        if arrays:
            sync(write())

    def finish(self) -> None:
        """Write the values that wait, and the metadata of all but the root."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        buffer = default_buffer_prototype().buffer

        async def write() -> None:
            await _all(
                self.store.set(f"{key}/zarr.json", buffer.from_bytes(dump(metadata)))
                for key, metadata in self.written.metadata.items()
                if key
            )

        # Metadata first: icechunk takes chunks only of arrays that it knows.
        sync(write())
        self.flush()


def _array_of(array: Any) -> Any:
    from zarr import Array

    return Array(array)


async def _all(tasks: Iterable[Any]) -> None:
    """Wait for all tasks, also where one fails: none must write when the folder goes."""
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


_NOT_SHOWN = frozenset({"_Encoding", "dtype"})


def _json(value: Any) -> Any:
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _check_names(names: Iterable[Any]) -> None:
    for name in names:
        if type(name) is not str or not name:
            raise UnsupportedTypeError(
                f"names of variables and dimensions are str, not {name!r}"
            )


def _shown_layout(
    layout: dict[str, Any], files: dict[str, str], has_coordinates: bool
) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    names = {file: name for name, file in files.items() if file != name}
    if layout or names:
        shown["labtree_layout"] = layout | ({"names": names} if names else {})
    coords = [name for name in layout.get("coords", []) if " " not in name]
    coords = [name for name in coords if encode_name(name) == name]
    if coords and not has_coordinates:
        shown["coordinates"] = " ".join(coords)
    return shown


def _plain_arrays(variable: Variable, path: str) -> tuple[codecs.Spec | None, list[Any]]:
    stored = stored_array(variable)
    if stored is not None:
        return stored.spec, [blob.read() for blob in stored.blobs]
    is_sized = not any(math.isnan(size) for size in variable.shape)
    if is_dask(variable) and is_sized and variable.dtype.kind not in "OT":
        spec, dtype, extra = codecs.view_spec(variable.dtype)
        return spec, [_Planned(variable.data, dtype, variable.shape + extra)]
    if is_dask(variable):  # texts have no width that their blocks agree on
        variable = variable.compute()
    spec, arrays = codecs.encode(variable_values(variable, path), path)
    return spec, list(arrays)


class _Planned:
    """A dask array that is written block by block, as its plain dtype and shape."""

    def __init__(self, array: Any, dtype: np.dtype[Any], shape: tuple[int, ...]):
        self.array, self.dtype, self.shape = array, dtype, shape
        self.nbytes = math.prod(shape) * dtype.itemsize

    def regular(self, itemsize: int) -> tuple[int, ...]:
        """Return the shape of chunks: that of the blocks, where one fits all."""
        is_regular = all(
            len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0] for sizes in self.array.chunks
        )
        if not is_regular:
            return chunk_shape(self.array.shape, itemsize)
        return tuple(max(1, size) for size in self.array.chunksize)

    def write(self, target: Any) -> None:
        """Write every block where it is computed, on a cluster by its workers."""
        import dask

        delayed: Any = dask.delayed  # type: ignore[attr-defined]
        compute: Any = dask.compute  # type: ignore[attr-defined]
        put = delayed(_put_block)
        size = target.chunks[: self.array.ndim]
        blocks = self.array.rechunk(size).to_delayed()
        data_type = target.metadata.to_dict()["data_type"]
        tasks = []
        for index in np.ndindex(*blocks.shape):
            part = tuple(
                slice(int(i) * chunk, min((int(i) + 1) * chunk, length))
                for i, chunk, length in zip(index, size, self.array.shape, strict=True)
            )
            tasks.append(put(target, part, blocks[index], self.array.dtype, str(data_type)))
        compute(*tasks)


def _put_block(
    target: Any, part: tuple[slice, ...], block: Any, dtype: np.dtype[Any], data_type: str
) -> None:
    shape = tuple(each.stop - each.start for each in part)
    plain = codecs.encode_block(checked_block(np.asarray(block), dtype, shape))
    target[part] = native_values(plain, data_type)
