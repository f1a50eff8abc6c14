"""Spike trains out of flat arrays, out of a Dataset, and merged for functions on all spikes."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.objects import spike_data
from labtree.objects.layout import require_ragged, unit_position
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.unit_attributes import Attributes
from labtree.storage import ragged
from labtree.storage._xarray import is_in_memory
from labtree.storage.arguments import positive
from labtree.storage.unsupported import converter

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class MergedTrains(NamedTuple):
    """The spikes of all units in the order of their times."""

    times: Floats
    units: Ints
    n_units: int


def require_kind(ds: xr.Dataset, verb: str, *kinds: str) -> None:
    """Raise DataError unless a Dataset is of one of some kinds, each unit with its spikes."""
    kind = ds.attrs.get(KIND_ATTRIBUTE) if isinstance(ds, xr.Dataset) else type(ds).__name__
    if kind not in kinds:
        message = f"{verb} takes a Dataset of kind {' or '.join(kinds)}, found {kind!r}"
        made = (
            "labtree.spikes.from_times(times_ms, units), labtree.spike_data(trains, length=...)"
        )
        if conversion := converter(ds):
            made = f"{conversion} first, of that object x"
        if isinstance(ds, xr.DataTree):
            made = (
                "tree.ws[namespace, key], or for the units of a pipeline session "
                "labtree.spikes.from_session(tree)"
            )
        raise DataError(f"{message}; write {made}" if "spike_data" in kinds else message)
    require_whole(ds, verb)


def require_whole(ds: xr.Dataset, verb: str) -> None:
    """Raise DataError where units were selected or put into another order without spikes."""
    require_ragged(ds)
    if ds.attrs.get(KIND_ATTRIBUTE) != spike_data.KIND or "spike_times" not in ds:
        return
    # Of rows in another order the counts alone still fit. What lies on a disk is not read.
    if is_in_memory(ds["spike_times"]) and not ragged.rows_are_sorted(
        ds["spike_times"].values, ds["row_size"].values
    ):
        raise DataError(
            f"{verb}: the times of a unit do not rise; were units put into another order "
            "without their spikes? Instead of ds.sortby(...) or ds.isel(unit=...) write "
            "labtree.spikes.select_units(ds, order)"
        )


def recording_span(ds: xr.Dataset) -> tuple[float, float]:
    """Return when the recording starts and stops, in ms."""
    start = float(ds.attrs["start_time"])
    return start, start + float(ds.attrs["length"])


def unit_coords(ds: xr.Dataset) -> dict[Any, xr.Variable]:
    """Return the coordinates of the units: their attributes."""
    return {name: c.variable for name, c in ds.coords.items() if c.dims[:1] == ("unit",)}


def scalar_unit_coords(ds: xr.Dataset) -> dict[Any, xr.Variable]:
    """Return the attributes with one value a unit: a DataArray takes no mean waveforms."""
    return {name: v for name, v in unit_coords(ds).items() if v.dims == ("unit",)}


def merged_trains(ds: xr.Dataset) -> MergedTrains:
    """Return all spikes in the order of their times; those of one time by unit."""
    row_size = ds["row_size"].values
    times = np.asarray(ds["spike_times"].values, np.float64)
    units = ragged.row_of_sample(row_size)
    order = np.argsort(times, kind="stable")
    return MergedTrains(times[order], units[order], row_size.size)


def first_after(
    times: NDArray[Any], origins: NDArray[Any], offset: float | Floats, *, inclusive: bool
) -> Ints:
    """Return for each origin the position of the first time that lies an offset after it.

    Parameters
    ----------
    times : array of shape (n,)
        Sorted.
    origins : array of shape (m,)
    offset : float, or array of shape (m,)
        Negative for times before the origin.
    inclusive : bool
        True: the first with ``time - origin >= offset``; False: ``> offset``.

    Notes
    -----
    ``origin + offset`` and ``time - origin`` are rounded differently. What is returned
    holds for the difference, which is what a reader of the result computes.

    Examples
    --------
    >>> first_after(np.array([1.0, 2.0, 3.0]), np.array([1.0]), 1.0, inclusive=False)
    array([2])
    """
    side: Any = "left" if inclusive else "right"
    found = np.searchsorted(times, origins + offset, side)
    if not times.size or not found.size:
        return found.astype(np.int64)

    def reached(at: Ints) -> NDArray[np.bool_]:
        difference = times[at] - origins
        return np.asarray(difference >= offset if inclusive else difference > offset)

    while (early := (found > 0) & reached(np.maximum(found - 1, 0))).any():
        found[early] = np.searchsorted(times, times[found[early] - 1], "left")
    last = times.size - 1
    while (late := (found <= last) & ~reached(np.minimum(found, last))).any():
        found[late] = np.searchsorted(times, times[found[late]], "right")
    return found.astype(np.int64)


def whole_bins(name: str, length: float, bin_ms: float) -> int:
    """Return how many whole bins a stretch holds, up to rounding; DataError for none."""
    ratio = length / positive(name, bin_ms)
    nearest = round(ratio)
    n_bins = nearest if abs(ratio - nearest) <= 1e-9 * max(1, nearest) else int(ratio)
    if n_bins < 1:
        raise DataError(f"{name} {bin_ms} ms is longer than the stretch of {length} ms")
    return n_bins


def from_times(
    times_ms: Any,
    units: Any,
    *,
    unit_ids: Iterable[Any] | None = None,
    length_ms: float | None = None,
    start_ms: float = 0.0,
    neuron_attributes: Attributes | None = None,
) -> xr.Dataset:
    """Build spike trains from the time and the unit of each spike, as sorters give them.

    Parameters
    ----------
    times_ms : array-like of shape (spike,)
        In ms, in any order; their dtype is kept.
    units : array-like of shape (spike,)
        The id of the unit of each spike: numbers or strings.
    unit_ids : iterable, optional
        All units, in the order wanted, so that silent ones are kept; by default those
        that have a spike, sorted.
    length_ms : float, optional
        Duration of the recording in ms; by default up to the last spike.
    start_ms : float
        Time in ms at which the recording starts.
    neuron_attributes : sequence of mappings, or mapping of columns, optional
        Attributes of the units, see :func:`labtree.spikes.unit_attributes`.

    Returns
    -------
    Dataset
        Of the kind ``spike_data``, with the ids as the coordinate ``unit_id``.

    Raises
    ------
    DataError
        A ValueError, if sizes do not match, a spike is of a unit that `unit_ids` lacks,
        or a time is not finite or outside of the recording.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spikes.from_times([5.0, 1.0, 2.0], [7, 7, 4], unit_ids=[4, 7, 9])
    >>> labtree.spikes.spike_trains(ds)
    [array([2.]), array([1., 5.]), array([], dtype=float64)]
    >>> ds.unit_id.values
    array([4, 7, 9])
    """
    times, owners = np.asarray(times_ms), np.asarray(units)
    if np.ma.is_masked(times_ms):
        raise DataError("times_ms is masked: write times_ms.compressed(), and units alike")
    if times.ndim != 1 or owners.shape != times.shape:
        raise DataError(
            "times_ms and units are flat arrays with one value for each spike, found the "
            f"shapes {times.shape} and {owners.shape}; write .ravel() to flatten a column"
        )
    present, codes = np.unique(owners, return_inverse=True)
    ids = present if unit_ids is None else np.asarray(list(unit_ids))
    if not times.size and unit_ids is None:
        ids = np.empty(0, np.int64)
    if ids.size and np.unique(ids).size != ids.size:
        raise DataError("unit_ids names a unit twice; write numpy.unique(unit_ids)")
    place = {value: at for at, value in enumerate(ids.tolist())}
    lacking = [value for value in present.tolist() if value not in place]
    if lacking and unit_ids is None:
        raise DataError(
            "units holds NaN; select the spikes that have a unit, of times_ms alike: "
            "keep = ~numpy.isnan(units)"
        )
    if lacking:
        raise DataError(
            f"unit_ids lacks units that have spikes: {lacking[:10]}; leave unit_ids= out, or "
            "select the spikes of the others first"
        )
    rows = np.array([place[value] for value in present.tolist()], np.int64)
    codes = rows[codes] if rows.size else np.empty(0, np.int64)
    order = np.lexsort((times, codes))
    trains = ragged.split_rows(times[order], np.bincount(codes, minlength=ids.size))
    ds = spike_data.spike_data(
        trains, length=length_ms, start_time=start_ms, neuron_attributes=neuron_attributes
    )
    if "unit_id" in ds.coords:
        raise DataError("neuron_attributes must not hold 'unit_id'; write unit_ids=...")
    return ds.assign_coords(unit_id=("unit", ids))


def unit_train(ds: xr.Dataset, unit: int) -> NDArray[Any]:
    """Return the spike times of one unit; of a lazy Dataset only those are read.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    unit : int
        Position of the unit; negative counts from the end.

    Returns
    -------
    ndarray of shape (spike,)
        In ms, sorted.

    Raises
    ------
    DataError
        A ValueError, if there is no such unit.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0], [2.0, 3.0]])
    >>> labtree.spikes.unit_train(ds, 1)
    array([2., 3.])
    """
    require_kind(ds, "unit_train", spike_data.KIND)
    rows = ragged.positions_of_rows(
        ds["row_size"].values, [unit_position(ds.sizes["unit"], unit)]
    )
    return np.asarray(ds["spike_times"].isel(spike=rows).values)


def spike_trains(ds: xr.Dataset) -> list[NDArray[Any]]:
    """Return the spike times of all units, one array for each, as views.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.

    Returns
    -------
    list of ndarray of shape (spike,)
        In ms, sorted.

    Examples
    --------
    >>> import labtree
    >>> labtree.spikes.spike_trains(labtree.spike_data([[1.0], [2.0, 3.0]]))
    [array([1.]), array([2., 3.])]
    """
    require_kind(ds, "spike_trains", spike_data.KIND)
    return ragged.split_rows(ds["spike_times"].values, ds["row_size"].values)
