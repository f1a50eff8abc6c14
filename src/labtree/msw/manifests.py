"""The manifests that rigs keep while they record: of sessions, acquisitions and subjects.

``session_manifest.yaml`` in a container lists its acquisitions, ``acquisition_manifest.yaml``
in an acquisition lists its subprotocols, and ``subject_manifest.yaml`` in a subject's folder
holds what persists across sessions, such as probe insertions. Each has an open ``metadata``
tree, of which other packages may check their own parts (`labtree.msw.validate_metadata`).

Every change is made under the lock of the folder and replaces the file whole, so that two
programs that write to one manifest lose nothing of each other. A manifest that cannot be read
is never written over.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from labtree.errors import (
    FormatError,
    MissingFileError,
    TrialDataError,
    UnknownNameError,
    unknown_name,
)
from labtree.msw.names import (
    NAMESPACE_SPEC_VERSION,
    parse_acquisition_basename,
    parse_subject,
)
from labtree.msw.settings import parse_yaml, read_yaml
from labtree.msw.trial_file import make_folders
from labtree.optional import require
from labtree.storage.files import write_file
from labtree.storage.locks import folder_lock

__all__ = [
    "ACQUISITION_MANIFEST",
    "MANIFEST_VERSION",
    "SESSION_MANIFEST",
    "SUBJECT_MANIFEST",
    "append_acquisition_to_session",
    "append_probe_insertion",
    "append_subprotocol",
    "finalize_acquisition_in_session",
    "finalize_subprotocol",
    "init_acquisition_manifest",
    "init_session_manifest",
    "init_subject_manifest",
    "read_manifest",
    "read_subject_manifest",
    "set_manifest_metadata",
    "set_subject_metadata",
    "update_subject_manifest",
]

SESSION_MANIFEST = "session_manifest.yaml"
ACQUISITION_MANIFEST = "acquisition_manifest.yaml"
SUBJECT_MANIFEST = "subject_manifest.yaml"
MANIFEST_VERSION = 1
Manifest = dict[str, Any]


# --- reading and changing ------------------------------------------------------------------


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest.

    Parameters
    ----------
    path : path
        One of the three files.

    Returns
    -------
    dict
        As it was written; dates are text.

    Raises
    ------
    MissingFileError
        There is no such file.
    FormatError
        It is damaged, or of a version that is not known.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> read_manifest(init_subject_manifest(folder, "rat12_a3"))["subject_fields"]
    {'subject_id': 'rat12', 'animal_id': 'a3', 'tag_id': None}
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[Manifest, list[str]]:
    manifest, notes = read_yaml(path)
    version = manifest.get("msw_manifest_version", MANIFEST_VERSION)
    if version != MANIFEST_VERSION:
        raise FormatError(
            f"{path}: says manifest version {version!r}, and this reader knows "
            f"{MANIFEST_VERSION}"
        )
    return manifest, notes


@contextmanager
def _changed(path: Path, new: Callable[[], Manifest] | None) -> Iterator[Manifest]:
    """Give a manifest to change, or a new one, and write it if the block ends well."""
    if new is None and not path.is_file():
        raise MissingFileError(f"{path}: there is no such manifest; write it with init_...()")
    make_folders(path.parent)
    with folder_lock(path.parent):
        notes: list[str] = []
        if path.exists() or new is None:
            manifest, notes = _read(path)
            before = repr(manifest)
        else:
            manifest, before = new(), ""
        yield manifest
        if repr(manifest) == before:
            return
        if notes:
            raise FormatError(f"{notes[0]}; it would be lost by a change, so mend it by hand")
        write_file(path, _to_yaml(path, manifest))


def _to_yaml(path: Path, manifest: Manifest) -> bytes:
    """Return a manifest as YAML, after checking that it is read back as it is."""
    yaml = require("yaml", purpose="writing manifests", extra="msw")
    _refuse(manifest, path.name)
    text: str = yaml.safe_dump(
        manifest, default_flow_style=False, allow_unicode=True, sort_keys=False
    )
    if repr(parse_yaml(text, path)[0]) != repr(manifest):
        raise TrialDataError(f"{path}: YAML does not keep a part of {manifest!r:.300}")
    return text.encode("utf-8")


def _refuse(value: object, where: str) -> None:
    """Refuse what YAML would bring back as something else, and say where it is."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            _refuse(item, f"{where}[{i}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TrialDataError(
                    f"{where}: the key {key!r} is not text; write {str(key)!r}"
                )
            _refuse(item, f"{where}[{key!r}]")
    elif value is not None and not isinstance(value, str | bool | int | float):
        raise TrialDataError(
            f"{where}: a {type(value).__name__} cannot be kept; expected None, bool, int, "
            "float, str, list or dict with text as keys"
        )
    elif isinstance(value, str) and not value.isascii() and re.search("[\ud800-\udfff]", value):
        raise TrialDataError(f"{where}: {value!r} has a lone surrogate, which no file can hold")


def _new(kind: str, **more: Any) -> Manifest:
    return {
        "msw_manifest_version": MANIFEST_VERSION,
        "msw_namespace_version": NAMESPACE_SPEC_VERSION,
        "type": kind,
        **more,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _entries(path: Path, manifest: Manifest, name: str) -> list[dict[str, Any]]:
    """Return the list of entries of a manifest, which may be missing."""
    if name == "acquisitions" and "sessions" in manifest:
        name = "sessions"  # Manifests of May 2026 called them so.
    entries = manifest.setdefault(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise FormatError(f"{path}: {name!r} is no list of mappings; mend it by hand")
    return entries


def _append_entry(
    path: Path, new: Callable[[], Manifest], entries: str, key: str, entry: dict[str, Any]
) -> Path:
    """Append an entry to a list of a manifest, unless it has one of that name."""
    with _changed(path, new) as manifest:
        there = _entries(path, manifest, entries)
        if not any(other.get(key) == entry[key] for other in there):
            there.append(entry)
    return path


def _update_entry(path: Path, entries: str, key: str, name: str, values: Manifest) -> Path:
    """Set values of one entry of a list of a manifest."""
    with _changed(path, None) as manifest:
        there = _entries(path, manifest, entries)
        for entry in there:
            if entry.get(key) == name:
                entry.update(values)
                return path
        known = [str(entry.get(key)) for entry in there]
        raise unknown_name(f"{entries[:-1]} of {path}", name, known, UnknownNameError)


# --- sessions ------------------------------------------------------------------------------


def init_session_manifest(session_container: str | Path, session_name: str) -> Path:
    """Write the manifest of a container, unless it has one.

    Parameters
    ----------
    session_container : path
        The container's folder, made if it is missing.
    session_name : str
        The container's name, or that of the session that it was opened for.

    Returns
    -------
    pathlib.Path
        The manifest.

    Examples
    --------
    >>> import labtree
    >>> labtree.msw.init_session_manifest("m01__20260514_143000", "m01__20260514_143000").name
    'session_manifest.yaml'
    """
    path = Path(session_container) / SESSION_MANIFEST
    with _changed(path, lambda: _new_session(session_name)):
        return path


def _new_session(name: str) -> Manifest:
    return _new("session", session_name=name, acquisitions=[])


def append_acquisition_to_session(
    session_container: str | Path, acquisition_basename: str, started_at: str | None = None
) -> Path:
    """Note in a container's manifest that an acquisition runs; call it when it starts.

    Parameters
    ----------
    session_container : path
        The container's folder. Its manifest is written if it is missing.
    acquisition_basename : str
        The acquisition's name. An entry of that name is left as it is.
    started_at : str, optional
        An ISO time; now, in UTC, unless given.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    FormatError
        The name is no acquisition's, or the manifest cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> name = "m01__20260514_143022_123456__msw__gonogo__v1"
    >>> path = append_acquisition_to_session(folder, name)
    >>> path = finalize_acquisition_in_session(folder, name)
    >>> read_manifest(path)["acquisitions"][0]["status"]
    'complete'
    """
    # A name that is one path component stays inside.
    parse_acquisition_basename(acquisition_basename)
    folder = Path(session_container)
    return _append_entry(
        folder / SESSION_MANIFEST,
        lambda: _new_session(folder.absolute().name),
        "acquisitions",
        "basename",
        {
            "basename": acquisition_basename,
            "started_at": started_at or _now(),
            "ended_at": None,
            "status": "running",
        },
    )


def finalize_acquisition_in_session(
    session_container: str | Path,
    acquisition_basename: str,
    status: str = "complete",
    ended_at: str | None = None,
) -> Path:
    """Note in a container's manifest how an acquisition ended.

    Parameters
    ----------
    session_container : path
        The container's folder.
    acquisition_basename : str
        The acquisition's name.
    status : str
        "complete", "aborted", or what else says how it ended.
    ended_at : str, optional
        An ISO time; now, in UTC, unless given.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    MissingFileError
        There is no manifest.
    UnknownNameError
        It has no such acquisition.

    Examples
    --------
    >>> import labtree
    >>> name = "m01__20260514_143022__msw__gonogo"
    >>> path = labtree.msw.append_acquisition_to_session("m01__20260514_143000", name)
    >>> labtree.msw.finalize_acquisition_in_session(path.parent, name).name
    'session_manifest.yaml'
    """
    path = Path(session_container) / SESSION_MANIFEST
    values = {"ended_at": ended_at or _now(), "status": status}
    return _update_entry(path, "acquisitions", "basename", acquisition_basename, values)


# --- acquisitions --------------------------------------------------------------------------


def init_acquisition_manifest(
    acquisition_folder: str | Path,
    acquisition_name: str,
    metadata: Mapping[str, Any] | None = None,
    subprotocols: list[dict[str, Any]] | None = None,
) -> Path:
    """Write the manifest of an acquisition, unless it has one.

    Parameters
    ----------
    acquisition_folder : path
        Its folder, made if it is missing.
    acquisition_name : str
        Its name.
    metadata : dict, optional
        Where it comes from; for data that were brought in from an older system
        ``{"source": "legacy_matlab", ...}``, with which trials alone make a session complete.
    subprotocols : list of dict, optional
        Entries with ``name``, ``file``, ``barcode_start``, ``barcode_end`` and ``status``.

    Returns
    -------
    pathlib.Path
        The manifest.

    Examples
    --------
    >>> import labtree
    >>> name = "m01__20260514_143022__msw__gonogo"
    >>> labtree.msw.init_acquisition_manifest(name, name).name
    'acquisition_manifest.yaml'
    """
    path = Path(acquisition_folder) / ACQUISITION_MANIFEST
    more: dict[str, Any] = {"metadata": dict(metadata)} if metadata else {}
    for entry in subprotocols or []:
        _check_file(path, str(entry.get("file")))
    with _changed(
        path,
        lambda: _new(
            "acquisition",
            acquisition_name=acquisition_name,
            subprotocols=[dict(entry) for entry in subprotocols or []],
            **more,
        ),
    ):
        return path


def append_subprotocol(
    acquisition_folder: str | Path, name: str, filename: str, barcode_start: int | None = None
) -> Path:
    """Note in an acquisition's manifest that a subprotocol runs.

    Parameters
    ----------
    acquisition_folder : path
        The acquisition's folder. Its manifest is written if it is missing.
    name : str
        Of the subprotocol. An entry of that name is left as it is.
    filename : str
        Its trial file, relative to the folder: ``{basename}_{name}.msw.df.jsonl``.
    barcode_start : int, optional
        The value of the barcode that was sent before it.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    FormatError
        The file would lie outside the folder, or the manifest cannot be read.

    Examples
    --------
    >>> import labtree
    >>> name = "m01__20260514_143022__msw__gonogo"
    >>> labtree.msw.append_subprotocol(name, "warmup", f"{name}_warmup.msw.df.jsonl").name
    'acquisition_manifest.yaml'
    """
    path = Path(acquisition_folder) / ACQUISITION_MANIFEST
    _check_file(path, filename)
    folder = Path(acquisition_folder).absolute().name
    return _append_entry(
        path,
        lambda: _new("acquisition", acquisition_name=folder, subprotocols=[]),
        "subprotocols",
        "name",
        {
            "name": name,
            "file": filename,
            "barcode_start": barcode_start,
            "barcode_end": None,
            "status": "running",
        },
    )


def _check_file(path: Path, file: str) -> None:
    parts = {*PurePosixPath(file).parts, *PureWindowsPath(file).parts}
    absolute = PurePosixPath(file).is_absolute() or PureWindowsPath(file).anchor
    if not file or ".." in parts or absolute or not file.endswith((".jsonl", ".pkl")):
        raise FormatError(
            f"{path}: the file {file!r} cannot be a subprotocol's; expected the name of a "
            ".jsonl file in this folder"
        )


def finalize_subprotocol(
    acquisition_folder: str | Path,
    name: str,
    barcode_end: int | None = None,
    status: str = "complete",
) -> Path:
    """Note in an acquisition's manifest how a subprotocol ended.

    Parameters
    ----------
    acquisition_folder : path
        The acquisition's folder.
    name : str
        Of the subprotocol.
    barcode_end : int, optional
        The value of the barcode that was sent after it.
    status : str
        "complete", "aborted", or what else says how it ended.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    MissingFileError
        There is no manifest.
    UnknownNameError
        It has no such subprotocol.

    Examples
    --------
    >>> import labtree
    >>> name = "m01__20260514_143022__msw__gonogo"
    >>> path = labtree.msw.append_subprotocol(name, "warmup", f"{name}_warmup.msw.df.jsonl")
    >>> labtree.msw.finalize_subprotocol(name, "warmup").name
    'acquisition_manifest.yaml'
    """
    path = Path(acquisition_folder) / ACQUISITION_MANIFEST
    values = {"barcode_end": barcode_end, "status": status}
    return _update_entry(path, "subprotocols", "name", name, values)


def set_manifest_metadata(path: str | Path, metadata: Mapping[str, Any]) -> Path:
    """Merge a part into the ``metadata`` of a manifest of any kind.

    Parameters
    ----------
    path : path
        The manifest, which must exist.
    metadata : dict
        Mappings are merged at every depth; anything else, lists too, replaces what was
        there.

    Returns
    -------
    pathlib.Path
        The manifest.

    Examples
    --------
    >>> import labtree
    >>> path = labtree.msw.init_session_manifest("m01__20260514_143000", "m01__20260514_143000")
    >>> labtree.msw.set_manifest_metadata(path, {"room": "B12"}).name
    'session_manifest.yaml'
    """
    path = Path(path)
    with _changed(path, None) as manifest:
        _merge_into(_metadata(path, manifest), metadata)
        if manifest.get("type") == "subject":
            manifest["updated_at"] = _now()
    return path


def _metadata(path: Path, manifest: Manifest) -> dict[str, Any]:
    """Return the metadata of a manifest, for changing them."""
    there = manifest.setdefault("metadata", {})
    if not isinstance(there, dict):
        raise FormatError(f"{path}: 'metadata' is no mapping; mend it by hand")
    return there


def _merge_into(into: dict[str, Any], updates: Mapping[str, Any]) -> None:
    for key, value in updates.items():
        there = into.get(key)
        if isinstance(there, dict) and isinstance(value, Mapping):
            _merge_into(there, value)
        else:
            into[key] = value


# --- subjects ------------------------------------------------------------------------------


def _new_subject(subject: str) -> Manifest:
    manifest = _new("subject", subject=subject, created_at=_now(), updated_at=_now())
    try:
        parts = parse_subject(subject)
    except FormatError:
        return manifest
    keys = ("subject_id", "animal_id", "tag_id")
    return manifest | {"subject_fields": {key: dict(parts)[key] for key in keys}}


def init_subject_manifest(subject_folder: str | Path, subject: str | None = None) -> Path:
    """Write the manifest of a subject, unless it has one.

    Parameters
    ----------
    subject_folder : path
        The subject's folder, made if it is missing.
    subject : str, optional
        The subject; the folder's name unless given.

    Returns
    -------
    pathlib.Path
        The manifest.

    Examples
    --------
    >>> import labtree
    >>> path = labtree.msw.init_subject_manifest("m01")
    >>> path.parent.name
    'm01'
    """
    folder = Path(subject_folder)
    path = folder / SUBJECT_MANIFEST
    with _changed(path, lambda: _new_subject(subject or folder.absolute().name)):
        return path


def update_subject_manifest(
    subject_folder: str | Path, updates: Mapping[str, Any], *, subject: str | None = None
) -> Path:
    """Replace keys at the top of a subject's manifest, which is written if it is missing.

    Parameters
    ----------
    subject_folder : path
        The subject's folder.
    updates : dict
        What to set; other keys stay.
    subject : str, optional
        For a new manifest: the subject; the folder's name unless given.

    Returns
    -------
    pathlib.Path
        The manifest.

    Examples
    --------
    >>> import labtree
    >>> path = labtree.msw.update_subject_manifest("m01", {"sex": "f"})
    >>> labtree.msw.read_subject_manifest("m01")["sex"]
    'f'
    """
    with _changed_subject(subject_folder, subject) as (path, manifest):
        manifest.update(updates)
    return path


def set_subject_metadata(subject_folder: str | Path, metadata: Mapping[str, Any]) -> Path:
    """Merge a part into the ``metadata`` of a subject's manifest, written if it is missing.

    Parameters
    ----------
    subject_folder : path
        The subject's folder.
    metadata : dict
        As in `set_manifest_metadata`.

    Returns
    -------
    pathlib.Path
        The manifest.

    Examples
    --------
    >>> import labtree
    >>> path = labtree.msw.set_subject_metadata("m01", {"strain": "C57"})
    >>> labtree.msw.read_subject_manifest("m01")["metadata"]["strain"]
    'C57'
    """
    with _changed_subject(subject_folder) as (path, manifest):
        _merge_into(_metadata(path, manifest), metadata)
    return path


@contextmanager
def _changed_subject(
    subject_folder: str | Path, subject: str | None = None
) -> Iterator[tuple[Path, Manifest]]:
    folder = Path(subject_folder)
    path = folder / SUBJECT_MANIFEST
    with _changed(path, lambda: _new_subject(subject or folder.absolute().name)) as manifest:
        yield path, manifest
        manifest["updated_at"] = _now()


def append_probe_insertion(subject_folder: str | Path, insertion: Mapping[str, Any]) -> Path:
    """Add a probe's insertion to a subject's manifest.

    Parameters
    ----------
    subject_folder : path
        The subject's folder. Its manifest is written if it is missing.
    insertion : dict
        What is known of it. It stands in the list ``metadata.probes.insertions``, after
        those that are there.

    Returns
    -------
    pathlib.Path
        The manifest.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> path = append_probe_insertion(folder, {"probe": "A", "ap_mm": -1.5, "ml_mm": 0.5})
    >>> read_manifest(path)["metadata"]["probes"]["insertions"]
    [{'probe': 'A', 'ap_mm': -1.5, 'ml_mm': 0.5}]
    """
    with _changed_subject(subject_folder) as (path, manifest):
        probes = _metadata(path, manifest).setdefault("probes", {})
        if not isinstance(probes, dict):
            raise FormatError(f"{path}: 'metadata.probes' is no mapping; mend it by hand")
        _entries(path, probes, "insertions").append(dict(insertion))
    return path


def read_subject_manifest(path: str | Path) -> Manifest | None:
    """Read the manifest of the subject that a folder or file belongs to.

    Parameters
    ----------
    path : path
        The subject's folder, or anything below it.

    Returns
    -------
    dict or None
        None if neither the folder nor one above it, as far as that of the subject, has one.

    Raises
    ------
    FormatError
        It is damaged, or of a version that is not known.

    Examples
    --------
    >>> import labtree
    >>> path = labtree.msw.init_subject_manifest("m01")
    >>> labtree.msw.read_subject_manifest("m01")["subject"]
    'm01'
    """
    start = Path(path).absolute()
    subjects = set()
    for folder in (start, *start.parents):
        if (folder / SUBJECT_MANIFEST).is_file():
            return read_manifest(folder / SUBJECT_MANIFEST)
        if folder.name in subjects:
            break
        with suppress(FormatError):
            subjects.add(parse_acquisition_basename(folder.name)["subject"])
    return None
