"""Names and folders of a session that is about to be recorded."""

import re
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Literal, TypedDict

from labtree.errors import FormatError
from labtree.msw.names import (
    ACQUISITION_TYPES,
    NAMESPACE_SPEC_VERSION,
    make_acquisition_basename,
    make_container_name,
    parse_container_name,
    parse_datetime,
)

__all__ = ["SessionPaths", "generate_session_paths"]

# Narrower than what is read: ASCII, no double underscore, none at the end, no hyphen first.
_TOKEN = re.compile(r"_?[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*")


class SessionPaths(TypedDict):
    """Names and paths of a session that is about to be recorded."""

    subject: str
    datetime: datetime
    datetime_str: str
    task: str
    acq_type: str
    acq_version: int | None
    basepath: Path
    namespace_version: str
    namespace_spec_version: str
    host_session_name: str
    acquisition_name: str
    session_basename: str
    session_folder: Path
    session_folder_relative: PurePosixPath
    session_file_path: Path


def _token(value: object, what: str) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise FormatError(
            f"{what} {value!r} cannot be part of a name; expected ASCII letters and digits, "
            "joined by single '_' or '-', e.g. 'm01' or 'probabilistic_switching'"
        )
    return value


def generate_session_paths(
    subject: str,
    task: str,
    basepath: str | Path,
    *,
    layout: Literal["2025", "2026"] = "2025",
    acq_type: str = "msw",
    acq_version: int | None = None,
    session_type: str = "",
    default_subject: str = "_test_subject",
    linked_to: str | None = None,
    datetime_str: str | None = None,
) -> SessionPaths:
    """Return the names and paths of a new session; nothing is created on disk.

    Parameters
    ----------
    subject, task : str
        ASCII letters and digits, joined by single ``_`` or ``-``.
    basepath : path
        The folder that holds the subjects' folders.
    layout : {"2025", "2026"}
        "2025": ``session__{dt}__session_{task}/{subject}__{dt}__{task}``.
        "2026": ``{subject}__{dt}[__{session_type}]`` for the container and
        ``{subject}__{dt}__{acq_type}__{task}__v{N}`` for the acquisition,
        where only type "msw" has its task in the name, and not a ``_test`` task.
    acq_type, acq_version, session_type
        For the layout of 2026 only; the version is 1 unless given.
    default_subject : str
        The subject of tasks that start with ``_test``.
    linked_to : str, optional
        An existing container of this subject, to put the acquisition into.
    datetime_str : str, optional
        ``YYYYmmdd_HHMMSS_ffffff``; now, unless given. Always with microseconds.

    Returns
    -------
    SessionPaths
        ``session_folder`` is ``basepath/subject/container/acquisition``, and
        ``session_file_path`` the path in it that files' endings (``.msw.jsonl``) are
        appended to; ``session_folder_relative`` starts below `basepath`.

    Raises
    ------
    FormatError
        A part that could leave the folder, or a name that would not parse back to it.

    Examples
    --------
    >>> paths = generate_session_paths(
    ...     "m01", "gonogo", "data", datetime_str="20260514_143022_123456"
    ... )
    >>> paths["host_session_name"]
    'session__20260514_143022_123456__session_gonogo'
    >>> paths["session_basename"]
    'm01__20260514_143022_123456__gonogo'
    """
    if layout not in ("2025", "2026"):
        raise FormatError(f"layout={layout!r} is not known; expected '2025' or '2026'")
    if layout == "2025" and (acq_type != "msw" or acq_version is not None or session_type):
        raise FormatError(
            "acq_type, acq_version and session_type have no place in the names of 2025; "
            "add layout='2026'"
        )
    if acq_type not in ACQUISITION_TYPES:
        raise FormatError(f"acq_type {acq_type!r} is not one of {', '.join(ACQUISITION_TYPES)}")
    testing = isinstance(task, str) and task.startswith("_test")
    # "_test__x" is an accepted spelling; elsewhere a double underscore separates parts.
    _token(task.replace("_test__", "_test_", 1) if testing else task, "task")
    _token(subject, "subject")
    subject = _token(default_subject, "default_subject") if testing else subject
    if session_type:
        _token(session_type, "session_type")
    if datetime_str is None:
        datetime_str = datetime.now().strftime("%Y%m%d_%H%M%S_%f")
    moment, precision = parse_datetime(datetime_str)
    if precision != "v1":
        raise FormatError(
            f"datetime_str {datetime_str!r} has no microseconds; write '{datetime_str}_000000'"
        )

    if layout == "2025":
        acquisition = make_acquisition_basename(
            subject, datetime_str, task, is_legacy_acquisition=True
        )
        container = make_container_name(None, datetime_str, task=task)
    else:
        version = 1 if acq_version is None else acq_version
        if isinstance(version, bool) or not isinstance(version, int) or version < 0:
            raise FormatError(f"acq_version {acq_version!r} is not a whole number from 0")
        acq_version = version
        named = task if acq_type == "msw" and not testing else None
        acquisition = make_acquisition_basename(subject, datetime_str, named, acq_type, version)
        container = make_container_name(subject, datetime_str, session_type)
    if linked_to is not None:
        linked = parse_container_name(linked_to)["subject"]
        if linked not in (None, subject):
            raise FormatError(
                f"linked_to {linked_to!r} is a container of {linked!r}, not of {subject!r}"
            )
        container = linked_to

    basepath = Path(basepath)
    relative = PurePosixPath(subject, container, acquisition)
    return {
        "subject": subject,
        "datetime": moment,
        "datetime_str": datetime_str,
        "task": task,
        "acq_type": acq_type,
        "acq_version": acq_version,
        "basepath": basepath,
        "namespace_version": precision,
        "namespace_spec_version": NAMESPACE_SPEC_VERSION,
        "host_session_name": container,
        "acquisition_name": acquisition,
        "session_basename": acquisition,
        "session_folder": basepath / relative,
        "session_folder_relative": relative,
        "session_file_path": basepath / relative / acquisition,
    }
