"""A session's folder, of any of the four formats, into settings, trials and messages."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from labtree.errors import FormatError
from labtree.msw.log import count_ended_trials, read_log
from labtree.msw.manifest_files import read_with_notes
from labtree.msw.pickles import read_frame_pickle
from labtree.msw.session_folders import (
    JSONL,
    LOGS,
    MANIFESTS,
    PICKLES,
    ArtifactFormat,
    acquisition_folders,
    check_folder,
    detect_format,
    ending,
    is_container,
    list_folder,
    session_basename,
)
from labtree.msw.settings import read_json, read_python_literals, read_yaml
from labtree.msw.trial_file import read_trial_frame
from labtree.msw.trial_lines import shown
from labtree.msw.trial_table import (
    FrameBuilder,
    concat_trials,
    nested_frame,
    trials_from_nested,
)
from labtree.msw.trial_times import RESTORED, START, Trial
from labtree.storage.files import leads_out

SESSION_YAML_VERSION = 2
_HOSTS = ("host_session", "host_acquisition", "parent_acquisition")
T = TypeVar("T")


@dataclass
class SessionFiles:
    """What a folder holds.

    Attributes
    ----------
    folder : pathlib.Path
        The session's folder.
    names : list of str
        Its files.
    artifact_format : str
        Which of the four.
    basename : str
        What the names of its files begin with.
    frame : pandas.DataFrame or None
        The trials.
    task, process, stage, ephys : dict or None
        Settings.
    subprotocols : list of dict or None
        Of the acquisition's manifest.
    metadata, manifest : dict or None
        Merged metadata; the manifest that was read last.
    damage, remarks : list of str
        What was lost, and what is unusual and cost nothing.
    failures : list of str
        Files that could not be read at all; also in `damage`, once all is read.
    logged : dict of str to (int, int)
        Of each log that belongs to a trial file: how many trials it says have ended, and
        how many the table has of that file.
    """

    folder: Path
    names: list[str]
    artifact_format: ArtifactFormat
    basename: str
    frame: pd.DataFrame | None = None
    task: dict[str, Any] | None = None
    process: dict[str, Any] | None = None
    stage: dict[str, Any] | None = None
    ephys: dict[str, Any] | None = None
    subprotocols: list[dict[str, Any]] | None = None
    metadata: dict[str, Any] | None = None
    manifest: dict[str, Any] | None = None
    damage: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    logged: dict[str, tuple[int, int]] = field(default_factory=dict)


def read_folder(folder: Path, *, nested: bool = False) -> SessionFiles:
    """Read everything in a session's folder that is not damaged.

    Raises
    ------
    MissingFileError
        There is no such folder.
    FormatError
        It holds no session, or nothing of it can be read.
    """
    files = _listed(folder)
    _read_settings(files)
    _read_manifests(files)
    _read_trials(files, nested)
    if files.failures:
        read = (files.frame, files.task, files.process, files.manifest)
        if all(part is None for part in read):
            raise FormatError("\n".join(files.failures))
        files.damage = files.failures + files.damage
    return files


def read_settings(folder: Path) -> SessionFiles:
    """Do as `read_folder`, for the settings alone.

    Raises
    ------
    MissingFileError, FormatError
        As there.
    """
    files = _listed(folder)
    _read_settings(files)
    return files


def setting_of_task(process: dict[str, Any] | None) -> str:
    """Return the task that a session's settings state; "" for none."""
    stated = process or {}
    paths = stated.get("session_paths")
    places = [stated.get("task"), stated.get("task_name")]
    if isinstance(paths, dict):
        places.append(paths.get("task"))
    return next((value for value in places if isinstance(value, str) and value), "")


def _listed(folder: Path) -> SessionFiles:
    """Return what is to be read, or say why the folder is no session that can be."""
    check_folder(folder, "; expected a session's")
    names, dangling = list_folder(folder)
    artifact_format = detect_format(names)
    # A manifest alone may be a session's or a container's.
    unsure = artifact_format in (None, "manifest")
    inside = acquisition_folders(folder) if unsure else []
    if inside:
        line = f"labtree.msw.load_subject({str(folder)!r})"
        if is_container(folder):
            line = (
                f"labtree.msw.load_acquisition({str(folder)!r}), or "
                f"labtree.msw.load_session({str(inside[0])!r})"
            )
        error = FormatError(f"{folder}: a folder of sessions, not a session; write {line}")
        error.names_function = True
        raise error
    linked = [name for name in dangling if detect_format([name]) is not None]
    absent = (
        f"{folder}: {', '.join(linked)}: links to files that are not here; fetch them (with "
        "git annex or datalad get, for example)"
    )
    if artifact_format is None:
        if linked:
            raise FormatError(absent)
        raise FormatError(
            f"{folder}: no session; expected files such as *.msw.session.yaml, *.msw.jsonl, "
            f"*.msw.settings.process.json or *task_settings.py, found "
            + (shown(names, ", ") or "nothing")
        )
    files = SessionFiles(folder, names, artifact_format, session_basename(folder, names))
    if linked:
        files.damage.append(absent)
    return files


def _attempt(files: SessionFiles, read: Callable[[Path], T], path: Path) -> T | None:
    """Read one file; one that cannot be read does not prevent reading the others."""
    try:
        return read(path)
    except (FormatError, OSError) as error:
        files.failures.append(str(error))
        return None


def _single_file(files: SessionFiles, found: list[str]) -> Path | None:
    """Return the one file meant: named as the session, or the first; and note the others."""
    if not found:
        return None
    own = [name for name in found if name.startswith(files.basename)]
    # Before copies, such as "name (1).msw.jsonl" of programs that keep folders in step.
    named = [name for name in own if name.startswith(f"{files.basename}.")]
    chosen = (named or own or found)[0]
    if len(found) > 1:
        others = ", ".join(name for name in found if name != chosen)
        files.damage.append(f"{files.folder}: read {chosen}, and not {others}")
    return files.folder / chosen


# --- settings --------------------------------------------------------------------------


def _read_settings(files: SessionFiles) -> None:
    path = _single_file(files, ending(files.names, ".msw.session.yaml"))
    if path is not None:
        read = _attempt(files, read_yaml, path)
        if read is not None:
            files.damage += read[1]
            _take_session_yaml(files, path, read[0])
    if files.artifact_format != "session_yaml":
        _read_json_settings(files)
    if files.artifact_format == "legacy" and files.task is None:
        path = _single_file(files, ending(files.names, "task_settings.py"))
        literals = None if path is None else _attempt(files, read_python_literals, path)
        if literals is not None:
            files.task, notes = literals
            files.damage += notes


def _take_session_yaml(files: SessionFiles, path: Path, content: dict[str, Any]) -> None:
    version = content.get("msw_format_version")
    if str(version) != str(SESSION_YAML_VERSION):
        files.failures.append(
            f"{path}: says format version {version!r}, and this labtree reads "
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
            files.damage.append(
                f"{path}: section {name!r} is a {type(value).__name__}, not a mapping; left out"
            )
    files.process, files.task = found.get("process"), found.get("task_settings")
    files.stage, files.metadata = found.get("stage"), found.get("metadata")
    # An empty block of a host stands for none.
    host = next((found[name] for name in _HOSTS if found.get(name)), None)
    if host is not None:
        files.ephys = {
            "session_name"
            if key == "acquisition_name" and "session_name" not in host
            else key: v
            for key, v in host.items()
        }


def _read_json_settings(files: SessionFiles) -> None:
    others: dict[str, Any] = {}
    for name in files.names:
        _, marked, kind = name.rpartition(".msw.settings")
        if not marked or not (kind == "" or kind.endswith(".json")):
            continue
        kind = kind.removesuffix(".json").removeprefix(".") if kind else "task"
        read = _attempt(files, read_json, files.folder / name)
        if read is None:
            continue
        # Older files: ".msw.settings.json" is the process's, ".msw.settings" the task's.
        kind = kind or "process"
        if kind in ("task", "process", "stage", "ephys"):
            if getattr(files, kind) is None or name.endswith(f"{kind}.json"):
                setattr(files, kind, read)
        else:
            others[kind] = read
    if others:
        files.metadata = {"settings": others} | (files.metadata or {})


def _read_manifests(files: SessionFiles) -> None:
    merged: dict[str, Any] = {}
    for name in MANIFESTS:
        if name not in files.names:
            continue
        path = files.folder / name
        read = _attempt(files, read_with_notes, path)
        if read is None:
            continue
        manifest, notes = read
        files.manifest = manifest
        files.damage += notes
        if isinstance(manifest.get("metadata"), dict):
            merged |= manifest["metadata"]
        entries = manifest.get("subprotocols")
        if entries is None:
            continue
        if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
            files.subprotocols = entries
        else:
            files.damage.append(f"{path}: subprotocols are no list of mappings; left out")
    if merged:
        files.metadata = merged | (files.metadata or {})


# --- trials ----------------------------------------------------------------------------


def _read_trials(files: SessionFiles, nested: bool) -> None:
    """Read the trials of all subprotocols, or else those of the one file there is."""
    frames: dict[str, pd.DataFrame] = {}
    logs = ending(files.names, *LOGS)
    used: list[Path | None] = []
    for number, entry in enumerate(files.subprotocols or []):
        name = str(entry.get("name", number))
        path = _inside(files, name, entry.get("file"))
        log = None if path is None else _log_of(path)
        used.append(log)
        if path is not None and not path.is_file():
            files.damage.append(
                f"{files.folder}: subprotocol {name!r}: file {entry['file']!r} is missing"
            )
            path = None
        frame = _frame_of(files, path, log, nested)
        if frame is not None:
            frames[name if name not in frames else f"{name} ({number})"] = frame
    if frames and nested:
        parts = [frame.assign(subprotocol=name) for name, frame in frames.items()]
        files.frame = pd.concat(parts, ignore_index=True)
    elif frames:
        files.frame = concat_trials(frames, column="subprotocol")
    else:
        found = ending(files.names, *JSONL) or ending(files.names, *PICKLES)
        path = _single_file(files, found)
        log = _single_file(files, logs) if path is None else _log_of(path)
        used.append(log)
        files.frame = _frame_of(files, path, log, nested)
    for name in logs:
        if files.folder / name not in used:
            _note_unused_log(files, files.folder / name)


def _frame_of(
    files: SessionFiles, path: Path | None, log: Path | None, nested: bool
) -> pd.DataFrame | None:
    """Return the trials of a file; where it has none, or is missing, those of its log."""
    if log is not None and log.name not in files.names:
        log = None
    frame = None
    if path is not None:
        frame = _attempt(files, lambda path: _frame_of_file(files, path, log, nested), path)
    if (frame is None or not len(frame)) and log is not None:
        frame = _attempt(files, lambda log: _frame_of_log(files, log, nested), log)
    return frame if frame is not None and len(frame) else None


def _frame_of_file(
    files: SessionFiles, path: Path, log: Path | None, nested: bool
) -> pd.DataFrame:
    # A log that cannot be read must not cost the trials.
    n_logged = None if log is None else _attempt(files, count_ended_trials, log)
    if path.suffix == ".pkl":
        frame = _frame_of_pickle(files, path, nested)
    else:
        frame, findings = read_trial_frame(path, nested=nested, log=log, n_logged=n_logged or 0)
        files.damage += findings.damage
        files.remarks += findings.remarks
    if log is not None and n_logged is not None:
        files.logged[log.name] = (n_logged, len(frame))
    return frame


def _log_of(path: Path) -> Path | None:
    """Return the path that the log of a trial file has: they begin alike."""
    for suffix in (*JSONL, *PICKLES):
        if path.name.endswith(suffix):
            return path.with_name(path.name.removesuffix(suffix) + ".msw.csv")
    return None


def _note_unused_log(files: SessionFiles, path: Path) -> None:
    log = _attempt(files, read_log, path)
    if log is not None and log.trials:
        files.damage.append(
            f"{path}: a log of {len(log.trials)} trials that belongs to no trial file here; "
            "they are not read"
        )


def _frame_of_log(files: SessionFiles, path: Path, nested: bool) -> pd.DataFrame | None:
    """Return what the log has of all trials, where there is no trial file to be read."""
    trials = [trial | {RESTORED: True} for trial in read_log(path).trials]
    if not trials:
        return None
    files.damage.append(
        f"{path}: {len(trials)} trials restored from the log, for want of a trial file; it "
        "has states, events, starts and ends, and no more"
    )
    files.logged[path.name] = (count_ended_trials(path), len(trials))
    return _table_of(files, path, trials, nested)


def _table_of(
    files: SessionFiles, path: Path, trials: list[Trial], nested: bool
) -> pd.DataFrame:
    """Return the table of trials, and note what was not valid in them."""
    if nested:
        return nested_frame(trials)
    builder = FrameBuilder()
    builder.add(trials)
    files.damage += [f"{path}: {note}" for note in builder.notes]
    return builder.finish()


def _inside(files: SessionFiles, name: str, file: object) -> Path | None:
    """Return the path of a manifest's file, if it is a trial file within the session."""
    entry = f"{files.folder}: subprotocol {name!r}: file {file!r}"
    if not isinstance(file, str) or not file or "\0" in file:
        files.damage.append(f"{entry} is no path; its trials are not read")
        return None
    path = files.folder / file
    resolved = path.resolve()
    # Where git-annex keeps the content of a file that is in the folder by name.
    is_inside = resolved.is_relative_to(files.folder.resolve()) or (
        path.is_symlink() and "/.git/annex/objects/" in resolved.as_posix()
    )
    if leads_out(file) or not is_inside:
        files.damage.append(f"{entry} leaves the session's folder; it is not read")
        return None
    if path.suffix not in (".jsonl", ".pkl"):
        files.damage.append(f"{entry} is neither .jsonl nor .pkl; it is not read")
        return None
    return path


def _frame_of_pickle(files: SessionFiles, path: Path, nested: bool) -> pd.DataFrame:
    trials = trials_from_nested(read_frame_pickle(path))
    if trials and not {START, "info", "trial_type"} & trials[0].keys():
        columns = shown(list(trials[0]), ", ")
        raise FormatError(f"{path}: a table, but not of trials (its columns: {columns})")
    return _table_of(files, path, trials, nested)
