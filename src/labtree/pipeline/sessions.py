"""Pipeline sessions: a DataTree that a pipeline fills, step by step.

What a session knows about itself stands in the attributes of its root (ids, completed
steps and their records, warnings, source files, versions), so that it survives every
copy and every file.
"""

import enum
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from labtree._version import __version__
from labtree.errors import ConfigurationError, SessionError
from labtree.pipeline.step_records import digest, fingerprint_items
from labtree.storage._xarray import data_of

FORMAT = "labtree-pipeline-session"
FORMAT_VERSION = 1
SAVED_KEY = "labtree_saved"  # where the session was saved, and the hash of its content
CONTENT_KEY = "labtree_content"  # that hash, in the file
# Of the root, what changes by saving and is no content.
UNSAVED = (SAVED_KEY, CONTENT_KEY, "saved_at", "checkpoint_at")


class SaveState(enum.Enum):
    """Whether what is in memory is also in the session's file."""

    DEFERRED = "deferred"
    SAVED = "saved"


def versions() -> dict[str, str]:
    """Return the versions of what computes: Python, numpy, xarray, labtree."""
    return {
        "labtree": __version__,
        "numpy": np.__version__,
        "xarray": xr.__version__,
        "python": platform.python_version(),
    }


def check_dataset_id(dataset_id: Any) -> str:
    """Return the id if a file can be called so."""
    if not isinstance(dataset_id, str) or not dataset_id.strip():
        raise ConfigurationError(f"dataset_id must be a non-empty string, got {dataset_id!r}")
    if set(dataset_id) & set('/\\\0:*?"<>|') or dataset_id in (".", ".."):
        raise ConfigurationError(
            f'dataset_id {dataset_id!r} cannot name a file; leave out / \\ : * ? " < > |'
        )
    return dataset_id


def recording_file(name: str, path: str | Path) -> Path:
    """Return the file that a parameter such as ``cmcr_path`` names, by its suffix ``.cmcr``.

    Raises
    ------
    ConfigurationError
        If its name ends in something else.
    """
    found, suffix = Path(path), f".{name.removesuffix('_path')}"
    if found.suffix.lower() != suffix:
        raise ConfigurationError(f"{name} must be a {suffix} file, got {str(found)!r}")
    return found


def create_session(
    dataset_id: str | None = None,
    *,
    cmcr_path: str | Path | None = None,
    cmtr_path: str | Path | None = None,
    output_dir: str | Path = "artifacts",
) -> xr.DataTree:
    """Return an empty pipeline session, in memory and not saved.

    Parameters
    ----------
    dataset_id : str, optional
        Without it, the name of the CMTR (else CMCR) file without its suffix and
        trailing dashes.
    cmcr_path, cmtr_path : path, optional
        Files of the recording, noted as source files.
    output_dir : path
        Where ``session.session.save()`` puts ``{dataset_id}.h5``.

    Returns
    -------
    DataTree

    Raises
    ------
    ConfigurationError
        If there is neither an id nor a file, or if the id cannot name a file.

    Examples
    --------
    >>> create_session(cmtr_path="2026.01.15-10.00.00-Rec-.cmtr").attrs["dataset_id"]
    '2026.01.15-10.00.00-Rec'
    """
    given = {"cmcr_path": cmcr_path, "cmtr_path": cmtr_path}
    sources = {
        name: recording_file(name, path) for name, path in given.items() if path is not None
    }
    if dataset_id is None:
        if not sources:
            raise ConfigurationError(
                "a session needs an id or a file: labtree.create_session('rec1') or "
                "labtree.create_session(cmcr_path=..., cmtr_path=...)"
            )
        dataset_id = sources.get("cmtr_path", sources.get("cmcr_path", Path())).stem.rstrip("-")
    tree = xr.DataTree()
    tree.attrs = {
        "labtree_format": FORMAT,
        "labtree_format_version": FORMAT_VERSION,
        "dataset_id": check_dataset_id(dataset_id),
        "created_at": datetime.now(UTC).isoformat(),
        "output_dir": str(output_dir),
        "source_files": {name: str(path) for name, path in sources.items()},
        "completed_steps": [],
        "warnings": [],
        "steps": [],
        "versions": versions(),
    }
    return tree


def is_session(tree: xr.DataTree) -> bool:
    """Return whether a tree is the root of a pipeline session."""
    return tree.attrs.get("labtree_format") == FORMAT


def check_session(tree: Any) -> xr.DataTree:
    """Return the tree if it is a pipeline session.

    Raises
    ------
    SessionError
        If it is anything else; the message says how to make one.
    """
    if not isinstance(tree, xr.DataTree) or not is_session(tree):
        if (saved := getattr(tree, "hdf5_path", None)) is not None:
            raise SessionError(
                f"a {type(tree).__name__} is no session, but says where one is saved; write "
                f"session = labtree.load_session({str(saved)!r})"
            )
        raise SessionError(
            f"expected a pipeline session, got {type(tree).__name__}; make one with "
            "labtree.create_session(...) or labtree.load_session(path)"
        )
    return tree


class ReadOnlyList(list[str]):
    """A list that refuses changes, which would not reach the session."""

    def _refuse(self, *args: object, **kwargs: object) -> Any:
        raise SessionError(
            "this list is a copy, and a change of it would be lost; write "
            "session.session.add_warning(text)"
        )

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse


def completed_steps(session: xr.DataTree) -> frozenset[str]:
    """Return the names of the steps that are done."""
    return frozenset(session.attrs.get("completed_steps", ()))


def session_warnings(session: xr.DataTree) -> list[str]:
    """Return the warnings that steps and users left in the session."""
    return ReadOnlyList(session.attrs.get("warnings", ()))


def add_warning(session: xr.DataTree, text: str) -> None:
    """Keep a warning in the session, each text once."""
    if not isinstance(text, str) or not text:
        raise SessionError(f"a warning must be a non-empty string, got {text!r}")
    if text not in session.attrs.get("warnings", ()):
        session.attrs["warnings"] = [*session.attrs.get("warnings", ()), text]


def source_files(session: xr.DataTree) -> Mapping[str, Path]:
    """Return the files that the session was made from, by name; read-only."""
    files = session.attrs.get("source_files", {})
    return MappingProxyType({name: Path(path) for name, path in files.items()})


def units_of(session: xr.DataTree) -> xr.Dataset:
    """Return the Dataset of units.

    Raises
    ------
    SessionError
        If the session has no units yet.
    """
    if "units" not in session.children:
        raise SessionError(
            f"session {session.attrs.get('dataset_id')!r} has no units yet; load them with "
            "labtree.mea.load_recording(session=session, ...) or add them with "
            "session.session.add_units({...})"
        )
    return session.children["units"].to_dataset(inherit=False)


def unit_count(session: xr.DataTree) -> int:
    """Return the number of units."""
    return int(session["units"].sizes.get("unit", 0)) if "units" in session.children else 0


def session_path(session: xr.DataTree) -> Path:
    """Return where the session is saved if no path is given."""
    return Path(session.attrs["output_dir"]) / f"{session.attrs['dataset_id']}.h5"


def mark_step_complete(session: xr.DataTree, name: str) -> None:
    """Note that a step is done."""
    done = session.attrs.get("completed_steps", [])
    if name not in done:
        session.attrs["completed_steps"] = [*done, name]


def content_hash(session: xr.DataTree) -> str:
    """Return a hash of everything in the session except where and when it was saved."""
    return digest(fingerprint_items(session, ignore_root=UNSAVED))


def save_state(session: xr.DataTree) -> SaveState:
    """Return SAVED if the session's file holds exactly what is in memory, else DEFERRED.

    Any change counts, however it was made: the content is compared, about 0.03 s for
    100 MB.
    """
    saved = session.attrs.get(SAVED_KEY)
    if not saved or not Path(saved["path"]).is_file():
        return SaveState.DEFERRED
    same = saved["content"] == content_hash(session)
    return SaveState.SAVED if same else SaveState.DEFERRED


def hdf5_path(session: xr.DataTree) -> Path | None:
    """Return the file that the session was last saved to or loaded from."""
    saved = session.attrs.get(SAVED_KEY)
    return Path(saved["path"]) if saved else None


def _bytes(value: Any, seen: set[int]) -> int:
    if isinstance(value, np.ndarray):
        owner = value
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if id(owner) in seen:
            return 0
        seen.add(id(owner))
        objects = value.ravel().tolist() if value.dtype.hasobject else ()
        return value.nbytes + sum(map(sys.getsizeof, objects))
    if isinstance(value, Mapping):
        return sum(_bytes(member, seen) for member in value.values())
    if isinstance(value, (list, tuple, set)):
        return sum(_bytes(member, seen) for member in value)
    return sys.getsizeof(value)


def memory_estimate_gb(session: xr.DataTree) -> float:
    """Return the size of all that is in memory, in GiB; shared arrays count once.

    Every node counts, with metadata, features, sections and attributes. Arrays that
    are still in a file do not.
    """
    seen: set[int] = set()
    total = 0
    for node in session.subtree:
        dataset = node.to_dataset(inherit=False)
        total += _bytes(dataset.attrs, seen)
        for variable in dataset.variables.values():
            total += _bytes(variable.attrs, seen)
            if isinstance(variable, xr.IndexVariable):
                total += _bytes(np.asarray(variable.values), seen)
            elif isinstance(data_of(variable), np.ndarray):
                total += _bytes(data_of(variable), seen)
    return total / 2**30
