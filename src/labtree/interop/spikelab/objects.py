"""Objects of SpikeLab as labtree's; its classes are recognized by their attributes."""

from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import DataError
from labtree.interop.spikelab.read import SpikeLabWorkspace, build_workspace, raw_traces
from labtree.interop.workspaces import Item, keep_problems
from labtree.objects.pairwise import pairwise_matrix, pairwise_stack
from labtree.objects.rate_data import rate_data
from labtree.objects.rate_slice_stack import rate_slice_stack
from labtree.objects.spike_data import spike_data
from labtree.objects.spike_slice_stack import spike_slice_stack

_EXPECTED = (
    "SpikeData, RateData, RateSliceStack, SpikeSliceStack, PairwiseCompMatrix, "
    "PairwiseCompMatrixStack or AnalysisWorkspace"
)


def from_spikelab(obj: Any) -> Any:
    """Return labtree's form of an object of SpikeLab.

    Parameters
    ----------
    obj : SpikeData, RateData, RateSliceStack, SpikeSliceStack, PairwiseCompMatrix, \
PairwiseCompMatrixStack, AnalysisWorkspace, or dict of these
        It is recognized by its attributes, whatever its class.

    Returns
    -------
    Dataset, DataTree or dict
        A workspace for an AnalysisWorkspace, with its id, times and notes.

    Raises
    ------
    DataError
        A ValueError, if this is none of them.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> theirs = SimpleNamespace(
    ...     train=[np.array([1.0, 2.0])],
    ...     N=1,
    ...     start_time=0.0,
    ...     length=5.0,
    ...     neuron_attributes=None,
    ...     metadata={},
    ...     raw_data=np.empty((0, 0)),
    ...     raw_time=np.empty(0),
    ... )
    >>> from_spikelab(theirs).sizes["unit"]
    1
    """
    if isinstance(obj, dict):
        return {key: _or_itself(value) for key, value in obj.items()}
    found = set(dir(obj))
    attributes = getattr(obj, "neuron_attributes", None)
    metadata = getattr(obj, "metadata", None)
    if {"train", "start_time", "length"} <= found:
        return _spike_data(obj)
    if {"inst_Frate_data", "times"} <= found:
        unit = getattr(obj, "rate_unit", None)
        return rate_data(
            obj.inst_Frate_data, obj.times, unit=unit, neuron_attributes=attributes
        )
    if {"event_stack", "times", "step_size"} <= found:
        return rate_slice_stack(
            obj.event_stack, obj.times, step_size=obj.step_size, neuron_attributes=attributes
        )
    if {"spike_stack", "times"} <= found:
        slices = [_spike_data(part) for part in obj.spike_stack]
        return spike_slice_stack(slices, obj.times, neuron_attributes=attributes)
    if {"matrix", "labels"} <= found:
        return pairwise_matrix(obj.matrix, labels=obj.labels, metadata=metadata)
    if {"stack", "labels", "times"} <= found:
        return pairwise_stack(obj.stack, labels=obj.labels, times=obj.times, metadata=metadata)
    if {"workspace_id", "list_namespaces", "list_keys", "get", "get_info"} <= found:
        return _workspace(obj)
    raise DataError(f"from_spikelab takes a {_EXPECTED}, found {type(obj).__name__}")


def _spike_data(obj: Any) -> xr.Dataset:
    # SpikeLab has empty arrays where there are none.
    data: Any = getattr(obj, "raw_data", ())
    time: Any = getattr(obj, "raw_time", ())
    raw_data, raw_time = raw_traces(
        data if np.size(data) else None, time if np.size(time) else None
    ) or (None, None)
    return spike_data(
        obj.train,
        length=obj.length,
        start_time=obj.start_time,
        n_units=getattr(obj, "N", None),
        neuron_attributes=getattr(obj, "neuron_attributes", None),
        metadata=getattr(obj, "metadata", None),
        raw_data=raw_data,
        raw_time=raw_time,
    )


def _or_itself(value: Any) -> Any:
    try:
        return from_spikelab(value)
    except DataError:
        # Only what looks like one of theirs and is damaged may fail; all else is a value.
        if type(value).__module__.partition(".")[0] == "spikelab":
            raise
        return value


def _workspace(obj: Any) -> xr.DataTree:
    items = []
    for namespace in obj.list_namespaces():
        for key in obj.list_keys(namespace):
            info = obj.get_info(namespace, key) or {}
            value = _or_itself(obj.get(namespace, key))
            source = f"/{namespace}/{key}"
            items.append(
                Item(namespace, key, value, info.get("created_at"), info.get("note"), source)
            )
    found = SpikeLabWorkspace(obj.workspace_id, obj.name, obj.created_at, items, [])
    tree, problems = build_workspace(found)
    text = "the workspace of SpikeLab: not everything could be kept as it should be"
    keep_problems(tree, problems, text, attribute="spikelab_problems")
    return tree
