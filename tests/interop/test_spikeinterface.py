"""Sortings of SpikeInterface, its own and objects that only look alike."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import labtree


@pytest.fixture(scope="module")
def si():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("spikeinterface.core", reason="makes its own sortings")


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_sorting_of_one_segment(si, seed):
    sorting = si.generate_sorting(num_units=4, durations=[3.0], seed=seed)
    sorting.set_property("quality", ["good", "mua", "good", "noise"])
    sorting.set_property("template", np.arange(24.0).reshape(4, 3, 2))
    sorting.annotate(sorter="a", version=2)
    ds = labtree.from_spikeinterface(sorting)
    assert ds.unit_id.values.tolist() == list(sorting.unit_ids)
    for unit, train in zip(sorting.unit_ids, labtree.spikes.spike_trains(ds), strict=True):
        frames = sorting.get_unit_spike_train(unit, segment_index=0)
        assert train == pytest.approx(frames / 30, rel=1e-15)
    assert ds.quality.values.tolist() == ["good", "mua", "good", "noise"]
    assert np.array_equal(ds.template.values, sorting.get_property("template"))
    assert ds.attrs["metadata"] == {"sorter": "a", "version": 2}
    assert ds.attrs["sample_rate_hz"] == 30_000
    tree = labtree.create_workspace()
    tree.ws.store("a", "b", ds)
    assert tree.ws["a", "b"].identical(ds)


def test_segments_are_slices(si):
    sorting = si.generate_sorting(num_units=3, durations=[3.0, 2.0, 1.0], seed=0)
    sorting.set_property("depth", np.array([1.0, 2.0, 3.0]))
    stack = labtree.from_spikeinterface(sorting)
    assert stack.attrs["labtree_kind"] == "spike_slice_stack"
    assert stack.depth.values.tolist() == [1, 2, 3]
    assert stack.unit_id.values.tolist() == list(sorting.unit_ids)
    for segment, part in enumerate(labtree.spikes.slices_of(stack)):
        for unit, train in zip(
            sorting.unit_ids, labtree.spikes.spike_trains(part), strict=True
        ):
            frames = sorting.get_unit_spike_train(unit, segment_index=segment)
            assert train == pytest.approx(frames / 30, rel=1e-15)


def test_times_and_length_of_the_recording_are_kept(si):
    recording, sorting = si.generate_ground_truth_recording(
        durations=[2.0], num_channels=4, num_units=3, seed=0
    )
    recording.set_times(np.arange(recording.get_num_samples()) / 25_000 + 100)
    sorting.register_recording(recording)
    ds = labtree.from_spikeinterface(sorting)
    assert ds.attrs["start_time"] == 100_000
    assert ds.attrs["length"] == pytest.approx(2000)
    first = sorting.get_unit_spike_train(sorting.unit_ids[0], segment_index=0)
    assert labtree.spikes.spike_trains(ds)[0] == pytest.approx(first / 25 + 100_000, rel=1e-15)


def test_an_analyzer_is_its_sorting(si):
    recording, sorting = si.generate_ground_truth_recording(
        durations=[2.0], num_channels=4, num_units=3, seed=0
    )
    analyzer = si.create_sorting_analyzer(sorting, recording, sparse=False)
    assert labtree.from_spikeinterface(analyzer).sizes["unit"] == 3


def test_silent_units_and_no_units(si):
    nothing = {0: np.array([], int), 1: np.array([30, 60])}
    sorting = si.NumpySorting.from_unit_dict([nothing], sampling_frequency=30_000)
    assert labtree.from_spikeinterface(sorting).row_size.values.tolist() == [0, 2]
    empty = si.NumpySorting.from_unit_dict([{}], sampling_frequency=30_000)
    assert labtree.from_spikeinterface(empty).sizes["unit"] == 0


def test_an_object_that_looks_like_a_sorting_is_enough():
    trains = {"a": [0.5, 0.25], "b": []}
    theirs = SimpleNamespace(
        unit_ids=["a", "b"],
        get_num_segments=lambda: 1,
        get_sampling_frequency=lambda: 1000,
        get_property_keys=lambda: ["unit_id"],
        get_property=lambda key: np.array([4, 5]),
        get_unit_spike_train=lambda unit, segment_index, return_times: trains[unit],
    )
    ds = labtree.from_spikeinterface(theirs)
    assert labtree.spikes.spike_trains(ds)[0].tolist() == [250, 500]
    assert ds.unit_id_.values.tolist() == [4, 5]


def test_what_is_no_sorting_is_said():
    with pytest.raises(ValueError, match=r"takes a sorting of SpikeInterface, .* found int"):
        labtree.from_spikeinterface(3)
