"""To neo and back."""

import sys

import numpy as np
import pytest

import labtree
from labtree.errors import LossWarning
from labtree.testing import spikes
from support.exactness import assert_same


def test_without_neo_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "neo", None)
    with pytest.raises(ImportError, match=r'pip install "labtree\[neo\]"'):
        labtree.to_neo(spikes.synthetic_spike_data(2))


@pytest.fixture
def neo():
    return pytest.importorskip("neo", reason="converts to neo's own objects")


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8"])
def test_a_block_round_trips(neo, dtype):
    ds = labtree.spike_data(
        [np.array([1, 3], dtype), np.array([], dtype)],
        start_time=-5,
        length=20,
        neuron_attributes=[{"a": 1, "place": np.arange(2.0)}, {"b": "x", "none": None}],
        metadata={"nested": {"a": [1, (2, 3)]}},
        raw_data=np.arange(6.0).reshape(2, 3),
        raw_time=[0.0, 1.0, 3.0],
    )
    block = labtree.to_neo(ds)
    assert isinstance(block, neo.Block)
    assert [str(train.dimensionality) for train in block.segments[0].spiketrains] == ["ms"] * 2
    back = labtree.from_neo(block)
    assert_same(labtree.spikes.unit_attributes(back), labtree.spikes.unit_attributes(ds))
    assert back.identical(ds)
    assert back.spike_times.dtype == np.dtype(dtype)


def test_a_default_length_that_rounds(neo):
    random = np.random.default_rng(0)
    for start, spike in np.sort(random.random((200, 2)), axis=1):
        ds = labtree.spike_data([[spike]], start_time=start)
        assert labtree.spikes.spike_trains(labtree.from_neo(labtree.to_neo(ds)))[
            0
        ].tolist() == [spike]


def test_spike_trains_in_other_units(neo):
    train = neo.SpikeTrain([1.0, 2.0], units="s", t_start=0.5, t_stop=3.0, channel=7)
    for obj in (train, [train]):
        ds = labtree.from_neo(obj)
        assert labtree.spikes.spike_trains(ds)[0].tolist() == [1000, 2000]
        assert (ds.attrs["start_time"], ds.attrs["length"]) == (500, 2500)
        assert labtree.spikes.unit_attributes(ds) == [{"channel": 7}]


def test_trains_that_start_and_stop_differently(neo):
    trains = [
        neo.SpikeTrain([5.0], units="ms", t_start=1, t_stop=9),
        neo.SpikeTrain([], units="ms", t_start=0, t_stop=7),
    ]
    ds = labtree.from_neo(trains)
    assert (ds.attrs["start_time"], ds.attrs["length"]) == (0, 9)
    assert labtree.from_neo([]).sizes["unit"] == 0


def test_what_does_not_come_along_is_said(neo):
    segment = neo.Segment()
    segment.analogsignals.append(
        neo.AnalogSignal(np.ones((3, 1)), units="mV", sampling_rate=neo_rate(neo))
    )
    segment.spiketrains.append(
        neo.SpikeTrain([1.0], units="ms", t_stop=5, waveforms=np.ones((1, 1, 4)))
    )
    with pytest.warns(LossWarning) as caught:
        labtree.from_neo(segment)
    text = " ".join(str(warning.message) for warning in caught)
    assert "analogsignals of the Segment" in text
    assert "waveforms" in text


def neo_rate(neo):
    import quantities

    return 1 * quantities.kHz


def test_what_cannot_be_converted_is_said(neo):
    block = neo.Block()
    with pytest.raises(ValueError, match=r"0 segments: .* from_neo\(block.segments\[0\]\)"):
        labtree.from_neo(block)
    with pytest.raises(ValueError, match=r"takes a SpikeTrain, .* found float"):
        labtree.from_neo([1.0])
    with pytest.raises(ValueError, match="to_neo takes spike_data, found 'rate_data'"):
        labtree.to_neo(spikes.synthetic_rate_data(2))
    with pytest.raises(ValueError, match="neo cannot hold the attributes of unit 0"):
        labtree.to_neo(labtree.spike_data([[1.0]], neuron_attributes=[{"x": {1, 2}}]))
