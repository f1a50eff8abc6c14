"""Sessions from folders: one, those of a container, those of a subject."""

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from labtree.errors import (
    FileAccessError,
    FormatError,
    LabtreeError,
    MissingFileError,
)
from labtree.formats import takes
from labtree.msw.containers import kind_of, list_acquisitions
from labtree.msw.joined_trials import concat_trials
from labtree.msw.manifest_files import SESSION_MANIFEST
from labtree.msw.models import MswSession
from labtree.msw.names import parse_acquisition_basename, parse_container_name
from labtree.msw.session_files import SessionFiles, read_folder, setting_of_task
from labtree.msw.session_filters import SessionFilter
from labtree.msw.session_folders import (
    acquisition_folders,
    check_folder,
    detect_format,
    identify,
    is_session_folder,
    list_folder,
)
from labtree.msw.trial_file import warn_of_damage

__all__ = [
    "SessionList",
    "load_acquisition",
    "load_session",
    "load_subject",
    "to_session",
]

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

    def __repr__(self) -> str:
        from labtree.msw.msw_panel import list_panel

        return list_panel(self, self.failed).text()

    def _repr_html_(self) -> str:
        from labtree.msw.msw_panel import list_panel

        return list_panel(self, self.failed).html()

    def trials(self) -> pd.DataFrame:
        """Return all trials in one table, with a column ``session``.

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
                frames[name] = session.df
        return concat_trials(frames)


@takes("a Murine Shift Work session", "msw")
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
        What to note as the container's name and folder; None if the session is looked at
        alone.
    nested : bool
        Return the trials as older tools do, every state and event a column of lists.

    Returns
    -------
    MswSession
        What could be read. A `DamageWarning` names what could not, and what was
        restored from the log.

    Raises
    ------
    MissingFileError
        There is no such folder.
    FormatError
        The folder is empty, holds no session, or nothing in it can be read.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.msw import make_trials, write_session
    >>> folder = write_session("mouse", trials=make_trials(20))
    >>> labtree.msw.load_session(folder).n_trials
    20
    """
    session, notes = _load(Path(session_dir), nested)
    if acquisition_name is not None:
        session.acquisition_name = acquisition_name
    if acquisition_dir is not None:
        session.acquisition_dir = Path(acquisition_dir)
    warn_of_damage(notes)
    return session


def _load(
    folder: Path, nested: bool = False, container: Path | None = None
) -> tuple[MswSession, list[str]]:
    files = read_folder(folder, nested=nested)
    return to_session(folder, files, container), files.damage + files.remarks


def to_session(folder: Path, files: SessionFiles, container: Path | None = None) -> MswSession:
    """Return the session of what was read of its folder, and of the container it lies in."""
    identity = identify(files.basename)
    task = identity.task
    if identity.datetime_str and not task:
        task = setting_of_task(files.process) or identity.acq_type
    session_type = ""
    with contextlib.suppress(FormatError):
        session_type = parse_container_name(folder.absolute().parent.name)["session_type"]
    metadata = files.metadata or {}
    from_matlab = str(metadata.get("source", "")).startswith("legacy_matlab")
    is_legacy = files.artifact_format == "legacy"
    is_complete = files.frame is not None and (
        from_matlab or (files.task is not None and (files.process is not None or is_legacy))
    )
    version = (files.process or {}).get("msw_version")
    oldest = "legacy" if is_legacy else "< 1.0.0"
    # What was just read needs no validation.
    return MswSession.model_construct(
        session_dir=folder,
        basename=files.basename,
        subject=identity.subject,
        datetime_str=identity.datetime_str,
        task=task,
        acq_type=identity.acq_type,
        session_type=session_type,
        namespace_version=identity.namespace_version or None,
        artifact_format=files.artifact_format,
        msw_version=version if isinstance(version, str) and version else oldest,
        df=files.frame,
        n_trials=0 if files.frame is None else len(files.frame),
        settings_task=files.task,
        settings_process=files.process,
        settings_stage=files.stage,
        settings_ephys=files.ephys,
        subprotocols=files.subprotocols,
        metadata=files.metadata,
        is_complete=is_complete,
        is_ephys=files.ephys is not None,
        acquisition_name=None if container is None else container.name,
        acquisition_dir=container,
    )


def _container_of(folder: Path, top: Path) -> Path | None:
    """Return the container that a session lies in, if it lies in one below `top`."""
    parent = folder.parent
    if folder == top or parent == top:
        return None
    if (parent / SESSION_MANIFEST).is_file():
        return parent
    with contextlib.suppress(FormatError):
        parse_container_name(parent.name)
        return parent
    return None


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
        By time. ``.failed`` and a `DamageWarning` name what could not be loaded.
        Cameras' folders are left out.

    Raises
    ------
    MissingFileError
        There is no such folder.
    FormatError
        It holds no session.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.msw import make_trials, write_session
    >>> folder = write_session("mouse", trials=make_trials(20))
    >>> len(labtree.msw.load_acquisition(folder.parent))
    1
    """
    folder = Path(container)
    check_folder(folder)
    wanted = SessionFilter(subject, task, since, until)
    if is_session_folder(folder):
        return _load_all({folder: None}, {}, wanted, workers, [])
    listed, messages = list_acquisitions(folder)
    failed: dict[Path, Exception] = {
        folder / item.basename: MissingFileError(
            f"{folder / item.basename}: the manifest names it, and it is not there"
        )
        for item in listed
        if item.in_manifest and not item.on_disk and item.kind == "session"
    }
    found: dict[Path, Path | None] = {
        item.folder: folder
        for item in listed
        if item.folder is not None and item.kind == "session"
    }
    if not found and not failed:
        raise FormatError(f"{folder}: no session in it; expected a container's folder")
    return _load_all(found, failed, wanted, workers, messages)


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
        Only those whose name says so; nothing else is opened. Where a name has no task,
        the settings are asked.
    since, until : str, datetime.date or datetime.datetime, optional
        Only those from then on, or until then, inclusive: a day, "2026-05-14", or a moment,
        "2026-05-14T14:30". In the rig's local time, as the names are.
    workers : int
        How many to load at a time, in threads. Worth it where a disk or a network is slow.

    Returns
    -------
    SessionList
        By time. ``.failed`` and a `DamageWarning` name what could not be loaded, or not be
        judged by the filters, and folders with a session's name in which nothing can be
        read. ``.trials()`` puts all trials into one table.

    Raises
    ------
    MissingFileError
        There is no such folder.
    FormatError
        It holds no session.
    UnknownNameError
        (a KeyError) No session in it is of that subject or task; the message names those
        that there are.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.msw import make_trials, write_session
    >>> folder = write_session("mouse", trials=make_trials(20))
    >>> [session.subject for session in labtree.msw.load_subject("mouse")]
    ['m01']
    """
    top = Path(folder)
    check_folder(top)
    found, unreadable = _find_sessions(top, _DEPTH, set())
    if not found and not unreadable:
        raise FormatError(
            f"{top}: no session in it, {_DEPTH} folders deep; expected a subject's folder"
        )
    wanted = SessionFilter(subject, task, since, until)
    failed = {path: error for path, error in unreadable.items() if wanted.may_take(path)}
    containers = {path: _container_of(path, top) for path in found}
    return _load_all(containers, failed, wanted, workers, [])


def _find_sessions(
    folder: Path, depth: int, seen: set[Path]
) -> tuple[list[Path], dict[Path, Exception]]:
    """Return the sessions' folders, and those that seem to be one and cannot be read."""
    # Links may lead back up, or to the same session twice.
    real = folder.resolve()
    if real in seen:
        return [], {}
    seen.add(real)
    found: list[Path] = []
    unreadable: dict[Path, Exception] = {}
    try:
        if is_session_folder(folder):
            return [folder], {}
        entries = sorted(folder.iterdir())
        inside = [path for path in entries if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        return [], {folder: FileAccessError.of(error, f"{folder}: cannot be listed")}
    for path in inside if depth else []:
        sessions, others = _find_sessions(path, depth - 1, seen)
        found += sessions
        unreadable |= others
    if not found and not unreadable and _seems_a_session(folder):
        try:
            read_folder(folder)
        except LabtreeError as error:
            unreadable[folder] = error
    return found, unreadable


def _seems_a_session(folder: Path) -> bool:
    if acquisition_folders(folder):
        return False
    if detect_format(list_folder(folder).dangling) is not None:
        return True
    try:
        parts = parse_acquisition_basename(folder.name)
    except FormatError:
        return False
    return kind_of(parts["acq_type"]) == "session"


def _load_all(
    folders: dict[Path, Path | None],
    failed: dict[Path, Exception],
    wanted: SessionFilter,
    workers: int,
    messages: list[str],
) -> SessionList:
    """Load sessions, each with its container, and collect what fails."""
    if workers < 1:
        raise FormatError(f"workers={workers}; expected 1 or more")
    chosen: list[Path] = []
    for folder in folders:
        try:
            if wanted.takes(folder):
                chosen.append(folder)
        except FormatError as error:
            failed[folder] = FormatError(f"{folder}: the filters cannot judge it ({error})")
    if not chosen and not failed:
        wanted.check_names(folders)
    loaded: dict[Path, MswSession] = {}
    notes: dict[Path, list[str]] = {}

    def load(folder: Path) -> None:
        try:
            loaded[folder], notes[folder] = _load(folder, container=folders[folder])
        except (LabtreeError, OSError) as error:
            failed[folder] = error

    _run(load, chosen, workers)
    messages = messages + [note for folder in chosen for note in notes.get(folder, [])]
    if failed:
        lines = [f"  {error}" for error in failed.values()]
        messages.append(
            f"{len(failed)} of {len({*folders, *failed})} sessions not loaded:\n"
            + "\n".join(lines)
        )
    sessions = sorted(
        (loaded[folder] for folder in chosen if folder in loaded),
        key=lambda session: (session.datetime_str, session.basename),
    )
    warn_of_damage(messages)
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
