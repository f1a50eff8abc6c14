"""To pynapple and back."""

import sys
import warnings

import numpy as np
import pytest

import labtree
from labtree.errors import LossWarning
from labtree.testing import spikes
from support.exactness import assert_same


def test_without_pynapple_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynapple", None)
    with pytest.raises(ImportError, match=r'pip install "labtree\[pynapple\]"'):
        labtree.to_pynapple(spikes.synthetic_spike_data(2))


@pytest.fixture
def nap():
    return pytest.importorskip("pynapple", reason="converts to pynapple's own objects")


ATTRIBUTES = [
    {"channel": 1, "name": "a", "depth": 1.5},
    {"channel": 2, "name": "b"},
    {"channel": 3},
]


def test_spike_trains_round_trip(nap):
    ds = labtree.spike_data(
        [[0.001, 2.5, 100], [7.25], []], start_time=-5, length=120, neuron_attributes=ATTRIBUTES
    )
    theirs = labtree.to_pynapple(ds)
    assert isinstance(theirs, nap.TsGroup)
    assert theirs[0].t == pytest.approx([1e-6, 0.0025, 0.1], abs=1e-12)
    assert theirs.time_support.values.tolist() == [[-0.005, 0.115]]
    assert_same(labtree.from_pynapple(theirs), ds)


def test_rates_round_trip(nap):
    ds = labtree.rate_data(
        [[1.0, 2.0, 4.0], [5.0, 6.0, 7.0]], [0.0, 2.5, 5.0], unit=None,
        neuron_attributes=ATTRIBUTES[:2],
    )  # fmt: skip
    theirs = labtree.to_pynapple(ds)
    assert isinstance(theirs, nap.TsdFrame)
    assert_same(labtree.from_pynapple(theirs), ds)


def test_one_rate_is_a_tsd(nap):
    theirs = nap.Tsd(t=np.array([0.0, 1.0]), d=np.array([3.0, 4.0]))
    ds = labtree.from_pynapple(theirs, unit="Hz")
    assert_same(ds, labtree.rate_data([[3.0, 4.0]], [0.0, 1000.0]))


def test_gaps_in_the_support_are_kept(nap):
    support = nap.IntervalSet([0, 5], [2, 9])
    theirs = nap.TsGroup({0: nap.Ts(np.array([1.0, 6.0]))}, time_support=support)
    ds = labtree.from_pynapple(theirs)
    assert ds.attrs["length"] == 9000
    assert ds.attrs["metadata"]["time_support"].tolist() == [[0, 2000], [5000, 9000]]


def test_keys_of_a_group_are_ids_of_units(nap):
    group = nap.TsGroup(
        {3: nap.Ts(np.array([0.5, 1.0])), 7: nap.Ts(np.array([2.0, 3.0]))},
        time_support=nap.IntervalSet(0, 10),
    )
    ds = labtree.from_pynapple(group)
    assert ds.unit_id.values.tolist() == [3, 7]
    back = labtree.to_pynapple(ds)
    assert list(back.keys()) == [3, 7]
    assert back[7].t.tolist() == [2, 3]
    assert "unit_id" not in back.metadata.columns


def test_ids_that_are_text_stay_metadata(nap):
    ds = labtree.spikes.from_times([1.0, 2.0], ["b", "a"], length_ms=5)
    back = labtree.to_pynapple(ds)
    assert back.metadata["unit_id"].tolist() == ["a", "b"]
    assert labtree.from_pynapple(back).identical(ds)


def test_columns_and_epochs_of_a_frame_come_back(nap):
    frame = nap.TsdFrame(
        np.arange(6.0), np.arange(12.0).reshape(6, 2), columns=["ch7", "ch2"],
        time_support=nap.IntervalSet([0, 4], [2, 5]),
    )  # fmt: skip
    tree = labtree.create_workspace()
    tree.ws.store("a", "b", labtree.from_pynapple(frame))
    back = labtree.to_pynapple(tree.ws["a", "b"])
    assert list(back.columns) == ["ch7", "ch2"]
    assert back.time_support.values.tolist() == [[0, 2], [4, 5]]
    assert np.array_equal(back.d, frame.d)
    assert back.t.tolist() == frame.t.tolist()


def test_epochs_of_a_group_come_back(nap):
    support = nap.IntervalSet([0, 5], [2, 8])
    group = nap.TsGroup({0: nap.Ts(np.array([0.5, 1.0, 6.0]))}, time_support=support)
    back = labtree.to_pynapple(labtree.from_pynapple(group))
    assert back.time_support.values.tolist() == [[0, 2], [5, 8]]
    assert back[0].t.tolist() == [0.5, 1, 6]


def test_metadata_that_are_arrays_come_back(nap):
    group = nap.TsGroup(
        {0: nap.Ts(np.array([0.5, 0.7])), 1: nap.Ts(np.array([0.6, 0.8]))},
        time_support=nap.IntervalSet(0, 1),
    )
    group.set_info(waveform=[np.arange(3.0), np.ones(3)], depth=[1.5, 2.5])
    ds = labtree.from_pynapple(group)
    assert ds.waveform.values.tolist() == [[0, 1, 2], [1, 1, 1]]
    back = labtree.to_pynapple(ds)
    assert [each.tolist() for each in back.metadata["waveform"]] == [[0, 1, 2], [1, 1, 1]]
    assert back.metadata["depth"].tolist() == [1.5, 2.5]


def test_values_of_marked_events_come_back(nap):
    group = nap.TsGroup({0: nap.Tsd(np.array([0.5, 1.0]), np.array([7.0, 8.0]))})
    ds = labtree.from_pynapple(group)
    assert ds.value.values.tolist() == [7, 8]
    assert labtree.to_pynapple(ds)[0].d.tolist() == [7, 8]


def test_one_train_is_one_unit(nap):
    ds = labtree.from_pynapple(nap.Ts(np.array([0.5, 1.0])))
    assert labtree.spikes.spike_trains(ds)[0].tolist() == [500, 1000]


def test_epochs_are_a_table(nap):
    epochs = nap.IntervalSet([0, 5], [2, 8])
    epochs.set_info(label=["a", "b"])
    frame = labtree.from_pynapple(epochs)
    assert frame.start_time.tolist() == [0, 5]
    assert frame.stop_time.tolist() == [2, 8]
    assert frame.label.tolist() == ["a", "b"]
    back = labtree.to_pynapple(frame)
    assert back.values.tolist() == epochs.values.tolist()
    assert list(back.metadata["label"]) == ["a", "b"]


def test_epochs_that_overlap_are_said(nap):
    import pandas as pd

    frame = pd.DataFrame({"start_time": [0.0, 1.0], "stop_time": [2.0, 3.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("always", LossWarning)
        with pytest.warns(LossWarning, match="epochs that overlap"):
            labtree.to_pynapple(frame)
    with pytest.raises(ValueError, match="needs the columns start_time and stop_time"):
        labtree.to_pynapple(frame[["start_time"]])


def test_what_has_no_place_is_said(nap):
    ds = labtree.spike_data(
        [[1.0]],
        length=5,
        neuron_attributes=[{"place": np.ones(2), "rate": 3}],
        metadata={"a": 1},
        raw_data=[[1.0]],
        raw_time=[0.0],
    )
    with pytest.warns(LossWarning) as caught:
        labtree.to_pynapple(ds)
    (warning,) = caught
    text = str(warning.message)
    for what in ("'rate'", "'metadata'", "'raw_data'"):
        assert what in text
    with pytest.warns(LossWarning, match=r'unit of the rates: from_pynapple\(obj, unit="Hz"\)'):
        labtree.to_pynapple(spikes.synthetic_rate_data(2))


def test_what_cannot_be_converted_is_said(nap):
    with pytest.raises(
        ValueError,
        match="takes spike_data, rate_data or a table of epochs, found 'pairwise_matrix'",
    ):
        labtree.to_pynapple(spikes.synthetic_pairwise_matrix(2))
    with pytest.raises(ValueError, match="or a table of epochs, found 'list'"):
        labtree.to_pynapple([1.0])
    with pytest.raises(ValueError, match="no recording of no duration"):
        labtree.to_pynapple(labtree.spike_data([[]]))
    with pytest.raises(ValueError, match=r"takes a TsGroup, Ts, .* or IntervalSet, found int"):
        labtree.from_pynapple(3)


def test_epochs_in_any_order_keep_what_belongs_to_them(nap):
    import pandas as pd

    frame = pd.DataFrame(
        {"start_time": [5.0, 1.0], "stop_time": [6.0, 2.0], "label": ["late", "early"]}
    )
    with pytest.warns(LossWarning, match="the order of the epochs"):
        epochs = labtree.to_pynapple(frame)
    assert epochs.values.tolist() == [[1, 2], [5, 6]]
    assert list(epochs.metadata["label"]) == ["early", "late"]


def test_what_lies_outside_of_the_epochs_is_said(nap):
    support = np.array([[0.0, 1200.0], [1500.0, 3000.0]])
    ds = labtree.spike_data(
        [[1000.0, 4000.0], [5000.0]], length=6000, metadata={"time_support": support}
    )
    with pytest.warns(LossWarning, match="2 spikes outside of metadata"):
        theirs = labtree.to_pynapple(ds)
    assert [len(theirs[key]) for key in (0, 1)] == [1, 0]
    rates = labtree.rate_data([[1.0, 2.0, 3.0]], [0, 5, 10], unit=None)
    rates.attrs["time_support"] = [[0.0, 6.0]]
    with pytest.warns(LossWarning, match="1 samples outside of attrs"):
        assert len(labtree.to_pynapple(rates)) == 2


def test_variables_without_a_place_are_said(nap):
    ds = labtree.spike_data([[1.0], [2.0]], length=5)
    ds["snr"] = ("unit", [1.0, 2.0])
    ds["lfp"] = ("time", [1.0, 2.0])
    with pytest.warns(LossWarning, match=r"'snr': keep the Dataset.*\n'lfp': keep"):
        labtree.to_pynapple(ds)
    rates = labtree.rate_data([[1.0, 2.0]], [0, 5], unit=None)
    rates["sem"] = rates["rate"] * 0
    with pytest.warns(LossWarning, match="'sem': keep the Dataset"):
        labtree.to_pynapple(rates)


def test_what_pynapple_gave_is_a_copy(nap):
    theirs = nap.TsdFrame(t=np.arange(3.0), d=np.zeros((3, 2)))
    ds = labtree.from_pynapple(theirs)
    theirs.values[:] = 9
    assert (ds["rate"] == 0).all()


def test_a_recording_is_as_long_as_before(nap):
    ds = labtree.spike_data([[4000.0]], start_time=3791.796, length=1808872.519)
    stop = round(3791.796 + 1808872.519, 6)
    assert stop - 3791.796 != ds.attrs["length"]  # the difference rounds
    assert labtree.from_pynapple(labtree.to_pynapple(ds)).identical(ds)
    ends = np.random.default_rng(0).uniform(0, 1e7, 50).round(6)
    for start, stop in zip(ends[::2], ends[::2] + ends[1::2], strict=True):
        found = labtree.from_pynapple(
            nap.Ts(
                np.array([stop / 1e3]), time_support=nap.IntervalSet(start / 1e3, stop / 1e3)
            )
        )
        assert found.sizes["spike"] == 1
        assert found.attrs["length"] == pytest.approx(stop - start, abs=1e-6)
