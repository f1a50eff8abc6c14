"""Steps and features for CMOS-MEA recordings."""

from importlib import import_module
from typing import Any

_HOMES = {
    "DictAdapter": "adapters",
    "compute_sta": "sta",
    "add_section_time": "sections",
    "extract_features": "registry",
    "full_spike_times": "trials",
    "list_features": "registry",
    "load_recording": "recording",
    "load_recording_with_eimage_sta": "electrical_image",
    "plot_electrical_image": "plots",
    "plot_raster": "plots",
    "plot_sta": "plots",
    "register_extractor": "adapters",
    "register_feature": "registry",
    "run_batch": "labtree.pipeline.batch",
    "section_spike_times": "trials",
    "to_physical": "recording",
    "trials_spike_times": "trials",
}

__all__ = [
    "DictAdapter",
    "add_section_time",
    "compute_sta",
    "extract_features",
    "full_spike_times",
    "list_features",
    "load_recording",
    "load_recording_with_eimage_sta",
    "plot_electrical_image",
    "plot_raster",
    "plot_sta",
    "register_extractor",
    "register_feature",
    "run_batch",
    "section_spike_times",
    "to_physical",
    "trials_spike_times",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'labtree.mea' has no attribute {name!r}")
    module = home if "." in home else f"labtree.mea.{home}"
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
