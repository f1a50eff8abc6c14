"""A look at a session: its streams over time, with the spans of its labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from labtree.optional import require
from labtree.recording.session import labels_frame, stream, streams

__all__ = ["plot_session"]

# More points than a screen has columns say nothing more; each column keeps its extremes.
_COLUMNS = 2000
_MOST_CHANNELS = 32


def _envelope(data: xr.DataArray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return times and samples with the lowest and highest of every stretch of a column."""
    n = len(times)
    if n <= 2 * _COLUMNS:
        return times, np.asarray(data.values, float)
    edges = np.linspace(0, n, _COLUMNS + 1).astype(int)
    shown = np.empty((2 * _COLUMNS, data.shape[1]))
    # A hundred stretches at a time: hours of a recording do not fit into memory.
    for first in range(0, _COLUMNS, 100):
        part = edges[first : first + 101]
        block = np.asarray(data[part[0] : part[-1]].values, float)
        starts = part[:-1] - part[0]
        shown[2 * first : 2 * first + 2 * len(starts) : 2] = np.minimum.reduceat(block, starts)
        shown[2 * first + 1 : 2 * first + 2 * len(starts) : 2] = np.maximum.reduceat(
            block, starts
        )
    return np.repeat(times[edges[:-1]], 2), shown


def _spread(samples: np.ndarray) -> float:
    finite = samples[np.isfinite(samples)]
    if len(finite) == 0:
        return 1.0
    low, high = np.percentile(finite, [0.5, 99.5])
    return float(high - low) or 1.0


def plot_session(
    tree: xr.DataTree, names: Sequence[str] | None = None, *, axes: Any = None
) -> Any:
    """Plot streams one below the other, channels offset, label spans behind them.

    Parameters
    ----------
    tree
        A session.
    names
        Streams to show; all that have samples if None.
    axes
        An array of matplotlib axes, one per stream; made if None.

    Returns
    -------
    ndarray of matplotlib Axes
        One per stream. Time is in s from the first sample shown. Of a stream with more
        than 32 channels 32 are shown, evenly taken.

    Raises
    ------
    MissingDependencyError
        (an ImportError) If matplotlib is not installed.
    """
    plt = require("matplotlib.pyplot", purpose="session.plot()", extra="plot")
    if names is None:
        chosen = {name: ds for name, ds in streams(tree).items() if ds.sizes["time"]}
    else:
        chosen = {name: stream(tree, name) for name in names}
    if axes is None:
        rows = max(1, len(chosen))
        _, axes = plt.subplots(
            rows, sharex=True, squeeze=False, figsize=(10, 1 + 2.2 * rows), layout="constrained"
        )
    axes = np.atleast_1d(np.asarray(axes, object)).ravel()
    times = {name: np.asarray(ds["time"].values) for name, ds in chosen.items()}
    finite = [t[np.isfinite(t)] for t in times.values()]
    start = min((float(t.min()) for t in finite if len(t)), default=0.0)
    end = max((float(t.max()) for t in finite if len(t)), default=0.0) - start
    labels = labels_frame(tree)
    for axis, (name, dataset) in zip(axes, chosen.items(), strict=False):
        _plot_labels(axis, labels, start, end)
        data = dataset["data"]
        if data.shape[1] > _MOST_CHANNELS:
            data = data[:, np.linspace(0, data.shape[1] - 1, _MOST_CHANNELS).astype(int)]
        at, samples = _envelope(data, times[name] - start)
        step = max(_spread(samples[:, c]) for c in range(samples.shape[1]))
        offsets = -np.arange(samples.shape[1]) * step
        axis.plot(at, samples + offsets, linewidth=0.6, color="black")
        if samples.shape[1] == 1:
            pass  # its own scale says more than its name
        elif "channel" in data.coords:
            axis.set_yticks(offsets, [str(label) for label in data["channel"].values])
        else:
            axis.set_yticks(offsets[[0, -1]], ["0", str(dataset.sizes["channel"] - 1)])
        units = dataset["data"].attrs.get("units")
        axis.set_ylabel(f"{name} ({units})" if units else name)
        axis.margins(x=0, y=0.12)
    if len(axes):
        axes[-1].set_xlabel("time (s)")
    return axes


def _plot_labels(axis: Any, labels: Any, start: float, end: float) -> None:
    """Shade the span of every class, and name it at its beginning."""
    moments = labels["timestamp"].to_numpy(float) - start
    stops = np.append(moments[1:], max(end, moments[-1:].max(initial=0.0)))
    rows = zip(moments, stops, labels["class_index"], labels["class_name"], strict=True)
    for moment, stop, index, text in rows:
        if index < 0 or not np.isfinite([moment, stop]).all():
            continue
        axis.axvspan(moment, stop, color=f"C{index % 10}", alpha=0.25, linewidth=0)
        axis.annotate(
            text,
            (moment, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, -2),
            textcoords="offset points",
            va="top",
            fontsize="small",
        )
