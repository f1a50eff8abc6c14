"""``labtree verify``, ``compact`` and ``recover``: whether files are whole, and made so."""

import argparse
import warnings
from pathlib import Path
from typing import Any

from labtree.cli.terminal import BLOCK, each_path, expanded, open_path, say
from labtree.display.formatting import format_bytes, plural
from labtree.errors import FormatError, LabtreeError, LossWarning, missing_file
from labtree.formats import contents, find, recognize


def compact(options: argparse.Namespace) -> int:
    """Rewrite workspaces without what was deleted or replaced."""
    from labtree.workspace.workspace_files import open_workspace

    rows, lines = [], []
    for path in expanded(options.paths):
        if not Path(path).is_file():  # mode "a" would make one
            raise missing_file(f"{path} is no file of a workspace", path)
        before = Path(path).stat().st_size
        with open_workspace(path, mode="a") as tree:
            tree.ws.compact()
        after = Path(path).stat().st_size
        rows.append({"path": str(path), "before": before, "after": after})
        lines.append(f"{path}: {format_bytes(before)} before, {format_bytes(after)} now")
    say(options, rows, "\n".join(lines))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Read all of what is there and check it; return the exit code."""
    if options.accept:
        return _accept(options)
    paths = list(each_path(options.paths))
    reports = [_report(path) if len(paths) == 1 else _report_or_error(path) for path in paths]
    lines: list[str] = []
    for report in reports:
        where = "" if len(paths) == 1 else f"{report['path']}: "
        if report["problems"]:
            lines += [where + problem for problem in report["problems"]]
        else:
            lines.append(f"{report['path']}: everything can be read, nothing is wrong")
            if "n_checked" in report:
                lines[-1] += (
                    f"; {plural(report['n_checked'], 'array')} checked by their checksums"
                )
            if report.get("n_unchecked"):
                lines[-1] += f", {report['n_unchecked']} of other programs have none"
    bad = sum(1 for report in reports if report["problems"])
    if len(reports) > 1:
        lines.append(f"{plural(len(reports), 'file')}, {bad or 'none'} with problems")
    say(options, reports[0] if len(reports) == 1 else reports, "\n".join(lines))
    return 1 if bad else 0


def _accept(options: argparse.Namespace) -> int:
    from labtree.storage.verifying import accept_values

    if len(options.paths) != 2:
        raise FormatError("write labtree verify --accept FILE NAMESPACE/KEY")
    file, group = options.paths
    accepted = accept_values(file, str(group))
    text = "\n".join(accepted) or "all values are those that were written"
    say(options, {"path": str(file), "accepted": accepted}, text)
    return 0


def _report(path: Path | str) -> dict[str, Any]:
    """Return what is wrong with a file or folder, whatever its format is."""
    from labtree.msw import validate_session
    from labtree.storage.verifying import verify_file
    from labtree.storage.zarr.verifying import verify_store

    if "://" in str(path):
        return {"path": str(path), "format": "workspace", **verify_store(path)._asdict()}
    file = find(path)
    found = recognize(file)
    if found.name in ("workspace", "pipeline", "session", "tree", "zarr"):
        checked = verify_file(file) if file.is_file() else verify_store(file)
        return {"path": str(file), "format": found.name, **checked._asdict()}
    problems = validate_session(file).issues if found.name == "msw" else _read_all(file)
    return {"path": str(file), "format": found.name, "problems": problems}


def _report_or_error(path: Path | str) -> dict[str, Any]:
    """Return what is wrong with one file of several; one that cannot be opened is reported."""
    try:
        return _report(path)
    except (LabtreeError, OSError) as error:
        return {"path": str(path), "format": None, "problems": [str(error)]}


def _read_all(path: Path | str) -> list[str]:
    """Read every array of what is there, block by block; return what went wrong."""
    problems: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _, tree = open_path(path)
            with tree:
                for node in tree.subtree:
                    for name, variable in node.variables.items():
                        if problem := _unreadable(variable):
                            problems.append(f"{node.path.rstrip('/')}/{name}: {problem}")
        except (LabtreeError, OSError) as error:
            problems.append(str(error))
    # What is left out of a foreign format is no damage.
    found = [each.message for each in caught if not isinstance(each.message, LossWarning)]
    return problems + list(dict.fromkeys(map(str, found)))


def _unreadable(variable: Any) -> str:
    """Return what goes wrong when an array is read, block by block; "" for nothing."""
    import numpy as np

    try:
        if variable.ndim == 0:
            np.asarray(variable)
            return ""
        rows = max(1, BLOCK * len(variable) // max(1, variable.nbytes))
        for start in range(0, len(variable), rows):
            np.asarray(variable[start : start + rows])
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


def recover(options: argparse.Namespace) -> None:
    """Finish recordings that were interrupted."""
    from labtree import recording

    done = [
        {"folder": str(folder), "repaired": recording.recover(folder)}
        for path in expanded(options.paths)
        for folder in _recordings(path)
    ]
    lines: list[str] = []
    for each in done:
        lines += each["repaired"] or [f"{each['folder']}: nothing to repair"]
    say(options, done[0] if len(done) == 1 else done, "\n".join(lines))


def _recordings(path: str) -> list[Path]:
    """Return the folders of recordings that a path means."""
    folder = find(path)
    try:
        found = recognize(folder)
    except FormatError:
        things = contents(folder) if folder.is_dir() else []
        folders = [each for each, form in things if form.name == "recording" and each.is_dir()]
        # A recording without its meta.json is no format; it can still be rebuilt.
        return folders or [folder]
    if found.name != "recording" or folder.is_file():
        raise FormatError(f"{path} is {found.what}; recover takes folders of recordings only")
    return [folder]
