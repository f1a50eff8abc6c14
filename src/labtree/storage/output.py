"""A new file that HDF5 puts its structure into, and labtree the arrays.

HDF5 cannot recover from a failed write: the file can then not be closed, and the
interpreter may crash when it ends. So HDF5 writes through Python here and is never told
of a failure; the failure is kept and raised as soon as HDF5 is out of the way.
"""

import threading
from pathlib import Path
from typing import Any

import numpy as np

from labtree.storage.sources import as_bytes, write_all

__all__ = ["Output"]


class Output:
    """A new, empty file; after a failure all of HDF5's writes go nowhere."""

    def __init__(self, path: Path):
        self._file = path.open("rb+", buffering=0)
        self._lock = threading.Lock()
        self._position = 0
        self._failure: BaseException | None = None

    def write_at(self, offset: int, array: np.ndarray) -> None:
        """Put an array at an offset.

        Raises
        ------
        OSError
            If the disk is full.
        """
        self.check()
        write_all(self._file, self._lock, as_bytes(array), offset)

    def check(self) -> None:
        """Raise what went wrong in a write of HDF5."""
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Write nothing more: the file is going to be removed."""
        self._failure = self._failure or OSError("the file was given up")

    def close(self) -> None:
        """Close the file; raise what went wrong."""
        self._file.close()
        self.check()

    # What follows is called by HDF5, through h5py's driver for Python's files.

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        end = self._file.seek(0, 2) if whence == 2 else 0
        self._position = offset + (self._position if whence == 1 else end)
        return self._position

    def tell(self) -> int:
        """Return the place."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read from the place on."""
        self._file.seek(self._position)
        return self._file.readinto(buffer)

    def write(self, data: Any) -> int:
        """Write at the place, or nowhere after a failure."""
        if self._failure is None:
            try:
                write_all(self._file, self._lock, memoryview(data), self._position)
            except BaseException as error:  # KeyboardInterrupt must not propagate into HDF5
                self._failure = error
        self._position += len(data)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Give the file a size."""
        size = self._position if size is None else size
        if self._failure is None:
            try:
                self._file.truncate(size)
            except BaseException as error:
                self._failure = error
        return size

    def flush(self) -> None:
        """Do nothing: nothing is held back."""
