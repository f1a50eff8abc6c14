"""What a file or folder is, by its content, and the line to write for it.

The functions that open files stand in modules above this one, which use it to say what they
were given instead of what they take. So they stand in the table of formats by their names.
"""

import contextlib
import functools
import pkgutil
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import xarray as xr

from labtree.errors import (
    FormatError,
    MissingDependencyError,
    MissingFileError,
    damage_as_format_error,
    missing_file,
)
from labtree.storage.json_files import read_json

if TYPE_CHECKING:
    import h5py


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Format:
    """A format that labtree opens.

    Parameters
    ----------
    name
        As :func:`recognize` returns it.
    what
        The same in words, with its article.
    opener
        The function that makes a tree of a path, or its module and name, so that only what
        is opened is imported.
    line
        The line to write for a file of it, with its path in the place of ``{}``.
    is_session
        Whether :func:`labtree.open_session` takes it.
    """

    name: str
    what: str
    opener: str | Callable[[Path], xr.DataTree]
    line: str = "labtree.open({})"
    is_session: bool = False

    def open(self, path: Path) -> xr.DataTree:
        """Return the tree of a file or folder of this format."""
        opener = self.opener
        opener = pkgutil.resolve_name(opener) if isinstance(opener, str) else opener
        tree: xr.DataTree = opener(path)
        return tree


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


#: The formats that labtree opens, by their names.
FORMATS = {
    each.name: each
    for each in (
        Format(
            "workspace", "a labtree workspace",
            "labtree.workspace.workspace_files:open_workspace", "labtree.open_workspace({})",
        ),
        Format(
            "spikelab", "a workspace of SpikeLab",
            "labtree.interop.spikelab:import_spikelab", "labtree.import_spikelab({})",
        ),
        Format("nwb", "an NWB file", "labtree.opening:open_nwb", "labtree.import_nwb({})"),
        Format(
            "phy", "a folder of Kilosort or Phy",
            "labtree.interop.phy:import_phy", "labtree.import_phy({})",
        ),
        Format(
            "recording", "a recording of labtree or MyoGestic",
            "labtree.recording:open_recording", "labtree.open_session({})", is_session=True,
        ),
        Format(
            "xdf", "an XDF file; labtree.import_xdf takes its labels",
            "labtree.interop.xdf:import_xdf", "labtree.import_xdf({}, 'sessions')",
            is_session=True,
        ),
        Format(
            "pipeline", "a pipeline session",
            "labtree.pipeline.checkpoints:open_session_file", "labtree.load_session({})",
            is_session=True,
        ),
        Format(
            "hdmea", "a session of hdmea",
            "labtree.interop.hdmea:import_hdmea", "labtree.load_session({})",
            is_session=True,
        ),
        Format(
            "mcs", "a CMCR or CMTR file of Multi Channel Systems",
            "labtree.interop.mcs:open_mcs",
        ),
        Format(
            "msw", "a Murine Shift Work session",
            "labtree.opening:open_msw", "labtree.msw.load_session({})", is_session=True,
        ),
        Format(
            "session", "a session saved by labtree",
            "labtree.opening:open_saved_tree", is_session=True,
        ),
        Format("tree", "a netCDF-4 or HDF5 file", "labtree.storage:open_tree"),
        Format(
            "zarr", "a zarr store that labtree wrote",
            "labtree.storage.zarr.trees:open_zarr_tree",
        ),
    )
}  # fmt: skip
_DAMAGED = Format("damaged", "a file that is cut short or damaged", "labtree.storage:open_tree")
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
            found.append((path, _DAMAGED))
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
    if is_recording(path):
        return FORMATS["recording"]
    if (path / "zarr.json").is_file():
        return FORMATS["nwb"] if is_nwb(path) else _zarr_folder(path)
    names = {entry.name for entry in path.iterdir()}
    if ".zattrs" in names and is_nwb(path):
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
    from labtree.storage.zarr.trees import open_zarr_tree

    try:
        with open_zarr_tree(path) as tree:
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
    """Return whether the metadata of a zarr store's root are whole, and not labtree's."""
    try:
        root = read_json(path)
    except FormatError:
        return False
    attributes = root.get("attributes") if isinstance(root, dict) else None
    return not isinstance(attributes, dict) or "labtree_file_format" not in attributes


def is_nwb(path: Path) -> bool:
    """Return whether a file or folder says that it is NWB; pynwb is not needed."""
    if path.is_dir():
        for name in ("zarr.json", ".zattrs"):
            with contextlib.suppress(OSError, FormatError):
                found = read_json(path / name)
                if name == "zarr.json" and isinstance(found, dict):
                    found = found.get("attributes")
                if isinstance(found, dict) and "nwb_version" in found:
                    return True
        return False
    import h5py

    with contextlib.suppress(OSError), h5py.File(path, "r") as file:
        return "nwb_version" in file.attrs
    return False


def is_recording(path: Path) -> bool:
    """Return whether a folder is a recording, be it one that was interrupted."""
    if any((path / name).exists() for name in ("meta.json", "journal")):
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
            has_recording = "meta.json" in names
        without = Other("a zip archive without a recording")
        return FORMATS["recording"] if has_recording else next(by_name, without)
    if not start:
        return Other("an empty file")
    if path.name in ("meta.json", "zarr.json"):
        above = _folder(path.parent)
        if isinstance(above, Format):
            return Other(f"a part of {above.what}", _line_for(path.parent))
    workspace = path.with_suffix(".h5")
    if path.suffix == ".json" and workspace.is_file():
        return Other(f"the index of {workspace.name}", _line_for(workspace))
    return next(by_name, Other(f"a file that begins with {start!r}"))


def _line_for(path: Path) -> str:
    """Return the line to write for another path, in which no braces stand for one."""
    return f"labtree.open({str(path)!r})".replace("{", "{{").replace("}", "}}")


def _hdf5(path: Path) -> Format:
    from labtree.storage.hdf5_files import open_hdf5

    with damage_as_format_error(path), open_hdf5(path) as file:
        return FORMATS[_by_content(file)]


def _by_content(file: "h5py.File") -> str:
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


def _attributes(file: "h5py.File", group: str) -> set[str]:
    return set(getattr(file.get(group), "attrs", ()))


_REFUSALS = (FormatError, MissingFileError, MissingDependencyError)


def takes(
    what: str, *formats: str
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Make a function that opens files say what a file of another format is.

    Where the function refuses its first argument, and that is a file or folder of another
    format, the error says what it is and the line that opens it.

    Parameters
    ----------
    what : str
        What the function takes, such as ``"a workspace"``.
    formats : str
        The same by the names of `FORMATS`.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        first = function.__code__.co_varnames[0]

        @functools.wraps(function)
        def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            try:
                return function(*args, **kwargs)
            except _REFUSALS as error:
                if getattr(error, "names_function", False):
                    raise
                message = instead(args[0] if args else kwargs.get(first), what, formats)
                if message is None:
                    raise
                raise _same_kind(error, message) from None

        return checked

    return decorate


def _same_kind(error: Exception, message: str) -> Exception:
    return FormatError(message) if isinstance(error, ImportError) else type(error)(message)
