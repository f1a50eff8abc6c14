"""What the Datasets of several kinds have in common, and the checks of it.

Slices have their start and stop as the coordinates ``slice_start`` and ``slice_end`` in
ms.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import DataError
from labtree.objects.datasets import keep_dataset, return_dataset
from labtree.objects.registry import Kind, add_kind
from labtree.storage import ragged

_TOLERANCE_MS = 1e-6


def slice_coords(times: Any, n_slices: int) -> dict[str, xr.Variable]:
    """Build the coordinates of slices.

    Parameters
    ----------
    times : sequence of (start, end), or array of shape (n_slices, 2)
        In ms.
    n_slices : int
        How many there must be.
    """
    pairs = np.asarray(times)
    if pairs.size == 0:
        pairs = pairs.reshape(0, 2)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iuf":
        raise DataError(
            "times must be one (start, end) in ms for each slice, found an array of shape "
            f"{pairs.shape} and dtype {pairs.dtype}"
        )
    if len(pairs) != n_slices:
        raise DataError(f"times has {len(pairs)} windows for {n_slices} slices")
    attrs = {"units": "ms"}
    return {
        "slice_start": xr.Variable("slice", pairs[:, 0].copy(), attrs),
        "slice_end": xr.Variable("slice", pairs[:, 1].copy(), attrs),
    }


def check_slice_times(ds: xr.Dataset, n_slices: int, *, equal: bool) -> None:
    """Raise DataError unless there is one window a slice, forward; equally long if `equal`."""
    if "slice_start" not in ds.coords or "slice_end" not in ds.coords:
        raise DataError("a slice stack needs the coordinates 'slice_start' and 'slice_end'")
    start, end = ds["slice_start"].values, ds["slice_end"].values
    if start.shape != (n_slices,):
        raise DataError(f"times has {start.size} windows for {n_slices} slices")
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise DataError("times must be finite, found NaN or infinity")
    backward = np.flatnonzero(start > end)
    if backward.size:
        at = int(backward[0])
        raise DataError(f"times[{at}] starts at {start[at]} ms, after its end at {end[at]} ms")
    durations = end - start
    if equal and durations.size and durations.max() - durations.min() > _TOLERANCE_MS:
        at = int(np.argmax(np.abs(durations - durations[0])))
        raise DataError(
            f"all windows must be equally long: times[0] lasts {durations[0]} ms, "
            f"times[{at}] {durations[at]} ms"
        )


def require_variables(
    ds: xr.Dataset, kind: str, expected: Mapping[str, tuple[str, ...]]
) -> None:
    """Raise DataError unless the variables are there with their dimensions."""
    for name, dims in expected.items():
        if name not in ds.variables:
            raise DataError(
                f"a {kind} needs the variable {name!r} with dimensions {dims}; found "
                f"{sorted(map(str, ds.variables))}"
            )
        if ds[name].dims != dims:
            raise DataError(
                f"{name!r} of a {kind} needs the dimensions {dims}, found {ds[name].dims}"
            )


def require_ragged(ds: xr.Dataset) -> None:
    """Raise DataError unless counts and samples agree, and say which function to use."""
    if ragged.came_apart(ds):
        raise DataError(
            f"{ragged.problems(ds)[0]}. Rows and spikes must be selected together: instead of "
            "ds.isel(unit=...) write labtree.spikes.select_units(ds, ...), and of slices "
            "labtree.spikes.select_slices(ds, ...)"
        )
    if "row_size" in ds and ds["row_size"].attrs.get(ragged.SAMPLE_DIMENSION) != "spike":
        raise DataError("'row_size' needs the attribute sample_dimension='spike'")


def unit_position(n_units: int, unit: int) -> int:
    """Return the position of a unit, counted from the end where it is negative."""
    if not -n_units <= unit < n_units:
        raise DataError(f"there is no unit {unit}: the Dataset holds {n_units} units, from 0")
    return range(n_units)[unit]


def real_array(name: str, values: Any, ndim: int, shape: str) -> np.ndarray[Any, Any]:
    """Make an array of real numbers, or raise DataError; a mask is never dropped."""
    if np.ma.is_masked(values):
        raise DataError(f"{name} is masked: fill it, as in {name}.filled(np.nan)")
    array = np.asarray(values)
    if array.ndim != ndim:
        raise DataError(f"{name} must have shape {shape}, found {array.shape}")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} must hold real numbers, found dtype {array.dtype}")
    return array


def add_dataset_kind(
    name: str,
    *,
    summary: Callable[[xr.Dataset], dict[str, Any]],
    validate: Callable[[xr.Dataset], None],
    plot: Callable[..., Any],
    functions: tuple[str, ...] = (),
) -> None:
    """Register a kind whose objects are Datasets of one layout, see `registry.Kind`."""
    add_kind(
        Kind(
            name,
            keep_dataset,
            return_dataset,
            summary,
            validate,
            plot,
            is_dataset=True,
            functions=functions,
        )
    )
