"""Steps and features for CMOS-MEA recordings."""

from labtree.mea.adapters import (
    DictAdapter as DictAdapter,
    register_extractor as register_extractor,
)
from labtree.mea.electrical_image import (
    load_recording_with_eimage_sta as load_recording_with_eimage_sta,
)
from labtree.mea.features import (
    extract_features as extract_features,
    list_features as list_features,
)
from labtree.mea.lab import (
    lab_paths as lab_paths,
    use_lab as use_lab,
)
from labtree.mea.movie_trials import (
    section_spike_times as section_spike_times,
)
from labtree.mea.playlists import (
    add_section_time as add_section_time,
)
from labtree.mea.unit_plots import (
    plot_electrical_image as plot_electrical_image,
    plot_raster as plot_raster,
    plot_sta as plot_sta,
)
from labtree.mea.recording import (
    load_recording as load_recording,
    to_physical as to_physical,
)
from labtree.mea.feature_registry import (
    register_feature as register_feature,
)
from labtree.mea.sta import (
    compute_sta as compute_sta,
)
from labtree.pipeline.batch import (
    run_batch as run_batch,
)
from labtree.pipeline.sections import (
    full_spike_times as full_spike_times,
    trials_spike_times as trials_spike_times,
)
