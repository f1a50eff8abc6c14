"""The thread behind a recorder: chunks to zarr, and the journal to the disk now and then."""

import contextlib
import time
from queue import Empty, SimpleQueue
from threading import Thread

from labtree.recording.compaction import Compactor
from labtree.recording.journal import JournalWriter

__all__ = ["Background"]


class Background:
    """Runs compactors when they are asked for, so that `append` never waits for them.

    Parameters
    ----------
    sync_every
        Seconds between two times that every journal is brought to the disk, or None.
    """

    def __init__(self, sync_every: float | None) -> None:
        self.sync_error: Exception | None = None
        self._sync_every = sync_every
        self._compactors: list[Compactor] = []
        self._journals: list[JournalWriter] = []
        self._wanted: SimpleQueue[Compactor | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="labtree recorder", daemon=True)
        self._thread.start()

    def follow(self, journal: JournalWriter, compactor: Compactor | None = None) -> None:
        """Take care of another journal."""
        self._journals.append(journal)
        if compactor is not None:
            self._compactors.append(compactor)

    def wake(self, compactor: Compactor) -> None:
        """Ask for what the journal holds to be moved on."""
        self._wanted.put(compactor)

    def stop(self) -> None:
        """Wait for the thread to end. What it could not move is still in the journal."""
        if self._thread.is_alive():
            self._wanted.put(None)
            self._thread.join()

    def _run(self) -> None:
        due = None if self._sync_every is None else time.monotonic() + self._sync_every
        while True:
            try:
                wait = None if due is None else max(0.0, due - time.monotonic())
                wanted = self._wanted.get(timeout=wait)
            except Empty:
                self._sync()
                due = time.monotonic() + (self._sync_every or 0)
                continue
            # A full disk, no memory: the samples stay in the journal, the next chunk or
            # the end of the recording tries again, and the end says so if it fails.
            with contextlib.suppress(Exception):
                if wanted is None:
                    for compactor in self._compactors:
                        compactor.run()
                        compactor.publish()
                else:
                    wanted.run()
            if wanted is None:
                return

    def _sync(self) -> None:
        try:
            for journal in list(self._journals):
                journal.sync()
            self.sync_error = None
        except Exception as error:
            self.sync_error = error
