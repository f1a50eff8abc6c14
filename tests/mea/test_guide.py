"""The calls of the pipeline guide as they stand there, on a recording whose truth is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from labtree import ConfigurationError, SaveState, SessionError, create_session, load_session
from labtree.mea import (
    DictAdapter,
    add_section_time,
    compute_sta,
    extract_features,
    load_recording,
    load_recording_with_eimage_sta,
    section_spike_times,
)
from labtree.testing.mea import write_recording

NAME = "2025.04.10-11.12.57-Rec"
PLAYLIST = "play_optimization_set6_ipRGC_manual"


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """A recording with the guide's padding, and a lab's folder beside it."""
    made = write_recording(
        tmp_path_factory.mktemp("guide"), name=NAME, n_units=3, rate_hz=40.0,
        movie_frames={"noise_small": 400, "step_small": 120}, repeats=1, pad_frame=180,
        pre_margin=60, post_margin=120, seed=6,
    )  # fmt: skip
    table = made.playlist_path.read_text().replace(made.playlist_name, PLAYLIST)
    made.playlist_path.write_text(table)
    return made


@pytest.fixture(autouse=True)
def lab(truth, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with labtree.mea.use_lab(truth.playlist_path.parent):
        yield


def basic(truth, session):
    session = load_recording(
        cmcr_path=str(truth.cmcr_path), cmtr_path=str(truth.cmtr_path), session=session
    )
    session = add_section_time(playlist_name=PLAYLIST, session=session)
    session = section_spike_times(pad_margin=(0.0, 0.0), session=session)
    session = compute_sta(cover_range=(-60, 0), session=session)
    return extract_features(features=["frif"], session=session)


def test_the_basic_pipeline(truth):
    session = basic(truth, create_session(dataset_id=NAME))
    path = session.session.save()
    assert path == Path("artifacts") / f"{NAME}.h5"
    assert path.is_file()
    movie = truth.movies["noise_small"].astype(float)
    for unit, spikes in truth.spikes.items():
        assert session.session.spikes(unit).values.tolist() == spikes.tolist()
        frame = np.searchsorted(truth.frames, spikes, "right") - 1
        own = frame - truth.movie_starts["noise_small"][0]
        inside = own[(own >= 60) & (own < len(movie))]
        expected = np.mean([movie[f - 60 : f] for f in inside], axis=0)
        row = session["features/sta_noise_small"].sel(unit=unit)
        np.testing.assert_allclose(row["sta"], expected, atol=1e-3)
        assert int(row["n_spikes"]) == len(inside)
    assert session.session.completed_steps == {
        "load_recording", "add_section_time", "section_spike_times", "compute_sta",
        "extract_features",
    }  # fmt: skip


def test_what_was_used_of_the_lab_is_recorded_with_the_step(truth):
    session = basic(truth, create_session(dataset_id=NAME))
    records = {record["name"]: record for record in session.attrs["steps"]}
    folder = truth.playlist_path.parent
    assert records["add_section_time"]["parameters"]["playlist_file_path"] == str(
        folder / "playlist.csv"
    )
    assert set(records["add_section_time"]["files"]) == {
        "playlist_file_path", "movie_length_file_path",
    }  # fmt: skip
    assert records["section_spike_times"]["parameters"]["config_dir"] == str(folder / "stimuli")
    assert records["compute_sta"]["parameters"]["stimuli_dir"] == str(folder / "stimuli")


def test_with_electrical_images(truth):
    session = create_session(dataset_id=NAME)
    session = load_recording_with_eimage_sta(
        cmcr_path=str(truth.cmcr_path), cmtr_path=str(truth.cmtr_path), duration_s=120.0,
        spike_limit=10000, window_range=(-10, 40), session=session,
    )  # fmt: skip
    session = add_section_time(playlist_name=PLAYLIST, session=session)
    session = section_spike_times(pad_margin=(0.0, 0.0), session=session)
    session = compute_sta(cover_range=(-60, 0), session=session)
    feature = session.session.feature("unit_001", "eimage_sta")
    assert feature["data"]["eimage_sta"].shape == (50, 9, 9)
    used, left_out = (int(feature["data"][f"n_spikes{end}"]) for end in ("", "_excluded"))
    inside = truth.spikes["unit_001"] < 20_000  # the sensors were recorded for one second
    whole = (truth.spikes["unit_001"] >= 10) & (truth.spikes["unit_001"] + 40 <= 20_000)
    assert used == (inside & whole).sum()
    assert used + left_out == len(truth.spikes["unit_001"])
    assert feature["metadata"]["cutoff_hz"] == 100.0
    assert feature["metadata"]["window_range"] == [-10, 40]


def test_where_sessions_are_saved():
    session = create_session(dataset_id=NAME, output_dir="artifacts")
    assert session.session.save() == Path("artifacts") / f"{NAME}.h5"
    custom = session.session.save(output_path="custom/path/recording.h5")
    assert custom == Path("custom/path/recording.h5")
    assert custom.is_file()
    session.session.save(overwrite=True)
    with pytest.raises(SessionError, match="exists; call"):
        session.session.save(overwrite=False)


def test_a_checkpoint_is_gone_on_from(truth):
    session = load_recording(
        cmcr_path=truth.cmcr_path, cmtr_path=truth.cmtr_path, session=create_session(NAME)
    )
    path = session.session.checkpoint("artifacts/checkpoint_after_load.h5")
    session.session.checkpoint("artifacts/checkpoint_after_load.h5", overwrite=True)
    with pytest.raises(FileExistsError, match="checkpoint_after_load"):
        session.session.checkpoint(path, overwrite=False)
    assert session.session.save_state is SaveState.DEFERRED
    add_section_time(playlist_name=PLAYLIST, session=session)
    session.session.save()
    resumed = load_session("artifacts/checkpoint_after_load.h5")
    assert resumed.session.completed_steps == {"load_recording"}
    add_section_time(playlist_name=PLAYLIST, session=resumed)
    section_spike_times(pad_margin=(0.0, 0.0), session=resumed)
    assert resumed["stimulus/section_time"].identical(session["stimulus/section_time"])
    assert resumed.session.save().is_file()


def test_what_a_session_says_of_itself(truth):
    session = load_recording(
        cmcr_path=truth.cmcr_path, cmtr_path=truth.cmtr_path, session=create_session(NAME)
    )
    view = session.session
    assert view.unit_count == 3
    assert view.memory_estimate_gb > 0
    assert (view.is_saved, view.is_deferred, view.hdf5_path) == (False, True, None)
    assert list(view.warnings) == []
    path = view.save()
    assert (view.is_saved, view.is_deferred, view.hdf5_path) == (True, False, path.resolve())


def test_units_stimulus_and_features_by_hand():
    session = create_session("hand")
    spikes = np.array([5, 100, 150, 900, 1200], np.uint64)
    session.session.add_units(
        {
            "unit_001": {
                "spike_times": spikes,
                "waveform": np.zeros(8, np.float32),
                "spike_times_sectioned": {
                    "movie_a": {
                        "full_spike_times": spikes[1:4],
                        "trials_spike_times": {0: spikes[1:3], 1: spikes[3:4]},
                    }
                },
            },
            "unit_002": {"spike_times": np.array([7])},
        }
    )
    session.session.add_metadata({"dataset_id": "hand"})
    session.session.add_stimulus(
        {
            "section_time": {"movie_a": [[90, 1000]]},
            "light_template": {"movie_a": np.arange(4.0)},
        }
    )
    session.session.add_feature("unit_001", "mine", np.ones(3), {"version": "1"})
    session.session.mark_step_complete("by_hand")
    trials = session.session.trials_spike_times("unit_001", "movie_a")
    assert {n: t.tolist() for n, t in trials.items()} == {0: [100, 150], 1: [900]}
    assert session.session.full_spike_times("unit_001", "movie_a").tolist() == [100, 150, 900]
    assert session["metadata"].attrs.get("acquisition_rate", 20000.0) == 20000.0
    again = load_session(session.session.save())
    assert again.session.trials_spike_times("unit_001", "movie_a")[1].tolist() == [900]
    assert again["stimulus/section_time"].attrs == {"movie_a": [[90, 1000]]}
    assert again["stimulus/light_template"]["movie_a"].values.tolist() == [0, 1, 2, 3]
    assert again.session.feature("unit_001", "mine")["metadata"] == {"version": "1"}
    with pytest.raises(KeyError, match="no unit 'unit_002'; there are: 'unit_001'"):
        again.session.trials_spike_times("unit_002", "movie_a")


def test_extractors_read_adapters_as_they_read_hdf5(truth):
    session = load_recording(
        cmcr_path=truth.cmcr_path, cmtr_path=truth.cmtr_path, session=create_session(NAME)
    )
    unit = DictAdapter({"spike_times": session.session.spikes("unit_001").values})
    assert unit["spike_times"][:].tolist() == truth.spikes["unit_001"].tolist()
    light = session["stimulus/light_reference"]
    stimulus = DictAdapter({"light_reference": {"raw_ch1": light["raw_ch1"].values}})
    np.testing.assert_array_equal(stimulus["light_reference"]["raw_ch1"][:], light["raw_ch1"])
    metadata = DictAdapter({"acquisition_rate": 20000.0})
    assert metadata["acquisition_rate"] == 20000.0


@labtree.step(requires=["load_recording"])
def burst_statistics(session, burst_threshold_ms=10.0, min_spikes_per_burst=3):
    """Find bursts: runs of spikes at short intervals. Units with too few are left out."""
    rate = session["metadata"].attrs["acquisition_rate"]
    for unit in session["units"]["unit"].values:
        spikes = session.session.spikes(unit).values / rate * 1000
        if len(spikes) < min_spikes_per_burst:
            continue
        runs = np.split(spikes, np.flatnonzero(np.diff(spikes) > burst_threshold_ms) + 1)
        bursts = [run for run in runs if len(run) >= min_spikes_per_burst]
        found = {
            "burst_count": len(bursts),
            "spikes_in_bursts": int(sum(map(len, bursts))),
            "burst_rate": len(bursts) / session["metadata"].attrs["recording_duration_s"],
            "burst_threshold_ms": burst_threshold_ms,
        }
        session.session.add_feature(str(unit), "burst_statistics", found)


def test_a_custom_step_in_memory_and_on_a_file(truth):
    session = load_recording(
        cmcr_path=truth.cmcr_path, cmtr_path=truth.cmtr_path, session=create_session(NAME)
    )
    path = session.session.save()
    session.session.add_units({"unit_900": {"spike_times": np.array([4])}})
    session = burst_statistics(burst_threshold_ms=10.0, min_spikes_per_burst=3, session=session)
    result = burst_statistics(hdf5_path=path)
    saved = load_session(result.hdf5_path)
    for unit, spikes in truth.spikes.items():
        count = inside = 0
        run = 1
        for gap in [*np.diff(spikes / 20.0), np.inf]:
            if gap <= 10.0:
                run += 1
                continue
            count, inside = (count + 1, inside + run) if run >= 3 else (count, inside)
            run = 1
        for one in (session, saved):
            found = one.session.feature(unit, "burst_statistics")["data"]
            assert (found["burst_count"], found["spikes_in_bursts"]) == (count, inside)
            assert found["burst_threshold_ms"] == 10.0
    assert session.session.feature("unit_900", "burst_statistics")["data"] == {}
    with pytest.raises(ValueError, match="burst_statistics needs a session"):
        burst_statistics()
    with pytest.raises(ConfigurationError, match="needs load_recording first"):
        burst_statistics(session=create_session("empty"))


def test_the_batch_of_the_guide(truth, tmp_path):
    broken = tmp_path / "broken-.cmtr"
    broken.write_bytes(b"no HDF5")
    rows = [
        ("True", broken.with_name("broken.cmcr"), broken),
        ("True", truth.cmcr_path, truth.cmtr_path),
        ("False", truth.cmcr_path, truth.cmtr_path),
    ]
    pd.DataFrame(rows, columns=["matched", "cmcr_path", "cmtr_path"]).to_csv("pairs.csv")
    output_dir = Path("artifacts")

    def run():
        done, failed = [], []
        for row in pd.read_csv("pairs.csv", dtype=str).itertuples():
            dataset_id = Path(row.cmtr_path).stem.rstrip("-")
            output = output_dir / f"{dataset_id}.h5"
            if row.matched != "True" or output.exists():
                continue
            try:
                session = create_session(dataset_id=dataset_id, output_dir=output_dir)
                load_recording_with_eimage_sta(
                    cmcr_path=row.cmcr_path, cmtr_path=row.cmtr_path, session=session
                )
                done.append(session.session.save(output_path=output))
            except (OSError, ValueError) as error:
                failed.append(type(error).__name__)
        return done, failed

    assert run() == ([output_dir / f"{NAME}.h5"], ["MissingFileError"])
    assert run() == ([], ["MissingFileError"])


def test_prerequisites_are_named_before_anything_else(truth):
    empty = create_session("empty")
    for call, needed in (
        (lambda s: extract_features(features=["no such feature"], session=s), "load_recording"),
        (lambda s: add_section_time(playlist_name="none", session=s), "load_recording"),
        (lambda s: section_spike_times(config_dir="none", session=s), "add_section_time"),
        (lambda s: compute_sta(stimuli_dir="none", session=s), "section_spike_times"),
    ):
        with pytest.raises(ConfigurationError, match=f"needs .*{needed}.* first") as caught:
            call(empty)
        assert f"labtree.mea.{needed}(session=session, ...)" in str(caught.value)
    assert not empty.children
    with labtree.mea.use_lab(), pytest.raises(ConfigurationError, match="needs"):
        extract_features(["frif"], session=empty)


def test_a_session_by_hand_without_a_rate_is_told_what_it_lacks(truth):
    session = create_session("hand")
    session.session.add_units({"unit_001": {"spike_times": truth.spikes["unit_001"]}})
    session.session.mark_step_complete("load_recording")
    with pytest.raises(ConfigurationError, match="no frame_timestamps; load the CMCR"):
        add_section_time(playlist_name=PLAYLIST, session=session)
    session.session.add_metadata({"frame_timestamps": truth.frames})
    add_section_time(playlist_name=PLAYLIST, session=session)
    for call in (
        lambda: section_spike_times(session=session),
        lambda: extract_features(["frif"], session=session),
    ):
        with pytest.raises(ConfigurationError, match="no acquisition_rate; load the recording"):
            call()
    session.session.add_metadata({"acquisition_rate": truth.rate})
    compute_sta(session=section_spike_times(session=session))
    assert "sta_noise_small" in session["features"].children


def test_hdmea_layout_of_section_times_is_no_table(truth):
    session = load_recording(
        cmcr_path=truth.cmcr_path, cmtr_path=truth.cmtr_path, session=create_session(NAME)
    )
    session.session.add_stimulus({"section_time": {"noise_small": [[90, 1000]]}})
    session.session.mark_step_complete("add_section_time")
    with pytest.raises(ConfigurationError, match="no section times yet"):
        section_spike_times(session=session)
    add_section_time(playlist_name=PLAYLIST, session=session)
    assert isinstance(session["stimulus/section_time"], xr.DataTree)
    assert session["stimulus/section_time"]["movie"].values.tolist() == list(truth.movies)
