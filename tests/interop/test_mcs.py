"""CMCR and CMTR files as lazy trees, against h5py."""

import pickle

import h5py
import numpy as np
import pytest

import labtree
from labtree.interop.mcs import open_mcs
from labtree.testing.mea import write_recording


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return write_recording(
        tmp_path_factory.mktemp("mcs"), n_units=3, movie_frames={"noise_a": 60}, repeats=1
    )


def test_channels_and_sensors_are_lazy_and_those_of_the_file(truth):
    tree = open_mcs(truth.cmcr_path)
    with h5py.File(truth.cmcr_path) as file:
        analog = file["Acquisition/Analog Data/ChannelData 1"][()]
        sensors = file["Acquisition/Sensor Data/SensorData 1 1"][()]
    assert tree["analog"].attrs["sampling_rate"] == truth.rate
    for key in (
        (slice(None), slice(None)),
        (0, slice(5, 50, 7)),
        (slice(None), [3, 900, 4]),
        (1, -1),
        (slice(None), slice(20, 10, -3)),
        (slice(None), slice(5, 5)),
    ):
        found = tree["analog/data"][key].values
        assert np.array_equal(found, analog[key])
        assert found.dtype == analog.dtype
    again = pickle.loads(pickle.dumps(tree))
    assert np.array_equal(again["sensors/data"][2:5, 3].values, sensors[2:5, 3])
    assert tree["sensors"].attrs["sampling_rate"] > 0


def test_units_are_the_planted_spikes(truth):
    tree = open_mcs(truth.cmtr_path)
    units = tree["units"]
    assert units["unit"].values.tolist() == list(truth.spikes)
    sizes = units["row_size"].values
    samples = np.rint(units["spike_times"].values * truth.rate / 1e6).astype(int)
    for train, expected in zip(
        np.split(samples, np.cumsum(sizes)[:-1]), truth.spikes.values(), strict=True
    ):
        assert train.tolist() == list(expected)


def test_a_file_with_neither_is_said_to_be_so(tmp_path):
    with h5py.File(tmp_path / "x.cmcr", "w") as file:
        file.attrs["LB.RecordingDuration"] = 5
    with pytest.raises(labtree.FormatError, match="neither 'Acquisition' nor 'Spike Sorter'"):
        open_mcs(tmp_path / "x.cmcr")
