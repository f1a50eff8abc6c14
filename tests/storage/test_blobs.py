"""Parts of arrays, read lazily: what numpy gives for the same key."""

import pickle
import threading

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st

from labtree.errors import FormatError
from labtree.storage import blobs, open_tree, save_tree
from labtree.storage.blobs import ContiguousArray, checksum
from labtree.storage.sources import BytesSource
from support import strategies
from support.exactness import assert_same


class Counting(BytesSource):
    """A source that knows how much was read."""

    total = 0

    def read_into(self, buffer, offset):
        self.total += len(buffer)
        return super().read_into(buffer, offset)


def _blob(array, **options):
    source = Counting(b"before" + array.tobytes())
    return ContiguousArray(source, 6, array.dtype, array.shape, options.get("crc"), "a/v")


@st.composite
def _keys(draw, shape):
    def part(size):
        bound = st.none() | st.integers(-size - 2, size + 2)
        slices = st.builds(slice, bound, bound, st.sampled_from([None, 1, 2, 3, -1, -2, -5]))
        if not size:
            return slices
        places = st.integers(-size, size - 1)
        return places | slices | st.lists(places, max_size=6).map(lambda p: np.array(p, int))

    return tuple(draw(part(size)) for size in shape)


def _expected(array, key):
    for axis, part in reversed(list(enumerate(key))):
        array = array[(slice(None),) * axis + (part,)]
    return array


@given(st.data())
def test_every_key_gives_what_numpy_gives(data):
    shape = tuple(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)))
    array = np.arange(np.prod(shape), dtype=">i4").reshape(shape)
    key = data.draw(_keys(shape))
    before = blobs._GAP, blobs._BLOCK
    # Small enough that every way of reading is taken.
    blobs._GAP, blobs._BLOCK = data.draw(st.sampled_from([(1, 1), (1, 40), (1000, 16), before]))
    try:
        found = _blob(array).select(key)
    finally:
        blobs._GAP, blobs._BLOCK = before
    assert_same(found, np.asarray(_expected(array, key), array.dtype))


def test_a_part_of_a_large_array_reads_little():
    array = np.arange(4_000_000, dtype="f4").reshape(1000, 4000)
    blob = _blob(array)
    for key, most in [
        ((5, slice(None)), 16_000),
        ((slice(0, 10), slice(0, 10)), 200_000),
        ((np.array([0, 999]), slice(0, 5)), 200_000),
        ((np.array([*range(500), 999]), slice(0, 1)), 16_000_000),
    ]:
        blob.place[0].total = 0
        np.testing.assert_array_equal(blob.select(key), _expected(array, key))
        assert blob.place[0].total <= most


def test_rows_far_apart_are_not_bridged_in_memory():
    array = np.arange(4_000_000, dtype="f8")
    source = Counting(array.tobytes())
    blob = ContiguousArray(source, 0, array.dtype, array.shape, None, "v")
    places = np.array([0, 1, 3_999_999, 2])
    largest = []
    read_into = source.read_into
    source.read_into = lambda b, offset: largest.append(len(b)) or read_into(b, offset)
    np.testing.assert_array_equal(blob.select((places,)), array[places])
    assert max(largest) <= blobs._BLOCK


def test_errors_name_the_file_and_the_array():
    array = np.arange(4.0)
    damaged = _blob(array, crc=checksum(array) + 1)
    with pytest.raises(
        FormatError, match=r"memory: a/v is damaged: .* restore the file from a"
    ):
        damaged.read()
    short = ContiguousArray(BytesSource(b"1234567", "f.h5"), 0, array.dtype, (1,), None, "a/v")
    with pytest.raises(FormatError, match=r"f.h5: a/v is cut short: 7 of 8 bytes are there"):
        short.read()
    with pytest.raises(FormatError, match=r"f.h5: a/v is cut short"):
        short.select((0,))
    with pytest.raises(IndexError, match="index 4 is out of bounds for an axis of size 4"):
        _blob(array).select((4,))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    path = tmp_path_factory.mktemp("blobs") / "t.h5"
    rng = np.random.default_rng(1)
    variables = {
        "f4": rng.normal(size=(3, 4, 5)).astype("f4"),
        "bool": rng.random((3, 4, 5)) > 0.5,
        "complex": rng.normal(size=(3, 4, 5)) + 1j,
        "date": rng.integers(0, 99, (3, 4, 5)).astype("M8[ms]"),
        "text": rng.integers(0, 99, (3, 4, 5)).astype("U3"),
        "unicode": np.char.add(rng.integers(0, 9, (3, 4, 5)).astype("U3"), "é🧠"),
        "bytes": rng.integers(0, 99, (3, 4, 5)).astype("S4"),
        "half": rng.normal(size=(3, 4, 5)).astype(">f2"),
        "record": rng.integers(0, 99, (3, 4, 5, 2)).astype("i4").view("i4,i4")[..., 0],
    }
    tree = xr.DataTree(
        xr.Dataset({name: (("a", "b", "c"), values) for name, values in variables.items()})
    )
    save_tree(tree, path)
    tree = open_tree(path)
    yield tree, variables
    tree.close()


@given(st.data())
def test_lazy_variables_are_indexed_like_numpy(opened, data):
    tree, variables = opened
    name = data.draw(st.sampled_from(list(variables)))
    key = data.draw(_keys((3, 4, 5)))
    # xarray takes a[-6::-1] of five values for all of them, where numpy takes none.
    behind = [
        p for p in key if isinstance(p, slice) and (p.step or 1) < 0 and (p.start or 0) < -3
    ]
    assume(not behind)
    found = tree.to_dataset()[name][key]
    # numpy cuts the zeros off a single text.
    expected = np.asarray(_expected(variables[name], key), variables[name].dtype)
    assert_same(np.asarray(found.values, expected.dtype), expected)


@pytest.mark.parametrize("kind", ["vectorised", "boolean", "labels", "chained"])
def test_xarrays_other_ways_of_indexing(opened, kind):
    tree, variables = opened
    for name, values in variables.items():
        lazy = tree.to_dataset()[name]
        if kind == "vectorised":
            points = xr.DataArray([0, 2, 1], dims="p")
            found, expected = lazy[points, points], values[[0, 2, 1], [0, 2, 1]]
        elif kind == "boolean":
            mask = np.array([True, False, True])
            found, expected = lazy[mask], values[mask]
        elif kind == "labels":
            found, expected = lazy.isel(b=-1, c=slice(None, None, 2)), values[:, -1, ::2]
        else:
            found = lazy[1:][:, ::-1][0, 1:3][..., [4, 0]]
            expected = values[1:][:, ::-1][0, 1:3][..., [4, 0]]
        assert_same(np.asarray(found.values), np.ascontiguousarray(expected))


def test_writing_into_a_lazy_variable_changes_a_copy(opened):
    tree, variables = opened
    dataset = tree.to_dataset().copy(deep=True)
    dataset["f4"][0, 0, 0] = 99
    assert dataset["f4"][0, 0, 0] == 99
    assert_same(tree["f4"].values, variables["f4"])


def test_opened_trees_are_pickled_by_their_path_and_read_by_threads(opened):
    tree, variables = opened
    text = pickle.dumps(tree)
    assert len(text) < 20_000
    copy = pickle.loads(text)
    problems = []

    def read():
        try:
            for name, values in variables.items():
                assert_same(copy[name].values, values)
                assert_same(tree[name][1].values, values[1])
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


@given(strategies.arrays(strategies.dtypes(objects=False)))
def test_bytes_and_blobs_are_pickled(array):
    from labtree.storage.arrays import memory_array

    variable = xr.Variable([f"d{i}" for i in range(array.ndim)], memory_array(array, "v"))
    found = np.asarray(pickle.loads(pickle.dumps(variable)).data)
    assert_same(found, array.copy())


@pytest.mark.parametrize(
    "dtype", [">f2", ">f4", ">i2", ">i8", ">c8", ">M8[s]", ">m8[D]", ">U3"]
)
def test_one_element_keeps_its_byte_order(tmp_path, cut_catalogue, dtype):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    save_tree(xr.DataTree(xr.Dataset({"v": (("a", "b"), values)})), tmp_path / "t.h5")
    for prepare in (lambda path: None, cut_catalogue):
        prepare(tmp_path / "t.h5")
        tree = open_tree(tmp_path / "t.h5")
        assert tree["v"][1, 2].values == values[1, 2]
        assert tree["v"][1].values.tolist() == values[1].tolist()
        tree.close()
