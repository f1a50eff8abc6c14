"""Select units or slices, and with them their spikes.

``ds.isel(unit=...)`` alone selects rows and leaves the spikes behind.
"""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.storage import ragged

__all__ = ["select_slices", "select_units"]


def select_units(ds: xr.Dataset, units: Any) -> xr.Dataset:
    """Select units, and with them their spikes.

    Parameters
    ----------
    ds : Dataset
        Of any kind with units; of a pairwise kind both dimensions are selected.
    units : int, slice, array-like of int or bool
        Positions in the order wanted, or a mask such as ``ds.channel == 3``.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        A ValueError, if there is no such unit.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data(
    ...     [[1.0], [2.0, 3.0], [4.0]], neuron_attributes={"channel": [3, 4, 3]}
    ... )
    >>> labtree.trains(labtree.select_units(ds, ds.channel == 3))
    [array([1.]), array([4.])]
    """
    dims = [dim for dim in ("unit", "unit_i", "unit_j") if dim in ds.sizes]
    if not dims:
        raise DataError(
            f"nothing to select from: dimensions {tuple(ds.sizes)}, expected 'unit'"
        )
    positions = _positions(units, ds.sizes[dims[0]], "unit")
    return ragged.isel(ds, dict.fromkeys(dims, positions))


def select_slices(ds: xr.Dataset, slices: Any) -> xr.Dataset:
    """Select slices of a stack, and with them their spikes.

    Parameters
    ----------
    ds : Dataset
        A stack of any kind.
    slices : int, slice, array-like of int or bool
        Positions in the order wanted, or a mask such as ``ds.slice_start > 1000``.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        A ValueError, if there is no such slice.

    Examples
    --------
    >>> import labtree
    >>> parts = [labtree.spike_data([[time]], length=5) for time in (1.0, 2.0, 3.0)]
    >>> stack = labtree.spike_slice_stack(parts, [(0, 5), (10, 15), (20, 25)])
    >>> labtree.select_slices(stack, [2, 0]).spike_times.values
    array([3., 1.])
    """
    if "slice" not in ds.sizes:
        raise DataError(
            f"nothing to select from: dimensions {tuple(ds.sizes)}, expected 'slice'"
        )
    positions = _positions(slices, ds.sizes["slice"], "slice")
    part = ragged.isel(ds, {"slice": positions})
    metadata = ds.attrs.get("slice_metadata")
    if metadata is None:
        return part
    return part.assign_attrs(slice_metadata=[metadata[at] for at in positions])


def _positions(chosen: Any, size: int, what: str) -> NDArray[Any]:
    if isinstance(chosen, slice):
        return np.arange(size)[chosen]
    given = np.atleast_1d(np.asarray(chosen))
    if given.dtype == bool:
        if given.shape != (size,):
            raise DataError(
                f"a mask needs one value for each of {size} {what}s, found {given.size}"
            )
        return np.flatnonzero(given)
    if given.size == 0:
        given = given.astype(np.int64)
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise DataError(f"{what}s must be positions or a mask, found {chosen!r}")
    outside = given[(given < -size) | (given >= size)]
    if outside.size:
        raise DataError(
            f"there is no {what} {outside[0]}: the Dataset holds {size} {what}s, from 0"
        )
    return given
