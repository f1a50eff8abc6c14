"""Saving and resuming sessions; every file is written whole or not at all."""

import errno
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import h5py
import xarray as xr

from labtree.errors import AlreadyExistsError, CheckpointError, FormatError, MissingFileError
from labtree.pipeline.sessions import (
    CONTENT_KEY,
    FORMAT,
    FORMAT_VERSION,
    SAVED_KEY,
    check_session,
    content_hash,
    session_path,
)

__all__ = ["checkpoint", "load_session", "open_session_file", "save"]

T = TypeVar("T")
RETRY_PAUSES_S = (0.1, 0.3, 0.6)
_BUSY = {errno.EAGAIN, errno.EBUSY, errno.ETXTBSY}
if os.name == "nt":  # Windows refuses files that are open elsewhere with these
    _BUSY |= {errno.EACCES, errno.EPERM}


def _busy(error: OSError) -> bool:
    text = str(error).lower()
    return error.errno in _BUSY or "unable to lock" in text or "resource temporarily" in text


def _patiently(action: Callable[[], T], path: Path, doing: str) -> T:
    """Try again while another program holds the file, then give up with a clear error."""
    for pause in (*RETRY_PAUSES_S, None):
        try:
            return action()
        except OSError as error:
            if not _busy(error):
                raise
            if pause is None:
                raise CheckpointError(
                    f"{path}: cannot {doing} it, another program holds it ({error}); nothing "
                    "was changed. Close it there, or save elsewhere: "
                    "session.session.save('other.h5')"
                ) from error
            time.sleep(pause)
    raise AssertionError("unreachable")


def _h5(path: str | Path) -> Path:
    path = Path(path)
    known = path.suffix.lower() in (".h5", ".hdf5", ".nc")
    return path if known else path.with_name(path.name + ".h5")


def _write(session: xr.DataTree, path: Path, **attrs: Any) -> str:
    """Write the session with the hash of its content, and return that."""
    from labtree.storage import save_tree

    check_session(session)
    content = content_hash(session)
    path.parent.mkdir(parents=True, exist_ok=True)
    tree = session.copy()
    kept = {k: v for k, v in session.attrs.items() if k not in (SAVED_KEY, CONTENT_KEY)}
    tree.attrs = {**kept, CONTENT_KEY: content, **attrs}
    _patiently(lambda: save_tree(tree, path), path, "write")
    return content


def save(
    session: xr.DataTree, output_path: str | Path | None = None, overwrite: bool = True
) -> Path:
    """Save the session; it is SAVED then, until something in it changes.

    Parameters
    ----------
    session : DataTree
    output_path : path, optional
        Without it ``output_dir/{dataset_id}.h5``. Folders are made.
    overwrite : bool
        Whether an existing file may be replaced. It is replaced in one move, after
        the new one is complete on disk.

    Returns
    -------
    Path

    Raises
    ------
    SessionError
        (also a FileExistsError) if the file exists and may not be replaced.
    CheckpointError
        If another program holds the file.
    """
    path = _h5(output_path) if output_path is not None else session_path(check_session(session))
    origin = session.attrs.get("imported", {}).get("path")
    if origin and path.exists() and path.resolve() == Path(origin):
        raise AlreadyExistsError(
            f"{path} is the {session.attrs['imported']['format']} file that the session was "
            "imported from and is not replaced. Save elsewhere: "
            "session.session.save('other.h5')"
        )
    if not overwrite and path.exists():
        raise AlreadyExistsError(
            f"{path} exists; call session.session.save(overwrite=True) to replace it, or "
            "session.session.save('other.h5')"
        )
    saved_at = datetime.now(UTC).isoformat()
    content = _write(session, path, saved_at=saved_at)
    session.attrs["saved_at"] = saved_at
    session.attrs[SAVED_KEY] = {"path": str(path.resolve()), "content": content}
    return path


def checkpoint(session: xr.DataTree, path: str | Path) -> Path:
    """Write the session to a file without changing its state or its own file."""
    target = _h5(path)
    _write(session, target, checkpoint_at=datetime.now(UTC).isoformat())
    return target


def open_session_file(path: str | Path) -> xr.DataTree:
    """Open a saved session or checkpoint without reading its arrays.

    Raises
    ------
    CheckpointError
        (also a FileNotFoundError) if there is no file.
    FormatError
        If the file is not a pipeline session, or of an unknown version.
    """
    from labtree.storage import close_tree, open_tree

    found = Path(path) if Path(path).is_file() else _h5(path)
    if not found.is_file():
        raise MissingFileError(f"{found}: there is no such file; no session to load")
    if not h5py.is_hdf5(found):
        raise FormatError(
            f"{found} is not an HDF5 file; expected a session that session.session.save() or "
            ".checkpoint(path) wrote"
        )
    tree = _patiently(lambda: open_tree(found), found, "open")
    kind, version = tree.attrs.get("labtree_format"), tree.attrs.get("labtree_format_version")
    if kind != FORMAT or version != FORMAT_VERSION:
        close_tree(tree)
        if kind != FORMAT:
            raise FormatError(f"{found} is not a pipeline session; found format {kind!r}")
        raise FormatError(
            f"{found} is a pipeline session of version {version!r}; this labtree reads version "
            f"{FORMAT_VERSION}. Update labtree"
        )
    # arrays that are still in the file count as what they are, not by their content
    tree.attrs[SAVED_KEY] = {"path": str(found.resolve()), "content": content_hash(tree)}
    return tree


def load_session(path: str | Path) -> xr.DataTree:
    """Load a session or checkpoint into memory, ready to go on where it stopped.

    Completed steps, warnings, features, metadata and every type come back as they
    were. The session is SAVED: its file holds what is in memory. hdmea's saved
    sessions and checkpoints are imported.

    Parameters
    ----------
    path : path
        With or without ``.h5``.

    Raises
    ------
    CheckpointError
        (also a FileNotFoundError) if there is no file; if another program holds it.
    FormatError
        If the file is not a pipeline session, or of an unknown version.
    """
    from labtree.interop.hdmea import import_hdmea, is_hdmea
    from labtree.storage import close_tree

    found = Path(path) if Path(path).is_file() else _h5(path)
    if found.is_file() and h5py.is_hdf5(found) and is_hdmea(found):
        return import_hdmea(found)
    lazy = open_session_file(found)
    try:
        session = lazy.load().copy()
    finally:
        close_tree(lazy)
    content = session.attrs.pop(CONTENT_KEY, "")
    session.attrs[SAVED_KEY] = {"path": str(found.resolve()), "content": content}
    return session
