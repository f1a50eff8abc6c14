"""Plots of plain datasets, and what the plots of several kinds have in common.

A plot of a kind takes the Axes to draw on, or makes a figure, and returns the Axes.
"""

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.display.figures import given_or_new_axes
from labtree.errors import DataError
from labtree.optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_SECOND_MS = 1000.0
_LONG_MS = 5000.0
_MOST_TICK_LABELS = 12
_MOST_PANELS = 10


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


def axes_for(ax: "Axes | None", *, height: float = 4.0) -> "Axes":
    """Return the Axes that were given, or those of a new figure of that height in inches."""
    return given_or_new_axes(ax, purpose="plots", figsize=(8, height))


def refuse_unit(style: dict[str, Any]) -> None:
    """Refuse ``unit=`` where all units are drawn: it would go to matplotlib."""
    if "unit" in style:
        raise DataError(
            "unit= is for stacks and PSTHs; to draw one unit of this kind write "
            f"labtree.spikes.select_units(ds, [{style['unit']}]).ws.plot()"
        )


def rows_height(n_rows: int) -> float:
    """Return the height of a figure with so many rows, in inches."""
    return float(np.clip(1.5 + 0.12 * n_rows, 2.5, 7.0))


def time_scale(length_ms: float) -> tuple[float, str]:
    """Return the factor from ms, and the label, of an axis of times of that length."""
    return (1 / _SECOND_MS, "Time (s)") if length_ms > _LONG_MS else (1.0, "Time (ms)")


def draw_ticks(
    ax: "Axes", times: NDArray[Any], rows: NDArray[Any], n_rows: int, style: dict[str, Any]
) -> None:
    """Draw a tick for each time in its row; where they run into each other, transparent."""
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
    ax.plot(times, rows, **ours | style)


def unit_labels(ds: xr.Dataset) -> list[str]:
    """Return what the units are called: their ids, or their positions."""
    if "unit_id" in ds.coords and ds["unit_id"].dims == ("unit",):
        return [str(label) for label in ds["unit_id"].values]
    return [str(row) for row in range(ds.sizes["unit"])]


def labeled_rows(n_rows: int) -> range:
    """Return the rows that have a label: a round number apart, at most a dozen."""
    steps = (size * 10**power for power in count() for size in (1, 2, 5))
    return range(0, n_rows, next(n for n in steps if n_rows <= n * _MOST_TICK_LABELS))


def label_rows(ax: "Axes", ds: xr.Dataset) -> None:
    """Label the rows of units: each where there is room, else round steps."""
    n_rows = ds.sizes["unit"]
    if n_rows:
        ax.set_ylim(-0.5, n_rows - 0.5)
        shown = labeled_rows(n_rows)
        labels = unit_labels(ds)
        ax.set_yticks(shown, [labels[row] for row in shown])
    ax.spines[["top", "right"]].set_visible(False)


def title_of_units(ds: xr.Dataset, unit: int | None) -> str:
    """Return what a plot of one unit, or of the mean of all, is called."""
    if unit is not None:
        return f"unit {unit_labels(ds)[unit]}"
    n_units = ds.sizes["unit"]
    return "1 unit" if n_units == 1 else f"mean of {n_units} units"


def rate_label(rate: xr.DataArray) -> str:
    """Return what an axis of rates is called."""
    units = rate.attrs.get("units")
    return f"Firing rate ({units})" if units else "Firing rate (unknown unit)"


def draw_mean_and_error(
    ax: "Axes", time: NDArray[Any], values: NDArray[Any], ylabel: str, style: dict[str, Any]
) -> None:
    """Draw the mean of (time, slice) with its standard error, on an axis from 0."""
    n_slices = values.shape[1]
    error = values.std(axis=1, ddof=1) / np.sqrt(n_slices) if n_slices > 1 else None
    label = time_scale(float(time[-1] - time[0]))[1].replace("Time", "Time in slice")
    draw_curve(ax, time, values.mean(axis=1), error, (label, ylabel), style)
    if time[0] < 0 < time[-1]:
        ax.axvline(0, color="gray", linewidth=0.8, linestyle=":")


def draw_curve(
    ax: "Axes",
    time: NDArray[Any],
    values: NDArray[Any],
    error: NDArray[Any] | None,
    labels: tuple[str, str],
    style: dict[str, Any],
) -> None:
    """Draw values over times in ms, with an error around them, on an axis from 0."""
    factor, _ = time_scale(float(time[-1] - time[0]) if time.size else 0.0)
    (line,) = ax.plot(time * factor, values, **{"linewidth": 1.8} | style)
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
