"""A session in one typed object, and what validation reports."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

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

from labtree.errors import TrialTableError
from labtree.storage import json_values

__all__ = ["ArtifactFormat", "MswSession", "ValidationResult"]

ArtifactFormat = Literal["session_yaml", "separate_json", "legacy", "manifest"]


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

    ``model_dump_json`` and ``model_validate_json`` are exact inverses for everything but
    the trials, which stay out of it. Two sessions are equal if all of it and their trials
    are.

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
        from labtree.msw.msw_panel import loaded_session_panel

        return loaded_session_panel(self).text()

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from labtree.msw.msw_panel import loaded_session_panel

        return loaded_session_panel(self).html()

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
            `recording`. Nothing is computed or copied of the latter.

        Raises
        ------
        TrialTableError
            `recording` has a group of one of these names already.
        """
        from labtree.msw.trees import session_to_tree

        return session_to_tree(self, recording)

    @classmethod
    def from_tree(cls, tree: xr.DataTree) -> Self:
        """Return the session that `to_tree` wrote, its trials included.

        Raises
        ------
        TrialTableError
            The tree has no ``metadata`` group of such a session.
        """
        from labtree.msw.trees import trials_from_xarray

        metadata = tree.children.get("metadata")
        written = None if metadata is None else metadata.attrs.get("msw_session")
        if written is None:
            raise TrialTableError(
                "this tree has no Murine Shift Work session; expected /metadata with the "
                "attribute 'msw_session', as session.to_tree() writes it"
            )
        session = cls.model_validate_json(written)
        if "trials" in tree.children:
            session.df = trials_from_xarray(tree.children["trials"].to_dataset(inherit=False))
        return session


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
        What may be right, and should be looked at.
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
