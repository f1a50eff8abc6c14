"""Which of many sessions are asked for: by subject, task and moment."""

import contextlib
from collections.abc import Iterable
from datetime import date, datetime, time
from pathlib import Path

from labtree.errors import FormatError, LabtreeError, unknown_name
from labtree.msw.names import AcquisitionName, parse_acquisition_basename
from labtree.msw.session_files import read_settings, setting_of_task
from labtree.msw.session_folders import list_folder, session_basename

__all__ = ["SessionFilter"]


class SessionFilter:
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
        self.since = None if since is None else _moment(since, time.min)
        self.until = None if until is None else _moment(until, time.max)
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
        if not (
            self.subject in (None, parts["subject"])
            and (self.since is None or parts["datetime"] >= self.since)
            and (self.until is None or parts["datetime"] <= self.until)
        ):
            return False
        return self.task is None or self.task == _task_of(folder, parts)

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
        return value.replace(tzinfo=None)
    return datetime.combine(value, default)
