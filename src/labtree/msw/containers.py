"""What a container holds, by its manifest and on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labtree.errors import FormatError
from labtree.msw.damage import warn_of_damage
from labtree.msw.errors import MissingFileError
from labtree.msw.formats import acquisition_folders
from labtree.msw.names import parse_acquisition_basename
from labtree.msw.settings import read_yaml

__all__ = [
    "AcquisitionInfo",
    "ContainerReport",
    "enumerate_acquisitions",
    "list_acquisitions",
    "validate_container",
]


@dataclass(frozen=True)
class AcquisitionInfo:
    """One acquisition of a container.

    Attributes
    ----------
    basename : str
        Its name, which is its folder's.
    acq_type : str
        As in its name; "" if that does not parse.
    kind : {"session", "camera", "recording"}
        Trials, video, or a recording of another program (types pxi and photo).
    on_disk, in_manifest : bool
        Where it was found.
    status : str or None
        As the manifest says: running, complete, aborted.
    """

    basename: str
    acq_type: str
    kind: Literal["session", "camera", "recording"]
    on_disk: bool
    in_manifest: bool
    status: str | None


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

    Raises
    ------
    MissingFileError
        There is no such folder.
    """
    found, notes = list_acquisitions(Path(container))
    warn_of_damage(notes)
    return found


def list_acquisitions(folder: Path) -> tuple[list[AcquisitionInfo], list[str]]:
    """Do as `enumerate_acquisitions`, and give what is to be told instead of telling it."""
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder")
    statuses, notes = _manifest_entries(folder)
    on_disk = {path.name for path in acquisition_folders(folder)}
    found = []
    for basename in {*statuses, *on_disk}:
        try:
            parts = parse_acquisition_basename(basename)
            acq_type, when = parts["acq_type"], parts["datetime_str"]
        except FormatError:
            acq_type, when = "", ""
        kind: Literal["session", "camera", "recording"] = "session"
        if acq_type.startswith("video_"):
            kind = "camera"
        elif acq_type in ("pxi", "photo"):
            kind = "recording"
        info = AcquisitionInfo(
            basename,
            acq_type,
            kind,
            basename in on_disk,
            basename in statuses,
            statuses.get(basename),
        )
        found.append((when, basename, info))
    return [info for _, _, info in sorted(found, key=lambda item: item[:2])], notes


def _manifest_entries(folder: Path) -> tuple[dict[str, str | None], list[str]]:
    path = folder / "session_manifest.yaml"
    if not path.is_file():
        return {}, []
    try:
        manifest, notes = read_yaml(path)
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

    Raises
    ------
    MissingFileError
        There is no such folder.
    """
    found = enumerate_acquisitions(container)
    return ContainerReport(
        Path(container),
        tuple(found),
        tuple(item.basename for item in found if item.on_disk and not item.in_manifest),
        tuple(item.basename for item in found if item.in_manifest and not item.on_disk),
    )
