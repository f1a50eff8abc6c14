"""Steps and features for CMOS-MEA recordings."""

from labtree._lazy import attach_stub as _attach_stub
from labtree.pipeline import declare_dimensions as _declare_dimensions
from labtree.pipeline import declare_steps as _declare_steps

__getattr__, __dir__, __all__ = _attach_stub(__name__, __file__)

_declare_steps(
    "labtree.mea",
    ["load_recording", "load_recording_with_eimage_sta", "add_section_time",
     "section_spike_times", "compute_sta", "extract_features"],
)  # fmt: skip
_declare_dimensions(
    {
        "waveform": ("waveform_sample",),
        "firing_rate_10hz": ("time_10hz",),
        "frame_timestamps": ("frame",),
        "frame_time": ("frame",),
        "default": ("frame",),  # of frame_times
        "raw_ch*": ("sample",),
        "1khz_ch*": ("sample_1khz",),
        "10hz_ch*": ("sample_10hz",),
    }
)
