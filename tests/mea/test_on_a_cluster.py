"""Batches and averages computed by two other processes are those of this process."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import labtree
from labtree import ConfigurationError
from labtree.mea import sta_kernel
from labtree.testing.mea import write_recording

from .conftest import section_arguments


@pytest.fixture(scope="module")
def truths(tmp_path_factory):
    base = tmp_path_factory.mktemp("recordings")
    return [
        write_recording(
            base / f"r{seed}",
            name=f"rec{seed}",
            n_units=3,
            movie_frames={"noise_a": 300},
            movie_size=4,
            repeats=1,
            sensor_s=0.05,
            seed=seed,
        )
        for seed in range(3)
    ]


def batch(truths):
    """Return recordings, and the steps to their spike-triggered averages."""
    first = truths[0]
    rows = [
        {"cmcr_path": t.cmcr_path, "cmtr_path": t.cmtr_path, "stimuli_dir": t.stimuli_dir}
        for t in truths
    ]
    steps = [
        labtree.mea.load_recording,
        (labtree.mea.add_section_time, section_arguments(first)),
        (labtree.mea.section_spike_times, {"config_dir": first.stimuli_dir}),
        (labtree.mea.compute_sta, {"cover_range": (-8, 0), "permutations": 5}),
    ]
    return rows, steps


def assert_same_sessions(one, two):
    for a, b in zip(one["path"], two["path"], strict=True):
        left, right = labtree.load_session(a), labtree.load_session(b)
        for path in ("units", "stimulus/light_reference", "features/sta_noise_a"):
            assert left[path].to_dataset().identical(right[path].to_dataset()), path
        assert left.session.completed_steps == right.session.completed_steps


@pytest.fixture(scope="module")
def serial(truths, tmp_path_factory):
    table = labtree.mea.run_batch(*batch(truths), tmp_path_factory.mktemp("serial"))
    assert table["status"].tolist() == ["done"] * 3, table["error"].tolist()
    return table


def test_a_batch(truths, serial, cluster, tmp_path, monkeypatch):
    rows, steps = batch(truths)
    # Relative to a folder that is not the workers'.
    monkeypatch.chdir(truths[0].cmcr_path.parents[1])
    for row in rows:
        for name in ("cmcr_path", "cmtr_path"):
            row[name] = os.path.relpath(row[name])
    output = os.path.relpath(tmp_path / "out")
    # As long as somebody holds a result, dask answers an equal call with it.
    held, submit = [], cluster.submit
    monkeypatch.setattr(
        cluster, "submit", lambda *a, **k: held.append(submit(*a, **k)) or held[-1]
    )
    pool = cluster.get_executor()
    table = labtree.mea.run_batch(rows, steps, output, executor=pool)
    assert table["status"].tolist() == ["done"] * 3, table["error"].tolist()
    assert table["dataset_id"].tolist() == serial["dataset_id"].tolist()
    assert_same_sessions(serial, table)
    assert len(held) == 3
    again = labtree.mea.run_batch(rows, steps, output, executor=pool)
    assert again["status"].tolist() == ["unchanged"] * 3


def test_a_failure_there_is_reported_and_resumed(truths, serial, cluster, tmp_path):
    rows, steps = batch(truths)
    away, home = tmp_path / "away.npy", truths[1].stimuli_dir / "noise_a.npy"
    pool = cluster.get_executor()
    home.rename(away)
    try:
        with pytest.warns(UserWarning, match="1 of 3 recordings failed:\n  rec1: compute_sta"):
            table = labtree.mea.run_batch(rows, steps, tmp_path / "out", executor=pool)
    finally:
        away.rename(home)
    assert "there is no such movie" in table["error"][1]
    table = labtree.mea.run_batch(rows, steps, tmp_path / "out", executor=pool)
    assert table["status"].tolist() == ["unchanged", "done", "unchanged"]
    assert table["ran"].tolist() == ["", "compute_sta", ""]
    assert_same_sessions(serial, table)


def test_any_executor_runs_a_batch(truths, serial, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        table = labtree.mea.run_batch(*batch(truths), tmp_path / "out", executor=pool)
    assert_same_sessions(serial, table)


def test_what_is_no_executor_runs_nothing(truths, tmp_path):
    rows, steps = batch(truths)
    with pytest.raises(ConfigurationError, match=r"client\.get_executor"):
        labtree.mea.run_batch(rows, steps, tmp_path / "out", executor=object())
    with ThreadPoolExecutor(1) as pool, pytest.raises(ConfigurationError, match="not both"):
        labtree.mea.run_batch(rows, steps, tmp_path / "out", executor=pool, workers=2)
    assert not (tmp_path / "out").exists()


def movie_and_counts(dtype):
    random = np.random.default_rng(4)
    movie = (random.random((400, 6, 5)) * 200).astype(dtype)
    counts = random.poisson(0.3, (3, 400))
    counts[1] = 0  # a unit without a spike
    return movie, counts


@pytest.mark.parametrize("chunks", [(400, 6, 5), (90, 6, 5), (400, 2, 3), (130, 4, 2)])
@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_a_movie_of_dask(cluster, dtype, chunks):
    array = pytest.importorskip("dask.array")
    import dask

    movie, counts = movie_and_counts(dtype)
    options = {"permutations": 6, "seed": 2, "subtract_mean": True}
    expected = sta_kernel.spike_triggered_average(movie, counts, (-10, 2), **options)
    with dask.config.set({"array.chunk-size": "8 KiB"}):
        lazy = array.from_array(movie, chunks=chunks)
        found = sta_kernel.spike_triggered_average(lazy, counts, (-10, 2), **options)
    for one, other in zip(found, expected, strict=True):
        assert type(one) is np.ndarray
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if dtype == "u1":  # exact sums
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    plain, _, none = sta_kernel.spike_triggered_average(lazy, counts, (-10, 2))
    assert none is None
    assert np.isnan(plain[1]).all()
    assert np.isfinite(plain[[0, 2]]).all()


def test_the_blocks_of_a_movie_are_averaged_by_the_workers(cluster, monkeypatch):
    array = pytest.importorskip("dask.array")
    movie, counts = movie_and_counts("u1")
    expected, *_ = sta_kernel.spike_triggered_average(movie, counts, (-10, 0))

    def refuse(*_):
        raise AssertionError("computed here")

    monkeypatch.setattr(sta_kernel, "_prepare", refuse)
    with pytest.raises(AssertionError, match="computed here"):
        sta_kernel.spike_triggered_average(movie, counts, (-10, 0))
    found, *_ = sta_kernel.spike_triggered_average(array.from_array(movie), counts, (-10, 0))
    np.testing.assert_array_equal(found, expected)


def test_a_bad_movie_there_is_the_same_error(cluster):
    array = pytest.importorskip("dask.array")
    movie, counts = movie_and_counts("f4")
    movie[7, 4, 1] = np.nan
    with pytest.raises(ConfigurationError, match="frame 7 holds NaN"):
        sta_kernel.spike_triggered_average(array.from_array(movie), counts, (-10, 0))
    with pytest.raises(ValueError, match="counts of 399 frames for a movie of 400"):
        sta_kernel.spike_triggered_average(array.from_array(movie), counts[:, 1:], (-10, 0))
