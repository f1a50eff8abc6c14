"""Clocks against simulated devices whose true relation is known."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree import clocks
from labtree.errors import DataError, RecordingWarning
from support.examples import examples


def two_devices(
    seed=0, n=200, *, rate=1.00002, offset=100.0, jump=0.0, jitter=2e-4, lost=0.1, more=0
):
    """Return what two devices saw, and the true times of every pulse on both clocks."""
    rng = np.random.default_rng(seed)
    a = np.cumsum(rng.uniform(0.5, 3, n))
    b = offset + rate * a + jump * (a > a[n // 2])
    seen_a, seen_b = a[rng.random(n) > lost], b[rng.random(n) > lost]
    noisy = seen_b + rng.normal(0, jitter, len(seen_b))
    additional = rng.uniform(a[0], a[-1], more)
    return np.sort(np.concatenate([seen_a, additional])), noisy, a, b


def quietly(call, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        return call(*arguments)


# --- matching -----------------------------------------------------------------------------


@settings(max_examples=examples(40), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rate=st.floats(0.9995, 1.0005),
    offset=st.floats(-1e6, 1e6),
    lost=st.floats(0, 0.2),
    more=st.integers(0, 20),
)
def test_lost_and_additional_pulses_do_not_shift_the_match(seed, rate, offset, lost, more):
    seen_a, seen_b, a, b = two_devices(
        seed, 120, rate=rate, offset=offset, jitter=0, lost=lost, more=more
    )
    pairs = clocks.match_pulses(seen_a, seen_b)
    partner = dict(zip(a.tolist(), b.tolist(), strict=True))
    wrong = [
        (x, y)
        for x, y in zip(pairs.time_a, pairs.time_b, strict=True)
        if x in partner and partner[x] != y
    ]
    assert wrong == []
    both = set(seen_a.tolist()) & {x for x, y in partner.items() if y in set(seen_b.tolist())}
    assert len(pairs) >= 0.8 * len(both)
    assert (np.diff(pairs.index_a) > 0).all()
    assert (np.diff(pairs.index_b) > 0).all()
    np.testing.assert_array_equal(seen_b[pairs.index_b], pairs.time_b)


def test_matches_go_on_behind_a_step_of_either_clock():
    for jump in (-40.0, 40.0):
        seen_a, seen_b, a, b = two_devices(1, jump=jump, jitter=0)
        pairs = clocks.match_pulses(seen_a, seen_b)
        partner = dict(zip(a.tolist(), b.tolist(), strict=True))
        assert [partner[x] for x in pairs.time_a] == pairs.time_b.tolist()
        assert pairs.time_a.min() < a[40]
        assert pairs.time_a.max() > a[160]


def test_regular_pulses_are_refused():
    with pytest.raises(
        DataError, match=r"match in more than one way.*too regular; give values"
    ):
        clocks.match_pulses(np.arange(50.0), 7 + np.arange(60.0))


@pytest.mark.parametrize("seed", range(6))
def test_regular_pulses_of_which_many_are_lost_are_refused(seed):
    """The gaps that losses leave make one wrong matching longer than the others."""
    random = np.random.default_rng(seed)
    times = np.arange(1000.0)
    kept = [np.sort(times[random.random(1000) > lost]) for lost in (0.05, 0.2)]
    with pytest.raises(DataError, match=r"match in more than one way|too regular"):
        clocks.match_pulses(*kept)


def test_many_regular_pulses_are_refused_before_memory_is_taken():
    with pytest.raises(DataError, match="are too regular to say"):
        clocks.match_pulses(np.arange(20_000.0), np.arange(20_000.0))


def test_pulses_of_another_line_are_refused():
    rng = np.random.default_rng(0)
    one, other = (np.cumsum(rng.uniform(0.5, 3, 30)) for _ in range(2))
    with pytest.raises(DataError, match="no 4 of 30 and 30 pulses have the same intervals"):
        clocks.match_pulses(one, other)


def test_values_are_matched_whatever_their_times():
    pairs = clocks.match_pulses(
        [1.0, 2.0, 3.0], [50.0, 40.0, 60.0], values_a=[7, 8, 9], values_b=[9, 7, 7]
    )
    assert pairs.value.tolist() == [7, 7, 9]
    assert pairs.index_a.tolist() == [0, 0, 2]
    assert sorted(pairs.index_b.tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1.0, np.nan], [1.0]), {}, r"times_a\[1\] is nan, expected finite seconds"),
        (([[1.0]], [1.0]), {}, "times_a: expected a list of numbers in seconds"),
        (([1.0], ["a"]), {}, "times_b: expected a list of numbers in seconds"),
        (
            ([1.0], [1.0]),
            {"tolerance_s": 0},
            "tolerance_s must be a number of seconds above 0, found 0",
        ),
        (
            ([1.0], [1.0]),
            {"values_a": [1]},
            "belong together; values_b is missing",
        ),
        (([1.0], [1.0]), {"values_a": [1], "values_b": [1, 2]}, "values_b .2,. and times_b"),
        (([1.0], [1.0]), {"values_a": [1], "values_b": [2]}, "have none in common"),
    ],
)
def test_what_cannot_be_matched_is_named(arguments, options, message):
    with pytest.raises(DataError, match=message):
        clocks.match_pulses(*arguments, **options)


# --- fitting ------------------------------------------------------------------------------


@settings(max_examples=examples(40), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rate=st.floats(0.9995, 1.0005),
    offset=st.sampled_from([-5.0, 0.0, 1.7e9]),
    wrong=st.floats(0, 0.4),
)
def test_wrong_anchors_do_not_move_the_clock(seed, rate, offset, wrong):
    rng = np.random.default_rng(seed)
    a = np.cumsum(rng.uniform(0.5, 3, 80))
    b = offset + rate * a + rng.normal(0, 2e-4, 80)
    bad = rng.permutation(80) < round(80 * wrong)
    b[bad] += rng.uniform(1, 500, bad.sum()) * rng.choice([-1, 1], bad.sum())
    clock = quietly(clocks.fit, pd.DataFrame({"time_a": a, "time_b": b}))
    found = quietly(clocks.convert, clock, a)  # wrong ones may stand at an end
    assert np.nanmax(np.abs(found - (offset + rate * a))) < 2e-3
    assert (clock.segment_of_anchor.values[bad] == -1).all()
    assert np.isnan(clock.residual_s.values[clock.segment_of_anchor.values == -1]).all()


@pytest.mark.parametrize("n", [40, 200, 2000])
@pytest.mark.parametrize("jump", [0.024, -0.024, 0.004, 5.0, -30.0])
def test_a_jump_is_found_where_it_is(jump, n):
    seen_a, seen_b, a, b = two_devices(3, n, jump=jump)
    pairs = clocks.match_pulses(seen_a, seen_b)
    with pytest.warns(RecordingWarning, match=r"the clock jumps by [+-]"):
        clock = clocks.fit(pairs)
    assert clock.attrs["n_jumps"] == 1
    (at,) = np.flatnonzero(np.nan_to_num(clock.jump_s.values))
    assert clock.jump_s.values[at] == pytest.approx(jump, abs=1e-3)
    before, behind = clock.a_last.values[at - 1], clock.a_first.values[at]
    assert before <= a[n // 2] + 1e-9
    assert behind > a[n // 2 - 3]
    found = quietly(clocks.convert, clock, a)
    unknown = (a > before) & (a < behind)
    np.testing.assert_array_equal(np.isnan(found), unknown)
    assert np.abs(found - b)[~unknown].max() < 2e-3


def test_no_jump_is_found_where_none_is():
    for seed, jitter in itertools.product(range(examples(16)), (0, 1e-4, 1e-3)):
        seen_a, seen_b, *_ = two_devices(seed, 300, jitter=jitter)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RecordingWarning)
            clock = clocks.fit(clocks.match_pulses(seen_a, seen_b))
        assert clock.attrs["n_jumps"] == 0
        assert clock.attrs["rms_s"] == pytest.approx(jitter, rel=0.3, abs=1e-9)


def test_a_rate_that_drifts_bends_the_clock_without_a_jump():
    a = np.arange(0, 3600, 5.0)
    b = 10 + a + 0.3 * (a / 3600) ** 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecordingWarning)
        clock = clocks.fit(pd.DataFrame({"time_a": a, "time_b": b}))
    assert clock.sizes["segment"] > 1
    dense = np.linspace(0, 3595, 5000)
    expected = 10 + dense + 0.3 * (dense / 3600) ** 2
    assert np.abs(clocks.convert(clock, dense) - expected).max() < 1e-3
    np.testing.assert_allclose(
        clocks.convert(clock, clocks.convert(clock, dense), inverse=True), dense, atol=1e-6
    )


def test_two_anchors_are_a_clock_and_one_is_none():
    clock = clocks.fit(pd.DataFrame({"time_a": [0.0, 10.0], "time_b": [3.0, 13.001]}))
    assert clocks.convert(clock, 5.0) == pytest.approx(8.0005)
    with pytest.raises(DataError, match="a clock needs two anchors, found 1"):
        clocks.fit(pd.DataFrame({"time_a": [0.0], "time_b": [3.0]}))
    twice = pd.DataFrame({"time_a": [0.0, 0.0], "time_b": [3.0, 9.0], "value": [5, 5]})
    with pytest.raises(DataError, match="a clock needs two anchors, found 1"):
        clocks.fit(twice)


def test_anchors_that_agree_on_no_clock_are_refused():
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame({"time_a": np.arange(30.0), "time_b": rng.uniform(0, 1e5, 30)})
    with pytest.raises(DataError, match=r"of 30 anchors lie within 0.005 s of one clock"):
        clocks.fit(pairs)


def test_a_column_that_is_missing_is_named():
    with pytest.raises(DataError, match="no column 'time_b'; there are: 'time_a', 'tim_b'"):
        clocks.fit(pd.DataFrame({"time_a": [1.0], "tim_b": [1.0]}))


@pytest.mark.parametrize("seed", range(4))
def test_values_that_were_seen_often_do_not_hide_a_jump(seed):
    """Two thirds of the pairs are wrong; half a second into the jump all would be."""
    random = np.random.default_rng(seed)
    times = np.cumsum(random.uniform(0.5, 5, 400))
    values = random.integers(0, 200, 400)
    jump = times[200] + 0.1
    other = times + 0.024 * (times > jump) + random.normal(0, 1e-3, 400)
    pairs = clocks.match_pulses(times, other, values_a=values, values_b=values)
    assert (pairs.index_a != pairs.index_b).mean() > 0.6
    with pytest.warns(RecordingWarning, match=r"the clock jumps by \+0.02[34]"):
        clock = clocks.fit(pairs)
    found = clocks.convert(clock, times)
    assert np.nanmax(np.abs(found - times - 0.024 * (times > jump))) < 0.001


def test_pulses_behind_a_jump_that_match_in_two_ways_are_left_out():
    random = np.random.default_rng(5)
    first = np.cumsum(random.uniform(0.5, 5, 60))
    regular = first[-1] + 3 + np.arange(20.0)
    pairs = clocks.match_pulses(
        np.concatenate([first, regular]), np.concatenate([first, regular + 17])
    )
    assert pairs.index_a.tolist() == pairs.index_b.tolist() == list(range(60))


def test_a_barcode_seen_twice_is_used_once():
    a = np.arange(20.0)
    b = np.concatenate([500 + a, [700.0]])
    pairs = clocks.match_pulses(a, b, values_a=np.arange(20), values_b=[*range(20), 3])
    assert len(pairs) == 21
    clock = clocks.fit(pairs)
    assert clock.attrs["n_used"] == 20
    unused = clock.where(clock.segment_of_anchor < 0, drop=True)
    assert unused.time_b.values.tolist() == [700.0]
    assert unused.value.values.tolist() == [3]


# --- converting ---------------------------------------------------------------------------


@pytest.fixture
def stepped():
    """b = a + 100 until 50 s, a + 90 from 51 s on: 150 to 160 was shown twice."""
    a = np.arange(0.0, 101.0)
    return quietly(
        clocks.fit, pd.DataFrame({"time_a": a, "time_b": a + np.where(a <= 50, 100, 90)})
    )


def test_a_time_in_a_jump_has_no_counterpart_and_that_is_told(stepped):
    with pytest.warns(RecordingWarning, match="1 of 3 times lie where the clock jumps"):
        found = clocks.convert(stepped, [50.0, 50.5, 51.0])
    np.testing.assert_allclose(found, [150, np.nan, 141])


def test_a_time_that_was_shown_twice_has_no_single_origin(stepped):
    with pytest.warns(RecordingWarning, match="2 of 4 times"):
        found = clocks.convert(stepped, [140.0, 142.0, 150.0, 160.0], inverse=True)
    np.testing.assert_allclose(found, [40, np.nan, np.nan, 70])


def test_times_far_outside_the_anchors_are_told(stepped):
    np.testing.assert_allclose(clocks.convert(stepped, [-1.0, 101.0]), [99, 191])
    told = "2 of 3 times lie outside the anchors, which go from 0 to 100 s, by up to 4 s"
    with pytest.warns(RecordingWarning, match=told):
        found = clocks.convert(stepped, [-3.0, 5.0, 104.0])
    np.testing.assert_allclose(found, [97, 105, 194])
    told = "2 of 3 times lie outside the anchors, which go from 100 to 190 s, by up to 4 s"
    with pytest.warns(RecordingWarning, match=told):
        found = clocks.convert(stepped, [97.0, 105.0, 194.0], inverse=True)
    np.testing.assert_allclose(found, [-3, 5, 104])


def test_forms_go_in_and_come_out(stepped):
    assert clocks.convert(stepped, 10) == pytest.approx(110)
    array = xr.DataArray([[1.0, 2.0]], dims=("event", "edge"), coords={"edge": ["a", "b"]})
    found = clocks.convert(stepped, array.assign_attrs(units="s"))
    xr.testing.assert_allclose(found, array + 100)
    assert found.attrs == {"units": "s"}
    series = pd.Series([1.0, None], index=["x", "y"], name="t", dtype="Float64")
    found = clocks.convert(stepped, series)
    pd.testing.assert_series_equal(
        found, pd.Series([101.0, np.nan], index=["x", "y"], name="t")
    )


def test_labels_and_trials_convert_by_their_columns(stepped):
    labels = pd.DataFrame({"timestamp": [1.0, 2.0], "class_index": [0, 1]})
    labels.attrs["kept"] = True
    found = clocks.convert(stepped, labels)
    assert found.timestamp.tolist() == pytest.approx([101, 102])
    assert found.class_index.tolist() == [0, 1]
    assert found.attrs == {"kept": True}
    assert labels.timestamp.tolist() == [1.0, 2.0]
    trials = pd.DataFrame({"start": [1.0], "stop": [np.nan]})
    found = clocks.convert(stepped, trials, columns=["start", "stop"])
    assert found.start.tolist() == pytest.approx([101])
    assert found.stop.isna().all()
    with pytest.raises(DataError, match="no column 'timestamp'; there are: 'start', 'stop'"):
        clocks.convert(stepped, trials)
    with pytest.raises(DataError, match="columns= names those of a DataFrame"):
        clocks.convert(stepped, [1.0], columns="start")


def test_spikes_convert_in_milliseconds(stepped):
    spikes = labtree.spike_data([[1000.0, 2000.0], [], [1500.0]], length=5000.0)
    found = clocks.convert(stepped, spikes)
    np.testing.assert_allclose(found.spike_times, [101_000, 102_000, 101_500])
    assert found.attrs["start_time"] == pytest.approx(100_000)
    assert found.attrs["length"] == pytest.approx(5000)
    found.ws.validate()
    across = labtree.spike_data([[1000.0, 80_000.0]], length=90_000.0)
    with pytest.raises(DataError, match="their order would change"):
        clocks.convert(stepped, labtree.spike_data([[49_000.0, 52_000.0]], length=90_000.0))
    found = clocks.convert(stepped, across)
    np.testing.assert_allclose(found.spike_times, [101_000, 170_000])
    inside = labtree.spike_data([[50_500.0]], length=90_000.0)
    with (
        pytest.warns(RecordingWarning, match="1 of 3 times"),
        pytest.raises(DataError, match="1 spikes, or an end of the recording"),
    ):
        clocks.convert(stepped, inside)
    with pytest.raises(DataError, match="of Datasets spike_data is converted"):
        clocks.convert(stepped, xr.Dataset({"a": 1}))


def test_what_is_no_clock_is_refused():
    with pytest.raises(DataError, match=r"found float; write labtree.clocks.convert\(clock, t"):
        clocks.convert(1.0, 5)
    with pytest.raises(DataError, match=r"expected a clock as labtree.clocks.fit gives it"):
        clocks.convert(xr.Dataset({"rate": 1}), 1.0)


def test_a_workspace_keeps_a_clock(stepped, tmp_path):
    tree = labtree.create_workspace()
    tree.ws.store("day1", "clock", stepped)
    path = tree.ws.save(tmp_path / "study")
    with labtree.open_workspace(path) as opened:
        found = opened.ws["day1", "clock"]
        assert clocks.convert(found, 10.0) == clocks.convert(stepped, 10.0)
        xr.testing.assert_identical(found.load(), stepped)
