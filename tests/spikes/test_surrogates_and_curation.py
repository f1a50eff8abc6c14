"""Surrogates keep what they promise; curation says why."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from labtree.testing.spikes import synthetic_spike_data
from support.examples import examples

times = st.floats(-20, 80, allow_nan=False)
trains_strategy = st.lists(st.lists(times, max_size=10).map(sorted), max_size=4)
seeds = st.integers(0, 1000)


def spikes(trains):
    return labtree.spike_data(trains, start_time=-20, length=100.0)


def lists(ds):
    return [train.tolist() for train in labtree.spikes.spike_trains(ds)]


@settings(max_examples=examples(100), deadline=None)
@given(trains_strategy, seeds)
def test_a_shift_rotates_each_train(trains, seed):
    made = labtree.spikes.surrogates(spikes(trains), "shift", seed=seed)
    made.ws.validate()
    for before, after in zip(trains, lists(made), strict=True):
        assert len(after) == len(before)
        # Some rotation of the circle takes one onto the other: the gaps are the same.
        circle = [(b - a) % 100 for a, b in zip(before, before[1:] + before[:1], strict=True)]
        turned = [(b - a) % 100 for a, b in zip(after, after[1:] + after[:1], strict=True)]
        rotations = [circle[k:] + circle[:k] for k in range(len(circle))] or [[]]
        close = [
            all(
                min(abs(x - y), 100 - abs(x - y)) < 1e-6 for x, y in zip(r, turned, strict=True)
            )
            for r in rotations
        ]
        assert any(close)


@settings(max_examples=examples(100), deadline=None)
@given(trains_strategy, seeds, st.sampled_from([0.5, 5.0, 100.0]))
def test_a_jitter_moves_each_spike_a_little(trains, seed, window):
    made = labtree.spikes.surrogates(spikes(trains), "jitter", seed=seed, window_ms=window)
    made.ws.validate()
    for before, after in zip(trains, lists(made), strict=True):
        # Sorting two trains cannot make the largest move larger.
        for old, new in zip(before, after, strict=True):
            assert abs(new - old) <= window * (1 + 1e-9)


@settings(max_examples=examples(100), deadline=None)
@given(trains_strategy, seeds)
def test_a_shuffle_keeps_the_intervals_and_both_ends(trains, seed):
    made = labtree.spikes.surrogates(spikes(trains), "isi_shuffle", seed=seed)
    made.ws.validate()
    for before, after in zip(trains, lists(made), strict=True):
        assert after[:1] == before[:1]
        assert after[-1:] == pytest.approx(before[-1:])
        intervals = sorted(b - a for a, b in pairwise(before))
        assert sorted(b - a for a, b in pairwise(after)) == pytest.approx(intervals, abs=1e-9)


@pytest.mark.parametrize("method", ["shift", "jitter", "isi_shuffle"])
def test_the_seed_fixes_the_trains_and_attributes_stay(method):
    ds = synthetic_spike_data(5)
    more = {"window_ms": 5.0} if method == "jitter" else {}
    first, again, other = (
        labtree.spikes.surrogates(ds, method, seed=seed, **more) for seed in (1, 1, 2)
    )
    assert first.identical(again)
    assert not first.equals(other)
    assert not np.array_equal(first.spike_times, ds.spike_times)
    assert first.channel.equals(ds.channel)
    assert first.attrs["surrogate"]["method"] == method
    same = labtree.spikes.surrogates(ds, method, seed=np.int64(1), **more)
    assert same.identical(first)


def test_shuffled_intervals_are_not_always_in_their_old_order():
    ds = labtree.spike_data([[0.0, 1.0, 3.0, 7.0, 15.0, 31.0]])
    orders = {
        tuple(np.diff(labtree.spikes.surrogates(ds, "isi_shuffle", seed=seed).spike_times))
        for seed in range(50)
    }
    assert len(orders) > 20


@pytest.mark.parametrize(
    ("method", "window", "words"),
    [
        ("swap", None, "method must be one of 'shift', 'jitter', 'isi_shuffle', found 'swap'"),
        ("jitter", None, "'jitter' needs window_ms="),
        ("shift", 5, "for the method 'jitter' only, not for 'shift'"),
        ("jitter", 0, "above 0 and at most the recording's 1000.0 ms"),
        ("jitter", 1001, "above 0 and at most"),
    ],
)
def test_what_is_wrong_with_a_surrogate_is_said(method, window, words):
    with pytest.raises(ValueError, match=words):
        labtree.spikes.surrogates(synthetic_spike_data(2), method, seed=0, window_ms=window)


# ----------------------------------------------------------------------- curation

UNITS = [[1.0, 2.0, 3.0, 500.0], [10.0], [], [100.0, 200.0]]


def test_limits_are_inclusive_and_every_reason_is_named():
    ds = labtree.spike_data(UNITS, length=1000, neuron_attributes={"q": [1, 1, 1, 0]})
    good, log = labtree.spikes.curate(
        ds,
        min_spikes=2,
        min_rate_hz=2.0,
        max_violations=0.5,
        refractory_ms=1.5,
        where=ds.q == 1,
    )
    assert good.sizes["unit"] == 0
    assert log["reason"].tolist() == [
        "0.6667 of the intervals below 1.5 ms, more than 0.5",
        "1 spike, fewer than 2; 1 Hz, below 2 Hz; violations are NaN: no interval",
        "0 spikes, fewer than 2; 0 Hz, below 2 Hz; violations are NaN: no interval",
        "where is False",
    ]
    assert log["n_spikes"].tolist() == [4, 1, 0, 2]
    assert log["rate_hz"].tolist() == [4, 1, 0, 2]
    good, log = labtree.spikes.curate(ds, min_spikes=2, min_rate_hz=2.0)
    assert log["kept"].tolist() == [True, False, False, True]
    assert lists(good) == [UNITS[0], UNITS[3]]


def test_without_limits_all_units_pass():
    ds = labtree.spike_data(UNITS, length=1000)
    good, log = labtree.spikes.curate(ds)
    assert good.identical(ds)
    assert log["reason"].tolist() == [""] * 4


def test_a_rate_that_is_nan_fails():
    _, log = labtree.spikes.curate(labtree.spike_data([[0.0]]), min_rate_hz=0)
    assert log["reason"].tolist() == ["the rate is NaN: the recording has no length"]


@pytest.mark.parametrize("where", [[True], [1, 1, 1, 1], "abcd"])
def test_where_is_a_mask(where):
    with pytest.raises(ValueError, match="where must be a mask with one bool for each of 4"):
        labtree.spikes.curate(labtree.spike_data(UNITS), where=where)


def test_the_log_can_be_stored():
    good, log = labtree.spikes.curate(labtree.spike_data(UNITS), min_spikes=2)
    tree = labtree.create_workspace()
    tree.ws.store("a", "good", good)
    tree.ws.store("a", "log", log)
    assert tree.ws["a", "log"].equals(log)
