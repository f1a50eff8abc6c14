"""The manifests that rigs keep while they record: of sessions, acquisitions and subjects.

``session_manifest.yaml`` in a container lists its acquisitions, ``acquisition_manifest.yaml``
in an acquisition lists its subprotocols, and ``subject_manifest.yaml`` in a subject's folder
holds what persists across sessions, such as probe insertions. Each has an open ``metadata``
tree, of which other packages may check their own parts (`labtree.msw.validate_metadata`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from labtree.errors import FormatError
from labtree.msw.manifest_files import (
    ACQUISITION_MANIFEST,
    SESSION_MANIFEST,
    SUBJECT_MANIFEST,
    Manifest,
    append_entry,
    changed_manifest,
    ensure_manifest,
    entries_of,
    merge,
    metadata_of,
    new_manifest,
    now,
    read_manifest,
    update_entry,
)
from labtree.msw.session_names import parse_acquisition_basename, parse_subject
from labtree.storage.files import leads_out

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
    return ensure_manifest(path, lambda: _new_session(session_name))


def _new_session(name: str) -> Manifest:
    return new_manifest("session", session_name=name, acquisitions=[])


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
    return append_entry(
        folder / SESSION_MANIFEST,
        lambda: _new_session(folder.absolute().name),
        "acquisitions",
        {
            "basename": acquisition_basename,
            "started_at": started_at or now(),
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
        "complete", "aborted", or another word for how it ended.
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
    values = {"ended_at": ended_at or now(), "status": status}
    return update_entry(path, "acquisitions", acquisition_basename, values)


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
        Where it comes from; for data that were imported from an older system ``{"source":
        "legacy_matlab", ...}``, with which trials alone make a session complete.
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
    entries = [dict(entry) for entry in subprotocols or []]
    for entry in entries:
        _check_file(path, str(entry.get("file")))
    more = {"metadata": dict(metadata)} if metadata else {}
    return ensure_manifest(path, lambda: _new_acquisition(acquisition_name, entries, **more))


def _new_acquisition(name: str, subprotocols: list[dict[str, Any]], **more: Any) -> Manifest:
    return new_manifest("acquisition", acquisition_name=name, subprotocols=subprotocols, **more)


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
    folder = Path(acquisition_folder)
    path = folder / ACQUISITION_MANIFEST
    _check_file(path, filename)
    return append_entry(
        path,
        lambda: _new_acquisition(folder.absolute().name, []),
        "subprotocols",
        {
            "name": name,
            "file": filename,
            "barcode_start": barcode_start,
            "barcode_end": None,
            "status": "running",
        },
    )


def _check_file(path: Path, file: str) -> None:
    if not file or leads_out(file) or not file.endswith((".jsonl", ".pkl")):
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
        "complete", "aborted", or another word for how it ended.

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
    return update_entry(path, "subprotocols", name, values)


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
    with changed_manifest(path, None) as manifest:
        merge(metadata_of(path, manifest), metadata)
        if manifest.get("type") == "subject":
            manifest["updated_at"] = now()
    return path


# --- subjects ------------------------------------------------------------------------------


def _new_subject(folder: Path, subject: str | None) -> Manifest:
    name = subject or folder.absolute().name
    manifest = new_manifest("subject", subject=name, created_at=now(), updated_at=now())
    with suppress(FormatError):
        parts = dict(parse_subject(name))
        del parts["fields"]
        manifest["subject_fields"] = parts
    return manifest


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
    return ensure_manifest(folder / SUBJECT_MANIFEST, lambda: _new_subject(folder, subject))


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
        merge(metadata_of(path, manifest), metadata)
    return path


@contextmanager
def _changed_subject(
    subject_folder: str | Path, subject: str | None = None
) -> Iterator[tuple[Path, Manifest]]:
    folder = Path(subject_folder)
    path = folder / SUBJECT_MANIFEST
    with changed_manifest(path, lambda: _new_subject(folder, subject)) as manifest:
        yield path, manifest
        manifest["updated_at"] = now()


def append_probe_insertion(subject_folder: str | Path, insertion: Mapping[str, Any]) -> Path:
    """Add a probe's insertion to a subject's manifest.

    Parameters
    ----------
    subject_folder : path
        The subject's folder. Its manifest is written if it is missing.
    insertion : dict
        What is known of it. It is appended to the list ``metadata.probes.insertions``.

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
        probes = metadata_of(path, manifest).setdefault("probes", {})
        if not isinstance(probes, dict):
            raise FormatError(f"{path}: 'metadata.probes' is no mapping; correct it by hand")
        entries_of(path, probes, "insertions").append(dict(insertion))
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
