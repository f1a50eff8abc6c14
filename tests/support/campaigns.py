"""Damage to files, tried one after the other, and what each way of reading makes of it.

A file may be read rightly, or refused by an error of labtree's that names it; parts may be
left out with a warning. All else is a fault: other values, an error of another library, one
that does not say which file, a crash, a hang, or much memory. Each case runs in a forked
process, which may die.
"""

import contextlib
import faulthandler
import gc
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import labtree
from labtree import cli
from labtree.errors import DamageWarning, FormatError, LabtreeError, LabtreeWarning
from support.exactness import assert_same

__all__ = [
    "Case",
    "Counts",
    "any_reads",
    "attempts",
    "command",
    "content",
    "damaged_bytes",
    "damaged_folder",
    "workspace_reads",
]

Content = dict[str, Any]
Read = Callable[[Path], Content]

_SECTOR = 512
# What a user would catch.
_BUILTINS = (OSError, ValueError, KeyError, TypeError, ImportError)
_MOST_MIB = 200


class Case(NamedTuple):
    """A damage: what it is called, and the function that does it to what is at a path."""

    name: str
    damage: Callable[[Path], object]


class Counts(NamedTuple):
    """What came of it."""

    outcomes: Counter[str]
    faults: list[str]

    def __str__(self) -> str:
        told = ", ".join(f"{count} {what}" for what, count in sorted(self.outcomes.items()))
        return f"{sum(self.outcomes.values())} reads: {told}"


def damaged_bytes(data: bytes, chance: random.Random, low: int = 0, high: int = 0) -> Any:
    """Return the kind of a random fault between two places, and the bytes with it."""
    high = high or len(data)
    place = chance.randrange(low, high)
    sector = place // _SECTOR * _SECTOR
    out = bytearray(data)
    kind = chance.choice(["bit", "byte", "sector", "zeros", "cut", "insert", "delete"])
    if kind == "bit":
        out[place] ^= 1 << chance.randrange(8)
    elif kind == "byte":
        out[place] = chance.randrange(256)
    elif kind == "sector":
        end = min(sector + _SECTOR, len(out))
        out[sector:end] = chance.randbytes(end - sector)
    elif kind == "zeros":
        end = min(place + chance.choice([1, 8, 64, 4096]), len(out))
        out[place:end] = bytes(end - place)
    elif kind == "cut":
        del out[place:]
    elif kind == "insert":
        out[place:place] = chance.randbytes(chance.choice([1, 8, 512]))
    else:
        del out[place : place + chance.choice([1, 8, 512])]
    return f"{kind} at {place}", bytes(out)


def damaged_folder(folder: Path, chance: random.Random) -> str:
    """Damage a random file of a folder, or remove, empty or exchange it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = chance.choice(files)
    where = path.relative_to(folder)
    kind = chance.choice(["bytes"] * 5 + ["remove", "empty", "exchange", "folder", "json"])
    if kind == "json" and path.suffix == ".json":
        return f"{where}: {_damaged_json(path, chance)}"
    if kind == "exchange" and path.suffix != ".json":
        kind = "remove"  # each chunk has its own sum, wherever it lies
    if kind == "remove":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "exchange":
        other = chance.choice([each for each in files if each.suffix == ".json"])
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)
        return f"{where} and {other.relative_to(folder)} exchanged"
    elif kind == "folder" and path.parent != folder:
        shutil.rmtree(path.parent)
        return f"{where.parent} removed"
    elif path.stat().st_size:
        kind, data = damaged_bytes(path.read_bytes(), chance)
        path.write_bytes(data)
    return f"{where}: {kind}"


_HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 2**31, 2**63, 2**70, "", "x", "../../x", [], {}, [[]], "\0", "O",
    [2**40], {"a": 1}, ["a"], "1e999", "NaN", "int32", "/",
)  # fmt: skip


def _damaged_json(path: Path, chance: random.Random) -> str:
    """Change or remove one value of a JSON file, which stays JSON."""
    whole = json.loads(path.read_bytes())
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in pairs:
            places.append((value, key))
            if isinstance(below, (dict, list)):
                walk(below)

    if isinstance(whole, (dict, list)):
        walk(whole)
    if not places:
        return "nothing"
    owner, key = chance.choice(places)
    new: Any = "removed"
    if isinstance(owner, dict) and chance.random() < 0.3:
        del owner[key]
    else:
        new = owner[key] = chance.choice(_HOSTILE)
    path.write_text(json.dumps(whole))
    return f"{key!r} is {new!r}"


def content(tree: xr.DataTree) -> dict[str, Any]:
    """Return all values of a tree, read whole, and all that stands beside them."""
    found: dict[str, Any] = {}
    for node in tree.subtree:
        found[f"attributes of {node.path}"] = dict(node.attrs)
        dataset = node.to_dataset(inherit=False)
        for name, variable in dataset.variables.items():
            where = f"{node.path.rstrip('/')}/{name}"
            found[where] = np.asarray(variable.values)
            found[f"attributes of {where}"] = (variable.dims, dict(variable.attrs))
    return found


def command(name: str, *paths: Path) -> Content:
    """Run a command of the command line; what it says before exit code 1 is an error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([name, "--json", *map(str, paths)])
    if "--traceback shows where" in err.getvalue():
        raise RuntimeError(err.getvalue())
    if code:
        raise FormatError(f"{out.getvalue()} {err.getvalue()}")
    if err.getvalue():
        warnings.warn(err.getvalue(), DamageWarning, stacklevel=2)
    return {}


def workspace_reads(original: Path) -> dict[str, Read]:
    """Return all ways to read a workspace, each of which reads all that the original has."""

    def opened(path: Path) -> Content:
        with labtree.open_workspace(path) as tree:
            repr(tree.ws)
            return {f"{n}/{k}": tree.ws.get(n, k) for n, k in tree.ws.find()}

    def copied(path: Path) -> Content:
        with labtree.open_workspace(path) as tree:
            new = tree.ws.save(path.with_name("copy.h5"))
        return content(labtree.load_workspace(new))

    def items(path: Path) -> Content:
        return {f"{n}/{k}": labtree.load_item(path, n, k) for n, k in places}

    def changed(path: Path) -> Content:
        with labtree.open_workspace(path) as tree:
            tree.ws.store("later", "x", 1)
            tree.ws.save()
        found = labtree.load_workspace(path)
        assert found.ws["later", "x"] == 1
        found.ws.delete("later")
        return content(found)

    places = labtree.load_workspace(original).ws.find()
    return {
        "load_workspace": lambda path: content(labtree.load_workspace(path)),
        "open_workspace": opened,
        "load_item": items,
        "save": changed,
        "save elsewhere": copied,
    } | any_reads()


def any_reads() -> dict[str, Read]:
    """Return the ways to read whatever it is."""

    def anything(path: Path) -> Content:
        with labtree.open(path) as tree:
            return content(tree)

    def engine(path: Path) -> Content:
        with xr.open_datatree(path, engine="labtree") as tree:
            return content(tree)

    return {
        "open": anything,
        "engine": engine,
        "verify": lambda path: command("verify", path),
        "ls": lambda path: command("ls", path),
    }


def _outcome(read: Read, path: Path, expected: Content) -> tuple[str, str]:
    """Return what came of one read, and what is wrong about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = read(path)
        except LabtreeError as error:
            text = " ".join([str(error), *getattr(error, "__notes__", ())])
            if not isinstance(error, _BUILTINS):
                return "FAULT", f"an error that is no builtin's: {error!r}"
            if any(each in text for each in (str(path), path.name, path.stem)):
                return "refused", ""
            return "FAULT", f"does not name its file: {error!r}"
        except Exception as error:
            return "FAULT", f"an error of another library: {error!r}"
    told = [each for each in caught if issubclass(each.category, LabtreeWarning)]
    others = [each for each in caught if each not in told]
    if others:
        return "FAULT", f"a warning of another library: {others[0].message}"
    changed = [
        name for name in expected.keys() & found.keys() if _differ(found[name], expected[name])
    ]
    if wrong := [name for name in changed if not name.startswith("attributes of")]:
        return "FAULT", f"other values of {wrong[:3]}, {'told' if told else 'silent'}"
    if told:
        return "told", ""
    lost = sorted(expected.keys() ^ found.keys())
    if lost or changed:
        return "FAULT", f"silently lost or made {lost[:3]} or changed {changed[:3]}"
    return "right", ""


def _differ(found: Any, expected: Any) -> bool:
    try:
        assert_same(found, expected)
    except AssertionError:
        return True
    return False


def attempts(
    cases: Iterable[Case],
    reads: dict[str, Read],
    original: Path,
    folder: Path,
    *,
    seconds: float = 30,
    has_sums: bool = True,
    every: int = 1,
) -> Counts:
    """Damage copies of a file or folder, and read each in all ways.

    Parameters
    ----------
    cases
        The damages.
    reads
        The ways to read, by name; each returns what :func:`content` does.
    original
        What is damaged; it is not changed. A ``.json`` beside it is copied too.
    folder
        Where the copies go.
    seconds
        After how long a read counts as hanging.
    has_sums
        Whether the format has checksums. Without them other values cannot be told.
    every
        Of each case, only every so many-th way to read is tried, in turn.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            name: _expected(read, _copy(original, folder, f"original {number}"))
            for number, (name, read) in enumerate(reads.items())
        }
    counts = Counts(Counter(), [])
    waiting = [
        (case, sorted(reads, key=lambda each: each != "verify")[number % every :: every])
        for number, case in enumerate(cases)
    ]
    while waiting:
        done = _run(waiting, reads, original, folder, seconds, expected, counts, has_sums)
        waiting = waiting[done:]
    return counts


def _expected(read: Read, path: Path) -> Content:
    """Return what a way to read gives; nothing where it is for another format."""
    try:
        return read(path)
    except LabtreeError:
        return {}


def _run(
    cases: list[tuple[Case, list[str]]],
    reads: dict[str, Read],
    original: Path,
    folder: Path,
    seconds: float,
    expected: dict[str, Content],
    counts: Counts,
    has_sums: bool,
) -> int:
    """Try cases in a child, until it dies; return how many were tried."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def child() -> None:
        faulthandler.disable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number, (case, names) in enumerate(cases):
            says_right = False
            for name in names:
                path = _copy(original, folder, f"{os.getpid()}-{number}")
                case.damage(path)
                gc.collect() if number % 50 == 0 else None
                before = _reset_peak()
                send.send((number, name, None))
                what, why = _outcome(reads[name], path, expected[name])
                if not has_sums and why.startswith(("other values", "silently")):
                    what, why = "not noticed", ""
                if name == "verify":
                    says_right = what == "right"
                elif what == "refused" and says_right:
                    what, why = "FAULT", "refused, though verify finds nothing"
                if what != "FAULT" and (grown := _peak() - before) > _MOST_MIB:
                    what, why = "FAULT", f"took {grown:.0f} MiB"
                send.send((number, name, (what, why)))
                _remove(path)
        send.send(None)

    process = context.Process(target=child)
    process.start()
    send.close()
    number, name, is_over, hangs = 0, "", False, False
    while not is_over:
        if not receive.poll(seconds):
            hangs = True
            break
        try:
            said = receive.recv()
        except EOFError:
            break
        if said is None:
            is_over = True
            break
        number, name, result = said
        if result is not None:
            counts.outcomes[result[0]] += 1
            if result[0] == "FAULT":
                counts.faults.append(f"{cases[number][0].name}, {name}: {result[1]}")
    if hangs:
        process.kill()
    process.join()
    if not is_over:
        counts.outcomes["FAULT"] += 1
        end = "hangs" if hangs else f"ends the process: {process.exitcode}"
        counts.faults.append(f"{cases[number][0].name}, {name}: {end}")
    for left in folder.glob(f"{process.pid}-*"):
        _remove(left)
    return len(cases) if is_over else number + 1


def _copy(original: Path, folder: Path, name: str) -> Path:
    path = folder / name / original.name
    path.parent.mkdir(parents=True)
    if original.is_dir():
        shutil.copytree(original, path)
        return path
    shutil.copyfile(original, path)
    index = original.with_suffix(".json")
    if index != original and index.exists():
        shutil.copyfile(index, path.with_suffix(".json"))
    return path


def _remove(path: Path) -> None:
    shutil.rmtree(path.parent if path.parent.name != path.name else path, ignore_errors=True)


def _reset_peak() -> float:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    """Return the most memory that the process had, in MiB."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0
