"""The recorder: what it has acknowledged is not lost, whatever happens to its process."""

import contextlib
import math
import os
import shutil
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import IO, Any, Literal, get_args
from uuid import uuid4

import numpy as np
from pydantic import ValidationError

from labtree.errors import (
    AlreadyExistsError,
    RecordingWarning,
    RecordingWriteError,
    SessionError,
    UnknownNameError,
    warn,
)
from labtree.recording.archive import pack
from labtree.recording.chunks import set_attribute, stream_arrays
from labtree.recording.compaction import ChunkFiller, Compactor
from labtree.recording.journal import MOST_PACKET_BYTES, JournalWriter
from labtree.recording.meta import (
    clock_offset,
    exact_json,
    given_meta,
    new_meta,
    stream_meta,
)
from labtree.recording.models import (
    LabelEvent,
    StreamInfo,
    check_stream_name,
    chunk_rows,
    problems_of,
)
from labtree.recording.recovery import (
    create_stream,
    finish,
    last_finite,
    odd_stamps,
    write_root,
)
from labtree.recording.unfinished import JOURNAL, LOCK
from labtree.storage.arguments import one_of
from labtree.storage.files import sync_folder
from labtree.storage.folders import make_folders
from labtree.storage.json_files import write_json
from labtree.storage.locks import hold_file_lock, release_file_lock

OnBackward = Literal["keep", "raise"]
# No pause is as long; uptime, Unix time and time since the start are farther apart.
_CLOCKS_APART_S = 600
# A journal that is this far ahead of its chunks makes append wait.
_MOST_BEHIND_BYTES = 2**29
_LABEL = struct.Struct("<dq")


class _Background:
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
        self.failing = False
        # Python takes a thread for ended when Ctrl-C comes while it is joined, and it goes on.
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="labtree recorder", daemon=True).start()

    def add(self, journal: JournalWriter, compactor: Compactor | None = None) -> None:
        """Take care of another journal."""
        self._journals.append(journal)
        if compactor is not None:
            self._compactors.append(compactor)

    def wake(self, compactor: Compactor) -> None:
        """Ask for what the journal holds to be moved on."""
        self._wanted.put(compactor)

    def stop(self) -> None:
        """Wait for the thread to end. What it could not move is still in the journal."""
        if not self._ended.is_set():
            self._wanted.put(None)
            self._ended.wait()

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            self._ended.set()

    def _serve(self) -> None:
        every = self._sync_every
        due = math.inf if every is None else time.monotonic() + every
        while True:
            wait = None if every is None else max(0.0, due - time.monotonic())
            with contextlib.suppress(Empty):
                wanted = self._wanted.get(timeout=wait)
                self._work(self._compactors if wanted is None else [wanted])
                if wanted is None:
                    return
            if every is not None and time.monotonic() >= due:
                self._sync()
                due = time.monotonic() + every

    def _work(self, compactors: list[Compactor]) -> None:
        # A full disk, no memory: the samples stay in the journal, the next chunk or the end
        # of the recording tries again, and the end says so if it fails.
        try:
            for compactor in compactors:
                compactor.run()
                if compactors is self._compactors:
                    compactor.publish()
            self.failing = False
        except Exception:
            self.failing = True

    def _sync(self) -> None:
        try:
            for journal in list(self._journals):
                journal.sync()
            self.sync_error = None
        except Exception as error:
            self.sync_error = error


class _Stream:
    """What the recorder keeps per stream; ``lock`` guards all of it."""

    def __init__(self, info: StreamInfo, journal: JournalWriter, compactor: Compactor) -> None:
        self.n_channels = info.n_channels
        self.dtype = np.dtype(info.dtype)
        self.journal = journal
        self.compactor = compactor
        self.chunk_rows = chunk_rows(info)
        self.wake_at = self.chunk_rows
        row_bytes = 8 + info.n_channels * self.dtype.itemsize
        self.most_behind = max(4 * self.chunk_rows, _MOST_BEHIND_BYTES // row_bytes)
        self.last_time = -math.inf
        self.odd: dict[str, int] = {}
        self.has_waited = False
        self.lock = threading.Lock()


class Recorder(AbstractContextManager["Recorder"]):
    """Records streams and labels into a folder ``YYYY-mm-dd_HH-MM-SS_<8 hex>``.

    `append` returns when the operating system has the samples, so that they survive the end
    of the process; `labtree.recover` then finishes the recording. Each stream may be
    appended to from its own thread. Other programs can open the folder with zarr or xarray
    while it is recorded, and see the chunks that are complete.

    Parameters
    ----------
    base_path
        Folder in which the recording's folder is made.
    app_name
        Who records; kept in meta.json.
    class_names
        Names of the classes 0, 1, ... of the labels.
    name
        A name for people; its letters become part of the archive's name.
    extras
        Anything else worth keeping, of str, numbers, lists and dicts.
    sync
        ``"os"``: samples survive the end of the process. ``"disk"``: each `append` also
        waits for the disk (fsync), and samples survive a power cut. A number: a background
        thread syncs the data once in that many seconds.
    clock
        The clock of the time stamps, in seconds, for labels without a time stamp, for the
        arrival of packets, and for the offset to wall-clock time. The default is the clock
        that LSL uses, too.
    on_backward
        ``"keep"``: time stamps are recorded as they are, even if they go backward, restart
        or are NaN, together with the arrival time of their packet. There is one warning per
        stream, and ``meta.json`` has their number. ``"raise"``: such a packet is refused.

    Attributes
    ----------
    path : Path
        The recording's folder; after `pack_to_zip` the archive. Absolute, so that another
        working folder does not move it.

    Examples
    --------
    >>> import numpy as np
    >>> from labtree import Recorder, StreamInfo
    >>> with Recorder("sessions", class_names=["rest", "fist"]) as recorder:
    ...     recorder.init_stream("emg", StreamInfo(n_channels=2, fs=1000, dtype="int16"))
    ...     recorder.append("emg", np.zeros((5, 2), "int16"), np.arange(5) / 1000)
    ...     event = recorder.add_label(1, timestamp=0.002)
    >>> sorted(path.name for path in recorder.path.glob("*.json"))
    ['labels.json', 'meta.json', 'zarr.json']
    """

    def __init__(
        self,
        base_path: str | Path = "sessions",
        *,
        app_name: str = "labtree",
        class_names: Sequence[str] | None = None,
        name: str | None = None,
        extras: Mapping[str, Any] | None = None,
        sync: str | float = "os",
        clock: Callable[[], float] = time.perf_counter,
        on_backward: OnBackward = "keep",
    ) -> None:
        one_of("on_backward", on_backward, get_args(OnBackward), SessionError)
        every = _sync_seconds(sync)
        self._durable = sync == "disk"
        self._keep = on_backward == "keep"
        self._clock = clock
        self._meta = new_meta(
            exact_json(app_name, "app_name"), class_names, name, extras, clock_offset(clock)
        )
        self.path = _new_folder(Path(base_path).absolute())
        self._folder = self.path
        self._streams: dict[str, _Stream] = {}
        self._meta_lock = threading.RLock()
        self._root_lock = threading.Lock()
        self._state = "recording"
        self._process = os.getpid()
        self._held: IO[bytes] | None = hold_file_lock(self._folder / LOCK)
        try:
            write_json(self._folder / "meta.json", self._meta)
            self._labels = JournalWriter(
                self._folder / JOURNAL / "labels",
                np.dtype("<i8"),
                1,
                0.0,
                durable=self._durable,
            )
            (self._folder / JOURNAL / "streams").mkdir()
            self._show()
            for folder in (self._folder / JOURNAL, self._folder, self._folder.parent):
                sync_folder(folder)
        except OSError as error:
            self._release()
            raise RecordingWriteError.of(error, f"{self.path} cannot be recorded to") from error
        self._background = _Background(every)
        self._background.add(self._labels)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A forked child that ends here must not end its parent's recording.
        if self._state == "recording" and os.getpid() == self._process:
            self.close()

    def __repr__(self) -> str:
        streams = ", ".join(f"{name} ({s.journal.rows})" for name, s in self._streams.items())
        return f"<labtree.Recorder {self._state} {self.path}: {streams or 'no streams'}>"

    def init_stream(self, name: str, info: StreamInfo) -> None:
        """Begin a stream, at any time, even while others are recorded.

        Raises
        ------
        SessionError
            If the name is unsafe, reserved or taken, or the recorder is closed.
        """
        if not isinstance(info, StreamInfo):
            raise SessionError(
                f"stream {name!r}: expected StreamInfo(n_channels=..., fs=..., dtype=...),"
                f" found {info!r}"
            )
        with self._meta_lock:
            self._check_open()
            if name in self._streams:
                raise AlreadyExistsError(f"stream {name!r} exists already in {self.path}")
            check_stream_name(name, tuple(self._streams))
            try:
                self._make_stream(name, info)
            except OSError as error:
                raise RecordingWriteError.of(
                    error, f"stream {name!r} cannot be made"
                ) from error

    def _make_stream(self, name: str, info: StreamInfo) -> None:
        dtype = np.dtype(info.dtype).newbyteorder("<")
        arrays = stream_arrays(self._folder, name)
        folder = self._folder / JOURNAL / "streams" / name
        before, journal = self._meta, None
        try:
            create_stream(self._folder, name, info, arrivals=self._keep)
            if names := before.get("class_names"):
                set_attribute(arrays.data, "class_names", names)
            journal = JournalWriter(
                folder, dtype, info.n_channels, info.fs, durable=self._durable
            )
            filler = ChunkFiller(self._folder, name, (chunk_rows(info), info.n_channels), dtype)
            compactor = Compactor(journal, filler, self._show)
            meta = {**before, "streams": {**before["streams"], name: stream_meta(info)}}
            write_json(self._folder / "meta.json", meta)
            self._meta = meta
            self._show()
            self._background.add(journal, compactor)
            self._streams[name] = _Stream(info, journal, compactor)
        except BaseException:
            # Not in meta.json, so not a stream: the name is free to be tried again.
            self._meta = before
            if journal is not None:
                journal.close()
            with contextlib.suppress(OSError):
                write_json(self._folder / "meta.json", before)
            for path in (*arrays, folder):
                shutil.rmtree(path, ignore_errors=True)
            raise

    def _show(self) -> None:
        """Let other programs see how far the arrays have come."""
        with self._root_lock:
            streams = dict(self._streams)  # another may be added meanwhile
            rows = {name: s.compactor.shown_rows for name, s in streams.items()}
            write_root(self._folder, self._meta, rows)

    def append(self, name: str, data: Any, timestamps: Any) -> None:
        """Add samples to a stream; they are safe when this returns.

        Parameters
        ----------
        name
            The stream.
        data
            (n, channels), of the declared dtype or one that fits into it without loss.
        timestamps
            (n,), in seconds. Any values are recorded, unless the recorder was made with
            ``on_backward="raise"``.

        Raises
        ------
        SessionError
            If the samples are not as declared; none of them is written.
        RecordingWriteError
            If the operating system refuses them (a full disk); none of them is written,
            and `append` may be tried again.

        Warns
        -----
        RecordingWarning
            Once a stream, if time stamps go backward or are not finite; and once if samples
            come faster than they can be compressed: `append` then waits, and drops nothing.
        """
        stream = self._streams.get(name)
        if stream is None:
            self._check_open()
            raise UnknownNameError(
                f"no stream {name!r} in {self.path}; streams: {list(self._streams)}; write"
                f" recorder.init_stream({name!r}, StreamInfo(...)) first"
            )
        arrival = self._clock()
        data, times = _as_packet(name, data, timestamps, stream.dtype, stream.n_channels)
        if len(times) == 0:
            self._check_open()
            return
        self._check_process()  # in a fork another thread of its parent may hold the lock
        with stream.lock:
            self._check_open()
            odd = None
            if not _is_in_order(times, stream.last_time):
                if not self._keep:
                    _refuse_times(name, times, stream.last_time)
                odd = _with_odd(name, stream, times)
            try:
                stream.journal.append(times, data, arrival)
            except OSError as error:
                raise RecordingWriteError.of(
                    error, f"stream {name!r}: {len(times)} samples could not be written"
                ) from error
            stream.last_time = last_finite(times, stream.last_time)
            if odd is not None:
                stream.odd = odd
            rows = stream.journal.rows
            if rows >= stream.wake_at:
                stream.wake_at = rows - rows % stream.chunk_rows + stream.chunk_rows
                self._background.wake(stream.compactor)
                if rows - stream.compactor.moved_rows > stream.most_behind:
                    self._wait(name, stream)

    def _wait(self, name: str, stream: _Stream) -> None:
        """Wait until the chunks have come nearer to the journal, if they can."""
        if not stream.has_waited:
            stream.has_waited = True
            warn(
                f"stream {name!r}: samples come faster than they can be compressed and written;"
                " append waits for the disk from now on, and drops nothing",
                RecordingWarning,
            )
        while (
            stream.journal.rows - stream.compactor.moved_rows > stream.most_behind
            and not self._background.failing
        ):
            time.sleep(0.002)

    def add_label(self, class_index: int, timestamp: float | None = None) -> LabelEvent:
        """Add a label: a class begins, or ends if negative. It is safe when this returns.

        Parameters
        ----------
        class_index
            Index into ``class_names``.
        timestamp
            When, in seconds on the clock of the streams; now if left out.

        Raises
        ------
        SessionError
            If the index is no integer or the time not finite.
        """
        now = self._clock() if timestamp is None else timestamp
        if timestamp is None:
            self._compare_clocks(float(now))
        try:
            event = LabelEvent(timestamp=now, class_index=class_index)
        except ValidationError as error:
            if isinstance(class_index, str):
                raise SessionError(
                    f"label ({class_index!r}, {timestamp!r}): a class is a number; write "
                    f"recorder.add_label(class_names.index({class_index!r})), with the list"
                    " that Recorder(class_names=...) was given"
                ) from error
            raise SessionError(
                f"label ({class_index!r}, {timestamp!r}): {problems_of(error)}"
            ) from error
        self._check_process()
        with self._meta_lock:
            self._check_open()
            try:
                label = _LABEL.pack(event.timestamp, event.class_index)
                self._labels.append_bytes(1, label, self._clock())
            except OSError as error:
                raise RecordingWriteError.of(error, f"{event} could not be written") from error
        return event

    def _compare_clocks(self, now: float) -> None:
        """Warn where the clock of labels cannot be that of the time stamps."""
        latest = [s.last_time for s in self._streams.values() if s.last_time > -math.inf]
        away = min((abs(now - time) for time in latest), default=0.0)
        if away > _CLOCKS_APART_S:
            warn(
                f"a label is put at {now:.6g} s by the recorder's clock, the streams are at"
                f" {max(latest):.6g} s; write add_label(index, timestamp=...), or"
                " Recorder(..., clock=time.time) if that is the streams' clock",
                RecordingWarning,
            )

    def save_meta(
        self,
        app_name: str | None = None,
        class_names: Sequence[str] | None = None,
        *,
        name: str | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> None:
        """Change entries of meta.json; arguments that are left out change nothing."""
        new = given_meta(app_name=app_name, class_names=class_names, name=name, extras=extras)
        with self._meta_lock:
            self._check_open()
            meta = {**self._meta, **new}
            try:
                write_json(self._folder / "meta.json", meta)
            except OSError as error:
                raise RecordingWriteError.of(error, "meta.json cannot be written") from error
            self._meta = meta

    def close(self) -> None:
        """End the recording and give the folder its finished layout.

        If it was interrupted or failed, it can be called again.

        Raises
        ------
        RecordingWriteError
            If the disk refuses a write. Nothing is lost: the folder opens as it is, and
            ``labtree recover FOLDER`` finishes it when there is room again.
        """
        self._check_process()
        with self._meta_lock:
            if self._state not in ("recording", "unfinished"):
                return
            is_first = self._state == "recording"
            notes: list[str] = []
            try:
                self._stop()
                if self._held is None:
                    self._held = hold_file_lock(self._folder / LOCK)
                if (self._folder / JOURNAL).is_dir():
                    odd = {name: stream.odd for name, stream in self._streams.items()}
                    fillers = {
                        name: stream.compactor.filler
                        for name, stream in self._streams.items()
                        if is_first and stream.compactor.is_level
                    }
                    notes = finish(self._folder, odd, fillers)
                self._state = "closed"
            except OSError as error:
                raise RecordingWriteError.of(
                    error,
                    f"{self._folder} cannot be finished; every sample is in it, run"
                    f" 'labtree recover {self._folder}' when the disk takes writes again",
                ) from error
            finally:
                if self._state != "recording":
                    self._release()
        if notes:
            warn(f"{self._folder}: " + "; ".join(notes), RecordingWarning)

    def pack_to_zip(self) -> Path:
        """End the recording and replace its folder by ``<folder>.session.zip``.

        The archive is checked chunk by chunk, and on the disk, before the folder is
        removed.

        Returns
        -------
        Path
            The archive, which is `path` from now on.

        Raises
        ------
        RecordingWriteError, FormatError
            If the archive cannot be written or is not what the folder is; the folder
            stays, finished and usable.
        """
        with self._meta_lock:
            self._check_is_there()
            self.close()
            self.path = pack(self._folder, self._meta.get("name"))
            self._state = "packed"
            return self.path

    def discard(self) -> None:
        """End the recording and remove its folder."""
        self._check_process()
        with self._meta_lock:
            self._check_is_there()
            if self._state == "recording":
                self._stop()
                self._release()
            self._state = "discarded"
            try:
                shutil.rmtree(self._folder)
            except OSError as error:
                raise RecordingWriteError.of(
                    error, f"{self._folder} could not be removed completely"
                ) from error

    def _check_is_there(self) -> None:
        if self._state in ("packed", "discarded"):
            raise SessionError(f"the recording {self.path} is {self._state} already")

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise SessionError(
                f"the recording {self.path} belongs to process {self._process}, this is a fork"
                " of it; record from one process"
            )

    def _check_open(self) -> None:
        self._check_process()
        if self._state != "recording":
            raise SessionError(
                f"the recorder of {self.path} is {self._state}; make a new one:"
                " labtree.Recorder(...)"
            )
        error = self._background.sync_error
        if error is not None:
            self._background.sync_error = None
            raise RecordingWriteError.of(error, "the journal cannot be synced to the disk")

    def _stop(self) -> None:
        """Let no append in any more, and move on what can be moved. May be called again."""
        self._state = "unfinished"
        for stream in self._streams.values():
            with stream.lock:
                pass
        self._background.stop()
        for stream in self._streams.values():
            stream.compactor.filler.stop()
        for journal in (self._labels, *(stream.journal for stream in self._streams.values())):
            journal.close()

    def _release(self) -> None:
        if self._held is not None:
            release_file_lock(self._held)
            self._held = None


def _sync_seconds(sync: str | float) -> float | None:
    if sync in ("os", "disk"):
        return None
    number = isinstance(sync, int | float) and not isinstance(sync, bool)
    if number and 0 < float(sync) < math.inf:
        return float(sync)
    raise SessionError(f'sync is "os", "disk" or a number of seconds above 0, found {sync!r}')


def _new_folder(base: Path) -> Path:
    for _ in range(100):
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        path = base / f"{now}_{uuid4().hex[:8]}"
        try:
            make_folders(base)
            path.mkdir()
        except FileExistsError:
            if not base.is_dir():
                raise AlreadyExistsError(f"{base} is a file, expected a folder") from None
            continue
        except OSError as error:
            raise RecordingWriteError.of(error, f"{path} cannot be made") from error
        return path
    raise AlreadyExistsError(f"no free name for a recording in {base}")


def _as_packet(
    name: str, data: Any, timestamps: Any, dtype: np.dtype[Any], n_channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return samples (n, n_channels) and time stamps (n,), contiguous and little-endian.

    Raises
    ------
    SessionError
        If the shapes do not fit, or a value would change on its way into the stream.
    """
    if isinstance(data, np.ma.MaskedArray) or isinstance(timestamps, np.ma.MaskedArray):
        raise SessionError(
            f"stream {name!r}: a recording cannot keep the mask of a masked array; write"
            " data.filled(value)"
        )
    data, times = np.asarray(data), np.asarray(timestamps)
    if data.ndim != 2 or data.shape[1] != n_channels or times.shape != data.shape[:1]:
        raise SessionError(
            f"stream {name!r}: expected data (n, {n_channels}) and timestamps (n,),"
            f" found {data.shape} and {times.shape}"
            + ("; write data.T" if data.shape[:1] == (n_channels,) and data.ndim == 2 else "")
        )
    if data.dtype != dtype:
        if not np.can_cast(data.dtype, dtype, "safe"):
            raise SessionError(
                f"stream {name!r} holds {dtype}, {data.dtype} would lose values;"
                f" write data.astype({dtype.name!r}) if that is meant"
            )
        _check_integers(name, "samples", data, dtype)
    if times.dtype.kind not in "iuf" or not np.can_cast(times.dtype, np.float64, "safe"):
        raise SessionError(
            f"stream {name!r}: timestamps are float64 seconds, found {times.dtype}"
        )
    _check_integers(name, "timestamps", times, np.dtype(np.float64))
    if data.nbytes > MOST_PACKET_BYTES:
        raise SessionError(
            f"stream {name!r}: a packet of {data.nbytes} bytes; append it in parts of at most"
            f" {MOST_PACKET_BYTES}"
        )
    stored = dtype.newbyteorder("<")
    return np.ascontiguousarray(data, stored), np.ascontiguousarray(times, "<f8")


def _check_integers(name: str, what: str, values: np.ndarray, dtype: np.dtype[Any]) -> None:
    """Refuse integers that a float cannot hold, which numpy calls a safe cast."""
    if values.dtype.kind not in "iu" or dtype.kind != "f" or values.dtype.itemsize < 8:
        return
    changed = values.astype(dtype).astype(object) != values.astype(object)
    if changed.any():
        raise SessionError(
            f"stream {name!r}: {what} hold {values[changed][0]}, which {dtype} would change"
        )


def _is_in_order(times: np.ndarray, last: float) -> bool:
    """Return whether time stamps are finite and never go backward from ``last`` on."""
    # Not backward anywhere and finite at both ends: finite throughout.
    return bool(
        last <= times[0]
        and -math.inf < times[0]
        and times[-1] < math.inf
        and (times[1:] >= times[:-1]).all()
    )


def _refuse_times(name: str, times: np.ndarray, last: float) -> None:
    backward, unknown = odd_stamps(times, last)
    if unknown.any():
        at = int(np.argmax(unknown))
        raise SessionError(
            f"stream {name!r}: timestamp {at} is {times[at]}, expected finite seconds"
        )
    at = int(np.argmax(backward))
    before = last if at == 0 else times[at - 1]
    raise SessionError(
        f"stream {name!r}: timestamp {at} is {times[at]:.9g} s, before {before:.9g} s of the"
        ' sample ahead of it; on_backward="keep" records it anyway'
    )


def _with_odd(name: str, stream: _Stream, times: np.ndarray) -> dict[str, int]:
    """Return how many time stamps of a stream are odd with these; warn of its first."""
    backward, unknown = odd_stamps(times, stream.last_time)
    odd = stream.odd
    if not odd:
        at = int(np.argmax(backward | unknown))
        row = stream.journal.rows + at
        before = times[at - 1] if at else stream.last_time
        found = "is not finite" if unknown[at] else f"goes backward, from {before:.9g} s"
        odd = {"backward": 0, "not_finite": 0, "first_sample": row}
        warn(
            f"stream {name!r}: time stamp {row} is {times[at]:.9g} s, it {found}; this stream's"
            " time stamps are recorded unchanged, with the arrival times of their packets"
            " (labtree.dejitter corrects them)",
            RecordingWarning,
        )
    return {
        **odd,
        "backward": odd["backward"] + int(backward.sum()),
        "not_finite": odd["not_finite"] + int(unknown.sum()),
    }
