"""A neurophysiology lab's data as xarray trees and pandas tables.

Importing labtree registers its accessors (``.ws``, ``.session``, ``.msw``) on
xarray and pandas objects. The functions are loaded when they are first used, so
that the import itself stays quick.
"""

from importlib import import_module
from typing import Any

from labtree.errors import (
    CheckpointError,
    ConfigurationError,
    FormatError,
    LabtreeError,
    SessionError,
    WorkspaceError,
)

__version__ = "0.1.0"

# Public name -> the module that defines it; a name equal to its module is that module.
_HOMES: dict[str, str] = {
    "spike_data": "labtree.objects.spike_data",
    "rate_data": "labtree.objects.rate_data",
    "rate_slice_stack": "labtree.objects.rate_slice_stack",
    "spike_slice_stack": "labtree.objects.spike_slice_stack",
    "slices_of": "labtree.objects.spike_slice_stack",
    "pairwise_matrix": "labtree.objects.pairwise",
    "pairwise_stack": "labtree.objects.pairwise",
    "matrix_values": "labtree.objects.pairwise",
    "unit_attributes": "labtree.objects.unit_attributes",
    "trains": "labtree.objects.spike_trains",
    "unit_train": "labtree.objects.spike_trains",
    "select_units": "labtree.objects.spike_trains",
    "select_time": "labtree.objects.spike_trains",
    "spike_counts": "labtree.objects.spike_trains",
    "binned_spike_counts": "labtree.objects.spike_trains",
    "concatenate_time": "labtree.objects.spike_trains",
    "concatenate_units": "labtree.objects.spike_trains",
    "import_spikelab": "labtree.interop.spikelab",
    "from_spikelab": "labtree.interop.spikelab_objects",
    "export_spikelab": "labtree.interop.spikelab_export",
    "to_pynapple": "labtree.interop.pynapple",
    "from_pynapple": "labtree.interop.pynapple",
    "to_neo": "labtree.interop.neo",
    "from_neo": "labtree.interop.neo",
    "export_nwb": "labtree.interop.nwb",
}

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "FormatError",
    "LabtreeError",
    "SessionError",
    "WorkspaceError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'labtree' has no attribute {name!r}")
    module = import_module(home)
    value = module if home == f"labtree.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
