"""Steps: one function body that works on a session in memory and on a saved one."""

import copy
import functools
import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import ConfigurationError, MissingFileError
from labtree.pipeline.fingerprint import digest, fingerprint_items, fingerprint_value, nodes_of
from labtree.pipeline.records import (
    code_hash,
    file_states,
    forget_steps,
    is_done,
    plain_value,
    stale_records,
)
from labtree.pipeline.sessions import (
    UNSAVED,
    check_session,
    completed_steps,
    mark_step_complete,
    session_path,
    versions,
)

__all__ = ["StepResult", "step"]

# Bookkeeping of the root that is not data: no step reads it.
BOOKKEEPING = (
    *UNSAVED, "completed_steps", "warnings", "steps", "versions", "created_at", "output_dir",
    "source_files", "labtree_format", "labtree_format_version",
)  # fmt: skip
# Steps that come with labtree, which errors can say how to run.
_OWN = (
    "load_recording", "load_recording_with_eimage_sta", "add_section_time",
    "section_spike_times", "compute_sta", "extract_features",
)  # fmt: skip


@dataclass(frozen=True)
class StepResult:
    """What a step did to a saved session.

    Attributes
    ----------
    name : str
    hdf5_path : Path
        The file that holds the session now.
    skipped : bool
        Whether the step was done already, with the same parameters and inputs.
    duration_s : float
    warnings : tuple of str
        What this run remarked.
    """

    name: str
    hdf5_path: Path
    skipped: bool
    duration_s: float
    warnings: tuple[str, ...] = ()


def _protected(session: xr.DataTree) -> tuple[xr.DataTree, dict[int, Any]]:
    """Return a copy whose arrays cannot be written in place, and the originals by id.

    A step works on this copy. If it fails the session is as it was, with no array
    copied; if it tries to write into an array, numpy refuses.
    """
    originals: dict[int, Any] = {}
    nodes = {}
    for node in session.subtree:
        dataset = node.to_dataset(inherit=False).copy()
        dataset.attrs = copy.deepcopy(dataset.attrs)
        for variable in dataset.variables.values():
            if isinstance(variable, xr.IndexVariable):
                continue
            data = variable._data
            if isinstance(data, np.ndarray):
                view = data.view()
                view.flags.writeable = False
                variable.data = view
                originals[id(view)] = (view, data)
        nodes[node.relative_to(session) if node is not session else "/"] = dataset
    return xr.DataTree.from_dict(nodes, name=session.name), originals


def _released(tree: xr.DataTree, originals: Mapping[int, Any]) -> None:
    """Put the original, writable arrays back where the step left them alone."""
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        changed = False
        for variable in dataset.variables.values():
            if isinstance(variable, xr.IndexVariable) or not isinstance(
                variable._data, np.ndarray
            ):
                continue
            view, data = originals.get(id(variable._data), (None, None))
            if view is not None:
                variable.data = data
                changed = True
            elif not variable._data.flags.writeable:
                variable.data = variable._data.copy()
                changed = True
        if changed:
            node.dataset = dataset


def _written(tree: xr.DataTree, originals: Mapping[int, Any]) -> set[str]:
    """Return the variables that a step assigned, be their values the same or not."""
    return {
        f"{node.relative_to(tree) if node is not tree else '.'}:{name}"
        for node in tree.subtree
        for name, variable in node.to_dataset(inherit=False).variables.items()
        if isinstance(variable._data, np.ndarray) and id(variable._data) not in originals
    }


def _graft(target: xr.DataTree, source: xr.DataTree) -> None:
    """Make one tree equal to another, keeping the nodes that both have."""
    target.dataset = source.to_dataset(inherit=False)
    for name in set(target.children) - set(source.children):
        del target[name]
    new = {}
    for name, child in source.children.items():
        if name in target.children:
            _graft(target.children[name], child)
        else:
            new[name] = child.copy()
    if new:
        target.children = {**target.children, **new}


def _require(session: xr.DataTree, name: str, requires: tuple[str, ...]) -> None:
    missing = [one for one in requires if one not in completed_steps(session)]
    if missing:
        lines = "\n".join(
            f"    labtree.mea.{one}(session=session, ...)"
            if one in _OWN
            else f"    {one}(session=session)"
            for one in missing
        )
        done = ", ".join(sorted(completed_steps(session))) or "none"
        raise ConfigurationError(
            f"{name} needs {', '.join(missing)} first, on session "
            f"{session.attrs['dataset_id']!r} (done: {done}). Run:\n{lines}"
        )


def _run(
    session: xr.DataTree,
    body: Callable[..., Any],
    arguments: Mapping[str, Any],
    requires: tuple[str, ...],
    depends: Mapping[str, Any],
    force: bool,
) -> bool:
    """Run a body on a session, all or nothing; return False if there was nothing to do."""
    name = body.__name__
    _require(session, name, requires)
    memo: dict[int, str] = {}
    before = fingerprint_items(session, ignore_root=BOOKKEEPING, memo=memo)
    records = session.attrs.get("steps", [])
    own = {
        "name": name,
        "parameters": plain_value({k: v for k, v in arguments.items() if k != "output_dir"}),
        "files": file_states(arguments),
        "code": code_hash(body),
        "depends": plain_value(depends),
    }
    # where a file stands is no parameter; its name, size and time are in `files`
    compared = {**own, "parameters": {
        k: v for k, v in own["parameters"].items() if k not in own["files"]
    }}  # fmt: skip
    key = digest({k: fingerprint_value(v) for k, v in compared.items()})
    for position, record in enumerate(records):
        if (
            record["key"] == key
            and not force
            and is_done(record, records[position + 1 :], before)
        ):
            return False

    work, originals = _protected(session)
    started = time.perf_counter()
    result = body(work, **arguments)
    if result is None:
        result = work
    check_session(result)
    duration = time.perf_counter() - started

    for view, data in originals.values():
        memo[id(view)] = memo[id(data)]
    after = fingerprint_items(result, ignore_root=BOOKKEEPING, memo=memo)
    written = _written(result, originals)
    outputs = {
        item: after.get(item, "")
        for item in {*before, *after}
        if before.get(item) != after.get(item) or item in written
    }
    _released(result, originals)

    records = list(result.attrs.get("steps", ()))
    replaced = [
        record
        for record in records
        if record["name"] == name
        and (record["key"] == key or set(record["outputs"]) & set(outputs))
    ]
    position = records.index(replaced[0]) if replaced else len(records)
    later = [record for record in records[position:] if record not in replaced]
    # what came out just as before is still this step's own
    outputs |= {i: after[i] for record in replaced for i in record["outputs"] if i in after}
    if replaced:
        stale = stale_records(later, name, after)
        later = [record for record in later if record not in stale]
        forget_steps(result, stale, [*records[:position], *later], name)
    inputs = nodes_of(before, {*outputs, *(i for record in later for i in record["outputs"])})
    record = {
        **own,
        "key": key,
        "hash": digest({"key": key, **inputs}),
        "inputs": inputs,
        "outputs": outputs,
        "versions": versions(),
        "duration_s": duration,
        "finished_at": datetime.now(UTC).isoformat(),
    }
    before_it = [one for one in records[:position] if one not in replaced]
    result.attrs["steps"] = [*before_it, record, *later]
    mark_step_complete(result, name)
    _graft(session, result)
    return True


def step(
    *,
    requires: Iterable[str] = (),
    starts: Callable[[Mapping[str, Any]], xr.DataTree] | None = None,
    depends: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a pipeline step of a function whose first argument is the session.

    The step is called with ``session=`` (it changes the session and returns it) or
    with ``hdf5_path=`` (it loads that session, runs, saves it atomically and returns a
    :class:`StepResult`). It records its name, parameters, versions, duration and a
    hash in the session, and does nothing when it is done already with the same
    parameters, files and inputs, unless ``force=True``. An exception leaves the
    session, and the file, as they were. Inside, the session's arrays are read-only:
    assign new ones.

    Parameters
    ----------
    requires : iterable of str
        Steps that must be done before.
    starts : callable, optional
        For the first step of a pipeline: makes the session from the parameters where
        none is given.
    depends : callable, optional
        From the parameters, further values that the result depends on.

    Examples
    --------
    >>> import numpy as np
    >>> import labtree
    >>> @labtree.step()
    ... def count_spikes(session, at_least=0):
    ...     counts = session["units"]["row_size"]
    ...     session["features/count"] = xr.DataTree(counts.to_dataset(name="count"))
    >>> session = labtree.create_session("rec1")
    >>> session.session.add_units({"unit_001": {"spike_times": np.array([5, 9])}})
    >>> session = count_spikes(session=session)
    >>> session.session.completed_steps
    {'count_spikes'}
    """
    needed = (requires,) if isinstance(requires, str) else tuple(requires)

    def decorate(body: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(body)
        if not signature.parameters:
            raise ConfigurationError(
                f"step {body.__name__} takes no argument; its first one is the session"
            )
        first = next(iter(signature.parameters))

        @functools.wraps(body)
        def run(
            *args: Any,
            session: xr.DataTree | None = None,
            hdf5_path: str | Path | None = None,
            force: bool = False,
            **parameters: Any,
        ) -> Any:
            if args and isinstance(args[0], xr.DataTree) and session is None:
                session, args = args[0], args[1:]
            bound = signature.bind(None, *args, **parameters)
            bound.apply_defaults()
            arguments = dict(bound.arguments)
            del arguments[first]
            for kind in signature.parameters.values():
                if kind.kind is inspect.Parameter.VAR_KEYWORD:
                    arguments.update(arguments.pop(kind.name))
            if session is not None and hdf5_path is not None:
                raise ConfigurationError("give session= or hdf5_path=, not both")
            further = depends(arguments) if depends is not None else {}
            if session is not None:
                _run(check_session(session), body, arguments, needed, further, force)
                return session
            return _on_file(body, arguments, needed, further, force, hdf5_path, starts)

        own = list(signature.parameters.values())[1:]
        keyword = inspect.Parameter.KEYWORD_ONLY
        extra = [
            inspect.Parameter(name, keyword, default=default)
            for name, default in (("session", None), ("hdf5_path", None), ("force", False))
        ]
        tail = [p for p in own if p.kind is inspect.Parameter.VAR_KEYWORD]
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[p for p in own if p not in tail] + extra + tail
        )
        return run

    return decorate


def _on_file(
    body: Callable[..., Any],
    arguments: Mapping[str, Any],
    requires: tuple[str, ...],
    depends: Mapping[str, Any],
    force: bool,
    hdf5_path: str | Path | None,
    starts: Callable[[Mapping[str, Any]], xr.DataTree] | None,
) -> StepResult:
    """Run a step on a saved session; the file changes only when the step has succeeded."""
    from labtree.pipeline.checkpoints import _h5, load_session, save

    if hdf5_path is None and starts is None:
        raise ConfigurationError(
            f"{body.__name__} needs a session: {body.__name__}(session=session) or "
            f"{body.__name__}(hdf5_path='artifacts/rec1.h5')"
        )
    path = _h5(hdf5_path) if hdf5_path is not None else None
    if path is not None and path.is_file():
        session = load_session(path)
    elif starts is None:
        raise MissingFileError(f"{path}: there is no such session to run {body.__name__} on")
    else:
        session = starts(arguments)
        if path is None:
            path = session_path(session)
            if path.is_file():
                session = load_session(path)
    assert path is not None
    seen = set(session.attrs.get("warnings", ()))
    started = time.perf_counter()
    ran = _run(session, body, arguments, requires, depends, force)
    if ran:
        save(session, path)
    new = tuple(one for one in session.attrs.get("warnings", ()) if one not in seen)
    return StepResult(body.__name__, path, not ran, time.perf_counter() - started, new)
