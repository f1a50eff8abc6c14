"""Manifests: YAML files of a rig, read, and changed under the lock of their folder.

Every change replaces the file whole, so that two programs that write to one manifest lose
nothing of each other. A manifest that cannot be read is never written over.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labtree.errors import (
    FormatError,
    MissingFileError,
    TrialDataError,
    UnknownNameError,
    unknown_name,
)
from labtree.msw.session_names import NAMESPACE_SPEC_VERSION
from labtree.msw.settings import parse_yaml, read_yaml
from labtree.optional import require
from labtree.storage.files import write_file
from labtree.storage.folders import make_folders
from labtree.storage.locks import folder_lock

SESSION_MANIFEST = "session_manifest.yaml"
ACQUISITION_MANIFEST = "acquisition_manifest.yaml"
SUBJECT_MANIFEST = "subject_manifest.yaml"
MANIFEST_VERSION = 1
# The lists of entries, and the key by which an entry is found.
_KEYS = {"acquisitions": "basename", "subprotocols": "name"}
Manifest = dict[str, Any]


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
    >>> from labtree.msw import init_subject_manifest
    >>> folder = tempfile.mkdtemp()
    >>> read_manifest(init_subject_manifest(folder, "rat12_a3"))["subject_fields"]
    {'subject_id': 'rat12', 'animal_id': 'a3', 'tag_id': None}
    """
    return read_with_notes(Path(path))[0]


def read_with_notes(path: Path) -> tuple[Manifest, list[str]]:
    """Do as `read_manifest`; return what was not followed in the YAML, too.

    Raises
    ------
    MissingFileError, FormatError
        As there.
    """
    manifest, notes = read_yaml(path)
    version = manifest.get("msw_manifest_version", MANIFEST_VERSION)
    if version != MANIFEST_VERSION:
        raise FormatError(
            f"{path}: says manifest version {version!r}, and this labtree reads "
            f"{MANIFEST_VERSION}"
        )
    return manifest, notes


@contextmanager
def changed_manifest(path: Path, new: Callable[[], Manifest] | None) -> Iterator[Manifest]:
    """Give a manifest to change, or a new one, and write it if the block ends well.

    Raises
    ------
    MissingFileError
        There is none, and no `new` to make one.
    FormatError
        It cannot be read, or a change would lose what could not be read.
    TrialDataError
        YAML does not keep what was put into it.
    """
    if new is None and not path.is_file():
        raise MissingFileError(f"{path}: there is no such manifest; write it with init_...()")
    make_folders(path.parent)
    with folder_lock(path.parent):
        notes: list[str] = []
        if path.exists() or new is None:
            manifest, notes = read_with_notes(path)
            before = repr(manifest)
        else:
            manifest, before = new(), ""
        yield manifest
        if repr(manifest) == before:
            return
        if notes:
            raise FormatError(
                f"{notes[0]}; it would be lost by a change, so correct it by hand"
            )
        write_file(path, _to_yaml(path, manifest))


def ensure_manifest(path: Path, new: Callable[[], Manifest]) -> Path:
    """Write a new manifest, unless there is one; return its path."""
    with changed_manifest(path, new):
        return path


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


def new_manifest(kind: str, **more: Any) -> Manifest:
    """Return a manifest of a kind ("session", "acquisition", "subject") with these entries."""
    return {
        "msw_manifest_version": MANIFEST_VERSION,
        "msw_namespace_version": NAMESPACE_SPEC_VERSION,
        "type": kind,
        **more,
    }


def now() -> str:
    """Return the time, in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def entries_of(path: Path, manifest: Manifest, name: str) -> list[dict[str, Any]]:
    """Return the list of entries of a manifest, which may be missing."""
    if name == "acquisitions" and "sessions" in manifest:
        name = "sessions"  # Manifests of May 2026 called them so.
    entries = manifest.setdefault(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise FormatError(f"{path}: {name!r} is no list of mappings; correct it by hand")
    return entries


def append_entry(
    path: Path, new: Callable[[], Manifest], entries: str, entry: dict[str, Any]
) -> Path:
    """Append an entry to a list of a manifest, unless it has one of that name."""
    key = _KEYS[entries]
    with changed_manifest(path, new) as manifest:
        there = entries_of(path, manifest, entries)
        if not any(other.get(key) == entry[key] for other in there):
            there.append(entry)
    return path


def update_entry(path: Path, entries: str, name: str, values: dict[str, Any]) -> Path:
    """Set values of one entry of a list of a manifest."""
    key = _KEYS[entries]
    with changed_manifest(path, None) as manifest:
        there = entries_of(path, manifest, entries)
        for entry in there:
            if entry.get(key) == name:
                entry.update(values)
                return path
        known = [str(entry.get(key)) for entry in there]
        raise unknown_name(f"{entries[:-1]} of {path}", name, known, UnknownNameError)


def metadata_of(path: Path, manifest: Manifest) -> dict[str, Any]:
    """Return the metadata of a manifest, for changing them."""
    there = manifest.setdefault("metadata", {})
    if not isinstance(there, dict):
        raise FormatError(f"{path}: 'metadata' is no mapping; correct it by hand")
    return there


def merge(into: dict[str, Any], updates: Mapping[str, Any]) -> None:
    """Merge a part into metadata: mappings at every depth, anything else is replaced."""
    for key, value in updates.items():
        there = into.get(key)
        if isinstance(there, dict) and isinstance(value, Mapping):
            merge(there, value)
        else:
            into[key] = value
