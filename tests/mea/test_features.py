import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree import ConfigurationError
from labtree.mea import feature_registry
from labtree.mea.adapters import ArrayAdapter
from labtree.mea.features import frame_interval_rates
from support.examples import examples


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    labtree.mea.list_features()
    monkeypatch.setattr(feature_registry, "_FEATURES", dict(feature_registry._FEATURES))


@settings(max_examples=examples(80), deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 500), max_size=40), min_size=1, max_size=4),
    st.lists(st.integers(0, 500), min_size=2, max_size=60, unique=True),
)
def test_frif_against_a_loop(trains, frames):
    trains, frames = [sorted(train) for train in trains], np.array(sorted(frames))
    flat = np.array([t for train in trains for t in train], np.int64)
    found = frame_interval_rates(flat, np.array([len(t) for t in trains]), frames, 1000.0)
    assert found.shape == (len(trains), len(frames) - 1)
    for row, train in zip(found, trains, strict=True):
        for i in range(len(frames) - 1):
            count = sum(frames[i] <= t < frames[i + 1] for t in train)
            assert row[i] == pytest.approx(count / ((frames[i + 1] - frames[i]) / 1000.0))


def test_frif_of_a_recording(recording, loaded):
    labtree.mea.extract_features(["frif"], session=loaded)
    made = loaded["features/frif"]["frif"]
    frames = loaded["metadata"]["frame_timestamps"].values
    assert made.dtype == np.float32
    assert made.attrs["units"] == "Hz"
    np.testing.assert_array_equal(made["frame_interval"], frames[:-1] / 20_000)
    for unit, spikes in recording.spikes.items():
        counts = np.histogram(spikes, frames)[0].astype(float)
        counts[-1] -= (spikes == frames[-1]).sum()  # histogram closes its last bin
        expected = counts / (np.diff(frames) / 20_000)
        np.testing.assert_allclose(made.sel(unit=unit), expected, rtol=1e-6)
    inside = (made * np.diff(frames) / 20_000).sum("frame_interval")
    assert inside.values == pytest.approx(
        [((s >= frames[0]) & (s < frames[-1])).sum() for s in recording.spikes.values()]
    )


def test_frif_without_frames_says_so():
    session = labtree.create_session("r")
    session.session.add_units({"a": {"spike_times": np.array([1])}})
    session.session.mark_step_complete("load_recording")
    with pytest.raises(ConfigurationError, match="no frame_timestamps"):
        labtree.mea.extract_features("frif", session=session)
    session.session.add_metadata({"frame_timestamps": np.array([3]), "acquisition_rate": 100.0})
    with pytest.raises(ConfigurationError, match="at least two frames"):
        labtree.mea.extract_features("frif", session=session)


def test_a_feature_is_a_function_over_whole_arrays(loaded):
    @labtree.mea.register_feature("depth", version="1.0.0", requires=["load_recording"])
    def mean_amplitude(session, scale=1.0):
        units = session["units"].to_dataset()
        ends = np.cumsum(units["row_size"].values)
        means = [part.mean() for part in np.split(units["amplitude"].values, ends[:-1])]
        return xr.DataArray(
            np.array(means) * scale, dims="unit", coords={"unit": units["unit"].values}
        )

    labtree.mea.extract_features(
        ["depth"], session=loaded, config_overrides={"depth": {"scale": -2.0}}
    )
    first = loaded["units"]["amplitude"].values[: int(loaded["units"]["row_size"][0])]
    assert float(loaded["features/depth"]["depth"][0]) == pytest.approx(-2 * first.mean())
    assert loaded["features/depth"].attrs["extractor_version"] == "1.0.0"


def test_unknown_failing_and_wrong_features_leave_the_session_alone(loaded):
    @labtree.mea.register_feature("broken")
    def broken(session):
        raise RuntimeError("no")

    @labtree.mea.register_feature("wrong")
    def wrong(session):
        return xr.DataArray([1, 2], dims="x")

    @labtree.mea.register_feature("nothing")
    def nothing(session):
        return None

    @labtree.mea.register_feature("late", requires=["compute_sta"])
    def late(session):
        return session["units"]["row_size"]

    before = loaded.copy(deep=True)
    for names, error, match in (
        (["frif", "x"], ConfigurationError, "no feature 'x'; there are: "),
        (["frif", "broken"], RuntimeError, "no"),
        (["frif", "wrong"], labtree.SessionError, "without 'unit'"),
        (["frif", "nothing"], ConfigurationError, "returned NoneType"),
        (["frif", "late"], ConfigurationError, "needs compute_sta first"),
    ):
        with pytest.raises(error, match=match):
            labtree.mea.extract_features(names, session=loaded)
        assert loaded.identical(before)
    with pytest.raises(ConfigurationError, match="config_overrides for x"):
        labtree.mea.extract_features(["frif"], session=loaded, config_overrides={"x": {}})


def test_a_name_is_taken_once():
    with pytest.raises(ConfigurationError, match="'frif' is registered already"):

        @labtree.mea.register_feature("frif")
        def other(session):
            return session


def test_a_new_version_runs_again(loaded):
    ran = []

    def make(version):
        @labtree.mea.register_feature("count", version=version)
        def count(session):
            ran.append(version)
            return session["units"]["row_size"]

    for version in ("1", "1", "2"):
        make(version)
        labtree.mea.extract_features(["count"], session=loaded)
    assert ran == ["1", "2"]


# --- extractors written for HDF5


class Burst:
    """As such extractors are written: h5py idioms, one unit at a time."""

    name = "burst"
    version = "1.2.0"

    def extract(self, unit_data, stimulus_data, config=None, metadata=None):
        spikes = unit_data["spike_times"][:]
        assert unit_data["spike_times"].shape == (len(unit_data["spike_times"]),)
        rate = float(metadata["acquisition_rate"])
        interval = np.diff(spikes) / rate
        light = stimulus_data["light_reference"]["10hz_ch1"]
        trial = unit_data["spike_times_sectioned/step_small/trials_spike_times/0"][()]
        return {
            "fraction": float(np.mean(interval < config["max_s"])),
            "intervals": interval[:5],
            "n_trial": len(trial),
            "light": np.asarray(light)[:3],
            "row": int(unit_data.attrs["row"]) if "row" in unit_data else -1,
            "movie": "step_small",
            "missing": "nothing/here" in unit_data,
        }


def test_extractors_for_hdf5_run_unmodified(recording, sectioned):
    labtree.mea.register_extractor(Burst, config={"max_s": 0.01})
    labtree.mea.extract_features(["burst"], session=sectioned)
    made = sectioned["features/burst"]
    light = sectioned["stimulus/light_reference"]["10hz_ch1"].values
    for unit, spikes in recording.spikes.items():
        row = made.sel(unit=unit)
        interval = np.diff(spikes) / 20_000
        assert float(row["fraction"]) == np.mean(interval < 0.01)
        np.testing.assert_array_equal(row["intervals"], interval[:5])
        trial = sectioned.session.trials_spike_times(unit, "step_small")[0]
        assert int(row["n_trial"]) == len(trial)
        assert int(row["row"]) == recording.positions[unit][0]
        np.testing.assert_array_equal(row["light"], light[:3])
        assert str(row["movie"].values) == "step_small"
        assert not bool(row["missing"])
    assert made.attrs["extractor_version"] == "1.2.0"


def test_dict_adapter_reads_like_a_group():
    group = labtree.mea.DictAdapter(
        {"a": np.arange(6).reshape(2, 3), "g": {"b": np.float64(2), 3: "x"}, "s": "text"}
    )
    assert list(group) == ["a", "g", "s"]
    assert len(group) == 3
    assert group["g/3"] == "x"
    assert group.get("nope", 7) == 7
    assert "g/b" in group
    assert "a/b" not in group
    assert "nope" not in group
    assert dict(group.items())["s"] == "text"
    assert group.attrs == {"s": "text"}
    with pytest.raises(KeyError, match="no entry 'nope'; there are: 'a', 'g', 's'"):
        group["nope"]
    array = group["a"]
    assert (array.shape, array.ndim, array.size, len(array)) == ((2, 3), 2, 6, 2)
    assert array.dtype == np.arange(1).dtype
    assert array[1, 2] == 5
    assert np.asarray(array, dtype=np.float32).dtype == np.float32
    assert [row.tolist() for row in array] == [[0, 1, 2], [3, 4, 5]]
    assert float(ArrayAdapter(3)) == 3.0
    assert int(ArrayAdapter(3)) == 3
    assert ArrayAdapter(3)[()] == 3
    assert array[np.array([1])].tolist() == [[3, 4, 5]]
    assert array[np.array([True, False])].tolist() == array[[0]].tolist() == [[0, 1, 2]]
    read = array[:]
    read -= read[0]
    assert array[:].tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(AttributeError):
        _ = array.nonsense
    assert "2, 3" in repr(array)
    assert "a, g, s" in repr(group)
