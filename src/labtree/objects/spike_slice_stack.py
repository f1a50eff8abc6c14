"""Spike trains around events, in one Dataset.

The spikes of all slices and units lie in one variable ``spike_times(spike)``, slice after
slice and in it unit after unit; ``row_size(slice, unit)`` says how many each has.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError
from labtree.objects import spike_data
from labtree.objects.layout import (
    add_dataset_kind,
    check_slice_times,
    require_ragged,
    require_variables,
    slice_coords,
    unit_position,
)
from labtree.objects.plots import (
    axes_for,
    draw_mean_and_error,
    draw_ticks,
    time_scale,
    title_of_units,
)
from labtree.objects.registry import KIND_ATTRIBUTE
from labtree.objects.unit_attributes import Attributes, alike, attribute_coords, records
from labtree.storage import ragged
from labtree.storage.arguments import positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes


KIND = "spike_slice_stack"
#: Widths of bins that a reader knows by sight, in ms.
_ROUND_BINS_MS = np.array([1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 2000, 5000], float)


def spike_slice_stack(
    slices: Sequence[xr.Dataset],
    times: Any,
    *,
    neuron_attributes: Attributes | None = None,
) -> xr.Dataset:
    """Build a Dataset of spike trains cut into slices.

    Parameters
    ----------
    slices : sequence of Dataset
        From :func:`labtree.spike_data`, with the same units and the same start_time.
    times : sequence of (start, end)
        Of each slice, in ms, on the clock of the recording.
    neuron_attributes : sequence of mappings, or mapping of columns, optional
        Attributes of the units. Attributes of the slices themselves are kept as well:
        along ``unit`` where all slices agree, otherwise along ``(slice, unit)``.

    Returns
    -------
    Dataset
        ``spike_times(spike)`` in ms on the clock of each slice, ``row_size(slice, unit)``;
        ``slice_start`` and ``slice_end`` along ``slice``; attributes ``start_time`` and
        ``length`` in ms. Lengths that differ are a variable ``length(slice)``.

    Raises
    ------
    DataError
        A ValueError, if there is no slice, units or start times differ, or the windows run
        backwards or do not match the slices.

    Examples
    --------
    >>> import labtree
    >>> first = labtree.spike_data([[1.0], [2.0, 3.0]], length=5)
    >>> second = labtree.spike_data([[], [4.0]], length=5)
    >>> ds = labtree.spike_slice_stack([first, second], [(10, 15), (30, 35)])
    >>> ds.row_size.values.tolist(), ds.spike_times.values
    ([[1, 2], [0, 1]], array([1., 2., 3., 4.]))
    """
    slices = list(slices)
    if not slices:
        raise DataError("slices must hold at least one spike_data")
    for part in slices:
        if not isinstance(part, xr.Dataset):
            raise DataError(
                f"slices must hold Datasets from labtree.spike_data, found "
                f"{type(part).__name__}"
            )
        spike_data.validate(part)
    n_units = _same("number of units", [part.sizes["unit"] for part in slices])
    start_time = _same("start_time", [part.attrs["start_time"] for part in slices])
    dtypes = {part["spike_times"].dtype for part in slices if part.sizes["spike"]}
    if len(dtypes) > 1:
        raise DataError(
            f"spike times of all slices need one dtype, found {sorted(map(str, dtypes))}"
        )
    typed = [part for part in slices if part.sizes["spike"]] or slices[:1]
    variables: dict[str, Any] = {
        "spike_times": xr.Variable(
            "spike",
            np.concatenate([part["spike_times"].values for part in typed]),
            {"units": "ms"},
        ),
        "row_size": xr.Variable(
            ("slice", "unit"),
            np.stack([part["row_size"].values for part in slices]),
            {ragged.SAMPLE_DIMENSION: "spike"},
        ),
    }
    lengths = [part.attrs["length"] for part in slices]
    attrs: dict[str, Any] = {"start_time": start_time}
    # One length is an attribute, so that a list of items need not read it.
    if len(set(lengths)) == 1:
        attrs["length"] = lengths[0]
    else:
        variables["length"] = xr.Variable("slice", lengths, {"units": "ms"})
    raw, raw_coords = _raw(slices)
    coords = slice_coords(times, len(slices)) | raw_coords
    coords |= _attributes(slices, neuron_attributes, n_units)
    metadata = [part.attrs.get("metadata", {}) for part in slices]
    if any(metadata):
        attrs["slice_metadata"] = metadata
    attrs[KIND_ATTRIBUTE] = KIND
    ds = xr.Dataset(variables | raw, coords, attrs)
    validate(ds)
    return ds


def validate(ds: xr.Dataset) -> None:
    """Raise DataError unless this is a whole and consistent stack of spike slices."""
    require_ragged(ds)
    require_variables(
        ds,
        KIND,
        {"spike_times": ("spike",), "row_size": ("slice", "unit")},
    )
    if "start_time" not in ds.attrs:
        raise DataError(f"a {KIND} needs the attribute 'start_time' in ms")
    if "length" not in ds.attrs and "length" not in ds.variables:
        raise DataError(
            f"a {KIND} needs the attribute, or along 'slice' the variable, 'length'"
        )
    n_slices = ds.sizes["slice"]
    if n_slices == 0:
        raise DataError(f"a {KIND} needs at least one slice")
    check_slice_times(ds, n_slices, equal=False)
    n_metadata = len(ds.attrs.get("slice_metadata", range(n_slices)))
    if n_metadata != n_slices:
        raise DataError(
            f"slice_metadata has {n_metadata} items for {n_slices} slices. Instead of "
            "ds.isel(slice=...) write labtree.spikes.select_slices(ds, ...)"
        )
    spike_times, row_size = ds["spike_times"].values, ds["row_size"].values
    spike_data.check_trains(spike_times, row_size)
    start_time = ds.attrs["start_time"]
    parts = ragged.split_rows(spike_times, row_size.sum(axis=1))
    rows = zip(parts, row_size, slice_lengths(ds), strict=True)
    for at, (part, counts, length) in enumerate(rows):
        try:
            spike_data.check_bounds(part, counts, start_time, length)
        except DataError as error:
            raise DataError(f"slice {at}: {error}") from None


def summary(ds: xr.Dataset) -> dict[str, Any]:
    """Return the numbers of slices and units, and their length in ms, under SpikeLab's names.

    The length is a pair of the shortest and the longest where slices differ.
    """
    lengths = slice_lengths(ds)
    length: float | list[float] | None = None
    if lengths:
        low, high = float(min(lengths)), float(max(lengths))
        length = low if low == high else [low, high]
    return {
        "N_slices": int(ds.sizes["slice"]),
        "N_units": int(ds.sizes["unit"]),
        "length_ms": length,
    }


def slice_lengths(ds: xr.Dataset) -> list[float]:
    """Return the length of each slice in ms."""
    if "length" in ds.variables:
        return list(ds["length"].values.tolist())
    return [ds.attrs["length"]] * ds.sizes["slice"]


def _same(what: str, values: Sequence[Any]) -> Any:
    for at, value in enumerate(values):
        if value != values[0]:
            raise DataError(
                f"all slices need the same {what}: slice 0 has {values[0]}, "
                f"slice {at} has {value}"
            )
    return values[0]


def _attributes(
    slices: Sequence[xr.Dataset], neuron_attributes: Attributes | None, n_units: int
) -> dict[str, xr.Variable]:
    taken = set(spike_data.RESERVED)
    stack = attribute_coords(neuron_attributes, {"unit": n_units}, taken)
    parts = [records(part, ("unit",)) for part in slices]
    if all(alike(part, parts[0]) for part in parts):
        if stack and alike(parts[0], records(xr.Dataset(coords=stack), ("unit",))):
            return stack
        return stack | attribute_coords(parts[0], {"unit": n_units}, taken | set(stack))
    flat = [record for part in parts for record in part]
    dims = {"slice": len(slices), "unit": n_units}
    return stack | attribute_coords(flat, dims, taken | set(stack))


def _raw(slices: Sequence[xr.Dataset]) -> tuple[dict[str, Any], dict[str, xr.Variable]]:
    having = [part for part in slices if "raw_data" in part]
    if not having:
        return {}, {}
    if len(having) != len(slices):
        raise DataError(
            "raw_data must be in all slices or in none: drop_vars('raw_data') first"
        )
    dims = _same("dimensions of raw_data", [part["raw_data"].dims for part in slices])
    _same("number of raw channels", [part["raw_data"].shape[:-1] for part in slices])
    _same("dtype of raw_data", [part["raw_data"].dtype for part in slices])
    _same("dtype of raw_time", [part["raw_time"].dtype for part in slices])
    data = np.concatenate([part["raw_data"].values for part in slices], axis=-1)
    time = np.concatenate([part["raw_time"].values for part in slices])
    counts = np.array([part.sizes["raw_sample"] for part in slices], np.int64)
    return {
        "raw_data": xr.Variable(dims, data),
        "raw_row_size": xr.Variable("slice", counts, {ragged.SAMPLE_DIMENSION: "raw_sample"}),
    }, {"raw_time": xr.Variable("raw_sample", time, {"units": "ms"})}


def plot_spike_slice_stack(
    ds: xr.Dataset,
    *,
    unit: int | None = None,
    bin_ms: float | None = None,
    ax: "Axes | None" = None,
    **style: Any,
) -> "Axes":
    """Draw the spikes of each slice, and below them their rate (PSTH) with its error.

    Parameters
    ----------
    ds : Dataset
        From :func:`labtree.spikes.peri_event` or :func:`labtree.spike_slice_stack`.
    unit : int, optional
        Position of the unit to draw; by default the spikes of all units, and their
        average rate.
    bin_ms : float, optional
        Width of the bins of the rate in ms; by default a round number that makes about 50
        of them. The title says which.
    ax : matplotlib Axes, optional
        Divided in two: the raster above, the rate below.
    **style
        For :meth:`matplotlib.axes.Axes.plot`, such as ``color`` and ``label``.

    Returns
    -------
    Axes
        Of the rate.
    """
    n_slices, n_units = ds["row_size"].shape
    start = float(ds.attrs["start_time"])
    # A bin that no slice fills says nothing: the shortest slice bounds them.
    length = float(min(slice_lengths(ds)))
    edges = _bin_edges(start, length, bin_ms)
    width = float(edges[1] - edges[0])
    rows = ragged.row_of_sample(ds["row_size"].values)
    chosen = np.ones(rows.size, bool)
    if unit is not None:
        chosen = rows % n_units == unit_position(n_units, unit)
    times = ds["spike_times"].values[chosen]
    slices = rows[chosen] // max(n_units, 1)
    counts = np.histogram2d(slices, times, [np.arange(n_slices + 1), edges])[0]
    averaged = max(n_units, 1) if unit is None else 1
    rates = counts.T / averaged / (width / 1000)
    ax = axes_for(ax, height=5.0)
    raster = _axes_above(ax)
    factor, _ = time_scale(length)
    color = {"color": style["color"]} if "color" in style else {}
    draw_ticks(raster, times * factor, slices, n_slices, color)
    noun = "event" if "event" in ds.coords else "slice"
    raster.set_ylabel(noun.capitalize())
    raster.set_ylim(-0.5, max(n_slices, 1) - 0.5)
    raster.tick_params(labelbottom=False)
    raster.spines[["top", "right"]].set_visible(False)
    draw_mean_and_error(ax, (edges[1:] + edges[:-1]) / 2, rates, "Firing rate (Hz)", style)
    if noun == "event":
        ax.set_xlabel(ax.get_xlabel().replace("in slice", "from the event"))
    ax.set_xlim(edges[0] * factor, edges[-1] * factor)
    if start < 0 < start + length:
        raster.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    raster.set_title(
        f"{title_of_units(ds, unit)}, mean ± SEM of {n_slices} {noun}s, {width:g} ms bins",
        fontsize="medium",
    )
    return ax


def _axes_above(ax: "Axes") -> "Axes":
    """Return new Axes in the upper half of some, which keep the lower.

    Those of mpl_toolkits.axes_grid1 would lose their title in a constrained layout.
    """
    figure: Any = ax.figure
    place = ax.get_subplotspec()
    if place is not None:
        grid = place.subgridspec(2, 1, hspace=0.05)
        ax.set_subplotspec(grid[1])
        above: Axes = figure.add_subplot(grid[0], sharex=ax)
    else:
        left, bottom, width, height = ax.get_position().bounds
        half = 0.47 * height
        ax.set_position((left, bottom, width, half))
        above = figure.add_axes((left, bottom + height - half, width, half), sharex=ax)
    return above


def _bin_edges(start: float, length: float, bin_ms: float | None) -> NDArray[Any]:
    if bin_ms is None:
        fits = _ROUND_BINS_MS[length / 50 <= _ROUND_BINS_MS]
        bin_ms = float(fits[0]) if fits.size else length / 50
        if bin_ms > length:
            bin_ms = length or 1.0
    bin_ms = positive("bin_ms", bin_ms)
    return start + np.arange(max(1, int(length / bin_ms + 1e-9)) + 1) * bin_ms


add_dataset_kind(
    KIND,
    summary=summary,
    validate=validate,
    plot=plot_spike_slice_stack,
    functions=(
        "slices_of(ds)",
        "select_units(ds, units)",
        "select_slices(ds, slices)",
        "unit_attributes(ds)",
    ),
)
