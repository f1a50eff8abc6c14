"""Start and stop of slices, as the coordinates ``slice_start`` and ``slice_end`` in ms."""

from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import DataError

__all__ = ["check_slice_times", "slice_coords"]

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


def check_slice_times(ds: xr.Dataset, n_slices: int, *, equal: bool = False) -> None:
    """Raise DataError unless there is one forward window a slice; equally long if `equal`."""
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
