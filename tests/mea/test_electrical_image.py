import h5py
import numpy as np
import pytest
from scipy import signal

import labtree
from labtree import ConfigurationError, FormatError
from labtree.mea.electrical_image import Segment, electrical_images, high_pass

from .test_recording import copy_of


def counts_of(recording):
    with h5py.File(recording.cmcr_path) as file:
        return file["Acquisition/Sensor Data/SensorData 1 1"][()]


def whole(counts):
    """The recording as one segment."""
    return [Segment(0, len(counts), lambda a, b: counts[a:b])]


def brute_force(filtered, spikes, pre, post, until, limit):
    """Window after window over the recording filtered in one piece."""
    chosen = [s for s in spikes if s < until][:limit]
    whole = [s for s in chosen if s - pre >= 0 and s + post <= len(filtered)]
    windows = [filtered[s - pre : s + post] for s in whole]
    mean = (
        np.mean(windows, axis=0)
        if windows
        else np.full((pre + post, *filtered.shape[1:]), np.nan)
    )
    return mean, len(whole), len(chosen) - len(whole)


def run(recording, tmp_path, **kwargs):
    session = labtree.create_session("r", output_dir=tmp_path)
    labtree.mea.load_recording_with_eimage_sta(
        recording.cmcr_path, recording.cmtr_path, session=session, **kwargs
    )
    return session


@pytest.mark.parametrize("chunk_s", [5.0, 0.3, 0.0501])
def test_against_one_zero_phase_filter_over_all(recording, tmp_path, chunk_s):
    session = run(recording, tmp_path, chunk_duration_s=chunk_s)
    made = session["features/eimage_sta"].to_dataset()
    counts = counts_of(recording).astype(np.float64)
    sos = signal.butter(2, 100 / 10_000, "high", output="sos")
    filtered = signal.sosfiltfilt(sos, counts, axis=0)
    for unit, spikes in recording.spikes.items():
        image, used, excluded = brute_force(filtered, spikes, 10, 40, 120 * 20_000, 10_000)
        row = made.sel(unit=unit)
        # the demand is 1e-3 of the signal's spread
        np.testing.assert_allclose(row["eimage_sta"], image, atol=1e-5 * filtered.std())
        assert int(row["n_spikes"]) == used
        assert int(row["n_spikes_excluded"]) == excluded
    assert made["eimage_sta"].dtype == np.float32


@pytest.mark.parametrize(("cutoff", "order"), [(300.0, 1), (20.0, 2), (100.0, 4)])
def test_other_filters_do_not_depend_on_the_chunks_either(recording, cutoff, order):
    counts = counts_of(recording)
    sos = high_pass(cutoff, order, 20_000.0)
    filtered = signal.sosfiltfilt(sos, counts.astype(np.float64), axis=0)
    spikes = recording.spikes["unit_002"]
    image, used, _ = brute_force(filtered, spikes, 5, 20, len(counts), 10_000)
    for chunk in (700, 20_000):
        found, n_used = electrical_images(
            whole(counts), spikes, np.array([len(spikes)]),
            pre=5, post=20, sos=sos, chunk_frames=chunk,
        )  # fmt: skip
        np.testing.assert_allclose(found[0], image, atol=1e-4 * filtered.std())
        assert n_used[0] == used


def test_without_the_filter_the_mean_is_taken_off(recording, tmp_path):
    made = [
        run(recording, tmp_path, skip_highpass=True, chunk_duration_s=s)["features/eimage_sta"]
        for s in (5.0, 0.07)
    ]
    counts = counts_of(recording).astype(np.float64)
    centerd = counts - counts.mean(axis=0)
    for unit, spikes in recording.spikes.items():
        image, *_ = brute_force(centerd, spikes, 10, 40, 120 * 20_000, 10_000)
        for node in made:
            np.testing.assert_allclose(
                node["eimage_sta"].sel(unit=unit), image, atol=1e-4 * centerd.std()
            )


def test_limits_of_time_and_number(recording, tmp_path):
    session = run(recording, tmp_path, duration_s=0.5, spike_limit=7, window_range=(-3, 12))
    made = session["features/eimage_sta"].to_dataset()
    counts = counts_of(recording).astype(np.float64)
    filtered = signal.sosfiltfilt(high_pass(100.0, 2, 20_000.0), counts, axis=0)
    for unit, spikes in recording.spikes.items():
        image, used, excluded = brute_force(filtered, spikes, 3, 12, 10_000, 7)
        assert used <= 7
        row = made.sel(unit=unit)
        np.testing.assert_allclose(row["eimage_sta"], image, atol=1e-4)
        assert (int(row["n_spikes"]), int(row["n_spikes_excluded"])) == (used, excluded)
    assert made["window_sample"].values.tolist() == list(range(-3, 12))


def test_the_planted_image_is_recovered_in_volts(recording, tmp_path):
    session = run(recording, tmp_path)
    image = labtree.mea.to_physical(session["features/eimage_sta"]["eimage_sta"])
    assert image.attrs["units"] == "V"
    factors = (1000 + np.arange(81)).reshape(9, 9) * 1e-9
    np.testing.assert_allclose(
        image, session["features/eimage_sta"]["eimage_sta"] * factors, rtol=1e-6
    )
    for unit, planted in recording.images.items():
        found = session["features/eimage_sta"]["eimage_sta"].sel(unit=unit)
        assert np.corrcoef(found.values.ravel(), planted.ravel())[0, 1] > 0.85
        lowest = found.isel(window_sample=10)
        place = np.unravel_index(lowest.values.argmin(), lowest.shape)
        assert (int(found["y"][place[0]]), int(found["x"][place[1]])) == recording.positions[
            unit
        ]


def test_everything_that_load_recording_loads_is_there(recording, loaded, tmp_path):
    session = run(recording, tmp_path, load_unit_meta=False)
    for path in ("units", "stimulus/light_reference", "stimulus/frame_times", "metadata"):
        a, b = session[path].to_dataset(), loaded[path].to_dataset()
        a.attrs.pop("dataset_id", None), b.attrs.pop("dataset_id", None)
        assert a.identical(b)
    assert session.session.completed_steps == {
        "load_recording",
        "load_recording_with_eimage_sta",
    }
    more = run(recording, tmp_path)["units"]
    assert dict(more["roi_sta"].sizes) == {"unit": 4, "roi_sta_row": 7, "roi_sta_column": 40}
    with h5py.File(recording.cmtr_path) as file:
        stored = file["Spike Sorter/Unit 1/RoiSTAs"][()]
    np.testing.assert_array_equal(more["roi_sta"].values[0, :4], stored)
    assert np.isnan(more["roi_sta"].values[0, 4:]).all()


def test_some_units(recording, tmp_path):
    session = run(recording, tmp_path, unit_ids=["2", "unit_004", 1])
    made = session["features/eimage_sta"]
    assert made["unit"].values.tolist() == ["unit_002", "unit_004", "unit_001"]
    whole = run(recording, tmp_path)["features/eimage_sta"]
    np.testing.assert_array_equal(
        made["eimage_sta"], whole["eimage_sta"].sel(unit=made["unit"].values)
    )
    with pytest.raises(KeyError, match="no unit '9'; there are: 'unit_001'"):
        run(recording, tmp_path, unit_ids=["9"])


def test_a_unit_without_a_window_is_nan():
    counts = np.random.default_rng(0).integers(-50, 50, (400, 3, 3)).astype(np.int16)
    images, used = electrical_images(
        whole(counts), np.array([5, 200]), np.array([1, 0, 1]),
        pre=10, post=40, sos=high_pass(500.0, 2, 20_000.0), chunk_frames=100,
    )  # fmt: skip
    assert used.tolist() == [0, 0, 1]
    assert np.isnan(images[:2]).all()
    assert np.isfinite(images[2]).all()


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.float32])
def test_counts_of_other_types(dtype):
    counts = np.random.default_rng(0).integers(0, 2000, (3000, 2, 5)).astype(dtype)
    sos = high_pass(200.0, 2, 20_000.0)
    filtered = signal.sosfiltfilt(sos, counts.astype(np.float64), axis=0)
    spikes = np.array([100, 500, 1500, 2900])
    images, _ = electrical_images(
        whole(counts), spikes, np.array([4]), pre=10, post=40, sos=sos,
        chunk_frames=900,
    )  # fmt: skip
    image, *_ = brute_force(filtered, spikes, 10, 40, 3000, 100)
    np.testing.assert_allclose(images[0], image, atol=1e-3)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"window_range": (5, 40)}, "window_range"),
        ({"window_range": (-5, -1)}, "window_range"),
        ({"window_range": (0, 0)}, "window_range"),
        ({"cutoff_hz": 10_000.0}, "cutoff_hz must lie between 0 and 10000"),
        ({"cutoff_hz": 0.0}, "cutoff_hz"),
        ({"filter_order": 0}, "filter_order must be a whole number from 1 to 8, found 0"),
        ({"filter_order": 2.5}, "filter_order"),
        ({"duration_s": 0}, "^duration_s must be a number of seconds above 0"),
        ({"spike_limit": -1}, "spike_limit must be a number above 0"),
        (
            {"chunk_duration_s": float("nan")},
            "chunk_duration_s must be a number of seconds above 0",
        ),
    ],
)
def test_wrong_parameters_are_named_and_nothing_is_loaded(recording, tmp_path, kwargs, match):
    session = labtree.create_session("r", output_dir=tmp_path)
    with pytest.raises(ConfigurationError, match=match):
        labtree.mea.load_recording_with_eimage_sta(
            recording.cmcr_path, recording.cmtr_path, session=session, **kwargs
        )
    assert not session.children
    assert session.session.completed_steps == set()


def test_a_recording_shorter_than_the_filter_needs():
    counts = np.zeros((8, 1, 1), np.int16)
    with pytest.raises(ConfigurationError, match="too short for this filter"):
        electrical_images(
            whole(counts), np.array([4]), np.array([1]), pre=1, post=1,
            sos=high_pass(100.0, 2, 20_000.0), chunk_frames=8,
        )  # fmt: skip


def test_files_without_sensors(recording, tmp_path):
    def no_sensors(file):
        del file["Acquisition/Sensor Data"]

    def no_meta(file):
        del file["Acquisition/Sensor Data/SensorMeta"]

    def wrong_factors(file):
        meta = file["Acquisition/Sensor Data/SensorMeta"][()]
        meta["Conversion Factors"] = b"1.0 2.0"
        del file["Acquisition/Sensor Data/SensorMeta"]
        file["Acquisition/Sensor Data/SensorMeta"] = meta

    for change, match in (
        (no_sensors, "no Acquisition/Sensor Data/SensorData"),
        (no_meta, "no Acquisition/Sensor Data/SensorMeta"),
        (wrong_factors, "2 conversion factors for 9 x 9"),
    ):
        paths = copy_of(recording, tmp_path / match[:5], change)
        with pytest.raises(FormatError, match=match):
            labtree.mea.load_recording_with_eimage_sta(
                session=labtree.create_session("r"), **paths
            )
    with pytest.raises(ConfigurationError, match=r"needs cmcr_path .* and cmtr_path"):
        labtree.mea.load_recording_with_eimage_sta(
            session=labtree.create_session("r"), cmcr_path=recording.cmcr_path
        )
