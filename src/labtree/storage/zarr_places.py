"""Where the objects of a zarr store lie: in a folder, or in an object store.

Only four things are asked of a place: to read and to write whole objects, to remove what
lies below a key, and to replace its root object in one step.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from labtree.errors import (
    AlreadyExistsError,
    FileAccessError,
    FormatError,
    MissingFileError,
    WorkspaceError,
)
from labtree.optional import require
from labtree.storage.files import replace_file, sync_folder, temporary_path
from labtree.storage.locks import folder_lock

__all__ = [
    "MARKER",
    "FolderPlace",
    "ObjectPlace",
    "Place",
    "SavingPlace",
    "is_place",
    "place_of",
]

#: The object that says what a store holds; replacing it is what makes a save happen.
MARKER = "zarr.json"

_DAY = 86400.0
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Place(Protocol):
    """Where objects lie, by keys such as ``group/array/c/0``."""

    name: str
    #: How many requests are worth having under way at once.
    workers: int
    #: Whether it takes chunks only after the metadata of their array.
    is_ordered: bool
    #: What stands between the numbers of a chunk's key.
    separator: str

    def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        """Return an object, or a part of it; FileNotFoundError if it is not there."""
        ...

    def write(self, key: str, data: Any) -> None:
        """Write a new object."""
        ...


class SavingPlace(Place, Protocol):
    """A place in which a save replaces what an older one wrote."""

    def writing(self, generation: str) -> contextlib.AbstractContextManager[None]:
        """Keep others from taking a generation that is being written for abandoned."""
        ...

    def commit(self, data: bytes, generation: str, check: Any, find: Any) -> str | None:
        """Replace the marker, which `check` can refuse; return the generation before it."""
        ...

    def clean(self, generation: str, replaced: str | None, find: Any) -> None:
        """Remove the generations that nothing names any more."""
        ...

    def discard(self, generation: str) -> None:
        """Remove what lies below a key."""
        ...


def is_place(where: object) -> bool:
    """Say whether something names a zarr store rather than a file.

    Examples
    --------
    >>> is_place("study.zarr"), is_place("s3://bucket/study.zarr"), is_place("study.h5")
    (True, True, False)
    """
    if _is_object_store(where):
        return True
    if not isinstance(where, (str, os.PathLike)):
        return False
    text = os.fspath(where)
    is_url = isinstance(text, str) and _SCHEME.match(text) is not None
    return is_url or (isinstance(text, str) and text.rstrip("/\\").endswith(".zarr"))


def is_store(where: object) -> bool:
    """Say whether something names a zarr store, or is the folder of one without the suffix."""
    if is_place(where) or not isinstance(where, (str, Path)):
        return is_place(where)
    return (Path(where).expanduser() / MARKER).is_file()


def _is_object_store(where: object) -> bool:
    return type(where).__module__.partition(".")[0] == "obstore" and hasattr(where, "put")


def place_of(where: Any) -> SavingPlace:
    """Return the place that a path, a URL or an obstore store names.

    Raises
    ------
    MissingDependencyError
        If it is a URL and obstore is not installed.
    """
    if _is_object_store(where):
        return ObjectPlace(where)
    text = os.fspath(where)
    if _SCHEME.match(text):
        if text.endswith((".h5", ".json")):
            raise WorkspaceError(
                f"{text}: a URL holds a zarr workspace, not an HDF5 file; write "
                f"{text.rpartition('.')[0] + '.zarr'!r}"
            )
        return ObjectPlace(text)
    return FolderPlace(text)


def is_generation(name: str) -> bool:
    """Say whether a name is one that :func:`new_generation` gives."""
    return re.fullmatch(r"saved-[0-9a-f]{8}-[0-9a-f]{8}", name) is not None


def new_generation() -> str:
    """Return a name for what one save writes: its time in seconds, and chance."""
    return f"saved-{int(time.time()) & 0xFFFFFFFF:08x}-{os.urandom(4).hex()}"


def _age(generation: str) -> float:
    return time.time() - int(generation.split("-")[1], 16)


class FolderPlace:
    """A folder on a disk; pickles as its path."""

    workers = 8
    is_ordered = False
    separator = "."  # so that no chunk needs folders of its own

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser().absolute()
        self.name = str(self.path)
        self._made: set[Path] = set()

    def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        """Return an object, or a part of it."""
        try:
            with (self.path / key).open("rb", buffering=0) as file:
                if size is None:
                    size = os.fstat(file.fileno()).st_size - start
                if start:
                    file.seek(start)
                parts = []
                while size > 0 and (part := file.read(size)):
                    parts.append(part)
                    size -= len(part)
                return parts[0] if len(parts) == 1 else b"".join(parts)
        except (NotADirectoryError, IsADirectoryError) as error:
            raise MissingFileError(str(error)) from error

    def write(self, key: str, data: Any) -> None:
        """Write a new object, safely on disk."""
        path = self.path / key
        folder = path.parent
        if folder not in self._made:
            folder.mkdir(parents=True, exist_ok=True)
            self._made.add(folder)
        with path.open("xb", buffering=0) as file:
            view = memoryview(data).cast("B")
            while view:  # a full disk can take a part of it before it says so
                view = view[file.write(view) :]
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def writing(self, generation: str) -> Iterator[None]:
        """Hold a lock on the generation's folder, which ends with this process."""
        if not self.path.parent.is_dir():
            raise MissingFileError(
                f"{self.path}: the folder {self.path.parent} does not exist; make it with "
                f"pathlib.Path({str(self.path.parent)!r}).mkdir(parents=True)"
            )
        if self.path.is_file():
            raise AlreadyExistsError(f"{self.path} is a file; a zarr store is a folder")
        is_new = not self.path.exists()
        folder = self.path / generation
        with contextlib.ExitStack() as held:
            # Who cleans up holds the same lock, and meets no folder that is not locked yet.
            self.path.mkdir(exist_ok=True)
            with folder_lock(self.path):
                folder.mkdir()
                held.enter_context(folder_lock(folder))
            try:
                yield
            finally:
                self._made = set()
                if is_new:  # where nothing was committed nothing is left behind
                    with contextlib.suppress(OSError):
                        self.path.rmdir()

    def commit(self, data: bytes, generation: str, check: Any, find: Any) -> str | None:
        """Replace the marker in one step."""
        # Names must be as safe as what they name before the marker tells of them.
        folders = [Path(folder) for folder, _, _ in os.walk(self.path / generation)]
        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(sync_folder, [*folders, self.path, self.path.parent]))
        marker = self.path / MARKER
        with folder_lock(self.path), temporary_path(marker) as temporary:
            replaced = check_found(self, check, find)
            if not (self.path / generation / MARKER).is_file():
                raise WorkspaceError(f"{self.path}: {generation} was removed meanwhile")
            temporary.write_bytes(data)
            replace_file(temporary, marker)
        return replaced

    def clean(self, generation: str, replaced: str | None, find: Any) -> None:
        """Remove generations that no running process writes."""
        with folder_lock(self.path):
            if find(self.read(MARKER)) != generation:
                return  # another process has saved since
            for other in self.path.iterdir():
                if is_generation(other.name) and other.name != generation:
                    _remove_unlocked(other)

    def discard(self, generation: str) -> None:
        """Remove a generation that was not committed."""
        shutil.rmtree(self.path / generation, ignore_errors=True)

    def __reduce__(self) -> Any:
        return FolderPlace, (self.name,)


def _remove_unlocked(folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no lock on a folder: only age tells
        if _age(folder.name) > _DAY:
            shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


class ObjectPlace:
    """A prefix in an object store: S3, Google, Azure, HTTP; pickles as what it was made of.

    Credentials and endpoints come from the environment (``AWS_ACCESS_KEY_ID``,
    ``AWS_ENDPOINT_URL`` and so on), or with an obstore store that is given.
    """

    workers = 32
    is_ordered = False
    separator = "."

    def __init__(self, where: Any):
        self._where = where
        if isinstance(where, str):
            self.name = where.rstrip("/")
            options: Any = {}
            if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
                options = {"client_options": {"allow_http": True}}
            stores = require("obstore.store", purpose="a workspace at a URL", extra="remote")
            try:
                self._store = stores.from_url(self.name, **options)
            except Exception as error:  # obstore's own classes, with many lines of Rust
                raise FormatError(
                    f"{self.name} is no place for a workspace; expected a URL such as "
                    "s3://bucket/name.zarr, gs://bucket/name.zarr or az://container/name.zarr "
                    f"({str(error).splitlines()[0][:200]})"
                ) from error
        else:
            self.name = repr(where)
            self._store = where

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Raise what obstore raises as the builtin that says the same."""
        exceptions = require(
            "obstore.exceptions", purpose="a workspace at a URL", extra="remote"
        )
        try:
            yield
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise PermissionError(f"{self.name}/{key}: {error}") from error
        except exceptions.GenericError as error:
            raise FileAccessError(f"{self.name}/{key}: {error}") from error

    def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        """Return an object, or a part of it."""
        with self._errors(key):
            if size is None:
                return bytes(self._store.get(key).bytes())
            return bytes(self._store.get_range(key, start=start, length=size))

    def write(self, key: str, data: Any) -> None:
        """Write an object."""
        with self._errors(key):
            self._store.put(key, bytes(data))

    @contextlib.contextmanager
    def writing(self, generation: str) -> Iterator[None]:
        """Do nothing: only its age tells that a generation was abandoned."""
        yield

    def commit(self, data: bytes, generation: str, check: Any, find: Any) -> str | None:
        """Replace the marker if it is still the one that was looked at."""
        exceptions = require(
            "obstore.exceptions", purpose="a workspace at a URL", extra="remote"
        )
        for _ in range(100):
            before, mode = self._look()
            old = None if before is None else find(before)
            if old == generation:
                break  # it was replaced, only the answer was lost
            check_found(self, check, find)
            try:
                with self._errors(MARKER):
                    self._store.put(MARKER, data, mode=mode)
            except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
                continue  # another one was quicker: look again
            except (exceptions.NotSupportedError, NotImplementedError):
                self._store.put(MARKER, data)
            break
        else:
            raise WorkspaceError(f"{self.name} is being saved by others all the time")
        return old

    def clean(self, generation: str, replaced: str | None, find: Any) -> None:
        """Remove the replaced generation, and those that nobody has written to for a day."""
        # The save is done; what cannot be removed now is found again by the next one.
        with contextlib.suppress(Exception):
            self._clean(generation, replaced, find)

    def _clean(self, generation: str, old: str | None, find: Any) -> None:
        marker = self._store.get(MARKER)
        kept = {generation, find(bytes(marker.bytes()))}
        for other in set(self._generations()) - kept:
            batches = list(self._store.list(other))
            times = [item["last_modified"] for batch in batches for item in batch]
            # The store's own clock tells, not that of a computer that may be wrong.
            age = marker.meta["last_modified"] - max(times)
            if other == old or age.total_seconds() > _DAY:
                self.discard(other)

    def _look(self) -> tuple[bytes | None, Any]:
        try:
            found = self._store.get(MARKER)
        except FileNotFoundError:
            return None, "create"
        tag = {"e_tag": found.meta.get("e_tag"), "version": found.meta.get("version")}
        return bytes(found.bytes()), {name: text for name, text in tag.items() if text}

    def _generations(self) -> list[str]:
        listed = self._store.list_with_delimiter()["common_prefixes"]
        names = [str(prefix).rstrip("/").rpartition("/")[2] for prefix in listed]
        return [name for name in names if is_generation(name)]

    def discard(self, generation: str) -> None:
        """Remove a generation."""
        # What is left behind is found again by the next save.
        with contextlib.suppress(Exception):
            for batch in self._store.list(generation):
                self._store.delete([item["path"] for item in batch])

    def __reduce__(self) -> Any:
        return ObjectPlace, (self._where,)


def check_found(place: SavingPlace, check: Any, find: Any) -> str | None:
    """Return the generation that is there, or None; let `check` refuse to replace it."""
    try:
        found = find(place.read(MARKER))
    except FileNotFoundError:
        found = None
    else:
        if found is None:
            raise WorkspaceError(
                f"{place.name} is a zarr store but no workspace of labtree; nothing was "
                "written. Save under another name"
            )
    if check is not None:
        check(found)
    return None if found is None else str(found)
