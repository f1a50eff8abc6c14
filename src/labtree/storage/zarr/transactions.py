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
from labtree.storage.files import check_parent
from labtree.storage.locks import folder_lock

_PURPOSE = "a workspace at a URL, or one that many processes store into"
_TRIES = 1000


def _icechunk() -> Any:
    return require("icechunk", purpose=_PURPOSE, extra="icechunk")


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
        check_parent(folder)
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


def transact(where: Any, message: str, write: Callable[[Any, str], None]) -> None:
    """Do what `write` does in one transaction, again if others changed the same meanwhile.

    Parameters
    ----------
    where
        As in :func:`open_repository`.
    message
        What the history says of it.
    write
        Called with zarr's store as it is now, and its name, again for each try.
    """
    icechunk = _icechunk()
    repository, name, folder = open_repository(where, new=True)
    for attempt in range(_TRIES):
        try:
            with access_named(name):
                session = repository.writable_session("main")
                write(session.store, name)
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
