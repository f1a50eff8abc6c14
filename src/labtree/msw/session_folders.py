"""Which folders are sessions, of what format and name; only names of files are read."""

import os
from pathlib import Path
from typing import NamedTuple

from labtree.errors import FormatError, MissingFileError, missing_file
from labtree.msw.manifest_files import (
    ACQUISITION_MANIFEST,
    SESSION_MANIFEST,
)
from labtree.msw.models import ArtifactFormat
from labtree.msw.names import parse_acquisition_basename

__all__ = [
    "JSONL",
    "LOGS",
    "MANIFESTS",
    "PICKLES",
    "Identity",
    "Listing",
    "acquisition_folders",
    "check_folder",
    "detect_format",
    "ending",
    "has_all_files",
    "identify",
    "is_session_folder",
    "list_folder",
    "session_basename",
]

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
    """Return the names that end in one of some endings."""
    return [name for ending in endings for name in names if name.endswith(ending)]


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
    try:
        parse_acquisition_basename(name.split(".")[0])
    except FormatError:
        return False
    return True


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
