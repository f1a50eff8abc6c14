"""Resuming after any step gives what an uninterrupted run gives, bit for bit."""

import numpy as np
import pytest

import labtree
from labtree.pipeline.step_records import fingerprint_items
from labtree.pipeline.steps import BOOKKEEPING


def all_steps(recording, arguments):
    mea = labtree.mea
    return [
        (
            mea.load_recording_with_eimage_sta,
            {"cmcr_path": recording.cmcr_path, "cmtr_path": recording.cmtr_path},
        ),
        (mea.add_section_time, arguments),
        (
            mea.section_spike_times,
            {"config_dir": recording.stimuli_dir, "pad_margin": (0.1, 0.2)},
        ),
        (
            mea.compute_sta,
            {"cover_range": (-12, 0), "stimuli_dir": recording.stimuli_dir, "permutations": 5},
        ),
        (mea.extract_features, {"features": ["frif"]}),
    ]


def content(session):
    return fingerprint_items(session, ignore_root=BOOKKEEPING)


def run(session, steps):
    for step, parameters in steps:
        step(session=session, **parameters)
    return session


@pytest.fixture
def start(recording, tmp_path):
    def make():
        return labtree.create_session(
            "rec", cmcr_path=recording.cmcr_path, cmtr_path=recording.cmtr_path,
            output_dir=tmp_path,
        )  # fmt: skip

    return make


def without_times(session):
    return [
        {k: v for k, v in one.items() if k not in ("duration_s", "finished_at")}
        for one in session.attrs["steps"]
    ]


def test_resume_after_every_step(recording, arguments, start, tmp_path):
    steps = all_steps(recording, arguments)
    whole = run(start(), steps)
    for stop in range(1, len(steps)):
        first = run(start(), steps[:stop])
        path = first.session.checkpoint(tmp_path / f"after{stop}")
        resumed = labtree.load_session(path)
        assert resumed.session.completed_steps == first.session.completed_steps
        # the whole script again: what is done is skipped
        stamps = [one["finished_at"] for one in resumed.attrs["steps"]]
        run(resumed, steps)
        assert [one["finished_at"] for one in resumed.attrs["steps"]][: len(stamps)] == stamps
        assert content(resumed) == content(whole)
        assert without_times(resumed) == without_times(whole)
        assert resumed.session.warnings == whole.session.warnings


def test_file_after_file_is_the_same_too(recording, arguments, start, tmp_path):
    steps = all_steps(recording, arguments)
    whole = run(start(), steps)
    path = start().session.save(tmp_path / "immediate")
    for step, parameters in steps:
        result = step(hdf5_path=path, **parameters)
        assert not result.skipped
    saved = labtree.load_session(path)
    assert content(saved) == content(whole)
    assert without_times(saved) == without_times(whole)
    for step, parameters in steps:
        assert step(hdf5_path=path, **parameters).skipped


def test_any_step_may_go_on_after_a_crash_of_a_later_one(recording, arguments, start):
    steps = all_steps(recording, arguments)
    session = run(start(), steps[:3])
    before = content(session)

    @labtree.step(requires=["section_spike_times"])
    def crash(session):
        session["sections/noise_small"].dataset = (
            session["sections/noise_small"].to_dataset().isel(unit=[0])
        )
        raise RuntimeError

    with pytest.raises(RuntimeError):
        crash(session=session)
    assert content(session) == before
    run(session, steps[3:])
    assert content(session) == content(run(start(), steps))


def test_a_section_time_made_anew_asks_for_the_rest_again(recording, arguments, start):
    steps = all_steps(recording, arguments)
    session = run(start(), steps)
    old = session["features/sta_noise_small"]["n_spikes"].values
    labtree.mea.add_section_time(session=session, **{**arguments, "repeats": 1})
    assert session.session.completed_steps == {
        "load_recording", "load_recording_with_eimage_sta", "add_section_time",
    }  # fmt: skip
    assert any("compute_sta is out of date" in text for text in session.session.warnings)
    with pytest.raises(labtree.ConfigurationError, match="needs section_spike_times first"):
        labtree.mea.compute_sta((-12, 0), recording.stimuli_dir, session=session)
    for step, parameters in steps[2:]:
        step(session=session, **parameters)
    new = session["features/sta_noise_small"]["n_spikes"].values
    assert (new < old).all()
    assert np.array_equal(session["sections/noise_small"]["presentation"], [0])
