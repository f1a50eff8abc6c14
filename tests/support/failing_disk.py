"""A disk that is full or broken, from one call on or for one call only."""

import _io
import builtins
import contextlib
import errno
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["failing_disk"]

_BY_DESCRIPTOR = ("write", "pwrite", "fsync", "fdatasync", "ftruncate")
_BY_NAME = ("open", "mkdir", "replace", "rename", "truncate")
# What a full disk does all the same.
_NEED_NO_SPACE = frozenset({"truncate", "ftruncate"})


class _Disk:
    def __init__(self, folder: Path, at: int, number: int, *, once: bool) -> None:
        self.folder = Path(os.path.realpath(folder))
        self.at, self.number, self.once = at, number, once
        self.calls: list[str] = []
        self.lock = threading.Lock()
        self.has_written = False  # a half

    def is_on_it(self, where: Any) -> bool:
        try:
            if isinstance(where, int):
                where = Path(f"/proc/self/fd/{where}").readlink()
            return self.folder in Path(os.path.abspath(where)).parents  # noqa: PTH100
        except (OSError, TypeError):
            return False

    def fails(self, name: str) -> bool:
        """Count a call; say whether it is to fail."""
        if self.number == errno.ENOSPC and name in _NEED_NO_SPACE:
            return False
        with self.lock:
            self.calls.append(name)
            over = len(self.calls) - 1 - self.at
        return over == 0 if self.once else over >= 0

    def error(self, where: Any = None) -> OSError:
        name = os.fspath(where) if isinstance(where, (str, os.PathLike)) else None
        return OSError(self.number, os.strerror(self.number), name)

    def write(self, original: Any, data: Any, *rest: Any) -> int:
        """Write a half, the first time; say how much, as a full disk does, or fail."""
        half = memoryview(data).cast("B")[: memoryview(data).nbytes // 2]
        is_first, self.has_written = not self.has_written, True
        count = original(half, *rest) if half.nbytes and is_first else 0
        if count and self.number == errno.ENOSPC and not self.once:
            return int(count)
        raise self.error()


def _file_class(disk: _Disk) -> type[io.FileIO]:
    class File(io.FileIO):
        def write(self, data: Any) -> int:
            if disk.is_on_it(self.fileno()) and disk.fails("write"):
                return disk.write(super().write, data)
            return super().write(data)

        def truncate(self, size: int | None = None) -> int:
            if disk.is_on_it(self.fileno()) and disk.fails("truncate"):
                raise disk.error()
            return super().truncate(size)

    return File


@contextlib.contextmanager
def failing_disk(
    folder: Path, at: int, number: int, *, once: bool = False
) -> Iterator[list[str]]:
    """Let what changes the files in a folder fail (Linux only); give the calls so far.

    Parameters
    ----------
    folder
        Where.
    at
        The number of the first call that fails, from 0. A write of it is done by half.
    number
        ``errno.ENOSPC`` or ``errno.EIO``.
    once
        Whether the calls behind it work again.
    """
    disk = _Disk(folder, at, number, once=once)
    file_class = _file_class(disk)

    def by_descriptor(name: str) -> Any:
        original = getattr(os, name)

        def call(file: Any, *rest: Any) -> Any:
            descriptor = file if isinstance(file, int) else file.fileno()
            if not (disk.is_on_it(descriptor) and disk.fails(name)):
                return original(file, *rest)
            if name not in ("write", "pwrite"):
                raise disk.error()
            data, *place = rest
            return disk.write(lambda part, *p: original(file, part, *p), data, *place)

        return call

    def by_name(name: str) -> Any:
        original = getattr(os, name)

        def call(path: Any, *rest: Any, **options: Any) -> Any:
            flags = (*rest, options.get("flags", 0))[0]
            if (name != "open" or flags & os.O_CREAT) and disk.is_on_it(path):
                is_made = name != "open" or not os.path.exists(path)  # noqa: PTH110
                if is_made and disk.fails(name):
                    raise disk.error(path)
            return original(path, *rest, **options)

        return call

    original_open = io.open

    def opened(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: Any = None,
        errors: Any = None,
        newline: Any = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        text = "b" not in mode
        if not set(mode) & set("wax+") or (opener is None and not disk.is_on_it(file)):
            return original_open(
                file, mode, buffering, encoding, errors, newline, closefd, opener
            )
        is_new = isinstance(file, (str, os.PathLike)) and not os.path.exists(file)  # noqa: PTH110
        if is_new and disk.is_on_it(file) and disk.fails("open"):
            raise disk.error(file)
        raw = file_class(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffered: Any = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        return io.TextIOWrapper(buffered, encoding, errors, newline) if text else buffered

    with pytest.MonkeyPatch.context() as patch:
        for name in _BY_DESCRIPTOR:
            patch.setattr(os, name, by_descriptor(name))
        for name in _BY_NAME:
            patch.setattr(os, name, by_name(name))
        for module in (io, _io, builtins):
            patch.setattr(module, "open", opened)
        yield disk.calls
