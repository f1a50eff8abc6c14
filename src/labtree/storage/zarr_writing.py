"""Writing a tree to a zarr store: a new generation beside the old one, then one object.

zarr-python makes every array by several calls through an event loop, and consolidates by
reading all metadata back. Here an array is one small JSON object and its chunks, written
by threads, and the metadata of all are at hand.
"""

import math
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import UnsupportedTypeError
from labtree.storage import codecs, json_values
from labtree.storage._xarray import Variable
from labtree.storage.arrays import stored_array
from labtree.storage.blobs import checksum
from labtree.storage.blocks import is_dask
from labtree.storage.names import encode_name
from labtree.storage.records import dataset_layout, kept_variables, variable_values
from labtree.storage.zarr_arrays import (
    BYTES,
    PAIRS,
    TEXTS,
    ChunkedArray,
    Chunks,
    chunk_key,
    chunk_shape,
    pack_texts,
)
from labtree.storage.zarr_metadata import (
    array_metadata,
    dump,
    file_names,
    group_metadata,
    shown_attributes,
    stored_as,
)
from labtree.storage.zarr_places import MARKER, Place

__all__ = ["Generation", "write_generation"]

# Index coordinates up to this size stand in the catalogue: xarray reads them when it
# opens a tree, and there they cost no request of their own.
_INLINE = 1 << 24


@dataclass(slots=True)
class Generation:
    """What one save wrote: records, values of indexes, metadata, and what moved here."""

    name: str
    records: list[dict[str, Any]] = field(default_factory=list)
    values: bytearray = field(default_factory=bytearray)
    metadata: dict[str, Any] = field(default_factory=dict)
    moves: list[tuple[ChunkedArray, Chunks]] = field(default_factory=list)

    def relocate(self) -> None:
        """Let arrays that were copied from the old generation read from this one."""
        for array, chunks in self.moves:
            array.chunks = chunks


def write_generation(
    tree: xr.DataTree, place: Place, name: str, inline: int = _INLINE
) -> Generation:
    """Write all nodes of a tree below the key `name`; nothing refers to them yet.

    Parameters
    ----------
    tree, place, name
        What, where, and below which key.
    inline
        Up to how many bytes an index coordinate also stands in the catalogue.

    Raises
    ------
    TypeError
        If a part cannot be kept exactly; the message has its path.
    OSError
        If the disk is full or the store cannot be written to.
    """
    with _Tasks(place.workers) as tasks:
        writer = _Writer(place, tasks, Generation(name), inline)
        writer.node(tree, [], [name])
    return writer.generation


class _Tasks:
    """Threads that write; a little ahead of them only, so that memory stays small."""

    def __init__(self, workers: int):
        self._pool = ThreadPoolExecutor(workers)
        self._room = threading.BoundedSemaphore(2 * workers)
        self._error: BaseException | None = None

    def add(self, call: Callable[..., None], *arguments: Any) -> None:
        self._room.acquire()
        if self._error is not None:
            self._room.release()
            raise self._error
        self._pool.submit(call, *arguments).add_done_callback(self._done)

    def _done(self, future: "Future[None]") -> None:
        error = future.exception()
        if error is not None and self._error is None:
            self._error = error
        self._room.release()

    def __enter__(self) -> "_Tasks":
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._pool.shutdown(wait=True, cancel_futures=False)
        if error is None and self._error is not None:
            raise self._error


@dataclass(slots=True)
class _Writer:
    place: Place
    tasks: _Tasks
    generation: Generation
    inline: int

    def node(self, node: xr.DataTree, path: list[str], folder: list[str]) -> None:
        """Write a node and all below it."""
        where = "/" + "/".join(path)
        dataset = node.to_dataset(inherit=False)
        variables = kept_variables(dataset)
        for name in (*variables, *dataset.sizes):
            if type(name) is not str or not name:
                raise UnsupportedTypeError(
                    f"names of variables and dimensions are str, not {name!r}"
                )
        files = file_names([*variables, *node.children])
        attrs = dict(dataset.attrs)
        encoded = json_values.encode(attrs, f"{where}.attrs")
        layout = dataset_layout(dataset, where)
        indexes = dataset.xindexes if dataset.coords else {}
        record: dict[str, Any] = {"path": path, "attrs": encoded}
        if layout:
            record["layout"] = layout
        taken = frozenset({"coordinates"} if layout else ())
        shown = shown_attributes(attrs, encoded, taken)
        shown.update(_shown_layout(layout, files, "coordinates" in attrs))
        self._metadata(folder, group_metadata(shown))
        record["variables"] = [
            self._variable(
                name,
                variable,
                f"{where.rstrip('/')}/{name}",
                [*folder, files[name]],
                [*path, name],
                name in indexes,
            )
            for name, variable in variables.items()
        ]
        self.generation.records.append(record)
        for name, child in node.children.items():
            try:
                self.node(child, [*path, name], [*folder, files[name]])
            except (TypeError, ValueError, OSError) as error:
                if not getattr(error, "__notes__", None):
                    error.add_note(f"while writing {where.rstrip('/')}/{name}")
                raise

    def _metadata(self, folder: list[str], metadata: dict[str, Any]) -> None:
        key = "/".join(folder)
        if key in self.generation.metadata:
            raise ValueError(f"{key} would be written twice; rename one of the variables")
        self.generation.metadata[key] = metadata
        if self.place.is_ordered:
            self.place.write(f"{key}/{MARKER}", dump(metadata))
        else:
            self.tasks.add(self.place.write, f"{key}/{MARKER}", dump(metadata))

    def _variable(
        self,
        name: str,
        variable: Variable,
        where: str,
        folder: list[str],
        path: list[str],
        is_index: bool,
    ) -> list[Any]:
        spec, arrays, sources = _plain_arrays(variable, where)
        columns = []
        roles = ["", *codecs.companions(spec)]
        for part, (array, role) in enumerate(zip(arrays, roles, strict=True)):
            below = folder
            dims = tuple(map(str, variable.dims))
            hints: dict[str, Any] = {}
            attrs: dict[Any, Any] = {}
            if part:
                dims = (f"labtree_text_{array.shape[0]}",) if role == "text" else dims
                below = [*folder[:-1], f"labtree_{role}_{folder[-1]}"]
            else:
                attrs = dict(variable.attrs)
                hints = {} if spec is None else {"labtree_codec": spec}
            columns.append(
                self._array(array, spec, part, dims, below, path, attrs, hints, where)
            )
            if sources is not None:
                self._moved(sources[part], below, columns[-1])
            if (
                part == 0 and is_index and array.nbytes <= self.inline
            ):  # an index is never dask's
                values = array.tobytes()
                columns[-1][5] = len(self.generation.values)
                columns[-1].append(zlib.crc32(values))
                self.generation.values += values
        attributes = json_values.encode(dict(variable.attrs), f"{where}.attrs")
        return [name, list(variable.dims), spec, attributes if variable.attrs else {}, columns]

    def _array(
        self,
        array: Any,
        spec: codecs.Spec | None,
        part: int,
        dims: tuple[str, ...],
        folder: list[str],
        path: list[str],
        attrs: dict[Any, Any],
        shown: dict[str, Any],
        where: str,
    ) -> list[Any]:
        """Write one plain array; return its column."""
        data_type, is_shorter = stored_as(None if part else spec, array.dtype)
        extra = None if part else codecs.extra_dimension(spec, array.shape)
        logical = array.shape if extra is None else array.shape[:-1]
        last = array.shape[len(logical) :]
        width = math.prod(last) * array.dtype.itemsize
        if isinstance(array, _Planned):
            chunks = array.regular(width)
        else:
            chunks = chunk_shape(logical, max(1, width))
        if extra is not None and not is_shorter:
            dims = (*dims, extra)
        hints = codecs.hints(spec) if data_type != "string" and data_type != "bool" else {}
        hints.pop("_FillValue", None)  # zarr has a fill value of its own
        encoded = json_values.encode(attrs, f"{where}.attrs")
        attributes = shown_attributes(attrs, encoded, frozenset(hints)) | hints | shown
        last_chunk = tuple(max(1, size) for size in last)
        metadata = array_metadata(
            data_type,
            array.dtype,
            logical if is_shorter else array.shape,
            chunks if is_shorter else (*chunks, *last_chunk),
            dims,
            attributes,
            self.place.separator,
        )
        self._metadata(folder, metadata)
        whole = (*chunks, *last_chunk)
        prefix = "/".join(folder)
        form = TEXTS if data_type == "string" else PAIRS if is_shorter else BYTES
        # The key of a chunk counts the last dimension only if zarr knows of it.
        tail = () if is_shorter else (0,) * len(last)
        grid = [-(-size // chunk) for size, chunk in zip(logical, chunks, strict=True)]
        crcs: list[int] = [0] * (math.prod(grid) if math.prod(last) else 0)
        if isinstance(array, _Planned):
            crcs[:] = array.write(self.place, prefix, whole, tail) if crcs else []
        else:
            for number, index in enumerate(np.ndindex(*grid) if crcs else ()):
                key = f"{prefix}/{chunk_key((*index, *tail), self.place.separator)}"
                self.tasks.add(
                    _put_chunk, self.place, key, array, index, whole, form, crcs, number
                )
        name = folder[-1]
        if folder[1:-1] != path[:-1]:
            name = "/" + "/".join(folder[1:])
        return [
            name,
            array.dtype.str,
            list(array.shape),
            list(whole),
            crcs,
            None,
            form,
        ]

    def _moved(self, source: Any, folder: list[str], column: list[Any]) -> None:
        if isinstance(source, ChunkedArray) and source.chunks.place.name == self.place.name:
            shape, crcs, form = tuple(column[3]), column[4], column[6]
            chunks = Chunks(self.place, "/".join(folder), shape, crcs, form)
            self.generation.moves.append((source, chunks))


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


def _plain_arrays(
    variable: Variable, path: str
) -> tuple[codecs.Spec | None, list[Any], list[Any] | None]:
    stored = stored_array(variable)
    if stored is not None:
        return stored.spec, [blob.read() for blob in stored.blobs], list(stored.blobs)
    is_sized = not any(math.isnan(size) for size in variable.shape)
    if is_dask(variable) and is_sized and variable.dtype.kind not in "OT":
        spec, dtype, extra = codecs.view_spec(variable.dtype)
        return spec, [_Planned(variable.data, dtype, variable.shape + extra)], None
    if is_dask(variable):  # texts have no width that their blocks agree on
        variable = variable.compute()
    spec, arrays = codecs.encode(variable_values(variable, path), path)
    return spec, list(arrays), None


def _put_chunk(
    place: Place,
    key: str,
    array: np.ndarray,
    index: tuple[int, ...],
    shape: tuple[int, ...],
    form: int,
    crcs: list[int],
    number: int,
) -> None:
    part = tuple(slice(i * size, (i + 1) * size) for i, size in zip(index, shape, strict=False))
    block = array[part] if part else array
    crcs[number] = _put_block(place, key, block, shape, form)


def _put_block(
    place: Place, key: str, block: np.ndarray, shape: tuple[int, ...], form: int
) -> int:
    """Write one chunk; return its checksum. At an edge it is filled up with zeros."""
    if block.shape != shape:
        padded = np.zeros(shape, block.dtype)
        padded[tuple(slice(0, size) for size in block.shape)] = block
        block = padded
    data = pack_texts(block) if form == TEXTS else np.ascontiguousarray(block).tobytes()
    place.write(key, data)
    return zlib.crc32(data) if form == TEXTS else checksum(block)


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
        chunks = tuple(max(1, size) for size in self.array.chunksize)
        if not is_regular:
            chunks = chunk_shape(self.array.shape, max(1, itemsize))
        return chunks

    def write(
        self, place: Place, prefix: str, shape: tuple[int, ...], tail: tuple[int, ...]
    ) -> list[int]:
        """Write every block where it is computed, on a cluster by its workers."""
        import dask

        delayed: Any = dask.delayed  # type: ignore[attr-defined]
        compute: Any = dask.compute  # type: ignore[attr-defined]
        put = delayed(_put_computed)
        blocks = self.array.rechunk(shape[: self.array.ndim]).to_delayed()
        tasks = [
            put(
                place,
                f"{prefix}/{chunk_key((*index, *tail), place.separator)}",
                blocks[index],
                shape,
            )
            for index in np.ndindex(*blocks.shape)
        ]
        return list(compute(*tasks))


def _put_computed(place: Place, key: str, block: Any, shape: tuple[int, ...]) -> int:
    return _put_block(place, key, codecs.encode_block(np.asarray(block)), shape, BYTES)
