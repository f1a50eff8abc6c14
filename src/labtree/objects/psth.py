"""Firing rates around events, averaged over them."""

from typing import Any

import xarray as xr

from labtree.errors import DataError
from labtree.objects.datasets import dataset_summary
from labtree.objects.layout import add_dataset_kind, require_variables

__all__ = ["KIND", "validate"]

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


add_dataset_kind(KIND, summary=dataset_summary, validate=validate, plot="plot_psth", verbs=())
