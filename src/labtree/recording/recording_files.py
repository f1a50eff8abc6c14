"""A recording's files, read by relative name: those of a folder, or of a zip archive.

Nothing is held open between two reads, so a session never locks its file and may be used
from many threads and processes.
"""

import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from labtree.errors import FormatError, MissingFileError, SessionError, UnknownNameError
from labtree.storage.files import open_regular
from labtree.storage.json_files import MAX_JSON_BYTES, parse_json

SUFFIX = ".session.zip"
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class SessionStore(Protocol):
    """Files by their name relative to the session's root, with forward slashes."""

    path: Path

    def read(self, name: str, most: int) -> bytes:
        """Return the content of the file, at most so many bytes.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such file.
        """

    def size(self, name: str) -> int | None:
        """Return the size of the file, None if there is none."""

    def close(self) -> None:
        """Refuse further reads."""


def stored_json(store: SessionStore, name: str) -> Any:
    """Return the value of a JSON file of a recording."""
    return parse_json(store.read(name, MAX_JSON_BYTES), f"{store.path}/{name}")


class _Store:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = False

    def __getstate__(self) -> dict[str, Any]:
        # The process that unpickles it may work in another folder.
        return {**self.__dict__, "path": self.path.absolute()}

    def close(self) -> None:
        self.closed = True

    def _without(self, name: str) -> UnknownNameError:
        return UnknownNameError(f"{self.path}: there is no {name} in it")

    def _check(self, name: str, size: int, most: int) -> None:
        if self.closed:
            raise SessionError(
                f"{self.path} is closed; open it again: tree = labtree.open_session(...)"
            )
        if size > most:
            raise FormatError(
                f"{self.path}: {name} would take {size} bytes; expected at most {most}"
            )


class FolderStore(_Store):
    """The files of a recording folder."""

    def read(self, name: str, most: int) -> bytes:
        """Return the content of the file, at most so many bytes.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such file.
        """
        self._check(name, 0, most)
        try:
            descriptor = open_regular(f"{self.path}/{name}")
        except MissingFileError:
            raise self._without(name) from None
        try:
            size = os.fstat(descriptor).st_size
            self._check(name, size, most)
            content = os.read(descriptor, size + 1)
            while len(content) < size and (more := os.read(descriptor, size - len(content))):
                content += more
        finally:
            os.close(descriptor)
        self._check(name, len(content), most)
        return content

    def size(self, name: str) -> int | None:
        """Return the size of the file, after following links; None if there is none."""
        try:
            state = os.stat(f"{self.path}/{name}")  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return None
        return state.st_size if stat.S_ISREG(state.st_mode) else None


class ZipStore(_Store):
    """The files of a ``.session.zip``; every entry is checked before it is trusted.

    An archive that was packed by hand may hold everything in one folder, write back slashes,
    and have entries of the system that packed it; these are passed over.

    Raises
    ------
    FormatError
        If the file is not a zip archive, or an entry leaves the archive, appears twice,
        is encrypted, or is compressed by anything but deflate.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise FormatError(f"{path}: expected a zip archive ({error})") from error
        except OSError as error:
            if error.filename is not None:  # the file itself cannot be opened
                raise
            raise FormatError(f"{path}: its list of contents is damaged ({error})") from error
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            name = entry.orig_filename.replace("\\", "/").removeprefix("./")
            if entry.is_dir() or name.endswith("/") or _is_of_the_system(name):
                continue
            parts = PurePosixPath(name).parts
            if (
                not parts
                or name != "/".join(parts)
                or name[0] == "/"
                or ".." in parts
                or any(letter in name for letter in ":\x00")
            ):
                raise FormatError(f"{path}: entry {name!r} would leave the archive")
            if entry.header_offset < 0:
                raise FormatError(f"{path}: entry {name!r} would begin before the archive")
            if name in self._entries:
                raise FormatError(f"{path}: two entries are called {name!r}")
            if entry.flag_bits & 1:
                raise FormatError(f"{path}: entry {name!r} is encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise FormatError(
                    f"{path}: entry {name!r} has compression {entry.compress_type}; expected"
                    " stored or deflated"
                )
            self._entries[name] = entry
        top = self._top()
        self._entries = {
            name.removeprefix(top): entry
            for name, entry in self._entries.items()
            if name.startswith(top)
        }
        state = path.stat()
        self._state = (state.st_size, state.st_mtime_ns)

    def _top(self) -> str:
        """Return the folder in which the recording lies, with its slash; "" for none."""
        tops = {
            name.removesuffix("meta.json")
            for name in self._entries
            if name == "meta.json" or name.endswith("/meta.json")
        }
        if not tops:  # gone: where the arrays lie
            tops = {
                name.removesuffix(rest).rpartition("/")[0] + "/"
                for name in self._entries
                if name.endswith(rest := "_timestamps.zarr/zarr.json")
            }
        least = min((top.count("/") for top in tops), default=0)
        tops = {top for top in tops if top.count("/") == least}
        if len(tops) > 1:
            raise FormatError(
                f"{self.path} holds {len(tops)} recordings ({', '.join(sorted(tops))}); unpack"
                " it, and open one of the folders"
            )
        return next(iter(tops), "").removeprefix("/")

    def read(self, name: str, most: int) -> bytes:
        """Return the content of the entry, at most so many bytes.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such file.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise self._without(name)
        self._check(name, max(entry.file_size, entry.compress_size), most)
        with self.path.open("rb", buffering=0) as file:
            state = os.fstat(file.fileno())
            if (state.st_size, state.st_mtime_ns) != self._state:
                raise SessionError(
                    f"{self.path} has changed since it was opened; open it again"
                )
            file.seek(entry.header_offset)
            header = file.read(30)
            if len(header) == 30 and header[:4] == b"PK\x03\x04":
                _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
                file.seek(name_length + extra_length, os.SEEK_CUR)
                content = file.read(entry.compress_size)
            else:
                content = b""
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            # One byte more than declared is enough to know that the size is wrong.
            try:
                unpack = zlib.decompressobj(-15)
                content = unpack.decompress(content, entry.file_size + 1)
            except zlib.error as error:
                raise FormatError(f"{self.path}: {name} is damaged ({error})") from error
        if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
            raise FormatError(
                f"{self.path}: {name} is damaged: expected {entry.file_size} bytes with"
                f" CRC-32 {entry.CRC:08x}, found {len(content)}"
            )
        return content

    def size(self, name: str) -> int | None:
        """Return the size of the entry, None if there is none."""
        entry = self._entries.get(name)
        return None if entry is None else entry.file_size


def _is_of_the_system(name: str) -> bool:
    """Return whether an entry is one that file managers add to any archive."""
    parts = name.split("/")
    last = parts[-1]
    return (
        "__MACOSX" in parts
        or last.startswith("._")
        or last.casefold() in (".ds_store", "thumbs.db", "desktop.ini", "icon\r")
    )
