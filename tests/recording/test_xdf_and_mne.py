"""XDF files as devices and crashes leave them; MNE's epochs; labels of parts of a stream."""

import json
import struct

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from labtree.errors import RecordingWarning, UnknownNameError
from labtree.recording.session import labels_to_dataset, stream_dataset
from support.examples import THOROUGH

BOUNDARY = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")


def chunk(tag, body):
    return b"\x04" + struct.pack("<IH", len(body) + 2, tag) + body


def stream(number, name, samples, times, *, fs=100, channels=(), kind="float32"):
    """Return the chunks of a stream: its header, and samples ten at a time."""
    described = "".join(
        f"<channel><label>{label}</label><unit>{unit}</unit></channel>"
        for label, unit in channels
    )
    about = (
        f'<?xml version="1.0"?><info><name>{name}</name><type>EMG</type>'
        f"<channel_count>{len(samples[0])}</channel_count><nominal_srate>{fs}</nominal_srate>"
        f"<channel_format>{kind}</channel_format><desc><channels>{described}</channels></desc>"
        "</info>"
    )
    found = [chunk(2, struct.pack("<I", number) + about.encode())]
    for first in range(0, len(times), 10):
        rows = zip(times[first : first + 10], samples[first : first + 10], strict=True)
        body = b"".join(
            b"\x08" + struct.pack(f"<d{len(row)}f", time, *row) for time, row in rows
        )
        count = len(times[first : first + 10])
        found.append(
            chunk(3, struct.pack("<I", number) + b"\x01" + bytes([count]) + body)
            + chunk(5, BOUNDARY)
        )
    end = f"<info><sample_count>{len(times)}</sample_count></info>"
    return [*found, chunk(6, struct.pack("<I", number) + end.encode())]


def write(path, *streams):
    start = b"XDF:" + chunk(1, b'<?xml version="1.0"?><info><version>1.0</version></info>')
    path.write_bytes(start + b"".join(part for one in streams for part in one))
    return path


@pytest.fixture(autouse=True)
def _pyxdf():
    pytest.importorskip("pyxdf")


TIMES = (5 + np.arange(100) / 100).tolist()
SAMPLES = [(float(k), float(-k)) for k in range(100)]


def test_losses_of_less_than_a_second_stay_where_they_are(tmp_path):
    times = np.r_[TIMES[:50], np.array(TIMES[50:]) + 0.5]
    path = write(tmp_path / "a.xdf", stream(1, "emg", SAMPLES, times.tolist()))
    tree = labtree.open(path)
    np.testing.assert_array_equal(tree["streams/emg/time"], times)
    assert "repairs" not in tree.attrs


def test_streams_of_one_name_are_all_there(tmp_path):
    streams = [
        stream(number, name, [(float(number), 0.0)] * 10, TIMES[:10])
        for number, name in enumerate(["emg_2", "emg", "emg"], 1)
    ]
    with pytest.warns(RecordingWarning, match="streams share a name"):
        tree = labtree.import_xdf(write(tmp_path / "a.xdf", *streams))
    found = {n: float(s["data"][0, 0]) for n, s in tree.session.streams.items()}
    assert sorted(found.values()) == [1, 2, 3]
    assert found["emg_2"] == 1


@pytest.mark.parametrize("where", ["cut", "middle"])
def test_damage_is_told(tmp_path, where):
    path = write(tmp_path / "a.xdf", stream(1, "emg", SAMPLES, TIMES))
    content = bytearray(path.read_bytes())
    if where == "cut":
        content = content[:-200]
    else:
        at = content.find(BOUNDARY) + len(BOUNDARY)
        content[at : at + 6] = bytes(6)
    path.write_bytes(content)
    with pytest.warns(RecordingWarning, match="the last chunk lacks|bytes from .* are damaged"):
        tree = labtree.import_xdf(path)
    assert len(tree.attrs["repairs"]) == 2
    assert 0 < tree["streams/emg"].sizes["time"] < 100


def test_of_a_cut_file_the_whole_chunks_are_there_and_the_rest_is_told(tmp_path):
    parts = stream(1, "emg", SAMPLES, TIMES)
    content = write(tmp_path / "whole.xdf", parts).read_bytes()
    begin, boundary = content.find(parts[1]), len(chunk(5, BOUNDARY))
    ends = [begin]  # of the chunks of samples, each of which a boundary follows
    for part in parts[1:-1]:
        ends += [ends[-1] + len(part) - boundary, ends[-1] + len(part)]
    cut = tmp_path / "cut.xdf"
    for length in [*ends[:3], *range(begin + 1, ends[-1], 7 if THOROUGH else 41)]:
        cut.write_bytes(content[:length])
        with pytest.warns(RecordingWarning, match="stream 'emg' has no end") as told:
            found = labtree.import_xdf(cut)["streams/emg"]
        whole = 10 * sum(end <= length for end in ends[1::2])
        assert found["data"][:, 0].values.tolist() == list(range(whole))
        assert ("the last chunk lacks" in str(told[0].message)) == (length not in ends)


@pytest.mark.parametrize("byte", [0, 1, 5, 6, 10, 11])
def test_damage_of_a_chunk_s_own_numbers_is_told(tmp_path, byte):
    """Its length, kind and stream, and the number of its samples."""
    parts = stream(1, "emg", SAMPLES, TIMES)
    path = write(tmp_path / "a.xdf", parts)
    content = bytearray(path.read_bytes())
    at = content.find(parts[4])
    content[at + byte + (byte > 5)] ^= 0x55
    path.write_bytes(content)
    with pytest.warns(RecordingWarning, match=rf"the bytes from {at} on are damaged.*says 100"):
        found = labtree.import_xdf(path)["streams/emg"]
    assert found["data"][:, 0].values.tolist() == [*range(30), *range(40, 100)]


def test_channels_of_which_some_lack_a_name(tmp_path):
    channels = [("", "uV"), ("b", "uV")]
    path = write(tmp_path / "a.xdf", stream(1, "emg", SAMPLES, TIMES, channels=channels))
    with pytest.warns(RecordingWarning, match="channels lack a name, and get their number"):
        found = labtree.import_xdf(path)["streams/emg"]
    assert found["channel"].values.tolist() == ["0", "b"]


def offsets(number, moments, values):
    return [
        chunk(4, struct.pack("<Idd", number, moment, value))
        for moment, value in zip(moments, values, strict=True)
    ]


def test_offsets_of_a_clock_that_drifts_are_added(tmp_path):
    moments = np.arange(5, 15.0)
    parts = stream(1, "emg", SAMPLES, TIMES)
    path = write(
        tmp_path / "a.xdf",
        [parts[0], *offsets(1, moments, 100 + 1e-4 * moments), *parts[1:]],
    )
    found = labtree.import_xdf(path)["streams/emg/time"].values
    np.testing.assert_allclose(found, np.array(TIMES) * 1.0001 + 100, atol=1e-6)


def test_offsets_that_jump_are_told(tmp_path):
    rng = np.random.default_rng(0)
    moments = np.arange(5, 25.0)
    values = 100 + 1e-4 * moments + rng.normal(0, 2e-4, 20)
    values[7] += 0.03  # one that was measured while the network was busy is no jump
    parts = stream(1, "emg", SAMPLES, TIMES)
    path = write(tmp_path / "a.xdf", [parts[0], *offsets(1, moments, values), *parts[1:]])
    assert "repairs" not in labtree.import_xdf(path).attrs
    values[12:] += 0.024
    path = write(tmp_path / "a.xdf", [parts[0], *offsets(1, moments, values), *parts[1:]])
    with pytest.warns(RecordingWarning, match=r"clock jumps by 23.4 ms at 17 s"):
        found = labtree.import_xdf(path)
    assert "synchronize_clocks=False" in found.attrs["repairs"][0]
    raw = labtree.import_xdf(path, synchronize_clocks=False)
    np.testing.assert_array_equal(raw["streams/emg/time"], TIMES)


def test_channels_keep_their_names_and_units(tmp_path):
    channels = [("emg", "uV"), ("emg", "none")]
    path = write(tmp_path / "a.xdf", stream(1, "emg", SAMPLES, TIMES, channels=channels))
    with pytest.warns(RecordingWarning, match=r"names repeat.*differ in their units"):
        found = labtree.import_xdf(path).session.streams["emg"]
    assert found["channel"].values.tolist() == ["emg", "emg_2"]
    assert found["unit"].values.tolist() == ["uV", "none"]


def test_labels_from_numbers_of_any_channel(tmp_path):
    marks = [(7.0, 1.0), (8.0, 2.0), (7.0, 1.5)]
    channels = [("a", ""), ("b", "")]
    path = write(tmp_path / "a.xdf", stream(1, "m", marks, TIMES[:3], fs=0, channels=channels))
    assert labtree.import_xdf(path, labels="m").session.class_names == ["7", "8"]
    found = labtree.import_xdf(path, labels="m", label_channel="b").session
    assert found.class_names == ["1", "2", "1.5"]
    with pytest.raises(UnknownNameError, match="no channel of stream 'm' 'c'"):
        labtree.import_xdf(path, labels="m", label_channel="c")


def labelled_stream():
    data = np.zeros((2000, 1), "f4")
    stream = stream_dataset(data, 100 + np.arange(2000) / 100, fs=100.0, units="microvolts")
    labels = labels_to_dataset([(100.0 + k, k % 2) for k in range(20)], ["rest", "fist"])
    return stream, labels.to_dataframe()


def test_a_part_of_a_stream_exports_the_labels_that_it_holds():
    pytest.importorskip("mne")
    stream, labels = labelled_stream()
    raw = labtree.to_mne_raw(stream.isel(time=slice(1550, 1850)), labels)
    found = [(a["onset"], a["duration"], a["description"]) for a in raw.annotations]
    expected = [(0, 0.5, "fist"), (0.5, 1, "rest"), (1.5, 1, "fist"), (2.5, 0.5, "rest")]
    for (onset, duration, name), (on, long, what) in zip(found, expected, strict=True):
        assert (onset, duration, name) == (pytest.approx(on), pytest.approx(long), what)


def test_microvolts_are_a_unit():
    pytest.importorskip("mne")
    stream, _ = labelled_stream()
    stream["data"] = stream["data"] + 3
    stream["data"].attrs["units"] = "microvolts"
    assert labtree.to_mne_raw(stream).get_data()[0, 0] == pytest.approx(3e-6)


def test_epochs_come_back_with_their_metadata():
    mne = pytest.importorskip("mne")
    info = mne.create_info(["a", "b"], 100.0, "emg")
    events = np.array([[50, 0, 3], [200, 0, 1], [300, 0, 3]])
    metadata = pd.DataFrame(
        {"side": ["l", "r", "l"], "force": [1.5, 2.5, 3.5], "time": [1, 2, 3]}
    )
    data = np.random.default_rng(0).normal(size=(3, 2, 40))
    epochs = mne.EpochsArray(
        data, info, events, tmin=-0.1, event_id={"fist": 3, "rest": 1}, metadata=metadata,
        verbose="error",
    )  # fmt: skip
    epochs.drop([1], reason="blink", verbose="error")
    windows = labtree.from_mne_epochs(epochs)
    np.testing.assert_allclose(windows, data[[0, 2]])
    assert windows["class_name"].values.tolist() == ["fist", "fist"]
    assert windows["class_index"].values.tolist() == [1, 1]
    assert windows["side"].values.tolist() == ["l", "l"]
    assert windows["metadata_time"].values.tolist() == [1, 3]
    np.testing.assert_allclose(windows["start_time"], [0.4, 2.9])
    assert windows.attrs["units"] == "V"
    assert labtree.drop_log(windows)["reason"].tolist() == ["epoch 1: blink"]
    assert len(list(labtree.batches(windows, 2, shuffle=0))) == 1


def test_windows_come_back_from_epochs_with_their_own_classes_and_times():
    pytest.importorskip("mne")
    stream, labels = labelled_stream()
    windows = stream.session.windows(200, 100, {1}, labels=labels, class_names=["rest", "fist"])
    found = labtree.from_mne_epochs(labtree.to_mne_epochs(windows))
    np.testing.assert_array_equal(found.values, windows.values * 1e-6)
    for name in ("class_index", "class_name", "start_time", "time"):
        np.testing.assert_array_equal(found[name], windows[name])
    assert not [name for name in found.coords if str(name).startswith("metadata_")]


def test_bad_channels_and_annotations_of_mne_are_kept():
    mne = pytest.importorskip("mne")
    info = mne.create_info(["a", "b"], 100.0, "emg")
    raw = mne.io.RawArray(np.zeros((2, 1000)), info, verbose="error")
    raw.info["bads"] = ["b"]
    raw.set_annotations(mne.Annotations([1.0, 3.0], [0.5, 0.0], ["x", "bad, y"]))
    found = labtree.from_mne_raw(raw.copy().crop(2.0), start_s=50.0)
    assert found["bad"].values.tolist() == [False, True]
    assert json.loads(found.attrs["annotations"]) == [
        {"onset_s": 51.0, "duration_s": 0.0, "description": "bad, y"}
    ]
    assert labtree.to_mne_raw(found).info["bads"] == ["b"]
    epochs = mne.EpochsArray(np.zeros((3, 2, 50)), raw.info, verbose="error")
    windows = labtree.from_mne_epochs(epochs)
    assert windows["bad"].values.tolist() == [False, True]
    assert labtree.to_mne_epochs(windows).info["bads"] == ["b"]


def test_epochs_that_were_decimated_keep_their_times():
    mne = pytest.importorskip("mne")
    info = mne.create_info(["a"], 1000.0, "emg")
    raw = mne.io.RawArray(np.zeros((1, 5000)), info, verbose="error")
    epochs = mne.Epochs(
        raw, [[1000, 0, 1], [3000, 0, 1]], tmin=-0.1, tmax=0.1, baseline=None, preload=True,
        verbose="error",
    )  # fmt: skip
    for changed in (epochs, epochs.copy().decimate(4, verbose="error")):
        found = labtree.from_mne_epochs(changed)
        assert found["start_time"].values == pytest.approx([0.9, 2.9])
        assert found.attrs["fs"] == changed.info["sfreq"]


@pytest.mark.filterwarnings("ignore:Channel names are not unique:RuntimeWarning")
def test_bad_channels_of_names_that_repeat_stay_bad():
    pytest.importorskip("mne")
    data = (("time", "channel"), np.zeros((50, 2)), {"units": "V"})
    stream = xr.Dataset(
        {"data": data}, {"time": np.arange(50) / 100, "channel": ["a", "a"]}, {"fs": 100.0}
    ).assign_coords(bad=("channel", [False, True]))
    raw = labtree.to_mne_raw(stream)
    assert raw.info["bads"] == raw.ch_names[1:]


def test_windows_without_a_rate_or_a_class_are_refused():
    pytest.importorskip("mne")
    coords = {"time": np.arange(5) / 100, "class_index": ("window", [0.0, np.nan])}
    windows = xr.DataArray(
        np.zeros((2, 1, 5)), coords, ("window", "channel", "time"), attrs={"units": "V"}
    )
    with pytest.raises(ValueError, match=r"do not say their rate.*assign_attrs\(fs=rate_hz\)"):
        labtree.to_mne_epochs(windows)
    with pytest.raises(ValueError, match="class_index is missing in some windows"):
        labtree.to_mne_epochs(windows.assign_attrs(fs=100.0))
