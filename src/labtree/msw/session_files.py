"""A session's folder, of any of the four formats, into settings, trials and notes."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

import pandas as pd

from labtree.errors import FormatError, MissingFileError
from labtree.msw.log import read_log, recover_from_log
from labtree.msw.models import ArtifactFormat
from labtree.msw.names import parse_acquisition_basename
from labtree.msw.pickles import read_frame_pickle
from labtree.msw.settings import read_json, read_python_literals, read_yaml
from labtree.msw.trial_file import read_trial_frame
from labtree.msw.trial_table import (
    RESTORED,
    START,
    concat_trials,
    nested_frame,
    trials_from_nested,
    trials_to_frame,
)

__all__ = ["Contents", "detect_format", "is_session_folder", "read_folder"]

SESSION_YAML_VERSION = 2
_MANIFESTS = ("session_manifest.yaml", "acquisition_manifest.yaml")
_HOSTS = ("host_session", "host_acquisition", "parent_acquisition")
_JSONL = (".msw.df.jsonl", ".msw.jsonl", ".df.jsonl")
_PICKLES = (".msw.df.pkl", ".df.pkl", ".pkl")
T = TypeVar("T")


@dataclass
class Contents:
    """What a folder holds; `notes` tell what was lost, `source_files` what was read."""

    artifact_format: ArtifactFormat
    frame: pd.DataFrame | None = None
    task: dict[str, Any] | None = None
    process: dict[str, Any] | None = None
    stage: dict[str, Any] | None = None
    ephys: dict[str, Any] | None = None
    subprotocols: list[dict[str, Any]] | None = None
    metadata: dict[str, Any] | None = None
    manifest: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def _names(folder: Path) -> list[str]:
    """List a folder's files; whatever else is called like one, a pipe say, is none."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_file())


def _ending(names: list[str], *endings: str) -> list[str]:
    return [name for ending in endings for name in names if name.endswith(ending)]


def detect_format(names: list[str]) -> ArtifactFormat | None:
    """Tell the format of a folder from the names in it; None if it is no session.

    Examples
    --------
    >>> detect_format(["m01__20260514_143022__gonogo.msw.jsonl"])
    'session_yaml'
    """
    if any(".msw.session.yaml" in name for name in names):
        return "session_yaml"
    if any(name in _MANIFESTS for name in names):
        return "manifest"
    if any(".msw.settings.process.json" in name for name in names):
        return "separate_json"
    if _ending(names, *_JSONL):
        return "session_yaml"
    if _ending(names, "task_settings.py", ".msw.settings.task.json", ".msw.csv"):
        return "legacy"
    if any(".msw." in name or _parses(name) for name in _ending(names, ".pkl")):
        return "legacy"
    return None


def _parses(name: str) -> bool:
    try:
        parse_acquisition_basename(name.split(".")[0])
    except FormatError:
        return False
    return True


def is_session_folder(folder: Path) -> bool:
    """Tell whether a folder holds a session's files, not only acquisitions' folders."""
    names = _names(folder)
    return detect_format(names) is not None and not (
        detect_format(names) == "manifest" and acquisition_folders(folder)
    )


def acquisition_folders(folder: Path) -> list[Path]:
    """Give the folders in a container that are acquisitions, by name or by content."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_dir()
        and not path.name.startswith(".")
        and (_parses(path.name) or detect_format(_names(path)) is not None)
    ]


def read_folder(folder: Path, *, nested: bool = False) -> Contents:
    """Read everything in a session's folder; damage costs only what is damaged.

    Raises
    ------
    MissingFileError
        There is no such folder.
    FormatError
        It holds no session, or nothing of it can be read.
    """
    if not folder.is_dir():
        found = "a file, not a folder" if folder.exists() else "no such folder"
        raise MissingFileError(f"{folder}: {found}; expected a session's folder")
    names = _names(folder)
    artifact_format = detect_format(names)
    # A manifest alone may be a session's or a container's.
    unsure = artifact_format in (None, "manifest")
    inside = acquisition_folders(folder) if unsure else []
    if artifact_format is None or inside:
        if inside:
            raise FormatError(
                f"{folder}: a container of {len(inside)} acquisitions, not a session; write "
                f"load_acquisition({str(folder)!r}), or load_session of {inside[0].name!r}"
            )
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise FormatError(
            f"{folder}: no session; expected files such as *.msw.session.yaml, *.msw.jsonl, "
            f"*.msw.settings.process.json or *task_settings.py, found {shown or 'nothing'}"
        )
    contents = Contents(artifact_format)
    _read_settings(contents, folder, names)
    _read_manifests(contents, folder, names)
    _read_trials(contents, folder, names, nested)
    if contents.failures:
        read = (contents.frame, contents.task, contents.process, contents.manifest)
        if all(part is None for part in read):
            raise FormatError("\n".join(contents.failures))
        contents.notes = contents.failures + contents.notes
    return contents


def _attempt(contents: Contents, read: Callable[[Path], T], path: Path) -> T | None:
    """Read one file; a file that cannot be read must not cost the others."""
    try:
        return read(path)
    except (FormatError, OSError) as error:
        contents.failures.append(str(error))
        return None


def _one(contents: Contents, folder: Path, found: list[str]) -> Path | None:
    """Give the one file meant: named as its folder, or the first; and tell of the others."""
    if not found:
        return None
    own = [name for name in found if name.startswith(folder.name)]
    chosen = (own or found)[0]
    if len(found) > 1:
        others = ", ".join(name for name in found if name != chosen)
        contents.notes.append(f"{folder}: read {chosen}, and not {others}")
    return folder / chosen


# --- settings --------------------------------------------------------------------------


def _read_settings(contents: Contents, folder: Path, names: list[str]) -> None:
    path = _one(contents, folder, _ending(names, ".msw.session.yaml"))
    if path is not None:
        read = _attempt(contents, read_yaml, path)
        if read is not None:
            contents.notes += read[1]
            _take_session_yaml(contents, path, read[0])
    if contents.artifact_format != "session_yaml":
        _read_json_settings(contents, folder, names)
    if contents.artifact_format == "legacy" and contents.task is None:
        path = _one(contents, folder, _ending(names, "task_settings.py"))
        literals = None if path is None else _attempt(contents, read_python_literals, path)
        if literals is not None:
            contents.task, notes = literals
            contents.notes += notes


def _take_session_yaml(contents: Contents, path: Path, content: dict[str, Any]) -> None:
    version = content.get("msw_format_version")
    if str(version) != str(SESSION_YAML_VERSION):
        contents.failures.append(
            f"{path}: says format version {version!r}, and this reader knows "
            f"{SESSION_YAML_VERSION}; its settings are not read"
        )
        return
    sections = ("process", "task_settings", "stage", "metadata", *_HOSTS)
    found: dict[str, Any] = {}
    for name in sections:
        value = content.get(name)
        if isinstance(value, dict):
            found[name] = value
        elif value is not None:
            contents.notes.append(
                f"{path}: section {name!r} is a {type(value).__name__}, not a mapping; left out"
            )
    contents.process, contents.task = found.get("process"), found.get("task_settings")
    contents.stage, contents.metadata = found.get("stage"), found.get("metadata")
    # An empty block of a host stands for none.
    host = next((found[name] for name in _HOSTS if found.get(name)), None)
    if host is not None:
        contents.ephys = {
            "session_name"
            if key == "acquisition_name" and "session_name" not in host
            else key: v
            for key, v in host.items()
        }


def _read_json_settings(contents: Contents, folder: Path, names: list[str]) -> None:
    others: dict[str, Any] = {}
    for name in names:
        _, marked, kind = name.rpartition(".msw.settings")
        if not marked or not (kind == "" or kind.endswith(".json")):
            continue
        kind = kind.removesuffix(".json").removeprefix(".") if kind else "task"
        read = _attempt(contents, read_json, folder / name)
        if read is None:
            continue
        # Older files: ".msw.settings.json" is the process's, ".msw.settings" the task's.
        kind = kind or "process"
        if kind in ("task", "process", "stage", "ephys"):
            if getattr(contents, kind) is None or name.endswith(f"{kind}.json"):
                setattr(contents, kind, read)
        else:
            others[kind] = read
    if others:
        contents.metadata = {"settings": others} | (contents.metadata or {})


def _read_manifests(contents: Contents, folder: Path, names: list[str]) -> None:
    merged: dict[str, Any] = {}
    for name in _MANIFESTS:
        read = _attempt(contents, read_yaml, folder / name) if name in names else None
        if read is None:
            continue
        manifest, notes = read
        contents.notes += notes
        version = manifest.get("msw_manifest_version", 1)
        if version != 1:
            contents.failures.append(
                f"{folder / name}: says manifest version {version!r}, and this reader knows 1; "
                "it is not read"
            )
            continue
        contents.manifest = manifest
        if isinstance(manifest.get("metadata"), dict):
            merged |= manifest["metadata"]
        entries = manifest.get("subprotocols")
        if entries is None:
            continue
        if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
            contents.subprotocols = entries
        else:
            contents.notes.append(
                f"{folder / name}: subprotocols are no list of mappings; left out"
            )
    if merged:
        contents.metadata = merged | (contents.metadata or {})


# --- trials ----------------------------------------------------------------------------


def _read_trials(contents: Contents, folder: Path, names: list[str], nested: bool) -> None:
    log = _ending(names, ".msw.csv")

    def read(path: Path) -> pd.DataFrame:
        if path.suffix == ".pkl":
            return _frame_of_pickle(path, nested)
        recover = recover_from_log(folder / log[0]) if len(log) == 1 else None
        frame, notes = read_trial_frame(path, nested=nested, recover=recover)
        contents.notes.extend(notes)
        return frame

    frames: dict[str, pd.DataFrame] = {}
    for number, entry in enumerate(contents.subprotocols or []):
        name = str(entry.get("name", number))
        path = _inside(contents, folder, name, entry.get("file"))
        frame = None if path is None else _attempt(contents, read, path)
        if frame is not None and len(frame):
            frames[name if name not in frames else f"{name} ({number})"] = frame
    if frames:
        contents.frame = (
            pd.concat(
                [frame.assign(subprotocol=name) for name, frame in frames.items()],
                ignore_index=True,
            )
            if nested
            else concat_trials(frames, column="subprotocol")
        )
        return
    path = _one(contents, folder, _preferred(names, _JSONL) or _preferred(names, _PICKLES))
    frame = None if path is None else _attempt(contents, read, path)
    if (frame is None or not len(frame)) and len(log) == 1:
        frame = _attempt(
            contents, lambda path: _frame_of_log(contents, path, nested), folder / log[0]
        )
    contents.frame = frame if frame is not None and len(frame) else None


def _frame_of_log(contents: Contents, path: Path, nested: bool) -> pd.DataFrame | None:
    """Give what the log has of all trials, where there is no trial file to be read."""
    trials = [trial | {RESTORED: True} for trial in read_log(path)]
    if not trials:
        return None
    contents.notes.append(
        f"{path}: {len(trials)} trials restored from the log, for want of a trial file; it "
        "has states, events, starts and ends, and no more"
    )
    return nested_frame(trials) if nested else trials_to_frame(trials)


def _preferred(names: list[str], endings: tuple[str, ...]) -> list[str]:
    found = _ending(names, *endings)
    return list(dict.fromkeys(found))


def _inside(contents: Contents, folder: Path, name: str, file: object) -> Path | None:
    """Give the path of a manifest's file, if it is a trial file within the session."""
    told = f"{folder}: subprotocol {name!r}: file {file!r}"
    if not isinstance(file, str) or not file or "\0" in file:
        contents.notes.append(f"{told} is no path; its trials are not read")
        return None
    parts = {*PurePosixPath(file).parts, *PureWindowsPath(file).parts}
    leaves = ".." in parts or PurePosixPath(file).is_absolute() or PureWindowsPath(file).anchor
    path = folder / file
    if leaves or not path.resolve().is_relative_to(folder.resolve()):
        contents.notes.append(f"{told} leaves the session's folder; it is not read")
        return None
    if path.suffix not in (".jsonl", ".pkl"):
        contents.notes.append(f"{told} is neither .jsonl nor .pkl; it is not read")
        return None
    if not path.is_file():
        contents.notes.append(f"{told} is missing")
        return None
    return path


def _frame_of_pickle(path: Path, nested: bool) -> pd.DataFrame:
    trials = trials_from_nested(read_frame_pickle(path))
    if trials and not {START, "info", "trial_type"} & trials[0].keys():
        shown = ", ".join(list(trials[0])[:5])
        raise FormatError(f"{path}: a table, but not of trials (its columns: {shown}, ...)")
    return nested_frame(trials) if nested else trials_to_frame(trials)
