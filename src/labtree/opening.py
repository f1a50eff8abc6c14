"""Opening files and folders of any format, by their content."""

from pathlib import Path
from typing import Literal

import xarray as xr

from labtree.errors import FormatError, LossWarning, MissingDependencyError, warn
from labtree.formats import find, is_recording, recognize, takes


def open(path: str | Path) -> xr.DataTree:
    """Open a file or folder of any format that labtree knows, by its content.

    Parameters
    ----------
    path
        A workspace (a file, a ``.zarr`` folder, a URL of one), a SpikeLab file, a
        recording's folder or zip, an NWB file, a folder of Kilosort or Phy, a pipeline or
        hdmea session, a CMCR or CMTR file, a Murine Shift Work session folder, or any
        netCDF-4 file.

    Returns
    -------
    xarray.DataTree
        Lazy where the format allows it.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    FormatError
        If it is none of these; the message says what it looks like.

    Examples
    --------
    >>> import labtree, tempfile
    >>> tree = labtree.create_workspace()
    >>> tree.ws.store("rec1", "answer", 42)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = tree.ws.save(f"{folder}/study")
    ...     with labtree.open(path) as opened:
    ...         opened.ws["rec1", "answer"]
    42
    """
    if "://" in str(path):
        from labtree.workspace.workspace_files import open_workspace

        return open_workspace(path)
    return recognize(path).open(find(path))


@takes("a pipeline session", "pipeline", "hdmea")
def load_session(path: str | Path) -> xr.DataTree:
    """Load a pipeline session or checkpoint into memory, ready to continue where it stopped.

    Completed steps, warnings, features, metadata and every type come back as they
    were. The session is SAVED: its file holds what is in memory. Sessions, checkpoints
    and files of immediate mode that hdmea saved are imported, and not saved yet.

    Parameters
    ----------
    path
        With or without ``.h5``.

    Returns
    -------
    xarray.DataTree

    Raises
    ------
    MissingFileError
        If there is no file.
    BusyFileError
        If another program holds it.
    FormatError
        If the file is not a pipeline session, is damaged, or of an unknown version.

    Examples
    --------
    >>> import labtree, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = labtree.create_session("rec1").session.save(f"{folder}/rec1.h5")
    ...     session = labtree.load_session(path)
    >>> session.attrs["dataset_id"], session.session.completed_steps
    ('rec1', frozenset())
    """
    from labtree.interop.hdmea import import_hdmea, is_hdmea
    from labtree.pipeline.checkpoints import find_session_file, load_saved_session

    found = find_session_file(path)
    return import_hdmea(found) if is_hdmea(found) else load_saved_session(found)


def open_session(
    path: str | Path, *, on_missing: Literal["warn", "raise"] = "warn"
) -> xr.DataTree:
    """Open a saved session as a lazy tree: a recording, or a pipeline's session.

    Parameters
    ----------
    path
        A recording's folder or ``.session.zip``, a pipeline session or checkpoint, a
        session of hdmea, or a Murine Shift Work session folder.
    on_missing
        What to do about damage in a recording; see
        :func:`labtree.recording.open_recording`.

    Returns
    -------
    DataTree
        Lazy; see ``tree.session``.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    FormatError
        If it is no session; the message says what it is.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> tree = labtree.open_session(record_emg("sessions"))
    >>> list(tree.session.streams)
    ['emg', 'force']
    """
    from labtree.recording import session as recordings

    if Path(path).suffix == ".zip" or is_recording(Path(path)):
        return recordings.open_recording(path, on_missing=on_missing)
    found = recognize(path)
    if not found.is_session:
        line = found.line.format(repr(str(path)))
        raise FormatError(f"{path} is {found.what}, not a session; write {line}")
    return found.open(find(path))


def open_nwb(path: Path) -> xr.DataTree:
    """Open an NWB file as a workspace; where pynwb lacks, as the plain tree that is in it."""
    from labtree.interop.nwb import import_nwb

    try:
        return import_nwb(path)
    except MissingDependencyError as error:
        if path.is_dir():
            raise
        warn(
            f"{path} is an NWB file and opens as the plain tree that is in it: {error}",
            LossWarning,
        )
        return open_saved_tree(path)


def open_msw(path: Path) -> xr.DataTree:
    """Open a Murine Shift Work session as a tree."""
    from labtree.msw import load_session

    return load_session(path).to_tree()


def open_saved_tree(path: Path) -> xr.DataTree:
    """Open a tree that labtree saved, whatever it holds: a file, or a zarr store."""
    from labtree.storage import open_tree
    from labtree.storage.zarr.trees import open_zarr_tree

    return open_zarr_tree(path) if path.is_dir() else open_tree(path)
