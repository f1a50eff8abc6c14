"""hdmea's files, written here from the description of their layout."""

import contextlib
import json
import random

import h5py
import numpy as np
import pytest

import labtree
from labtree import FormatError, SaveState, SessionError
from labtree.interop.hdmea import _section_table, import_hdmea, is_hdmea
from labtree.pipeline.sessions import UNSAVED
from labtree.pipeline.step_records import fingerprint_items

RATE = 20_000.0
FRAMES = (1667 + np.rint(np.arange(2000) * RATE / 60)).astype(np.uint64)
SPIKES = {
    "unit_001": np.unique(np.random.default_rng(1).integers(0, 600_000, 900)).astype(np.uint64),
    "unit_002": np.unique(np.random.default_rng(2).integers(0, 600_000, 500)).astype(np.uint64),
    "unit_003": np.array([7], np.uint64),
}
TRIALS = np.array([[100_000, 140_000], [140_000, 180_000], [180_000, 220_000]])
PAD = 50


def put(group, name, value):
    """Store a value as hdmea's session does."""
    if isinstance(value, dict):
        below = group.create_group(name)
        for key, member in value.items():
            put(below, str(key), member)
    elif isinstance(value, str):
        group.create_dataset(name, data=value, dtype=h5py.string_dtype())
    else:
        group.create_dataset(name, data=value)


def sectioned(spikes):
    inside = [
        spikes[(spikes >= a - PAD) & (spikes < b + PAD)].astype(np.int64) for a, b in TRIALS
    ]
    return {
        "full_spike_times": np.unique(np.concatenate(inside)),
        "trials_spike_times": dict(enumerate(inside)),
        "trials_start_end": TRIALS,
        "_attrs": {"n_trials": 3, "pad_margin": [0.0025, 0.0025], "pre_samples": PAD,
                   "post_samples": PAD},
    }  # fmt: skip


def write_session(path, checkpoint=None, change=None):
    with h5py.File(path, "w") as file:
        file.attrs["dataset_id"] = "rec1"
        file.attrs["created_at"] = "2026-01-15T10:00:00+00:00"
        file.attrs["hdmea_version"] = "0.1.0"
        for number, (unit, spikes) in enumerate(SPIKES.items(), start=1):
            group = file.create_group(f"units/{unit}")
            group.attrs["unit_num"] = number
            group.attrs["original_name"] = f"Unit_{number}"
            group.attrs["row"], group.attrs["col"], group.attrs["global_id"] = 0, number, number
            put(group, "spike_times", spikes)
            put(group, "waveform", np.full(60, number, np.float32))
            put(group, "firing_rate_10hz", np.arange(300, dtype=np.float32))
            sta = {"data": np.full((30, 4, 4), number, np.float32),
                   "metadata": {"cover_range": np.array([-30, 0]), "movie_name": "noise",
                                "n_spikes_used": 5}}  # fmt: skip
            frif = {"data": {"FRIF": np.zeros(1999, np.float32),
                             "FRIF_x_axis": FRAMES[:-1] / RATE},
                    "metadata": {"extractor_version": "1.0.0"}}  # fmt: skip
            put(group, "features", {"sta_noise": sta, "frif": frif})
            put(group, "spike_times_sectioned", {"steps": sectioned(spikes)})
        put(file, "metadata", {
            "acquisition_rate": RATE, "dataset_id": "rec1", "frame_timestamps": FRAMES,
            "sys_meta": {"ProgramName": "x", "LB.RecordingDuration": 30_000_000},
            "names": np.array(["a", "é"], dtype=h5py.string_dtype()),
        })  # fmt: skip
        start, end = FRAMES[180 - 60], FRAMES[180 + 120 + 400 + 1]
        put(file, "stimulus", {
            "light_reference": {"raw_ch1": np.arange(100, dtype=np.float32),
                                "10hz_ch1": np.arange(3, dtype=np.float32)},
            "frame_times": {"default": FRAMES},
            "section_time": {"steps": np.array([[start, end]], np.int64)},
            "light_template": {"steps": np.ones(50, np.float32)},
        })  # fmt: skip
        file.create_group("source_files").attrs["cmtr_path"] = "d/rec1.cmtr"
        pipeline = file.create_group("pipeline")
        pipeline.attrs["stage1_completed"] = True
        info = pipeline.create_group("session_info")
        info.attrs["saved_at"] = "2026-01-15T10:05:00+00:00"
        if checkpoint:
            info.attrs["checkpoint_name"] = checkpoint
        steps = ["section_spike_times", "load_recording", "add_section_time"]
        put(info, "completed_steps", np.array(steps, dtype=h5py.string_dtype()))
        put(info, "warnings", np.array(["beware"], dtype=h5py.string_dtype()))
        if change is not None:
            change(file)
    return path


def write_immediate(path):
    with h5py.File(path, "w") as file:
        file.attrs["dataset_id"] = "rec2"
        file.attrs["stage1_completed"] = True
        file.attrs["stage1_params_hash"] = "0123456789abcdef"
        file.attrs["features_extracted"] = json.dumps(["frif"])
        file.attrs["source_files"] = json.dumps({"cmcr_path": "d/rec2.cmcr", "cmtr_path": None})
        file.attrs["hdmea_pipeline_version"] = "0.1.0"
        for unit, spikes in SPIKES.items():
            group = file.create_group(f"units/{unit}")
            group.attrs["spike_count"] = len(spikes)
            put(group, "spike_times", spikes)
            feature = group.create_group("features/noise")
            feature.create_dataset("sta", data=np.zeros((5, 2, 2), np.float32))
            feature.attrs["n_spikes"] = 9
        put(
            file, "metadata", {"acquisition_rate": np.array([RATE]), "frame_timestamps": FRAMES}
        )
        put(file, "stimulus", {"frame_time": {"default": FRAMES}})
    return path


def test_a_saved_session_comes_in_whole(tmp_path):
    path = write_session(tmp_path / "s.h5")
    session = labtree.load_session(path)
    assert session.attrs["dataset_id"] == "rec1"
    assert session.attrs["created_at"] == "2026-01-15T10:00:00+00:00"
    assert session.session.completed_steps == {
        "section_spike_times", "load_recording", "add_section_time",
    }  # fmt: skip
    assert "beware" in session.session.warnings
    assert session.session.save_state is SaveState.DEFERRED
    assert {k: str(v) for k, v in session.session.source_files.items()} == {
        "cmtr_path": "d/rec1.cmtr"
    }
    units = session["units"]
    for unit, spikes in SPIKES.items():
        assert session.session.spikes(unit).values.tolist() == spikes.tolist()
    assert units["waveform"].dtype == np.float32
    assert units["waveform"].values[:, 0].tolist() == [1, 2, 3]
    assert units["firing_rate_10hz"].dims == ("unit", "time_10hz")
    assert units["original_name"].values.tolist() == ["Unit_1", "Unit_2", "Unit_3"]
    assert units["col"].values.tolist() == [1, 2, 3]
    assert session["metadata"].attrs["sys_meta"] == {
        "ProgramName": "x", "LB.RecordingDuration": 30_000_000,
    }  # fmt: skip
    assert session["metadata"].attrs["names"] == ["a", "é"]
    np.testing.assert_array_equal(session["metadata"]["frame_timestamps"], FRAMES)
    assert session["stimulus/light_reference"]["raw_ch1"].dims == ("sample",)
    assert session["stimulus/light_template"]["steps"].size == 50


def test_trials_get_their_integer_numbers_back_as_slices(tmp_path):
    session = import_hdmea(write_session(tmp_path / "s.h5"))
    for unit, spikes in SPIKES.items():
        found = session.session.trials_spike_times(unit, "steps")
        expected = sectioned(spikes)
        assert list(found) == [0, 1, 2]
        for n, train in found.items():
            np.testing.assert_array_equal(train, expected["trials_spike_times"][n])
        np.testing.assert_array_equal(
            session.session.full_spike_times(unit, "steps"), expected["full_spike_times"]
        )
    np.testing.assert_array_equal(session["sections/steps"]["trial_start"][0], TRIALS[:, 0])
    table = session["stimulus/section_time"]
    assert table["movie"].values.tolist() == ["steps"]
    assert table["movie_start_frame"].values.tolist() == [180]
    assert table["movie_length"].values.tolist() == [400]


def test_features_come_in_as_whole_arrays(tmp_path):
    session = import_hdmea(write_session(tmp_path / "s.h5"))
    sta = session["features/sta_noise"]
    assert sta["sta_noise"].shape == (3, 30, 4, 4)
    found = session.session.feature("unit_002", "sta_noise")
    assert (found["data"] == 2).all()
    assert found["metadata"]["movie_name"] == "noise"
    assert found["metadata"]["n_spikes_used"] == 5
    frif = session.session.feature("unit_001", "frif")["data"]
    assert set(frif) == {"FRIF", "FRIF_x_axis"}
    assert any("frif was computed by hdmea" in text for text in session.session.warnings)
    assert any("row, col and global_id" in text for text in session.session.warnings)


def test_sections_that_are_no_slices_are_kept_as_they_are(tmp_path):
    def change(file):
        path = "units/unit_002/spike_times_sectioned/steps/trials_spike_times/1"
        trial = file[path][()]
        del file[path]
        file[path] = trial[:-1]

    session = import_hdmea(write_session(tmp_path / "s.h5", change=change))
    assert "sections" not in session.children
    kept = session["units"].attrs["by_unit"]["spike_times_sectioned/steps"]["unit_002"]
    assert list(kept["trials_spike_times"]) == [0, 1, 2]
    expected = sectioned(SPIKES["unit_002"])["trials_spike_times"][1][:-1]
    np.testing.assert_array_equal(kept["trials_spike_times"][1], expected)
    assert any("not slices" in text for text in session.session.warnings)


def test_checkpoints_and_immediate_files(tmp_path):
    session = import_hdmea(write_session(tmp_path / "c.h5", checkpoint="after_all"))
    assert session.attrs["imported"]["checkpoint_name"] == "after_all"
    immediate = import_hdmea(write_immediate(tmp_path / "i.h5"))
    assert immediate.session.completed_steps == {
        "load_recording", "compute_sta", "extract_features"
    }  # fmt: skip
    assert immediate["metadata"].attrs["acquisition_rate"] == RATE
    assert immediate["stimulus/frame_times"]["default"].size == 2000
    assert immediate["units"]["spike_count"].values.tolist() == [
        len(s) for s in SPIKES.values()
    ]
    assert immediate.session.feature("unit_003", "noise")["metadata"] == {"n_spikes": 9}
    assert list(immediate.session.source_files) == ["cmcr_path"]
    assert immediate.attrs["imported"]["stage1_params_hash"] == "0123456789abcdef"


def test_it_goes_on_with_the_next_steps_and_is_saved(tmp_path):
    session = import_hdmea(write_session(tmp_path / "s.h5"))
    labtree.mea.extract_features(["frif"], session=session)
    frif = session["features/frif"]["frif"]
    spikes = SPIKES["unit_001"]
    inside = ((spikes >= FRAMES[0]) & (spikes < FRAMES[-1])).sum()
    total = (frif.values[0] * np.diff(FRAMES.astype(float)) / RATE).sum()
    assert total == pytest.approx(inside)
    resumed = labtree.load_session(session.session.save(tmp_path / "new.h5"))
    ignore = UNSAVED
    assert fingerprint_items(session, ignore_root=ignore) == fingerprint_items(
        resumed, ignore_root=ignore
    )


def test_a_movie_is_averaged_from_imported_sections(tmp_path):
    path = write_session(tmp_path / "s.h5")
    session = import_hdmea(path)
    movie = np.random.default_rng(0).integers(0, 255, (400, 3, 3), dtype=np.uint8)
    np.save(tmp_path / "steps.npy", movie)
    labtree.mea.compute_sta((-4, 0), tmp_path, session=session, movie_name="steps")
    frames = FRAMES.astype(np.int64)
    whole = sectioned(SPIKES["unit_001"])["full_spike_times"]
    at = np.searchsorted(frames, whole, side="right") - 1 - 180
    at = at[(at >= 4) & (at <= 400)]
    expected = np.mean([movie[f - 4 : f] for f in at], axis=0).astype(np.float32)
    np.testing.assert_array_equal(session["features/sta_steps"]["sta"].values[0], expected)


def test_hdmea_own_file_is_never_replaced(tmp_path):
    path = write_session(tmp_path / "rec1.h5")
    content = path.read_bytes()
    session = labtree.load_session(path)
    with pytest.raises(SessionError, match="the session was imported from"):
        session.session.save()
    with pytest.raises(FileExistsError):
        session.session.save(path)
    assert path.read_bytes() == content


def test_what_is_not_a_session(tmp_path):
    other = tmp_path / "x.h5"
    with h5py.File(other, "w") as file:
        file["a"] = 1
    assert not is_hdmea(other)
    assert not is_hdmea(tmp_path / "none")
    with pytest.raises(FormatError, match="no group 'units'"):
        import_hdmea(other)
    other.write_bytes(b"junk")
    with pytest.raises(FormatError, match="cannot be read"):
        import_hdmea(other)


def test_links_and_outside_data_are_refused(tmp_path):
    def link(file):
        file["metadata/secret"] = h5py.ExternalLink("/etc/x.h5", "/")

    def outside(file):
        file["metadata"].create_dataset("s", (2,), "u1", external=[("/etc/hostname", 0, 2)])

    for change, match in ((link, "is a link"), (outside, "stored outside")):
        path = write_session(tmp_path / "s.h5", change=change)
        with pytest.raises(FormatError, match=match):
            import_hdmea(path)


def test_damaged_values_are_an_error_that_names_the_file(tmp_path):
    def change(file):
        del file["units/unit_001/spike_times"]
        file["units/unit_001/spike_times"] = np.array([0.5, 1.5])

    with pytest.raises(FormatError, match=r"s\.h5: spike_times of 'unit_001'"):
        import_hdmea(write_session(tmp_path / "s.h5", change=change))


def write_padded_immediate(path, pre=200, post=100):
    """A file of immediate mode with padded trials, whose padding stands in attributes."""
    rng = np.random.default_rng(0)
    bounds = np.array([[5000, 9000], [9000, 13_000]])
    trains = {
        f"unit_{n:03d}": np.sort(rng.integers(0, 40_000, 300)).astype(np.uint64) for n in (1, 2)
    }
    frames = np.arange(0, 40_000, 30)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            dataset_id="imm", stage1_completed=True, stage1_params_hash="x",
            features_extracted="[]", source_files="{}", hdmea_pipeline_version="0.1.0",
        )  # fmt: skip
        file["metadata/acquisition_rate"] = np.array([2000.0])
        file["metadata/frame_timestamps"] = frames
        file["stimulus/frame_time/default"] = frames
        file["stimulus/section_time/noise_p"] = np.array([[3000, 20_000]])
        for unit, spikes in trains.items():
            group = file.create_group(f"units/{unit}")
            group["spike_times"] = spikes
            movie = group.create_group("spike_times_sectioned/noise_p")
            movie.attrs.update(
                n_trials=2, pad_margin=[0.1, 0.05], pre_samples=pre, post_samples=post,
                trial_repeats=3, created_at="2026-01-01",
            )  # fmt: skip
            movie["trials_start_end"] = bounds
            parts = [spikes[(spikes >= a - pre) & (spikes < b + post)] for a, b in bounds]
            for number, part in enumerate(parts):
                movie[f"trials_spike_times/{number}"] = part.astype(np.int64)
            movie["full_spike_times"] = np.unique(np.concatenate(parts)).astype(np.int64)
            group["features/noise_p/sta"] = np.ones((20, 3, 4), np.float32)
    return trains, bounds


def test_padded_trials_of_immediate_mode_are_slices(tmp_path):
    trains, bounds = write_padded_immediate(tmp_path / "i.h5")
    session = labtree.open_session(tmp_path / "i.h5")
    for unit, spikes in trains.items():
        found = session.session.trials_spike_times(unit, "noise_p")
        for (start, end), part in zip(bounds, found.values(), strict=True):
            expected = spikes[(spikes >= start - 200) & (spikes < end + 100)]
            assert part.tolist() == expected.tolist()
    table = session["sections/noise_p"]
    assert table["trial_start"].values.tolist() == [[5000, 9000]]
    assert (table.attrs["pre_samples"], table.attrs["post_samples"]) == (200, 100)
    assert session.session.completed_steps == {
        "load_recording", "add_section_time", "section_spike_times", "compute_sta",
    }  # fmt: skip
    assert not any("not slices" in text for text in session.session.warnings)
    assert not any("row, col" in text for text in session.session.warnings)


def test_a_step_on_hdmea_own_file_is_refused_before_any_work(tmp_path):
    ran = []

    @labtree.step()
    def count(session):
        ran.append(1)

    for write in (write_session, write_immediate):
        path = write(tmp_path / "own.h5")
        content = path.read_bytes()
        with pytest.raises(FormatError, match="import it and save it first") as caught:
            count(hdf5_path=path)
        assert not ran
        assert path.read_bytes() == content
        line = str(caught.value).rpartition(": ")[2].replace("other.h5", str(tmp_path / "x.h5"))
        saved = eval(line)  # the line to write, as the message has it
        assert count(hdf5_path=saved).skipped is False
        assert ran.pop()


def test_a_damaged_file_of_hdmea_is_named(tmp_path):
    path = write_session(tmp_path / "own.h5")
    whole = path.read_bytes()
    rng = random.Random(0)
    said = 0
    for number in range(40):
        content = bytearray(whole)
        at = rng.randrange(48, len(content) - 64)
        content[at : at + 64] = rng.randbytes(64) if number % 2 else bytes(64)
        path.write_bytes(content)
        for call in (labtree.load_session, labtree.open_session, import_hdmea):
            with contextlib.suppress(labtree.LabtreeError):
                call(path)
                continue
            said += 1
    assert said


def test_an_export_does_not_replace_the_file_of_hdmea(tmp_path):
    pytest.importorskip("pynwb", reason="writes NWB files")
    path = tmp_path / "rec.h5"
    write_session(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"rec\.h5 is the file that this was imported from"):
        labtree.export_nwb(import_hdmea(path), path)
    assert path.read_bytes() == before


def test_a_movie_without_sections_is_no_section():
    spans = {"none": np.zeros(0, np.int64), "steps": np.array([[100, 200]])}
    table = _section_table(spans, np.arange(0, 1000, 10))
    assert table["movie"].values.tolist() == ["steps"]
    assert (table["start"].values.tolist(), table["end"].values.tolist()) == ([100], [200])
