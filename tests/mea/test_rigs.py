"""Recordings as rigs write them: sweeps, two clocks, no analog channels, wrong pairs."""

import random
import shutil

import h5py
import numpy as np
import pytest

import labtree
from labtree import ConfigurationError, FormatError, LabtreeError
from labtree.interop.mcs import open_mcs
from labtree.mea.mcs_files import open_mea, read_analog, sensor_data
from labtree.testing.mea import write_recording

from .test_recording import copy_of, load, set_duration

ANALOG, SENSORS = "Acquisition/Analog Data", "Acquisition/Sensor Data"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_recording(
        tmp_path_factory.mktemp("small"), n_units=3, rate_hz=60.0, sensor_size=4,
        movie_frames={"noise_a": 60}, repeats=1, seed=2,
    )  # fmt: skip


def images(paths, **options):
    session = labtree.create_session("r")
    labtree.mea.load_recording_with_eimage_sta(session=session, **paths, **options)
    return session, session["features/eimage_sta"].to_dataset()


# --- sweeps


def divide_sensors(lengths, froms=None):
    """Divide the sensors' data into sweeps, named and numbered as the vendor does."""

    def change(file):
        group = file[SENSORS]
        counts, attrs = group["SensorData 1 1"][()], dict(group["SensorData 1 1"].attrs)
        del group["SensorData 1 1"]
        ends = np.cumsum(lengths)
        for sweep, (end, n) in enumerate(zip(ends, lengths, strict=True), start=1):
            data = group.create_dataset(f"SensorData 1 {sweep}", data=counts[end - n : end])
            data.attrs.update(attrs)
            data.attrs["GroupID"] = np.array([sweep], "i4")
            if froms is not None:
                data.attrs["From"] = np.array([froms[sweep - 1]], "i8")
                data.attrs["To"] = np.array([froms[sweep - 1] + n * 50], "i8")
        meta = np.repeat(group["SensorMeta"][()], len(lengths))
        meta["GroupID"] = np.arange(1, len(lengths) + 1)
        del group["SensorMeta"]
        group["SensorMeta"] = meta

    return change


def divide_analog(at, gap=0):
    def change(file):
        group = file[ANALOG]
        counts, attrs = group["ChannelData 1"][()], dict(group["ChannelData 1"].attrs)
        table = group["ChannelMeta"][()]
        del group["ChannelData 1"], group["ChannelMeta"]
        parts = (0, counts[:, :at]), (at + gap, counts[:, at + gap :])
        for sweep, (start, part) in enumerate(parts, start=1):
            data = group.create_dataset(f"ChannelData {sweep}", data=part)
            data.attrs.update(attrs)
            data.attrs["GroupID"] = np.array([sweep], "i4")
            data.attrs["From"] = np.array([start * 50], "i8")
        both = np.concatenate([table, table])
        both["GroupID"] = np.repeat([1, 2], len(table))
        group["ChannelMeta"] = both

    return change


@pytest.mark.parametrize("lengths", [(10_000, 10_000), (3, 19_997), (7_000, 20, 12_980)])
@pytest.mark.parametrize("skip", [False, True])
def test_sweeps_that_join_are_one_recording(small, tmp_path, lengths, skip):
    _, whole = images(copy_of(small, tmp_path / "whole"), skip_highpass=skip)
    paths = copy_of(small, tmp_path / "cut", divide_sensors(lengths))
    session, cut = images(paths, skip_highpass=skip, chunk_duration_s=0.3)
    assert cut["n_spikes"].values.tolist() == whole["n_spikes"].values.tolist()
    np.testing.assert_allclose(cut["eimage_sta"], whole["eimage_sta"], atol=1e-3)
    assert session.session.warnings == []


def test_windows_do_not_reach_over_a_gap_between_sweeps(small, tmp_path):
    gap = 3_000
    froms = (0, (8_000 + gap) * 50)
    paths = copy_of(small, tmp_path / "cut", divide_sensors((8_000, 12_000), froms))
    _, made = images(paths, skip_highpass=True)
    with h5py.File(small.cmcr_path) as file:
        counts = file[f"{SENSORS}/SensorData 1 1"][()].astype(float)
    for unit, spikes in small.spikes.items():
        windows = []
        for spike in spikes:
            for start, part in ((0, counts[:8_000]), (8_000 + gap, counts[8_000:])):
                if spike - start >= 10 and spike - start + 40 <= len(part):
                    windows.append(part[spike - start - 10 : spike - start + 40])
        row = made.sel(unit=unit)
        assert int(row["n_spikes"]) == len(windows)
        expected = np.mean(windows, axis=0) - counts.mean(axis=0)
        np.testing.assert_allclose(row["eimage_sta"], expected, atol=1e-3)


def test_analog_sweeps_are_read_as_one(small, tmp_path):
    whole = load(copy_of(small, tmp_path / "whole"))
    cut = load(copy_of(small, tmp_path / "cut", divide_analog(7_001)))
    assert cut["stimulus"].identical(whole["stimulus"])
    assert cut["units"].identical(whole["units"])
    assert cut.session.warnings == []


def test_a_gap_between_analog_sweeps_is_held_and_told(small, tmp_path):
    start, gap = 9_000, 2_000
    paths = copy_of(small, tmp_path / "cut", divide_analog(start, gap))
    session = load(paths)
    whole = load(copy_of(small, tmp_path / "whole"))["stimulus/light_reference"]
    light = session["stimulus/light_reference"]
    assert light.sizes["sample"] == whole.sizes["sample"]
    raw, expected = light["raw_ch1"].values, whole["raw_ch1"].values
    np.testing.assert_array_equal(raw[:start], expected[:start])
    assert (raw[start : start + gap] == expected[start - 1]).all()
    np.testing.assert_array_equal(raw[start + gap :], expected[start + gap :])
    frames = session["metadata"]["frame_timestamps"].values
    planted = small.frames[(small.frames < start - 1) | (small.frames >= start + gap)]
    assert set(planted.tolist()) <= set(frames.tolist())
    assert not ((frames >= start - 1) & (frames < start + gap)).any()
    assert "no analog data from 0.45 s to 0.55 s" in session.session.warnings[0]


def test_sweeps_that_do_not_fit_each_other_are_an_error(small, tmp_path):
    def other_size(file):
        group = file[SENSORS]
        group.create_dataset("SensorData 1 2", data=np.zeros((5, 3, 3), "i2"))

    def overlap(file):
        divide_sensors((10_000, 10_000), (0, 100))(file)

    def other_tick(file):
        divide_analog(9_000)(file)
        meta = file[f"{ANALOG}/ChannelMeta"]
        table = meta[()]
        table["Tick"][2:] = 100
        meta[...] = table

    def far(file):
        divide_analog(9_000)(file)
        file[f"{ANALOG}/ChannelData 2"].attrs["From"] = np.array([2**60], "i8")

    for number, (change, match) in enumerate(
        (
            (
                other_size,
                r"SensorData 1 1 .* and SensorData 1 2 \(5, 3, 3\).* overlap or differ",
            ),
            (overlap, "overlap or differ"),
            (other_tick, "different Tick, .* in ChannelData 2"),
            (far, "From of ChannelData 2 is wrong"),
        )
    ):
        paths = copy_of(small, tmp_path / str(number), change)
        with pytest.raises(FormatError, match=match):
            images(paths)


def test_sweeps_in_the_lazy_tree(small, tmp_path):
    paths = copy_of(small, tmp_path, divide_sensors((8_000, 12_000)))
    with h5py.File(paths["cmcr_path"], "r+") as file:
        divide_analog(9_000)(file)
        second = file[f"{SENSORS}/SensorData 1 2"][5:9, 2]
    tree = open_mcs(paths["cmcr_path"])
    assert tree["sensors"]["data_2"].sizes == {"frame_2": 12_000, "row": 4, "column": 4}
    np.testing.assert_array_equal(tree["sensors"]["data_2"][5:9, 2].values, second)
    assert tree["sensors"]["data_2"].attrs["first_sample"] == 8_000
    assert tree["analog"]["data_1"].sizes["sample_1"] == 9_000


def test_other_regions_are_told(small, tmp_path):
    def second_region(file):
        file[SENSORS].create_dataset("SensorData 2 1", data=np.zeros((5, 3, 3), "i2"))

    session, _ = images(copy_of(small, tmp_path, second_region))
    assert "of the first region only; not read: SensorData 2 1" in session.session.warnings[0]


# --- clocks


def write_two_clocks(folder, analog_tick, sensor_tick, n=30_000, seed=0):
    """A pair whose sensors and analog channels are sampled at other rates, with h5py alone."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.choice(np.arange(20_000, n * sensor_tick - 20_000), 150, replace=False))
    times += (2 * (times % sensor_tick)) == sensor_tick  # halves are of either neighbor
    frames = np.rint(times / sensor_tick).astype(int)
    counts = rng.normal(0, 5, (n, 3, 4))
    for frame in frames:
        counts[frame, 1, 2] -= 200
    counts = np.round(counts).astype("i2")
    with h5py.File(folder / "r.cmcr", "w") as file:
        file.attrs["LB.RecordingDuration"] = np.array([n * sensor_tick], "i8")
        if analog_tick:
            group = file.create_group(ANALOG)
            group["ChannelData 1"] = np.zeros((2, n * sensor_tick // analog_tick), "i4")
            meta = [("ChannelID", "i4"), ("GroupID", "i4"), ("Tick", "i8")]
            group["ChannelMeta"] = np.array([(1, 1, analog_tick), (2, 1, analog_tick)], meta)
        group = file.create_group(SENSORS)
        group["SensorData 1 1"] = counts
        meta = [("RegionID", "i4"), ("GroupID", "i4"), ("Tick", "i8")]
        group["SensorMeta"] = np.array([(1, 1, sensor_tick)], meta)
    kind = [("Timestamp", "i8"), ("PeakAmplitude", "f8"), ("IncludePeak", "u1"), ("1", "f8")]
    with h5py.File(folder / "r-.cmtr", "w") as file:
        for number, own in enumerate((times, times[:0]), start=1):
            unit = file.create_group(f"Spike Sorter/Unit {number}")
            unit.attrs.update(UnitID=number, SensorID=65 * 2 + 2, Row=2, Column=3)
            peaks = np.zeros(len(own), kind)
            peaks["Timestamp"], peaks["IncludePeak"] = own, 1
            unit["Peaks"] = peaks
    return (
        {"cmcr_path": folder / "r.cmcr", "cmtr_path": folder / "r-.cmtr"},
        times,
        frames,
        counts,
    )


@pytest.mark.parametrize(
    ("analog", "sensors"), [(1000, 50), (50, 1000 // 9), (37, 50), (50, 50)]
)
def test_images_are_cut_on_the_sensors_own_clock(tmp_path, analog, sensors):
    paths, times, frames, counts = write_two_clocks(tmp_path, analog, sensors)
    session, made = images(paths, skip_highpass=True)
    row = made.sel(unit="unit_001")
    whole = [f for f in frames if f >= 10 and f + 40 <= len(counts)]
    expected = np.mean([counts[f - 10 : f + 40].astype(float) for f in whole], axis=0)
    np.testing.assert_allclose(row["eimage_sta"], expected - counts.mean(axis=0), atol=1e-3)
    assert int(row["n_spikes"]) == len(whole)
    assert session.session.spikes("unit_001").values.tolist() == (
        np.rint(times / analog).astype(int).tolist()
    )
    assert made.attrs["sampling_rate"] == 1e6 / sensors


def test_the_rate_comes_from_the_sensors_where_there_is_no_analog_channel(tmp_path):
    paths, times, *_ = write_two_clocks(tmp_path, None, 40)
    for session in (load(paths), images(paths, skip_highpass=True)[0]):
        assert session["metadata"].attrs["acquisition_rate"] == 25_000.0
        assert session.session.spikes("unit_001").values.tolist() == (
            np.rint(times / 40).astype(int).tolist()
        )
        assert session.session.warnings == []
    asked = load(paths, acquisition_rate=10_000.0)
    assert asked.session.spikes("unit_001").values.tolist() == (
        np.rint(times / 100).astype(int).tolist()
    )
    assert (
        "10000 Hz as asked, but Tick of the sensors says 25000 Hz" in asked.session.warnings[0]
    )
    session, _ = images(paths, skip_highpass=True, acquisition_rate=25_000.0)
    assert session.session.warnings == []


def test_no_advice_makes_up_a_rate(tmp_path):
    paths, *_ = write_two_clocks(tmp_path, None, 40)
    with h5py.File(paths["cmcr_path"], "r+") as file:
        del file[f"{SENSORS}/SensorMeta"]
    with pytest.raises(
        ConfigurationError, match=r"pass acquisition_rate=, the samples"
    ) as caught:
        load(paths)
    assert not any(char.isdigit() for char in str(caught.value).split("; pass")[1])


# --- units and pairs


def test_a_unit_without_peaks_is_loaded(small, tmp_path):
    def no_peaks(file):
        peaks = file["Spike Sorter/Unit 2/Peaks"]
        kind = peaks.dtype
        del file["Spike Sorter/Unit 2/Peaks"]
        file["Spike Sorter/Unit 2"].create_dataset("Peaks", data=np.zeros(0, kind))

    session, made = images(copy_of(small, tmp_path, no_peaks, "cmtr_path"))
    units = session["units"]
    sizes = [len(small.spikes["unit_001"]), 0, len(small.spikes["unit_003"])]
    assert units["row_size"].values.tolist() == sizes
    assert np.isnan(units["waveform"].sel(unit="unit_002")).all()
    assert np.isfinite(units["waveform"].sel(unit="unit_003")).all()
    assert units["firing_rate_10hz"].sel(unit="unit_002").sum() == 0
    assert np.isnan(made["eimage_sta"].sel(unit="unit_002")).all()
    assert (
        open_mcs(tmp_path / small.cmtr_path.name)["units"]["row_size"].values.tolist() == sizes
    )


def test_files_of_two_recordings_are_refused(small, tmp_path):
    other = write_recording(
        tmp_path / "other", name="2026.02.01-10.00.00-Rec", n_units=1,
        movie_frames={"m": 90}, repeats=1, sensor_s=0.05,
    )  # fmt: skip
    pair = {"cmcr_path": other.cmcr_path, "cmtr_path": small.cmtr_path}
    for call in (load, images):
        with pytest.raises(
            ConfigurationError, match=r"are of two recordings: LB\.Rec"
        ) as caught:
            call(pair)
        assert f"{other.duration_us / 1e6:g} s" in str(caught.value)
        assert f"{small.duration_us / 1e6:g} s" in str(caught.value)


def test_the_link_tells_two_recordings_of_one_length(small, tmp_path):
    paths = copy_of(small, tmp_path / "a")
    twin = tmp_path / "b" / "2026.03.03-10.00.00-Rec.cmcr"
    twin.parent.mkdir()
    shutil.copy(small.cmcr_path, twin)
    with pytest.raises(ConfigurationError, match=r"was made from .*, which stands beside it"):
        load({"cmcr_path": twin, "cmtr_path": paths["cmtr_path"]})
    # renamed: the file that the link names is gone
    renamed = paths["cmcr_path"].rename(paths["cmcr_path"].with_name("renamed.cmcr"))
    session = load({"cmcr_path": renamed, "cmtr_path": paths["cmtr_path"]})
    assert "was made from" in session.session.warnings[0]
    assert "renamed.cmcr" in session.session.warnings[0]


def test_a_rounded_duration_is_the_same_recording(small, tmp_path):
    paths = copy_of(small, tmp_path, set_duration(small.duration_us + 900))
    assert load(paths).session.warnings == []


# --- damage


@pytest.mark.parametrize("which", ["cmcr_path", "cmtr_path"])
def test_damaged_files_give_errors_that_name_them(small, tmp_path, which):
    paths = copy_of(small, tmp_path)
    path = paths[which]
    whole, rng = path.read_bytes(), random.Random(3)
    head = len(whole) if which == "cmtr_path" else 60_000  # beyond lie samples
    seen, named = set(), set()
    for number in range(60):
        content = bytearray(whole)
        at = rng.randrange(48, min(head, len(whole)) - 64)
        if number % 3 == 0:
            content[at:] = bytes(len(content) - at)
        elif number % 3 == 1:
            content[at] ^= 1 << rng.randrange(8)
        else:
            content[at : at + 64] = rng.randbytes(64)
        path.write_bytes(content)
        for call in (lambda: load(paths), lambda: labtree.open(path)):
            try:
                call()
            except LabtreeError as error:
                told = str(error)
            else:
                continue
            named.add(path.name in told)
            seen.add(told.partition("(")[0])
    assert named == {True}
    assert any("cannot be read" in text for text in seen)


def test_sweeps_are_sorted_by_number(small, tmp_path):
    lengths = (1_800,) * 11 + (200,)
    paths = copy_of(small, tmp_path, divide_sensors(lengths))
    with open_mea(paths["cmcr_path"]) as source:
        found = sensor_data(source)
        assert [sweep.start for sweep in found.sweeps] == [1_800 * n for n in range(12)]
        assert found.n_frames == 20_000
        assert read_analog(source).gaps == []
