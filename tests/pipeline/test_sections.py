"""Trials of units that come in as copies of their spikes become index ranges."""

import numpy as np
import pytest

import labtree
from labtree import SessionError
from labtree.pipeline.sections import checked_sections


def trials(*parts, **more):
    return {"trials_spike_times": dict(enumerate(map(np.array, parts))), **more}


def unit(spikes, sectioned):
    return {"spike_times": np.array(spikes), "spike_times_sectioned": {"m": sectioned}}


@pytest.fixture
def session():
    made = labtree.create_session("r")
    made.session.add_units(
        {
            "a": {
                "spike_times": np.array([5, 9, 9, 30, 41]),
                "spike_times_sectioned": {"m": trials([9, 9], [41])},
            },
            "b": {"spike_times": np.array([2, 8])},
        }
    )
    return made


def found(session, unit, movie="m"):
    parts = session.session.trials_spike_times(unit, movie)
    return [part.tolist() for part in parts.values()]


def test_they_are_slices_and_no_copies(session):
    assert found(session, "a") == [[9, 9], [41]]
    table = session["sections/m"]
    assert table["start"].values.tolist() == [[[1, 4]]]
    assert table["stop"].values.tolist() == [[[3, 5]]]
    assert session.session.full_spike_times("a", "m").tolist() == [9, 41]
    spikes = session["units"]["spike_times"].values
    assert np.shares_memory(session.session.trials_spike_times("a", "m")[0], spikes)
    assert "by_unit" not in session["units"].attrs


def test_units_join_one_by_one_and_keep_their_order(session):
    session.session.add_units({"c": unit([1, 3], trials([1], [3]))})
    session.session.add_units({"b": {"spike_times_sectioned": {"m": trials([], [2, 8])}}})
    assert session["sections/m"]["unit"].values.tolist() == ["a", "b", "c"]
    assert [found(session, u) for u in "abc"] == [[[9, 9], [41]], [[], [2, 8]], [[1], [3]]]
    assert checked_sections(session, "m").sizes == {"unit": 3, "presentation": 1, "trial": 2}


def test_ranges_follow_when_units_before_them_change(session):
    session.session.add_units({"c": unit([1, 3], trials([1], [3]))})
    session.session.add_units({"b": {"spike_times": np.arange(10)}})
    assert found(session, "c") == [[1], [3]]
    with pytest.raises(SessionError, match="spikes of c are divided into trials already"):
        session.session.add_units({"c": {"spike_times": np.array([1, 4])}})
    session.session.add_units({"c": unit([1, 4], trials([1], [4]))})
    assert found(session, "c") == [[1], [4]]


def test_bounds_and_padding_are_kept():
    session = labtree.create_session("r")
    bounds = np.array([[10, 20], [20, 30], [30, 40]])
    given = trials(
        [8, 12], [], [29, 33], full_spike_times=np.array([8, 12, 29, 33]),
        trials_start_end=bounds, _attrs={"pre_samples": 2, "post_samples": 0},
    )  # fmt: skip
    spikes = np.array([1, 8, 12, 29, 33, 60])
    session.session.add_units(
        {"a": {"spike_times": spikes, "spike_times_sectioned": {"m": given}}}
    )
    table = session["sections/m"]
    assert table["trial_start"].values.tolist() == [[10, 20, 30]]
    assert table["start"].values.tolist() == [[[1, 3, 3]]]  # the empty trial lies where it was
    assert table.attrs["pre_samples"] == 2
    assert found(session, "a") == [[8, 12], [], [29, 33]]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (trials([9], [30, 42]), r"trial 1 of unit 'a' is not a slice of its spike_times"),
        (trials([5, 30]), "trial 0 of unit 'a' is not a slice"),
        (
            trials([9], full_spike_times=np.array([9, 30])),
            "full_spike_times of unit 'a' are not",
        ),
        (
            {"trials_spike_times": {0: np.array([9]), 2: np.array([30])}},
            "must be numbered 0, 1",
        ),
        ({"trials_spike_times": {"x": np.array([9])}}, r"must be numbered .*found \['x'\]"),
    ],
)
def test_what_is_no_slice_is_refused_and_nothing_changes(given, match):
    session = labtree.create_session("r")
    before = session.copy(deep=True)
    with pytest.raises(SessionError, match=match):
        session.session.add_units(
            {"a": {"spike_times": np.array([5, 9, 30]), "spike_times_sectioned": {"m": given}}}
        )
    assert session.identical(before)


def test_units_that_disagree_on_trials_are_refused(session):
    spikes = np.array([2, 8])
    for given, match in (
        (trials([2]), "movie 'm' has other trials already"),
        (trials([2], [8], trials_start_end=[[0, 5], [5, 9]]), "has other trials already"),
    ):
        with pytest.raises(SessionError, match=match) as caught:
            session.session.add_units({"b": {"spike_times_sectioned": {"m": given}}})
        line = str(caught.value).rpartition("first: ")[2]
    copied = session.copy()
    exec(line, {"session": copied})  # the line to write, as the message has it
    copied.session.add_units({"b": {"spike_times_sectioned": {"m": given}}})
    assert found(copied, "b") == [[2], [8]]
    with pytest.raises(SessionError, match="unit 'd' has 1 trials, 'c' has 2"):
        session.session.add_units(
            {
                "c": {"spike_times": spikes, "spike_times_sectioned": {"n": trials([2], [8])}},
                "d": {"spike_times": spikes, "spike_times_sectioned": {"n": trials([2])}},
            }
        )
    with pytest.raises(SessionError, match="unit 'd' has trials at other times than others"):
        session.session.add_units(
            {
                unit: {
                    "spike_times": spikes,
                    "spike_times_sectioned": {"n": trials([2], trials_start_end=[[0, end]])},
                }
                for unit, end in (("c", 5), ("d", 6))
            }
        )
    assert list(session["sections"].children) == ["m"]


def test_movies_of_any_name(session):
    session.session.add_units({"a": {"spike_times_sectioned": {"set/1.a": trials([5])}}})
    assert found(session, "a", "set/1.a") == [[5]]
    assert "set/1.a" in repr(session.session)
    with pytest.raises(KeyError, match=r"there are: 'm', 'set/1\.a'"):
        session.session.trials_spike_times("a", "set")
