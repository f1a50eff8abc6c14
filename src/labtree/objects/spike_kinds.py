"""The kinds of SpikeLab, and for each what can be asked of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import xarray as xr

from labtree.objects import (
    pairwise,
    rate_data,
    rate_slice_stack,
    spike_data,
    spike_plots,
    spike_slice_stack,
)

__all__ = ["KINDS", "SpikeKind"]


class SpikeKind(NamedTuple):
    """What the registry of kinds needs to know about one kind of Dataset."""

    validate: Callable[[xr.Dataset], None]
    summary: Callable[[xr.Dataset], dict[str, Any]]
    plot: Callable[..., Any]


KINDS: dict[str, SpikeKind] = {
    spike_data.KIND: SpikeKind(
        spike_data.validate, spike_data.summary, spike_plots.plot_spike_data
    ),
    rate_data.KIND: SpikeKind(
        rate_data.validate, rate_data.summary, spike_plots.plot_rate_data
    ),
    rate_slice_stack.KIND: SpikeKind(
        rate_slice_stack.validate,
        rate_slice_stack.summary,
        spike_plots.plot_rate_slice_stack,
    ),
    spike_slice_stack.KIND: SpikeKind(
        spike_slice_stack.validate,
        spike_slice_stack.summary,
        spike_plots.plot_spike_slice_stack,
    ),
    pairwise.MATRIX: SpikeKind(
        pairwise.validate_matrix, pairwise.summary, spike_plots.plot_pairwise_matrix
    ),
    pairwise.STACK: SpikeKind(
        pairwise.validate_stack, pairwise.summary, spike_plots.plot_pairwise_stack
    ),
}
