"""Whether a session's folder holds what it should, readable and consistent.

Metadata of manifests are checked by what other packages register for their own parts.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from labtree.errors import LabtreeError
from labtree.msw.loading import MswSession, to_session
from labtree.msw.measures import check_times, check_trials
from labtree.msw.session_files import read_folder, setting_of_task


class ValidationResult(BaseModel):
    """What `validate_session` found.

    Attributes
    ----------
    session_dir : pathlib.Path
        The folder that was looked into.
    msw_version : str
        What recorded it, if that could be read.
    passed : bool
        There are no issues.
    issues : list of str
        What is missing or damaged.
    warnings : list of str
        Observations that may be right, and should be checked.
    info : dict
        Counts and names, for people.
    """

    session_dir: Path
    msw_version: str
    passed: bool
    issues: list[str]
    warnings: list[str]
    info: dict[str, Any]

    def __str__(self) -> str:
        head = f"{self.session_dir}: {'passed' if self.passed else 'failed'}"
        lines = [f"  issue: {text}" for text in self.issues]
        lines += [f"  warning: {text}" for text in self.warnings]
        lines += [f"  {key}: {value}" for key, value in self.info.items()]
        return "\n".join([head, *lines])


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
    session = to_session(files)
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
    if session.df is not None and session.is_complete:
        return []
    has_yaml = session.artifact_format == "session_yaml"
    is_legacy = session.artifact_format == "legacy"
    task = "*task_settings.py" if is_legacy else "*.msw.settings.task.json"
    section = "the section {} of *.msw.session.yaml"
    required = [
        ("trials", session.df, "a *.msw.df.jsonl file with trials"),
        (
            "settings.task",
            session.settings_task,
            section.format("task_settings") if has_yaml else task,
        ),
    ]
    if not is_legacy:
        process = section.format("process") if has_yaml else "*.msw.settings.process.json"
        required.append(("settings.process", session.settings_process, process))
    return [
        f"{session.session_dir}: {part} missing; expected {source}"
        for part, found, source in required
        if found is None
    ]


# --- metadata, by the validators of other packages ----------------------------------------

_GROUPS = ("labtree.msw_validators", "msw.metadata")


@runtime_checkable
class MetadataValidator(Protocol):
    """What a package registers to check its own part of manifests' metadata.

    It is named as an entry point of the group ``labtree.msw_validators`` (those of
    ``msw.metadata`` count too), as an object of this shape or a class of such objects.

    Attributes
    ----------
    subtree : str
        The key in ``metadata`` that it checks.
    schema_version : str
        The version of the schema that it checks.
    """

    subtree: str
    schema_version: str

    def validate(self, content: Any) -> list[str]:
        """Return the problems of the part as sentences; an empty list if there are none."""
        ...


def validate_metadata(metadata: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Check the parts of a metadata tree for which a validator is installed.

    Parameters
    ----------
    metadata : dict or None
        For example ``session.metadata``, or ``read_manifest(path)["metadata"]``.

    Returns
    -------
    dict of str to list of str
        What each validator found, by the key of the part. A validator that fails, or
        cannot be loaded, is reported as well; parts without a validator are not.

    Examples
    --------
    >>> validate_metadata({"diary": "rested"})
    {}
    """
    found: dict[str, list[str]] = {}
    for point in _points():
        validator, problem = _loaded(point)
        if problem:
            found.setdefault(point.name, []).append(problem)
        elif metadata and validator is not None and validator.subtree in metadata:
            try:
                messages = [
                    str(text) for text in validator.validate(metadata[validator.subtree])
                ]
            except Exception as error:
                messages = [f"its validator {point.value!r} failed: {error!r}"]
            if messages:
                found.setdefault(validator.subtree, []).extend(messages)
    return found


def _points() -> list[EntryPoint]:
    """Return the entry points, once each, in the order of their names."""
    points = {(p.name, p.value): p for group in _GROUPS for p in entry_points(group=group)}
    return [points[key] for key in sorted(points)]


@cache
def _loaded(point: EntryPoint) -> tuple[MetadataValidator | None, str]:
    try:
        made = point.load()
        made = made() if isinstance(made, type) else made
    except Exception as error:
        return None, f"its validator {point.value!r} cannot be loaded: {error!r}"
    if not isinstance(made, MetadataValidator) or not isinstance(made.subtree, str):
        return None, (
            f"its validator {point.value!r} lacks subtree, schema_version or validate(content)"
        )
    return made, ""
