"""icechunk repositories: zarr stores that many processes write to in transactions."""

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from labtree.errors import FileAccessError, MissingFileError, WorkspaceError
from labtree.optional import require
from labtree.storage.locks import folder_lock

__all__ = [
    "SessionPlace",
    "access_named",
    "children",
    "commit_once",
    "open_repository",
    "transact",
]

_PURPOSE = "a workspace that many processes store into"
_TRIES = 1000


def _icechunk() -> Any:
    return require("icechunk", purpose=_PURPOSE, extra="icechunk")


class SessionPlace:
    """What an icechunk session sees, as a place of objects; pickles with the session."""

    separator = "/"  # icechunk knows no other

    def __init__(self, session: Any, name: str):
        self.name = name
        self._session = session
        self.store = session.store

    def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        """Return an object, or a part of it."""
        from zarr.abc.store import RangeByteRequest
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        part = None if size is None else RangeByteRequest(start, start + size)
        found = sync(self.store.get(key, default_buffer_prototype(), part))
        if found is None:
            raise MissingFileError(f"{self.name} has no {key}")
        return bytes(found.to_bytes())

    def write(self, key: str, data: Any) -> None:
        """Write an object, to be seen by others when the session is committed."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        buffer = default_buffer_prototype().buffer.from_bytes(bytes(data))
        sync(self.store.set(key, buffer))

    def remove(self, key: str) -> None:
        """Remove a group or array with all below it, if it is there."""
        from zarr.core.sync import sync

        sync(self.store.delete_dir(key))

    def names(self, key: str) -> list[str]:
        """Return the names of the groups and arrays below a group."""
        from zarr.core.sync import sync

        async def listed() -> list[str]:
            return [str(name).rstrip("/") async for name in self.store.list_dir(key)]

        return [name for name in sync(listed()) if name != "zarr.json"]

    def __reduce__(self) -> Any:
        return SessionPlace, (self._session, self.name)


def children(place: SessionPlace, key: str) -> list[str]:
    """Return the keys of the groups below a group."""
    return [f"{key}/{name}" if key else name for name in place.names(key)]


def _storage(where: Any) -> tuple[Any, str, Path | None]:
    """Return storage, name, and the folder if it is one, of a path, URL or Storage."""
    icechunk = _icechunk()
    if isinstance(where, icechunk.Storage):
        return where, repr(where), None
    text = os.fspath(where)
    match = re.fullmatch(r"([A-Za-z0-9+.-]+)://([^/]+)/?(.*)", text)
    if match is None:
        folder = Path(text).expanduser().absolute()
        return icechunk.local_filesystem_storage(str(folder)), str(folder), folder
    scheme, bucket, prefix = match[1], match[2], match[3].rstrip("/") or None
    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        storage = icechunk.s3_storage(
            bucket=bucket,
            prefix=prefix,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            endpoint_url=endpoint,
            allow_http=bool(endpoint and endpoint.startswith("http://")),
            force_path_style=endpoint is not None,
            from_env=True,
        )
    elif scheme == "gs":
        storage = icechunk.gcs_storage(bucket=bucket, prefix=prefix, from_env=True)
    else:
        raise WorkspaceError(
            f"{text}: known are paths, s3://bucket/prefix and gs://bucket/prefix; for others "
            "make an icechunk.Storage and give that"
        )
    return storage, text, None


def open_repository(where: Any, *, new: bool = False) -> tuple[Any, str, Path | None]:
    """Open a repository; return it, its name, and its folder if it is one.

    Parameters
    ----------
    where
        A path, a URL ``s3://bucket/prefix`` or ``gs://bucket/prefix``, or an
        ``icechunk.Storage``.
    new
        Whether to make it where it is not there.

    Raises
    ------
    FileNotFoundError
        If there is none, and it shall not be made.
    """
    storage, name, folder = _storage(where)
    with access_named(name):
        return _opened(storage, name, folder, new), name, folder


def _opened(storage: Any, name: str, folder: Path | None, new: bool) -> Any:
    icechunk = _icechunk()
    if folder is not None and new:
        if os.name == "nt":
            raise WorkspaceError(
                f"{name}: Windows has no lock on a folder, without which icechunk may lose "
                "what processes store at once; store into s3://bucket/prefix"
            )
        if not folder.parent.is_dir():
            raise MissingFileError(f"{folder}: the folder {folder.parent} does not exist")
        folder.mkdir(exist_ok=True)
    if not new:
        if (folder is not None and not folder.is_dir()) or not icechunk.Repository.exists(
            storage
        ):
            raise MissingFileError(f"there is no shared workspace {name}")
        return icechunk.Repository.open(storage)
    with nullcontext() if folder is None else folder_lock(folder):
        for attempt in range(20):
            try:
                if icechunk.Repository.exists(storage):
                    return icechunk.Repository.open(storage)
                return icechunk.Repository.create(storage)
            except icechunk.IcechunkError:  # another process makes it at this moment
                if attempt == 19:
                    raise
                time.sleep(0.05 + random.random() / 5)
    raise AssertionError("not reached")


@contextmanager
def access_named(name: str) -> Iterator[None]:
    """Raise what icechunk says of a store that cannot be reached as an error of labtree."""
    icechunk = _icechunk()
    try:
        yield
    except (icechunk.ConflictError, icechunk.RebaseFailedError):
        raise
    except icechunk.IcechunkError as error:
        raise FileAccessError(f"{name} cannot be read or written: {error}") from error


def commit_once(session: Any, folder: Path | None, name: str, message: str) -> None:
    """Commit a session; an error if somebody else committed since it began."""
    icechunk = _icechunk()
    try:
        with nullcontext() if folder is None else folder_lock(folder):
            session.commit(message)
    except icechunk.ConflictError as error:
        raise WorkspaceError(
            f"{name} was saved by another process meanwhile; nothing was written. Open it "
            "again, or save under another name"
        ) from error


def transact(where: Any, message: str, write: Callable[[SessionPlace], None]) -> None:
    """Do what `write` does in one transaction, again if others changed the same meanwhile.

    Parameters
    ----------
    where
        As in :func:`open_repository`.
    message
        What the history says of it.
    write
        Called with the place as it is now, again for each try.
    """
    icechunk = _icechunk()
    repository, name, folder = open_repository(where, new=True)
    for attempt in range(_TRIES):
        try:
            with access_named(name):
                session = repository.writable_session("main")
                write(SessionPlace(session, name))
                if not session.has_uncommitted_changes:
                    return
                # icechunk itself keeps order in an object store, but not in a folder.
                with nullcontext() if folder is None else folder_lock(folder):
                    session.commit(message, rebase_with=icechunk.ConflictDetector())
            return
        except (icechunk.ConflictError, icechunk.RebaseFailedError):
            time.sleep(random.random() * min(1.0, 0.01 * (attempt + 1)))
    raise WorkspaceError(
        f"{name}: others changed the same item {_TRIES} times meanwhile; nothing was stored"
    )
