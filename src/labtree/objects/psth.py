"""Firing rates around events, averaged over them."""

from typing import TYPE_CHECKING, Any

import xarray as xr

from labtree.errors import DataError
from labtree.objects.datasets import dataset_summary
from labtree.objects.layout import add_dataset_kind, require_variables, unit_position
from labtree.objects.plots import axes_for, draw_curve, time_scale
from labtree.objects.rate_data import plot_rate_data
from labtree.storage.arguments import one_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


KIND = "psth"


def validate(ds: xr.Dataset) -> None:
    """Raise DataError unless this is a whole Dataset of mean rates, of units or of one."""
    dims: tuple[Any, ...] = ("time",) if "unit" not in ds.dims else ("unit", "time")
    require_variables(ds, KIND, {"rate": dims, "sem": dims, "time": ("time",)})
    if "n_events" in ds and ds["n_events"].dims != ("time",):
        raise DataError(
            f"'n_events' of a {KIND} needs the dimensions ('time',), found"
            f" {ds['n_events'].dims}"
        )


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
    _, label = time_scale(float(time[-1] - time[0]) if time.size else 0.0)
    label = label.replace("Time", "Time from the event")
    what = str(drawn.attrs.get("long_name", array)).capitalize()
    units = drawn.attrs.get("units")
    named = f"{what} ({units})" if units else what
    if drawn.ndim == 2:
        ax = plot_rate_data(ds[["unit", "time"]].assign(rate=drawn), ax=ax, **style)
        ax.figure.axes[-1].set_ylabel(named)
    else:
        ax = axes_for(ax)
        error = ds["sem"].values if array == "rate" else None
        draw_curve(ax, time, drawn.values, error, (label, named), style)
    if time.size and time[0] < 0 < time[-1]:
        ax.axvline(0, color="gray", linewidth=0.8, linestyle=":")
    ax.set_xlabel(label)
    return ax


add_dataset_kind(KIND, summary=dataset_summary, validate=validate, plot=plot_psth)
