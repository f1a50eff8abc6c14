"""NWB files that pynwb wrote, as workspaces."""

import json
import os
import pickle
import sys
import tracemalloc
import warnings
from datetime import UTC, datetime

import h5py
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.errors import LossWarning
from labtree.formats import is_nwb
from support.exactness import assert_same

pytest.importorskip("pynwb", reason="reads NWB files")
from support import nwb_files as files


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nwb")
    return files.write(folder / "day.nwb", files.rich_file())


@pytest.fixture
def tree(path):
    tree = labtree.import_nwb(path)
    yield tree
    tree.close()


def test_every_part_has_its_namespace_and_key(tree):
    assert tree.ws.list_keys() == {
        "day": [
            "units", "units_waveforms", "electrodes", "devices", "electrode_groups", "trials",
            "epochs", "ttl", "features", "long", "raw", "video", "words",
        ],
        "scratch": ["numbers"],
        "behavior": ["place", "licks"],
    }  # fmt: skip
    assert tree.ws.name == "day"


def test_facts_of_session_and_subject_are_attributes(tree):
    attrs = tree.attrs
    assert attrs["session_description"] == "A test"
    assert attrs["session_start_time"] == "2024-05-06T07:08:09.250000+00:00"
    assert attrs["experimenter"] == ["Doe, Jane"]
    assert attrs["keywords"] == ["a", "b"]
    assert attrs["subject"]["species"] == "Mus musculus"
    assert attrs["subject"]["age"] == "P9D"
    assert "nwb_problems" not in attrs


def test_units_have_their_spikes_in_ms_and_every_column(tree):
    units = tree.ws["day", "units"]
    assert units.attrs["labtree_kind"] == "spike_data"
    for train, seconds in zip(
        labtree.spikes.spike_trains(units), files.TRAINS.values(), strict=True
    ):
        assert train.tolist() == (np.array(seconds) * 1000).tolist()
    assert units.unit_id.values.tolist() == list(files.TRAINS)
    assert (units.attrs["start_time"], units.attrs["length"]) == (0, 6000)
    assert units.quality.values.tolist() == ["good", "mua", "good"]
    assert units.quality.attrs["description"] == "How good it is"
    assert [each.tolist() for each in units.depths.values] == [[], [0.5], [0.5, 0.5]]
    assert units.electrodes.values.tolist() == [[0], [1], [2]]
    assert units.electrode_group.values.tolist() == ["g0"] * 3
    assert units.waveform_mean.values[:, 0, 0].tolist() == [0, 1, 2]
    waveforms = tree.ws["day", "units_waveforms"]
    assert waveforms.waveforms.values.tolist() == [[1, 2, 3]] * 6
    assert waveforms.spikes_of_unit.values.tolist() == [3, 1, 2]


def test_tables_are_data_frames_by_the_ids_of_their_rows(tree):
    trials = tree.ws["day", "trials"]
    assert trials.start_time.tolist() == [0, 1, 2]
    assert trials.choice.tolist() == ["L", "R", "L"]
    assert trials.tags.tolist() == [["x"], ["x", "y"], ["x"]]
    assert trials.attrs["columns"]["choice"] == "Side"
    assert trials.index.name == "id"
    electrodes = tree.ws["day", "electrodes"]
    assert electrodes.label.tolist() == ["e0", "e1", "e2", "e3"]
    assert electrodes.group.tolist() == ["g0"] * 4
    assert tree.ws["day", "epochs"].tags.tolist() == [["rest"]]
    assert tree.ws["day", "ttl"].timestamp.tolist() == [1.5]
    assert tree.ws["scratch", "numbers"].tolist() == [0, 1, 2, 3, 4]


def test_series_have_time_rate_units_and_conversion(tree):
    raw = tree.ws["day", "raw"]
    assert raw.data.dims == ("time", "channel")
    assert raw.data.dtype == np.int16
    assert raw.data.attrs == {"units": "volts", "conversion": 1e-6, "offset": 0.5}
    assert raw.time.values.tolist() == (np.arange(10) / 1000 + 2).tolist()
    assert raw.time.attrs["units"] == "s"
    assert raw.attrs["fs"] == 1000
    assert raw.channel.values.tolist() == [3, 1, 0]
    assert raw.label.values.tolist() == ["e3", "e1", "e0"]
    assert raw.channel_conversion.values.tolist() == [1, 2, 3]
    place = tree.ws["behavior", "place"]
    assert place.data.dims == ("time", "axis")
    assert place.attrs["reference_frame"] == "corner"
    assert tree.ws["day", "features"].feature.values.tolist() == ["far", "late"]
    video = tree.ws["day", "video"]
    assert "data" not in video
    assert video.attrs["external_file"] == ["a.mp4"]
    assert tree.ws["day", "words"].data.values.tolist() == ["go", "stop"]


def test_a_series_is_cut_around_events(tree):
    series = tree["day/raw"].to_dataset()
    windows = series.session.peri_event([2.004], 0.002, 0.002)
    assert windows.values[0, 0].tolist() == [6, 9, 12, 15]


def test_a_long_series_is_read_where_it_is_indexed(tree):
    series = tree["day/long"]
    assert series.data[5:7].values.tolist() == [[10, 11], [12, 13]]
    assert series.data[[7, 2], 1].values.tolist() == [15, 5]
    assert series.data[::-100_000, 0].values.tolist() == [599_998, 399_998, 199_998]
    assert series.time[-1].item() == 299_999 / 30_000
    copy = pickle.loads(pickle.dumps(series.to_dataset()))
    assert copy.data[3].values.tolist() == [6, 7]


@pytest.mark.parametrize("shape", [(1_500_000, 384), (600_000_000, 1)])
def test_a_series_of_a_gigabyte_opens_without_memory(tmp_path, shape):
    path = files.write(tmp_path / "big.nwb", files.rich_file())
    with h5py.File(path, "a") as file:
        attributes = dict(file["acquisition/raw/data"].attrs)
        del file["acquisition/raw/data"]
        data = file["acquisition/raw"].create_dataset("data", shape, "i2")  # holds no bytes
        data.attrs.update(attributes)
        data[-1] = 7
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = labtree.import_nwb(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    series = tree["big/raw"]
    assert series.data.shape == shape
    assert series.data[-1].values.tolist() == [7] * shape[1]
    assert series.time[-1].item() == (shape[0] - 1) / 1000 + 2
    tree.close()


def test_the_workspace_can_be_saved_and_opened(tree, tmp_path):
    path = tree.ws.save(tmp_path / "mine")
    with labtree.open_workspace(path) as back:
        assert back.ws.list_keys() == tree.ws.list_keys()
        for namespace, keys in tree.ws.list_keys().items():
            for key in keys:
                assert_same(back.ws[namespace, key], tree.ws[namespace, key])
        assert back.attrs["subject"] == tree.attrs["subject"]


def test_a_closed_file_says_so(path):
    tree = labtree.import_nwb(path)
    data = tree["day/long"].data
    tree.close()
    with pytest.raises(labtree.ClosedError, match="was closed"):
        data.values  # noqa: B018


def test_without_pynwb_the_error_says_how_to_get_it(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(ImportError, match=r'pip install "labtree\[nwb\]"'):
        labtree.import_nwb(path)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(labtree.MissingFileError, match="there is no file"):
        labtree.import_nwb(tmp_path / "none.nwb")


def test_what_is_no_nwb_is_said(tmp_path):
    (tmp_path / "a.nwb").write_text("not HDF5")
    with h5py.File(tmp_path / "b.nwb", "w") as file:
        file["x"] = 1
    for name, words in (
        ("a.nwb", "a.nwb is a file that begins with b'not HDF5', not an NWB file"),
        ("b.nwb", r"b.nwb is a netCDF-4 or HDF5 file, not an NWB file; write labtree.open\("),
    ):
        assert not is_nwb(tmp_path / name)
        with pytest.raises(labtree.FormatError, match=words):
            labtree.import_nwb(tmp_path / name)


def test_nwb_is_recognized_by_content(path, tmp_path):
    assert is_nwb(path)
    assert not is_nwb(tmp_path)
    (tmp_path / ".zattrs").write_text('{"nwb_version": "2.7.0"}')
    assert is_nwb(tmp_path)


def test_a_damaged_part_is_listed_and_the_rest_is_read(path, tmp_path):
    broken = tmp_path / "broken.nwb"
    broken.write_bytes(path.read_bytes())
    with h5py.File(broken, "a") as file:
        index = file["units/spike_times_index"]
        index[-1] = 99
    with pytest.warns(LossWarning, match="spike_times and spike_times_index disagree"):
        tree = labtree.import_nwb(broken)
    assert tree.attrs["nwb_problems"]
    assert tree.ws["broken", "trials"].choice.tolist() == ["L", "R", "L"]
    tree.close()


def test_spikes_that_are_nan_come_in_as_a_plain_dataset(path, tmp_path):
    broken = tmp_path / "broken.nwb"
    broken.write_bytes(path.read_bytes())
    with h5py.File(broken, "a") as file:
        file["units/spike_times"][1] = np.nan
    with pytest.warns(LossWarning, match="as it is no valid spike_data"):
        tree = labtree.import_nwb(broken)
    assert np.isnan(tree["broken/units"].spike_times.values).sum() == 1
    tree.close()


def test_links_that_lead_out_of_the_folder_are_not_followed(path, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.arange(3)
    linked = inside / "linked.nwb"
    for kind in ("link", "virtual", "external"):
        linked.write_bytes(path.read_bytes())
        with h5py.File(linked, "a") as file:
            group = file["scratch"]
            if kind == "link":
                group["more"] = h5py.ExternalLink(str(secret), "/data")
            elif kind == "virtual":
                layout = h5py.VirtualLayout((3,), "i8")
                layout[:] = h5py.VirtualSource(str(secret), "data", (3,))
                group.create_virtual_dataset("more", layout)
            else:
                group.create_dataset("more", (3,), "i8", external=[(str(secret), 0, 24)])
        with pytest.raises(labtree.FormatError, match=r"outside of its folder.*secret\.h5"):
            labtree.import_nwb(linked)


def test_any_flipped_bit_is_labtrees_error_or_harmless(path, tmp_path):
    content = path.read_bytes()
    random = np.random.default_rng(0)
    errors = 0
    for attempt in range(25):
        damaged = bytearray(content)
        for _ in range(50):
            damaged[int(random.integers(len(damaged)))] ^= 1 << int(random.integers(8))
        broken = tmp_path / f"{attempt}.nwb"
        broken.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                labtree.import_nwb(broken).close()
            except labtree.LabtreeError as error:
                errors += 1
                named = broken.name in str(error)
                assert named
        broken.unlink()
    assert errors < 25


def test_zarr_files_are_read_too(tmp_path):
    zarr = pytest.importorskip("hdmf_zarr", reason="writes NWB in zarr")
    path = tmp_path / "day.nwb.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zarr.NWBZarrIO(str(path), mode="w") as io:
            io.write(files.rich_file())
    assert is_nwb(path)
    tree = labtree.import_nwb(path)
    namespace = tree.ws.list_namespaces()[0]
    units = tree.ws[namespace, "units"]
    assert (
        labtree.spikes.spike_trains(units)[0].tolist()
        == (np.array(files.TRAINS[10]) * 1000).tolist()
    )
    assert tree[f"{namespace}/long"].data[5:7].values.tolist() == [[10, 11], [12, 13]]
    assert tree.ws[namespace, "trials"].choice.tolist() == ["L", "R", "L"]
    assert isinstance(tree.ws[namespace, "raw"], xr.Dataset)
    tree.close()


def test_labtree_open_takes_it_for_a_workspace(path):
    with labtree.open(path) as tree:
        assert tree.ws["day", "units"].sizes["unit"] == 3


# Object references, of which HDF5's plain tree has no use, are left out by name.
@pytest.mark.filterwarnings("ignore::labtree.errors.DamageWarning")
def test_labtree_open_shows_the_plain_tree_without_pynwb(tmp_path, monkeypatch):
    file = files.pynwb.NWBFile("A test", "id-2", files.START)
    series = files.pynwb.TimeSeries(name="x", data=np.arange(4.0), unit="V", rate=1.0)
    file.add_acquisition(series)
    path = files.write(tmp_path / "plain.nwb", file)
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with (
        pytest.warns(LossWarning, match=r'opens as the plain tree .*"labtree\[nwb\]"'),
        labtree.open(path) as tree,
    ):
        assert tree["acquisition/x"].data.values.tolist() == [0, 1, 2, 3]


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.nwb")
    with pytest.raises(labtree.FormatError, match="neither a file nor a folder"):
        labtree.import_nwb(tmp_path / "a.nwb")


def test_zarr_links_that_lead_out_are_not_followed(tmp_path):
    zarr = pytest.importorskip("hdmf_zarr", reason="writes NWB in zarr")
    path = tmp_path / "inside" / "day.nwb.zarr"
    path.parent.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zarr.NWBZarrIO(str(path), mode="w") as io:
            io.write(files.rich_file())
    (meta,) = [each for each in (path / ".zattrs", path / "zarr.json") if each.exists()]
    content = json.loads(meta.read_bytes())
    where = content["attributes"] if meta.name == "zarr.json" else content
    where["zarr_link"] = [{"name": "more", "source": "../../secret.zarr", "path": "/data"}]
    meta.write_text(json.dumps(content))
    with pytest.raises(labtree.FormatError, match=r"outside of its folder.*secret\.zarr"):
        labtree.import_nwb(path)


def units_of(folder, change):
    """Return the units of a file without obs_intervals to which something was added."""
    file = files.plain_file()
    change(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = labtree.import_nwb(files.write(folder / "plain.nwb", file))
    with tree:
        return tree.ws["plain", "units"]


def add_series(file, **clock):
    file.add_acquisition(
        files.pynwb.TimeSeries(name="pupil", data=np.zeros(100), unit="mm", **clock)
    )


@pytest.mark.parametrize(
    ("change", "start", "end", "stated"),
    [
        (lambda file: None, 0, 5500, "the last spike"),
        (lambda file: add_series(file, rate=10.0), 0, 10_000, "TimeSeries 'pupil'"),
        (
            lambda file: add_series(file, rate=10.0, starting_time=-2.0),
            -2000, 8000, "TimeSeries 'pupil'",
        ),
        (
            lambda file: add_series(file, timestamps=np.linspace(1, 8, 100)),
            0, 8000, "TimeSeries 'pupil'",
        ),
        (lambda file: add_series(file, rate=100.0), 0, 5500, "the last spike"),
        (lambda file: file.add_trial(2.0, 7.5), 0, 7500, "TimeIntervals 'trials'"),
        (lambda file: file.add_epoch(2.0, 9.0), 0, 9000, "TimeIntervals 'epochs'"),
        (
            lambda file: add_series(file, timestamps=1.7e9 + np.arange(100.0)),
            0, 5500, "the last spike",
        ),
    ],
    ids=["nothing", "series", "early", "times", "short", "trials", "epochs", "unix time"],
)  # fmt: skip
def test_units_without_observed_intervals_are_as_long_as_the_file(
    tmp_path, change, start, end, stated
):
    units = units_of(tmp_path, change)
    assert units.attrs["start_time"] == start
    assert units.attrs["start_time"] + units.attrs["length"] == end
    assert units.attrs["length_from"] == stated


def test_units_say_that_their_length_is_that_of_their_intervals(tree):
    assert tree.ws["day", "units"].attrs["length_from"] == "obs_intervals"


def test_verbs_take_units_with_mean_waveforms_and_trials_as_nwb_names_them(tree):
    units, trials = tree.ws["day", "units"], tree.ws["day", "trials"]
    counts = labtree.spikes.peri_event_counts(units, trials, 0, 400, 200, on="start_time")
    assert counts.sel(unit=0).values.tolist() == [[1, 2], [0, 0], [0, 0]]
    assert counts.start_time.values.tolist() == [0, 1, 2]
    assert counts.quality.values.tolist() == ["good", "mua", "good"]
    assert "waveform_mean" not in counts.coords
    rates = labtree.spikes.psth(units, trials, 0, 400, 200, on="start_time")
    np.testing.assert_allclose(rates.rate[0], [5 / 3, 10 / 3])
    waits = labtree.spikes.latencies(units, trials, 400, on="start_time")
    np.testing.assert_array_equal(waits[0], [100, np.nan, np.nan])
    assert labtree.spikes.binned_counts(units, 1000).sum().item() == 6
    assert (
        "waveform_mean"
        in labtree.spikes.peri_event(units, trials, 0, 400, on="start_time").coords
    )


def test_a_series_of_one_value_a_time_is_one_channel(tree):
    trials = tree.ws["day", "trials"].iloc[1:]
    licks = tree["behavior/licks"].to_dataset()
    with pytest.raises(labtree.SessionError, match=r'write ds.attrs\["fs"\] = 1  # Hz'):
        licks.session.peri_event([2.0], 1, 1)
    licks.attrs["fs"] = 1.0
    licks["data"] = "time", [5.0, 6.0, 7.0, 8.0]
    found = licks.session.peri_event(trials, 0, 2, on="start_time")
    assert found.dims == ("event", "channel", "time")
    assert found.values.tolist() == [[[5, 6]], [[6, 7]]]
    assert found.start_time.values.tolist() == [1, 2]
    assert found.window_start.values.tolist() == [1, 2]
    assert "1 channel" in repr(licks.session)
    assert licks.session.windows(2000, 1000).values.tolist() == [
        [[5, 6]], [[6, 7]], [[7, 8]],
    ]  # fmt: skip


def test_a_series_of_positions_is_cut_as_channels(tree):
    place = tree["behavior/place"].to_dataset()
    found = place.session.peri_event([0.3], 0.1, 0.2)
    assert found.values.tolist() == [[[4, 6, 8], [5, 7, 9]]]


def test_what_is_no_stream_is_offered_no_verbs_of_streams(tree):
    text = repr(tree["day/trials"].to_dataset().session)
    assert "no labtree stream" in text
    assert "peri_event" not in text


def test_a_long_series_of_one_channel_stays_in_its_file(tmp_path):
    file = files.plain_file()
    data = np.arange(4_000_000, dtype="f4")
    file.add_acquisition(files.pynwb.TimeSeries(name="lfp", data=data, unit="V", rate=1000.0))
    with labtree.import_nwb(files.write(tmp_path / "long.nwb", file)) as tree:
        series = tree["long/lfp"].to_dataset()
        found = series.session.peri_event([10.0, 3000.0], 0.001, 0.002)
        tracemalloc.start()
        values = found.values
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert values.tolist() == [[[9999, 10000, 10001]], [[2_999_999, 3_000_000, 3_000_001]]]
    assert peak < 4_000_000


def test_a_file_that_is_no_hdf5_is_named_with_what_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello world")
    with pytest.raises(labtree.FormatError) as error:
        labtree.import_nwb(path)
    assert str(error.value) == (
        f"{path} is a file that begins with b'hello wo', not an NWB file"
    )
    with pytest.raises(labtree.MissingFileError, match=r"; did you mean '.*notes.txt'\?"):
        labtree.import_nwb(tmp_path / "note.txt")


def test_a_table_with_wide_columns_may_have_one_called_row(tmp_path):
    common = pytest.importorskip("hdmf.common", reason="makes tables")
    import pynwb

    file = pynwb.NWBFile("d", "i", datetime(2024, 5, 6, tzinfo=UTC))
    columns = [
        common.VectorData(name="wide", description="w", data=np.arange(6.0).reshape(3, 2)),
        common.VectorData(name="row", description="r", data=[7, 8, 9]),
    ]
    table = common.DynamicTable(name="t", description="d", columns=columns)
    file.create_processing_module("m", "d").add(table)
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "w") as io:
        io.write(file)
    tree = labtree.import_nwb(tmp_path / "a.nwb")
    found = tree.ws["m", "t"]
    assert found["row"].values.tolist() == [7, 8, 9]
    assert found["wide"].values.tolist() == [[0, 1], [2, 3], [4, 5]]
    tree.close()
