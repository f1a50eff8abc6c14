"""Batches in order and mixed, in memory that is bounded."""

import pickle
import sys
import types

import numpy as np
import pytest
import xarray as xr

import labtree
from labtree import SessionError, batches
from labtree.recording import chunks, window_array, window_batches
from labtree.testing.recordings import record_emg


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    base = tmp_path_factory.mktemp("recordings")
    return [record_emg(base / str(seed), (0, 1, 0, 2), seed=seed) for seed in range(3)]


@pytest.fixture
def windows(paths):
    return labtree.labeled_windows(paths, "emg", 100, 25)


@pytest.fixture(params=[64 * 2**20, 200_000, 1])
def pool(request, monkeypatch):
    """How many bytes are read at once: all, some, next to nothing."""
    monkeypatch.setattr(window_batches, "_POOL_BYTES", request.param)
    return request.param


@pytest.mark.parametrize("size", [1, 7, 32, 10_000])
@pytest.mark.parametrize("drop_last", [False, True])
def test_in_order_batches_are_the_windows(windows, pool, size, drop_last):
    if size == 1:
        windows = windows[:50]
    found = list(batches(windows, size, drop_last=drop_last))
    n = len(windows) // size * size if drop_last else len(windows)
    assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
    assert sum(len(batch) for batch in found) == n
    if found:
        xr.testing.assert_identical(xr.concat(found, "window"), windows[:n].compute())


@pytest.mark.parametrize("size", [7, 32])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_mixed_batches_are_a_permutation_that_the_seed_fixes(windows, pool, size, seed):
    found = list(batches(windows, size, shuffle=seed))
    again = list(batches(windows, size, shuffle=seed))
    assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
    joined = xr.concat(found, "window")
    xr.testing.assert_identical(joined, xr.concat(again, "window"))
    # Each window once, with its own samples and coordinates.
    number = {
        key: at
        for at, key in enumerate(
            zip(windows.session.values, windows.start_time.values, strict=True)
        )
    }
    order = [
        number[key] for key in zip(joined.session.values, joined.start_time.values, strict=True)
    ]
    assert sorted(order) == list(range(len(windows)))
    xr.testing.assert_identical(joined, windows[order].compute())
    assert order != sorted(order)


def test_another_seed_is_another_order(windows):
    one, other = (
        xr.concat(list(batches(windows, 50, shuffle=seed)), "window") for seed in (0, 1)
    )
    assert (one.start_time.values != other.start_time.values).mean() > 0.9


def test_batches_mix_sessions_and_classes(windows, monkeypatch):
    monkeypatch.setattr(window_batches, "_POOL_BYTES", 400_000)
    kinds = [len(set(b.class_index.values)) for b in batches(windows, 64, shuffle=3)]
    assert np.mean(kinds) > 1.5


def test_no_more_than_a_pool_is_read_at_a_time(windows, monkeypatch):
    monkeypatch.setattr(window_batches, "_POOL_BYTES", 200_000)
    sizes = []
    in_memory = window_array.WindowArray.in_memory

    def counted(array, chosen, columns):
        sizes.append(len(chosen) * windows[0].nbytes)
        return in_memory(array, chosen, columns)

    monkeypatch.setattr(window_array.WindowArray, "in_memory", counted)
    for _ in batches(windows, 16, shuffle=0):
        pass
    assert max(sizes) <= 200_000 + windows[0].nbytes
    assert sum(sizes) == windows.nbytes


def test_samples_are_read_once_an_epoch_though_windows_overlap(windows, monkeypatch):
    read = []
    rows_read = chunks.ArrayReader.read

    def counted(reader, start, stop, *columns):
        read.append(stop - start)
        return rows_read(reader, start, stop, *columns)

    monkeypatch.setattr(chunks.ArrayReader, "read", counted)
    held = windows.sizes["window"] * windows.sizes["time"]
    assert sum(len(batch) for batch in batches(windows, 16)) == len(windows)
    assert sum(read) < held / 3  # each sample is in four windows


def test_batches_of_some_channels_and_samples(windows):
    for part in (
        windows[:, 1],
        windows[:, [3, 0]],
        windows[:, 1:3, 5:9],
        windows[::3, :, 7],
        windows[[5, 2, 9], ::-1, [4, 1]],
        windows.transpose("window", "time", "channel"),
        windows[:0],
    ):
        found = list(batches(part, 4))
        assert [len(batch) for batch in found[:-1]] == [4] * (len(found) - 1)
        if found:
            xr.testing.assert_identical(xr.concat(found, "window"), part.compute())
        else:
            assert len(part) == 0


def test_a_batch_can_be_changed_and_changes_no_other(windows):
    expected = windows[:32].values
    for first, batch in zip(range(0, 32, 8), batches(windows, 8), strict=False):
        np.testing.assert_array_equal(batch.values, expected[first : first + 8])
        batch.values[...] = -1


def test_an_error_while_reading_ahead_reaches_the_loop(tmp_path, monkeypatch):
    path = record_emg(tmp_path)
    windows = labtree.labeled_windows(path, "emg", 100, 25)
    monkeypatch.setattr(window_batches, "_ORDERED_BYTES", 100_000)
    chunk = sorted((path / "emg.zarr" / "c").iterdir(), key=lambda p: int(p.name))[4] / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    found = []
    with pytest.raises(labtree.FormatError, match="damaged chunk"):
        found.extend(batches(windows, 4))
    assert 0 < sum(map(len, found)) < len(windows)


def test_windows_in_any_form_are_mixed(windows):
    chosen = windows.isel(window=windows.class_index.values == 1)
    for form in (chosen, chosen.chunk({"window": 10}), chosen.compute()):
        found = xr.concat(list(batches(form, 16, shuffle=0)), "window").sortby("start_time")
        np.testing.assert_array_equal(np.sort(found.start_time), np.sort(chosen.start_time))
        assert set(found.class_index.values) == {1}


def test_events_are_mixed(paths):
    tree = labtree.open_session(paths[0])
    around = tree.session.peri_event("emg", np.arange(101, 107, 0.1), 0.1, 0.1)
    found = xr.concat(list(batches(around, 16, shuffle=0)), "event")
    assert sorted(found.event.values) == list(range(60))
    xr.testing.assert_identical(found.sortby("event"), around.compute())


def test_sessions_are_the_groups_of_a_cross_validation(windows, paths):
    for path in paths:
        held = windows.session.values == str(path)
        train, test = windows.isel(window=~held), windows.isel(window=held)
        assert set(test.session.values) == {str(path)}
        assert not set(train.session.values) & set(test.session.values)
        assert len(train) + len(test) == len(windows)


@pytest.mark.parametrize("shuffle", [-1, 1.5, True, "a"])
def test_a_seed_is_an_integer(windows, shuffle):
    with pytest.raises(SessionError, match="shuffle, a seed, must be a whole number from 0 on"):
        batches(windows, 16, shuffle=shuffle)


def test_batches_of_what_is_no_windows(windows):
    for wrong in (windows.values, windows.to_dataset(name="emg")):
        with pytest.raises(SessionError, match=r"expected windows as the DataArray .* found"):
            batches(wrong, 16)


def test_no_windows_are_no_batches(windows):
    assert list(batches(windows[:0], 16)) == []
    assert list(batches(windows[:0], 16, shuffle=0)) == []


# --- torch, as far as it is used ------------------------------------------------------------


@pytest.fixture
def torch(monkeypatch):
    """What torch_dataset uses of torch: two base classes, from_numpy and the worker's info."""
    module, utils, data = (types.ModuleType(name) for name in ("torch", "torch.utils", "d"))
    data.Dataset, data.IterableDataset = type("Dataset", (), {}), type("Iterable", (), {})
    data.worker = None
    data.get_worker_info = lambda: data.worker
    module.utils, utils.data, module.from_numpy = utils, data, np.asarray
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setitem(sys.modules, "torch.utils", utils)
    monkeypatch.setitem(sys.modules, "torch.utils.data", data)
    return module


def test_torch_windows_by_position(windows, torch):
    dataset = labtree.torch_dataset(windows)
    assert len(dataset) == len(windows)
    samples, index = dataset[5]
    np.testing.assert_array_equal(samples, windows[5])
    assert index == windows.class_index.values[5]
    for (samples, index), at in zip(dataset.__getitems__([7, 2]), [7, 2], strict=True):
        np.testing.assert_array_equal(samples, windows[at])
        assert index == windows.class_index.values[at]


def test_torch_windows_need_a_class(windows, torch):
    with pytest.raises(SessionError, match=r"class_index, found .*assign_coords\(class_index"):
        labtree.torch_dataset(windows.drop_vars("class_index"))


@pytest.mark.parametrize("workers", [1, 3])
def test_torch_windows_mixed_come_once_among_all_workers(windows, torch, workers, monkeypatch):
    monkeypatch.setattr(window_batches, "_POOL_BYTES", 100_000)
    dataset = labtree.torch_dataset(windows, shuffle=4)
    assert isinstance(dataset, torch.utils.data.IterableDataset)
    found = []
    for worker in range(workers):
        torch.utils.data.worker = (
            None if workers == 1 else types.SimpleNamespace(id=worker, num_workers=workers)
        )
        found += list(dataset)
    assert len(found) == len(windows)

    # All windows are different: each sum of samples is one window's.
    def key(samples):
        return samples.tobytes()

    expected = sorted(key(np.ascontiguousarray(w)) for w in windows.values)
    assert sorted(key(np.ascontiguousarray(samples)) for samples, _ in found) == expected


@pytest.mark.parametrize("shuffle", [None, 4])
def test_a_torch_dataset_goes_to_workers_that_are_spawned(windows, torch, shuffle):
    dataset = labtree.torch_dataset(windows, shuffle=shuffle)
    again = pickle.loads(pickle.dumps(dataset))
    found = [list(each) if shuffle else each.__getitems__([7, 2]) for each in (dataset, again)]
    assert len(found[0]) == (len(windows) if shuffle else 2)
    for (samples, index), (same, same_index) in zip(*found, strict=True):
        np.testing.assert_array_equal(samples, same)
        assert index == same_index


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_s_own_loader_gets_every_window_once(windows, workers, monkeypatch):
    data = pytest.importorskip("torch.utils.data")
    monkeypatch.setattr(window_batches, "_POOL_BYTES", 100_000)
    mixed = labtree.torch_dataset(windows, shuffle=4)
    loader = data.DataLoader(
        mixed,
        batch_size=16,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    found = [
        (samples.numpy().tobytes(), int(index))
        for batch, indices in loader
        for samples, index in zip(batch, indices, strict=True)
    ]
    every = zip(windows.values, windows.class_index.values.tolist(), strict=True)
    assert sorted(found) == sorted((np.ascontiguousarray(w).tobytes(), i) for w, i in every)
    drawn = next(iter(data.DataLoader(labtree.torch_dataset(windows), 8, shuffle=True)))
    assert drawn[0].shape == (8, *windows.shape[1:])
    assert drawn[1].shape == (8,)
