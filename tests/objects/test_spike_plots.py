"""Plots of every kind: what is drawn, and how it is labeled."""

import sys

import numpy as np
import pytest

import labtree
from labtree.objects.registry import kind_named
from labtree.testing import spikes

DATASETS = {
    "spike_data": spikes.synthetic_spike_data(5),
    "rate_data": spikes.synthetic_rate_data(5),
    "rate_slice_stack": spikes.synthetic_rate_slice_stack(5),
    "spike_slice_stack": spikes.synthetic_spike_slice_stack(5),
    "pairwise_matrix": spikes.synthetic_pairwise_matrix(5),
    "pairwise_stack": spikes.synthetic_pairwise_stack(5),
    "psth": labtree.spikes.psth(
        labtree.spike_data([[90.0, 110.0, 205.0], [195.0], []], length=300),
        [100, 200],
        50,
        50,
        25,
    ),
}


def plot(ds, **more):
    return kind_named(ds.attrs["labtree_kind"]).plot(ds, **more)


@pytest.mark.parametrize("kind", DATASETS)
def test_every_plot_can_be_drawn_on_given_axes(kind):
    from matplotlib import pyplot

    _, axes = pyplot.subplots()
    assert plot(DATASETS[kind], ax=axes) is axes
    axes.figure.canvas.draw()
    assert axes.get_xlabel()
    assert axes.get_ylabel()


def test_a_raster_has_a_tick_for_each_spike():
    ds = labtree.spike_data([[1.0, 3.0], [], [2.0]], start_time=-1, length=11)
    axes = plot(ds, color="red")
    (line,) = axes.get_lines()
    assert line.get_xydata().tolist() == [[1, 0], [3, 0], [2, 2]]
    assert line.get_color() == "red"
    assert axes.get_xlim() == (-1, 10)
    assert axes.get_ylim() == (-0.5, 2.5)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Time (ms)", "Unit")


@pytest.mark.parametrize("kind", ["spike_data", "rate_data"])
def test_a_unit_of_what_is_no_stack_is_said(kind):
    with pytest.raises(ValueError, match=r"write labtree.spikes.select_units\(ds, \[2\]\)"):
        DATASETS[kind].ws.plot(unit=2)
    one = labtree.spikes.select_units(DATASETS[kind], [2])
    assert one.ws.plot().get_ylim() == (-0.5, 0.5)


def test_a_long_raster_counts_in_seconds():
    axes = plot(labtree.spike_data([[1500.0]], length=9000))
    assert axes.get_lines()[0].get_xdata().tolist() == [1.5]
    assert axes.get_xlabel() == "Time (s)"


def test_a_heatmap_shows_the_rates_with_their_unit():
    axes = plot(labtree.rate_data([[1, 2], [3, 4]], [0, 10], unit="kHz"))
    (mesh,) = axes.collections
    assert mesh.get_array().tolist() == [[1, 2], [3, 4]]
    assert axes.get_xlim() == (-5, 15)
    assert axes.figure.axes[1].get_ylabel() == "Firing rate (kHz)"


def test_slice_averages_are_those_of_numpy():
    ds = DATASETS["rate_slice_stack"]
    axes = plot(ds, unit=2)
    values = ds.rate.values[2]
    assert axes.get_lines()[0].get_ydata() == pytest.approx(values.mean(axis=1))
    (band,) = axes.collections
    drawn = band.get_paths()[0].vertices[:, 1]
    error = values.std(axis=1, ddof=1) / np.sqrt(10)
    assert drawn.max() == pytest.approx((values.mean(axis=1) + error).max())
    assert axes.get_title() == "unit 2, mean ± SEM of 10 slices"
    assert axes.get_ylabel() == "Firing rate (Hz)"
    everything = plot(ds)
    assert everything.get_lines()[0].get_ydata() == pytest.approx(ds.rate.values.mean((0, 2)))


def test_the_rate_of_spike_slices_is_counted():
    ds = DATASETS["spike_slice_stack"]
    for unit in (None, 4, -1):
        axes = plot(ds, unit=unit, bin_ms=8)
        line = axes.get_lines()[0]
        slices = labtree.spikes.slices_of(ds)
        edges = np.linspace(-50, 150, 26)
        counts = [
            np.histogram(np.concatenate(trains if unit is None else [trains[unit]]), edges)[0]
            for trains in map(labtree.spikes.spike_trains, slices)
        ]
        n_units = 5 if unit is None else 1
        expected = np.mean(counts, axis=0) / n_units / 0.008
        assert line.get_ydata() == pytest.approx(expected)
        assert axes.get_ylabel() == "Firing rate (Hz)"
        assert axes.get_ylim()[0] == 0
        (raster,) = [one for one in axes.figure.axes if one is not axes]
        assert "8 ms bins" in raster.get_title()
        trains = [labtree.spikes.spike_trains(one) for one in slices]
        shown = sorted(
            (time, at)
            for at, units in enumerate(trains)
            for train in (units if unit is None else [units[unit]])
            for time in train
        )
        assert sorted(map(tuple, raster.get_lines()[0].get_xydata().tolist())) == shown


def test_bins_of_a_stack_are_round_or_as_asked():
    ds = DATASETS["spike_slice_stack"]  # 200 ms from -50 on
    above = plot(ds).figure.axes[1]
    assert "5 ms bins" in above.get_title()
    with pytest.raises(ValueError, match="bin_ms must be a number of milliseconds above 0"):
        plot(ds, bin_ms=0)


def test_the_error_of_a_mean_rate_is_not_drawn_below_zero():
    parts = [labtree.spike_data([train], length=100) for train in ([50.0], [], [])]
    stack = labtree.spike_slice_stack(parts, [(0, 100), (100, 200), (200, 300)])
    (band,) = plot(stack, bin_ms=10).collections
    assert band.get_paths()[0].vertices[:, 1].min() == 0


def test_colors_of_a_matrix_reach_as_far_as_the_values_off_the_diagonal():
    values = np.full((6, 6), 0.2) + np.eye(6)
    image = plot(labtree.pairwise_matrix(values)).images[0]
    assert image.get_clim() == pytest.approx((0, 0.2))
    assert image.get_cmap().name == "viridis"
    values[0, 1] = -0.1
    image = plot(labtree.pairwise_matrix(values)).images[0]
    assert image.get_clim() == pytest.approx((-0.2, 0.2))
    assert image.get_cmap().name == "RdBu_r"
    assert image.colorbar.extend == "max"
    assert plot(labtree.pairwise_matrix(values), vmin=-1, vmax=2).images[0].get_clim() == (
        -1,
        2,
    )


def test_rows_are_labeled_with_the_ids_of_units_and_at_most_twelve():
    ds = labtree.spikes.from_times([1.0], ["b"], unit_ids=["a", "b"])
    assert [tick.get_text() for tick in plot(ds).get_yticklabels()] == ["a", "b"]
    many = [tick.get_text() for tick in plot(spikes.synthetic_spike_data(43)).get_yticklabels()]
    assert many == ["0", "5", "10", "15", "20", "25", "30", "35", "40"]


def test_crowded_ticks_are_transparent():
    sparse, dense = (
        plot(labtree.spike_data([np.linspace(0, 1e6, n)])).get_lines()[0].get_alpha()
        for n in (10, 20_000)
    )
    assert sparse == 1
    assert dense < 0.1


def test_a_matrix_shows_its_labels_and_leaves_masked_values_white():
    masked = np.ma.masked_equal([[1.0, 2.0], [3.0, 1.0]], 1)
    ds = labtree.pairwise_matrix(masked, labels=["a", "b"], metadata={"method": "sttc"})
    axes = plot(ds)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a", "b"]
    assert np.ma.getmaskarray(axes.images[0].get_array()).tolist() == [[1, 0], [0, 1]]
    assert axes.figure.axes[1].get_ylabel() == "sttc"


def test_many_labels_are_thinned_out():
    ds = labtree.pairwise_matrix(np.eye(100), labels=[f"unit {n}" for n in range(100)])
    shown = [tick.get_text() for tick in plot(ds).get_yticklabels()]
    assert len(shown) <= 12
    assert shown[:2] == ["unit 0", "unit 10"]


@pytest.mark.parametrize("dtype", ["?", "i8", "c16"])
def test_matrices_of_any_dtype_can_be_drawn(dtype):
    image = plot(labtree.pairwise_matrix(np.eye(2).astype(dtype) * -1 if dtype != "?" else
                                         np.eye(2, dtype=bool))).images[0]  # fmt: skip
    image.figure.canvas.draw()
    assert abs(image.get_array()).tolist() == [[1, 0], [0, 1]]


def test_a_stack_is_averaged_or_shown_one_by_one():
    ds = DATASETS["pairwise_stack"]
    assert np.allclose(plot(ds).images[0].get_array(), ds.matrix.values.mean(axis=2))
    assert np.allclose(plot(ds, slice=1).images[0].get_array(), ds.matrix.values[:, :, 1])
    with pytest.raises(ValueError, match="no average"):
        plot(labtree.pairwise_stack(np.empty((2, 2, 0))))


@pytest.mark.parametrize(
    "ds",
    [
        labtree.spike_data([]),
        labtree.spike_data([[], []]),
        labtree.rate_data(np.empty((0, 0)), []),
        labtree.rate_data([[1.0]], [5]),
        labtree.rate_data(np.empty((2, 0)), []),
        labtree.rate_slice_stack(np.ones((1, 1, 1)), [(0, 1)]),
        labtree.spike_slice_stack([labtree.spike_data([[], []])], [(0, 0)]),
        labtree.pairwise_matrix(np.empty((0, 0)), labels=[]),
    ],
    ids=lambda ds: f"{ds.attrs['labtree_kind']} {tuple(ds.sizes.values())}",
)
def test_little_or_nothing_can_be_drawn(ds):
    plot(ds).figure.canvas.draw()


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "labtree\[plot\]"'):
        plot(DATASETS["spike_data"])


def test_a_psth_shows_the_rates_of_all_units():
    axes = plot(DATASETS["psth"])
    (mesh,) = axes.collections
    np.testing.assert_array_equal(
        mesh.get_array(), [[0, 20, 40, 0], [0, 20, 0, 0], [0, 0, 0, 0]]
    )
    assert axes.get_xlim() == (-50, 50)
    assert axes.get_xlabel() == "Time from the event (ms)"
    assert axes.figure.axes[1].get_ylabel() == "Mean firing rate (Hz)"


def test_a_psth_of_one_unit_is_a_line_with_its_error():
    ds = DATASETS["psth"]
    for axes in (plot(ds, unit=1, color="red"), plot(ds.isel(unit=1), color="red")):
        line = axes.get_lines()[0]
        assert line.get_xydata().tolist() == [[-37.5, 0], [-12.5, 20], [12.5, 0], [37.5, 0]]
        assert line.get_color() == "red"
        # The error of (0, 1) spikes in 25 ms: half a spike, 20 Hz.
        (band,) = axes.collections
        assert band.get_paths()[0].vertices[:, 1].max() == 40
        assert axes.get_ylim()[0] == 0


def test_a_choice_of_what_to_draw_of_a_psth():
    ds = DATASETS["psth"]
    axes = ds.ws.plot(array="n_events")
    assert axes.get_lines()[0].get_ydata().tolist() == [2, 2, 2, 2]
    assert axes.get_ylabel() == "Number of events"
    (mesh,) = ds.ws.plot(array="sem").collections
    np.testing.assert_array_equal(mesh.get_array(), ds["sem"].values)
    with pytest.raises(
        labtree.DataError,
        match=r"array must be one of 'rate', 'sem', 'n_events', found 'rates'",
    ):
        ds.ws.plot(array="rates")


def test_a_psth_is_stored_as_such_and_as_a_plain_dataset_once_it_is_none(tmp_path):
    tree = labtree.create_workspace()
    ds = DATASETS["psth"]
    ds.ws.store("a", "psth", into=tree)
    tree.ws.save(tmp_path / "study")
    again = labtree.load_item(tmp_path / "study", "a", "psth")
    assert again.ws.kind == "psth"
    assert again.identical(ds)
    with pytest.warns(labtree.LabtreeWarning, match="psth"):
        ds.transpose().ws.store("a", "turned", into=tree)
    with pytest.raises(labtree.DataError, match=r"needs the dimensions \('unit', 'time'\)"):
        ds.transpose().ws.validate()


def test_a_larger_curve_in_the_same_axes_is_not_cut_off():
    units = labtree.spike_data([[1010.0], [1000.0 + at for at in range(40)]], length=3000)
    rates = labtree.spikes.psth(units, [1000.0], 100, 100, 20)
    ax = rates.ws.plot(unit=0)
    rates.ws.plot(unit=1, ax=ax)
    bottom, top = ax.get_ylim()
    assert bottom == 0
    assert top > float(rates.rate.max()) > 10 * float(rates.rate[0].max())
