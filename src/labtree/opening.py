"""Opening whatever it is, by its content."""

import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

import h5py
import xarray as xr

from labtree.errors import (
    FormatError,
    LossWarning,
    MissingDependencyError,
    damage_as_format_error,
    missing_file,
    warn,
)
from labtree.hints import takes
from labtree.storage.json_files import read_json

__all__ = [
    "FORMATS",
    "Format",
    "contents",
    "find",
    "instead",
    "load_session",
    "open",
    "open_session",
    "recognize",
]


@dataclass(frozen=True, slots=True)
class Format:
    """A format that labtree opens.

    Parameters
    ----------
    name
        As :func:`recognize` returns it.
    what
        The same in words, with its article.
    opens
        The function that makes a tree of a path.
    is_session
        Whether :func:`open_session` takes it.
    line
        The line to write for a file of it, with its path in the place of ``{}``.
    """

    name: str
    what: str
    opens: Callable[[Path], xr.DataTree]
    is_session: bool = False
    line: str = "labtree.open({})"


@dataclass(frozen=True, slots=True)
class Other:
    """Something that labtree does not open.

    Parameters
    ----------
    what
        In words, with its article.
    line
        What to write instead, with the path in the place of ``{}``; "" where there is none.
    """

    what: str
    line: str = ""


def _workspace(path: Path) -> xr.DataTree:
    from labtree.workspace.files import open_workspace

    return open_workspace(path)


def _spikelab(path: Path) -> xr.DataTree:
    from labtree.interop.spikelab import import_spikelab

    return import_spikelab(path)


def _nwb(path: Path) -> xr.DataTree:
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
        return _tree(path)


def _phy(path: Path) -> xr.DataTree:
    from labtree.interop.phy import import_phy

    return import_phy(path)


def _recording(path: Path) -> xr.DataTree:
    return open_session(path)


def _xdf(path: Path) -> xr.DataTree:
    from labtree.interop.xdf import import_xdf

    return import_xdf(path)


def _pipeline(path: Path) -> xr.DataTree:
    from labtree.pipeline.checkpoints import open_session_file

    return open_session_file(path)


def _hdmea(path: Path) -> xr.DataTree:
    from labtree.interop.hdmea import import_hdmea

    return import_hdmea(path)


def _mcs(path: Path) -> xr.DataTree:
    from labtree.interop.mcs import open_mcs

    return open_mcs(path)


def _msw(path: Path) -> xr.DataTree:
    from labtree.msw import load_session

    return load_session(path).to_tree()


def _tree(path: Path) -> xr.DataTree:
    from labtree.storage import open_tree

    return open_tree(path)


def _session(path: Path) -> xr.DataTree:
    return _zarr(path) if path.is_dir() else _tree(path)


def _zarr(path: Path) -> xr.DataTree:
    from labtree.storage.zarr.trees import open_zarr_tree

    return open_zarr_tree(path)


FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format(
            "workspace", "a labtree workspace", _workspace, False, "labtree.open_workspace({})"
        ),
        Format(
            "spikelab", "a workspace of SpikeLab", _spikelab, False,
            "labtree.import_spikelab({})",
        ),
        Format("nwb", "an NWB file", _nwb, False, "labtree.import_nwb({})"),
        Format("phy", "a folder of Kilosort or Phy", _phy, False, "labtree.import_phy({})"),
        Format(
            "recording", "a recording of labtree or MyoGestic", _recording, True,
            "labtree.open_session({})",
        ),
        Format(
            "xdf", "an XDF file; labtree.import_xdf takes its labels", _xdf, True,
            "labtree.import_xdf({}, 'sessions')",
        ),
        Format("pipeline", "a pipeline session", _pipeline, True, "labtree.load_session({})"),
        Format("hdmea", "a session of hdmea", _hdmea, True, "labtree.load_session({})"),
        Format("mcs", "a CMCR or CMTR file of Multi Channel Systems", _mcs),
        Format(
            "msw", "a Murine Shift Work session", _msw, True, "labtree.msw.load_session({})"
        ),
        Format("session", "a session saved by labtree", _session, True),
        Format("tree", "a netCDF-4 or HDF5 file", _tree),
        Format("zarr", "a zarr store that labtree wrote", _zarr),
    )
}  # fmt: skip
#: What other libraries open, by the end of a file's name.
_OTHERS = {
    (".mat",): Other("a MATLAB file", "scipy.io.loadmat({})"),
    (".csv",): Other("a table of text", "pandas.read_csv({})"),
    (".tsv",): Other("a table of text", "pandas.read_csv({}, sep='\\t')"),
    (".parquet",): Other("a table", "pandas.read_parquet({})"),
    (".xlsx", ".xls"): Other("a table of Excel", "pandas.read_excel({})"),
    (".npy", ".npz"): Other("a numpy file", "numpy.load({})"),
    (".pkl", ".pickle"): Other("a pickle, which runs code when it is read"),
    (".edf", ".bdf", ".vhdr", ".fif", ".set"): Other(
        "a recording that MNE reads", "labtree.from_mne_raw(mne.io.read_raw({}))"
    ),
    (".abf", ".smr", ".smrx", ".plx", ".nev", ".ns5", ".rhd", ".rhs", ".nix"): Other(
        "a recording that neo reads", "labtree.from_neo(neo.get_io({}).read_block())"
    ),
}


# Formats that say nothing of what is in them: other packages are asked before.
_GENERAL = ("tree", "zarr")


def recognize(path: str | Path) -> Format:
    """Return the format of a file or folder, by its content.

    Formats of other packages, which register an object with ``recognizes(path)`` and
    ``open(path)`` under the entry point ``labtree.formats``, are asked about what no format
    of labtree's own describes.

    Raises
    ------
    MissingFileError
        (a FileNotFoundError) There is nothing at `path`.
    FormatError
        (a ValueError) It is of none of the formats; the message says what it looks like.
    """
    found = find(path)
    form = _look(found)
    if isinstance(form, Format):
        return form
    if found.is_dir() and (things := contents(found)):
        raise FormatError(f"{found} is a folder{_listed(things, found)}")
    if form.line:
        raise FormatError(f"{found} is {form.what}; write {form.line.format(repr(str(found)))}")
    raise FormatError(
        f"{found} is {form.what}, and no format that labtree opens (labtree --help lists them)"
    )


def _look(found: Path) -> Format | Other:
    form = _folder(found) if found.is_dir() else _file(found)
    if isinstance(form, Format) and form.name not in _GENERAL:
        return form
    for entry in entry_points(group="labtree.formats"):
        other = entry.load()
        if other.recognizes(found):
            return Format(entry.name, f"a file of the format {entry.name}", other.open)
    return form


def _listed(things: list[tuple[Path, Format]], folder: Path) -> str:
    lines = []
    mice = [path for path, form in things if form.name == "msw"]
    if len(mice) > 1:
        all_of_them = f"all {len(mice)} Murine Shift Work sessions"
        lines = [f"\n    labtree.msw.load_subject({str(folder)!r})  # {all_of_them}"]
    recordings = [path for path, form in things if form.name == "recording"]
    if len(recordings) > 1 and sorted(folder.iterdir()) == recordings:
        paths = f"sorted(pathlib.Path({str(folder)!r}).iterdir())"
        lines = [f"\n    {paths}  # all of them, for labeled_windows and its like"]
    lines += [
        f"\n    {form.line.format(repr(str(path)))}  # {form.what}" for path, form in things
    ]
    more = f"\n    and {len(lines) - 10} more" if len(lines) > 10 else ""
    return "; write for what is in it:" + "".join(lines[:10]) + more


def instead(path: object, what: str, formats: Collection[str]) -> str | None:
    """Return what a file is that a function does not take, and the line to write for it.

    Parameters
    ----------
    path
        What was given to the function.
    what
        What the function takes, such as ``"a workspace"``.
    formats
        The same by the names of `FORMATS`.

    Returns
    -------
    str or None
        A sentence; None where there is no file, or it is of one of the formats, damaged, or
        unknown.
    """
    if not isinstance(path, str | Path) or "://" in str(path):
        return None
    try:
        found = find(path)
        form = _look(found)
        if isinstance(form, Format) and form.name in formats:
            return None
        if isinstance(form, Other) and found.is_dir() and (things := contents(found)):
            return f"{path} is a folder, not {what}{_listed(things, found)}"
    except (FormatError, OSError):
        return None
    if not form.line:
        return None
    return f"{path} is {form.what}, not {what}; write {form.line.format(repr(str(path)))}"


def contents(folder: Path, depth: int = 4) -> list[tuple[Path, Format]]:
    """Return what a folder and the folders in it hold that labtree opens, by name.

    Hidden files, and the ``.json`` beside a workspace, are passed over; links to folders are
    not followed.
    """
    found: list[tuple[Path, Format]] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        try:
            form = _folder(path) if path.is_dir() else _file(path)
        except FormatError:
            found.append(
                (path, Format("damaged", "a file that is cut short or damaged", _tree))
            )
            continue
        except OSError:
            continue
        if isinstance(form, Format):
            found.append((path, form))
        elif depth > 1 and path.is_dir() and not path.is_symlink():
            found += contents(path, depth - 1)
    return found


def find(path: str | Path) -> Path:
    """Return the file or folder that `path` names, with or without ``.h5``."""
    given = Path(path).expanduser()
    if given.exists():
        return given
    with_suffix = given.with_name(given.name + ".h5")
    if with_suffix.is_file():
        return with_suffix
    raise missing_file(f"there is nothing at {given}", given)


def _folder(path: Path) -> Format | Other:
    if _is_recording(path):
        return FORMATS["recording"]
    if (path / "zarr.json").is_file():
        return FORMATS["nwb"] if _is_nwb(path) else _zarr_folder(path)
    names = {entry.name for entry in path.iterdir()}
    if ".zattrs" in names and _is_nwb(path):
        return FORMATS["nwb"]
    if names & {".zgroup", ".zarray", ".zmetadata"}:
        return _OTHER_ZARR
    if "spike_times.npy" in names and names & {"spike_clusters.npy", "spike_templates.npy"}:
        return FORMATS["phy"]
    if any(_is_msw(name) for name in names):
        return FORMATS["msw"]
    if not names:
        return Other("an empty folder")
    shown = ", ".join(sorted(names)[:5])
    return Other(f"a folder with {shown}" + (", …" if len(names) > 5 else ""))


_OTHER_ZARR = Other("a zarr store of another program", "xarray.open_zarr({})")


def _zarr_folder(path: Path) -> Format | Other:
    try:
        with _zarr(path) as tree:
            if "labtree_workspace_id" in tree.attrs:
                return FORMATS["workspace"]
            kept = tree.children["metadata"].attrs if "metadata" in tree.children else {}
            is_session = "recording_state" in tree.attrs or "msw_session" in kept
            return FORMATS["session" if is_session else "zarr"]
    except FormatError:
        if _is_of_others(path / "zarr.json"):
            return _OTHER_ZARR
        raise


def _is_of_others(path: Path) -> bool:
    """Say whether the metadata of a zarr store's root are whole, and not labtree's."""
    try:
        root = read_json(path)
    except FormatError:
        return False
    attributes = root.get("attributes") if isinstance(root, dict) else None
    return not isinstance(attributes, dict) or "labtree_file_format" not in attributes


def _is_nwb(path: Path) -> bool:
    from labtree.interop.nwb.read import is_nwb

    return is_nwb(path)


def _is_recording(path: Path) -> bool:
    from labtree.recording.recovery import JOURNAL

    if any((path / name).exists() for name in ("meta.json", JOURNAL)):
        return True
    # One whose meta.json is lost still has its arrays in pairs.
    return any(
        path.joinpath(times.name.replace("_timestamps.zarr", ".zarr")).is_dir()
        for times in path.glob("*_timestamps.zarr")
    )


def _is_msw(name: str) -> bool:
    manifests = ("session_manifest.yaml", "acquisition_manifest.yaml")
    return ".msw." in name or name in manifests or name.endswith("task_settings.py")


def _file(path: Path) -> Format | Other:
    if not path.is_file():
        return Other("neither a file nor a folder")
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return _hdf5(path)
    if start[:4] == b"XDF:" or (start[:2] == b"\x1f\x8b" and ".xdf" in path.name.lower()):
        return FORMATS["xdf"]
    if start[:3] == b"CDF":
        return Other("a netCDF-3 file", "xarray.open_dataset({})")
    by_name = (other for ends, other in _OTHERS.items() if path.suffix.lower() in ends)
    if zipfile.is_zipfile(path):
        with damage_as_format_error(path), zipfile.ZipFile(path) as archive:
            names = (name.replace("\\", "/").rpartition("/")[2] for name in archive.namelist())
            is_recording = "meta.json" in names
        without = Other("a zip archive without a recording")
        return FORMATS["recording"] if is_recording else next(by_name, without)
    if not start:
        return Other("an empty file")
    workspace = path.with_suffix(".h5")
    if path.suffix == ".json" and workspace.is_file():
        line = f"labtree.open({str(workspace)!r})".replace("{", "{{").replace("}", "}}")
        return Other(f"the index of {workspace.name}", line)
    return next(by_name, Other(f"a file that begins with {start!r}"))


def _hdf5(path: Path) -> Format:
    from labtree.storage.netcdf_reader import open_hdf5

    with damage_as_format_error(path), open_hdf5(path) as file:
        return FORMATS[_by_content(file)]


def _by_content(file: h5py.File) -> str:
    attrs: set[str] = set(file.attrs)
    signs: dict[str, Any] = {
        "workspace": "labtree_workspace_id" in attrs,
        "spikelab": "__workspace_id__" in attrs,
        "pipeline": "labtree_format" in attrs,
        "hdmea": bool(attrs & {"hdmea_version", "hdmea_pipeline_version", "stage1_completed"}),
        "nwb": "nwb_version" in attrs,
        "mcs": "Spike Sorter" in file
        or ("LB.RecordingDuration" in attrs and "Acquisition" in file),
    }
    kept = _attributes(file, "metadata")
    signs["session"] = "recording_state" in attrs or "msw_session" in kept
    return next((name for name, is_there in signs.items() if is_there), "tree")


def _attributes(file: h5py.File, group: str) -> set[str]:
    return set(file[group].attrs) if isinstance(file.get(group), h5py.Group) else set()


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
        from labtree.workspace.files import open_workspace

        return open_workspace(path)
    return recognize(path).opens(find(path))


@takes("a pipeline session", "pipeline", "hdmea")
def load_session(path: str | Path) -> xr.DataTree:
    """Load a pipeline session or checkpoint into memory, ready to go on where it stopped.

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

    if Path(path).suffix == ".zip" or _is_recording(Path(path)):
        return recordings.open_recording(path, on_missing=on_missing)
    found = recognize(path)
    if not found.is_session:
        line = found.line.format(repr(str(path)))
        raise FormatError(f"{path} is {found.what}, not a session; write {line}")
    return found.opens(find(path))
