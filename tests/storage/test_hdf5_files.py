"""Damaged heaps of HDF5 are found before HDF5 searches in them for ever."""

import struct

import h5py
import numpy as np
import pytest

from labtree.errors import FormatError
from labtree.storage import hdf5_files, open_tree
from labtree.storage.hdf5_files import check_heaps
from support.children import in_child

HEAP = b"GCOL\1\0\0\0"
OF_NO_SIZE = bytes(24)
LARGER_THAN_THE_FILE = struct.pack("<HHIQ", 1, 1, 0, 2**64 - 1)


def _with_text(path, beside=b"", values=3):
    with h5py.File(path, "w", userblock_size=0) as file:
        file["x"] = np.zeros(values)
        file["empty"] = h5py.Empty("f8")
        file.create_dataset("texts", data=["a", "b" * 30], dtype=h5py.string_dtype())
        if beside:
            file.create_dataset(
                "bytes",
                data=np.frombuffer(beside, "u1"),
                chunks=(max(999, len(beside) // 100),),
            )


def _damage(path, entry):
    """Put an entry at the beginning of the only heap; return where the heap is."""
    content = bytearray(path.read_bytes())
    heap = content.index(HEAP)
    content[heap + 16 : heap + 16 + len(entry)] = entry
    path.write_bytes(content)
    return heap


def _opened(path):
    try:
        return list(open_tree(path).load().data_vars)
    except FormatError as error:
        return error


@pytest.mark.parametrize("entry", [OF_NO_SIZE, LARGER_THAN_THE_FILE])
@pytest.mark.parametrize("beside", [b"", bytes(100_000)])
def test_heaps_beside_large_arrays_are_looked_at(tmp_path, entry, beside):
    path = tmp_path / "t.nc"
    _with_text(path, beside, values=3 << 20)  # 24 MiB
    heap = _damage(path, entry)
    with pytest.raises(FormatError, match=rf"t.nc: what HDF5 keeps at byte {heap} .* damaged"):
        raise in_child(_opened, path)


@pytest.mark.parametrize("entry", [OF_NO_SIZE, LARGER_THAN_THE_FILE])
@pytest.mark.parametrize("open_", [True, False])
def test_a_damaged_heap_is_found_and_a_sound_one_passes(tmp_path, entry, open_):
    path = tmp_path / "t.nc"
    _with_text(path)
    with h5py.File(path) as file:
        check_heaps(path, file if open_ else None)
    heap = _damage(path, entry)
    with (
        h5py.File(path) as file,
        pytest.raises(FormatError, match=rf"keeps at byte {heap} .*restore the file from a"),
    ):
        check_heaps(path, file if open_ else None)


def test_a_heap_that_takes_too_long_to_reach_is_searched_in_the_whole_file_only(tmp_path):
    """Beside arrays lie 17 MiB of chunks: opening does not search them, a check does."""
    path = tmp_path / "t.nc"
    _with_text(path, bytes(17 << 20))
    _damage(path, OF_NO_SIZE)
    with h5py.File(path) as file:
        check_heaps(path, file)
    with pytest.raises(FormatError, match="a global heap"):
        check_heaps(path)


def test_an_empty_file_has_no_heaps(tmp_path):
    path = tmp_path / "t.nc"
    path.touch()
    check_heaps(path)


@pytest.mark.parametrize("entry", [OF_NO_SIZE, LARGER_THAN_THE_FILE])
def test_values_that_look_like_a_damaged_heap_are_values(tmp_path, entry):
    path = tmp_path / "t.nc"
    bytes_of_a_file = np.frombuffer(HEAP + struct.pack("<Q", 4096) + entry, "u1")
    with h5py.File(path, "w") as file:
        file["x"] = bytes_of_a_file
    check_heaps(path)
    with open_tree(path) as tree:
        assert tree["x"].values.tobytes() == bytes_of_a_file.tobytes()


def test_many_such_values_are_looked_through_once(tmp_path, monkeypatch):
    path = tmp_path / "t.nc"
    one = HEAP + struct.pack("<Q", 4096) + OF_NO_SIZE
    with h5py.File(path, "w") as file:
        file["x"] = np.frombuffer(one * 1000, "u1")
    looked = []
    search = hdf5_files._beside_arrays
    monkeypatch.setattr(
        hdf5_files, "_beside_arrays", lambda *given: looked.append(1) or search(*given)
    )
    check_heaps(path)
    assert looked == [1]
