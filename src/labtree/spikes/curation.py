"""Choose the units that are good enough, with a record of why the others are not."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from labtree.errors import DataError
from labtree.objects import spike_data
from labtree.spikes.counts import firing_rates
from labtree.spikes.intervals import isi_statistics
from labtree.spikes.selection import select_units
from labtree.spikes.trains import require_kind


def curate(
    ds: xr.Dataset,
    *,
    min_spikes: int | None = None,
    min_rate_hz: float | None = None,
    max_violations: float | None = None,
    refractory_ms: float = 1.5,
    where: Any = None,
) -> tuple[xr.Dataset, pd.DataFrame]:
    """Select the units that pass some limits, and say why the others do not.

    Parameters
    ----------
    ds : Dataset
        Of the kind ``spike_data``.
    min_spikes : int, optional
        How many spikes a unit needs.
    min_rate_hz : float, optional
        The mean firing rate that a unit needs, in Hz.
    max_violations : float, optional
        The largest share of intervals shorter than `refractory_ms`.
    refractory_ms : float
        In ms.
    where : array-like of bool of shape (unit,), optional
        A mask of the caller's own, such as ``ds.quality == "good"``.

    Returns
    -------
    Dataset
        The units that pass. A value at a limit passes; NaN does not.
    DataFrame
        One row for each unit of `ds`: ``unit`` (position), ``n_spikes``, ``rate_hz``,
        ``violations``, ``kept``, and ``reason``, "" for those that are kept.

    Raises
    ------
    DataError
        A ValueError, if `where` is no mask of the units.

    Examples
    --------
    >>> import labtree
    >>> ds = labtree.spike_data([[1.0, 2.0, 9.0], [4.0]], length=1000)
    >>> good, log = labtree.spikes.curate(ds, min_spikes=2)
    >>> good.sizes["unit"], log.reason.tolist()
    (1, ['', '1 spike, fewer than 2'])
    """
    require_kind(ds, "curate", spike_data.KIND)
    counts = ds["row_size"].values
    rates = firing_rates(ds).values
    violations = isi_statistics(ds, refractory_ms)["violations"].values
    reasons: list[list[str]] = [[] for _ in range(counts.size)]

    def fails(failed: np.ndarray, text: Any) -> None:
        for unit in np.flatnonzero(failed).tolist():
            reasons[unit].append(text(unit))

    if min_spikes is not None:
        fails(
            ~(counts >= min_spikes),
            lambda unit: f"{_spikes(int(counts[unit]))}, fewer than {min_spikes}",
        )
    if min_rate_hz is not None:
        fails(
            ~(rates >= min_rate_hz),
            lambda unit: (
                "the rate is NaN: the recording has no length"
                if np.isnan(rates[unit])
                else f"{rates[unit]:.4g} Hz, below {min_rate_hz:g} Hz"
            ),
        )
    if max_violations is not None:
        fails(
            ~(violations <= max_violations),
            lambda unit: (
                "violations are NaN: no interval"
                if np.isnan(violations[unit])
                else f"{violations[unit]:.4g} of the intervals below {refractory_ms:g} ms, "
                f"more than {max_violations:g}"
            ),
        )
    if where is not None:
        mask = np.asarray(where)
        if mask.dtype != bool or mask.shape != counts.shape:
            raise DataError(
                f"where must be a mask with one bool for each of {counts.size} units, found "
                f"dtype {mask.dtype} and shape {mask.shape}"
            )
        fails(~mask, lambda unit: "where is False")
    log = pd.DataFrame(
        {
            "unit": np.arange(counts.size),
            "n_spikes": counts,
            "rate_hz": rates,
            "violations": violations,
            "kept": np.array([not reason for reason in reasons], bool),
            "reason": pd.Series(["; ".join(reason) for reason in reasons], dtype="str"),
        }
    )
    return select_units(ds, log["kept"].to_numpy()), log


def _spikes(count: int) -> str:
    return "1 spike" if count == 1 else f"{count} spikes"
