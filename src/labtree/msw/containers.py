"""Containers: what a folder of acquisitions holds, and what its manifest says of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labtree.errors import FormatError, LabtreeError
from labtree.msw.cameras import BACKENDS, load_camera_acquisition
from labtree.msw.manifest_files import SESSION_MANIFEST, read_with_notes
from labtree.msw.session_folders import (
    acquisition_folders,
    check_folder,
    has_all_files,
    identify,
    list_folder,
    session_basename,
)
from labtree.msw.session_names import parse_acquisition_basename
from labtree.msw.trial_file import warn_of_damage

Kind = Literal["session", "camera", "recording"]


@dataclass(frozen=True)
class AcquisitionInfo:
    """One acquisition of a container.

    Attributes
    ----------
    basename : str
        Its name, by its files, or else its folder.
    acq_type : str
        As in its name; "" if that does not parse.
    kind : {"session", "camera", "recording"}
        Trials, video, or a recording of another program (types pxi and photo).
    on_disk, in_manifest : bool
        Where it was found.
    status : str or None
        As the manifest says: running, complete, aborted.
    folder : pathlib.Path or None
        Where it is on disk.
    backend : str or None
        Of a camera: "flir" or "rce".
    is_complete : bool
        The files that it should have are on disk, by their names: trials and settings, or
        those of each camera. Other recordings are not looked into.
    """

    basename: str
    acq_type: str
    kind: Kind
    on_disk: bool
    in_manifest: bool
    status: str | None
    folder: Path | None = None
    backend: Literal["flir", "rce"] | None = None
    is_complete: bool = False


@dataclass(frozen=True)
class ContainerReport:
    """A container's manifest against its folder.

    Attributes
    ----------
    container : pathlib.Path
        The folder.
    acquisitions : tuple of AcquisitionInfo
        By time.
    on_disk_not_in_manifest, in_manifest_not_on_disk : tuple of str
        Where the two differ.
    """

    container: Path
    acquisitions: tuple[AcquisitionInfo, ...]
    on_disk_not_in_manifest: tuple[str, ...]
    in_manifest_not_on_disk: tuple[str, ...]

    @property
    def is_consistent(self) -> bool:
        """Whether manifest and folder name the same acquisitions."""
        return not self.on_disk_not_in_manifest and not self.in_manifest_not_on_disk


def enumerate_acquisitions(container: str | Path) -> list[AcquisitionInfo]:
    """List the acquisitions of a container, by time: its manifest's and its folders'.

    Parameters
    ----------
    container : path
        The container's folder.

    Returns
    -------
    list of AcquisitionInfo
        By time.

    Raises
    ------
    MissingFileError
        There is no such folder.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.msw import make_trials, write_session
    >>> folder = write_session("mouse", trials=make_trials(20))
    >>> len(labtree.msw.enumerate_acquisitions(folder.parent))
    1
    """
    found, notes = list_acquisitions(Path(container))
    warn_of_damage(notes)
    return found


def list_acquisitions(folder: Path) -> tuple[list[AcquisitionInfo], list[str]]:
    """Return what `enumerate_acquisitions` does, and the texts of its warnings."""
    check_folder(folder)
    statuses, notes = _manifest_entries(folder)
    on_disk: dict[str, Path] = {}
    for path in acquisition_folders(folder):
        # A folder that was renamed is still the acquisition that its files are named by.
        name = session_basename(path, list_folder(path).names)
        is_free = name not in on_disk and bool(identify(name).datetime_str)
        on_disk[name if is_free else path.name] = path
    found = []
    for basename in {*statuses, *on_disk}:
        acq_type, there = identify(basename).acq_type, on_disk.get(basename)
        kind = kind_of(acq_type)
        found.append(
            AcquisitionInfo(
                basename,
                acq_type,
                kind,
                on_disk=there is not None,
                in_manifest=basename in statuses,
                status=statuses.get(basename),
                folder=there,
                backend=BACKENDS.get(acq_type),
                is_complete=there is not None and _looks_complete(there, kind),
            )
        )
    found.sort(key=lambda info: (identify(info.basename).datetime_str, info.basename))
    return found, notes


def _looks_complete(folder: Path, kind: Kind) -> bool:
    """Return whether the files that an acquisition should have are there, by their names."""
    try:
        if kind == "camera":
            return load_camera_acquisition(folder).is_complete
        return kind == "session" and has_all_files(list_folder(folder).names)
    except (LabtreeError, OSError):
        return False


def kind_of(acq_type: str) -> Kind:
    """Return what an acquisition of a type holds."""
    if acq_type.startswith("video_"):
        return "camera"
    return "recording" if acq_type in ("pxi", "photo") else "session"


def _manifest_entries(folder: Path) -> tuple[dict[str, str | None], list[str]]:
    path = folder / SESSION_MANIFEST
    if not path.is_file():
        return {}, []
    try:
        manifest, notes = read_with_notes(path)
    except FormatError as error:
        return {}, [str(error)]
    entries = manifest.get("acquisitions", manifest.get("sessions")) or []
    statuses: dict[str, str | None] = {}
    for entry in entries if isinstance(entries, list) else []:
        content = entry if isinstance(entry, dict) else {}
        basename = content.get("basename", content.get("session_dir"))
        try:
            # A name that is one path component cannot lead out of the container.
            parse_acquisition_basename(str(basename))
        except FormatError as error:
            notes.append(f"{path}: an entry is left out: {error}")
            continue
        status = content.get("status")
        statuses[str(basename)] = None if status is None else str(status)
    return statuses, notes


def validate_container(container: str | Path) -> ContainerReport:
    """Compare a container's manifest with its folder.

    Parameters
    ----------
    container : path
        The container's folder.

    Returns
    -------
    ContainerReport
        What the manifest names and the folder lacks, and the other way round.

    Raises
    ------
    MissingFileError
        There is no such folder.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.msw import make_trials, write_session
    >>> folder = write_session("mouse", trials=make_trials(20))
    >>> len(labtree.msw.validate_container(folder.parent).acquisitions)
    1
    """
    found = enumerate_acquisitions(container)
    return ContainerReport(
        Path(container),
        tuple(found),
        tuple(item.basename for item in found if item.on_disk and not item.in_manifest),
        tuple(item.basename for item in found if item.in_manifest and not item.on_disk),
    )
