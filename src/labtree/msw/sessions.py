"""Sessions from folders: one, those of a container, those of a subject; and checks of both."""

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tqdm import tqdm

from labtree.errors import FormatError, LabtreeError, MissingFileError
from labtree.msw.damage import warn_of_damage
from labtree.msw.log import count_logged_trials
from labtree.msw.measures import check_trials
from labtree.msw.models import MswSession, ValidationResult, table_of
from labtree.msw.names import (
    identify_namespace_version,
    parse_acquisition_basename,
    parse_container_name,
)
from labtree.msw.session_files import (
    Contents,
    acquisition_folders,
    is_session_folder,
    read_folder,
)
from labtree.msw.settings import read_yaml
from labtree.msw.trial_table import concat_trials

# --- containers ----------------------------------------------------------------------------


@dataclass(frozen=True)
class AcquisitionInfo:
    """One acquisition of a container.

    Attributes
    ----------
    basename : str
        Its name, which is its folder's.
    acq_type : str
        As in its name; "" if that does not parse.
    kind : {"session", "camera", "recording"}
        Trials, video, or a recording of another program (types pxi and photo).
    on_disk, in_manifest : bool
        Where it was found.
    status : str or None
        As the manifest says: running, complete, aborted.
    """

    basename: str
    acq_type: str
    kind: Literal["session", "camera", "recording"]
    on_disk: bool
    in_manifest: bool
    status: str | None


@dataclass(frozen=True)
class ContainerReport:
    """A container's manifest against its folder.

    Attributes
    ----------
    container : pathlib.Path
        The folder.
    acquisitions : tuple of AcquisitionInfo
        By time.
    on_disk_not_in_manifest, in_manifest_not_on_disk : tuple of str
        Where the two differ.
    """

    container: Path
    acquisitions: tuple[AcquisitionInfo, ...]
    on_disk_not_in_manifest: tuple[str, ...]
    in_manifest_not_on_disk: tuple[str, ...]

    @property
    def is_consistent(self) -> bool:
        """Whether manifest and folder name the same acquisitions."""
        return not self.on_disk_not_in_manifest and not self.in_manifest_not_on_disk


def enumerate_acquisitions(container: str | Path) -> list[AcquisitionInfo]:
    """List the acquisitions of a container, by time: its manifest's and its folders'.

    Raises
    ------
    MissingFileError
        There is no such folder.
    """
    found, notes = list_acquisitions(Path(container))
    warn_of_damage(notes)
    return found


def list_acquisitions(folder: Path) -> tuple[list[AcquisitionInfo], list[str]]:
    """Do as `enumerate_acquisitions`, and give what is to be told instead of telling it."""
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder")
    statuses, notes = _manifest_entries(folder)
    on_disk = {path.name for path in acquisition_folders(folder)}
    found = []
    for basename in {*statuses, *on_disk}:
        try:
            parts = parse_acquisition_basename(basename)
            acq_type, when = parts["acq_type"], parts["datetime_str"]
        except FormatError:
            acq_type, when = "", ""
        kind: Literal["session", "camera", "recording"] = "session"
        if acq_type.startswith("video_"):
            kind = "camera"
        elif acq_type in ("pxi", "photo"):
            kind = "recording"
        info = AcquisitionInfo(
            basename,
            acq_type,
            kind,
            basename in on_disk,
            basename in statuses,
            statuses.get(basename),
        )
        found.append((when, basename, info))
    return [info for _, _, info in sorted(found, key=lambda item: item[:2])], notes


def _manifest_entries(folder: Path) -> tuple[dict[str, str | None], list[str]]:
    path = folder / "session_manifest.yaml"
    if not path.is_file():
        return {}, []
    try:
        manifest, notes = read_yaml(path)
    except FormatError as error:
        return {}, [str(error)]
    entries = manifest.get("acquisitions", manifest.get("sessions")) or []
    statuses: dict[str, str | None] = {}
    for entry in entries if isinstance(entries, list) else []:
        content = entry if isinstance(entry, dict) else {}
        basename = content.get("basename", content.get("session_dir"))
        try:
            # A name that is one path component cannot lead out of the container.
            parse_acquisition_basename(str(basename))
        except FormatError as error:
            notes.append(f"{path}: an entry is left out: {error}")
            continue
        status = content.get("status")
        statuses[str(basename)] = None if status is None else str(status)
    return statuses, notes


def validate_container(container: str | Path) -> ContainerReport:
    """Compare a container's manifest with its folder.

    Raises
    ------
    MissingFileError
        There is no such folder.
    """
    found = enumerate_acquisitions(container)
    return ContainerReport(
        Path(container),
        tuple(found),
        tuple(item.basename for item in found if item.on_disk and not item.in_manifest),
        tuple(item.basename for item in found if item.in_manifest and not item.on_disk),
    )


# --- loading -------------------------------------------------------------------------------


_DEPTH = 4


class SessionList(list[MswSession]):
    """Sessions in the order of their time, and what could not be loaded.

    Attributes
    ----------
    failed : dict of pathlib.Path to Exception
        The folders that could not be loaded, or not be judged by the filters, and why.
    """

    def __init__(
        self,
        sessions: Iterable[MswSession] = (),
        failed: dict[Path, Exception] | None = None,
    ) -> None:
        super().__init__(sessions)
        self.failed = failed or {}

    def trials(self) -> pd.DataFrame:
        """Give all trials in one table, with a column ``session``.

        Raises
        ------
        TrialTableError
            No session has trials.
        """
        frames: dict[str, pd.DataFrame] = {}
        for session in self:
            if session.df is not None:
                name = session.basename
                while name in frames:
                    name += "'"
                frames[name] = table_of(session)
        return concat_trials(frames)


def load_session(
    session_dir: str | Path,
    *,
    acquisition_name: str | None = None,
    acquisition_dir: str | Path | None = None,
    nested: bool = False,
) -> MswSession:
    """Load one session of any era from its folder.

    Parameters
    ----------
    session_dir : path
        The folder with the session's files.
    acquisition_name, acquisition_dir
        What to note as such, instead of the folder's own name and place.
    nested : bool
        Give the trials as older tools do, every state and event a column of lists.

    Returns
    -------
    MswSession
        What could be read. A `DamageWarning` tells what could not, and what was
        restored from the log.

    Raises
    ------
    MissingFileError
        There is no such folder.
    FormatError
        The folder is empty, holds no session, or nothing in it can be read.
    """
    session, notes = _load(Path(session_dir), nested)
    if acquisition_name is not None:
        session.acquisition_name = acquisition_name
    if acquisition_dir is not None:
        session.acquisition_dir = Path(acquisition_dir)
    warn_of_damage(notes)
    return session


def _load(folder: Path, nested: bool = False) -> tuple[MswSession, list[str]]:
    contents = read_folder(folder, nested=nested)
    return _to_session(folder, contents), contents.notes


def _to_session(folder: Path, contents: Contents) -> MswSession:
    process = contents.process or {}

    def said(key: str) -> str:
        value = process.get(key)
        return value if isinstance(value, str) else ""

    names: dict[str, Any] = {}
    for candidate in (said("session_basename"), folder.name):
        try:
            names = dict(parse_acquisition_basename(candidate))
            break
        except FormatError:
            continue
    container: dict[str, Any] = {}
    with contextlib.suppress(FormatError):
        container = dict(parse_container_name(folder.absolute().parent.name))
    basename = said("session_basename") or folder.name
    session_type = said("session_type") or container.get("session_type") or ""
    metadata = contents.metadata or {}
    from_matlab = str(metadata.get("source", "")).startswith("legacy_matlab")
    is_legacy = contents.artifact_format == "legacy"
    is_complete = contents.frame is not None and (
        from_matlab
        or (contents.task is not None and (contents.process is not None or is_legacy))
    )
    oldest = "legacy" if is_legacy else "< 1.0.0"
    return MswSession(
        session_dir=folder,
        basename=basename,
        subject=said("subject") or names.get("subject") or container.get("subject") or "",
        datetime_str=names.get("datetime_str")
        or said("datetime")
        or container.get("datetime_str")
        or "",
        task=said("task") or names.get("task") or container.get("task") or "",
        acq_type=said("acq_type") or names.get("acq_type") or "",
        # Old containers put the task where a session's type would be.
        session_type="" if session_type.startswith("session_") else session_type,
        namespace_version=identify_namespace_version(basename, process, contents.manifest)[0],
        artifact_format=contents.artifact_format,
        msw_version=said("msw_version") or oldest,
        df=contents.frame,
        n_trials=0 if contents.frame is None else len(contents.frame),
        settings_task=contents.task,
        settings_process=contents.process,
        settings_stage=contents.stage,
        settings_ephys=contents.ephys,
        subprotocols=contents.subprotocols,
        metadata=contents.metadata,
        is_complete=is_complete,
        is_ephys=contents.ephys is not None,
        acquisition_name=folder.name if names else None,
        acquisition_dir=folder if names else None,
    )


def load_acquisition(
    container: str | Path,
    *,
    subject: str | None = None,
    task: str | None = None,
    since: str | date | None = None,
    until: str | date | None = None,
    workers: int = 1,
) -> SessionList:
    """Load the sessions in a container's folder, those that its manifest names included.

    Parameters
    ----------
    container : path
        A container's folder, or a session's own.
    subject, task, since, until, workers
        As in `load_subject`.

    Returns
    -------
    SessionList
        By time; ``.failed`` tells what could not be loaded, and a `DamageWarning` too.
        Cameras' folders are left out.

    Raises
    ------
    MissingFileError
        There is no such folder.
    FormatError
        It holds no session.
    """
    folder = _existing(Path(container))
    wanted = _Filter(subject, task, since, until)
    if is_session_folder(folder):
        return _load_all([folder], {}, wanted, workers)
    listed, told = list_acquisitions(folder)
    failed: dict[Path, Exception] = {
        folder / item.basename: MissingFileError(
            f"{folder / item.basename}: the manifest names it, and it is not there"
        )
        for item in listed
        if item.in_manifest and not item.on_disk and item.kind == "session"
    }
    found = [
        folder / item.basename for item in listed if item.on_disk and item.kind == "session"
    ]
    if not found and not failed:
        raise FormatError(f"{folder}: no session in it; expected a container's folder")
    return _load_all(found, failed, wanted, workers, told)


def load_subject(
    folder: str | Path,
    *,
    subject: str | None = None,
    task: str | None = None,
    since: str | date | None = None,
    until: str | date | None = None,
    workers: int = 1,
) -> SessionList:
    """Load the sessions below a subject's folder, or below one of many subjects.

    Parameters
    ----------
    folder : path
        A folder of sessions or containers, or of subjects' folders.
    subject, task : str, optional
        Only those whose name says so; nothing else is opened.
    since, until : str, datetime.date or datetime.datetime, optional
        Only those from then on, or until then, inclusive: a day, "2026-05-14", or a moment,
        "2026-05-14T14:30". In the rig's local time, as the names are.
    workers : int
        Load so many at a time, in threads. Worth it where a disk or a network is slow.

    Returns
    -------
    SessionList
        By time; ``.failed`` tells what could not be loaded, or not be judged by its name
        when there are filters, and a `DamageWarning` tells it too. ``.trials()`` puts all
        trials into one table.

    Raises
    ------
    MissingFileError
        There is no such folder.
    FormatError
        It holds no session.
    """
    top = _existing(Path(folder))
    found = _find_sessions(top, _DEPTH, set())
    if not found:
        raise FormatError(
            f"{top}: no session in it, {_DEPTH} folders deep; expected a subject's folder"
        )
    return _load_all(found, {}, _Filter(subject, task, since, until), workers)


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        found = "a file, not a folder" if folder.exists() else "no such folder"
        raise MissingFileError(f"{folder}: {found}")
    return folder


def _find_sessions(folder: Path, depth: int, seen: set[Path]) -> list[Path]:
    # Links may lead back up, or to the same session twice.
    real = folder.resolve()
    if real in seen:
        return []
    seen.add(real)
    if is_session_folder(folder):
        return [folder]
    if depth == 0:
        return []
    inside = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    return [found for path in inside for found in _find_sessions(path, depth - 1, seen)]


class _Filter:
    """Judges a session by its folder's name, without opening it."""

    def __init__(
        self,
        subject: str | None,
        task: str | None,
        since: str | date | None,
        until: str | date | None,
    ) -> None:
        self.subject, self.task = subject, task
        self.since = None if since is None else _moment(since, time.min)
        self.until = None if until is None else _moment(until, time.max)
        self.is_open = subject is task is since is until is None

    def takes(self, folder: Path) -> bool:
        """Tell whether a session is asked for.

        Raises
        ------
        FormatError
            The name does not tell.
        """
        if self.is_open:
            return True
        parts = parse_acquisition_basename(folder.name)
        task = parts["task"]
        if self.task is not None and task is None:
            try:
                task = parse_container_name(folder.parent.name)["task"]
            except FormatError:
                task = None
        return (
            self.subject in (None, parts["subject"])
            and self.task in (None, task)
            and (self.since is None or parts["datetime"] >= self.since)
            and (self.until is None or parts["datetime"] <= self.until)
        )


def _moment(value: str | date, default: time) -> datetime:
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            raise FormatError(
                f"{value!r} is not a day or a moment; write it as '2026-05-14' or "
                "'2026-05-14T14:30'"
            ) from None
        value = parsed if len(value) > 10 else parsed.date()
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    return datetime.combine(value, default)


def _load_all(
    folders: list[Path],
    failed: dict[Path, Exception],
    wanted: _Filter,
    workers: int,
    told: list[str] | None = None,
) -> SessionList:
    chosen: list[Path] = []
    for folder in folders:
        try:
            if wanted.takes(folder):
                chosen.append(folder)
        except FormatError as error:
            failed[folder] = FormatError(f"{folder}: the filters cannot judge it ({error})")
    if workers < 1:
        raise FormatError(f"workers={workers}; expected 1 or more")
    loaded: dict[Path, MswSession] = {}
    notes: dict[Path, list[str]] = {}

    def load(folder: Path) -> None:
        try:
            loaded[folder], notes[folder] = _load(folder)
        except (LabtreeError, OSError) as error:
            failed[folder] = error

    _run(load, chosen, workers)
    told = (told or []) + [note for folder in chosen for note in notes.get(folder, [])]
    if failed:
        lines = [f"  {error}" for error in failed.values()]
        told.append(
            f"{len(failed)} of {len({*folders, *failed})} sessions not loaded:\n"
            + "\n".join(lines)
        )
    sessions = sorted(
        (loaded[folder] for folder in chosen if folder in loaded),
        key=lambda session: (session.datetime_str, session.basename),
    )
    warn_of_damage(told, stacklevel=3)
    return SessionList(sessions, failed)


def _run(load: Callable[[Path], None], folders: list[Path], workers: int) -> None:
    with tqdm(total=len(folders), desc="sessions", unit="session", disable=None) as bar:
        if workers == 1 or len(folders) < 2:
            for folder in folders:
                load(folder)
                bar.update()
            return
        with ThreadPoolExecutor(workers) as pool:
            tasks = [pool.submit(load, folder) for folder in folders]
            try:
                for done in as_completed(tasks):
                    done.result()
                    bar.update()
            except BaseException:
                for waiting in tasks:
                    waiting.cancel()
                raise


# --- validation ----------------------------------------------------------------------------


def validate_session(session_dir: str | Path) -> ValidationResult:
    """Check a session's folder: whether everything is there, readable, and of one mind.

    Parameters
    ----------
    session_dir : path
        A session's folder.

    Returns
    -------
    ValidationResult
        ``passed`` if there are no ``issues``. A folder that cannot be loaded at all is
        an issue, not an exception; `print` shows the result.
    """
    folder = Path(session_dir)
    issues: list[str] = []
    odd: list[str] = []
    info: dict[str, Any] = {}
    try:
        contents = read_folder(folder)
    except (LabtreeError, OSError) as error:
        return ValidationResult(
            session_dir=folder,
            msw_version="unknown",
            passed=False,
            issues=str(error).splitlines(),
            warnings=[],
            info={},
        )
    issues += contents.notes
    session = _to_session(folder, contents)
    info["format"] = session.artifact_format
    info["subject"], info["task"] = session.subject, session.task
    info["trials"] = session.n_trials
    if session.df is None:
        issues.append("no trials")
    elif not session.is_complete:
        issues.append("trials, but settings are missing")
    try:
        parts = parse_acquisition_basename(folder.name)
    except FormatError as error:
        odd.append(str(error))
    else:
        said = {"subject": session.subject, "datetime_str": session.datetime_str}
        for key, value in said.items():
            named = dict(parts)[key]
            if value != named:
                odd.append(f"the folder's name says {key} {named!r}, the settings {value!r}")
    for path in sorted(folder.glob("*.msw.csv")):
        info["logged trials"] = logged = count_logged_trials(path)
        if session.df is not None and logged != session.n_trials:
            issues.append(
                f"{path.name} has {logged} finished trials, the trial file {session.n_trials}"
            )
    if session.df is not None:
        odd += check_trials(session.df)
    return ValidationResult(
        session_dir=folder,
        msw_version=session.msw_version,
        passed=not issues,
        issues=issues,
        warnings=odd,
        info=info,
    )
