"""Firing rates of many units over time, in one Dataset: ``rate(unit, time)``."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.objects.layout import add_dataset_kind, real_array, require_variables
from labtree.objects.plots import (
    axes_for,
    label_rows,
    rate_label,
    refuse_unit,
    rows_height,
    time_scale,
)
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.unit_attributes import Attributes, attribute_coords

if TYPE_CHECKING:
    from matplotlib.axes import Axes


KIND = "rate_data"
RATE_UNITS = ("Hz", "kHz", None)
RESERVED = frozenset({"rate", "unit", "time"})


def rate_data(
    rates: Any,
    times: Any,
    *,
    unit: str | None = "Hz",
    neuron_attributes: Attributes | None = None,
) -> xr.Dataset:
    """Build a Dataset of firing rates.

    Parameters
    ----------
    rates : array-like of shape (unit, time)
        Firing rates; their dtype is kept.
    times : array-like of shape (time,)
        In ms, finite, never falling; times may repeat.
    unit : {"Hz", "kHz", None}
        Unit of the rates, None if it is not known.
    neuron_attributes : sequence of mappings, or mapping of columns, optional
        Attributes of the units, see :func:`labtree.spikes.unit_attributes`.

    Returns
    -------
    Dataset
        ``rate(unit, time)`` with the coordinate ``time`` in ms.

    Raises
    ------
    DataError
        A ValueError, if shapes do not match or times are not finite or fall.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.rate_data([[5.0, 7.0]], [0, 10])
    >>> ds.rate.sel(time=10).values, ds.rate.units
    (array([7.]), 'Hz')
    """
    values = real_array("rates", rates, 2, "(unit, time)")
    time = np.asarray(times)
    if time.ndim != 1:
        raise DataError(f"times must be one-dimensional, found shape {time.shape}")
    _check_times(time)
    if time.size != values.shape[1]:
        raise DataError(
            f"rates has {values.shape[1]} columns, times has {time.size} values; expected one "
            "time for each column"
        )
    attrs = unit_of_rates(unit)
    coords = {"time": xr.Variable("time", time, {"units": "ms"})}
    coords |= attribute_coords(neuron_attributes, {"unit": len(values)}, RESERVED)
    ds = xr.Dataset(
        {"rate": xr.Variable(("unit", "time"), values, attrs)}, coords, {KIND_ATTRIBUTE: KIND}
    )
    validate(ds)
    return ds


def unit_of_rates(unit: str | None) -> dict[str, str]:
    """Return the attributes of rates in a unit.

    Raises
    ------
    DataError
        If it is none of `RATE_UNITS`.
    """
    if unit not in RATE_UNITS:
        raise DataError(f"unit must be one of {RATE_UNITS}, found {unit!r}")
    return {} if unit is None else {"units": unit}


def validate(ds: xr.Dataset) -> None:
    """Raise DataError unless this is a whole and consistent Dataset of rates."""
    require_variables(ds, KIND, {"rate": ("unit", "time"), "time": ("time",)})
    _check_times(ds["time"].values)


def summary(ds: xr.Dataset) -> dict[str, Any]:
    """Return the shape of the rates, under SpikeLab's name."""
    return {"shape": list(ds["rate"].shape)}


def _check_times(time: np.ndarray[Any, Any]) -> None:
    if time.dtype.kind not in "iuf":
        raise DataError(f"times must be real numbers in ms, found dtype {time.dtype}")
    if time.dtype.kind == "f" and time.dtype.itemsize not in (4, 8):
        raise DataError(
            f"an index cannot hold times of dtype {time.dtype} exactly: "
            "write times.astype(float)"
        )
    if not np.isfinite(time).all():
        raise DataError("times must be finite, found NaN or infinity")
    falls = np.flatnonzero(time[1:] < time[:-1])
    if falls.size:
        at = int(falls[0])
        raise DataError(
            f"times must never fall: {time[at]} ms is followed by {time[at + 1]} ms"
        )


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
    refuse_unit(style)
    ax = axes_for(ax, height=rows_height(ds.sizes["unit"]))
    factor, label = time_scale(float(time[-1] - time[0]) if time.size else 0.0)
    if rate.size:
        rows = np.arange(ds.sizes["unit"] + 1) - 0.5
        ours: dict[str, Any] = {"cmap": "viridis", "rasterized": True}
        mesh = ax.pcolormesh(_edges(time) * factor, rows, rate.values, **ours | style)
        ax.figure.colorbar(mesh, ax=ax, label=rate_label(rate))
    ax.set(xlabel=label, ylabel="Unit")
    label_rows(ax, ds)
    return ax


def _edges(time: NDArray[Any]) -> NDArray[Any]:
    centers = time.astype(float)
    if centers.size == 1:
        return np.array([centers[0] - 0.5, centers[0] + 0.5])
    middle = (centers[1:] + centers[:-1]) / 2
    return np.concatenate(
        [[2 * centers[0] - middle[0]], middle, [2 * centers[-1] - middle[-1]]]
    )


add_dataset_kind(
    KIND,
    summary=summary,
    validate=validate,
    plot=plot_rate_data,
    functions=(
        "select_units(ds, units)",
        "select_time(ds, start_ms, stop_ms)",
        "unit_attributes(ds)",
    ),
)
