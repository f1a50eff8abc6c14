"""Where zarr stores lie: in folders, or in object stores through icechunk."""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labtree.errors import (
    AlreadyExistsError,
    FormatError,
    MissingFileError,
    WorkspaceError,
    write_errors_named,
)
from labtree.storage.blocks import Writers
from labtree.storage.files import check_parent, check_regular, read_file
from labtree.storage.folders import (
    complete_replacement,
    replace_folder,
    sync_tree,
    temporary_folder,
)
from labtree.storage.locks import folder_lock
from labtree.storage.sources import identity
from labtree.storage.zarr.metadata import METADATA
from labtree.storage.zarr.transactions import access_named, commit_once, open_repository

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
#: Called before a save counts, with the version that stands there and the new one.
Check = Callable[[str | None, str], None]


def is_zarr(where: object) -> bool:
    """Return whether something names a zarr store rather than a file.

    Examples
    --------
    >>> is_zarr("study.zarr"), is_zarr("s3://bucket/study"), is_zarr("study.h5")
    (True, True, False)
    """
    icechunk = sys.modules.get("icechunk")  # who gives a Storage has imported it
    if icechunk is not None and isinstance(where, icechunk.Storage):
        return True
    if not isinstance(where, (str, os.PathLike)):
        return False
    text = os.fspath(where)
    if not isinstance(text, str):
        return False
    return _SCHEME.match(text) is not None or text.rstrip("/\\").endswith(".zarr")


def is_zarr_folder(where: object) -> bool:
    """Return whether something is a path to a folder with a group of zarr."""
    return isinstance(where, (str, Path)) and (Path(where).expanduser() / METADATA).is_file()


@functools.cache
def _complete_store() -> Any:
    """Return a class of stores in folders; zarr is imported only where it is needed."""
    from zarr.storage import LocalStore

    class CompleteStore(LocalStore):
        """A folder in which every chunk was written: one that is not there is damage."""

        async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
            check_regular(self.root / key)
            found = await super().get(key, *args, **kwargs)
            name = key.rpartition("/")[2]
            # Of whatever name: a damaged zarr.json may say otherwise how chunks are called.
            if found is None and not name.startswith((METADATA, ".z")):
                raise FormatError(f"{self.root}: {key} is missing")
            return found

    return CompleteStore


@functools.cache
def _store_for_writing() -> Any:
    """Return a class of stores in folders into which nothing is written after the end."""
    from zarr.storage import LocalStore

    class NewStore(LocalStore):
        """A new folder. After a Ctrl-C zarr's own thread goes on, and would make it again."""

        def __init__(self, root: Path, *, read_only: bool = False, writers: Any = None):
            super().__init__(root, read_only=read_only)
            self.writers = writers or Writers()

        @contextmanager
        def _writing(self) -> Iterator[None]:
            with self.writers.one():
                if not self.root.is_dir():  # as another process finds it after the end
                    raise MissingFileError(f"{self.root}: this folder is not there any more")
                yield

        async def set(self, key: str, value: Any) -> None:
            with self._writing():
                await super().set(key, value)

        def set_sync(self, key: str, value: Any) -> None:
            with self._writing():
                super().set_sync(key, value)

    return NewStore


def _identity(folder: Path) -> tuple[int, ...] | None:
    try:
        return identity(folder / METADATA)
    except OSError:
        return None


class Folder:
    """A folder on a disk; pickles as its path and what stood there.

    Attributes
    ----------
    separator
        What stands between the numbers of a chunk's key.
    """

    separator = "."  # no chunk needs folders of its own

    def __init__(self, path: str | Path, known: tuple[int, ...] | None = None):
        self.path = Path(path).expanduser().absolute()
        self.name = str(self.path)
        complete_replacement(self.path)
        self._known = known or _identity(self.path)
        self._written: tuple[int, ...] | None = None

    def store(self) -> Any:
        """Return zarr's store for reading."""
        return _complete_store()(self.path, read_only=True)

    def version(self) -> str | None:
        """Return the identity of the root's metadata."""
        identity = _identity(self.path)
        return None if identity is None else repr(identity)

    def read(self, key: str) -> bytes:
        """Return one object."""
        return read_file(self.path / key, 1 << 34)

    def check(self) -> None:
        """Raise an error if the folder was replaced since it was opened."""
        if _identity(self.path) != self._known:
            raise FormatError(
                f"{self.name} was saved again, or removed, after it was opened; open it again"
            )

    def replace(self, write: Callable[[Any], None], check: Check) -> None:
        """Write a new folder beside this one and exchange both."""
        check_parent(self.path)
        if self.path.is_file():
            raise AlreadyExistsError(f"{self.path} is a file; a zarr store is a folder")
        writers = Writers()
        target = self.path.resolve() if self.path.is_symlink() else self.path
        with write_errors_named(self.path), temporary_folder(target) as temporary:
            with writers.ended():
                write(_store_for_writing()(temporary, writers=writers))
            sync_tree(temporary)
            with folder_lock(target.parent):
                new = _identity(temporary)
                check(self.version(), repr(new))
                self._written = new
                replace_folder(temporary, target)
                self._known = _identity(self.path)

    def was_replaced(self) -> bool:
        """Return whether what was written last stands there, also after an interrupt."""
        if self._written is None or _identity(self.path) != self._written:
            return False
        self._known = self._written
        return True

    def __reduce__(self) -> Any:
        return Folder, (self.name, self._known)


class Repository:
    """An icechunk repository, mostly in an object store; it is read as it was when opened.

    Parameters
    ----------
    where
        A URL ``s3://bucket/prefix`` or ``gs://bucket/prefix``, or an ``icechunk.Storage``.
    session
        What it is read through, where it was opened already.
    """

    separator = "/"  # icechunk knows no other

    def __init__(self, where: Any, session: Any = None):
        self._where = where
        self.name = where.rstrip("/") if isinstance(where, str) else repr(where)
        self._session = session

    def _opened(self) -> Any:
        if self._session is None:
            repository, _, _ = open_repository(self._where)
            self._session = repository.readonly_session("main")
        return self._session

    def store(self) -> Any:
        """Return zarr's store for reading."""
        return self._opened().store

    def version(self) -> str | None:
        """Return the id of the newest snapshot."""
        try:
            repository, _, _ = open_repository(self._where)
        except FileNotFoundError:
            return None
        session = repository.readonly_session("main")
        return (
            None if read_object(session.store, METADATA) is None else str(session.snapshot_id)
        )

    def read(self, key: str) -> bytes:
        """Return one object."""
        found = read_object(self.store(), key)
        if found is None:
            raise MissingFileError(f"{self.name} has no {key}")
        return found

    def check(self) -> None:
        """Do nothing: what was opened stays as it was."""

    def replace(self, write: Callable[[Any], None], check: Check) -> None:
        """Write everything again in one transaction."""
        from zarr.core.sync import sync

        found = self.version()
        check(found, found or "")
        repository, _, folder = open_repository(self._where, new=True)
        with access_named(self.name):
            session = repository.writable_session("main")
            sync(session.store.clear())
            write(session.store)
            commit_once(session, folder, self.name, "save a workspace")
            self._session = repository.readonly_session("main")
            check(found, str(self._session.snapshot_id))

    def was_replaced(self) -> bool:
        """Return False: what an older commit holds stays readable."""
        return False

    def __reduce__(self) -> Any:
        return Repository, (self._where, self._session)


#: Where one zarr store lies.
Location = Folder | Repository


def location_of(where: Any) -> Location:
    """Return the location that a path, a URL or an ``icechunk.Storage`` names.

    Raises
    ------
    WorkspaceError
        If it is a URL of a file.
    """
    if not isinstance(where, (str, os.PathLike)):
        return Repository(where)
    text = os.fspath(where)
    if _SCHEME.match(text):
        if text.endswith((".h5", ".json")):
            raise WorkspaceError(
                f"{text}: a URL holds a zarr workspace, not an HDF5 file; write "
                f"{text.rpartition('.')[0]!r}"
            )
        return Repository(text)
    return Folder(text)


def open_array(location: Location, path: str) -> Any:
    """Return an array of zarr's for reading."""
    import zarr

    return zarr.open_array(store=location.store(), path=path, mode="r", zarr_format=3)


def read_object(store: Any, key: str) -> bytes | None:
    """Return one object of zarr's store; None where it is not there."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    found = sync(store.get(key, default_buffer_prototype()))
    return None if found is None else bytes(found.to_bytes())


def write_object(store: Any, key: str, data: bytes) -> None:
    """Write one object into zarr's store."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    sync(store.set(key, default_buffer_prototype().buffer.from_bytes(data)))


def object_names(store: Any, key: str) -> list[str]:
    """Return what zarr's store has right below a group, by name."""
    from zarr.core.sync import sync

    async def listed() -> list[str]:
        return [str(name).rstrip("/") async for name in store.list_dir(key)]

    return sorted(sync(listed()))


@contextmanager
def damage_named(location: Location, name: str) -> Iterator[None]:
    """Raise what zarr says of damaged chunks as an error that names the array."""
    try:
        yield
        location.check()
    except (MissingFileError, MemoryError):
        raise
    except Exception as error:
        location.check()
        raise FormatError(
            f"{location.name}: {name} is damaged: {error}; restore it from a copy, or read "
            "the other items one by one with labtree.load_item(path, namespace, key)"
        ) from error
