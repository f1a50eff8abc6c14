"""Plots of every kind on matplotlib Axes.

Each takes the Axes to draw on, or makes a figure, and returns the Axes.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.display.figures import given_or_new_axes
from labtree.errors import DataError
from labtree.objects.layout import unit_position
from labtree.objects.pairwise import matrix_values
from labtree.optional import require
from labtree.storage import ragged
from labtree.storage.arguments import one_of, positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_pairwise_matrix",
    "plot_pairwise_stack",
    "plot_plain",
    "plot_psth",
    "plot_rate_data",
    "plot_rate_slice_stack",
    "plot_spike_data",
    "plot_spike_slice_stack",
]

_SECOND_MS = 1000.0
_LONG_MS = 5000.0
_MOST_TICK_LABELS = 12
_MOST_PANELS = 10
_LABELS = ("unit_id", "label", "channel")
#: Widths of bins that a reader knows by sight, in ms.
_ROUND_BINS_MS = np.array([1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 2000, 5000], float)


def plot_plain(obj: xr.Dataset | xr.DataArray, **options: Any) -> Any:
    """Draw an array, or each array of a Dataset in Axes of its own, as xarray does.

    Returns
    -------
    Axes or array of Axes
        One below the other where a Dataset has several arrays.

    Raises
    ------
    DataError
        A ValueError, if a Dataset holds no array that could be drawn, or more than ten, or
        several for one Axes.
    """
    pyplot = require("matplotlib.pyplot", purpose="ds.ws.plot()", extra="plot")
    arrays = [obj.squeeze()] if isinstance(obj, xr.DataArray) else _drawable_arrays(obj)
    if len(arrays) > 1:
        if options.get("ax") is not None or len(arrays) > _MOST_PANELS:
            names = [array.name for array in arrays]
            raise DataError(
                f"cannot choose what to draw of a dataset with the arrays {names}; name one: "
                f"ds[{names[0]!r}].ws.plot()"
            )
        size = (6.4, min(2.4 * len(arrays), 16.0))
        axes = pyplot.subplots(len(arrays), figsize=size, layout="constrained")[1]
        for array, each in zip(arrays, axes, strict=True):
            array.plot(**options | {"ax": each})
        return axes
    array = arrays[0]
    if array.size < 2:
        raise DataError(
            f"there is nothing to draw: {dict(obj.sizes)} holds {array.size} values"
        )
    if options.get("ax") is None and array.ndim in (1, 2):
        options["ax"] = pyplot.subplots(layout="constrained")[1]
    drawn = array.plot(**options)
    return options.get("ax", drawn)


def _drawable_arrays(dataset: xr.Dataset) -> list[xr.DataArray]:
    """Return the arrays of numbers along one or two dimensions."""
    numbers = {
        name: variable.squeeze()
        for name, variable in dataset.data_vars.items()
        if variable.size > 1 and np.issubdtype(variable.dtype, np.number)
    }
    drawable = [variable for variable in numbers.values() if variable.ndim <= 2]
    if not drawable:
        if not numbers:
            raise DataError(
                "there is nothing to draw: no array of the dataset holds numbers along a "
                f"dimension; it has {list(map(str, dataset.data_vars))}"
            )
        name, array = next(iter(numbers.items()))
        first = ", ".join(f"{dim}=0" for dim in array.dims[: array.ndim - 2])
        raise DataError(
            f"{name!r} has {array.ndim} dimensions, {', '.join(map(str, array.dims))}, and at "
            f"most two can be drawn; write ds[{name!r}].isel({first}).ws.plot()"
        )
    return drawable


def plot_spike_data(ds: xr.Dataset, *, ax: "Axes | None" = None, **style: Any) -> "Axes":
    """Draw a raster: one row for each unit, one tick for each spike.

    Where ticks would run into each other they are transparent, so that their density
    shows.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spike_data`.
    ax : matplotlib Axes, optional
    **style
        For :meth:`matplotlib.axes.Axes.plot`, such as ``color``, ``alpha``, ``markersize``.

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
    n_units = ds.sizes["unit"]
    ax = _axes(ax, height=_rows_height(n_units))
    factor, label = _time_scale(length)
    _ticks(ax, ds["spike_times"].values * factor, units, n_units, style)
    _window(ax, start * factor, (start + length) * factor)
    ax.set(xlabel=label, ylabel="Unit")
    _rows(ax, ds, n_units)
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
    _rows(ax, ds, ds.sizes["unit"])
    return ax


def plot_rate_slice_stack(
    ds: xr.Dataset, *, unit: int | None = None, ax: "Axes | None" = None, **style: Any
) -> "Axes":
    """Draw the average over slices, and the standard error of the mean around it.

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
    chosen = None if unit is None else unit_position(rate.sizes["unit"], unit)
    values = (rate.mean("unit") if chosen is None else rate.isel(unit=chosen)).values
    time = ds["time"].values if "time" in ds.coords else np.arange(rate.sizes["time"])
    ax = _axes(ax)
    _mean_and_error(ax, time.astype(float), values, _rate_label(ds["rate"]), style)
    ax.set_title(f"{_who(ds, unit)}, mean ± SEM of {values.shape[1]} slices", fontsize="medium")
    return ax


def plot_psth(
    ds: xr.Dataset,
    *,
    array: str = "rate",
    unit: int | None = None,
    ax: "Axes | None" = None,
    **style: Any,
) -> "Axes":
    """Draw the rates around events: a heatmap of units, or one unit with its error.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spikes.psth`.
    array : {"rate", "sem", "n_events"}, optional
        What to draw.
    unit : int, optional
        Position of the unit to draw as a line, with the standard error around its rate; by
        default all units as a heatmap, and a single one as a line.
    ax : matplotlib Axes, optional
    **style
        For :meth:`matplotlib.axes.Axes.plot` or :meth:`matplotlib.axes.Axes.pcolormesh`.
    """
    names = [name for name in ("rate", "sem", "n_events") if name in ds]
    one_of("array", array, names)
    drawn = ds[array]
    if "unit" in drawn.dims and (unit is not None or ds.sizes["unit"] == 1):
        ds = ds.isel(unit=unit_position(ds.sizes["unit"], unit or 0))
        drawn = ds[array]
    time = ds["time"].values.astype(float)
    _, label = _time_scale(float(time[-1] - time[0]) if time.size else 0.0)
    label = label.replace("Time", "Time from the event")
    what = str(drawn.attrs.get("long_name", array)).capitalize()
    units = drawn.attrs.get("units")
    named = f"{what} ({units})" if units else what
    if drawn.ndim == 2:
        ax = plot_rate_data(ds[["unit", "time"]].assign(rate=drawn), ax=ax, **style)
        ax.figure.axes[-1].set_ylabel(named)
    else:
        ax = _axes(ax)
        error = ds["sem"].values if array == "rate" else None
        _curve(ax, time, drawn.values, error, (label, named), style)
    if time.size and time[0] < 0 < time[-1]:
        ax.axvline(0, color="gray", linewidth=0.8, linestyle=":")
    ax.set_xlabel(label)
    return ax


def plot_spike_slice_stack(
    ds: xr.Dataset,
    *,
    unit: int | None = None,
    bin_ms: float | None = None,
    ax: "Axes | None" = None,
    **style: Any,
) -> "Axes":
    """Draw the spikes of each slice, and below them their rate (PSTH) with its error.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spikes.peri_event` or :func:`labtree.spike_slice_stack`.
    unit : int, optional
        Position of the unit to draw; by default the spikes of all units, and their
        average rate.
    bin_ms : float, optional
        Width of the bins of the rate in ms; by default a round number that makes about 50
        of them. The title says which.
    ax : matplotlib Axes, optional
        Divided in two: the raster above, the rate below.
    **style
        For :meth:`matplotlib.axes.Axes.plot`, such as ``color`` and ``label``.

    Returns
    -------
    Axes
        Of the rate.
    """
    n_slices, n_units = ds["row_size"].shape
    start = float(ds.attrs["start_time"])
    # A bin that no slice fills says nothing: the shortest slice bounds them.
    length = float(np.min(ds["length"].values if "length" in ds else ds.attrs["length"]))
    edges = _bin_edges(start, length, bin_ms)
    width = float(edges[1] - edges[0])
    rows = ragged.row_of_sample(ds["row_size"].values)
    times = ds["spike_times"].values
    chosen = np.ones(times.size, bool)
    if unit is not None:
        chosen = rows % n_units == unit_position(n_units, unit)
    slices = rows // max(n_units, 1)
    bins = np.searchsorted(edges, times, side="right") - 1
    bins[times == edges[-1]] = edges.size - 2
    inside = chosen & (bins >= 0) & (bins < edges.size - 1)
    counts = np.bincount(
        slices[inside] * (edges.size - 1) + bins[inside],
        minlength=n_slices * (edges.size - 1),
    ).reshape(n_slices, edges.size - 1)
    averaged = n_units if unit is None else 1
    rates = counts.T / max(averaged, 1) / (width / _SECOND_MS)
    ax = _axes(ax, height=5.0)
    raster = _axes_above(ax)
    factor, _ = _time_scale(length)
    color = {"color": style["color"]} if "color" in style else {}
    _ticks(raster, times[chosen] * factor, slices[chosen], n_slices, color)
    noun = "event" if "event" in ds.coords else "slice"
    raster.set_ylabel(noun.capitalize())
    raster.set_ylim(-0.5, max(n_slices, 1) - 0.5)
    raster.tick_params(labelbottom=False)
    raster.spines[["top", "right"]].set_visible(False)
    _mean_and_error(ax, (edges[1:] + edges[:-1]) / 2, rates, "Firing rate (Hz)", style)
    if noun == "event":
        ax.set_xlabel(ax.get_xlabel().replace("in slice", "from the event"))
    ax.set_xlim(edges[0] * factor, edges[-1] * factor)
    if start < 0 < start + length:
        raster.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    raster.set_title(
        f"{_who(ds, unit)}, mean ± SEM of {n_slices} {noun}s, {width:g} ms bins",
        fontsize="medium",
    )
    return ax


def plot_pairwise_matrix(ds: xr.Dataset, *, ax: "Axes | None" = None, **style: Any) -> "Axes":
    """Draw the matrix with the labels of its units; masked values stay white.

    Colors reach as far as the values off the diagonal, but for the largest 2 %; of values
    of both signs they diverge from 0.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.pairwise_matrix`. Of complex values the magnitude is drawn.
    ax : matplotlib Axes, optional
    **style
        For :meth:`matplotlib.axes.Axes.imshow`, such as ``cmap``, ``vmin`` and ``vmax``.
    """
    return _matrix(ds, matrix_values(ds), _what(ds), ax, style)


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
    n_slices = values.shape[2]
    if slice is None:
        if n_slices == 0:
            raise DataError("a stack without slices has no average to draw")
        name = f"{_what(ds)}, mean of {n_slices} slices"
        return _matrix(ds, values.mean(axis=2), name, ax, style)
    return _matrix(ds, values[:, :, slice], f"{_what(ds)}, slice {slice}", ax, style)


def _what(ds: xr.Dataset) -> str:
    long_name = ds["matrix"].attrs.get("long_name")
    return str(long_name or ds.attrs.get("metadata", {}).get("method", "Value"))


def _who(ds: xr.Dataset, unit: int | None) -> str:
    if unit is not None:
        return f"unit {_unit_labels(ds, ds.sizes['unit'])[unit]}"
    n_units = ds.sizes["unit"]
    return "1 unit" if n_units == 1 else f"mean of {n_units} units"


def _axes(ax: "Axes | None", *, height: float = 4.0) -> "Axes":
    return given_or_new_axes(ax, purpose="plots", figsize=(8, height))


def _style(given: dict[str, Any], **ours: Any) -> dict[str, Any]:
    return ours | given


def _axes_above(ax: "Axes") -> "Axes":
    """Return new Axes in the upper half of some, which keep the lower."""
    figure: Any = ax.figure
    place = ax.get_subplotspec()
    if place is not None:
        grid = place.subgridspec(2, 1, hspace=0.05)
        ax.set_subplotspec(grid[1])
        above: Axes = figure.add_subplot(grid[0], sharex=ax)
    else:
        left, bottom, width, height = ax.get_position().bounds
        half = 0.47 * height
        ax.set_position((left, bottom, width, half))
        above = figure.add_axes((left, bottom + height - half, width, half), sharex=ax)
    return above


def _bin_edges(start: float, length: float, bin_ms: float | None) -> NDArray[Any]:
    if bin_ms is None:
        fits = _ROUND_BINS_MS[length / 50 <= _ROUND_BINS_MS]
        bin_ms = float(fits[0]) if fits.size else length / 50
        if bin_ms > length:
            bin_ms = length or 1.0
    bin_ms = positive("bin_ms", bin_ms)
    return start + np.arange(max(1, int(length / bin_ms + 1e-9)) + 1) * bin_ms


def _rows_height(n_rows: int) -> float:
    return float(np.clip(1.5 + 0.12 * n_rows, 2.5, 7.0))


def _time_scale(length_ms: float) -> tuple[float, str]:
    return (1 / _SECOND_MS, "Time (s)") if length_ms > _LONG_MS else (1.0, "Time (ms)")


def _ticks(
    ax: "Axes", times: NDArray[Any], rows: NDArray[Any], n_rows: int, style: dict[str, Any]
) -> None:
    size = float(np.clip(200 / max(n_rows, 1), 1.5, 14))
    # About 500 ticks stand side by side in a row of this figure.
    crowding = times.size / max(n_rows, 1) / 500
    ours: dict[str, Any] = {
        "color": "black",
        "markersize": size,
        "markeredgewidth": 0.7,
        "alpha": float(np.clip(0.6 / max(crowding, 1e-9), 0.06, 1.0)),
        "rasterized": True,
        "linestyle": "none",
        "marker": "|",
    }
    ax.plot(times, rows, **_style(style, **ours))


def _window(ax: "Axes", start: float, stop: float) -> None:
    if stop > start:
        ax.set_xlim(start, stop)


def _unit_labels(ds: xr.Dataset, n_rows: int) -> list[str]:
    """Return what the units are called: their ids, or their positions."""
    if "unit_id" in ds.coords and ds["unit_id"].dims == ("unit",):
        return [str(label) for label in ds["unit_id"].values]
    return [str(row) for row in range(n_rows)]


def _rows(ax: "Axes", ds: xr.Dataset, n_rows: int) -> None:
    """Label the rows of units: each where there is room, else round steps."""
    if n_rows:
        ax.set_ylim(-0.5, n_rows - 0.5)
        step = _step(n_rows)
        ax.set_yticks(range(0, n_rows, step), _unit_labels(ds, n_rows)[::step])
    ax.spines[["top", "right"]].set_visible(False)


def _step(n_rows: int) -> int:
    """Return how many rows a label stands for, so that at most a dozen are shown."""
    power = 0
    while True:
        for size in (1, 2, 5):
            step: int = size * 10**power
            if n_rows / step <= _MOST_TICK_LABELS:
                return step
        power += 1


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
    return f"Firing rate ({units})" if units else "Firing rate (unknown unit)"


def _mean_and_error(
    ax: "Axes", time: NDArray[Any], values: NDArray[Any], ylabel: str, style: dict[str, Any]
) -> None:
    """Draw the mean of (time, slice) with its standard error, on an axis from 0."""
    n_slices = values.shape[1]
    error = values.std(axis=1, ddof=1) / np.sqrt(n_slices) if n_slices > 1 else None
    label = _time_scale(float(time[-1] - time[0]))[1].replace("Time", "Time in slice")
    _curve(ax, time, values.mean(axis=1), error, (label, ylabel), style)
    if time[0] < 0 < time[-1]:
        ax.axvline(0, color="gray", linewidth=0.8, linestyle=":")


def _curve(
    ax: "Axes",
    time: NDArray[Any],
    values: NDArray[Any],
    error: NDArray[Any] | None,
    labels: tuple[str, str],
    style: dict[str, Any],
) -> None:
    """Draw values over times in ms, with an error around them, on an axis from 0."""
    factor, _ = _time_scale(float(time[-1] - time[0]) if time.size else 0.0)
    (line,) = ax.plot(time * factor, values, **_style(style, linewidth=1.8))
    low = values
    if error is not None:
        # A rate is never below 0, however large the error of its mean.
        low = np.where(values >= 0, np.maximum(values - error, 0), values - error)
        ax.fill_between(
            time * factor, low, values + error, color=line.get_color(), alpha=0.25, lw=0
        )
    if not (np.nan_to_num(low) < 0).any():
        ax.set_ylim(bottom=0, auto=True)  # a larger curve in the same Axes is not cut off
    ax.margins(x=0)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.spines[["top", "right"]].set_visible(False)


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
    ax.set(xlabel="Unit j", ylabel="Unit i")
    if not values.size:
        return ax
    colors, extend = _color_limits(values, style)
    image = ax.imshow(values, **_style(style, interpolation="nearest", **colors))
    _colorbar(ax, image, name, extend)
    name_of_labels = next((n for n in _LABELS if f"{n}_i" in ds.coords), None)
    labels = [str(row) for row in range(n_units)]
    if name_of_labels is not None and ds[f"{name_of_labels}_i"].dims == ("unit_i",):
        labels = [str(label) for label in ds[f"{name_of_labels}_i"].values]
    step = _step(n_units)
    shown = range(0, n_units, step)
    crowded = max(map(len, labels)) * len(shown) > 40
    ax.set_xticks(shown, labels[::step], rotation=90 if crowded else 0)
    ax.set_yticks(shown, labels[::step])
    return ax


def _color_limits(values: NDArray[Any], style: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return colors that show the values off the diagonal, and how the bar goes on."""
    off: Any = np.ma.masked_invalid(np.ma.asarray(values).astype(float))
    off = np.ma.masked_where(np.eye(len(values), dtype=bool), off).compressed()
    if not off.size:
        off = np.ma.masked_invalid(np.ma.asarray(values).astype(float)).compressed()
    if not off.size:
        return {}, "neither"
    reach = float(np.quantile(np.abs(off), 0.98)) or float(np.abs(off).max()) or 1.0
    signed = bool((off < 0).any())
    limits = (-reach, reach) if signed else (0.0, reach)
    low, high = style.get("vmin", limits[0]), style.get("vmax", limits[1])
    shown = np.ma.masked_invalid(np.ma.asarray(values).astype(float)).compressed()
    below, above = bool((shown < low).any()), bool((shown > high).any())
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
    if "norm" in style:
        return {}, "neither"
    cmap = "RdBu_r" if signed else "viridis"
    return {"cmap": cmap, "vmin": limits[0], "vmax": limits[1]}, extend


def _colorbar(ax: "Axes", drawn: Any, label: str, extend: str = "neither") -> None:
    ax.figure.colorbar(drawn, ax=ax, label=label, extend=extend)
