"""Plots of spike trains, rates, slices and matrices on matplotlib Axes.

Each takes the Axes to draw on, or makes a figure, and gives the Axes back.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.objects.pairwise import matrix_values
from labtree.optional import require
from labtree.storage import ragged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_pairwise_matrix",
    "plot_pairwise_stack",
    "plot_rate_data",
    "plot_rate_slice_stack",
    "plot_spike_data",
    "plot_spike_slice_stack",
]

_SECOND_MS = 1000.0
_LONG_MS = 5000.0
_MOST_TICK_LABELS = 40


def plot_spike_data(ds: xr.Dataset, *, ax: "Axes | None" = None, **style: Any) -> "Axes":
    """Draw a raster: one row for each unit, one tick for each spike.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spike_data`.
    ax : matplotlib Axes, optional
    **style
        For :meth:`matplotlib.axes.Axes.plot`, such as ``color`` and ``markersize``.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0, 3.0], [2.0]], length=10)
    >>> ax = plot_spike_data(ds)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('Time (ms)', 'Unit')
    """
    units = ragged.row_of_sample(ds["row_size"].values)
    start, length = ds.attrs["start_time"], ds.attrs["length"]
    ax = _axes(ax, height=_rows_height(ds.sizes["unit"]))
    factor, label = _time_scale(length)
    _ticks(ax, ds["spike_times"].values * factor, units, ds.sizes["unit"], style)
    _window(ax, start * factor, (start + length) * factor)
    ax.set(xlabel=label, ylabel="Unit")
    _rows(ax, ds.sizes["unit"])
    return ax


def plot_rate_data(ds: xr.Dataset, *, ax: "Axes | None" = None, **style: Any) -> "Axes":
    """Draw a heatmap of rates, one row for each unit.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.rate_data`.
    ax : matplotlib Axes, optional
    **style
        For :meth:`matplotlib.axes.Axes.pcolormesh`, such as ``cmap`` and ``vmax``.
    """
    rate = ds["rate"]
    time = ds["time"].values
    ax = _axes(ax, height=_rows_height(ds.sizes["unit"]))
    factor, label = _time_scale(float(time[-1] - time[0]) if time.size else 0.0)
    if rate.size:
        mesh = ax.pcolormesh(
            _edges(time) * factor,
            np.arange(ds.sizes["unit"] + 1) - 0.5,
            rate.values,
            **_style(style, cmap="viridis", rasterized=True),
        )
        _colorbar(ax, mesh, _rate_label(rate))
    ax.set(xlabel=label, ylabel="Unit")
    _rows(ax, ds.sizes["unit"])
    return ax


def plot_rate_slice_stack(
    ds: xr.Dataset, *, unit: int | None = None, ax: "Axes | None" = None, **style: Any
) -> "Axes":
    """Draw the average over slices, with its standard deviation around it.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.rate_slice_stack`.
    unit : int, optional
        Position of the unit to draw; by default the average of all units.
    ax : matplotlib Axes, optional
    **style
        For :meth:`matplotlib.axes.Axes.plot`, such as ``color`` and ``label``.
    """
    rate = ds["rate"].transpose("unit", "time", "slice")
    values = (rate.mean("unit") if unit is None else rate.isel(unit=unit)).values
    time = ds["time"].values if "time" in ds.coords else np.arange(rate.sizes["time"])
    who = f"mean of {rate.sizes['unit']} units" if unit is None else f"unit {unit}"
    return _average(_axes(ax), time, values, who, _rate_label(ds["rate"]), style)


def plot_spike_slice_stack(
    ds: xr.Dataset, *, unit: int | None = None, ax: "Axes | None" = None, **style: Any
) -> "Axes":
    """Draw the rate averaged over slices, with its standard deviation around it.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spike_slice_stack`.
    unit : int, optional
        Position of the unit to draw; by default the average of all units.
    ax : matplotlib Axes, optional
    **style
        For :meth:`matplotlib.axes.Axes.plot`, such as ``color`` and ``label``.
    """
    n_slices, n_units = ds["row_size"].shape
    start = ds.attrs["start_time"]
    length = float(np.min(ds["length"].values if "length" in ds else ds.attrs["length"]))
    n_bins = 50
    # A bin that no slice fills says nothing: the shortest slice bounds them.
    edges = start + np.linspace(0, length or 1.0, n_bins + 1)
    rows = ragged.row_of_sample(ds["row_size"].values)
    times = ds["spike_times"].values
    bins = np.searchsorted(edges, times, side="right") - 1
    bins[times == edges[-1]] = n_bins - 1
    inside = (bins >= 0) & (bins < n_bins)
    if unit is not None:
        inside &= rows % n_units == range(n_units)[unit]
    counts = np.bincount(
        (rows // n_units)[inside] * n_bins + bins[inside], minlength=n_slices * n_bins
    ).reshape(n_slices, n_bins)
    averaged = n_units if unit is None else 1
    rates = counts.T / max(averaged, 1) / ((edges[1] - edges[0]) / _SECOND_MS)
    who = f"mean of {n_units} units" if unit is None else f"unit {unit}"
    middle = (edges[1:] + edges[:-1]) / 2
    return _average(_axes(ax), middle, rates, who, "Firing rate (Hz)", style)


def plot_pairwise_matrix(ds: xr.Dataset, *, ax: "Axes | None" = None, **style: Any) -> "Axes":
    """Draw the matrix with the labels of its units; masked values stay white.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.pairwise_matrix`. Of complex values the magnitude is drawn.
    ax : matplotlib Axes, optional
    **style
        For :meth:`matplotlib.axes.Axes.imshow`, such as ``cmap`` and ``vmin``.
    """
    name = str(ds.attrs.get("metadata", {}).get("method", "Value"))
    return _matrix(ds, matrix_values(ds), name, ax, style)


def plot_pairwise_stack(
    ds: xr.Dataset, *, slice: int | None = None, ax: "Axes | None" = None, **style: Any
) -> "Axes":
    """Draw one matrix of a stack, or the average of all.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.pairwise_stack`. Of complex values the magnitude is drawn.
    slice : int, optional
        Position of the slice to draw; by default the average of all slices.
    ax : matplotlib Axes, optional
    **style
        For :meth:`matplotlib.axes.Axes.imshow`, such as ``cmap`` and ``vmin``.
    """
    values = matrix_values(ds)
    name = str(ds.attrs.get("metadata", {}).get("method", "Value"))
    n_slices = values.shape[2]
    if slice is None:
        if n_slices == 0:
            raise DataError("a stack without slices has no average to draw")
        return _matrix(ds, values.mean(axis=2), f"{name}, mean of {n_slices} slices", ax, style)
    return _matrix(ds, values[:, :, slice], f"{name}, slice {slice}", ax, style)


def _axes(ax: "Axes | None", *, height: float = 4.0) -> "Axes":
    if ax is not None:
        return ax
    pyplot = require("matplotlib.pyplot", purpose="plots", extra="plot")
    axes: Axes = pyplot.subplots(figsize=(8, height), layout="constrained")[1]
    return axes


def _rows_height(n_rows: int) -> float:
    return float(np.clip(1.5 + 0.12 * n_rows, 2.5, 7.0))


def _time_scale(length_ms: float) -> tuple[float, str]:
    return (1 / _SECOND_MS, "Time (s)") if length_ms > _LONG_MS else (1.0, "Time (ms)")


def _ticks(
    ax: "Axes", times: NDArray[Any], rows: NDArray[Any], n_rows: int, style: dict[str, Any]
) -> None:
    size = float(np.clip(200 / max(n_rows, 1), 1.5, 14))
    drawn = _style(style, color="black", markersize=size, markeredgewidth=0.7, rasterized=True)
    ax.plot(times, rows, **{"linestyle": "none", "marker": "|"} | drawn)


def _window(ax: "Axes", start: float, stop: float) -> None:
    if stop > start:
        ax.set_xlim(start, stop)


def _rows(ax: "Axes", n_rows: int) -> None:
    ticker = require("matplotlib.ticker", purpose="plots", extra="plot")
    if n_rows:
        ax.set_ylim(-0.5, n_rows - 0.5)
    ax.yaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=8))
    ax.spines[["top", "right"]].set_visible(False)


def _edges(time: NDArray[Any]) -> NDArray[Any]:
    centers = time.astype(float)
    if centers.size == 1:
        return np.array([centers[0] - 0.5, centers[0] + 0.5])
    middle = (centers[1:] + centers[:-1]) / 2
    return np.concatenate(
        [[2 * centers[0] - middle[0]], middle, [2 * centers[-1] - middle[-1]]]
    )


def _rate_label(rate: xr.DataArray) -> str:
    units = rate.attrs.get("units")
    return f"Firing rate ({units})" if units else "Firing rate"


def _average(
    ax: "Axes",
    time: NDArray[Any],
    values: NDArray[Any],
    who: str,
    ylabel: str,
    style: dict[str, Any],
) -> "Axes":
    mean, spread = values.mean(axis=1), values.std(axis=1)
    factor, label = _time_scale(float(time[-1] - time[0]))
    (line,) = ax.plot(time * factor, mean, **_style(style, linewidth=1.8))
    ax.fill_between(
        time * factor, mean - spread, mean + spread, color=line.get_color(), alpha=0.25, lw=0
    )
    if time[0] < 0 < time[-1]:
        ax.axvline(0, color="gray", linewidth=0.8, linestyle=":")
    ax.margins(x=0)
    ax.set(xlabel=label.replace("Time", "Time in slice"), ylabel=ylabel)
    ax.set_title(f"{who}, mean ± SD of {values.shape[1]} slices", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _matrix(
    ds: xr.Dataset,
    values: NDArray[Any],
    name: str,
    ax: "Axes | None",
    style: dict[str, Any],
) -> "Axes":
    if values.dtype.kind == "c":
        values, name = abs(values), f"{name}, magnitude"
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    n_units = values.shape[0]
    ax = _axes(ax, height=6.0)
    ax.set(xlabel="Unit", ylabel="Unit")
    if not values.size:
        return ax
    image = ax.imshow(values, **_style(style, cmap="viridis", interpolation="nearest"))
    _colorbar(ax, image, name)
    if "label_i" in ds.coords:
        labels = [str(label) for label in ds["label_i"].values]
        step = -(-n_units // _MOST_TICK_LABELS)
        shown = range(0, n_units, step)
        crowded = max(map(len, labels)) * len(shown) > _MOST_TICK_LABELS
        ax.set_xticks(shown, labels[::step], rotation=90 if crowded else 0)
        ax.set_yticks(shown, labels[::step])
    return ax


def _style(given: dict[str, Any], **ours: Any) -> dict[str, Any]:
    return ours | given


def _colorbar(ax: "Axes", drawn: Any, label: str) -> None:
    ax.figure.colorbar(drawn, ax=ax, label=label)
