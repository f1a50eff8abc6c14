"""Windows computed by two other processes are the ones that this process computes."""

import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

import labtree
from labtree.errors import MissingFileError
from labtree.testing.recordings import record_emg


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Two recordings that differ, one of them as an archive."""
    from labtree.recording.archive import pack

    base = tmp_path_factory.mktemp("sessions")
    folder = record_emg(base / "one", seed=1)
    return [folder, pack(record_emg(base / "two", (2, 1), seed=2))]


def test_labeled_windows(sessions, cluster):
    serial = labtree.labeled_windows(sessions, "emg", 200, 50).load()
    assert len(set(serial["session"].values)) == 2
    chunked = labtree.labeled_windows(sessions, "emg", 200, 50, chunks={"window": 16})
    assert not {os.getpid()} & where_it_runs(chunked)
    assert chunked.compute().identical(serial)
    whole = cluster.submit(_values, chunked.isel(window=slice(3, 90, 7))).result()
    np.testing.assert_array_equal(whole, serial.values[3:90:7])
    assert chunked.dtype == np.int16


def where_it_runs(chunked):
    """Return the processes that read the blocks, seen from within their tasks."""
    pids = chunked.data.map_blocks(
        lambda block: np.full((len(block), 1, 1), os.getpid()),
        chunks=(chunked.data.chunks[0], (1,), (1,)),
        dtype=int,
    ).compute()
    return set(pids.ravel().tolist())


def _values(windows):
    return windows.values


def test_a_reduction_of_them(sessions, cluster):
    serial = labtree.labeled_windows(sessions, "emg", 200, 50, dtype="float64")
    chunked = labtree.labeled_windows(
        sessions, "emg", 200, 50, dtype="float64", chunks={"window": 32}
    )
    # int16 squared, added up in float64: exact, in whatever order
    expected = (serial**2).sum(("window", "time")).compute()
    assert (chunked**2).sum(("window", "time")).compute().identical(expected)


def test_aligned_windows_and_windows_around_events(sessions, cluster):
    arguments = (sessions, "emg", "force", 200, 50)
    serial = labtree.aligned_windows(*arguments).load()
    chunked = labtree.aligned_windows(*arguments, chunks={"window": 64})
    assert chunked.compute().identical(serial)
    for path in sessions:
        with labtree.open_session(path) as tree:
            times = tree.session.labels["timestamp"].to_numpy() + 0.5
            around = tree.session.peri_event("emg", times, 0.2, 0.3)
            assert around.sizes["event"] == len(times)
            assert around.chunk({"event": 1}).compute().identical(around.load())


def test_relative_paths_are_found_from_another_folder(sessions, tmp_path, monkeypatch):
    monkeypatch.chdir(sessions[0].parent)
    serial = labtree.labeled_windows(sessions[0], "emg", 200, 50).load()
    relative = [Path(sessions[0].name), Path(os.path.relpath(sessions[1]))]
    both = labtree.labeled_windows(relative, "emg", 200, 50)
    sent = pickle.dumps(both)
    expected = both.values
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(pickle.loads(sent).values, expected)
    np.testing.assert_array_equal(expected[: len(serial)], serial.values)


def test_a_process_that_does_not_see_the_session_says_so(tmp_path):
    path = record_emg(tmp_path / "base")
    windows = labtree.labeled_windows(path, "emg", 200, 50)
    shutil.move(path, tmp_path / "elsewhere")
    for one in (windows, pickle.loads(pickle.dumps(windows))):
        with pytest.raises(MissingFileError, match="moved or deleted, or this process"):
            one.compute()


def test_windows_are_pickled_without_samples(sessions):
    windows = labtree.labeled_windows(sessions, "emg", 200, 50)
    before = len(pickle.dumps(windows))
    windows.isel(window=slice(20)).compute()
    # Chunks that were read are kept; they do not travel.
    assert abs(len(pickle.dumps(windows)) - before) < 100
    assert before < windows.nbytes / 10
    again = pickle.loads(pickle.dumps(windows))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(again.copy().values)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, windows.values)
    assert len(results) == 2
