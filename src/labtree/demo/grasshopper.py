"""Two grasshopper auditory receptors: recordings, and what is computed from them.

The recordings are those of nitime 0.12.1 (BSD-3-Clause; see ``data/README.md``), published
in Eyherabide, Rokem, Herz and Samengo (2008), doi:10.3389/neuro.10.003.2008.
"""

from importlib.resources import files

import numpy as np
import pandas as pd
import xarray as xr

from labtree.objects.rate_data import rate_data
from labtree.objects.spike_data import spike_data
from labtree.workspace.operations import comparison_namespace, create_workspace, store_item

#: The window of the spike-triggered average, before and after the spike, in ms.
BEFORE, AFTER = 15.0, 5.0
_BIN = 1.0
_KERNEL = 5.0


def read_recording(number: int) -> tuple[np.ndarray, xr.DataArray, dict[str, str]]:
    """Read one of the two recordings.

    Parameters
    ----------
    number
        1 or 2.

    Returns
    -------
    spike_times : numpy.ndarray
        Shape (spike,), float64, ms.
    stimulus : xarray.DataArray
        Amplitude of the sound's envelope, shape (time,), float32; ``time`` in ms.
    settings : dict
        The recording's settings as its file names them.
    """
    folder = files("labtree.demo") / "data"
    text = (folder / f"grasshopper_spike_times{number}.txt").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    settings: dict[str, str] = {}
    for line in lines:
        if line.startswith("#"):
            name, _, value = line[1:].partition(":")
            settings[name.strip()] = value.strip()
    spike_times = np.array([float(line) for line in lines if line[0] != "#"]) / 1000
    with (folder / f"grasshopper_stimulus{number}.npz").open("rb") as file:
        content = np.load(file)
        amplitude, interval = (
            content["amplitude"],
            float(content["sampling_interval_us"]) / 1000,
        )
    time = xr.Variable("time", np.arange(amplitude.size) * interval, {"units": "ms"})
    attrs = {"long_name": "stimulus amplitude", "units": "1", "sampling_interval": interval}
    stimulus = xr.DataArray(amplitude, {"time": time}, ("time",), "stimulus", attrs)
    return spike_times, stimulus, settings


def firing_rate(spike_times: np.ndarray, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the firing rate, spike counts smoothed by a Gaussian of 5 ms.

    Parameters
    ----------
    spike_times
        Shape (spike,), ms.
    duration
        Of the recording, ms.

    Returns
    -------
    rate : numpy.ndarray
        Shape (bin,), Hz.
    times : numpy.ndarray
        Centers of the bins of 1 ms, ms.
    """
    edges = np.arange(0.0, duration + _BIN, _BIN)
    counts = np.histogram(spike_times, edges)[0]
    offsets = np.arange(-4 * _KERNEL, 4 * _KERNEL + _BIN, _BIN)
    kernel = np.exp(-0.5 * (offsets / _KERNEL) ** 2)
    rate = np.convolve(counts, kernel / kernel.sum(), mode="same") / (_BIN / 1000)
    return rate, edges[:-1] + _BIN / 2


def spike_triggered_average(spike_times: np.ndarray, stimulus: xr.DataArray) -> xr.Dataset:
    """Return the mean stimulus around a spike, and its standard error.

    Parameters
    ----------
    spike_times
        Shape (spike,), ms. Spikes whose window is not inside the stimulus are left out.
    stimulus
        Shape (time,), evenly sampled.

    Returns
    -------
    xarray.Dataset
        ``average(lag)`` and ``standard_error(lag)``; ``lag`` in ms, negative before the
        spike; the attribute ``n_spikes`` counts the spikes that were used.
    """
    interval = float(stimulus.attrs["sampling_interval"])
    lags = np.arange(-round(BEFORE / interval), round(AFTER / interval) + 1)
    centers = np.round(spike_times / interval).astype(np.int64)
    inside = (centers + lags[0] >= 0) & (centers + lags[-1] < stimulus.size)
    windows = stimulus.values[centers[inside, None] + lags].astype(np.float64)
    count = len(windows)
    return xr.Dataset(
        {
            "average": ("lag", windows.mean(axis=0)),
            "standard_error": ("lag", windows.std(axis=0, ddof=1) / np.sqrt(count)),
        },
        {"lag": ("lag", lags * interval, {"units": "ms"})},
        {"n_spikes": count, "mean_stimulus": float(stimulus.mean())},
    )


def train_statistics(spike_times: np.ndarray, duration: float) -> dict[str, float]:
    """Return spike count, mean rate, coefficient of variation of intervals, burst fraction.

    A spike is part of a burst if the spike before or after it is closer than 8 ms.
    """
    intervals = np.diff(spike_times)
    close = np.concatenate([[False], intervals < 8.0, [False]])
    return {
        "spikes": spike_times.size,
        "mean_rate": spike_times.size / (duration / 1000),
        "interval_cv": float(intervals.std() / intervals.mean()),
        "burst_fraction": float(np.mean(close[:-1] | close[1:])),
    }


def build_workspace() -> xr.DataTree:
    """Return a workspace with both recordings and all that is computed from them.

    Examples
    --------
    >>> build_workspace().ws.list_keys("grasshopper1")
    ['stimulus', 'spikes', 'rate', 'sta', 'settings']
    """
    tree = create_workspace("grasshopper")
    rows = {}
    for number in (1, 2):
        name = f"grasshopper{number}"
        spike_times, stimulus, settings = read_recording(number)
        duration = stimulus.size * float(stimulus.attrs["sampling_interval"])
        spikes = spike_data(
            [spike_times],
            length=duration,
            neuron_attributes=[{"cell": name, "type": "auditory receptor"}],
            metadata={"source": "nitime 0.12.1", "doi": "10.3389/neuro.10.003.2008"},
        )
        rate, times = firing_rate(spike_times, duration)
        rates = rate_data(rate[None, :], times, neuron_attributes=[{"cell": name}])
        sta = spike_triggered_average(spike_times, stimulus)
        cutoff = settings["cut-off frequency (Hz)"]
        note = f"envelope of the sound, up to {cutoff} Hz"
        store_item(tree, name, "stimulus", stimulus, note=note)
        store_item(tree, name, "spikes", spikes, note="one receptor, 10 s")
        store_item(tree, name, "rate", rates, note="1 ms bins, Gaussian of 5 ms")
        store_item(tree, name, "sta", sta, note=f"{sta.attrs['n_spikes']} spikes used")
        store_item(tree, name, "settings", settings)
        rows[name] = train_statistics(spike_times, duration)
    table = pd.DataFrame.from_dict(rows, orient="index").astype({"spikes": "int64"})
    both = comparison_namespace(*rows)
    store_item(tree, both, "trains", table, note="bursts: spikes closer than 8 ms")
    return tree
