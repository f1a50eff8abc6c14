"""A disk that loses power: what a folder may hold after a crash, from what was done to it.

`record` watches a folder while a program runs: at each call that syncs, renames, removes,
truncates or makes a file, the bytes of all files are kept. From this record `crashes` gives
states that a power cut could have left: sectors of 512 bytes that were written after the last
sync of their file may be there, lacking, or torn, in any order; a name that was made, moved or
removed after the last sync of its folder may be there or not. Writes are found by comparing the
files, so that any library may do them, in any thread.

The model is stricter than most file systems: no write becomes safe by itself, and the sync of a
file says nothing of its name. Within one folder the names change in the order of the calls.
"""

import contextlib
import os
import random
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Crash", "Disk", "record"]

_SECTOR = 512
_ROOT = 0  # the number of the watched folder


class _Event(NamedTuple):
    """A call that orders what reaches the disk, and the files just before it."""

    kind: str  # "sync", "sync folder", "names", "begin", "acknowledge" or "end"
    target: Any  # the file's number, the folder, or the value
    contents: dict[int, bytes]  # by the number of the file
    names: dict[int, dict[str, int]]  # by the number of the folder: name -> number


class Crash(NamedTuple):
    """A state of the folder after a power cut.

    Attributes
    ----------
    files
        Path in the folder to content; folders have None.
    acknowledged
        The last value that was acknowledged before the cut, or None.
    attempted
        The value that was being saved during the cut, or None after the last.
    after
        The number of the event after which the power was cut.
    """

    files: dict[str, bytes | None]
    acknowledged: Any
    attempted: Any
    after: int

    def write(self, folder: Path) -> Path:
        """Write the state into a new folder and return it."""
        folder.mkdir(parents=True)
        for name, content in sorted(self.files.items()):
            path = folder / name
            if content is None:
                path.mkdir(parents=True, exist_ok=True)
            elif path.parent.is_dir():  # a file whose folder was lost is lost with it
                path.write_bytes(content)
        return folder


class Disk:
    """The record of what a program did to a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[_Event] = []
        self._lock = threading.RLock()
        self._numbers: dict[int, int] = {}  # inode -> number; inodes are used again
        self._kept: dict[int, bytes] = {}
        self._count = 0

    @property
    def syncs(self) -> list[int]:
        """The numbers of the events that sync a file or a folder which is not safe already."""
        return self.syncs_but_for()

    def syncs_but_for(self, *endings: str) -> list[int]:
        """Return `syncs`, without those of folders where only some names are not safe."""
        endings = (".lock", *endings)  # no lock outlives its process
        files, folders = dict(self.events[0].contents), dict(self.events[0].names)
        found = []
        for i, event in enumerate(self.events):
            if event.kind == "sync":
                content = event.contents[event.target]
                if files.get(event.target, b"") != content:
                    found.append(i)
                files[event.target] = content
            elif event.kind == "sync folder":
                names = event.names[event.target]
                changed = names.items() ^ folders.get(event.target, {}).items()
                if any(not name.endswith(endings) for name, _ in changed):
                    found.append(i)
                folders[event.target] = names
        return found

    def acknowledge(self, value: Any) -> None:
        """Note that `value` was promised to be safe from now on."""
        self._note("acknowledge", value)

    def begin(self, value: Any) -> None:
        """Note that the program starts to save `value`."""
        self._note("begin", value)

    def crashes(
        self, seed: int, count: int, *, without: int | None = None, within: int = 3
    ) -> Iterator[Crash]:
        """Yield `count` random states after a power cut.

        Parameters
        ----------
        seed, count
            Of the random numbers, and how many states.
        without
            The number of an event that did not happen, a sync that a program forgot; the
            power is then cut during one of the next calls.
        within
            During how many of them.
        """
        chance = random.Random(seed)
        events = [event for i, event in enumerate(self.events) if i != without]
        for _ in range(count):
            first, last = (1, len(events)) if without is None else (without, without + within)
            after = chance.randrange(first, min(last, len(events)))
            yield self._crash(chance, events, after)

    def _crash(self, chance: random.Random, events: list[_Event], after: int) -> Crash:
        """Cut the power just before event `after`."""
        versions: dict[int, list[bytes]] = {}  # of each file, the durable one first
        durable: dict[int, dict[str, int]] = {}  # folder -> names in it
        pending: dict[int, list[dict[str, int]]] = {}  # later states of its names
        acknowledged = attempted = None
        for i, event in enumerate(events[: after + 1]):
            for number, content in event.contents.items():
                known = versions.setdefault(number, [b"" if i else content])
                if known[-1] is not content:
                    known.append(content)
            for folder, names in event.names.items():
                if i == 0:
                    durable[folder] = names
                else:
                    later = pending.setdefault(folder, [])
                    if (later[-1] if later else durable.get(folder, {})) != names:
                        later.append(names)
            if i == after:
                break
            if event.kind == "sync":
                versions[event.target] = [event.contents[event.target]]
            elif event.kind == "sync folder":
                durable[event.target] = event.names[event.target]
                pending.pop(event.target, None)
            elif event.kind == "acknowledge":
                acknowledged, attempted = event.target, None
            elif event.kind == "begin":
                attempted = event.target
        files: dict[str, bytes | None] = {}

        def place(folder: int, prefix: str) -> None:
            states = [durable.get(folder, {}), *pending.get(folder, [])]
            for name, number in chance.choice(states).items():
                if number in versions:
                    files[prefix + name] = _lost(chance, versions[number])
                elif number not in seen:  # a folder in two places at once: the first
                    seen.add(number)
                    files[prefix + name] = None
                    place(number, f"{prefix}{name}/")

        seen = {_ROOT}
        place(_ROOT, "")
        return Crash(files, acknowledged, attempted, after)

    def _note(self, kind: str, target: Any) -> None:
        with self._lock:
            contents: dict[int, bytes] = {}
            names: dict[int, dict[str, int]] = {_ROOT: {}}
            seen: dict[int, int] = {}
            folders: dict[Path, int] = {self.folder: _ROOT}
            for path in sorted(self.folder.rglob("*")):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    content = None if stat.S_ISDIR(status.st_mode) else path.read_bytes()
                    inode = status.st_ino
                    number = seen.get(inode) or self._numbers.get(inode) or self._new()
                    seen[inode] = names[folders[path.parent]][path.name] = number
                    if content is None:
                        folders[path] = number
                        names[number] = {}
                        continue
                    if self._kept.get(number) != content:
                        self._kept[number] = content
                    contents[number] = self._kept[number]
            self._numbers = seen
            self.events.append(_Event(kind, target, contents, names))

    def _new(self) -> int:
        self._count += 1
        return self._count

    def _inside(self, path: Any, dir_fd: int | None = None) -> bool:
        """Return whether a path, or an open file's number, lies in the watched folder."""
        try:
            if isinstance(path, int):
                full = Path(f"/proc/self/fd/{path}").readlink()
            elif dir_fd is not None:
                full = Path(f"/proc/self/fd/{dir_fd}").readlink() / os.fspath(path)
            else:
                full = Path(os.fspath(path)).absolute()
        except (OSError, TypeError):
            return False
        return full == self.folder or self.folder in full.parents

    def _synced(self, descriptor: int) -> None:
        if not self._inside(descriptor):
            return
        status = os.fstat(descriptor)
        is_folder = stat.S_ISDIR(status.st_mode)
        self._note("sync folder" if is_folder else "sync", None)
        last = self.events.pop()
        is_root = os.path.samestat(status, self.folder.stat())
        number = _ROOT if is_root else self._numbers.get(status.st_ino)
        if number is not None:  # a file without a name is nowhere after a crash
            self.events.append(last._replace(target=number))


def _lost(chance: random.Random, versions: list[bytes]) -> bytes:
    """Return what a file may hold whose later versions were not synced."""
    how = chance.random()
    if len(versions) == 1 or how < 0.25:
        return versions[0]
    if how < 0.5:
        return chance.choice(versions)
    size = len(chance.choice(versions))
    out = bytearray()
    rate = chance.choice([0.1, 0.5, 0.9])
    for start in range(0, size, _SECTOR):
        version = chance.choice(versions) if chance.random() < rate else versions[0]
        sector = version[start : start + _SECTOR]
        # A disk writes a sector whole; one that is new may hold anything.
        if start >= len(versions[0]) and chance.random() < 0.05:
            other = chance.choice(versions)[start : start + _SECTOR]
            cut = chance.randrange(_SECTOR)
            sector = sector[:cut] + other[cut:]
        filler = b"\0" if chance.random() < 0.8 else bytes([chance.randrange(256)])
        out += sector + filler * (min(_SECTOR, size - start) - len(sector))
    return bytes(out[:size])


@contextlib.contextmanager
def record(folder: Path, there: Any = None) -> Iterator[Disk]:
    """Watch a folder: give the `Disk` that records what is done to it (Linux only).

    Parameters
    ----------
    folder
        What is in it is safe already.
    there
        The value that this is; acknowledged.

    Examples
    --------
    >>> with record(tmp_path) as disk:  # doctest: +SKIP
    ...     disk.begin("new")
    ...     save(tmp_path / "a", "new")
    ...     disk.acknowledge("new")
    """
    disk = Disk(Path(os.path.realpath(folder)))
    originals: dict[str, Callable[..., Any]] = {}

    def watched(name: str) -> Callable[..., Any]:
        original = originals[name] = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            descriptor = kwargs.get("dir_fd", kwargs.get("src_dir_fd"))
            if not disk._inside(args[0], descriptor):
                return original(*args, **kwargs)
            with disk._lock:
                disk._note("names", name)
                result = original(*args, **kwargs)
                disk._note("names", name)
                return result

        return call

    def synced(name: str) -> Callable[..., Any]:
        original = originals[name] = getattr(os, name)

        def call(descriptor: Any) -> Any:
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            with disk._lock:
                disk._synced(number)
                return original(descriptor)

        return call

    disk._note("acknowledge", there)
    names = ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "link", "truncate")
    try:
        for name in (*names, "ftruncate"):
            replacement = watched(name)
            setattr(os, name, replacement)
        for name in ("fsync", "fdatasync"):
            replacement = synced(name)
            setattr(os, name, replacement)
        yield disk
        disk._note("end", None)
    finally:
        for name, original in originals.items():
            setattr(os, name, original)
