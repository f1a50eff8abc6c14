"""Chunks of zarr stores: any part of an array is that of the whole, and damage is told."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labtree.errors import FormatError
from labtree.storage.zarr_arrays import (
    BYTES,
    TEXTS,
    ChunkedArray,
    Chunks,
    chunk_key,
    chunk_shape,
    pack_texts,
    unpack_texts,
)


class MemoryPlace:
    """Objects in a dict, that count how often they are read."""

    name = "memory"
    workers = 4
    is_ordered = False
    separator = "/"

    def __init__(self):
        self.objects = {}
        self.reads = []

    def read(self, key, start=0, size=None):
        self.reads.append((key, start, size))
        if key not in self.objects:
            raise FileNotFoundError(key)
        return self.objects[key][start : None if size is None else start + size]

    def write(self, key, data):
        self.objects[key] = bytes(data)


def stored(array, chunk, form=BYTES):
    """Write an array in chunks as a brute force does: pad it whole, cut it in blocks."""
    import zlib

    place = MemoryPlace()
    grid = [-(-size // step) for size, step in zip(array.shape, chunk, strict=True)]
    padded = np.zeros(
        [count * step for count, step in zip(grid, chunk, strict=True)], array.dtype
    )
    padded[tuple(slice(0, size) for size in array.shape)] = array
    crcs = []
    for index in np.ndindex(*grid):
        block = padded[
            tuple(slice(i * s, i * s + s) for i, s in zip(index, chunk, strict=True))
        ]
        data = pack_texts(block) if form == TEXTS else np.ascontiguousarray(block).tobytes()
        known = index[:-1] if form == TEXTS else index
        place.write(f"array/{chunk_key(known, '/')}", data)
        crcs.append(zlib.crc32(data))
    chunks = Chunks(place, "array", tuple(chunk), crcs, form)
    return ChunkedArray(chunks, array.dtype, array.shape, "array"), place


def keys(size):
    """Ints, slices of any step, and lists with repeats and negative numbers."""
    some = st.integers(-size, size - 1)
    bound = st.none() | st.integers(-size - 2, size + 2)
    step = st.none() | st.integers(1, 3) | st.integers(-3, -1)
    slices = st.builds(slice, bound, bound, step)
    if not size:
        return slices
    return st.one_of(
        some,
        slices,
        st.lists(some, max_size=5).map(lambda items: np.array(items, np.int64)),
        st.just(slice(None)),
    )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_part_is_what_numpy_gives(data):
    shape = tuple(data.draw(st.lists(st.integers(0, 7), max_size=3)))
    chunk = tuple(data.draw(st.integers(1, 4)) for _ in shape)
    array = np.arange(np.prod(shape, dtype=int), dtype=">i4").reshape(shape)
    chunked, _ = stored(array, chunk)
    key = tuple(data.draw(keys(size)) for size in shape)
    expected = array
    for axis, part in reversed(list(enumerate(key))):
        expected = expected[(slice(None),) * axis + (part,)]
    actual = chunked.select(key)
    assert actual.dtype == array.dtype
    assert np.shape(actual) == expected.shape
    assert np.array_equal(actual, expected)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_part_of_texts_is_what_numpy_gives(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=2)))
    chunk = tuple(data.draw(st.integers(1, 3)) for _ in shape)
    words = [f"{'é' * (i % 3)}{i}\0{i}".encode() for i in range(np.prod(shape))]
    texts = np.array(words).reshape(shape)
    width = texts.dtype.itemsize
    raw = texts.reshape(-1).view("S1").reshape(*shape, width)
    chunked, _ = stored(raw, (*chunk, width), TEXTS)
    key = (*(data.draw(keys(size)) for size in shape), slice(None))
    expected = raw
    for axis, part in reversed(list(enumerate(key))):
        expected = expected[(slice(None),) * axis + (part,)]
    assert np.array_equal(chunked.select(key), expected)


def test_a_part_reads_only_the_chunks_that_hold_it():
    chunked, place = stored(np.arange(100.0).reshape(10, 10), (5, 5))
    assert (
        chunked.select((slice(0, 5), slice(5, 10))).sum()
        == np.arange(100.0).reshape(10, 10)[:5, 5:].sum()
    )
    assert {key for key, _, _ in place.reads} == {"array/c/0/1"}


def test_an_index_out_of_bounds_is_an_error():
    chunked, _ = stored(np.arange(4), (2,))
    for wrong in (4, -5, np.array([0, 4])):
        with pytest.raises(IndexError, match="out of bounds"):
            chunked.select((wrong,))


def test_every_flipped_bit_is_found_in_a_whole_chunk():
    array = np.arange(6, dtype=np.uint8)
    chunked, place = stored(array, (4,))
    for key, data in list(place.objects.items()):
        for position in range(len(data)):  # the padding of the last chunk too
            place.objects[key] = bytes(byte ^ (position == i) for i, byte in enumerate(data))
            with pytest.raises(FormatError, match="damaged"):
                chunked.read()
        place.objects[key] = data
    assert np.array_equal(chunked.read(), array)


def test_every_flipped_bit_is_found_in_texts():
    raw = np.array([b"ab", b"c"]).view("S1").reshape(2, 2)
    chunked, place = stored(raw, (2, 2), TEXTS)
    data = place.objects["array/c/0"]
    for position in range(len(data)):
        place.objects["array/c/0"] = bytes(
            byte ^ (position == i) for i, byte in enumerate(data)
        )
        with pytest.raises(FormatError, match="damaged"):
            chunked.read()


@pytest.mark.parametrize("form", [BYTES, TEXTS])
def test_a_missing_or_short_chunk_is_an_error_and_never_zeros(form):
    array = np.array([b"ab", b"cd", b"ef"]).view("S1").reshape(3, 2)
    chunked, place = stored(array, (2, 2), form)
    key = "array/c/1" if form == TEXTS else "array/c/1/0"
    data = place.objects[key]
    place.objects[key] = data[:1]
    for wanted in (slice(None), 2, slice(2, 3)):
        with pytest.raises(FormatError, match=r"array.*(short|damaged)"):
            chunked.select((wanted, slice(None)))
    del place.objects[key]
    for wanted in (slice(None), 2, slice(2, 3)):
        with pytest.raises(FormatError, match="missing"):
            chunked.select((wanted, slice(None)))
    assert chunked.select((slice(0, 2), slice(None))).tobytes() == b"abcd"


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 0),
        (b"\1\0\0\0", 1),
        (b"\1\0\0\0\1\0\0\0", 1),
        (b"\1\0\0\0\3\0\0\0abc", 1),
        (b"\2\0\0\0\1\0\0\0a", 1),
        (b"\1\0\0\0\xff\xff\xff\xffa", 1),
    ],
)
def test_texts_that_do_not_add_up_are_an_error(data, count):
    with pytest.raises(ValueError, match="text"):
        unpack_texts(data, count, 2)


def test_chunks_that_do_not_fit_the_array_are_an_error():
    place = MemoryPlace()
    for shape, chunk, crcs in [((4,), (2,), [0]), ((4,), (2, 1), [0, 0]), ((4,), (0,), [])]:
        with pytest.raises(FormatError):
            ChunkedArray(Chunks(place, "a", chunk, crcs, BYTES), np.dtype("i4"), shape, "a")


def test_a_size_that_is_not_true_costs_no_memory():
    place = MemoryPlace()
    place.write("array/c/0", b"abc")
    size = 1 << 45
    chunks = Chunks(place, "array", (size,), [0], BYTES)
    array = ChunkedArray(chunks, np.dtype("f8"), (size,), "array")
    with pytest.raises(FormatError, match="cut short"):
        array.read()


def test_chunks_are_small_and_few():
    assert chunk_shape((), 8) == ()
    assert chunk_shape((0, 3), 8) == (1, 3)
    assert chunk_shape((1000,), 8) == (1000,)
    assert chunk_shape((3,), 1 << 30) == (1,)
    for shape in [(64, 10_000_000), (10_000_000, 64), (500, 500, 500)]:
        chunk = chunk_shape(shape, 4)
        assert 1 << 20 < 4 * np.prod(chunk) <= 1 << 22


def test_pickles_without_the_data(tmp_path: Path):
    from labtree.storage.zarr_places import FolderPlace

    (tmp_path / "a").mkdir()
    place = FolderPlace(tmp_path)
    place.write("a/c.0", np.arange(1000.0).tobytes())
    import zlib

    chunks = Chunks(place, "a", (1000,), [zlib.crc32(np.arange(1000.0).tobytes())], BYTES)
    array = ChunkedArray(chunks, np.dtype("f8"), (1000,), "a")
    data = pickle.dumps(array)
    assert len(data) < 1000
    assert np.array_equal(pickle.loads(data).read(), np.arange(1000.0))
