"""XDF and MNE, there and back; plots; what the accessor says."""

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import labtree
from labtree import FormatError, SessionError
from labtree.errors import MissingFileError, RecordingWarning, UnknownNameError
from labtree.interop.mne import from_mne_raw, to_mne_epochs, to_mne_raw
from labtree.interop.xdf import import_xdf
from labtree.testing.recordings import record_emg, simulate_emg


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return record_emg(tmp_path_factory.mktemp("emg"))


@pytest.fixture
def tree(path):
    return labtree.open_session(path)


# --- XDF ------------------------------------------------------------------------------


def chunk(tag, content):
    length = len(content) + 2
    return b"\x04" + struct.pack("<I", length) + struct.pack("<H", tag) + content


def write_xdf(path, streams):
    """A minimal XDF file of streams (name, fs, format, channels, times, rows)."""
    out = b"XDF:" + chunk(
        1,
        b"<?xml version='1.0'?><info><version>1.0</version>"
        b"<datetime>2026-01-02</datetime></info>",
    )
    for number, (name, fs, kind, channels, times, rows) in enumerate(streams, 1):
        described = "".join(
            f"<channel><label>{c}</label><unit>uV</unit></channel>" for c in channels
        )
        header = (
            f"<?xml version='1.0'?><info><name>{name}</name><type>EMG</type>"
            f"<channel_count>{len(channels)}</channel_count><nominal_srate>{fs}</nominal_srate>"
            f"<channel_format>{kind}</channel_format>"
            f"<desc><channels>{described}</channels></desc></info>"
        )
        out += chunk(2, struct.pack("<I", number) + header.encode())
        samples = b""
        for time, row in zip(times, rows, strict=True):
            samples += b"\x08" + struct.pack("<d", time)
            if kind == "string":
                for text in row:
                    samples += b"\x01" + bytes([len(text.encode())]) + text.encode()
            else:
                samples += np.asarray(row, {"float32": "<f4", "int16": "<i2"}[kind]).tobytes()
        count = b"\x04" + struct.pack("<I", len(rows))
        out += chunk(3, struct.pack("<I", number) + count + samples)
        footer = (
            f"<?xml version='1.0'?><info><first_timestamp>{times[0]}</first_timestamp></info>"
        )
        out += chunk(6, struct.pack("<I", number) + footer.encode())
    path.write_bytes(out)
    return path


@pytest.fixture
def xdf(tmp_path):
    pytest.importorskip("pyxdf")
    data = (np.arange(400).reshape(200, 2) % 300).astype("int16")
    times = 10 + np.arange(200) / 100
    markers = [(10.5, ["fist"]), (11.0, ["rest"]), (11.5, ["fist"]), (11.8, ["stop"])]
    path = write_xdf(
        tmp_path / "a.xdf",
        [
            ("emg", 100, "int16", ["F1", "F2"], times, data),
            ("markers", 0, "string", ["event"], *map(list, zip(*markers, strict=True))),
        ],
    )
    return path, data, times


def test_xdf_round_trip(xdf):
    path, data, times = xdf
    tree = import_xdf(path)
    np.testing.assert_array_equal(tree["streams/emg/data"].values, data)
    np.testing.assert_allclose(tree["streams/emg/time"].values, times, atol=1e-9)
    info = tree.session.stream_info("emg")
    assert (info.n_channels, info.fs, info.dtype, info.units) == (2, 100.0, "int16", "uV")
    assert info.channel_names == ("F1", "F2")
    assert tree["streams/markers/data"].values.ravel().tolist() == [
        "fist",
        "rest",
        "fist",
        "stop",
    ]
    assert tree.session.labels.empty
    assert tree.attrs["created"] == "2026-01-02"


def test_xdf_markers_as_labels(xdf):
    path, data, _ = xdf
    tree = import_xdf(path, labels="markers", class_names=["rest", "fist"])
    assert tree.session.labels["class_index"].tolist() == [1, 0, 1, -1]
    windows = tree.session.windows("emg", 100, 100, {0})
    np.testing.assert_array_equal(windows[0].values, data[100:110].T)
    assert import_xdf(path, labels="markers").session.class_names == ["fist", "rest", "stop"]
    with pytest.raises(
        UnknownNameError, match=r"no stream 'notes'; there are: 'emg', 'markers'"
    ):
        import_xdf(path, labels="notes")
    numbers = import_xdf(path, labels="emg", label_channel=-1).session
    assert numbers.class_names == [
        str(v) for v in dict.fromkeys(numbers.streams["emg"]["data"].values[:, -1].tolist())
    ]
    with pytest.raises(SessionError, match="channels, no channel 9"):
        import_xdf(path, labels="emg", label_channel=9)


def test_xdf_streams_of_one_name(tmp_path):
    pytest.importorskip("pyxdf")
    one = ("emg", 100, "float32", ["a"], [1.0, 1.01], [[1.0], [2.0]])
    path = write_xdf(tmp_path / "a.xdf", [one, one])
    with pytest.warns(RecordingWarning, match="streams share a name, later ones get a number"):
        tree = import_xdf(path)
    assert list(tree.session.streams) == ["emg", "emg_2"]


def test_xdf_that_is_none(tmp_path):
    pytest.importorskip("pyxdf")
    with pytest.raises(MissingFileError, match="expected an XDF file, found none"):
        import_xdf(tmp_path / "none.xdf")
    (tmp_path / "a.xdf").write_bytes(b"no XDF")
    with pytest.raises(FormatError, match="expected an XDF file"):
        import_xdf(tmp_path / "a.xdf")


def test_what_is_not_installed_is_named(tmp_path, tree, monkeypatch):
    for name, call in (
        ("pyxdf", lambda: import_xdf(tmp_path)),
        ("mne", lambda: to_mne_raw(tree.session.streams["emg"])),
        ("matplotlib.pyplot", tree.session.plot),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=r"pip install"):
            call()


# --- MNE ------------------------------------------------------------------------------


def test_mne_raw_and_back(tree):
    pytest.importorskip("mne")
    raw = to_mne_raw(tree.session.streams["emg"], tree.session.labels)
    data = tree["streams/emg/data"].values
    np.testing.assert_allclose(raw.get_data(), data.T * 1e-6, rtol=1e-12)
    assert raw.info["sfreq"] == 1000
    assert set(raw.get_channel_types()) == {"emg"}
    assert raw.annotations.description.tolist() == ["rest", "fist", "rest", "pinch"]
    np.testing.assert_allclose(raw.annotations.onset, [0, 2, 4, 6])
    np.testing.assert_allclose(raw.annotations.duration, [2, 2, 2, 2])
    again = from_mne_raw(raw, start_s=100)
    np.testing.assert_allclose(again["data"].values, data * 1e-6, rtol=1e-12)
    np.testing.assert_allclose(again["time"].values, tree["streams/emg/time"].values)
    assert again["data"].attrs["units"] == "V"
    assert again.session.windows(200, 50).shape[1:] == (8, 200)


def test_mne_epochs(tree):
    pytest.importorskip("mne")
    windows = tree.session.windows("emg", 200, 100, {1, 2})
    epochs = to_mne_epochs(windows)
    np.testing.assert_allclose(epochs.get_data(), windows.values * 1e-6, rtol=1e-12)
    assert epochs.event_id == {"fist": 2, "pinch": 3}
    assert len(epochs["fist"]) == int((windows["class_index"] == 1).sum())
    np.testing.assert_array_equal(epochs.metadata["start_time"], windows["start_time"])
    around = tree.session.peri_event("emg", [101.0, 103.0], 0.2, 0.3)
    epochs = to_mne_epochs(around, ch_types="misc")
    assert epochs.tmin == pytest.approx(-0.2)
    np.testing.assert_array_equal(epochs.get_data(), around.values)


def test_mne_refuses_what_it_would_get_wrong(tree):
    pytest.importorskip("mne")
    dataset = tree.session.streams["emg"].load()
    with pytest.raises(
        SessionError, match="has 1 gaps and 0 unusable time stamps; MNE has one rate"
    ):
        to_mne_raw(dataset.isel(time=np.r_[0:100, 200:300]))
    with pytest.raises(SessionError, match="declares 500 Hz"):
        to_mne_raw(dataset.assign_attrs(fs=500.0))
    with pytest.raises(SessionError, match=r"found DataTree; write .*streams\['emg'\]"):
        to_mne_raw(tree)
    with pytest.raises(SessionError, match="1000 Hz and 0 samples is no MNE raw object"):
        to_mne_raw(dataset.isel(time=slice(0, 0)))
    del dataset["data"].attrs["units"]
    with pytest.raises(
        SessionError, match=r'in volts, the unit here is None; write array.attrs\["units"\]'
    ):
        to_mne_raw(dataset)
    assert to_mne_raw(dataset, ch_types="misc").get_data().max() == dataset["data"].max()
    with pytest.raises(SessionError, match="expected windows"):
        to_mne_epochs(dataset["data"])


# --- plots and reprs ------------------------------------------------------------------


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def names_beside(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_plot(tree, pyplot):
    ax = tree.session.plot()
    ax.figure.canvas.draw()
    assert names_beside(ax) == [*(f"emg {n}" for n in range(8)), "force"]
    texts = [text.get_text() for text in ax.texts]
    assert texts[:4] == ["rest", "fist", "rest", "pinch"]
    assert [text.split()[1] for text in texts[4:]] == ["µV", "N"]
    np.testing.assert_allclose([patch.get_x() for patch in ax.patches], [0, 2, 4, 6])
    assert ax.get_xlabel() == "Time from the first sample (s)"
    given = pyplot.subplots()[1]
    assert tree.session.plot(["force"], ax=given) is given
    assert names_beside(tree.session.plot("force", ax=pyplot.subplots()[1])) == ["force"]
    with pytest.raises(UnknownNameError):
        tree.session.plot(["none"])
    with pytest.raises(ValueError, match="from 3 s to 1 s is empty"):
        tree.session.plot(start_s=3, stop_s=1)


def test_a_scale_bar_is_as_long_as_it_says(peer, pyplot):
    wave = np.sin(np.arange(1000) / 10)[:, None] * np.array([[100.0, 20.0]])
    session = peer().stream("emg", wave.astype("f4"), np.arange(1000) / 100, 100, units="uV")
    ax = labtree.open_session(session.write()).session.plot()
    first, second, bar = (line.get_ydata() for line in ax.lines)
    assert np.ptp(first) / np.ptp(second) == pytest.approx(5, rel=0.01)
    microvolts = float(ax.texts[0].get_text().removesuffix(" µV"))
    assert np.ptp(bar) / np.ptp(first) == pytest.approx(
        microvolts / np.ptp(wave[:, 0]), rel=1e-3
    )


def test_no_more_than_a_dozen_names_are_written(peer, pyplot):
    session = peer().stream("emg", np.ones((600, 40), "f4"), np.arange(600) / 10, 10)
    for second in range(0, 60, 2):
        session.label(float(second), second % 3)
    ax = labtree.open_session(session.write(class_names=list("abc"))).session.plot()
    assert len(ax.lines) == 32 + 1
    assert len(names_beside(ax)) <= 12
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]
    assert len(ax.patches) == 30


def test_a_plot_keeps_the_extremes_of_a_long_recording(pyplot):
    from labtree.recording.stream_plots import _envelope

    values = np.zeros((100_000, 2))
    values[54_321, 0], values[77, 1] = 9.0, -5.0
    times, shown = _envelope(
        xr.DataArray(values, dims=("time", "channel")), np.arange(100_000.0)
    )
    assert len(times) == len(shown) == 4000
    assert shown[:, 0].max() == 9
    assert shown[:, 1].min() == -5
    assert abs(times[shown[:, 0].argmax()] - 54_321) < 51


def test_plot_of_odd_sessions(peer, pyplot):
    session = peer().stream("wide", np.ones((50, 40), "f4"), np.arange(50) / 10, 10)
    session.stream("empty", np.empty((0, 2)), [], 60).stream(
        "nan", np.full((9, 2), np.nan), np.arange(1, 10), 1
    )
    tree = labtree.open_session(session.label(1.0, -3).write())
    ax = tree.session.plot()
    ax.figure.canvas.draw()
    assert len(ax.lines) == 32 + 1 + 2 + 1  # channels and scale bars
    empty = labtree.open_session(peer().write())
    assert empty.session.plot().lines[:] == []


def test_repr_is_the_documentation(tree):
    text = repr(tree.session)
    for part in (
        "emg    8,000 samples × 8 channels  1000 Hz  about 8 s  int16    uV ",
        "labels (4)",
        "classes: 0 rest, 1 fist, 2 pinch",
        ".windows(name, window_ms, hop_ms)",
    ):
        assert part in text
    assert "this tree is empty" in repr(xr.DataTree().session)
    assert "<pre>" in tree.session._repr_html_()
    assert "<b>labtree session</b>" in tree.session._repr_html_()


def test_accessor_of_any_tree():
    tree = xr.DataTree()
    assert tree.session.streams == {}
    assert tree.session.labels.empty
    assert tree.session.class_names == []
    with pytest.raises(UnknownNameError, match="no stream 'emg' in this tree"):
        tree.session.continuous("emg")


def test_simulation_is_the_same_every_time():
    first, second = simulate_emg([0, 1], seed=3), simulate_emg([0, 1], seed=3)
    np.testing.assert_array_equal(first, second)
    assert first.shape == (4000, 8)
    assert first[2000:].std() > 5 * first[:2000].std()
    assert (simulate_emg([0, 1], seed=4) != first).any()


# --- what importing costs, and how much memory hours take -----------------------------


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy():
    code = """
import sys, labtree, xarray as xr
repr(xr.DataTree())
heavy = {"zarr", "pydantic", "h5py", "scipy", "numba", "matplotlib", "mne"}
print(*sorted(name for name in sys.modules if name in heavy or "labtree.recording" in name))
"""
    assert run(code).strip() == ""


def test_every_public_name_is_there_after_one_import():
    code = """
import labtree
for name in labtree.recording.__all__:
    assert getattr(labtree.recording, name).__doc__, name
for name in dir(labtree):
    getattr(labtree, name)
print(labtree.recording.recover.__name__)
"""
    assert run(code).strip() == "recover"


def test_two_hours_of_64_channels_within_a_gigabyte(tmp_path):
    """2 h x 64 channels at 2048 Hz; ten classes by turns, one of them is windowed."""
    code = """
import json, resource, sys
from pathlib import Path
import numpy as np
import zarr
from numcodecs import zstd
from zarr.codecs import ZstdCodec
import labtree

fs, minutes, base = 2048, 120, Path(sys.argv[1])
rows = fs * 60 * minutes
meta = {"streams": {"emg": {"n_channels": 64, "fs": fs, "dtype": "int8"}}}
(base / "meta.json").write_text(json.dumps(meta))
labels = [{"timestamp": 60.0 * m, "class_index": m % 10} for m in range(minutes)]
(base / "labels.json").write_text(json.dumps(labels))
zstd_0 = ZstdCodec(level=0)
for name, shape in (("emg.zarr", (rows, 64)), ("emg_timestamps.zarr", (rows,))):
    chunks, dtype = (fs, *shape[1:]), "f8" if len(shape) == 1 else "i1"
    about = {"chunks": chunks, "dtype": dtype, "compressors": zstd_0}
    zarr.create_array(str(base / name), shape=shape, **about)
(base / "emg_timestamps.zarr/c").mkdir()
for second in range(60 * minutes):
    times = zstd.compress(second + np.arange(fs) / fs, -5)
    (base / f"emg_timestamps.zarr/c/{second}").write_bytes(times)
    if second % 60 == 0:
        block = np.zeros((fs, 64), "int8")
        block[:, 0] = second // 60
        block = zstd.compress(block, 1)
    (base / f"emg.zarr/c/{second}").mkdir(parents=True)
    (base / f"emg.zarr/c/{second}/0").write_bytes(block)
limit = 2**30
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
tree = labtree.open_session(base)
windows = tree.session.windows("emg", 200, 100, classes={3})
assert windows.nbytes > 150e6, windows.nbytes
count = 0
for batch in labtree.batches(windows, 256):
    values = batch.values[:, 0]
    assert set(np.unique(values)) <= set(range(3, minutes, 10)), np.unique(values)
    count += len(batch)
assert count == len(windows)
# Not ru_maxrss, which begins with what the parent had.
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else ["VmHWM: 0 kB"]
peak = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
print(count, peak)
"""
    pytest.importorskip("resource")
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(dir=memory if usable else tmp_path) as base:
        count, peak = run(code, base).split()
    assert int(count) == 12 * len(range(0, 2048 * 60 - 409 + 1, 204))
    assert float(peak) < 1024
