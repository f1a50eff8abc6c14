"""Saving and resuming sessions: each save is all or nothing, and writes what changed."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import xarray as xr

from labtree.errors import (
    FormatError,
    SessionExistsError,
    damage_as_format_error,
    missing_file,
    write_errors_named,
)
from labtree.formats import recognize
from labtree.pipeline.sessions import (
    CONTENT_KEY,
    FORMAT,
    FORMAT_VERSION,
    SAVED_KEY,
    check_session,
    content_hash,
    session_path,
)
from labtree.pipeline.step_records import holds_lazy_arrays
from labtree.storage import open_tree
from labtree.storage.catalogue import file_version
from labtree.storage.files import is_same_file, retry_while_busy, with_suffix_h5
from labtree.storage.folders import make_folders
from labtree.storage.saving import remember_file, save_tree_again
from labtree.storage.versions import check_version


def _write(session: xr.DataTree, path: Path, **attrs: Any) -> str:
    """Write the session with the hash of its content, and return that."""
    check_session(session)
    content = content_hash(session)
    with write_errors_named(path):
        make_folders(path.parent)
    tree = session.copy()
    kept = {k: v for k, v in session.attrs.items() if k not in (SAVED_KEY, CONTENT_KEY)}
    # arrays that are read only now have a hash of where they come from, not of their values
    known = "" if holds_lazy_arrays(session) else content
    tree.attrs = {**kept, CONTENT_KEY: known, **attrs}
    retry_while_busy(lambda: save_tree_again(session, tree, path))
    return content


def _check_target(session: xr.DataTree, path: Path, overwrite: bool, call: str) -> None:
    imported = session.attrs.get("imported", {})
    if imported.get("path") and is_same_file(path, Path(imported["path"])):
        raise SessionExistsError(
            f"{path} is the {imported['format']} file that the session was imported from and "
            f"is not replaced. Save elsewhere: session.session.save('other.h5')"
        )
    if not overwrite and path.exists():
        raise SessionExistsError(
            f"{path} exists; call session.session.{call}overwrite=True) to replace it, or "
            "session.session.save('other.h5')"
        )
    if path.is_file() and str(path.resolve()) != session.attrs.get(SAVED_KEY, {}).get("path"):
        try:
            there = retry_while_busy(lambda: recognize(path))
        except FormatError:  # damaged, or cut short by a crash
            return
        if there.name not in _REPLACED:
            raise SessionExistsError(
                f"{path} is {there.what}, no pipeline session, and is not replaced; remove it "
                f"first, or call session.session.{call.partition('(')[0]}('other.h5')"
            )


#: The formats that a session may replace.
_REPLACED = ("pipeline", "hdmea")


def save(
    session: xr.DataTree, output_path: str | Path | None = None, overwrite: bool = True
) -> Path:
    """Save the session, as ``session.save`` does; it is SAVED then, until something changes.

    Raises
    ------
    SessionExistsError
        If the file exists and may not be replaced, or holds something else than a session.
    BusyFileError
        If another program holds the file.
    """
    check_session(session)
    path = with_suffix_h5(output_path) if output_path is not None else session_path(session)
    _check_target(session, path, overwrite, "save(")
    saved_at = datetime.now(UTC).isoformat()
    content = _write(session, path, saved_at=saved_at)
    if holds_lazy_arrays(session):  # those of the file itself are read from the new one now
        content = content_hash(session)
    session.attrs["saved_at"] = saved_at
    session.attrs[SAVED_KEY] = {"path": str(path.resolve()), "content": content}
    return path


def checkpoint(session: xr.DataTree, path: str | Path, overwrite: bool = True) -> Path:
    """Write the session, as ``session.checkpoint`` does; its state and own file stay.

    Raises
    ------
    SessionExistsError, BusyFileError
        As :func:`save`.
    """
    target = with_suffix_h5(path)
    _check_target(check_session(session), target, overwrite, f"checkpoint({str(path)!r}, ")
    _write(session, target, checkpoint_at=datetime.now(UTC).isoformat())
    return target


def find_session_file(path: str | Path) -> Path:
    """Return the file that a path names, with or without ``.h5``.

    Raises
    ------
    MissingFileError
    FormatError
        If it is not an HDF5 file.
    """
    found = Path(path) if Path(path).is_file() else with_suffix_h5(path)
    if not found.is_file():
        if Path(path).is_dir():
            raise FormatError(
                f"{path} is a folder; a pipeline session is a file, such as day.h5"
            )
        raise missing_file(f"{found}: there is no such file", found)
    if not h5py.is_hdf5(found):
        raise FormatError(
            f"{found} is not an HDF5 file; expected a session that session.session.save() or "
            ".checkpoint(path) wrote"
        )
    return found


def open_session_file(path: str | Path) -> xr.DataTree:
    """Open a saved session or checkpoint without reading its arrays.

    Raises
    ------
    MissingFileError
        If there is no file.
    BusyFileError
        If another program holds it.
    FormatError
        If the file is not a session that labtree saved, is damaged, or of an unknown version.
    """
    found = find_session_file(path)
    with damage_as_format_error(found):
        tree = retry_while_busy(lambda: open_tree(found))
    try:
        _check_format(tree, found)
        with damage_as_format_error(found):
            # arrays that are still in the file count as what they are, not by their content
            content = content_hash(tree)
    except BaseException:
        tree.close()
        raise
    tree.attrs[SAVED_KEY] = {"path": str(found.resolve()), "content": content}
    return tree


def _check_format(tree: xr.DataTree, path: Path) -> None:
    kind, version = tree.attrs.get("labtree_format"), tree.attrs.get("labtree_format_version")
    if kind != FORMAT:
        raise FormatError(
            f"{path} is not a session that labtree saved; found format {kind!r}. Where another "
            "program wrote it, as hdmea does, import it and save it first: "
            f"labtree.load_session({str(path)!r}).session.save('other.h5')"
        )
    check_version(version, FORMAT_VERSION, path)


def load_saved_session(path: str | Path) -> xr.DataTree:
    """Load a session or checkpoint that labtree saved into memory.

    Raises
    ------
    MissingFileError, BusyFileError, FormatError
        As :func:`open_session_file`.
    """
    version = file_version(find_session_file(path))
    lazy = open_session_file(path)
    found = Path(lazy.attrs[SAVED_KEY]["path"])
    try:
        with damage_as_format_error(found):
            for node in lazy.subtree:  # DataTree.load skips variables named like a node
                for variable in node.variables.values():
                    variable.load()
            session = lazy.copy()
    finally:
        lazy.close()
    content = session.attrs.pop(CONTENT_KEY, "") or content_hash(session)
    session.attrs[SAVED_KEY] = {"path": str(found), "content": content}
    remember_file(session, found, version)
    return session
