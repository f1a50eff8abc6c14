"""A trial file that grows by one durable line a trial."""

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from labtree.errors import SessionError
from labtree.msw.codec import encode_header, encode_trial, read_lines, sync_folder

__all__ = ["TrialWriter"]


class TrialWriter:
    """Append trials to a trial file, each safe on disk when `append` returns.

    The time of an append does not depend on the trials before it. A file that exists is
    continued: nothing in it is changed, and a line that an earlier crash cut short stays
    as a line of its own, for the reader to tell of.

    Parameters
    ----------
    path : path
        The file; its folder must exist.
    decimals : int or None
        Round floats to so many decimals, as the rigs do; None keeps them exact.

    Examples
    --------
    >>> import tempfile
    >>> from labtree.msw import load_trial_data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with TrialWriter(folder + "/example.msw.df.jsonl") as writer:
    ...         writer.append({"info": {"choice": 1}})
    ...     load_trial_data(folder + "/example.msw.df.jsonl")
    [{'info': {'choice': 1}}]
    """

    def __init__(self, path: str | Path, *, decimals: int | None = 4) -> None:
        self.path = Path(path)
        self.decimals = decimals
        self._lock = threading.Lock()
        is_new = not self.path.exists()
        if not is_new:
            read_lines(self.path)  # A version that cannot be read must not be continued.
        self._file: int | None = os.open(
            self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666
        )
        try:
            self._claim()
            size = os.fstat(self._file).st_size
            if size == 0:
                self._write(encode_header())
            else:
                os.lseek(self._file, size - 1, os.SEEK_SET)
                if os.read(self._file, 1) != b"\n":
                    self._write(b"\n")
            if is_new:
                sync_folder(self.path.parent)
        except BaseException:
            self.close()
            raise

    def append(self, trial: dict[str, Any]) -> None:
        """Write one trial; it is on the disk when this returns.

        Raises
        ------
        TrialDataError
            A value that would not come back as it was; nothing is written then.
        OSError
            The disk refused, for instance because it is full; the file then ends where
            it ended before.
        SessionError
            The writer is closed.
        """
        line = encode_trial(trial, self.decimals, f"{self.path.name}: this trial")
        with self._lock:
            self._write(line)

    def _claim(self) -> None:
        """Refuse a second writer, whose lines a failed append here could cut off."""
        try:
            import fcntl
        except ImportError:  # Windows has no such lock.
            return
        try:
            fcntl.flock(self._file or 0, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SessionError(f"{self.path}: another writer has this file open") from None
        except OSError:
            return  # Some network disks have no locks.

    def _write(self, data: bytes) -> None:
        if self._file is None:
            raise SessionError(
                f"{self.path}: this writer is closed; write TrialWriter(path), which continues"
            )
        before = os.fstat(self._file).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except BaseException:
            os.ftruncate(self._file, before)
            raise

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
