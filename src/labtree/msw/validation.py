"""A check of one session's folder, for people and scripts."""

from pathlib import Path
from typing import Any

from labtree.errors import FormatError, LabtreeError
from labtree.msw.formats import read_folder
from labtree.msw.loading import to_session
from labtree.msw.log import count_logged_trials
from labtree.msw.measures import check_trials
from labtree.msw.models import ValidationResult
from labtree.msw.names import parse_acquisition_basename

__all__ = ["validate_session"]


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
    session = to_session(folder, contents)
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
