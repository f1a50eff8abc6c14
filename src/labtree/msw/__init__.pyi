"""Murine Shift Work: names, formats, codec, models, trial tables."""

from labtree.msw.alignment import (
    align_trials as align_trials,
    decode_barcodes as decode_barcodes,
)
from labtree.msw.cameras import (
    Camera as Camera,
    CameraAcquisition as CameraAcquisition,
    detect_camera_backend as detect_camera_backend,
    load_camera_acquisition as load_camera_acquisition,
)
from labtree.msw.containers import (
    AcquisitionInfo as AcquisitionInfo,
    ContainerReport as ContainerReport,
    enumerate_acquisitions as enumerate_acquisitions,
    validate_container as validate_container,
)
from labtree.msw.manifest_files import (
    read_manifest as read_manifest,
)
from labtree.msw.manifests import (
    append_acquisition_to_session as append_acquisition_to_session,
    append_probe_insertion as append_probe_insertion,
    append_subprotocol as append_subprotocol,
    finalize_acquisition_in_session as finalize_acquisition_in_session,
    finalize_subprotocol as finalize_subprotocol,
    init_acquisition_manifest as init_acquisition_manifest,
    init_session_manifest as init_session_manifest,
    init_subject_manifest as init_subject_manifest,
    read_subject_manifest as read_subject_manifest,
    set_manifest_metadata as set_manifest_metadata,
    set_subject_metadata as set_subject_metadata,
    update_subject_manifest as update_subject_manifest,
)
from labtree.msw.session_names import (
    identify_namespace_version as identify_namespace_version,
    make_acquisition_basename as make_acquisition_basename,
    make_container_name as make_container_name,
    make_file_name as make_file_name,
    make_subject as make_subject,
    parse_acquisition_basename as parse_acquisition_basename,
    parse_container_name as parse_container_name,
    parse_file_name as parse_file_name,
    parse_session_basename as parse_session_basename,
    parse_subject as parse_subject,
)
from labtree.msw.session_folders import (
    generate_session_paths as generate_session_paths,
)
from labtree.msw.session_lists import (
    SessionList as SessionList,
    load_acquisition as load_acquisition,
    load_subject as load_subject,
)
from labtree.msw.loading import (
    MswSession as MswSession,
    load_session as load_session,
)
from labtree.msw.session_trees import (
    trials_from_xarray as trials_from_xarray,
)
from labtree.msw.trial_export import (
    load_trial_tables as load_trial_tables,
    save_trial_tables as save_trial_tables,
)
from labtree.msw.trial_file import (
    TrialWriter as TrialWriter,
    load_trial_data as load_trial_data,
    save_trial_data as save_trial_data,
)
from labtree.msw.trial_table import (
    concat_trials as concat_trials,
    trials_to_frame as trials_to_frame,
)
from labtree.msw.validation import (
    MetadataValidator as MetadataValidator,
    ValidationResult as ValidationResult,
    validate_metadata as validate_metadata,
    validate_session as validate_session,
)
