"""The demonstration: its numbers against loops, its files, its words."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import labtree
from labtree import cli
from labtree.demo import grasshopper
from labtree.demo.picture import draw


@pytest.fixture(scope="module")
def tree():
    return grasshopper.build_workspace()


@pytest.mark.parametrize(("number", "count"), [(1, 929), (2, 868)])
def test_recordings_are_whole(number, count):
    spike_times, stimulus, settings = grasshopper.read_recording(number)
    assert spike_times.shape == (count,)
    assert stimulus.shape == (200_000,)
    assert stimulus.dtype == np.float32
    assert stimulus.time[-1].item() == pytest.approx(9999.95)
    assert 0 < spike_times.min() < spike_times.max() < 10_000
    assert settings["carrier freq (kHz)"] == "2.5"


def test_spike_triggered_average_is_that_of_a_loop(tree):
    spike_times, stimulus, _ = grasshopper.read_recording(1)
    values = stimulus.values.astype(float)
    windows = []
    for spike in spike_times:
        center = round(spike / 0.05)
        if center - 300 >= 0 and center + 100 < values.size:
            windows.append(values[center - 300 : center + 101])
    sta = tree.ws["grasshopper1", "sta"]
    assert sta.attrs["n_spikes"] == len(windows)
    np.testing.assert_allclose(sta.average, np.mean(windows, axis=0), rtol=1e-12)
    error = np.std(windows, axis=0, ddof=1) / len(windows) ** 0.5
    np.testing.assert_allclose(sta.standard_error, error, rtol=1e-9)
    assert sta.lag.values[[0, 300, 400]] == pytest.approx([-15, 0, 5])


def test_firing_rate_counts_every_spike():
    spike_times = np.array([500.2, 501.7, 700.0])
    rate, times = grasshopper.firing_rate(spike_times, 1000.0)
    assert rate.shape == times.shape == (1000,)
    assert rate.sum() / 1000 == pytest.approx(3)
    assert times[0] == 0.5
    assert abs(times[rate.argmax()] - 501) < 1


def test_statistics_of_a_train_by_hand():
    result = grasshopper.train_statistics(np.array([0.0, 5.0, 100.0, 200.0]), 1000.0)
    assert result["spikes"] == 4
    assert result["mean_rate"] == 4
    assert result["burst_fraction"] == 0.5
    intervals = np.array([5.0, 95.0, 100.0])
    assert result["interval_cv"] == pytest.approx(intervals.std() / intervals.mean())


def test_picture_is_svg_with_both_cells_and_units(tree):
    picture = draw(tree)
    root = ElementTree.fromstring(picture)
    texts = " ".join(
        element.text or "" for element in root.iter() if element.tag.endswith("text")
    )
    for word in ("time (ms)", "rate (Hz)", "lag (ms)", "grasshopper1, n = 925", "grasshopper2"):
        assert word in texts
    assert "nan" not in picture


def test_demo_command_leaves_files_that_open(tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path / "new folder")]) == 0
    said = capsys.readouterr().out
    assert "labtree.open_workspace(" in said
    assert "925 spikes used" in said
    with labtree.open_workspace(tmp_path / "new folder" / "grasshopper") as saved:
        assert saved.ws.list_namespaces() == [
            "grasshopper1",
            "grasshopper2",
            "C_grasshopper1_grasshopper2",
        ]
    assert (tmp_path / "new folder" / "grasshopper.json").is_file()
    assert (tmp_path / "new folder" / "grasshopper.svg").is_file()


def test_errors_are_one_line_and_exit_code_one(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["demo", "--out", str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("labtree: ")
    assert error.count("\n") == 1


def test_version_and_missing_command():
    run = subprocess.run(
        [sys.executable, "-m", "labtree", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == f"labtree {labtree.__version__}"
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
