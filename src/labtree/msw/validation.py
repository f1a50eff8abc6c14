"""Whether a session's folder holds what it should, readable and consistent."""

from pathlib import Path
from typing import Any

from labtree.errors import LabtreeError
from labtree.msw.measures import check_times, check_trials
from labtree.msw.metadata_validators import validate_metadata
from labtree.msw.models import MswSession, ValidationResult
from labtree.msw.session_files import read_folder, setting_of_task
from labtree.msw.sessions import to_session

__all__ = ["validate_session"]


def validate_session(session_dir: str | Path) -> ValidationResult:
    """Check a session's folder: whether everything is there, readable and consistent.

    Parameters
    ----------
    session_dir : path
        A session's folder.

    Returns
    -------
    ValidationResult
        ``passed`` if there are no ``issues``. A folder that cannot be loaded at all is
        an issue, not an exception; `print` shows the result.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.msw import make_trials, write_session
    >>> folder = write_session("mouse", trials=make_trials(20))
    >>> labtree.msw.validate_session(folder).passed
    True
    """
    folder = Path(session_dir)
    try:
        files = read_folder(folder)
    except (LabtreeError, OSError) as error:
        return ValidationResult(
            session_dir=folder,
            msw_version="unknown",
            passed=False,
            issues=str(error).splitlines(),
            warnings=[],
            info={},
        )
    session = to_session(folder, files)
    issues = files.damage + _missing_parts(session)
    warnings = list(files.remarks)
    info: dict[str, Any] = {
        "format": session.artifact_format,
        "subject": session.subject,
        "task": session.task,
        "trials": session.n_trials,
    }
    if not session.datetime_str:
        warnings.append(
            f"{folder}: {session.basename!r}, which its files are named by, is no session's "
            "name; subject, task and moment are unknown"
        )
    elif folder.name != session.basename:
        warnings.append(f"{folder}: its files are named {session.basename!r}")
    process = session.settings_process or {}
    stated = {"subject": process.get("subject"), "task": setting_of_task(process)}
    for key, value in stated.items():
        named = getattr(session, key)
        if value and named and value != named:
            warnings.append(f"the files' names say {key} {named!r}, the settings {value!r}")
    for name, (n_ended, n_read) in files.logged.items():
        info[f"trials in {name}"] = n_ended
        if n_ended != n_read:
            issues.append(f"{name} has {n_ended} trials that ended, its trial file {n_read}")
    for part, texts in validate_metadata(session.metadata).items():
        warnings += [f"metadata.{part}: {text}" for text in texts]
    if session.df is not None:
        issues += check_times(session.df)
        warnings += check_trials(session.df)
    return ValidationResult(
        session_dir=folder,
        msw_version=session.msw_version,
        passed=not issues,
        issues=issues,
        warnings=warnings,
        info=info,
    )


def _missing_parts(session: MswSession) -> list[str]:
    """Return messages on the required parts that a session lacks."""
    needs = {
        "trials": session.df is not None,
        "settings.task": session.settings_task is not None,
        "settings.process": session.settings_process is not None,
    }
    sources = {
        "trials": "a *.msw.df.jsonl file with trials",
        "settings.task": {
            "session_yaml": "the section task_settings of *.msw.session.yaml",
            "legacy": "*task_settings.py",
        }.get(session.artifact_format, "*.msw.settings.task.json"),
        "settings.process": {
            "session_yaml": "the section process of *.msw.session.yaml",
        }.get(session.artifact_format, "*.msw.settings.process.json"),
    }
    if session.df is not None and session.is_complete:
        return []
    if session.artifact_format == "legacy":
        needs["settings.process"] = True
    return [
        f"{session.session_dir}: {part} missing; expected {sources[part]}"
        for part, is_there in needs.items()
        if not is_there
    ]
