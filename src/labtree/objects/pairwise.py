"""Comparisons of every unit with every other: ``matrix(unit_i, unit_j)``, and stacks.

Labels lie along both dimensions, as the coordinates ``label_i`` and ``label_j``. A masked
matrix is kept as its data and a boolean variable ``matrix_mask``, True where masked.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.objects.layout import add_dataset_kind, require_variables, slice_coords
from labtree.objects.plots import axes_for, labeled_rows
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.unit_attributes import column, untouched_variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MATRIX = "pairwise_matrix"
STACK = "pairwise_stack"
_LABELS = ("unit_id", "label", "channel")
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
    if labels is not None:
        given = list(labels)
        if len(given) != len(values):
            raise DataError(
                f"labels has {len(given)} items, expected {len(values)}, one for each unit"
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
    ax = axes_for(ax, height=6.0)
    ax.set(xlabel="Unit j", ylabel="Unit i")
    if not values.size:
        return ax
    colors, extend = _color_limits(values, style)
    image = ax.imshow(values, **{"interpolation": "nearest", **colors} | style)
    ax.figure.colorbar(image, ax=ax, label=name, extend=extend)
    labels = [str(row) for row in range(n_units)]
    name_of_labels = next((f"{n}_i" for n in _LABELS if f"{n}_i" in ds.coords), None)
    if name_of_labels is not None and ds[name_of_labels].dims == ("unit_i",):
        labels = [str(label) for label in ds[name_of_labels].values]
    shown = labeled_rows(n_units)
    crowded = max(map(len, labels)) * len(shown) > 40
    ax.set_xticks(shown, labels[:: shown.step], rotation=90 if crowded else 0)
    ax.set_yticks(shown, labels[:: shown.step])
    return ax


def _color_limits(values: NDArray[Any], style: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return colors that show the values off the diagonal, and how the bar goes on."""
    finite: Any = np.ma.masked_invalid(np.ma.asarray(values).astype(float))
    off = np.ma.masked_where(np.eye(len(values), dtype=bool), finite).compressed()
    finite = finite.compressed()
    if not off.size:
        off = finite
    if not off.size or "norm" in style:
        return {}, "neither"
    reach = float(np.quantile(np.abs(off), 0.98)) or float(np.abs(off).max()) or 1.0
    signed = bool((off < 0).any())
    limits = {"vmin": -reach if signed else 0.0, "vmax": reach}
    chosen = limits | style
    below, above = bool(finite.min() < chosen["vmin"]), bool(finite.max() > chosen["vmax"])
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
    return {"cmap": "RdBu_r" if signed else "viridis", **limits}, extend


add_dataset_kind(
    MATRIX,
    summary=summary,
    validate=validate_matrix,
    plot=plot_pairwise_matrix,
    functions=("matrix_values(ds)", "select_units(ds, units)"),
)
add_dataset_kind(
    STACK,
    summary=summary,
    validate=validate_stack,
    plot=plot_pairwise_stack,
    functions=("matrix_values(ds)", "select_units(ds, units)", "select_slices(ds, slices)"),
)
