import shutil

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

import labtree
from labtree import ConfigurationError, FormatError, SessionError
from labtree.mea import light
from labtree.mea import recording as recordings
from labtree.mea.mcs_files import find, open_mea
from labtree.mea.mcs_units import read_units
from labtree.testing.mea import write_recording
from support.examples import examples


def copy_of(recording, folder, change=None, which="cmcr_path"):
    """Copy the pair of files and change one of them."""
    folder.mkdir(exist_ok=True)
    for path in (recording.cmcr_path, recording.cmtr_path):
        shutil.copy(path, folder / path.name)
    if change is not None:
        with h5py.File(folder / getattr(recording, which).name, "r+") as file:
            change(file)
    return {
        "cmcr_path": folder / recording.cmcr_path.name,
        "cmtr_path": folder / recording.cmtr_path.name,
    }


def load(paths, **kwargs):
    return labtree.mea.load_recording(session=labtree.create_session("r"), **paths, **kwargs)


# --- what is planted comes back


def test_spikes_frames_positions_and_waveforms_are_the_planted_ones(recording, loaded):
    units = loaded["units"].to_dataset()
    assert units["unit"].values.tolist() == list(recording.spikes)
    for unit, spikes in recording.spikes.items():
        assert loaded.session.spikes(unit).values.tolist() == spikes.tolist()
        row = units.sel(unit=unit)
        assert (int(row["row"]), int(row["column"])) == recording.positions[unit]
        r, c = recording.positions[unit]
        assert int(row["sensor_id"]) == (c - 1) * 65 + r
        assert int(row["n_excluded_peaks"]) == recording.excluded[unit]
        np.testing.assert_allclose(row["waveform"], recording.waveforms[unit], rtol=1e-6)
    assert units["waveform"].dtype == np.float32
    assert units["snr"].values.tolist() == [6.0, 7.0, 8.0, 9.0]
    assert units["tags"].values.tolist() == ["a"] * 4
    frames = loaded["metadata"]["frame_timestamps"].values
    assert frames[: len(recording.frames)].tolist() == recording.frames.tolist()
    np.testing.assert_array_equal(loaded["metadata"]["frame_time"], frames / 20_000)
    assert loaded["stimulus/frame_times"]["default"].values.tolist() == frames.tolist()


def test_rates_and_metadata(recording, loaded):
    attrs = loaded["metadata"].attrs
    assert attrs["acquisition_rate"] == 20_000.0
    assert attrs["sample_interval"] == 1 / 20_000
    assert attrs["recording_duration_s"] == recording.duration_us / 1e6
    assert attrs["sys_meta"]["ProgramName"] == "CMOS-MEA-Tools"
    assert attrs["sys_meta"]["ID.Instance"] == recording.cmcr_path.name
    assert loaded.session.completed_steps == {"load_recording"}
    assert loaded.session.warnings == []
    assert set(loaded.session.source_files) == {"cmcr_path", "cmtr_path"}


def test_light_reference_keeps_counts_and_scales_to_volts(recording, loaded):
    light_reference = loaded["stimulus/light_reference"].to_dataset()
    with h5py.File(recording.cmcr_path) as file:
        counts = file["Acquisition/Analog Data/ChannelData 1"][()]
    for channel in (0, 1):
        raw = light_reference[f"raw_ch{channel + 1}"]
        assert raw.dtype == np.int32
        np.testing.assert_array_equal(raw, counts[channel])
        for name, factor in (("1khz", 20), ("10hz", 2000)):
            n = counts.shape[1] // factor
            expected = [counts[channel, i * factor : (i + 1) * factor].mean() for i in range(n)]
            low = light_reference[f"{name}_ch{channel + 1}"]
            np.testing.assert_allclose(low, np.float32(expected))
            assert low.dtype == np.float32
    volts = labtree.mea.to_physical(light_reference["raw_ch1"])
    np.testing.assert_allclose(volts, counts[0] * 1000.0 * 1e-9)
    assert volts.attrs["units"] == "V"
    with pytest.raises(ConfigurationError, match="no conversion_factor and exponent"):
        labtree.mea.to_physical(xr.DataArray([1, 2], name="x"))


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 1_300_000), max_size=30), min_size=1, max_size=4),
    st.integers(1, 1_250_000),
)
def test_firing_rates_against_a_loop(trains, duration_us):
    flat = np.array([t for train in trains for t in train], np.int64)
    found = recordings.firing_rates(flat, np.array([len(t) for t in trains]), duration_us)
    n_bins = max(-(-duration_us // 100_000), 1)
    for row, train in zip(found, trains, strict=True):
        for index in range(n_bins):
            low, high = index * 100_000, min((index + 1) * 100_000, duration_us)
            last = index == n_bins - 1
            count = sum(low <= t < high or (last and t == duration_us) for t in train)
            assert row[index] == np.float32(count / ((high - low) / 1e6))
    assert found.shape == (len(trains), n_bins)


def test_the_last_partial_bin_is_a_rate_over_its_own_width(recording, loaded):
    rates = loaded["units"]["firing_rate_10hz"].values
    duration = recording.duration_us
    n_bins = -(-duration // 100_000)
    assert rates.shape == (4, n_bins)
    width = (duration - (n_bins - 1) * 100_000) / 1e6
    assert 0 < width < 0.1
    spikes = recording.spikes["unit_001"] * 50
    last = (spikes >= (n_bins - 1) * 100_000).sum()
    assert rates[0, -1] == pytest.approx(last / width)


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 10**12), st.sampled_from([20_000.0, 10_000.0, 12_345.6]))
def test_rounding_is_to_the_nearest_even_sample(us, rate):
    assert recordings.samples_from_us(np.array([us]), rate)[0] == round(us * rate / 1e6)


@settings(max_examples=examples(50), deadline=None)
@given(
    st.integers(0, 400),
    st.sampled_from([20_000.0, 19_999.99, 19_999.0, 333.3, 25_000.0, 12_345.6]),
    st.sampled_from([1000.0, 10.0, 333.0]),
)
def test_block_means_against_a_loop(n, rate, target):
    if rate < target:
        with pytest.raises(ValueError, match="cannot average"):
            light.block_means(np.zeros(n), rate, target)
        return
    signal = np.random.default_rng(n).normal(size=n)
    found = light.block_means(signal, rate, target)
    factor = rate / target
    assert len(found) == int(n / factor + 1e-9)
    for k, value in enumerate(found):
        low, high = round(k * factor), min(round((k + 1) * factor), n)
        assert value == pytest.approx(signal[low:high].mean(), abs=1e-5)


def test_a_rate_a_little_low_does_not_shift_the_bins():
    signal = np.repeat(np.arange(1000), 20)
    np.testing.assert_array_equal(light.block_means(signal, 19_999.99, 1000.0), np.arange(1000))


def test_frames_follow_the_rule_of_the_facts():
    sync = np.zeros(3000)
    rises = [100, 300, 500, 700, 900, 1300]
    for rise in rises:
        sync[rise + 1 : rise + 20] = 50_000
    assert light.frame_timestamps(sync).tolist() == [900, 1300]  # four dropped
    few = np.zeros(3000)
    few[101:120] = few[301:320] = 50_000
    assert light.frame_timestamps(few).tolist() == [100, 300]  # four or fewer: all kept
    assert light.frame_timestamps(np.zeros(50)).tolist() == []
    wide = np.where(sync > 0, 20_000, -20_000)
    expected = light.frame_timestamps(wide).tolist()
    assert light.frame_timestamps(wide.astype(np.int16)).tolist() == expected
    assert light.frame_timestamps(np.zeros(0)).tolist() == []
    with pytest.raises(FormatError, match="NaN"):
        light.frame_timestamps(np.array([0.0, np.nan, 1.0]))


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=3, max_size=60), st.sampled_from(["i4", "u2", "f8"])
)
def test_frames_are_those_of_find_peaks(values, dtype):
    sync = np.array(values, dtype)
    top = np.percentile(sync, 99.9)
    # not divided by the percentile: rounding would make maxima of equal steps
    height = 0.1 * top if top > 0 else 0.1
    expected = signal.find_peaks(np.diff(sync.astype(float)), height=height)[0]
    expected = expected[4:] if len(expected) > 4 else expected
    assert light.frame_timestamps(sync).tolist() == expected.tolist()


# --- the rate


def set_duration(us):
    def change(file):
        file.attrs["LB.RecordingDuration"] = np.array([us], np.int64)

    return change


def test_rate_comes_from_tick_even_if_the_duration_is_a_little_off(recording, tmp_path):
    paths = copy_of(recording, tmp_path, set_duration(recording.duration_us + 5_000))
    session = load(paths)
    assert session["metadata"].attrs["acquisition_rate"] == 20_000.0
    assert session.session.warnings == []


def test_tick_and_duration_that_contradict_each_other_are_an_error(recording, tmp_path):
    paths = copy_of(recording, tmp_path, set_duration(recording.duration_us * 2))
    with pytest.raises(FormatError, match="Tick says 20000 Hz"):
        load(paths)


def drop_meta(file):
    del file["Acquisition/Analog Data/ChannelMeta"]


def test_without_tick_the_duration_gives_the_rate_with_a_remark(recording, tmp_path):
    session = load(copy_of(recording, tmp_path, drop_meta))
    assert session["metadata"].attrs["acquisition_rate"] == 20_000.0
    assert "estimated" in session.session.warnings[0]


def test_cmtr_alone_finds_the_rate_through_its_link(recording, tmp_path):
    session = load({"cmtr_path": copy_of(recording, tmp_path)["cmtr_path"]})
    assert session["metadata"].attrs["acquisition_rate"] == 20_000.0
    assert session.session.spikes("unit_002").values.tolist() == (
        recording.spikes["unit_002"].tolist()
    )


def test_cmtr_without_its_cmcr_needs_a_rate(recording, tmp_path):
    shutil.copy(recording.cmtr_path, tmp_path)
    paths = {"cmtr_path": tmp_path / recording.cmtr_path.name}
    with pytest.raises(ConfigurationError, match=r"pass acquisition_rate=, the samples"):
        load(paths)
    session = load(paths, acquisition_rate=20_000.0)
    assert session.session.spikes("unit_001").values.tolist() == (
        recording.spikes["unit_001"].tolist()
    )
    assert "stimulus" not in session.children


def test_a_given_rate_that_contradicts_tick_is_an_error(recording, tmp_path):
    with pytest.raises(ConfigurationError, match="Tick says"):
        load(copy_of(recording, tmp_path), acquisition_rate=10_000.0)
    with pytest.raises(ConfigurationError, match="acquisition_rate must be a number above 0"):
        load(copy_of(recording, tmp_path), acquisition_rate=0.0)


def test_cmcr_alone_gives_light_and_frames(recording):
    session = load({"cmcr_path": recording.cmcr_path})
    assert "units" not in session.children
    assert session.session.unit_count == 0
    assert len(session["metadata"]["frame_timestamps"]) >= len(recording.frames)


# --- units


def test_positions_do_not_come_from_source(recording, loaded):
    # the first sample of Source is what the peer takes for a sensor
    assert loaded["units"]["row"].values.tolist() == [
        recording.positions[unit][0] for unit in recording.spikes
    ]


def test_position_falls_back_to_unit_info_and_then_to_the_table(recording, tmp_path):
    def change(file):
        for number in (1, 2):
            for name in ("Row", "Column", "SensorID"):
                del file[f"Spike Sorter/Unit {number}"].attrs[name]
        del file["Spike Sorter/Unit 2/Unit Info"]

    session = load(copy_of(recording, tmp_path, change, "cmtr_path"))
    assert session["units"]["row"].values.tolist() == [
        recording.positions[unit][0] for unit in recording.spikes
    ]


def test_no_sensor_id_anywhere_is_an_error(recording, tmp_path):
    def change(file):
        del file["Spike Sorter/Unit 1"].attrs["SensorID"]
        del file["Spike Sorter/Unit 1/Unit Info"]
        del file["Spike Sorter/Units"]

    with pytest.raises(FormatError, match="no SensorID"):
        load(copy_of(recording, tmp_path, change, "cmtr_path"))


def test_a_sensor_that_does_not_fit_its_row_and_column_is_remarked(recording, tmp_path):
    def change(file):
        file["Spike Sorter/Unit 3"].attrs["SensorID"] = np.array([4000], np.int32)

    session = load(copy_of(recording, tmp_path, change, "cmtr_path"))
    assert any("Unit 3" in text for text in session.session.warnings)


def replace_peaks(number, edit):
    def change(file):
        group = file[f"Spike Sorter/Unit {number}"]
        peaks = group["Peaks"][()]
        del group["Peaks"]
        group["Peaks"] = edit(peaks)

    return change


def test_unsorted_peaks_are_put_in_order_with_their_amplitudes(recording, tmp_path, loaded):
    session = load(
        copy_of(recording, tmp_path, replace_peaks(1, lambda p: p[::-1]), "cmtr_path")
    )
    for name in ("spike_times", "amplitude"):
        np.testing.assert_array_equal(session["units"][name], loaded["units"][name])


def test_a_unit_without_spikes_is_empty_and_has_no_waveform(recording, tmp_path):
    def none(peaks):
        peaks["IncludePeak"] = 0
        return peaks

    session = load(copy_of(recording, tmp_path, replace_peaks(2, none), "cmtr_path"))
    units = session["units"].to_dataset()
    assert units["row_size"].values[1] == 0
    assert session.session.spikes("unit_002").size == 0
    assert np.isnan(units["waveform"].values[1]).all()
    assert (units["firing_rate_10hz"].values[1] == 0).all()


def test_infinite_cutouts_of_excluded_peaks_do_not_spoil_the_waveform(recording, tmp_path):
    def spoil(peaks):
        peaks["3"][peaks["IncludePeak"] == 0] = np.inf
        return peaks

    session = load(copy_of(recording, tmp_path, replace_peaks(1, spoil), "cmtr_path"))
    np.testing.assert_allclose(
        session["units"]["waveform"].values[0], recording.waveforms["unit_001"], rtol=1e-6
    )


def test_cutout_columns_in_any_order_and_place(recording, tmp_path, loaded):
    def shuffle(peaks):
        names = list(peaks.dtype.names)
        order = names[::-1]
        out = np.zeros(len(peaks), [(n, peaks.dtype[n]) for n in order])
        for name in names:
            out[name] = peaks[name]
        return out

    session = load(copy_of(recording, tmp_path, replace_peaks(1, shuffle), "cmtr_path"))
    np.testing.assert_allclose(
        session["units"]["waveform"], loaded["units"]["waveform"], rtol=1e-6
    )


def test_peaks_without_the_include_column_are_an_error(recording, tmp_path):
    def cut(peaks):
        return peaks[["Timestamp", "PeakAmplitude"]].copy()

    with pytest.raises(FormatError, match="lacks the columns \\['IncludePeak'\\]"):
        load(copy_of(recording, tmp_path, replace_peaks(1, cut), "cmtr_path"))


def test_two_units_of_one_number_are_an_error(recording, tmp_path):
    def change(file):
        file["Spike Sorter/Unit 2"].attrs["UnitID"] = np.array([1], np.int32)

    with pytest.raises(FormatError, match="two units have one UnitID"):
        load(copy_of(recording, tmp_path, change, "cmtr_path"))


def test_units_are_in_order_of_their_number(tmp_path):
    truth = write_recording(
        tmp_path, n_units=12, movie_frames={"noise_a": 60}, repeats=1, sensor_s=0.05
    )
    with open_mea(truth.cmtr_path) as source:
        assert [unit.number for unit in read_units(source)] == list(range(1, 13))


# --- damage and hostile files


def test_no_sorter_is_an_error(recording, tmp_path):
    def change(file):
        del file["Spike Sorter"]

    with pytest.raises(FormatError, match="no group 'Spike Sorter'"):
        load(copy_of(recording, tmp_path, change, "cmtr_path"))


@pytest.mark.parametrize("which", ["cmcr_path", "cmtr_path"])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.9])
def test_truncated_files_are_an_error_and_leave_the_session_empty(
    recording, tmp_path, which, share
):
    paths = copy_of(recording, tmp_path)
    whole = paths[which].read_bytes()
    paths[which].write_bytes(whole[: int(len(whole) * share)])
    session = labtree.create_session("r")
    before = dict(session.attrs)
    with pytest.raises(FormatError, match=which[:4]):
        labtree.mea.load_recording(session=session, **paths)
    assert session.attrs == before
    assert not session.children


def test_missing_files_and_wrong_suffixes(tmp_path, recording):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load({"cmtr_path": tmp_path / "x.cmtr"})
    with pytest.raises(ConfigurationError, match=r"must be a .cmtr file"):
        load({"cmtr_path": recording.cmcr_path})
    with pytest.raises(ConfigurationError, match="needs cmcr_path or cmtr_path"):
        load({})


def test_a_link_out_of_the_folder_is_refused(recording, tmp_path):
    (tmp_path / "outside").mkdir()
    secret = tmp_path / "outside" / "secret.cmcr"
    shutil.copy(recording.cmcr_path, secret)
    for target in ("../outside/secret.cmcr", str(secret)):

        def change(file, target=target):
            del file["Acquisition"]
            file["Acquisition"] = h5py.ExternalLink(target, "/Acquisition")

        paths = copy_of(recording, tmp_path / "inside", change, "cmtr_path")
        with pytest.raises(FormatError, match="leads out of its folder"):
            load({"cmtr_path": paths["cmtr_path"]})


def test_a_symbolic_link_does_not_lead_out_either(recording, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    shutil.copy(recording.cmtr_path, inside)
    (inside / recording.cmcr_path.name).symlink_to(recording.cmcr_path)
    with pytest.raises(FormatError, match="leads out of its folder"):
        load({"cmtr_path": inside / recording.cmtr_path.name})


def test_data_stored_outside_of_the_folder_are_refused(recording, tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(8000))

    def change(file):
        group = file["Acquisition/Analog Data"]
        del group["ChannelData 1"]
        group.create_dataset(
            "ChannelData 1", (2, 1000), "i4", external=[(str(tmp_path / "secret.bin"), 0, 8000)]
        )

    with pytest.raises(FormatError, match="leads out of its folder"):
        load(copy_of(recording, tmp_path / "inside", change))


def test_virtual_data_from_outside_are_refused(recording, tmp_path):
    def change(file):
        group = file["Acquisition/Analog Data"]
        del group["ChannelData 1"]
        layout = h5py.VirtualLayout((2, 10), "i4")
        layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (2, 10))
        group.create_virtual_dataset("ChannelData 1", layout)

    with pytest.raises(FormatError, match="leads out of its folder"):
        load(copy_of(recording, tmp_path / "inside", change))


def test_links_in_a_circle_are_an_error(recording, tmp_path):
    def change(file):
        del file["Acquisition"]
        file["Acquisition"] = h5py.ExternalLink(recording.cmtr_path.name, "/Acquisition")

    paths = copy_of(recording, tmp_path, change, "cmtr_path")
    with pytest.raises(FormatError, match="circle"):
        load({"cmtr_path": paths["cmtr_path"]})


def test_soft_links_inside_work(recording, tmp_path):
    def change(file):
        file.move("Acquisition/Analog Data/ChannelData 1", "elsewhere")
        file["Acquisition/Analog Data/ChannelData 1"] = h5py.SoftLink("/elsewhere")

    paths = copy_of(recording, tmp_path, change)
    session = load(paths)
    assert session["stimulus/light_reference"]["raw_ch1"].dtype == np.int32
    with open_mea(paths["cmcr_path"]) as source:
        assert find(source, "Acquisition/nothing/here") is None


def test_a_dataset_that_claims_terabytes_is_refused(recording, tmp_path):
    def change(file):
        group = file["Acquisition/Analog Data"]
        del group["ChannelData 1"]
        group.create_dataset("ChannelData 1", (2, 10**12), "i4", chunks=(2, 1000))

    with pytest.raises(FormatError, match="claims"):
        load(copy_of(recording, tmp_path, change))


def test_a_session_is_not_filled_with_another_recording(recording, loaded, tmp_path):
    other = tmp_path / "other.cmtr"
    shutil.copy(recording.cmtr_path, other)
    with pytest.raises(SessionError, match="holds"):
        labtree.mea.load_recording(session=loaded, cmtr_path=other, acquisition_rate=2e4)
    with pytest.raises(ConfigurationError, match="dataset_id='x'"):
        labtree.mea.load_recording(
            session=loaded, cmtr_path=recording.cmtr_path, dataset_id="x"
        )


def test_immediate_mode_makes_the_file_and_skips_when_it_is_done(recording, tmp_path):
    call = {
        "cmcr_path": recording.cmcr_path,
        "cmtr_path": recording.cmtr_path,
        "output_dir": tmp_path,
    }
    first = labtree.mea.load_recording(**call)
    assert first.hdf5_path == tmp_path / "2026.01.15-10.00.00-Rec.h5"
    assert (first.name, first.skipped) == ("load_recording", False)
    before = first.hdf5_path.stat().st_mtime_ns
    second = labtree.mea.load_recording(**call)
    assert second.skipped
    assert first.hdf5_path.stat().st_mtime_ns == before
    assert not labtree.mea.load_recording(**call, force=True).skipped
    session = labtree.load_session(first.hdf5_path)
    assert session.session.spikes("unit_001").values.tolist() == (
        recording.spikes["unit_001"].tolist()
    )


# --- odd but valid files


def test_no_units(recording, tmp_path):
    def change(file):
        for name in list(file["Spike Sorter"]):
            del file[f"Spike Sorter/{name}"]

    session = load(copy_of(recording, tmp_path, change, "cmtr_path"))
    assert session.session.unit_count == 0
    assert session["units"]["firing_rate_10hz"].shape[0] == 0
    labtree.mea.extract_features(["frif"], session=session)
    assert session["features/frif"]["frif"].shape[0] == 0
    resumed = labtree.load_session(session.session.save(tmp_path / "s.h5"))
    assert resumed["units"].to_dataset().identical(session["units"].to_dataset())


@pytest.mark.parametrize("n_channels", [1, 3])
def test_other_numbers_of_analog_channels(recording, tmp_path, n_channels):
    def change(file):
        group = file["Acquisition/Analog Data"]
        counts, meta = group["ChannelData 1"][()], group["ChannelMeta"][()]
        del group["ChannelData 1"], group["ChannelMeta"]
        sync = counts[1:] if n_channels == 1 else counts[[0, 1, 0]]
        group["ChannelData 1"] = sync
        group["ChannelMeta"] = meta[:n_channels]

    session = load(copy_of(recording, tmp_path, change))
    names = [n for n in session["stimulus/light_reference"].data_vars if n.startswith("raw")]
    assert names == [f"raw_ch{i + 1}" for i in range(n_channels)]
    frames = session["metadata"]["frame_timestamps"].values
    assert frames[: len(recording.frames)].tolist() == recording.frames.tolist()


def test_no_duration_anywhere(recording, tmp_path):
    def change(file):
        del file.attrs["LB.RecordingDuration"]

    paths = copy_of(recording, tmp_path, change)
    with h5py.File(paths["cmtr_path"], "r+") as file:
        change(file)
    session = load(paths)
    assert session["metadata"].attrs["recording_duration_s"] == recording.duration_us / 1e6
    paths["cmcr_path"].unlink()
    session = load({"cmtr_path": paths["cmtr_path"]}, acquisition_rate=20_000.0)
    assert "1 s after the last spike" in session.session.warnings[0]
    last = max(int(spikes[-1]) for spikes in recording.spikes.values()) * 50
    n_bins = session["units"].sizes["time_10hz"]
    assert n_bins == -(-(last + 1_000_000) // 100_000) or n_bins == -(
        -(last + 1_000_024) // 100_000
    )


def test_a_sync_channel_without_frames_is_remarked(recording, tmp_path):
    def change(file):
        data = file["Acquisition/Analog Data/ChannelData 1"]
        data[1] = 0

    session = load(copy_of(recording, tmp_path, change))
    assert session["metadata"].sizes["frame"] == 0
    assert "no frames found" in session.session.warnings[0]
