"""Which folders are sessions, of what format and name, and what that of a new one is called.

Only the names of files are read.
"""

import os
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypedDict

from labtree.errors import FormatError, MissingFileError, missing_file
from labtree.msw.manifest_files import (
    ACQUISITION_MANIFEST,
    SESSION_MANIFEST,
)
from labtree.msw.session_names import (
    ACQUISITION_TYPES,
    NAMESPACE_SPEC_VERSION,
    make_acquisition_basename,
    make_container_name,
    parse_acquisition_basename,
    parse_container_name,
    parse_datetime,
)
from labtree.storage.arguments import integer

ArtifactFormat = Literal["session_yaml", "separate_json", "legacy", "manifest"]
MANIFESTS = (SESSION_MANIFEST, ACQUISITION_MANIFEST)
JSONL = (".msw.df.jsonl", ".msw.jsonl", ".df.jsonl")
PICKLES = (".msw.df.pkl", ".df.pkl", ".pkl")
LOGS = (".msw.csv", "switching.csv")


class Listing(NamedTuple):
    """A folder's regular files by name, and its links that lead to nothing."""

    names: list[str]
    dangling: list[str]


def list_folder(folder: Path) -> Listing:
    """List a folder; hidden files, such as the "._" twins of macOS, and pipes are skipped."""
    names: list[str] = []
    dangling: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                names.append(entry.name)
            elif entry.is_symlink() and not Path(entry.path).exists():
                dangling.append(entry.name)
    return Listing(sorted(names), sorted(dangling))


def check_folder(folder: Path, expected: str = "") -> None:
    """Raise an error unless a folder is there; its message ends in what was expected.

    Raises
    ------
    MissingFileError
        There is nothing, or a file.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise MissingFileError(f"{folder}: a file, not a folder{expected}")
    raise missing_file(f"{folder}: no such folder{expected}", folder)


def ending(names: list[str], *endings: str) -> list[str]:
    """Return the names that end in one of some endings, those of the first ending first."""
    found = [name for ending in endings for name in names if name.endswith(ending)]
    return list(dict.fromkeys(found))


def detect_format(names: list[str]) -> ArtifactFormat | None:
    """Return the format of a folder from the names in it; None if it is no session.

    Examples
    --------
    >>> detect_format(["m01__20260514_143022__gonogo.msw.jsonl"])
    'session_yaml'
    """
    if any(".msw.session.yaml" in name for name in names):
        return "session_yaml"
    if any(name in MANIFESTS for name in names):
        return "manifest"
    if any(".msw.settings.process.json" in name for name in names):
        return "separate_json"
    if ending(names, *JSONL):
        return "session_yaml"
    if ending(names, "task_settings.py", ".msw.settings.task.json", "switching.pkl", *LOGS):
        return "legacy"
    if any(".msw." in name or _parses(name) for name in ending(names, ".pkl")):
        return "legacy"
    return None


def has_all_files(names: list[str]) -> bool:
    """Return whether a session's trials and settings are there, by the names of its files."""
    if not ending(names, *JSONL, *PICKLES):
        return False
    if ending(names, ".msw.session.yaml", "task_settings.py"):
        return True
    settings = (".msw.settings.process.json", ".msw.settings.task.json")
    return all(ending(names, each) for each in settings)


def session_basename(folder: Path, names: list[str]) -> str:
    """Return the name of a session, from the names of its files.

    It stands before ``.msw.`` in the name of its ``.msw.session.yaml``, or else in the
    shortest of all names, those that parse first. It is the folder's name without such a
    file, and where all of them begin with it, as those of subprotocols do.
    """
    marked = ending(names, ".msw.session.yaml") or [name for name in names if ".msw." in name]
    found = {name.partition(".msw.")[0] for name in marked}
    if _parses(folder.name) and all(name.startswith(folder.name) for name in found):
        return folder.name
    return min(
        found, key=lambda name: (not _parses(name), len(name), name), default=folder.name
    )


class Identity(NamedTuple):
    """The parts of a session's name, "" for each that it does not have."""

    subject: str = ""
    datetime_str: str = ""
    acq_type: str = ""
    namespace_version: str = ""
    task: str = ""


def identify(basename: str) -> Identity:
    """Return the parts of a session's name; all are empty where it does not parse."""
    try:
        parts = parse_acquisition_basename(basename)
    except FormatError:
        return Identity()
    return Identity(
        parts["subject"],
        parts["datetime_str"],
        parts["acq_type"],
        parts["namespace_version"],
        parts["task"] or "",
    )


def _parses(name: str) -> bool:
    return bool(identify(name.split(".")[0]).datetime_str)


def is_container(folder: Path) -> bool:
    """Return whether a folder is a container, by its manifest or its name."""
    if (folder / SESSION_MANIFEST).is_file():
        return True
    with suppress(FormatError):
        parse_container_name(folder.absolute().name)
        return True
    return False


def is_session_folder(folder: Path) -> bool:
    """Return whether a folder holds a session's files, not only acquisitions' folders."""
    found = detect_format(list_folder(folder).names)
    return found is not None and not (found == "manifest" and acquisition_folders(folder))


def acquisition_folders(folder: Path) -> list[Path]:
    """Return the folders in a container that are acquisitions, by name or by content."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_dir()
        and not path.name.startswith(".")
        and (_parses(path.name) or detect_format(list_folder(path).names) is not None)
    ]


# --- the folder of a new session -----------------------------------------------------------

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
        given = 1 if acq_version is None else acq_version
        acq_version = integer("acq_version", given, 0, error=FormatError)
        named = task if acq_type == "msw" and not testing else None
        acquisition = make_acquisition_basename(
            subject, datetime_str, named, acq_type, acq_version
        )
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
