"""To neo and back."""

import sys
import textwrap
import warnings
from datetime import datetime

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


def test_names_rates_and_arrays_of_a_train_are_kept(neo):
    import quantities as pq

    train = neo.SpikeTrain(
        [2.0, 1.0] * pq.s, t_stop=5 * pq.s, name="SUA 3", description="tetrode 2",
        sampling_rate=30 * pq.kHz, array_annotations={"amplitude": [40.0, 55.0] * pq.uV},
        waveforms=np.arange(12.0).reshape(2, 2, 3) * pq.mV, depth=3 * pq.um,
        file_origin="a.dat",
    )  # fmt: skip
    ds = labtree.from_neo(train)
    assert labtree.spikes.unit_attributes(ds) == [
        {
            "name": "SUA 3",
            "description": "tetrode 2",
            "file_origin": "a.dat",
            "sampling_rate_hz": 30_000.0,
            "depth": 3.0,
        }
    ]
    assert ds.depth.attrs["units"] == "um"
    assert ds.amplitude.values.tolist() == [55, 40]  # in the order of the sorted spikes
    assert ds.amplitude.attrs["units"] == "uV"
    assert ds.waveforms.values.tolist() == train.waveforms.magnitude[::-1].tolist()
    tree = labtree.create_workspace()
    tree.ws.store("a", "b", ds)
    assert tree.ws["a", "b"].identical(ds)
    (back,) = labtree.to_neo(ds).segments[0].spiketrains
    assert (back.name, back.description) == ("SUA 3", "tetrode 2")
    assert back.file_origin == "a.dat"
    assert back.sampling_rate == 30 * pq.kHz
    assert back.annotations["depth"] == 3 * pq.um
    assert back.array_annotations["amplitude"].tolist() == [55, 40]
    assert np.array_equal(back.waveforms, train.waveforms[::-1])


def test_trains_keep_their_own_starts_and_stops(neo):
    trains = [
        neo.SpikeTrain([5.0], units="ms", t_start=1, t_stop=9),
        neo.SpikeTrain([], units="ms", t_start=0, t_stop=7),
    ]
    back = labtree.to_neo(labtree.from_neo(trains)).segments[0].spiketrains
    assert [(t.t_start.item(), t.t_stop.item()) for t in back] == [(1, 9), (0, 7)]


def test_block_segment_events_and_epochs_are_kept(neo):
    import quantities as pq

    when = datetime(2024, 5, 6, 7, 8)
    block = neo.Block(name="mouse 4", description="x", rec_datetime=when, subject="m4")
    segment = neo.Segment(name="baseline", index=2, dose=3)
    block.segments.append(segment)
    segment.spiketrains.append(neo.SpikeTrain([1.0] * pq.s, t_stop=5 * pq.s))
    segment.events.append(neo.Event([1, 2] * pq.s, labels=["a", "b"], name="cues", side="L"))
    segment.epochs.append(
        neo.Epoch([1] * pq.s, durations=[0.5] * pq.s, labels=["rest"], name="states")
    )
    ds = labtree.from_neo(block)
    tree = labtree.create_workspace()
    tree.ws.store("a", "b", ds)
    back = labtree.to_neo(tree.ws["a", "b"])
    assert (back.name, back.description, back.rec_datetime) == ("mouse 4", "x", when)
    assert back.annotations == {"subject": "m4"}
    other = back.segments[0]
    assert (other.name, other.index, other.annotations) == ("baseline", 2, {"dose": 3})
    assert other.events[0].times.rescale("s").tolist() == [1, 2]
    assert other.events[0].labels.tolist() == ["a", "b"]
    assert other.events[0].annotations["side"] == "L"
    assert other.epochs[0].durations.rescale("s").tolist() == [0.5]
    assert (other.events[0].name, other.epochs[0].name) == ("cues", "states")


def test_an_annotation_of_a_block_called_metadata_stays(neo):
    block = neo.Block(metadata="by hand")
    block.segments.append(neo.Segment())
    ds = labtree.from_neo(block)
    assert ds.attrs["metadata"] == {"neo_block": {"annotations": {"metadata": "by hand"}}}
    assert labtree.to_neo(ds).annotations == {"metadata": "by hand"}


def test_metadata_of_ones_own_called_block_stay(neo):
    ds = labtree.spike_data([[1.0]], length=5, metadata={"block": 3, "events": [1]})
    assert labtree.from_neo(labtree.to_neo(ds)).identical(ds)


def test_arrays_that_not_all_trains_have_are_said(neo):
    trains = [
        neo.SpikeTrain([1.0], units="ms", t_stop=5, array_annotations={"size": [1.0]}),
        neo.SpikeTrain([2.0], units="ms", t_stop=5),
    ]
    with pytest.warns(LossWarning, match="size of the spikes: not all trains have them"):
        labtree.from_neo(trains)


@pytest.mark.parametrize("rate", [1.0, 5.0, 50.0])
def test_trains_that_elephant_made(neo, rate):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generation = pytest.importorskip(
            "elephant.spike_train_generation", reason="makes trains"
        )
        import quantities as pq

        trains = [
            generation.StationaryPoissonProcess(
                rate=rate * pq.Hz, t_start=1 * pq.s, t_stop=4 * pq.s
            ).generate_spiketrain()
            for _ in range(3)
        ]
        ds = labtree.from_neo(trains)
    for found, train in zip(labtree.spikes.spike_trains(ds), trains, strict=True):
        assert found.tolist() == train.rescale("ms").magnitude.tolist()
    assert (ds.attrs["start_time"], ds.attrs["length"]) == (1000, 3000)


def test_what_is_left_out_is_said(neo):
    segment = neo.Segment()
    segment.analogsignals.append(
        neo.AnalogSignal(np.ones((3, 1)), units="mV", sampling_rate=neo_rate(neo))
    )
    for _ in range(2):
        segment.irregularlysampledsignals.append(
            neo.IrregularlySampledSignal([0.0], [[1.0]], time_units="s", units="mV")
        )
    with pytest.warns(LossWarning) as caught:
        labtree.from_neo(segment)
    (warning,) = caught
    text = str(warning.message)
    assert "left out: the analogsignals of the Segment" in text
    assert "irregularlysampledsignals of the Segment beyond the first" in text


def neo_rate(neo):
    import quantities

    return 1 * quantities.kHz


def test_a_block_of_several_segments_gives_each(neo):
    block = neo.Block(name="day", subject="m01")
    for i in range(3):
        segment = neo.Segment(name=f"sweep {i}")
        segment.spiketrains = [neo.SpikeTrain([i + 0.5], t_start=i, t_stop=i + 1, units="s")]
        block.segments.append(segment)
    tree = labtree.create_workspace("neo")
    with pytest.raises(ValueError, match="the Block has 3 Segments") as told:
        labtree.from_neo(block)
    lines = str(told.value).partition("store all:\n")[2]
    exec(textwrap.dedent(lines), {"labtree": labtree, "tree": tree, "block": block})
    for i in range(3):
        ds = tree.ws["block", f"segment_{i}"]
        assert ds.identical(labtree.from_neo(block, segment=i))
        assert ds["spike_times"].values.tolist() == [i * 1000 + 500]
        assert (ds.attrs["start_time"], ds.attrs["length"]) == (i * 1000, 1000)
        assert ds.attrs["metadata"]["neo_segment"]["name"] == f"sweep {i}"
        assert ds.attrs["metadata"]["neo_block"]["annotations"] == {"subject": "m01"}
    assert labtree.from_neo(block, segment=-1).identical(labtree.from_neo(block, segment=2))
    with pytest.raises(ValueError, match="the Block has the Segments 0 to 2, not 3"):
        labtree.from_neo(block, segment=3)
    with pytest.raises(ValueError, match="segment=1 chooses from a Block, found Segment"):
        labtree.from_neo(block.segments[1], segment=1)


def test_what_cannot_be_converted_is_said(neo):
    with pytest.raises(ValueError, match="the Block has no Segment"):
        labtree.from_neo(neo.Block())
    for odd in (1.0, [1.0]):
        with pytest.raises(ValueError, match=r"takes a SpikeTrain, .* found float"):
            labtree.from_neo(odd)
    quantities = pytest.importorskip("quantities")
    signal = neo.AnalogSignal([1.0] * quantities.V, sampling_rate=1 * quantities.Hz)
    with pytest.raises(ValueError, match=r"takes a SpikeTrain, .* found AnalogSignal"):
        labtree.from_neo(signal)
    with pytest.raises(ValueError, match="of kind spike_data, found 'rate_data'"):
        labtree.to_neo(spikes.synthetic_rate_data(2))
    with pytest.raises(ValueError, match="neo cannot hold the attributes of unit 0"):
        labtree.to_neo(labtree.spike_data([[1.0]], neuron_attributes=[{"x": {1, 2}}]))


def test_what_else_is_left_out_is_said(neo):
    import quantities as pq

    block, segment = neo.Block(), neo.Segment()
    block.segments.append(segment)
    train = neo.SpikeTrain([1.0] * pq.s, t_stop=5 * pq.s)
    segment.spiketrains.append(train)
    block.groups.append(neo.Group([train], name="unit 5"))
    segment.events.append(
        neo.Event([1] * pq.s, labels=["a"], array_annotations={"strength": [2.0]})
    )
    segment.imagesequences.append(
        neo.ImageSequence(
            np.zeros((2, 3, 3)), units="V", sampling_rate=1 * pq.Hz, spatial_scale=1 * pq.um
        )
    )
    with pytest.warns(LossWarning) as caught:
        labtree.from_neo(block)
    text = "\n".join(str(warning.message) for warning in caught)
    for what in (
        "groups of the Block",
        "imagesequences",
        "annotations of the events: strength",
    ):
        assert what in text
    ds = labtree.spike_data([[1.0], [2.0]], length=5)
    ds["snr"] = ("unit", [1.0, 2.0])
    ds["lfp"] = ("time", [1.0, 2.0])
    with pytest.warns(LossWarning, match=r"'snr' of the Dataset\n.*'lfp' of the Dataset"):
        labtree.to_neo(ds)


def test_objects_of_neo_share_nothing_with_the_dataset(neo):
    ds = labtree.spike_data(
        [[1.0, 2.0]], length=5, raw_data=np.zeros((1, 3)), raw_time=np.arange(3.0)
    )
    before = ds.copy(deep=True)
    segment = labtree.to_neo(ds).segments[0]
    segment.spiketrains[0][0] = segment.spiketrains[0][1]
    segment.irregularlysampledsignals[0][:] = 1 * segment.irregularlysampledsignals[0].units
    assert ds.identical(before)
    back = labtree.from_neo(segment)
    segment.irregularlysampledsignals[0][:] = 2 * segment.irregularlysampledsignals[0].units
    assert (back["raw_data"] == 1).all()


@pytest.mark.parametrize(("unit", "kept"), [("uV", "uV"), ("counts of an amplifier", None)])
def test_the_unit_of_raw_data_comes_back_where_neo_knows_it(neo, unit, kept):
    ds = labtree.spike_data(
        [[1.0]], length=5, raw_data=np.zeros((1, 3)), raw_time=np.arange(3.0)
    )
    ds["raw_data"].attrs["units"] = unit
    assert labtree.from_neo(labtree.to_neo(ds))["raw_data"].attrs.get("units") == kept


def test_long_quantities_are_kept_whole_and_units_that_differ_are_said(neo):
    import quantities as pq

    block, segment = neo.Block(dose=np.arange(2000.0) * pq.ms), neo.Segment()
    block.segments.append(segment)
    segment.spiketrains.append(neo.SpikeTrain([1.0] * pq.s, t_stop=5 * pq.s))
    text = labtree.from_neo(block).attrs["metadata"]["neo_block"]["annotations"]["dose"]
    assert len(text.split()) >= 2000
    assert "..." not in text
    trains = [
        neo.SpikeTrain([1.0] * pq.s, t_stop=5 * pq.s, depth=depth)
        for depth in (1 * pq.um, 2 * pq.mV)
    ]
    with pytest.raises(ValueError, match="annotation 'depth' is in um in one train and in mV"):
        labtree.from_neo(trains)


@pytest.mark.parametrize("unit", ["counts of an amplifier", "None"])
def test_units_that_neo_lacks_are_said(neo, unit):
    ds = labtree.spike_data([[1.0]], length=5, neuron_attributes={"gain": np.array([2.0])})
    ds["gain"].attrs["units"] = unit
    with pytest.raises(ValueError, match="neo has no values in"):
        labtree.to_neo(ds)
    del ds["gain"].attrs["units"]
    assert labtree.from_neo(labtree.to_neo(ds)).identical(ds)
