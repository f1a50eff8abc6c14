"""Arrays of a recording on disk: zarr v3, one chunk per second of samples.

The chunks are plain: little-endian bytes, then Blosc (zstd of level 1 after a bit shuffle),
which makes noise of an amplifier smaller than zstd alone does, at several times the speed.
zarr makes the metadata; the chunks are written and read here, because the recorder must not
hold up the thread that records, and a reader must tell a chunk that is missing or short from
one that holds zeros.
"""

import contextlib
import itertools
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labtree.errors import FormatError, MissingFileError
from labtree.recording.recording_files import SessionStore, stored_json
from labtree.storage.files import sync_file, sync_folder, write_file
from labtree.storage.json_files import read_json
from labtree.storage.lazy import LazyArray, positions
from labtree.storage.ragged import run_edges

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_CACHED_CHUNKS = 4
# One chunk is a second of samples; a gigabyte of it is not a recording but an attack.
_MOST_CHUNK_BYTES = 2**30
_PARALLEL_BYTES = 2**20


class StreamArrays(NamedTuple):
    """The paths of a stream's samples, time stamps and arrival times."""

    data: Path
    times: Path
    arrivals: Path


def stream_arrays(folder: Path, name: str) -> StreamArrays:
    """Return where a recording keeps the arrays of a stream."""
    endings = ("", "_timestamps", "_arrivals")
    return StreamArrays(*(folder / f"{name}{ending}.zarr" for ending in endings))


def create_times(path: Path, name: str, rows: int) -> None:
    """Make an array without rows for the times of a stream, in chunks of so many."""
    create_array(path, (rows,), np.dtype("float64"), (f"{name}_time",), {"units": "s"})


def create_array(
    path: Path,
    chunks: tuple[int, ...],
    dtype: np.dtype[Any],
    dimension_names: tuple[str, ...] | None,
    attributes: dict[str, Any],
) -> None:
    """Make an array without rows at ``path``; its chunks hold ``chunks`` each."""
    import zarr
    from zarr.codecs import BloscCodec

    zarr.create_array(
        store=str(path),
        shape=(0, *chunks[1:]),
        chunks=chunks,
        dtype=dtype,
        fill_value=0,
        overwrite=True,
        compressors=BloscCodec(
            typesize=dtype.itemsize, cname="zstd", clevel=1, shuffle="bitshuffle", blocksize=0
        ),
        dimension_names=dimension_names,
        attributes=attributes,
        zarr_format=3,
    )


def _chunk_name(index: int, ndim: int) -> str:
    return f"c/{index}" + "/0" * (ndim - 1)


def write_chunk(path: Path, index: int, chunk: np.ndarray) -> None:
    """Write one whole chunk of the array at ``path``; one that stands there stays until then.

    Raises
    ------
    FormatError
        If a link or a folder stands in its place: what it leads to is not ours.
    """
    from numcodecs import blosc

    target = path / _chunk_name(index, chunk.ndim)
    for step in (path, *list(target.parents)[: chunk.ndim], target):
        if step.is_symlink():
            raise FormatError(
                f"{step} is a symbolic link; a recording is not written through one. Replace"
                " it by the file that it leads to"
            )
    target.parent.mkdir(parents=True, exist_ok=True)
    content = memoryview(blosc.compress(chunk, b"zstd", 1, blosc.BITSHUFFLE))
    if target.exists():  # readers count on it, when a recording is recovered
        write_file(target, content)
        return
    with target.open("wb", buffering=0) as file:
        while content:
            content = content[file.write(content) :]


def sync_chunk(path: Path, index: int, ndim: int) -> None:
    """Wait until a chunk of the array at ``path``, and its name, are on the disk."""
    file = path / _chunk_name(index, ndim)
    sync_file(file)
    if ndim > 1:  # c/0/0: a folder for each chunk
        sync_folder(file.parent)


def set_rows(path: Path, rows: int) -> None:
    """Say in the array's metadata that it has ``rows`` rows; their chunks are on the disk."""
    metadata = read_json(path / "zarr.json")
    metadata["shape"][0] = rows
    _write_metadata(path, metadata)


def set_attribute(path: Path, name: str, value: Any) -> None:
    """Set an attribute of the array at ``path``."""
    metadata = read_json(path / "zarr.json")
    if metadata.setdefault("attributes", {}).get(name) != value:
        metadata["attributes"][name] = value
        _write_metadata(path, metadata)


def _write_metadata(path: Path, metadata: Any) -> None:
    # Waits for the disk: a power cut must not leave an empty file in place of the whole one.
    write_file(path / "zarr.json", json.dumps(metadata, indent=2).encode())


def frame_size(frame: bytes) -> int | None:
    """Return the number of bytes that a zstd frame says it holds (RFC 8878, 3.1.1.1)."""
    if len(frame) < 6 or frame[:4] != ZSTD_MAGIC:
        return None
    descriptor = frame[4]
    single = descriptor >> 5 & 1
    start = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    length = (single, 2, 4, 8)[descriptor >> 6]
    size = int.from_bytes(frame[start : start + length], "little")
    if length == 0 or len(frame) < start + length:
        return None
    return size + 256 if length == 2 else size


def _blosc_size(content: bytes) -> int | None:
    """Return the number of bytes that a Blosc buffer says it holds."""
    if len(content) < 16 or int.from_bytes(content[12:16], "little") != len(content):
        return None
    return int.from_bytes(content[4:8], "little")


_HELD: dict[str, Callable[[bytes], int | None]] = {
    "": len,
    "zstd": frame_size,
    "blosc": _blosc_size,
}


class ArrayReader:
    """Rows of one array of a saved session; knows which chunks are there.

    Parameters
    ----------
    store
        The session's files.
    name
        The array's folder, such as ``emg.zarr``.

    Raises
    ------
    FormatError
        If the array's metadata are missing, or describe anything but rows in chunks of
        whole rows.
    """

    def __init__(self, store: SessionStore, name: str) -> None:
        self.store = store
        self.name = name
        self.where = f"{store.path}/{name}"
        try:
            metadata = stored_json(store, f"{name}/zarr.json")
        except KeyError:
            raise FormatError(
                f"{self.where}: expected a zarr array, found no zarr.json"
            ) from None
        try:
            self._read_metadata(metadata)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise FormatError(
                f"{self.where}/zarr.json: expected the metadata of a zarr v3 array,"
                f" {error!r} is missing or of the wrong kind"
            ) from error
        self._absent: frozenset[int] = frozenset()  # chunks that may be zeros
        # Without a lock: one that a thread holds while the process is forked stays held there.
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}

    def _read_metadata(self, metadata: dict[str, Any]) -> None:
        def expect(what: str, found: Any, good: bool, expected: str) -> None:
            if not good:
                raise FormatError(
                    f"{self.where}/zarr.json: {what} is {found!r}, expected {expected}"
                )

        version = metadata["zarr_format"]
        self.attributes: dict[str, Any] = metadata.get("attributes") or {}
        expect("zarr_format", version, version == 3, "3")
        self.shape = tuple(metadata["shape"])
        ndim = len(self.shape)
        chunks = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        sizes = (*self.shape, *chunks)
        expect("shape", self.shape, 1 <= ndim <= 2, "(rows,) or (rows, channels)")
        expect(
            "chunk_shape",
            chunks,
            len(chunks) == ndim
            and all(type(size) is int and 0 <= size < 2**62 for size in sizes)
            and chunks[0] > 0
            and chunks[1:] == self.shape[1:]
            and 0 not in chunks,
            "some rows of all channels",
        )
        name = metadata["data_type"]
        kinds = ("float16", "float32", "float64", *(f"int{n}" for n in (8, 16, 32, 64)))
        kinds += tuple(f"uint{n}" for n in (8, 16, 32, 64))
        expect("data_type", name, name in kinds, f"one of {', '.join(kinds)}")
        self.dtype = np.dtype(name)
        codecs = {codec["name"]: codec.get("configuration", {}) for codec in metadata["codecs"]}
        plain = list(codecs) in (["bytes"], ["bytes", "zstd"], ["bytes", "blosc"])
        expect("codecs", list(codecs), plain, "bytes, then blosc, zstd or nothing")
        encoding = metadata["chunk_key_encoding"]
        default = encoding["name"] == "default"
        default &= encoding.get("configuration", {}).get("separator", "/") == "/"
        expect("chunk_key_encoding", encoding, default, "default with '/'")
        fill = metadata["fill_value"]
        expect("fill_value", fill, fill == 0, "0")
        big = codecs["bytes"].get("endian", "little") == "big"
        self._stored_dtype = self.dtype.newbyteorder(">" if big else "<")
        self._codec = next((name for name in codecs if name != "bytes"), "")
        self.chunk_rows: int = chunks[0]
        self._chunk_shape = chunks
        self._chunk_bytes = int(np.prod(chunks, dtype=object)) * self.dtype.itemsize
        expect(
            "chunk_shape",
            chunks,
            self._chunk_bytes <= _MOST_CHUNK_BYTES,
            f"chunks of at most {_MOST_CHUNK_BYTES} bytes",
        )

    @property
    def is_own(self) -> bool:
        """Whether its chunks are compressed as labtree does it, so that it may write some."""
        return self._codec == "blosc" and self.dtype == self._stored_dtype

    def whole_rows(self) -> int:
        """Return how many rows there are before the first chunk that is missing or empty."""
        index = 0
        while index * self.chunk_rows < self.shape[0] and self._size(index):
            index += 1
        return int(min(self.shape[0], index * self.chunk_rows))

    def missing_chunks(self, rows: int) -> tuple[list[int], int]:
        """Return the chunks missing from the first ``rows``, and the rows before an empty one.

        A chunk without any byte is damaged, not missing: a write was cut short there.
        """
        missing = []
        for index in range(-(-rows // self.chunk_rows)):
            size = self._size(index)
            if size is None:
                missing.append(index)
            elif size == 0:
                rows = index * self.chunk_rows
                break
        self._absent = frozenset(missing)
        return missing, rows

    def _size(self, index: int) -> int | None:
        return self.store.size(f"{self.name}/{_chunk_name(index, len(self.shape))}")

    def read(self, start: int, stop: int, columns: Any = slice(None)) -> np.ndarray:
        """Return rows ``start`` to ``stop`` (of some ``columns``) as a new array.

        Raises
        ------
        FormatError
            If a chunk is damaged, or missing though it was there when the session was
            opened. One that was missing then, and may be zeros, gives zeros.
        MissingFileError
            If the whole array is not there any more, or not in this process's sight.
        """
        stop = max(start, stop)
        width = [len(np.arange(size)[columns]) for size in self.shape[1:]]
        out = np.empty((stop - start, *width), self.dtype)
        everything = isinstance(columns, slice) and columns == slice(None)
        rows = self.chunk_rows

        def fill(index: int) -> None:
            first = index * rows
            a, b = max(start, first), min(stop, first + rows)
            target = out[a - start : b - start]
            if b - a == rows and everything and self.dtype == self._stored_dtype:
                self._decode(index, target)
            else:
                chunk = self._chunk(index)[a - first : b - first]
                target[...] = chunk if everything else chunk[:, columns]

        def fill_all(indices: range) -> None:
            for index in indices:
                fill(index)

        indices = range(start // rows, -(-stop // rows)) if stop > start else range(0)
        if len(indices) > 3 and len(indices) * self._chunk_bytes > _PARALLEL_BYTES:
            workers = min(4, os.cpu_count() or 1)
            # A share of the chunks for each thread: a task per chunk costs what it saves.
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(fill_all, (indices[share::workers] for share in range(workers))))
        else:
            fill_all(indices)
        return out

    def _chunk(self, index: int) -> np.ndarray:
        cached = self._cache.get(index)
        if cached is not None:
            with contextlib.suppress(KeyError):  # another thread took it out
                self._cache.move_to_end(index)
            return cached
        chunk = np.empty(self._chunk_shape, self._stored_dtype)
        self._decode(index, chunk)
        self._cache[index] = chunk
        while len(self._cache) > _CACHED_CHUNKS:
            with contextlib.suppress(KeyError):
                self._cache.popitem(last=False)
        return chunk

    def _decode(self, index: int, out: np.ndarray) -> None:
        name = f"{self.name}/{_chunk_name(index, len(self.shape))}"
        try:
            # What cannot be made smaller grows by less than a hundredth.
            content = self.store.read(name, self._chunk_bytes + self._chunk_bytes // 100 + 1024)
        except KeyError:
            if self.store.size(f"{self.name}/zarr.json") is None:
                raise MissingFileError(
                    f"{self.store.path}/{self.name}: it was there when the session was opened;"
                    " it was moved or deleted, or this process does not see that folder"
                ) from None
            if index not in self._absent:
                raise FormatError(f"{self.store.path}/{name}: the chunk is missing") from None
            out[...] = 0
            return
        held = _HELD[self._codec](content)
        if held != self._chunk_bytes:
            found = f"none that {self._codec} says its size of" if held is None else held
            raise FormatError(
                f"{self.store.path}/{name}: damaged chunk: expected {self._chunk_bytes} bytes"
                f" of samples, found {found}"
            )
        if not self._codec:
            out[...] = np.frombuffer(content, self._stored_dtype).reshape(out.shape)
            return
        from numcodecs import blosc, zstd

        unpack = blosc.decompress if self._codec == "blosc" else zstd.decompress
        try:
            unpack(content, out)
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"{self.store.path}/{name}: damaged chunk ({error})") from error


class RowsArray(LazyArray):
    """Rows of a stream's data or time stamps: stored ones, then those of a journal.

    Rows and columns are read that are asked for, and no others.

    Parameters
    ----------
    reader
        The stored array.
    length
        Rows in all.
    tail
        The last of them, which are not stored yet.
    """

    def __init__(
        self, reader: ArrayReader, length: int, tail: np.ndarray | None = None
    ) -> None:
        self._reader = reader
        self._tail = tail
        self._stored = length - (0 if tail is None else len(tail))
        self.shape = (length, *reader.shape[1:])
        self.dtype = reader.dtype

    def __dask_tokenize__(self) -> object:
        """Return what tells these rows from others: their file and its length."""
        path = self._reader.store.path
        return (str(path), path.stat().st_mtime_ns, self._reader.name, self.shape)

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Return the rows and columns that ``key`` selects."""
        first, n = key[0], self.shape[0]
        columns: Any = key[1] if len(key) > 1 else slice(None)
        narrow = isinstance(columns, int | np.integer)
        if narrow:
            columns = np.array([columns])
        out: np.ndarray
        if isinstance(first, int | np.integer):
            row = int(positions(first, n)[0])
            out = self._rows(row, row + 1, columns)[0]
        elif isinstance(first, slice) and first.step in (None, 1):
            start, stop, _ = first.indices(n)
            out = self._rows(start, stop, columns)
        else:
            out = self._scattered(positions(first, n), columns)
        return out[..., 0] if narrow else out

    def _rows(self, start: int, stop: int, columns: Any) -> np.ndarray:
        """Return rows ``start`` to ``stop`` as a new array."""
        split = min(stop, self._stored)
        if self._tail is None or split == stop:
            return self._reader.read(start, stop, columns)
        first = max(start - self._stored, 0)
        tail = self._tail[first : stop - self._stored]
        if tail.ndim == 2:
            tail = tail[:, columns]
        if start >= self._stored:
            return tail.astype(self.dtype)
        return np.concatenate([self._reader.read(start, split, columns), tail])

    def _scattered(self, wanted: np.ndarray, columns: Any) -> np.ndarray:
        """Read rows in any order, chunk by chunk, so that those between are not held."""
        width = [len(np.arange(size)[columns]) for size in self.shape[1:]]
        out = np.empty((len(wanted), *width), self.dtype)
        order = np.argsort(wanted, kind="stable")
        ranked = wanted[order]
        edges = run_edges(ranked // self._reader.chunk_rows).tolist()
        for begin, end in itertools.pairwise(edges):
            rows = ranked[begin:end]
            low = int(rows[0])
            block = self._rows(low, int(rows[-1]) + 1, columns)
            out[order[begin:end]] = block[rows - low]
        return out
