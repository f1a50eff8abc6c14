"""Spike trains of many units, in one Dataset.

The spike times of all units lie in one variable ``spike_times(spike)``, in ms, unit after
unit; ``row_size(unit)`` says how many each unit has (CF contiguous ragged array).
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.objects.layout import add_dataset_kind, require_ragged, require_variables
from labtree.objects.plots import (
    axes_for,
    draw_ticks,
    label_rows,
    refuse_unit,
    rows_height,
    time_scale,
)
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.unit_attributes import Attributes, attribute_coords
from labtree.storage import ragged

if TYPE_CHECKING:
    from matplotlib.axes import Axes


KIND = "spike_data"
RESERVED = frozenset(
    ("spike_times", "row_size", "spike", "unit", "raw_data", "raw_time", "raw_channel",
     "raw_sample", "raw_row_size", "slice", "length", "slice_start", "slice_end")
)  # fmt: skip

#: Units that spike times may state; None and "dimensionless": none is stated.
_MILLISECONDS = {None, "", "dimensionless", "ms", "msec", "millisecond", "milliseconds"}

Array: TypeAlias = NDArray[Any]


def spike_data(
    trains: Iterable[Any],
    *,
    length: float | None = None,
    start_time: float = 0.0,
    n_units: int | None = None,
    neuron_attributes: Attributes | None = None,
    metadata: Mapping[str, Any] | None = None,
    raw_data: Any = None,
    raw_time: Any = None,
) -> xr.Dataset:
    """Build a Dataset of spike trains.

    Parameters
    ----------
    trains : iterable of 1-D array-likes
        Spike times in ms, one train for each unit. They are sorted; their dtype is kept.
    length : float, optional
        Duration in ms; by default up to the last spike.
    start_time : float
        Time in ms at which the recording starts.
    n_units : int, optional
        Units without a train are added, silent, up to this number.
    neuron_attributes : sequence of mappings, or mapping of columns, optional
        Attributes of the units, see :func:`labtree.spikes.unit_attributes`.
    metadata : mapping, optional
        Anything else that is known, of any nesting; kept in ``ds.attrs["metadata"]``.
    raw_data : array-like of shape (channel, time) or (time,), optional
        Voltage traces, with `raw_time`.
    raw_time : array-like of shape (time,), or float, optional
        Times of the samples in ms, or the sampling rate in kHz.

    Returns
    -------
    Dataset
        ``spike_times(spike)`` in ms, ``row_size(unit)``, attributes as coordinates along
        ``unit``; attributes ``start_time`` and ``length`` in ms.

    Raises
    ------
    DataError
        A ValueError, if a spike is NaN, infinite or outside of the closed interval from
        `start_time` to `start_time` + `length`, or if sizes do not match.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.5, 3.0], [], [2.0]], length=10)
    >>> ds.spike_times.values, ds.row_size.values
    (array([1.5, 3. , 2. ]), array([2, 0, 1]))
    """
    spike_times, row_size = flat_trains(trains, n_units)
    start_time = _number("start_time", start_time)
    if length is None:
        length = _last(spike_times, start_time)
    ds = assemble(
        spike_times,
        row_size,
        length=_number("length", length),
        start_time=start_time,
        neuron_attributes=neuron_attributes,
        metadata=metadata,
        raw=_raw(raw_data, raw_time),
    )
    validate(ds)
    return ds


def assemble(
    spike_times: Array,
    row_size: Any,
    *,
    length: float,
    start_time: float,
    neuron_attributes: Attributes | None = None,
    metadata: Mapping[str, Any] | None = None,
    raw: tuple[Array, Array] | None = None,
) -> xr.Dataset:
    """Build the Dataset from parts that are flat already, without a look at the values."""
    counts = np.asarray(row_size, dtype=np.int64)
    variables: dict[str, Any] = {
        "spike_times": xr.Variable("spike", spike_times, {"units": "ms"}),
        "row_size": xr.Variable("unit", counts, {ragged.SAMPLE_DIMENSION: "spike"}),
    }
    coords = attribute_coords(neuron_attributes, {"unit": counts.size}, RESERVED)
    if raw is not None:
        data, time = raw
        dims = ("raw_channel", "raw_sample")[-data.ndim :]
        variables["raw_data"] = xr.Variable(dims, data)
        coords["raw_time"] = xr.Variable("raw_sample", time, {"units": "ms"})
    attrs: dict[str, Any] = {"start_time": start_time, "length": length}
    if metadata:
        attrs["metadata"] = dict(metadata)
    attrs[KIND_ATTRIBUTE] = KIND
    return xr.Dataset(variables, coords, attrs)


def flat_trains(trains: Iterable[Any], n_units: int | None = None) -> tuple[Array, Array]:
    """Put trains one after the other, sorted, in the dtype that they share.

    Returns
    -------
    spike_times, row_size
    """
    rows = [_train(unit, train) for unit, train in enumerate(trains)]
    if n_units is not None and n_units < len(rows):
        raise DataError(f"n_units is {n_units}, but there are {len(rows)} trains")
    # An empty list says nothing about the dtype; an empty array does.
    typed = [row for row, is_array in rows if is_array or row.size]
    flat = np.concatenate(typed) if typed else np.empty(0)
    if len({row.dtype for row in typed}) == 1:
        # numpy would turn the bytes of a big-endian array round.
        flat = flat.astype(typed[0].dtype, copy=False)
    for row in typed:
        if row.dtype != flat.dtype and not np.array_equal(
            row.astype(flat.dtype).astype(row.dtype), row
        ):
            raise DataError(
                f"the trains have dtypes {row.dtype} and {flat.dtype} and values that one "
                "dtype cannot hold exactly: give all trains in one dtype"
            )
    row_size = np.zeros(max(len(rows), n_units or 0), np.int64)
    row_size[: len(rows)] = [row.size for row, _ in rows]
    if flat.dtype.kind == "f":
        _refuse_not_finite(flat, row_size)
    if not ragged.rows_are_sorted(flat, row_size):
        flat = ragged.sort_rows(flat, row_size)
    return flat, row_size


def validate(ds: xr.Dataset) -> None:
    """Raise DataError unless this is a whole and consistent Dataset of spike trains."""
    require_ragged(ds)
    require_variables(ds, KIND, {"spike_times": ("spike",), "row_size": ("unit",)})
    for name in ("start_time", "length"):
        _number(name, ds.attrs.get(name))
    spike_times, row_size = ds["spike_times"].values, ds["row_size"].values
    if ds.attrs["length"] < 0:
        raise DataError(
            f"length must not be negative, found {ds.attrs['length']} ms. Spikes before "
            "start_time? Set start_time to the start of the recording"
        )
    check_trains(spike_times, row_size)
    check_bounds(spike_times, row_size, ds.attrs["start_time"], ds.attrs["length"])
    if "raw_data" in ds.variables or "raw_time" in ds.variables:
        _check_raw(ds)


def summary(ds: xr.Dataset) -> dict[str, Any]:
    """Return the number of units, length and start in ms, under SpikeLab's names."""
    return {
        "N": int(ds.sizes["unit"]),
        "length_ms": float(ds.attrs["length"]),
        "start_time": float(ds.attrs["start_time"]),
    }


def check_trains(spike_times: Array, row_size: Array) -> None:
    """Raise DataError if spike times are no numbers, not finite or not sorted."""
    if spike_times.dtype.kind not in "iuf":
        raise DataError(
            f"spike times must be real numbers in ms, found dtype {spike_times.dtype}"
        )
    if spike_times.dtype.kind == "f":
        _refuse_not_finite(spike_times, row_size)
    if not ragged.rows_are_sorted(spike_times, row_size):
        raise DataError("the spike times of each unit must be sorted; rebuild with spike_data")


def check_bounds(spike_times: Array, row_size: Any, start_time: float, length: float) -> None:
    """Raise DataError if a spike lies outside of the closed recording."""
    if not spike_times.size:
        return
    # The rows are sorted: their ends bound them.
    offsets = ragged.row_offsets(row_size)
    units = np.flatnonzero(np.diff(offsets))
    firsts, lasts = spike_times[offsets[units]], spike_times[offsets[units + 1] - 1]
    first, last = firsts.min().item(), lasts.max().item()
    if first < start_time:
        unit = units[firsts.argmin()]
        raise DataError(
            f"unit {unit} has a spike at {first} ms, before start_time {start_time} ms. "
            "Write start_time=... if the recording starts earlier"
        )
    # Either form may round; a default length must hold in the form that made it.
    start_time = whole_number(start_time)
    if last > start_time + length and last - start_time > length:
        unit = units[lasts.argmax()]
        raise DataError(
            f"unit {unit} has a spike at {last} ms, after the end of the recording at "
            f"{start_time + length} ms (start_time {start_time} + length {length}). Are "
            "the times absolute? Write start_time=..., or cut with "
            "labtree.spikes.select_time(ds, start_ms, stop_ms)"
        )


def _train(unit: int, train: Any) -> tuple[Array, bool]:
    if np.ma.is_masked(train):
        raise DataError(f"the train of unit {unit} is masked: write train.compressed()")
    stated = _stated_unit(train)
    if stated not in _MILLISECONDS:
        raise DataError(
            f"the train of unit {unit} is in {stated}, expected ms: convert it first. Spike "
            "trains of neo: labtree.from_neo(trains)"
        )
    row = np.asarray(train)
    if isinstance(train, str) and row.ndim == 0:
        raise DataError(
            "trains is a dict: write spike_data(list(trains.values()), "
            'neuron_attributes={"unit_id": list(trains)})'
        )
    if row.ndim != 1:
        raise DataError(
            f"the train of unit {unit} must be one-dimensional, found shape {row.shape}. "
            "trains is a list with one train for each unit: write [train] for one unit, "
            "list(trains.values()) for a dict"
        )
    if row.size and row.dtype.kind not in "iuf":
        raise DataError(
            f"the train of unit {unit} must hold real numbers in ms, found dtype {row.dtype}"
        )
    return row, isinstance(train, np.ndarray) and row.dtype.kind in "iuf"


def _stated_unit(train: Any) -> str | None:
    """Return the unit of a quantity, or that which an array of xarray states."""
    if hasattr(train, "dimensionality"):  # numpy would drop it
        dimension = str(train.dimensionality)
        return str(train.units) if dimension.startswith("[") else dimension
    unit = train.attrs.get("units") if isinstance(train, xr.DataArray) else None
    return None if unit is None else str(unit)


def _refuse_not_finite(spike_times: Array, row_size: Any) -> None:
    finite = np.isfinite(spike_times)
    if not finite.all():
        at = int(np.argmin(finite))
        unit = int(ragged.row_of_sample(row_size)[at])
        raise DataError(
            f"unit {unit} has a spike at {spike_times[at]} ms; times must be finite"
        )


def _number(name: str, value: Any) -> float:
    if isinstance(value, np.generic | np.ndarray) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{name} must be a number in ms, found {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{name} must be finite, found {value}")
    return exact_float(value)


def exact_float(value: float) -> float:
    """Return a number as float, or as the int that it is where a float would round it."""
    return float(value) if float(value) == value else value


def whole_number(value: float) -> float:
    """Return a whole number as int: with another int it is exact where a float would round."""
    return int(value) if float(value).is_integer() else value


def _last(spike_times: Array, start_time: float) -> float:
    if not spike_times.size:
        return 0.0
    last = spike_times.max().item()
    # A spike before the start is for validate to find, not to be hidden by a length < 0.
    return exact_float(max(last - whole_number(start_time), 0))


def _raw(raw_data: Any, raw_time: Any) -> tuple[Array, Array] | None:
    if raw_data is None and raw_time is None:
        return None
    if raw_data is None or raw_time is None:
        given = "raw_data" if raw_time is None else "raw_time"
        raise DataError(f"raw_data and raw_time belong together; only {given} was given")
    if np.ma.is_masked(raw_data):
        raise DataError("raw_data is masked: fill it, as in raw_data.filled(np.nan)")
    data, time = np.asarray(raw_data), np.asarray(raw_time)
    if data.ndim not in (1, 2):
        raise DataError(
            f"raw_data must have shape (channel, time) or (time,), found {data.shape}"
        )
    if time.ndim == 0:
        if not (np.isfinite(time) and time > 0):
            raise DataError(
                f"raw_time as a sampling rate in kHz must be positive, found {time}"
            )
        time = np.arange(data.shape[-1]) / time
    if time.shape != data.shape[-1:]:
        raise DataError(
            f"raw_time must hold one time for each of the {data.shape[-1]} samples of "
            f"raw_data, found shape {time.shape}"
        )
    return data, time


def _check_raw(ds: xr.Dataset) -> None:
    if not {"raw_data", "raw_time"} <= set(ds.variables):
        raise DataError("raw_data and raw_time belong together; only one is there")
    if ds["raw_data"].dims not in (("raw_channel", "raw_sample"), ("raw_sample",)):
        raise DataError(
            "'raw_data' needs the dimensions ('raw_channel', 'raw_sample') or ('raw_sample',), "
            f"found {ds['raw_data'].dims}"
        )
    if ds["raw_time"].dims != ("raw_sample",):
        raise DataError(
            f"'raw_time' needs the dimension 'raw_sample', found {ds['raw_time'].dims}"
        )


def plot_spike_data(ds: xr.Dataset, *, ax: "Axes | None" = None, **style: Any) -> "Axes":
    """Draw a raster: one row for each unit, one tick for each spike.

    Where ticks would run into each other they are transparent, so that their density
    shows.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spike_data`.
    ax : matplotlib Axes, optional
    **style
        For :meth:`matplotlib.axes.Axes.plot`, such as ``color``, ``alpha``, ``markersize``.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0, 3.0], [2.0]], length=10)
    >>> ax = plot_spike_data(ds)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('Time (ms)', 'Unit')
    """
    units = ragged.row_of_sample(ds["row_size"].values)
    start, length = ds.attrs["start_time"], ds.attrs["length"]
    n_units = ds.sizes["unit"]
    refuse_unit(style)
    ax = axes_for(ax, height=rows_height(n_units))
    factor, label = time_scale(length)
    draw_ticks(ax, ds["spike_times"].values * factor, units, n_units, style)
    left, right = start * factor, (start + length) * factor
    if right > left:
        ax.set_xlim(left, right)
    ax.set(xlabel=label, ylabel="Unit")
    label_rows(ax, ds)
    return ax


add_dataset_kind(
    KIND,
    summary=summary,
    validate=validate,
    plot=plot_spike_data,
    functions=(
        "spike_counts(ds)",
        "firing_rates(ds)",
        "isi_statistics(ds, refractory_ms=1.5)",
        "binned_counts(ds, bin_ms)",
        "smoothed_rates(ds, step_ms, sigma_ms)",
        "sttc(ds, delta_ms=20.0)",
        "correlograms(ds, bin_ms=1.0, window_ms=50.0)",
        "peri_event(ds, events_ms, pre_ms, post_ms)",
        "peri_event_counts(ds, events_ms, pre_ms, post_ms, bin_ms)",
        "psth(ds, events_ms, pre_ms, post_ms, bin_ms)",
        "latencies(ds, events_ms, within_ms)",
        "population_rate(ds, bin_ms)",
        "bursts(ds)",
        "surrogates(ds, method, seed=0)",
        "curate(ds)",
        "select_units(ds, units)",
        "select_time(ds, start_ms, stop_ms)",
        "spike_trains(ds)",
        "unit_train(ds, unit)",
        "unit_attributes(ds)",
        "concatenate_time([ds, ...])",
        "concatenate_units([ds, ...])",
        "to_session_units(ds, rate_hz)",
    ),
)
