"""Firing rates around events, in one Dataset: ``rate(unit, time, slice)``."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from labtree.errors import DataError
from labtree.objects.layout import (
    add_dataset_kind,
    check_slice_times,
    real_array,
    require_variables,
    slice_coords,
    unit_position,
)
from labtree.objects.plots import axes_for, draw_mean_and_error, rate_label, title_of_units
from labtree.objects.rate_data import summary, unit_of_rates
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.unit_attributes import Attributes, attribute_coords
from labtree.storage.arguments import positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes


KIND = "rate_slice_stack"
RESERVED = frozenset({"rate", "unit", "time", "slice", "slice_start", "slice_end"})


def rate_slice_stack(
    event_stack: Any,
    times: Any,
    *,
    step_size: float = 1.0,
    unit: str | None = "Hz",
    neuron_attributes: Attributes | None = None,
) -> xr.Dataset:
    """Build a Dataset of firing rates cut into slices of equal duration.

    Parameters
    ----------
    event_stack : array-like of shape (unit, time, slice)
        Firing rates; their dtype is kept.
    times : sequence of (start, end)
        Of each slice, in ms, on the clock of the recording.
    step_size : float
        Time between two samples in ms.
    unit : {"Hz", "kHz", None}
        Unit of the rates, None if it is not known.
    neuron_attributes : sequence of mappings, or mapping of columns, optional
        Attributes of the units, see :func:`labtree.spikes.unit_attributes`.

    Returns
    -------
    Dataset
        ``rate(unit, time, slice)``; ``time`` in ms from the start of a slice;
        ``slice_start`` and ``slice_end`` along ``slice``.

    Raises
    ------
    DataError
        A ValueError, if there is no slice or no sample, or the windows differ in
        duration, run backwards or do not match the slices.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.rate_slice_stack(np.ones((3, 4, 2)), [(0, 8), (20, 28)], step_size=2)
    >>> dict(ds.sizes), ds.time.values
    ({'unit': 3, 'time': 4, 'slice': 2}, array([0., 2., 4., 6.]))
    """
    values = real_array("event_stack", event_stack, 3, "(unit, time, slice)")
    positive("step_size", step_size)
    step = np.asarray(step_size).item()  # as it was given, not as a float
    attrs = unit_of_rates(unit)
    relative = {"units": "ms", "long_name": "time from the start of the slice"}
    coords = {"time": xr.Variable("time", np.arange(values.shape[1]) * float(step), relative)}
    coords |= slice_coords(times, values.shape[2])
    coords |= attribute_coords(neuron_attributes, {"unit": len(values)}, RESERVED)
    ds = xr.Dataset(
        {"rate": xr.Variable(("unit", "time", "slice"), values, attrs)},
        coords,
        {"step_size": step, KIND_ATTRIBUTE: KIND},
    )
    validate(ds)
    return ds


def validate(ds: xr.Dataset) -> None:
    """Raise DataError unless this is a whole and consistent stack of rate slices."""
    require_variables(ds, KIND, {"rate": ("unit", "time", "slice")})
    _, n_times, n_slices = ds["rate"].shape
    if n_times == 0 or n_slices == 0:
        raise DataError(
            f"a {KIND} needs at least one slice and one sample, found shape {ds['rate'].shape}"
        )
    if "step_size" not in ds.attrs:
        raise DataError(f"a {KIND} needs the attribute 'step_size' in ms")
    check_slice_times(ds, n_slices, equal=True)


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
    ax = axes_for(ax)
    draw_mean_and_error(ax, time.astype(float), values, rate_label(ds["rate"]), style)
    ax.set_title(
        f"{title_of_units(ds, unit)}, mean ± SEM of {values.shape[1]} slices", fontsize="medium"
    )
    return ax


add_dataset_kind(
    KIND,
    summary=summary,
    validate=validate,
    plot=plot_rate_slice_stack,
    functions=(
        "select_units(ds, units)",
        "select_slices(ds, slices)",
        "unit_attributes(ds)",
    ),
)
