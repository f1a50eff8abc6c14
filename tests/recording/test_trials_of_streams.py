"""Streams around the rows of a trial table, of equal and of unequal length."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree import SessionError
from labtree.msw import trials_to_frame
from labtree.recording import drop_log
from labtree.recording.session import stream_dataset
from labtree.testing.msw import make_trials

FS, N = 100, 400
TIMES = np.arange(N) / FS


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Four seconds at 100 Hz on the disk, whose samples are their own positions."""
    with labtree.Recorder(tmp_path_factory.mktemp("recordings")) as recorder:
        recorder.init_stream("emg", labtree.StreamInfo(n_channels=2, fs=FS, dtype="int16"))
        recorder.append("emg", positions(), TIMES)
    with labtree.open_session(recorder.path) as tree:
        yield tree


def positions():
    return np.stack([np.arange(N), -np.arange(N)], axis=1).astype("int16")


hundredths = st.integers(-50, 450).map(lambda n: n / 100)


@pytest.mark.filterwarnings("ignore::labtree.RecordingWarning")
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(hundredths, hundredths | st.just(math.nan)), min_size=1, max_size=6),
    st.integers(0, 100),
    st.integers(0, 100),
)
def test_trials_of_unequal_length_against_a_loop(recorded, rows, before, behind):
    table = pd.DataFrame(rows, columns=["go", "end"])
    found = recorded.session.peri_event(
        "emg", table, before / FS, behind / FS, on="go", until="end"
    )
    expected = {}
    for row, (go, end) in enumerate(rows):
        # Up to a period beyond an end, an event belongs to the sample there.
        at = min(max(round(go * FS), 0), N - 1)
        first = at - before
        stop = at + round((end - go) * FS) + behind if math.isfinite(end) else first
        if -1 / FS <= go <= N / FS and 0 <= first < stop <= N:
            expected[row] = positions()[first:stop].T
    assert found.event.values.tolist() == list(expected)
    assert drop_log(found)["event"].tolist() == [
        row for row in table.index if row not in expected
    ]
    assert found.dtype == np.float32
    assert (found.length.values * FS).round().tolist() == [
        x.shape[1] for x in expected.values()
    ]
    assert found.sizes["time"] == max((x.shape[1] for x in expected.values()), default=0)
    for window, samples in zip(found.values, expected.values(), strict=True):
        np.testing.assert_array_equal(window[:, : samples.shape[1]], samples)
        assert np.isnan(window[:, samples.shape[1] :]).all()


def test_padded_trials_stay_on_the_disk_and_are_indexed_like_numpy(recorded):
    table = pd.DataFrame({"go": [0.5, 1.0, 1.1], "end": [0.7, 1.05, 3.0]})
    found = recorded.session.peri_event("emg", table, 0.1, 0.0, on="go", until="end")
    assert not found.variable._in_memory
    whole = found.load().values
    for key in (
        np.s_[1],
        np.s_[:, 1],
        np.s_[[2, 0], :, 5:150],
        np.s_[0, 1, ::-1],
        np.s_[:, [1]],
    ):
        lazy = recorded.session.peri_event("emg", table, 0.1, 0.0, on="go", until="end")
        np.testing.assert_array_equal(lazy[key].values, whole[key])
    assert found.time.values[[0, -1]].tolist() == [-0.1, 1.89]
    assert found.mean("time").shape == (3, 2)  # NaN is left out
    assert sum(len(batch) for batch in labtree.batches(found, 2)) == 3


def test_the_drop_log_names_rows_of_the_table(recorded):
    table = pd.DataFrame(
        {"go": [1.0, np.nan, 9.0, 2.0], "end": [1.5, 1.0, 9.5, 1.0], "choice": list("lrlr")},
        index=pd.Index(["a", "b", "c", "d"], name="trial"),
    )
    found = recorded.session.peri_event("emg", table, 0, 0, on="go", until="end")
    assert found.trial.values.tolist() == ["a"]
    assert found.choice.values.tolist() == ["l"]
    assert drop_log(found).to_dict("list") == {
        "event": ["b", "c", "d"],
        "event_time": [pytest.approx(np.nan, nan_ok=True), 9.0, 2.0],
        "reason": [
            "time is not finite",
            "reaches beyond the stream",
            "the end is not finite, or before the event",
        ],
    }


def test_trials_end_with_a_state(recorded):
    table = trials_to_frame(make_trials(5))
    start, end = (
        table.msw.state_time("side_ready", edge=edge, clock="session").to_numpy()
        for edge in ("start", "end")
    )
    n = math.ceil(10 * np.nanmax(end))
    slow = stream_dataset(np.zeros((n, 1)), np.arange(n) / 10, fs=10)
    found = slow.session.peri_event(
        table, 0.0, 0.1, on="side_ready", until=("side_ready", "end")
    )
    wanted = np.rint((end - start + 0.1) * 10)[found.event.values]
    assert (found.length.values * 10).round().tolist() == wanted.tolist()


def test_a_gap_in_one_trial_leaves_that_trial_out():
    keep = np.r_[0:200, 210:N]
    gappy = stream_dataset(positions()[keep], TIMES[keep], fs=FS)
    table = pd.DataFrame({"go": [0.5, 1.5, 1.5], "end": [1.0, 1.9, 2.5]})
    found = gappy.session.peri_event(table, 0, 0, on="go", until="end")
    assert found.event.values.tolist() == [0, 1]
    assert drop_log(found)["reason"].tolist() == ["gap"]


def test_integers_that_no_float_holds_are_not_padded():
    stream = stream_dataset(positions().astype("int64"), TIMES, fs=FS)
    with pytest.raises(SessionError, match="no float holds every int64"):
        stream.session.peri_event([1.0], 0, 0, until=[2.0])
    found = stream.assign(data=stream["data"].astype(float)).session.peri_event(
        [1.0, 2.0], 0, 0, until=[2.0, 2.5]
    )
    assert found.length.values.tolist() == [1.0, 0.5]


def test_no_finite_time_is_an_error(recorded):
    for times in ([], [np.nan]):
        with pytest.raises(ValueError, match="times is a finite time"):
            recorded.session.peri_event("emg", times, 0.1, 0.1)


def test_samples_as_an_array_have_the_verbs_of_their_stream(recorded):
    stream, array = recorded.session.streams["emg"], recorded.session.continuous("emg")
    samples = labtree.session(array)
    around = samples.peri_event([1.0, 2.0], 0.1, 0.2)
    assert around.identical(stream.session.peri_event([1.0, 2.0], 0.1, 0.2))
    assert samples.windows(200, 100).identical(stream.session.windows(200, 100))
    one = labtree.session(array[:, 0]).peri_event([1.0], 0, 0.02)
    assert one.values.tolist() == [[[100, 101]]]
    assert "400 samples × 2 channels" in repr(samples)
    assert "session" not in around.coords
    bare = array.assign_attrs(fs=None)
    del bare.attrs["fs"]
    with pytest.raises(SessionError, match=r'write ds.attrs\["fs"\] = 100  # Hz'):
        labtree.session(bare).windows(200, 100)
    with pytest.raises(SessionError, match=r'write xr.Dataset\(\{"data": \(\("time", "chan'):
        labtree.session(array.transpose()).windows(200, 100)


def test_a_table_may_have_the_names_of_nwb(recorded):
    table = pd.DataFrame({"start_time": [1.0, 2.0], "stop_time": [1.5, 2.5], "length": [1, 2]})
    found = recorded.session.peri_event("emg", table, 0.1, 0.1, on="start_time")
    assert found.start_time.values.tolist() == [1.0, 2.0]
    np.testing.assert_allclose(found.window_start, [0.9, 1.9])
    with pytest.raises(labtree.DataError, match=r"the name 'length' is taken; write table.ren"):
        recorded.session.peri_event("emg", table, 0, 0.1, on="start_time", until="stop_time")
