"""Counts, rates, intervals and bursts against numpy, scipy and loops, one train at a time."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labtree
from support.examples import examples

tenths = st.integers(0, 1000).map(lambda n: n / 10)
trains_strategy = st.lists(st.lists(tenths, max_size=12).map(sorted), max_size=4)
widths = st.sampled_from([0.1, 0.3, 0.7, 1.0, 2.5, 10.0, 33.3])


def spikes(trains, length=100.0, **more):
    return labtree.spike_data(trains, length=length, **more)


@given(trains_strategy)
def test_counts_and_rates(trains):
    ds = spikes(trains, neuron_attributes={"x": list(range(len(trains)))})
    counts = labtree.spikes.spike_counts(ds)
    assert counts.values.tolist() == [len(train) for train in trains]
    assert counts.x.values.tolist() == list(range(len(trains)))
    rates = labtree.spikes.firing_rates(ds)
    assert rates.values.tolist() == [len(train) / 0.1 for train in trains]
    assert rates.attrs["units"] == "Hz"


def test_a_recording_without_length_has_no_rate():
    assert np.isnan(labtree.spikes.firing_rates(labtree.spike_data([[0.0]])).values).all()


@settings(max_examples=examples(150), deadline=None)
@given(trains_strategy, widths, st.sampled_from([0.0, -7.3, 0.1]), st.booleans())
def test_binned_counts_as_numpy_histograms(trains, width, start, part):
    trains = [[time + start for time in train] for train in trains]
    ds = spikes(trains, start_time=start, length=100.5)
    more = {"start_ms": start + 3.3, "stop_ms": start + 71.0} if part else {}
    low = more.get("start_ms", start)
    high = more.get("stop_ms", start + 100.5)
    n_bins = math.floor((high - low) / width + 1e-9)
    edges = low + np.arange(n_bins + 1) * width
    expected = [np.histogram(train, edges)[0].tolist() for train in trains]
    counts = labtree.spikes.binned_counts(ds, width, **more)
    assert counts.dims == ("unit", "time")
    assert counts.values.tolist() == expected
    assert counts.dtype.kind == "i"
    assert counts.time.values == pytest.approx((edges[1:] + edges[:-1]) / 2)
    sparse = labtree.spikes.binned_counts(ds, width, sparse=True, **more)
    assert sparse.toarray().tolist() == expected
    assert sparse.has_canonical_format


def test_the_last_edge_is_closed_and_only_whole_bins_count():
    ds = spikes([[0.0, 30.0, 60.0, 90.0, 100.0]])
    assert labtree.spikes.binned_counts(ds, 30).values.tolist() == [[1, 1, 2]]
    assert labtree.spikes.binned_counts(ds, 50).values.tolist() == [[2, 3]]


@pytest.mark.parametrize("width", [0, -1, math.nan, math.inf, 101])
def test_a_width_must_be_positive_and_fit(width):
    ds = spikes([[1.0]])
    for verb in (
        labtree.spikes.binned_counts,
        labtree.spikes.population_rate,
        lambda ds, width: labtree.spikes.smoothed_rates(ds, width, 5),
    ):
        with pytest.raises(
            ValueError, match=r"must be a number of milliseconds above 0|longer than"
        ):
            verb(ds, width)


def test_an_empty_stretch_is_an_error():
    with pytest.raises(ValueError, match=r"the stretch from 5.0 to 5.0 ms is empty"):
        labtree.spikes.binned_counts(spikes([[1.0]]), 1, start_ms=5, stop_ms=5)
    with pytest.raises(ValueError, match="is empty"):
        labtree.spikes.binned_counts(labtree.spike_data([[]]), 1)
    with pytest.raises(ValueError, match=r"to inf ms is empty or has no end"):
        labtree.spikes.binned_counts(spikes([[1.0]]), 1, stop_ms=np.inf)


@settings(max_examples=examples(60), deadline=None)
@given(trains_strategy, st.sampled_from([0.5, 1.0, 5.0]), st.sampled_from([0.2, 2.0, 30.0]))
def test_smoothed_rates_as_scipy_filters(trains, step, sigma):
    ndimage = pytest.importorskip("scipy.ndimage")
    ds = spikes(trains)
    rates = labtree.spikes.smoothed_rates(ds, step, sigma)
    counts = labtree.spikes.binned_counts(ds, step).values.astype(float)
    expected = (
        ndimage.gaussian_filter1d(counts, sigma / step, mode="constant", truncate=5)
        if counts.size
        else counts
    )
    np.testing.assert_allclose(rates.rate.values, expected * 1000 / step, atol=1e-9)
    assert rates.rate.attrs["units"] == "Hz"
    rates.ws.validate()
    everyone = labtree.spikes.population_rate(ds, step, sigma)
    if trains:
        np.testing.assert_allclose(
            everyone.values, expected.mean(axis=0) * 1000 / step, atol=1e-9
        )


def test_smoothing_many_spikes_gives_what_smoothing_few_gives():
    # Enough spikes that the transform is used instead of one kernel after the other.
    ndimage = pytest.importorskip("scipy.ndimage")
    random = np.random.default_rng(0)
    ds = spikes([np.sort(random.uniform(0, 2000, 30_000)), [5.0]], 2000.0)
    rates = labtree.spikes.smoothed_rates(ds, 1.0, 40.0).rate.values
    counts = labtree.spikes.binned_counts(ds, 1.0).values.astype(float)
    expected = ndimage.gaussian_filter1d(counts, 40, mode="constant", truncate=5) * 1000
    np.testing.assert_allclose(rates, expected, rtol=1e-9, atol=1e-6)
    assert (rates >= 0).all()


@given(trains_strategy.filter(len), widths)
def test_population_rate_counts_silent_units(trains, width):
    ds = spikes([*trains, []])
    rates = labtree.spikes.population_rate(ds, width)
    counts = labtree.spikes.binned_counts(ds, width).values
    np.testing.assert_allclose(rates.values, counts.mean(axis=0) * 1000 / width)
    assert rates.attrs["units"] == "Hz"
    assert rates.attrs["n_units"] == len(trains) + 1


def test_the_rate_of_no_units_is_nan():
    assert np.isnan(labtree.spikes.population_rate(spikes([]), 10).values).all()


# ---------------------------------------------------------------------- intervals


def statistics_of(train, refractory):
    intervals = [b - a for a, b in pairwise(train)]
    pairs = list(pairwise(intervals))
    nan = math.nan
    changes = [(b - a) / (b + a) if a + b else nan for a, b in pairs]
    mean = np.mean(intervals) if intervals else nan
    return {
        "n_intervals": len(intervals),
        "mean_ms": mean,
        "median_ms": np.median(intervals) if intervals else nan,
        "cv": np.std(intervals) / mean if len(intervals) > 1 and mean else nan,
        "cv2": np.mean([2 * abs(change) for change in changes]) if pairs else nan,
        "lv": np.mean([3 * change**2 for change in changes]) if pairs else nan,
        "violations": np.mean([one < refractory for one in intervals]) if intervals else nan,
    }


@settings(max_examples=examples(150), deadline=None)
@given(trains_strategy, st.sampled_from([0.0, 0.1, 1.5, 10.0]))
def test_isi_statistics_against_a_loop(trains, refractory):
    found = labtree.spikes.isi_statistics(spikes(trains), refractory)
    for unit, train in enumerate(trains):
        for name, value in statistics_of(train, refractory).items():
            got = float(found[name][unit])
            np.testing.assert_allclose(got, value, rtol=1e-9, atol=1e-12, err_msg=name)
    assert found.mean_ms.units == "ms"
    assert found.attrs["refractory_ms"] == refractory


def test_an_interval_as_long_as_the_refractory_time_is_no_violation():
    found = labtree.spikes.isi_statistics(spikes([[0.0, 1.5, 2.5]]), 1.5)
    assert found.violations.values.tolist() == [0.5]


def test_unsigned_times_have_intervals():
    ds = spikes([np.array([3, 5, 9], np.uint64), np.array([1, 2], np.uint64)])
    assert labtree.spikes.isi_statistics(ds).mean_ms.values.tolist() == [3, 1]


def test_intervals_may_be_longer_than_the_dtype_of_the_times_holds():
    times = np.array([-20_000, 20_000], np.int16)
    ds = labtree.spike_data([times], start_time=-30_000, length=60_000)
    assert labtree.spikes.isi_statistics(ds).mean_ms.values.tolist() == [40_000]
    assert not len(labtree.spikes.bursts(ds, min_spikes=2))


def bursts_of(train, longest, fewest):
    groups = []
    for time in train:
        if groups and time - groups[-1][-1] <= longest:
            groups[-1].append(time)
        else:
            groups.append([time])
    return [(group[0], group[-1], len(group)) for group in groups if len(group) >= fewest]


@settings(max_examples=examples(150), deadline=None)
@given(trains_strategy, st.sampled_from([0.0, 0.1, 5.0, 20.0]), st.integers(1, 4))
def test_bursts_against_a_loop(trains, longest, fewest):
    found = labtree.spikes.bursts(spikes(trains), longest, fewest)
    expected = [
        (unit, *burst)
        for unit, train in enumerate(trains)
        for burst in bursts_of(train, longest, fewest)
    ]
    assert list(found.itertuples(index=False, name=None)) == expected
    assert list(found) == ["unit", "start_ms", "stop_ms", "n_spikes"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda ds: labtree.spikes.isi_statistics(ds, -1), "refractory_ms must be a number"),
        (lambda ds: labtree.spikes.bursts(ds, math.nan), "max_isi_ms must be a number"),
        (lambda ds: labtree.spikes.bursts(ds, 1, 0), "min_spikes must be at least 1"),
        (lambda ds: labtree.spikes.smoothed_rates(ds, 1, 0), "sigma_ms must be a number"),
    ],
)
def test_parameters_are_checked(call, words):
    with pytest.raises(ValueError, match=words):
        call(spikes([[1.0]]))


def test_elephant_has_the_same_statistics():
    elephant = pytest.importorskip("elephant.statistics")
    random = np.random.default_rng(1)
    train = np.sort(random.uniform(0, 10_000, 200))
    found = labtree.spikes.isi_statistics(spikes([train], 10_000.0))
    intervals = elephant.isi(train)
    assert float(found.cv[0]) == pytest.approx(elephant.cv(intervals))
    assert float(found.cv2[0]) == pytest.approx(elephant.cv2(intervals))
    assert float(found.lv[0]) == pytest.approx(elephant.lv(intervals))


def test_pynapple_counts_the_same():
    nap = pytest.importorskip("pynapple")
    random = np.random.default_rng(2)
    # Away from edges: pynapple rounds to nanoseconds.
    ds = spikes([np.sort(random.integers(0, 1000, 50) + 0.5) for _ in range(3)], 1000.0)
    group = labtree.to_pynapple(ds)
    theirs = group.count(0.01, ep=nap.IntervalSet(0, 1.0)).values.T
    assert np.array_equal(labtree.spikes.binned_counts(ds, 10).values, theirs)
