"""To pynapple and back."""

import sys

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
    text = " ".join(str(warning.message) for warning in caught)
    for what in ("'place'", "'rate'", "'metadata'", "'raw_data'"):
        assert what in text
    with pytest.warns(LossWarning, match=r'unit of the rates: from_pynapple\(obj, unit="Hz"\)'):
        labtree.to_pynapple(spikes.synthetic_rate_data(2))


def test_what_cannot_be_converted_is_said(nap):
    with pytest.raises(
        ValueError, match="takes spike_data or rate_data, found 'pairwise_matrix'"
    ):
        labtree.to_pynapple(spikes.synthetic_pairwise_matrix(2))
    with pytest.raises(ValueError, match="no recording of no duration"):
        labtree.to_pynapple(labtree.spike_data([[]]))
    with pytest.raises(ValueError, match="takes a TsGroup, Tsd or TsdFrame, found int"):
        labtree.from_pynapple(3)
