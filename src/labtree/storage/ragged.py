"""CF contiguous ragged arrays: rows of different lengths in one flat variable.

A ragged array is two variables of a Dataset: the samples of all rows, one row after
the other, along a sample dimension, and a count variable that holds the length of each
row and names that dimension in its attribute ``sample_dimension`` [1]_. The count
variable may have any number of dimensions; its rows follow each other in C order.

Functions on plain arrays take ``row_size``, the flat count of samples in each row.

References
----------
.. [1] CF conventions, section 9.3.3, contiguous ragged array representation.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

SAMPLE_DIMENSION = "sample_dimension"

Array = NDArray[Any]
Counts = NDArray[np.int64]


def row_offsets(row_size: Any) -> Counts:
    """Return where each row starts, and after them where the last one stops.

    Examples
    --------
    >>> row_offsets([2, 0, 3])
    array([0, 2, 2, 5])
    """
    counts = np.asarray(row_size, dtype=np.int64).ravel()
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def row_of_sample(row_size: Any) -> Counts:
    """Return the row that each sample belongs to.

    Examples
    --------
    >>> row_of_sample([2, 0, 3])
    array([0, 0, 2, 2, 2])
    """
    counts = np.asarray(row_size, dtype=np.int64).ravel()
    return np.repeat(np.arange(counts.size), counts)


def positions_of_rows(row_size: Any, rows: Any) -> slice | Counts:
    """Return where the samples of some rows lie, in the order of ``rows``.

    Returns
    -------
    slice or ndarray of int64
        A slice where the rows lie next to each other, so that taking them copies
        and reads only them; otherwise the positions one by one.

    Examples
    --------
    >>> positions_of_rows([2, 1, 3], [2, 0])
    array([3, 4, 5, 0, 1])
    >>> positions_of_rows([2, 1, 3], [1, 2])
    slice(2, 6, None)
    """
    offsets = row_offsets(row_size)
    rows = np.asarray(rows, dtype=np.int64).ravel()
    starts, stops = offsets[:-1][rows], offsets[1:][rows]
    if rows.size == 0:
        return slice(0, 0)
    if np.array_equal(stops[:-1], starts[1:]):
        return slice(int(starts[0]), int(stops[-1]))
    return positions_of_ranges(starts, stops - starts)


def positions_of_ranges(starts: Any, sizes: Any) -> Counts:
    """Return the positions in ranges, given by their first positions and sizes.

    Examples
    --------
    >>> positions_of_ranges([5, 0], [2, 3])
    array([5, 6, 0, 1, 2])
    """
    out = row_offsets(sizes)
    return np.repeat(np.asarray(starts) - out[:-1], np.ravel(sizes)) + np.arange(out[-1])


def begins_run(values: Array) -> NDArray[np.bool_]:
    """Return which values differ from the one before them; the first always does.

    Examples
    --------
    >>> begins_run(np.array([4, 4, 2, 2, 4]))
    array([ True, False,  True, False,  True])
    """
    return np.concatenate([[True], values[1:] != values[:-1]])[: values.size]


def run_edges(values: Array) -> Counts:
    """Return where runs of equal values begin, and at the end how many values there are.

    Examples
    --------
    >>> run_edges(np.array([4, 4, 2, 2, 4]))
    array([0, 2, 4, 5])
    """
    return np.flatnonzero(np.concatenate([begins_run(values), [True]]))


def spike_ranges(
    samples: Array, row_size: Any, starts: Any, stops: Any
) -> tuple[Counts, Counts]:
    """Return which samples of each row lie in each of many spans, as ranges of indices.

    One binary search finds all of them: rows are told apart by an offset on the values.

    Parameters
    ----------
    samples : int array (sample,)
        Such as spike times, sorted within each row.
    row_size : int array (row,)
        Samples in each row.
    starts, stops : int array (span,)
        A sample at ``starts`` is in, one at ``stops`` is not.

    Returns
    -------
    first, last : int64 arrays (row, span)
        ``samples[first:last]`` are those of that row in that span.

    Examples
    --------
    >>> first, last = spike_ranges(np.array([1, 5, 9, 2, 5]), [3, 2], [5], [9])
    >>> first.ravel(), last.ravel()
    (array([1, 4]), array([2, 5]))
    """
    counts = np.asarray(row_size, dtype=np.int64).ravel()
    begin, end = np.asarray(starts, np.int64), np.asarray(stops, np.int64)
    low = min(int(samples.min(initial=0)), 0)
    width = int(max(samples.max(initial=0), end.max(initial=0))) - low + 2
    row = np.arange(len(counts), dtype=np.int64) * width - low
    keys = samples + np.repeat(row, counts)
    bounds = np.clip(np.stack([begin, np.maximum(begin, end)]), low, low + width - 1)
    found = np.searchsorted(keys, row[:, None, None] + bounds[None], side="left")
    return found[:, 0].astype(np.int64), found[:, 1].astype(np.int64)


def split_rows(samples: Array, row_size: Any) -> list[Array]:
    """Return the rows as a list of views, without copying a sample.

    Examples
    --------
    >>> split_rows(np.array([1, 2, 3]), [2, 0, 1])
    [array([1, 2]), array([], dtype=int64), array([3])]
    """
    offsets = row_offsets(row_size).tolist()
    return [samples[start:stop] for start, stop in pairwise(offsets)]


def count_in_rows(positions: Any, row_size: Any) -> Counts:
    """Return how many of some samples, given by their rising positions, lie in each row.

    Examples
    --------
    >>> count_in_rows([0, 2], [2, 0, 1])
    array([1, 0, 1])
    """
    return np.diff(np.searchsorted(positions, row_offsets(row_size))).astype(np.int64)


def rows_are_sorted(samples: Array, row_size: Any) -> bool:
    """Return whether the samples rise, or stay equal, within each row.

    Examples
    --------
    >>> rows_are_sorted(np.array([2, 3, 1]), [2, 1])
    True
    """
    if samples.size < 2:
        return True
    falls = samples[1:] < samples[:-1]
    if not falls.any():
        return True
    offsets = row_offsets(row_size)
    inner = offsets[1:-1]
    # A fall from one row to the next is no fall within a row.
    falls[inner[(inner > 0) & (inner < samples.size)] - 1] = False
    return not falls.any()


def sort_rows(samples: Array, row_size: Any) -> Array:
    """Sort the samples within each row; a new array.

    Examples
    --------
    >>> sort_rows(np.array([3, 1, 2]), [2, 1])
    array([1, 3, 2])
    """
    return np.asarray(samples[np.lexsort((samples, row_of_sample(row_size)))])


def concatenate_rows(parts: Sequence[tuple[Array, Any]]) -> tuple[Array, Counts]:
    """Lengthen each row by the same row of the next part.

    Parameters
    ----------
    parts : sequence of (samples, row_size)
        Ragged arrays with the same number of rows.

    Returns
    -------
    samples, row_size
        Row 0 of every part in turn, then row 1 of every part, and so on.

    Examples
    --------
    >>> samples, row_size = concatenate_rows(
    ...     [(np.array([1, 2]), [1, 1]), (np.array([3, 4]), [0, 2])]
    ... )
    >>> samples.tolist(), row_size.tolist()
    ([1, 2, 3, 4], [1, 3])
    """
    # Views of whole rows are copied in one go; moving samples one by one costs more.
    rows = [split_rows(samples, row_size) for samples, row_size in parts]
    views = [row for same in zip(*rows, strict=True) for row in same]
    dtype = np.result_type(*[samples for samples, _ in parts])
    samples = np.concatenate(views, dtype=dtype) if views else np.empty(0, dtype)
    sizes = [np.asarray(row_size, dtype=np.int64).ravel() for _, row_size in parts]
    return samples, np.sum(sizes, axis=0, dtype=np.int64)


def count_variables(ds: xr.Dataset) -> dict[Hashable, Hashable]:
    """Return the count variables of a Dataset and the sample dimension of each."""
    return {
        name: variable.attrs[SAMPLE_DIMENSION]
        for name, variable in ds.variables.items()
        if SAMPLE_DIMENSION in variable.attrs
    }


def problems(ds: xr.Dataset) -> list[str]:
    """Return in words what is wrong with the ragged arrays of a Dataset.

    Returns
    -------
    list of str
        Empty where all is well.
    """
    found = []
    for name, dim in count_variables(ds).items():
        counts = ds.variables[name]
        if dim not in ds.sizes:
            found.append(
                f"{name!r} counts samples along {dim!r}, a dimension that is not there"
            )
        elif counts.dtype.kind not in "iu":
            found.append(f"{name!r} must hold whole numbers, found dtype {counts.dtype}")
        else:
            values = np.asarray(counts.values)
            if values.size and int(values.min()) < 0:
                found.append(f"{name!r} holds a negative number of samples")
            elif int(values.sum()) != ds.sizes[dim]:
                found.append(
                    f"{name!r} counts {int(values.sum())} samples in {values.size} rows, but "
                    f"dimension {dim!r} holds {ds.sizes[dim]}"
                )
    return found


def came_apart(ds: xr.Dataset) -> bool:
    """Return whether samples are there that the counts of their rows do not fit.

    Examples
    --------
    >>> counts = ("row", [2, 1], {"sample_dimension": "sample"})
    >>> came_apart(xr.Dataset({"row_size": counts, "x": ("sample", [1, 2])}))
    True
    >>> came_apart(xr.Dataset({"row_size": counts}))
    False
    """
    there = any(dim in ds.sizes for dim in count_variables(ds).values())
    return there and bool(problems(ds))


def isel(ds: xr.Dataset, indexers: Mapping[Any, Any]) -> xr.Dataset:
    """Select rows by position, as ``ds.isel`` does, and their samples with them.

    Parameters
    ----------
    ds : Dataset
        Any Dataset; one without ragged arrays is simply indexed.
    indexers : mapping of dimension to slice, ints or bools
        Positions along the dimensions of the rows, in the order wanted; repeats are
        allowed.

    Returns
    -------
    Dataset

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {
    ...         "x": ("sample", [10, 20, 30]),
    ...         "row_size": ("row", [2, 1], {"sample_dimension": "sample"}),
    ...     }
    ... )
    >>> isel(ds, {"row": [1]}).x.values
    array([30])
    """
    samples: dict[Hashable, slice | Counts] = {}
    for name, dim in count_variables(ds).items():
        counts = ds.variables[name]
        along = {key: value for key, value in indexers.items() if key in counts.dims}
        if not along:
            continue
        rows = xr.Variable(counts.dims, np.arange(counts.size).reshape(counts.shape))
        samples[dim] = positions_of_rows(counts.values, rows.isel(along).values)
    return ds.isel({**indexers, **samples})
