"""Spike time tiling and correlograms against the definitions, pair by pair."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from support.examples import examples

tenths = st.integers(0, 1000).map(lambda n: n / 10)
trains_strategy = st.lists(st.lists(tenths, max_size=10).map(sorted), max_size=4)


def spikes(trains, length=100.0, **more):
    return labtree.spike_data(trains, length=length, **more)


def tiled(train, delta, start, stop):
    """Give the share of a stretch near spikes, from the union of intervals."""
    covered, reached = 0.0, start
    for time in train:
        low, high = max(time - delta, reached), min(time + delta, stop)
        if high > low:
            covered, reached = covered + high - low, high
    return covered / (stop - start)


def near(train, other, delta):
    return sum(any(abs(t - o) <= delta for o in other) for t in train) / len(train)


def tiling(a, b, delta, start, stop):
    if not a or not b:
        return math.nan

    def one_way(p, t):
        return 1.0 if 1 - p * t == 0 else (p - t) / (1 - p * t)

    ta, tb = tiled(a, delta, start, stop), tiled(b, delta, start, stop)
    return (one_way(near(a, b, delta), tb) + one_way(near(b, a, delta), ta)) / 2


@settings(max_examples=examples(150), deadline=None)
@given(trains_strategy, st.sampled_from([0.0, 0.1, 0.3, 5.0, 20.0, 100.0]))
def test_sttc_of_each_pair(trains, delta):
    ds = spikes(trains, start_time=0, neuron_attributes={"x": list(range(len(trains)))})
    found = labtree.spikes.sttc(ds, delta)
    for i, a in enumerate(trains):
        for j, b in enumerate(trains):
            expected = tiling(a, b, delta, 0.0, 100.0)
            if i == j and a:
                expected = 1.0
            got = float(found.matrix[i, j])
            # Near 1 - PA TB = 0 the coefficient is sensitive to the last bit.
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    assert found.x_i.values.tolist() == found.x_j.values.tolist() == [*range(len(trains))]
    found.ws.validate()
    assert found.attrs["metadata"] == {"method": "STTC", "delta_ms": delta}


def test_a_spike_at_exactly_the_distance_counts():
    ds = spikes([[10.0], [30.0]])
    far = labtree.spikes.sttc(ds, 19.99).matrix.values[0, 1]
    assert labtree.spikes.sttc(ds, 20.0).matrix.values[0, 1] > 0 > far


def test_two_trains_that_fill_the_recording_go_together():
    ds = spikes([[0.0, 50.0, 100.0], [25.0, 75.0]])
    assert labtree.spikes.sttc(ds, 50.0).matrix.values.tolist() == [[1, 1], [1, 1]]


def test_silent_units_are_nan():
    values = labtree.spikes.sttc(spikes([[1.0], [], [2.0]])).matrix.values
    assert np.isnan(values[1]).all()
    assert np.isnan(values[:, 1]).all()
    assert np.isfinite(values[np.ix_([0, 2], [0, 2])]).all()


def test_elephant_has_the_same_tiling():
    pytest.importorskip("elephant")
    import neo
    import quantities
    from elephant.spike_train_correlation import spike_time_tiling_coefficient

    random = np.random.default_rng(3)
    trains = [np.sort(random.uniform(0, 5000, 60)) for _ in range(3)]
    found = labtree.spikes.sttc(spikes(trains, 5000.0), 20).matrix.values
    theirs = [neo.SpikeTrain(train, units="ms", t_stop=5000.0) for train in trains]
    for i in range(3):
        for j in range(3):
            value = spike_time_tiling_coefficient(theirs[i], theirs[j], dt=20 * quantities.ms)
            assert found[i, j] == pytest.approx(float(value), abs=1e-9)


@settings(max_examples=examples(150), deadline=None)
@given(trains_strategy, st.sampled_from([(0.1, 0.5), (1.0, 5.0), (0.3, 2.1), (10.0, 100.0)]))
def test_correlograms_of_each_pair(trains, size):
    width, window = size
    counts = labtree.spikes.correlograms(spikes(trains), width, window)
    n_bins = 2 * round(window / width)
    assert counts.shape == (len(trains), len(trains), n_bins)
    for i, a in enumerate(trains):
        for j, b in enumerate(trains):
            differences = [
                u - t
                for m, t in enumerate(a)
                for n, u in enumerate(b)
                if not (i == j and m == n)
            ]
            expected = np.histogram(differences, n_bins, (-window, window))[0]
            assert counts.values[i, j].tolist() == expected.tolist()
    edges = np.linspace(-window, window, n_bins + 1)
    assert counts.lag.values == pytest.approx((edges[1:] + edges[:-1]) / 2)
    assert counts.lag.units == "ms"


def test_correlograms_of_dense_trains_in_blocks(monkeypatch):
    from labtree.spikes import correlations

    random = np.random.default_rng(4)
    trains = [np.sort(random.integers(0, 500, 120) / 2) for _ in range(4)]
    ds = spikes(trains, 250.0)
    whole = labtree.spikes.correlograms(ds, 1, 30)
    monkeypatch.setattr(correlations, "_BLOCK", 100)
    assert whole.equals(labtree.spikes.correlograms(ds, 1, 30))


def test_spikes_of_one_time_pair_with_each_other_and_not_with_themselves():
    counts = labtree.spikes.correlograms(spikes([[5.0, 5.0]]), 1, 2)
    assert counts.values.tolist() == [[[0, 0, 2, 0]]]


@pytest.mark.parametrize(
    ("width", "window", "words"),
    [
        (1.0, 2.5, r"2.5 ms is 2.5 bins of 1.0 ms"),
        (3.0, 1.0, "a whole number of bins"),
        (0, 1, "bin_ms must be a number of milliseconds above 0"),
        (1, math.inf, "window_ms must be a number of milliseconds above 0"),
    ],
)
def test_a_window_holds_whole_bins(width, window, words):
    with pytest.raises(ValueError, match=words):
        labtree.spikes.correlograms(spikes([[1.0]]), width, window)


@pytest.mark.parametrize("delta", [-1, math.nan])
def test_delta_is_checked(delta):
    with pytest.raises(ValueError, match="delta_ms must be a number"):
        labtree.spikes.sttc(spikes([[1.0]]), delta)


def test_pynapple_has_the_same_correlogram():
    nap = pytest.importorskip("pynapple")
    random = np.random.default_rng(5)
    trains = [np.sort(random.choice(20_000, 400, replace=False) / 1.0) for _ in range(2)]
    # All differences end in .25: inside of labtree's bins and of pynapple's, which lie
    # around whole lags.
    trains[1] = trains[1] + 0.25
    ds = spikes(trains, 20_001.0)
    theirs = nap.compute_crosscorrelogram(labtree.to_pynapple(ds), 0.001, 0.02, norm=False)
    counts = theirs[(0, 1)].to_numpy() * len(trains[0]) * 0.001
    assert theirs.index.to_numpy() * 1000 == pytest.approx(np.arange(-20, 21))
    ours = labtree.spikes.correlograms(ds, 1, 20)
    assert ours.lag.values == pytest.approx(np.arange(-20, 20) + 0.5)
    assert ours.values[0, 1] == pytest.approx(counts[:-1])
