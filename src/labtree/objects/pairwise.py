"""Comparisons of every unit with every other: ``matrix(unit_i, unit_j)``, and stacks.

Labels lie along both dimensions, as the coordinates ``label_i`` and ``label_j``. A masked
matrix is kept as its data and a boolean variable ``matrix_mask``, True where masked.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.objects.layout import add_dataset_kind, require_variables, slice_coords
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.unit_attributes import column, untouched_variable

__all__ = [
    "MATRIX",
    "STACK",
    "matrix_values",
    "pairwise_matrix",
    "pairwise_stack",
    "summary",
    "validate_matrix",
    "validate_stack",
]

MATRIX = "pairwise_matrix"
STACK = "pairwise_stack"
DIMS = {MATRIX: ("unit_i", "unit_j"), STACK: ("unit_i", "unit_j", "slice")}


def pairwise_matrix(
    matrix: Any,
    *,
    labels: Iterable[Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Build a Dataset of one value for each pair of units.

    Parameters
    ----------
    matrix : array-like of shape (unit_i, unit_j)
        Square; numbers of any dtype, also complex, bool and masked.
    labels : iterable, optional
        One label for each unit: numbers, strings, tuples, anything.
    metadata : mapping, optional
        Kept in ``ds.attrs["metadata"]``.

    Returns
    -------
    Dataset
        ``matrix(unit_i, unit_j)``, with ``label_i`` and ``label_j`` if there are labels,
        and ``matrix_mask`` if values are masked.

    Raises
    ------
    DataError
        A ValueError, if the matrix is not square or the labels do not match it.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.pairwise_matrix([[1, 0.2], [0.2, 1]], labels=["a", "b"])
    >>> ds.set_xindex("label_i").matrix.sel(label_i="b").values
    array([0.2, 1. ])
    """
    return _build(MATRIX, matrix, labels, metadata, None)


def pairwise_stack(
    stack: Any,
    *,
    labels: Iterable[Any] | None = None,
    times: Any = None,
    metadata: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Build a Dataset of one value for each pair of units and each slice.

    Parameters
    ----------
    stack : array-like of shape (unit_i, unit_j, slice)
        A square for each slice; numbers of any dtype, also complex, bool and masked.
    labels : iterable, optional
        One label for each unit.
    times : sequence of (start, end), optional
        Of each slice, in ms.
    metadata : mapping, optional
        Kept in ``ds.attrs["metadata"]``.

    Returns
    -------
    Dataset
        ``matrix(unit_i, unit_j, slice)``, with ``slice_start`` and ``slice_end`` if there
        are times; otherwise as :func:`labtree.pairwise_matrix`.

    Raises
    ------
    DataError
        A ValueError, if the matrices are not square, or labels or times do not match.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.pairwise_stack(np.zeros((2, 2, 3)), times=[(0, 5), (5, 10), (10, 15)])
    >>> ds.slice_end.values
    array([ 5, 10, 15])
    """
    return _build(STACK, stack, labels, metadata, times)


def matrix_values(ds: xr.Dataset) -> NDArray[Any]:
    """Return the values as an array, masked if they were given masked.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``pairwise_matrix`` or ``pairwise_stack``.

    Returns
    -------
    ndarray or masked array
        (unit, unit) or (unit, unit, slice).

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.pairwise_matrix(np.ma.masked_equal([[1, 2], [2, 1]], 2))
    >>> labtree.spikes.matrix_values(ds)
    masked_array(
      data=[[1, --],
            [--, 1]],
      mask=[[False,  True],
            [ True, False]],
      fill_value=2)
    """
    values: NDArray[Any] = ds["matrix"].values
    if "matrix_mask" not in ds:
        return values
    fill = ds["matrix_mask"].attrs.get("fill_value")
    return np.ma.MaskedArray(values, ds["matrix_mask"].values, fill_value=fill)


def validate_matrix(ds: xr.Dataset) -> None:
    """Raise DataError unless this is a whole and consistent pairwise matrix."""
    _validate(ds, MATRIX)


def validate_stack(ds: xr.Dataset) -> None:
    """Raise DataError unless this is a whole and consistent stack of pairwise matrices."""
    _validate(ds, STACK)


def summary(ds: xr.Dataset) -> dict[str, Any]:
    """Return the shape, under SpikeLab's name."""
    return {"shape": list(ds["matrix"].shape)}


def _build(
    kind: str,
    matrix: Any,
    labels: Iterable[Any] | None,
    metadata: Mapping[str, Any] | None,
    times: Any,
) -> xr.Dataset:
    dims = DIMS[kind]
    values = np.asanyarray(matrix)
    if values.ndim != len(dims) or values.shape[0] != values.shape[1]:
        raise DataError(f"a {kind} must be square, of shape {dims}; found {values.shape}")
    data = np.asarray(values)
    variables = {"matrix": xr.Variable(dims, data)}
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        variables["matrix_mask"] = xr.Variable(dims, mask, {"fill_value": values.fill_value})
    coords = {} if times is None else slice_coords(times, values.shape[2])
    n_units = values.shape[0]
    if labels is not None:
        given = list(labels)
        if len(given) != n_units:
            raise DataError(
                f"labels has {len(given)} items, expected {n_units}, one for each unit"
            )
        plain = isinstance(labels, np.ndarray) and labels.ndim == 1
        along = np.asarray(labels) if plain else column(given).values
        extra = tuple(f"label_{axis}" for axis in range(1, along.ndim))
        coords["label_i"] = untouched_variable(("unit_i", *extra), along)
        coords["label_j"] = untouched_variable(("unit_j", *extra), along)
    attrs: dict[str, Any] = {"metadata": dict(metadata)} if metadata else {}
    attrs[KIND_ATTRIBUTE] = kind
    ds = xr.Dataset(variables, coords, attrs)
    _validate(ds, kind)
    return ds


def _validate(ds: xr.Dataset, kind: str) -> None:
    require_variables(ds, kind, {"matrix": DIMS[kind]})
    matrix = ds["matrix"]
    if matrix.sizes["unit_i"] != matrix.sizes["unit_j"]:
        raise DataError(
            f"a {kind} must be square, found {matrix.sizes['unit_i']} by "
            f"{matrix.sizes['unit_j']}. Select both dimensions: "
            "labtree.spikes.select_units(ds, ...)"
        )
    if matrix.dtype.kind not in "biufc":
        raise DataError(f"a {kind} must hold numbers, found dtype {matrix.dtype}")
    if "matrix_mask" in ds and ds["matrix_mask"].dims != matrix.dims:
        raise DataError(f"'matrix_mask' needs the dimensions {matrix.dims}")


add_dataset_kind(
    MATRIX,
    summary=summary,
    validate=validate_matrix,
    plot="plot_pairwise_matrix",
    verbs=("matrix_values(ds)", "select_units(ds, units)"),
)
add_dataset_kind(
    STACK,
    summary=summary,
    validate=validate_stack,
    plot="plot_pairwise_stack",
    verbs=("matrix_values(ds)", "select_units(ds, units)", "select_slices(ds, slices)"),
)
