import matplotlib as mpl
import numpy as np
import pytest

import labtree
from labtree.mea.electrical_image_kernel import compiled

mpl.use("Agg")
from matplotlib import pyplot as plt


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def whole(recording, sectioned):
    labtree.mea.compute_sta((-12, 0), recording.stimuli_dir, session=sectioned)
    labtree.mea.load_recording_with_eimage_sta(session=sectioned)
    return sectioned


def test_raster_shows_every_spike_of_every_trial(sectioned):
    ax = labtree.mea.plot_raster(sectioned, "step_small", ["unit_002", "unit_001"])
    trials = sectioned.session.trials_spike_times("unit_002", "step_small")
    begin = sectioned["sections/step_small"]["trial_start"].values.ravel()
    lines = ax.collections
    assert len(lines) == 2 * len(trials)
    for line, (n, spikes) in zip(lines, trials.items(), strict=False):
        np.testing.assert_allclose(line.get_positions(), (spikes - begin[n]) / 20_000)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["unit_002", "unit_001"]
    assert "(s)" in ax.get_xlabel()
    assert "8 trials" in ax.get_ylabel()
    ax.figure.canvas.draw()


def test_raster_draws_where_it_is_told(sectioned):
    _, ax = plt.subplots()
    assert labtree.mea.plot_raster(sectioned, "noise_small", ax=ax) is ax
    with pytest.raises(KeyError, match="no unit 'x'"):
        labtree.mea.plot_raster(sectioned, "noise_small", ["x"])
    with pytest.raises(KeyError, match="no sectioned movie"):
        labtree.mea.plot_raster(sectioned, "x")


def test_sta_frames_and_course(recording, whole):
    ax = labtree.mea.plot_sta(whole, "unit_001", n_frames=4)
    figure = ax.figure
    data = whole["features/sta_noise_small"]["sta"].sel(unit="unit_001").values.astype(float)
    data -= np.median(data)
    peak = np.unravel_index(np.abs(data).argmax(), data.shape)
    course = figure.axes[4].lines[0].get_ydata()
    np.testing.assert_allclose(course, data[:, peak[1], peak[2]])
    np.testing.assert_allclose(ax.images[0].get_array(), data[peak[0]])
    frame_ms = np.median(np.diff(recording.frames)) / 20.0
    np.testing.assert_allclose(
        figure.axes[4].lines[0].get_xdata(), np.arange(-12, 0) * frame_ms
    )
    assert ax.get_title() == f"{(peak[0] - 12) * frame_ms:.0f} ms"
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == (
        "x (pixel)", "y (pixel)",
    )  # fmt: skip
    assert figure.axes[4].get_xlabel() == "time from the spike (ms)"
    low, high = ax.images[0].get_clim()
    assert low == -high
    assert high <= np.abs(data).max()
    assert "unit_001" in figure.get_suptitle()
    figure.canvas.draw()
    with pytest.raises(KeyError, match="no feature 'sta_x'; there are: "):
        labtree.mea.plot_sta(whole, "unit_001", "x")
    with pytest.raises(KeyError, match="no unit 'u'"):
        labtree.mea.plot_sta(whole, "u")


def test_electrical_image_in_microvolts(recording, whole):
    left = labtree.mea.plot_electrical_image(whole, "unit_002")
    figure = left.figure
    right = figure.axes[1]
    counts = whole["features/eimage_sta"]["eimage_sta"].sel(unit="unit_002").values
    factors = (1000 + np.arange(81)).reshape(9, 9) * 1e-9 * 1e6
    np.testing.assert_allclose(
        left.images[0].get_array(), np.ptp(counts * factors, axis=0), rtol=1e-5
    )
    row, column = recording.positions["unit_002"]
    assert left.lines[0].get_xydata().tolist() == [[column, row]]
    assert f"row {row}, column {column}" in right.get_legend().get_texts()[0].get_text()
    assert "µV" in right.get_ylabel()
    figure.canvas.draw()


def test_units_without_data_say_so(recording, loaded, arguments):
    loaded.session.add_units({"unit_900": {"spike_times": np.array([1])}})
    labtree.mea.add_section_time(session=loaded, **arguments)
    labtree.mea.section_spike_times(session=loaded, config_dir=recording.stimuli_dir)
    with pytest.raises(KeyError, match=r"run labtree.mea.compute_sta\(session=session\)"):
        labtree.mea.plot_sta(loaded, "unit_900")
    with pytest.raises(KeyError, match=r"run labtree.mea.load_recording_with_eimage_sta\("):
        labtree.mea.plot_electrical_image(loaded, "unit_900")
    labtree.mea.compute_sta((-3, 0), recording.stimuli_dir, session=loaded)
    figure = labtree.mea.plot_sta(loaded, "unit_900").figure
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert "no valid spike" in texts


def test_every_plot_draws_where_it_is_told(whole):
    for draw, arguments in (
        (labtree.mea.plot_sta, ("unit_001",)),
        (labtree.mea.plot_electrical_image, ("unit_001",)),
        (labtree.mea.plot_raster, ("step_small",)),
    ):
        figure, ax = plt.subplots()
        before = len(plt.get_fignums())
        assert draw(whole, *arguments, ax=ax) is ax
        assert len(plt.get_fignums()) == before
        assert ax.get_title()
        assert ax.get_xlabel()
        figure.canvas.draw()


def test_an_average_of_another_program_is_told(whole):
    node = whole["features/sta_noise_small"]
    node.dataset = node.to_dataset().drop_vars("lag")
    with pytest.raises(labtree.ConfigurationError, match="was not computed by labtree"):
        labtree.mea.plot_sta(whole, "unit_001")


def test_missing_packages_say_what_for_and_how(monkeypatch, sectioned):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    match = r'matplotlib is needed for plotting.*"labtree\[plot\]"'
    with pytest.raises(labtree.MissingDependencyError, match=match):
        labtree.mea.plot_raster(sectioned, "step_small")
    monkeypatch.setitem(sys.modules, "numba", None)
    match = r'numba is needed for electrical images.*"labtree\[mea\]"'
    with pytest.raises(labtree.MissingDependencyError, match=match):
        compiled.__wrapped__()  # as if it had not been compiled yet


def test_the_names_of_labtree_mea():
    for name in labtree.mea.__all__:
        assert callable(getattr(labtree.mea, name))
        assert getattr(labtree.mea, name).__doc__
    assert set(labtree.mea.__all__) <= set(dir(labtree.mea))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = labtree.mea.nonsense
