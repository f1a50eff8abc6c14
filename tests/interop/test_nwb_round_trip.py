"""What export_nwb writes, back through import_nwb."""

import tracemalloc
import warnings
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import labtree
from labtree.errors import LossWarning
from labtree.interop.nwb.exact_columns import for_nwb, restored
from labtree.testing import msw, recordings
from support.exactness import assert_same
from support.examples import examples

pytest.importorskip("pynwb", reason="writes and reads NWB files")
from support import nwb_files as files

START = datetime(2024, 5, 6, tzinfo=UTC)


def workspace(**items):
    tree = labtree.create_workspace("mine")
    for key, obj in items.items():
        tree.ws.store("rec/1", key, obj, note=f"note of {key}")
    return tree


def there_and_back(tree, folder, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("error", LossWarning)
        path = labtree.export_nwb(tree, folder / "a.nwb", **more)
        return labtree.import_nwb(path)


SPIKES = labtree.spike_data(
    [[0.5, 4.0, 30.0], [1.25], []],
    length=50,
    neuron_attributes=[
        {"channel": 1, "good": True, "name": "a", "place": np.arange(2.0), "list": [1, 2]},
        {"channel": 2, "good": False, "name": "b", "place": np.ones(2), "depth": 1.5},
        {"channel": 3, "place": np.ones(2), "rate/s": 4, "odd": {"a": [1, None]}, "list": []},
    ],
    metadata={"rig": {"name": "left", "gain": 2}, "steps": [1, {"a": None}]},
)
FRAME = pd.DataFrame(
    {
        "whole": [1, 2, 3],
        "some": pd.array([1, None, 3], "Int64"),
        "truth": pd.array([True, None, False], "boolean"),
        "text": ["a", None, ""],
        "side": pd.Categorical(["L", "R", None], categories=["L", "R", "none"]),
        "day": np.array(["2024-01-01", "NaT", "2024-01-03T04:05:06.7"], "M8[ns]"),
        "zoned": pd.to_datetime(["2024-01-01", None, "2024-01-03"]).tz_localize("UTC"),
        "took": pd.to_timedelta([1, None, 3], "s"),
        "lists": [[1, 2], [], [3]],
        "words": [["a"], ["b", "c"], []],
        "a/b: c": [0.5, np.nan, 1.5],
        "small": np.array([1, 2, 3], "i2"),
    }
)
ITEMS = {
    "spikes": SPIKES,
    "rates": labtree.rate_data(
        [[1.0, 2.0], [3.0, 4.0]], [0.0, 10.0], neuron_attributes=[{"a": 1}, {}]
    ),
    "matrix": labtree.pairwise_matrix(np.eye(3), labels=["a", "b", "c"], metadata={"a": 1}),
    "numbered": labtree.pairwise_matrix(np.eye(2, dtype="f4"), labels=[10, 20]),
    "plain": labtree.pairwise_matrix(np.arange(4).reshape(2, 2)),
    "complex": labtree.pairwise_matrix(np.array([[1j, 2], [3, 4]])),
    "stack": labtree.pairwise_stack(np.zeros((2, 2, 3)), times=[(0, 1), (1, 2), (2, 3)]),
    "table": FRAME,
    "named": FRAME.set_index(pd.Index([4, 7, 9], name="trial")),
    "by text": FRAME[["whole"]].set_index(pd.Index(["x", "y", "z"], name="who")),
    "intervals": pd.DataFrame({"start_time": [0.5, 1], "stop_time": [1.0, 2], "on": [1, 0]}),
    "trials": pd.DataFrame({"side": ["L"], "start_time": [0.5], "stop_time": [1.0]}),
    "pulses": pd.DataFrame({"timestamp": [0.5, 1.5], "line": ["a", "b"]}),
    "array": np.arange(6, dtype="f4").reshape(2, 3),
    "one value": np.array([5], dtype=">i2"),
    "one text": np.array([["é"]]),
    "texts": np.array(["a", "", "long text"]),
    "no texts": np.array([], "U3"),
    "pivoted": pd.DataFrame(
        [[1.5, 2.5]],
        index=pd.Index([3], name=("trial", 1)),
        columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["side", None]),
    ),
    "empty table": pd.DataFrame({"a": np.array([], float)}),
}


# NWB's inspector refuses tables without rows and dicts in tables, which labtree keeps.
INSPECTED = {key: obj for key, obj in ITEMS.items() if key != "empty table"}
INSPECTED["spikes"] = SPIKES.drop_vars(["odd", "odd_missing"])


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory):
    tree = workspace(**ITEMS)
    back = there_and_back(tree, tmp_path_factory.mktemp("trip"), session_start_time=START)
    yield tree, back
    back.close()


@pytest.mark.parametrize("key", ITEMS)
def test_items_come_back_equal(round_trip, key):
    tree, back = round_trip
    assert_same(back.ws["rec/1", key], tree.ws["rec/1", key])
    info, expected = back.ws.get_info("rec/1", key), tree.ws.get_info("rec/1", key)
    assert info["note"] == f"note of {key}"
    assert info["created_at"] == expected["created_at"]


def test_nothing_else_comes_back(round_trip):
    _, back = round_trip
    assert {ns: sorted(keys) for ns, keys in back.ws.list_keys().items()} == {
        "rec/1": sorted(ITEMS)
    }


def test_times_before_zero_come_back(tmp_path):
    spikes = labtree.spike_data([[-4.0, 0.5], [30.125]], start_time=-5, length=50)
    table = pd.DataFrame({"start_time": [0.5], "stop_time": [1.0]})
    back = there_and_back(workspace(spikes=spikes, table=table), tmp_path)
    found = back.ws["rec/1", "spikes"]
    assert found.attrs == spikes.attrs
    xr.testing.assert_allclose(found, spikes, rtol=1e-15)
    pd.testing.assert_frame_equal(back.ws["rec/1", "table"], table, rtol=1e-15)


@settings(
    max_examples=examples(10), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    st.lists(
        st.lists(st.floats(0, 1e7, allow_subnormal=False), max_size=5), min_size=1, max_size=4
    )
)
def test_spikes_come_back_to_the_last_bits(tmp_path_factory, trains):
    spikes = labtree.spike_data(trains, length=1e7)
    back = there_and_back(workspace(spikes=spikes), tmp_path_factory.mktemp("trip"))
    found = back.ws["rec/1", "spikes"]
    back.close()
    assert found.row_size.values.tolist() == spikes.row_size.values.tolist()
    assert found.spike_times.values == pytest.approx(spikes.spike_times.values, rel=1e-15)


def test_times_from_seconds_come_back_exactly(tmp_path):
    samples = np.sort(np.random.default_rng(0).integers(0, 10**8, 5000))
    spikes = labtree.spike_data([samples / 30_000 * 1000])
    back = there_and_back(workspace(spikes=spikes), tmp_path)
    assert np.array_equal(np.round(back.ws["rec/1", "spikes"].spike_times.values * 30), samples)
    back.close()


def test_a_trial_table_has_its_states_and_events_beside_it(tmp_path):
    folder = msw.write_session(tmp_path / "data")
    frame = labtree.msw.load_session(folder).df
    back = there_and_back(workspace(day=frame), tmp_path)
    assert back.ws.list_keys("rec/1") == ["day", "day_states", "day_events"]
    found = back.ws["rec/1", "day"]
    pd.testing.assert_frame_equal(found, pd.DataFrame(frame), check_flags=False)
    states, events = frame.msw.states(clock="session"), frame.msw.events(clock="session")
    kept = back.ws["rec/1", "day_states"]
    assert kept.start_time.tolist() == states.start.tolist()
    assert kept.state.tolist() == states.state.tolist()
    assert kept.trial.tolist() == states.trial.tolist()
    kept = back.ws["rec/1", "day_events"]
    assert kept.timestamp.tolist() == events.time.tolist()
    assert kept.event.tolist() == events.event.tolist()
    with files.pynwb.NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
        file = io.read()
        assert len(file.trials) == len(frame)
        assert file.trials["start_time"][:].tolist() == frame["Trial start timestamp"].tolist()
        assert len(file.intervals["day_states"]) == len(states)
        assert len(file.events["day_events"]) == len(events)
    back.close()


def test_a_behavior_session_is_exported_as_it_was_opened(tmp_path):
    folder = msw.write_session(tmp_path / "data")
    tree = labtree.open(folder)
    frame = labtree.msw.load_session(folder).df
    path = labtree.export_nwb(tree, tmp_path / "a.nwb")
    with files.pynwb.NWBHDF5IO(path, "r") as io:
        file = io.read()
        assert file.subject.subject_id == "m01"
        assert (
            file.session_start_time.replace(tzinfo=None)
            .isoformat()
            .startswith("2026-05-14T14:30:22.123")
        )
        assert len(file.trials) == len(frame)


@pytest.fixture
def recording(tmp_path):
    folder = recordings.record_emg(tmp_path / "sessions")
    with labtree.open(folder) as tree:
        yield tree


def test_a_recording_becomes_series_and_labels(recording, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", LossWarning)
        path = labtree.export_nwb(recording, tmp_path / "a.nwb")
    streams = recording["streams"]
    with files.pynwb.NWBHDF5IO(path, "r") as io:
        file = io.read()
        emg = file.acquisition["emg"]
        assert np.array_equal(emg.data[:], streams["emg"].data.values)
        arrival = file.acquisition["emg_arrival"].data[:]
        assert np.array_equal(arrival, streams["emg"].arrival.values)
        first = streams["emg"].time.values[0]
        expected = streams["emg"].time.values - first
        assert emg.get_timestamps()[:] == pytest.approx(expected, abs=1e-9)
        unix = file.session_start_time.timestamp()
        assert unix == pytest.approx(first + recording.attrs["clock_to_unix_s"], abs=1e-5)
        labels = file.intervals["labels"].to_dataframe()
        assert labels.class_name.tolist() == ["rest", "fist", "rest", "pinch"]
        assert labels.start_time.tolist() == [0, 2, 4, 6]
        assert labels.stop_time.iloc[0] == 2


def series(units, shape=(50, 3), rate=1000.0, start=2.0, dtype="i2"):
    count = shape[0]
    time = xr.Variable("time", np.arange(count) / rate + start, {"units": "s"})
    data = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    return xr.Dataset(
        {"data": (("time", "channel"), data, {"units": units, "conversion": 0.5})},
        xr.Coordinates({"time": time}, indexes={}),
        {"fs": rate},
    ).assign_coords(channel=["a", "b", "c"][: shape[1]])


@pytest.mark.parametrize(
    ("units", "conversion", "kind"),
    [
        ("V", 0.5, "ElectricalSeries"),
        ("mV", 0.5e-3, "ElectricalSeries"),
        ("uV", 0.5e-6, "ElectricalSeries"),
        ("µV", 0.5e-6, "ElectricalSeries"),
        ("N", 0.5, "TimeSeries"),
    ],
)
def test_series_in_volts_are_electrical(tmp_path, units, conversion, kind):
    given = series(units)
    tree = workspace(emg=given)
    path = labtree.export_nwb(tree, tmp_path / "a.nwb")
    with files.pynwb.NWBHDF5IO(path, "r") as io:
        found = io.read().acquisition["emg"]
        assert type(found).__name__ == kind
        assert found.conversion == pytest.approx(conversion)
        assert found.rate == 1000
        if kind == "ElectricalSeries":
            assert list(found.electrodes["channel_name"]) == ["a", "b", "c"]
        else:
            assert found.unit == units
    back = labtree.import_nwb(path)
    found = back.ws["rec/1", "emg"]
    xr.testing.assert_allclose(found, given, rtol=0, atol=1e-9)
    assert found.attrs == given.attrs
    assert found.data.attrs == given.data.attrs
    assert found.channel.values.tolist() == ["a", "b", "c"]
    back.close()


def test_a_large_series_is_written_block_by_block(tmp_path):
    path = files.write(tmp_path / "big.nwb", files.rich_file())
    import h5py

    with h5py.File(path, "a") as file:
        attributes = dict(file["acquisition/raw/data"].attrs)
        del file["acquisition/raw/data"]
        data = file["acquisition/raw"].create_dataset("data", (1_000_000, 128), "i2")
        data.attrs.update(attributes)
        data[-1] = 7
        del file["units"]
    tree = labtree.import_nwb(path)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = labtree.export_nwb(tree, tmp_path / "again.nwb")
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    tree.close()
    with files.pynwb.NWBHDF5IO(again, "r") as io:
        assert io.read().acquisition["raw"].data[-1].tolist() == [7] * 128


def test_a_file_of_pynwb_goes_through_labtree_and_back(tmp_path):
    path = files.write(tmp_path / "day.nwb", files.rich_file())
    tree = labtree.import_nwb(path)
    with pytest.warns(LossWarning) as warned:
        again = labtree.export_nwb(tree, tmp_path / "again.nwb")
    text = str(warned[0].message)
    for what in ("day/units_waveforms", "day/devices", "day/electrode_groups", "day/video"):
        assert f"{what}: NWB cannot hold it" in text
    assert len(warned) == 1
    with (
        files.pynwb.NWBHDF5IO(path, "r") as first,
        files.pynwb.NWBHDF5IO(again, "r") as second,
    ):
        one, two = first.read(), second.read()
        for name in ("session_description", "identifier", "session_start_time", "experimenter",
                     "lab", "keywords"):  # fmt: skip
            assert str(getattr(one, name)) == str(getattr(two, name)), name
        assert two.subject.species == "Mus musculus"
        for unit in range(3):
            assert np.array_equal(
                one.units["spike_times"][unit], two.units["spike_times"][unit]
            )
        assert two.units.id[:].tolist() == one.units.id[:].tolist()
        assert list(two.units["quality"][:]) == list(one.units["quality"][:])
        assert np.array_equal(two.units["waveform_mean"][:], one.units["waveform_mean"][:])
        assert two.electrodes["label"][:].tolist() == one.electrodes["label"][:].tolist()
        raw, back = one.acquisition["raw"], two.acquisition["raw"]
        assert np.array_equal(raw.data[:], back.data[:])
        assert (raw.rate, raw.starting_time) == (back.rate, back.starting_time)
        assert (raw.conversion, raw.offset) == (back.conversion, back.offset)
        assert raw.electrodes.data[:].tolist() == back.electrodes.data[:].tolist()
        assert one.trials["choice"][:].tolist() == two.trials["choice"][:].tolist()
        assert list(two.trials["tags"][1]) == ["x", "y"]
        assert two.events["ttl"]["timestamp"][:].tolist() == [1.5]
        assert two.processing["behavior"]["place"].data.shape == (10, 2)
    again_tree = labtree.import_nwb(again)
    for key in ("units", "trials", "epochs", "raw", "long", "ttl", "electrodes"):
        found, expected = again_tree.ws["day", key], tree.ws["day", key]
        if isinstance(expected, pd.DataFrame):
            pd.testing.assert_frame_equal(found, expected)
        else:
            assert set(found.variables) <= set(expected.variables)
            for name in found.variables:
                if name == "time":  # a regular clock is kept as its rate
                    assert np.abs(found.time.values - expected.time.values).max() < 1e-9
                else:
                    assert_same(found[name].values, expected[name].values)
    tree.close()
    again_tree.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: workspace(**INSPECTED),
        lambda folder: workspace(emg=series("mV"), force=series("N", (40, 1))),
        lambda folder: labtree.open(recordings.record_emg(folder / "sessions")),
        lambda folder: labtree.open(msw.write_session(folder / "msw")),
    ],
    ids=["items", "series", "recording", "behavior"],
)
def test_nwbinspector_has_nothing_to_say(tmp_path, make):
    inspector = pytest.importorskip("nwbinspector", reason="inspects the file")
    about = {
        "session_start_time": START,
        "experimenter": ["Doe, Jane"],
        "institution": "A university",
        "lab": "A lab",
        "keywords": ["a"],
        "experiment_description": "A test of the export",
        "resolution": 1 / 30_000,
        "subject": {
            "subject_id": "m1", "species": "Homo sapiens", "sex": "F", "age": "P30Y",
            "description": "A person",
        },
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = labtree.export_nwb(make(tmp_path), tmp_path / "a.nwb", **about)
        found = list(inspector.inspect_nwbfile(nwbfile_path=path))
    serious = [
        f"{message.check_function_name}: {message.location} {message.message}"
        for message in found
        if message.importance is not inspector.Importance.BEST_PRACTICE_SUGGESTION
    ]
    assert serious == []


COLUMNS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1).map(np.array),
    st.lists(st.floats(), min_size=1).map(np.array),
    st.lists(st.booleans(), min_size=1).map(np.array),
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1).map(
        lambda values: np.array(values, object)
    ),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=3)), min_size=1).map(
        lambda values: np.array(values, object)
    ),
    st.lists(st.one_of(st.none(), st.integers(-9, 9)), min_size=1).map(
        lambda values: pd.array(values, "Int64")
    ),
    st.lists(st.sampled_from("abc"), min_size=1).map(pd.Categorical),
)


@given(COLUMNS)
def test_columns_come_back_as_they_were(values):
    column = for_nwb(values)
    assert column.ends is None
    texts = isinstance(column.data, list)
    back = restored(np.array(column.data, object) if texts else column.data, column.about)
    if isinstance(values, np.ndarray):
        assert back.dtype == values.dtype
        assert_same(back.tolist(), values.tolist())
    else:
        pd.testing.assert_series_equal(pd.Series(back), pd.Series(values))


HOSTILE = {
    "attributes with names of NWB's own": labtree.spike_data(
        [[1.0], [2.0]],
        length=5,
        neuron_attributes=[
            {
                name: at
                for at, name in enumerate(
                    ["id", "spike_times", "electrodes", "name", "waveform_mean", "a/b", "."]
                )
            },
            {},
        ],
    ),
    "no units": labtree.spike_data([], length=0),
    "silent units": labtree.spike_data([[], []], length=3),
    "ids below zero": labtree.spikes.from_times([1.0, 2.0], [5, -3]),
    "ids of text": labtree.spikes.from_times([1.0, 2.0], ["a", "b"]),
    "columns with names of NWB's own": pd.DataFrame(
        [[1, 2, 3.5, "x", 4]], columns=["id", "name", "description", "a/b", 7]
    ),
    "the same column twice": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "columns of several levels": pd.DataFrame(
        [[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])
    ),
    "no columns": pd.DataFrame(index=[0, 1]),
    "times that are missing": pd.DataFrame(
        {"start_time": [np.nan, 1.0], "stop_time": [np.nan, 2.0]}
    ),
    "times that are text": pd.DataFrame({"start_time": ["a"], "stop_time": ["b"]}),
    "objects": pd.DataFrame(
        {
            "a": np.array([{"x": 1}, [1, "a"], None], object),
            "b": np.array([1, "a", None], object),
            "c": pd.array(["a", None, "c"], "string"),
        }
    ),
    "text with NUL": pd.DataFrame({"a": ["a\0b", "c"]}),
    "..": np.arange(3.0),
    "x" * 300: np.arange(2.0),
    "a/b:c": np.arange(2),
    "a_b_c": np.arange(3),
    "workspace": pd.DataFrame({"a": [1]}),
    "labtree_types": np.arange(4),
}


@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_names_and_values_come_back(key, tmp_path):
    back = there_and_back(workspace(**{key: HOSTILE[key], "plain": np.arange(1.0)}), tmp_path)
    assert_same(back.ws["rec/1", key], HOSTILE[key])
    back.close()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_short_series_come_back(tmp_path, count):
    given = series("mV", (count, 2))
    back = there_and_back(workspace(emg=given), tmp_path)
    found = back.ws["rec/1", "emg"]
    assert np.array_equal(found.data.values, given.data.values)
    assert found.time.values == pytest.approx(given.time.values)
    back.close()


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("count", [2, 1, 0])
def test_markers_come_back(tmp_path, n_channels, count):
    texts = np.array([["go", "left"], ["é", ""]], object)[:count, :n_channels]
    given = xr.Dataset(
        {"data": (("time", "channel"), texts)},
        xr.Coordinates({"time": ("time", np.array([0.5, 1.75])[:count])}, indexes={}),
    )
    back = there_and_back(workspace(markers=given), tmp_path)
    found = back.ws["rec/1", "markers"]
    assert found.data.dims == ("time", "channel")
    assert found.data.shape == (count, n_channels)
    assert found.data.values.tolist() == texts.tolist()
    assert found.time.values.tolist() == given.time.values.tolist()
    back.close()


def test_rates_keep_their_attributes(tmp_path):
    rates = labtree.rate_data([[1.0, 2.0]], [0.0, 8.0]).assign_attrs(
        time_support=[[0, 8]], metadata={"rig": "left"}
    )
    rates["rate"].attrs["long_name"] = "firing rate"
    back = there_and_back(workspace(rates=rates), tmp_path)
    assert back.ws["rec/1", "rates"].identical(rates)
    back.close()


def with_more(ds, **variables):
    return ds.assign({name: xr.Variable(*given) for name, given in variables.items()})


LOST = {
    "unit variable": (with_more(SPIKES, snr=("unit", [1.0, 2.0, 3.0])), ": snr"),
    "rate variable": (
        with_more(labtree.rate_data([[1.0]], [0.0]), extra=("unit", [1])),
        ": extra",
    ),
    "rate coordinate": (
        labtree.rate_data([[1.0]], [0.0]).assign_coords(phase=("time", ["a"])),
        ": phase",
    ),
    "matrix coordinate": (
        labtree.pairwise_matrix([[1.0]]).assign_coords(channel_i=("unit_i", [3])),
        ": channel_i",
    ),
    "other labels": (
        labtree.pairwise_matrix([[1.0]], labels=["a"]).assign_coords(label_j=("unit_j", ["b"])),
        ": label_j, which differs",
    ),
    "markers that are no text": (
        xr.Dataset(
            {"data": ("time", np.array(["a", None, 3], object))}, {"time": [0.0, 1.0, 2.5]}
        ),
        ": values that are no text become text",
    ),
    "label": (pd.DataFrame({pd.Timestamp("2020"): [1]}), r"name Timestamp\(.* becomes text"),
    "name of the index": (
        pd.DataFrame({"a": [1]}, index=pd.Index(["x"], name=pd.Timestamp("2020"))),
        r"name Timestamp\(.* becomes text",
    ),
    "levels that are columns, too": (
        pd.DataFrame({"u": ["a"], "v": [1]}).set_index(["u", "v"], drop=False),
        "the levels of the index become columns",
    ),
    "period": (
        pd.DataFrame({"a": pd.period_range("2020-01", periods=2, freq="M")}),
        "a Period",
    ),
    "bytes": (pd.DataFrame({"a": [b"x", b"\xff"]}), "column 'a': a bytes becomes text"),
    "index": (
        pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([("a", 1)], names=["u", "v"])),
        "the levels of the index become columns",
    ),
    "mask": (labtree.pairwise_matrix(np.ma.masked_equal(np.eye(2), 1)), "masked values become"),
    "labels": (labtree.pairwise_matrix([[1.0]], labels=[(1, 2)]), "labels: a tuple becomes"),
}


@pytest.mark.parametrize("key", LOST)
def test_what_does_not_come_back_is_said(key, tmp_path):
    obj, words = LOST[key]
    with pytest.warns(LossWarning, match=f"rec/1/{key}.*{words}"):
        labtree.export_nwb(workspace(**{key: obj}), tmp_path / "a.nwb")


def test_series_with_dates_are_left_out_and_named(tmp_path):
    dated = xr.Dataset(
        {"data": ("time", [1.0, 2.0])}, {"time": pd.date_range("2020", periods=2)}
    )
    tree = workspace(dated=dated, array=np.arange(2))
    with pytest.warns(LossWarning, match="rec/1/dated: NWB cannot hold it"):
        labtree.export_nwb(tree, tmp_path / "a.nwb")
