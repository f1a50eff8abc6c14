"""Sessions of a container, a subject or many subjects, by subject, task and moment."""

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, time
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from labtree.display import SHOWN, Panel, Section, plural
from labtree.errors import (
    FileAccessError,
    FormatError,
    LabtreeError,
    MissingFileError,
    unknown_name,
)
from labtree.msw.containers import kind_of, list_acquisitions
from labtree.msw.loading import MswSession, load_with_notes, session_in_words
from labtree.msw.session_files import read_folder, read_settings, setting_of_task
from labtree.msw.session_folders import (
    acquisition_folders,
    check_folder,
    detect_format,
    identify,
    is_container,
    is_session_folder,
    list_folder,
    session_basename,
)
from labtree.msw.session_names import AcquisitionName, parse_acquisition_basename
from labtree.msw.trial_file import warn_of_damage
from labtree.msw.trial_table import concat_trials

_DEPTH = 4


class SessionList(list[MswSession]):
    """Sessions in the order of their time, and what could not be loaded.

    Attributes
    ----------
    failed : dict of pathlib.Path to Exception
        The folders that could not be loaded, or not be compared with the filters, and why.
    """

    def __init__(
        self,
        sessions: Iterable[MswSession] = (),
        failed: dict[Path, Exception] | None = None,
    ) -> None:
        super().__init__(sessions)
        self.failed = failed or {}

    def __repr__(self) -> str:
        return _panel(self).text()

    def _repr_html_(self) -> str:
        return _panel(self).html()

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


def _panel(sessions: SessionList) -> Panel:
    # Rows past those that are shown are only counted.
    rows = [session_in_words(s) if i < SHOWN else () for i, s in enumerate(sessions)]
    sections = [Section("", rows, ("name", "", "", "muted"))]
    if sessions.failed:
        reasons = [(str(path), str(error)) for path, error in sessions.failed.items()]
        sections.append(
            Section("could not be loaded", reasons, ("text", "text"), str(len(reasons)))
        )
    calls = ("[0]", ".trials()", ".failed")
    return Panel("labtree mouse sessions", plural(len(sessions), "session"), sections, calls)


def _container_of(folder: Path, top: Path) -> Path | None:
    """Return the container that a session lies in, if it lies in one below `top`."""
    parent = folder.parent
    return parent if top not in (folder, parent) and is_container(parent) else None


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
    wanted = _SessionFilter(subject, task, since, until)
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
        Only sessions with this name; no other files are opened. If a name has no task, it
        is read from the settings.
    since, until : str, datetime.date or datetime.datetime, optional
        Only those from then on, or until then, inclusive: a day, "2026-05-14", or a moment,
        "2026-05-14T14:30". In the rig's local time, as the names are.
    workers : int
        How many to load at a time, in threads. Worth it where a disk or a network is slow.

    Returns
    -------
    SessionList
        By time. ``.failed`` and a `DamageWarning` name sessions that could not be loaded or
        compared with the filters, and folders that have a session's name but nothing
        readable. ``.trials()`` puts all trials into one table.

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
    wanted = _SessionFilter(subject, task, since, until)
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
    identity = identify(folder.name)
    return bool(identity.datetime_str) and kind_of(identity.acq_type) == "session"


# --- which sessions are asked for ----------------------------------------------------------


class _SessionFilter:
    """Judges a session by the names of its files; only a task may have to be read.

    Parameters
    ----------
    subject, task, since, until
        As in `labtree.msw.load_subject`.

    Raises
    ------
    FormatError
        `since` or `until` is not a day or a moment.
    """

    def __init__(
        self,
        subject: str | None,
        task: str | None,
        since: str | date | None,
        until: str | date | None,
    ) -> None:
        self.subject, self.task = subject, task
        self.since = datetime.min if since is None else _moment(since, time.min)
        self.until = datetime.max if until is None else _moment(until, time.max)
        self.is_open = subject is task is since is until is None

    def takes(self, folder: Path) -> bool:
        """Return whether a session is asked for.

        Raises
        ------
        FormatError
            Its name does not say.
        """
        if self.is_open:
            return True
        parts = _name_of(folder)
        return (
            self.subject in (None, parts["subject"])
            and self.since <= parts["datetime"] <= self.until
            and (self.task is None or self.task == _task_of(folder, parts))
        )

    def check_names(self, folders: Iterable[Path]) -> None:
        """Raise an error where a subject or a task is that of no session at all."""
        for what, name in (("subject", self.subject), ("task", self.task)):
            found: set[str] = set()
            for folder in folders if name is not None else []:
                with contextlib.suppress(LabtreeError, OSError):
                    parts = _name_of(folder)
                    found.add(
                        parts["subject"] if what == "subject" else _task_of(folder, parts)
                    )
            if found and name not in found:
                raise unknown_name(what, name, sorted(found), where=" in these sessions")

    def may_take(self, folder: Path) -> bool:
        """Return whether a folder may be asked for, of which nothing but the name is known."""
        try:
            return self.takes(folder)
        except LabtreeError:
            return True


def _name_of(folder: Path) -> AcquisitionName:
    return parse_acquisition_basename(session_basename(folder, list_folder(folder).names))


def _task_of(folder: Path, parts: AcquisitionName) -> str:
    """Return the task of a session by its name; where that has none, by its settings."""
    if parts["task"] is not None:
        return parts["task"]
    return setting_of_task(read_settings(folder).process) or parts["acq_type"]


def _moment(value: str | date, default: time) -> datetime:
    """Return a day, at the default time of day, or a moment, in the rig's local time."""
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
        if value.tzinfo is not None:
            raise FormatError(
                f"{value} has a time zone, and sessions are named by the rig's local time; "
                f"write that, such as {value:%Y-%m-%dT%H:%M}, without a zone"
            )
        return value
    return datetime.combine(value, default)


# --- loading -------------------------------------------------------------------------------


def _load_all(
    folders: dict[Path, Path | None],
    failed: dict[Path, Exception],
    wanted: _SessionFilter,
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
            failed[folder] = FormatError(
                f"{folder}: the filters cannot be applied to it ({error})"
            )
    if not chosen and not failed:
        wanted.check_names(folders)
    loaded: dict[Path, MswSession] = {}
    notes: dict[Path, list[str]] = {}

    def load(folder: Path) -> None:
        try:
            loaded[folder], notes[folder] = load_with_notes(folder, folders[folder])
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
    apply: Callable[..., Iterable[None]] = map
    with contextlib.ExitStack() as stack:
        if workers > 1 and len(folders) > 1:
            pool = ThreadPoolExecutor(workers)
            stack.callback(pool.shutdown, cancel_futures=True)
            apply = pool.map
        done = apply(load, folders)
        for _ in tqdm(done, "sessions", len(folders), unit="session", disable=None):
            pass
