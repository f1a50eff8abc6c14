"""A session in one typed object: loaded from its folder, as a tree, and what it shows."""

import contextlib
from pathlib import Path
from typing import Annotated, Any, Self

import pandas as pd
import xarray as xr
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)

from labtree.display import Panel, Section, truncate
from labtree.errors import FormatError, TrialTableError
from labtree.formats import takes
from labtree.msw.msw_panel import count_trials
from labtree.msw.session_files import SessionFiles, read_folder, setting_of_task
from labtree.msw.session_folders import ArtifactFormat, identify
from labtree.msw.session_names import parse_container_name
from labtree.msw.session_trees import (
    SESSION_ATTRIBUTE,
    is_msw_session,
    trials_from_xarray,
    trials_to_xarray,
)
from labtree.msw.trial_file import warn_of_damage
from labtree.storage import json_values


def _from_json(value: Any, info: ValidationInfo) -> Any:
    return json_values.decode(value) if info.mode == "json" else value


_Settings = Annotated[
    dict[Any, Any],
    BeforeValidator(_from_json),
    # Tuples and keys that are not text are marked.
    PlainSerializer(json_values.encode, when_used="json"),
    WithJsonSchema({"type": "object"}),
]


def _is_frame(value: Any) -> Any:
    if value is not None and not isinstance(value, pd.DataFrame):
        raise ValueError(f"expected a DataFrame or None, found a {type(value).__name__}")
    return value


# Any, because type checkers do not know df.msw.
_Frame = Annotated[Any, BeforeValidator(_is_frame), WithJsonSchema({"type": "null"})]


class MswSession(BaseModel):
    """One session: where it is, what was set, and its trials.

    ``model_dump_json`` and ``model_validate_json`` are exact inverses for everything except
    the trials, which they leave out. Two sessions are equal if all fields and trials are
    equal.

    Attributes
    ----------
    session_dir : pathlib.Path
        The folder it was read from.
    basename, subject, datetime_str, task : str
        What the names of the session's files say, whatever its folder is called; "" where
        they do not parse. A name without a task gets that of the settings, or else its
        type.
    acq_type, session_type : str
        What is recorded, by the names ("msw" where they have no type), and the type in
        the name of the folder above; "" for none.
    namespace_version : str or None
        The precision of the name's moment: "v1" (microseconds) or "legacy" (seconds);
        None if the name does not parse. See also
        `labtree.msw.identify_namespace_version`.
    artifact_format : str
        "session_yaml", "separate_json", "legacy" or "manifest".
    msw_version : str
        What recorded it; "legacy" or "< 1.0.0" where the settings do not say.
    df : pandas.DataFrame or None
        One row per trial, as `labtree.msw.trials_to_frame` returns it; None if there are none.
    n_trials : int
        Rows of the trial file, barcodes and other rows included.
    settings_task, settings_process, settings_stage, settings_ephys : dict or None
        As they were written.
    subprotocols : list of dict or None
        A manifest's entries.
    metadata : dict or None
        Of the session's manifest, the acquisition's manifest and the session, merged.
    is_complete : bool
        Trials and settings are there.
    is_ephys : bool
        It belongs to an ephys recording.
    acquisition_name : str or None
        The name of the container that the session lies in, where it was loaded from one.
    acquisition_dir : pathlib.Path or None
        The container's folder.
    """

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, ser_json_inf_nan="constants"
    )

    session_dir: Path
    basename: str
    subject: str
    datetime_str: str
    task: str
    acq_type: str = ""
    session_type: str = ""
    namespace_version: str | None = None
    artifact_format: ArtifactFormat
    msw_version: str
    df: _Frame = Field(default=None, exclude=True, repr=False)
    n_trials: int = 0
    settings_task: _Settings | None = None
    settings_process: _Settings | None = None
    settings_stage: _Settings | None = None
    settings_ephys: _Settings | None = None
    subprotocols: list[_Settings] | None = None
    metadata: _Settings | None = None
    is_complete: bool = False
    is_ephys: bool = False
    acquisition_name: str | None = None
    acquisition_dir: Path | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MswSession):
            return NotImplemented
        # repr shows NaN and null as different, and the same NaN as equal.
        if BaseModel.__repr__(self) != BaseModel.__repr__(other):
            return False
        if self.df is None or other.df is None:
            return self.df is other.df
        return bool(self.df.equals(other.df))

    def __repr__(self) -> str:
        return _panel(self).text()

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return _panel(self).html()

    @property
    def host_session_name(self) -> str | None:
        """The name of the ephys session that this one belongs to."""
        name = (self.settings_ephys or {}).get("session_name")
        return None if name is None else str(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict, the trials included."""
        return self.model_dump() | {"df": self.df}

    def to_tree(self, recording: xr.DataTree | None = None) -> xr.DataTree:
        """Return the session as a tree for workspaces and files.

        Parameters
        ----------
        recording : xarray.DataTree, optional
            A session's tree with ``streams`` and any other groups.

        Returns
        -------
        xarray.DataTree
            Groups ``trials`` (see ``df.msw.to_xarray``) and ``metadata``, and those of
            `recording`. The latter are neither computed nor copied.

        Raises
        ------
        TrialTableError
            `recording` has a group of one of these names already.
        """
        tree = xr.DataTree() if recording is None else recording.copy(inherit=False)
        taken = {"trials", "metadata"} & set(tree.children)
        if taken:
            raise TrialTableError(
                f"the recording's tree has {', '.join(sorted(taken))} already; rename or drop "
                "these groups first"
            )
        attributes = {
            "session_id": self.basename,
            "subject": self.subject,
            "task": self.task,
            "session_datetime": self.datetime_str,
            "msw_version": self.msw_version,
        }
        tree.attrs = attributes | tree.attrs
        content = attributes | {SESSION_ATTRIBUTE: self.model_dump_json()}
        tree["metadata"] = xr.DataTree(xr.Dataset(attrs=content))
        if self.df is not None:
            tree["trials"] = xr.DataTree(trials_to_xarray(self.df))
        return tree

    @classmethod
    def from_tree(cls, tree: xr.DataTree) -> Self:
        """Return the session that `to_tree` wrote, its trials included.

        Raises
        ------
        TrialTableError
            The tree has no ``metadata`` group of such a session.
        """
        if not is_msw_session(tree):
            raise TrialTableError(
                "this tree has no Murine Shift Work session; expected /metadata with the "
                f"attribute {SESSION_ATTRIBUTE!r}, as session.to_tree() writes it"
            )
        session = cls.model_validate_json(tree.children["metadata"].attrs[SESSION_ATTRIBUTE])
        if "trials" in tree.children:
            session.df = trials_from_xarray(tree.children["trials"].to_dataset(inherit=False))
        return session


def session_in_words(session: MswSession) -> tuple[str, str, str, str]:
    """Return a session's subject, task, moment and trials, "" for what is not known."""
    when = session.datetime_str
    when = f"{when[:4]}-{when[4:6]}-{when[6:8]} {when[9:11]}:{when[11:13]}" if when else ""
    trials = "no trials" if session.df is None else count_trials(session.df)
    return truncate(session.subject), truncate(session.task, 60), when, trials


def _panel(session: MswSession) -> Panel:
    facts = [
        ("folder", str(session.session_dir)),
        (
            "recorded by",
            f"msw {session.msw_version}, files of the kind {session.artifact_format}",
        ),
        ("part of", session.acquisition_name or session.host_session_name or ""),
        ("complete", "yes" if session.is_complete else "no: trials or settings are missing"),
    ]
    sections = [Section("", [fact for fact in facts if fact[1]], ("muted", "text"))]

    def add(title: str, rows: list[tuple[Any, Any]], columns: tuple[str, str]) -> None:
        sections.append(Section(title, rows, columns, str(len(rows)), is_open=False))

    if session.df is not None:
        add("columns of df", list(session.df.dtypes.items()), ("name", "muted"))
    for name in ("settings_task", "settings_process", "settings_stage", "settings_ephys"):
        if settings := getattr(session, name):
            rows = [(key, truncate(value, 200)) for key, value in settings.items()]
            add(name, rows, ("name", "text"))
    about = ", ".join(filter(None, session_in_words(session)[1:]))
    title = " ".join(filter(None, ["labtree mouse session", truncate(session.subject, 40)]))
    calls = (
        ".df", ".df.msw", ".df.msw.plot()", ".to_tree(recording)", ".settings_task",
        ".metadata",
    )  # fmt: skip
    return Panel(title, about, sections, calls)


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
        The name and folder of its container; None if the session is loaded on its own.
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
    session, notes = load_with_notes(Path(session_dir), nested=nested)
    if acquisition_name is not None:
        session.acquisition_name = acquisition_name
    if acquisition_dir is not None:
        session.acquisition_dir = Path(acquisition_dir)
    warn_of_damage(notes)
    return session


def load_with_notes(
    folder: Path, container: Path | None = None, *, nested: bool = False
) -> tuple[MswSession, list[str]]:
    """Load a session of a container; return what was lost or is unusual, too."""
    files = read_folder(folder, nested=nested)
    return to_session(files, container), files.damage + files.remarks


def to_session(files: SessionFiles, container: Path | None = None) -> MswSession:
    """Return the session of what was read of its folder, and of the container it lies in."""
    identity = identify(files.basename)
    task = identity.task
    if identity.datetime_str and not task:
        task = setting_of_task(files.process) or identity.acq_type
    session_type = ""
    with contextlib.suppress(FormatError):
        session_type = parse_container_name(files.folder.absolute().parent.name)["session_type"]
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
        session_dir=files.folder,
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
