"""Names of subjects, containers, acquisitions and files, taken apart and put together.

The hierarchy is subject > container (session) > acquisition > file. Names of every
era are read:

- 2025: container ``session__{datetime}__session_{task}``, acquisition
  ``{subject}__{datetime}__{task}``
- early: container ``{subject}__{datetime}__session_{task}``, acquisition
  ``{subject}__{datetime}__{task}``
- 2026: container ``{subject}__{datetime}[__{session_type}]``, acquisition
  ``{subject}__{datetime}__{acq_type}[__{task}][__v{N}]``

Files are ``{acquisition}.msw.{artifact}``. A datetime has microseconds
(``20260514_143022_123456``, precision "v1") or seconds ("legacy"); which is detected.
Reading is liberal within one rule: a name is one path component of word characters
and hyphens, so that no name leads out of its folder. What is generated must also
parse back to the same parts.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict

from labtree.errors import FormatError

NAMESPACE_SPEC_VERSION = "4.3"
ACQUISITION_TYPES = ("msw", "pxi", "photo", "video_rce", "video_flir")

_WORD = re.compile(r"[\w-]+")
_DATETIME = r"[0-9]{8}_[0-9]{6}(?:_[0-9]{6})?"
_CONTAINER = re.compile(rf"([\w-]+?)__({_DATETIME})(?:__([\w-]+))?")
_VERSION = re.compile(r"v(0|[1-9][0-9]*)")
_SUBJECT = re.compile(r"([A-Za-z]+[0-9]+)_([A-Za-z][0-9]+)((?:_[A-Za-z0-9]+)*)")


class SubjectName(TypedDict):
    """The parts of a subject's name."""

    subject_id: str
    animal_id: str
    tag_id: str | None
    fields: list[str]


class ContainerName(TypedDict):
    """The parts of a container's name; ``subject`` is None where the name has none."""

    subject: str | None
    datetime: datetime
    datetime_str: str
    session_type: str
    task: str | None
    namespace_version: str


class AcquisitionName(TypedDict):
    """The parts of an acquisition's name."""

    subject: str
    datetime: datetime
    datetime_str: str
    acq_type: str
    acq_version: int | None
    task: str | None
    namespace_version: str
    is_legacy_acquisition: bool


class SessionName(TypedDict):
    """The parts of a session's basename that every era has."""

    subject: str
    datetime: datetime
    datetime_str: str
    task: str
    namespace_version: str


class FileName(TypedDict):
    """The parts of a file's name."""

    acquisition: str
    artifact: str


def _name_error(name: object, why: str, expected: str) -> FormatError:
    return FormatError(f"{name!r}: {why}; expected {expected}")


def _parsing_back(name: str, found: Mapping[str, Any], **parts: object) -> str:
    """Return a name after checking that it parses back to the parts that it was made of."""
    got = {part: found[part] for part in parts}
    if got != parts:
        raise _name_error(name, f"would parse back as {got}", f"{parts}")
    return name


def parse_datetime(text: str, name: str | None = None) -> tuple[datetime, str]:
    """Read a name's datetime and tell its precision.

    Parameters
    ----------
    text : str
        ``YYYYmmdd_HHMMSS_ffffff`` or ``YYYYmmdd_HHMMSS``, in ASCII digits.
    name : str, optional
        The whole name that it is a part of, for the error.

    Returns
    -------
    moment : datetime.datetime
        Without a time zone: names hold the rig's local time.
    precision : str
        "v1" (microseconds) or "legacy" (seconds).

    Raises
    ------
    FormatError
        The text has another shape, or no such moment exists.

    Examples
    --------
    >>> parse_datetime("20260514_143022")
    (datetime.datetime(2026, 5, 14, 14, 30, 22), 'legacy')
    """
    expected = "YYYYmmdd_HHMMSS or YYYYmmdd_HHMMSS_ffffff"
    if not isinstance(text, str) or not re.fullmatch(_DATETIME, text):
        raise _name_error(text, "not a datetime", expected)
    precision, layout = (
        ("v1", "%Y%m%d_%H%M%S_%f") if len(text) > 15 else ("legacy", "%Y%m%d_%H%M%S")
    )
    try:
        return datetime.strptime(text, layout), precision
    except ValueError:
        raise _name_error(
            text if name is None else name,
            f"no such moment as {text[:4]}-{text[4:6]}-{text[6:8]} "
            f"{text[9:11]}:{text[11:13]}:{text[13:15]}",
            expected,
        ) from None


def parse_acquisition_basename(name: str) -> AcquisitionName:
    """Parse an acquisition's name.

    Parameters
    ----------
    name : str
        For example ``m01__20260514_143022_123456__msw__gonogo__v2``, or, in the older
        eras, ``m01__20260514_143022__gonogo``. What follows the datetime is an
        acquisition type (see `ACQUISITION_TYPES`) or else a task; a token ``v2`` is
        the version, and tokens left over belong to the task.

    Returns
    -------
    AcquisitionName
        ``subject``, ``datetime``, ``datetime_str``, ``acq_type``, ``acq_version``,
        ``task``, ``namespace_version`` and ``is_legacy_acquisition`` (no type in the
        name, so "msw" is meant).

    Raises
    ------
    FormatError
        No subject, no datetime, nothing after it, an empty part, two versions, or
        characters that a name cannot have.

    Examples
    --------
    >>> parts = parse_acquisition_basename("m01__20260514_143022_123456__msw__gonogo__v2")
    >>> parts["subject"], parts["task"], parts["acq_version"]
    ('m01', 'gonogo', 2)
    """
    expected = "{subject}__{datetime}__{type or task}, e.g. m01__20260514_143022_123456__gonogo"
    if not isinstance(name, str) or not _WORD.fullmatch(name):
        hint = ", a file's name: parse_file_name(name)" if ".msw." in str(name) else ""
        raise _name_error(name, f"not a name of word characters and hyphens{hint}", expected)
    parts = name.split("__")
    place = next((i for i, part in enumerate(parts) if re.fullmatch(_DATETIME, part)), None)
    if place is None:
        raise _name_error(name, "no datetime between double underscores", expected)
    moment, precision = parse_datetime(parts[place], name)
    subject, tail = "__".join(parts[:place]), parts[place + 1 :]
    if not subject:
        raise _name_error(name, "no subject before the datetime", expected)
    if not tail or not all(tail):
        raise _name_error(name, "an empty part, or nothing, after the datetime", expected)
    legacy = tail[0] not in ACQUISITION_TYPES
    rest = tail if legacy else tail[1:]
    versions = [int(part[1:]) for part in rest if _VERSION.fullmatch(part)]
    task = "__".join(part for part in rest if not _VERSION.fullmatch(part))
    if len(versions) > 1:
        raise _name_error(name, f"{len(versions)} versions", "one at most")
    if legacy and not task:
        raise _name_error(name, "a version, but neither a type nor a task", expected)
    return {
        "subject": subject,
        "datetime": moment,
        "datetime_str": parts[place],
        "acq_type": "msw" if legacy else tail[0],
        "acq_version": versions[0] if versions else None,
        "task": task or None,
        "namespace_version": precision,
        "is_legacy_acquisition": legacy,
    }


def parse_session_basename(basename: str) -> SessionName:
    """Parse a session's basename, of any era.

    Parameters
    ----------
    basename : str
        The acquisition's name, without ``.msw.`` and what follows.

    Returns
    -------
    SessionName
        ``subject``, ``datetime``, ``datetime_str``, ``task`` (or the acquisition's type,
        where the name has no task) and ``namespace_version``: "v1" for a datetime with
        microseconds, "legacy" for one with seconds.

    Raises
    ------
    FormatError
        As in `parse_acquisition_basename`.

    Examples
    --------
    >>> parse_session_basename("m01__20260514_143022__gonogo")["namespace_version"]
    'legacy'
    """
    parts = parse_acquisition_basename(basename)
    return {
        "subject": parts["subject"],
        "datetime": parts["datetime"],
        "datetime_str": parts["datetime_str"],
        "task": parts["task"] or parts["acq_type"],
        "namespace_version": parts["namespace_version"],
    }


def make_acquisition_basename(
    subject: str,
    datetime_str: str,
    task: str | None = None,
    acq_type: str = "msw",
    acq_version: int | None = None,
    *,
    is_legacy_acquisition: bool = False,
) -> str:
    """Make an acquisition's name: the inverse of `parse_acquisition_basename`.

    Parameters
    ----------
    subject, datetime_str, task, acq_type, acq_version
        The parts.
    is_legacy_acquisition : bool
        Whether the name has no type; it needs a task then.

    Returns
    -------
    str
        A name that parses back to exactly these parts.

    Raises
    ------
    FormatError
        The parts do not give such a name.

    Examples
    --------
    >>> make_acquisition_basename("m01", "20260514_143022_123456", "gonogo", acq_version=1)
    'm01__20260514_143022_123456__msw__gonogo__v1'
    """
    parts = [subject, datetime_str]
    if not is_legacy_acquisition:
        parts.append(acq_type)
    if task is not None:
        parts.append(task)
    if acq_version is not None:
        parts.append(f"v{acq_version}")
    name = "__".join(map(str, parts))
    return _parsing_back(
        name,
        parse_acquisition_basename(name),
        subject=subject,
        datetime_str=datetime_str,
        task=task,
        acq_type=acq_type,
        acq_version=acq_version,
        is_legacy_acquisition=is_legacy_acquisition,
    )


def parse_container_name(name: str) -> ContainerName:
    """Parse the name of a container (a session's folder), of any era.

    Parameters
    ----------
    name : str
        ``session__{datetime}__session_{task}``, ``{subject}__{datetime}__session_{task}``
        or ``{subject}__{datetime}[__{session_type}]``.

    Returns
    -------
    ContainerName
        ``subject`` (None in the first form), ``datetime``, ``datetime_str``,
        ``session_type`` ("" if none), ``task`` (None in the last form) and
        ``namespace_version``.

    Raises
    ------
    FormatError
        The name has none of these forms.

    Examples
    --------
    >>> parse_container_name("session__20260514_143022_123456__session_gonogo")["task"]
    'gonogo'
    """
    match = _CONTAINER.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise _name_error(
            name,
            "not a container's name",
            "session__{datetime}__session_{task} or {subject}__{datetime}[__{session_type}]",
        )
    subject, datetime_str, session_type = match[1], match[2], match[3] or ""
    moment, precision = parse_datetime(datetime_str, name)
    task = None
    if session_type.startswith("session_") and session_type != "session_":
        task, session_type = session_type.removeprefix("session_"), ""
    return {
        "subject": None if task and subject == "session" else subject,
        "datetime": moment,
        "datetime_str": datetime_str,
        "session_type": session_type,
        "task": task,
        "namespace_version": precision,
    }


def make_container_name(
    subject: str | None, datetime_str: str, session_type: str = "", task: str | None = None
) -> str:
    """Make a container's name: the inverse of `parse_container_name`.

    Parameters
    ----------
    subject : str or None
        None writes ``session``, and needs a task.
    datetime_str, session_type, task
        The other parts; a name has a session type or a task, not both.

    Returns
    -------
    str
        A name that parses back to exactly these parts.

    Raises
    ------
    FormatError
        The parts do not give such a name.

    Examples
    --------
    >>> make_container_name(None, "20260514_143022_123456", task="gonogo")
    'session__20260514_143022_123456__session_gonogo'
    """
    parts = ["session" if subject is None else subject, datetime_str]
    if session_type:
        parts.append(session_type)
    if task is not None:
        parts.append(f"session_{task}")
    name = "__".join(map(str, parts))
    return _parsing_back(
        name,
        parse_container_name(name),
        subject=subject,
        datetime_str=datetime_str,
        session_type=session_type,
        task=task,
    )


def parse_file_name(name: str) -> FileName:
    """Split a file's name at its last ``.msw.``.

    Parameters
    ----------
    name : str
        A file's name without its folder.

    Returns
    -------
    FileName
        ``acquisition`` (a name, not parsed) and ``artifact``, e.g. "session.yaml".

    Raises
    ------
    FormatError
        No ``.msw.``, or a path rather than a name.

    Examples
    --------
    >>> parse_file_name("m01__20260514_143022__gonogo.msw.df.jsonl")["artifact"]
    'df.jsonl'
    """
    match = re.fullmatch(r"([\w-]+(?:\.[\w-]+)*)\.msw\.([\w-]+(?:\.[\w-]+)*)", str(name))
    if match is None:
        raise _name_error(name, "not a file's name", "{acquisition}.msw.{artifact}")
    return {"acquisition": match[1], "artifact": match[2]}


def make_file_name(acquisition: str, artifact: str) -> str:
    """Make a file's name: the inverse of `parse_file_name`.

    Parameters
    ----------
    acquisition : str
        The basename of the acquisition.
    artifact : str
        What follows it, such as ``"jsonl"``.

    Returns
    -------
    str

    Examples
    --------
    >>> make_file_name("m01__20260514_143022__gonogo", "jsonl")
    'm01__20260514_143022__gonogo.msw.jsonl'
    """
    name = f"{acquisition}.msw.{artifact}"
    parts = parse_file_name(name)
    return _parsing_back(name, parts, acquisition=acquisition, artifact=artifact)


def parse_subject(name: str) -> SubjectName:
    """Parse a subject's name: letters and digits, a letter and digits, further fields.

    Parameters
    ----------
    name : str
        The subject's name.

    Returns
    -------
    SubjectName
        A dict of ``subject_id``, ``animal_id``, ``tag_id`` and ``fields``.

    Examples
    --------
    >>> parse_subject("rat12_a3_left")
    {'subject_id': 'rat12', 'animal_id': 'a3', 'tag_id': 'left', 'fields': ['left']}
    """
    match = _SUBJECT.fullmatch(str(name))
    if match is None:
        raise _name_error(
            name, "not a subject's name", "{letters}{digits}_{letter}{digits}[_{field}...]"
        )
    fields = match[3].split("_")[1:]
    return {
        "subject_id": match[1],
        "animal_id": match[2],
        "tag_id": fields[0] if fields else None,
        "fields": fields,
    }


def make_subject(subject_id: str, animal_id: str, *fields: str) -> str:
    """Make a subject's name: the inverse of `parse_subject`.

    Parameters
    ----------
    subject_id, animal_id : str
        Letters and digits; a letter and digits.
    *fields : str
        Further fields.

    Returns
    -------
    str

    Examples
    --------
    >>> make_subject("rat12", "a3", "left")
    'rat12_a3_left'
    """
    name = "_".join((subject_id, animal_id, *fields))
    parts = parse_subject(name)
    return _parsing_back(
        name, parts, subject_id=subject_id, animal_id=animal_id, fields=list(fields)
    )


def identify_namespace_version(
    basename: str,
    process: dict[str, object] | None = None,
    manifest: dict[str, object] | None = None,
) -> tuple[str, str]:
    """Return which version of the namespace a session follows, and from where that is known.

    Parameters
    ----------
    basename : str
        The session's name.
    process, manifest : dict, optional
        The ``process`` settings and the manifest, whose stamps take precedence over the
        name.

    Returns
    -------
    version : str
        The stamp; else "4.2" for a name with a version, "legacy" for a datetime in
        seconds, "4.1" for other names that parse, "unknown" for the rest.
    source : str
        "metadata" or "inferred".

    Examples
    --------
    >>> identify_namespace_version("m01__20260514_143022__gonogo")
    ('legacy', 'inferred')
    """
    for stamped, key in ((process, "namespace_version"), (manifest, "msw_namespace_version")):
        if stamped and stamped.get(key):
            return str(stamped[key]), "metadata"
    try:
        parts = parse_acquisition_basename(basename)
    except FormatError:
        return "unknown", "inferred"
    if parts["acq_version"] is not None:
        return "4.2", "inferred"
    return ("legacy" if parts["namespace_version"] == "legacy" else "4.1"), "inferred"
