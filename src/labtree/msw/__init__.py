"""Murine Shift Work: names, formats, codec, models, trial tables."""

from labtree.msw.alignment import Alignment, decode_barcodes, fit_clock
from labtree.msw.measures import align_trials
from labtree.msw.models import MswSession, ValidationResult
from labtree.msw.names import (
    generate_session_paths,
    identify_namespace_version,
    make_acquisition_basename,
    make_container_name,
    make_file_name,
    make_subject,
    parse_acquisition_basename,
    parse_container_name,
    parse_file_name,
    parse_session_basename,
    parse_subject,
)
from labtree.msw.sessions import (
    AcquisitionInfo,
    ContainerReport,
    SessionList,
    enumerate_acquisitions,
    load_acquisition,
    load_session,
    load_subject,
    validate_container,
    validate_session,
)
from labtree.msw.trees import trials_from_xarray
from labtree.msw.trial_file import TrialWriter, load_trial_data, save_trial_data
from labtree.msw.trial_table import concat_trials, trials_to_frame

__all__ = [
    "AcquisitionInfo",
    "Alignment",
    "ContainerReport",
    "MswSession",
    "SessionList",
    "TrialWriter",
    "ValidationResult",
    "align_trials",
    "concat_trials",
    "decode_barcodes",
    "enumerate_acquisitions",
    "fit_clock",
    "generate_session_paths",
    "identify_namespace_version",
    "load_acquisition",
    "load_session",
    "load_subject",
    "load_trial_data",
    "make_acquisition_basename",
    "make_container_name",
    "make_file_name",
    "make_subject",
    "parse_acquisition_basename",
    "parse_container_name",
    "parse_file_name",
    "parse_session_basename",
    "parse_subject",
    "save_trial_data",
    "trials_from_xarray",
    "trials_to_frame",
    "validate_container",
    "validate_session",
]
