"""Steps: one function body that works on a session in memory and on a saved one."""

import copy
import functools
import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from labtree.errors import ConfigurationError, MissingFileError
from labtree.pipeline import declare_steps, module_of_step
from labtree.pipeline.checkpoints import load_saved_session, save
from labtree.pipeline.sessions import (
    UNSAVED,
    add_warning,
    check_session,
    completed_steps,
    mark_step_complete,
    session_path,
    versions,
)
from labtree.pipeline.step_records import (
    StepCall,
    StepRecord,
    code_hash,
    digest,
    file_states,
    fingerprint_items,
    fingerprint_value,
    hash_nodes,
    is_done,
    item_path,
    node_of,
    plain_value,
    stale_records,
)
from labtree.storage._xarray import data_of
from labtree.storage.files import with_suffix_h5
from labtree.storage.nodes import attach_children

# Bookkeeping of the root that is not data: no step reads it.
BOOKKEEPING = (
    *UNSAVED, "completed_steps", "warnings", "steps", "versions", "created_at", "output_dir",
    "source_files", "labtree_format", "labtree_format_version",
)  # fmt: skip

Arguments = Mapping[str, Any]


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
        The warnings that this run left in the session.
    """

    name: str
    hdf5_path: Path
    skipped: bool
    duration_s: float
    warnings: tuple[str, ...] = ()


class _Step(NamedTuple):
    """A body and the arguments of :func:`step` for it."""

    body: Callable[..., Any]
    requires: tuple[str, ...]
    starts: Callable[[Arguments], xr.DataTree] | None
    depends: Callable[[Arguments], Mapping[str, Any]] | None
    fills: Callable[[Arguments], Mapping[str, Any]] | None

    @property
    def name(self) -> str:
        return self.body.__name__


# ---- the copy that a body works on


class _Originals:
    """The arrays of a session, by the read-only views of them that a body works on."""

    def __init__(self) -> None:
        # A view is kept beside its array, so that no other object gets its id.
        self._by_id: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def view(self, data: np.ndarray) -> np.ndarray:
        """Return a view of an array that cannot be written, and remember the array."""
        view = data.view()
        view.flags.writeable = False
        self._by_id[id(view)] = (view, data)
        return view

    def of(self, view: Any) -> np.ndarray | None:
        """Return the array of which this is the view; None for any other array."""
        return self._by_id.get(id(view), (None, None))[1]

    def share(self, checksums: dict[int, str]) -> None:
        """Give the views the checksums of their arrays: what is read-only has not changed."""
        for view, data in self._by_id.values():
            checksums[id(view)] = checksums[id(data)]


def _read_only_copy(node: xr.DataTree, originals: _Originals) -> xr.DataTree:
    """Return a copy of a tree whose arrays cannot be written in place.

    A step works on this copy. If it fails the session is as it was, with no array
    copied; if it tries to write into an array, numpy refuses.
    """
    dataset = node.to_dataset(inherit=False).copy()
    dataset.attrs = copy.deepcopy(dataset.attrs)
    for variable in dataset.variables.values():
        data = data_of(variable)
        if isinstance(data, np.ndarray) and not isinstance(variable, xr.IndexVariable):
            variable.data = originals.view(data)
    made = xr.DataTree(dataset, name=node.name)
    children = node.children.items()
    attach_children(made, {name: _read_only_copy(child, originals) for name, child in children})
    return made


def _assigned(tree: xr.DataTree, originals: _Originals) -> set[str]:
    """Return the variables that a step assigned, be their values the same or not."""
    return {
        f"{item_path(node.relative_to(tree))}:{name}"
        for node in tree.subtree
        for name, variable in node.to_dataset(inherit=False).variables.items()
        if isinstance(data_of(variable), np.ndarray) and originals.of(data_of(variable)) is None
    }


def _writable(dataset: xr.Dataset, originals: _Originals) -> xr.Dataset:
    """Put the original arrays back where a step left them alone; copy other views of them."""
    for variable in dataset.variables.values():
        data = data_of(variable)
        if isinstance(variable, xr.IndexVariable) or not isinstance(data, np.ndarray):
            continue
        original = originals.of(data)
        if original is not None:
            variable.data = original
        elif not data.flags.writeable:
            variable.data = data.copy()
    return dataset


def _take_over(
    target: xr.DataTree,
    source: xr.DataTree,
    changed: set[str],
    originals: _Originals,
    path: str = "",
) -> None:
    """Make a session equal to what a step made of its copy, keeping the nodes of both."""
    if not path or item_path(path) in changed:
        target.dataset = _writable(source.to_dataset(inherit=False), originals)
    for name in set(target.children) - set(source.children):
        del target[name]
    new = {}
    for name, child in source.children.items():
        below = f"{path}/{name}" if path else name
        if name not in target.children:
            new[name] = xr.DataTree()
        own = new[name] if name in new else target.children[name]
        _take_over(own, child, changed, originals, below)
    attach_children(target, new)


# ---- running a body


def _how_to_run(name: str) -> str:
    module = module_of_step(name)
    if module.startswith("labtree."):
        return f"{module}.{name}(session=session, ...)"
    return f"{name}(session=session)"


def check_prerequisites(session: xr.DataTree, what: str, requires: Iterable[str]) -> None:
    """Raise ConfigurationError, with the lines to run, if needed steps are not done."""
    missing = [name for name in requires if name not in completed_steps(session)]
    if missing:
        lines = "\n".join(f"    {_how_to_run(name)}" for name in missing)
        done = ", ".join(sorted(completed_steps(session))) or "none"
        raise ConfigurationError(
            f"{what} needs {', '.join(missing)} first, on session "
            f"{session.attrs['dataset_id']!r} (done: {done}). Run:\n{lines}"
        )


def _describe_call(step: _Step, arguments: Arguments) -> StepCall:
    """Return what a record says of a call, with the key that equal calls share."""
    given = {name: value for name, value in arguments.items() if name != "output_dir"}
    parameters, files = plain_value(given), file_states(arguments)
    call: StepCall = {
        "name": step.name,
        "parameters": parameters,
        "files": files,
        "code": code_hash(step.body),
        "depends": plain_value(step.depends(arguments) if step.depends else {}),
        "key": "",
    }
    # where a file stands is no parameter; its name, size and time are in `files`
    own = {name: value for name, value in parameters.items() if name not in files}
    compared = {k: v for k, v in (call | {"parameters": own}).items() if k != "key"}
    call["key"] = digest({k: fingerprint_value(v) for k, v in compared.items()})
    return call


def _run(session: xr.DataTree, step: _Step, given: Arguments, force: bool) -> bool:
    """Run a body on a session, all or nothing; return False if there was nothing to do."""
    check_prerequisites(session, step.name, step.requires)
    arguments = fill_in(step, given)
    call = _describe_call(step, arguments)
    checksums: dict[int, str] = {}  # of arrays, by id: one that did not change is read once
    before = fingerprint_items(session, ignore_root=BOOKKEEPING, memo=checksums)
    if not force and _was_done(session, call, before):
        return False

    originals = _Originals()
    work = _read_only_copy(session, originals)
    started = time.perf_counter()
    result = step.body(work, **arguments)
    result = check_session(work if result is None else result)
    duration_s = time.perf_counter() - started

    originals.share(checksums)
    after = fingerprint_items(result, ignore_root=BOOKKEEPING, memo=checksums)
    outputs = _outputs(before, after, _assigned(result, originals))
    _keep_record(result, call, duration_s, before, after, outputs)
    mark_step_complete(result, step.name)
    _take_over(session, result, set(map(node_of, outputs)), originals)
    return True


def _was_done(session: xr.DataTree, call: StepCall, items: Mapping[str, str]) -> bool:
    """Return whether an equal call ran, and what it rests on and made is as it was."""
    records: list[StepRecord] = session.attrs.get("steps", [])
    return any(
        record["key"] == call["key"] and is_done(record, records[position + 1 :], items)
        for position, record in enumerate(records)
    )


def _outputs(
    before: Mapping[str, str], after: Mapping[str, str], assigned: set[str]
) -> dict[str, str]:
    """Return the checksums of what a step changed or assigned; "" of what it took away."""
    return {
        item: after.get(item, "")
        for item in {*before, *after}
        if before.get(item) != after.get(item) or item in assigned
    }


class _Place(NamedTuple):
    """Where a record belongs: the runs that it replaces, and the records around it."""

    earlier: list[StepRecord]
    replaced: list[StepRecord]
    later: list[StepRecord]


def _place_of_record(
    records: list[StepRecord], call: StepCall, outputs: Mapping[str, str]
) -> _Place:
    """Return the place of a run: that of an earlier run of the step, else the end.

    So the records after it stay those of later steps.
    """
    replaced = [
        record
        for record in records
        if record["name"] == call["name"]
        and (record["key"] == call["key"] or set(record["outputs"]) & set(outputs))
    ]
    position = records.index(replaced[0]) if replaced else len(records)
    earlier = [record for record in records[:position] if record not in replaced]
    later = [record for record in records[position:] if record not in replaced]
    return _Place(earlier, replaced, later)


def _keep_record(
    session: xr.DataTree,
    call: StepCall,
    duration_s: float,
    before: Mapping[str, str],
    after: Mapping[str, str],
    outputs: dict[str, str],
) -> None:
    """Record a run in the session; records of later steps that rest on it are dropped."""
    earlier, replaced, later = _place_of_record(session.attrs.get("steps", []), call, outputs)
    # what came out just as before is still this step's own
    outputs |= {i: after[i] for record in replaced for i in record["outputs"] if i in after}
    if replaced:
        stale = stale_records(later, call["name"], after)
        later = [record for record in later if record not in stale]
        _forget_steps(session, stale, [*earlier, *later], call["name"])
    inputs = hash_nodes(before, {*outputs, *(i for record in later for i in record["outputs"])})
    record: StepRecord = {
        **call,
        "duration_s": duration_s,
        "hash": digest({"key": call["key"], **inputs}),
        "inputs": inputs,
        "outputs": outputs,
        "versions": versions(),
        "finished_at": datetime.now(UTC).isoformat(),
    }
    session.attrs["steps"] = [*earlier, record, *later]


def _forget_steps(
    session: xr.DataTree,
    stale: list[StepRecord],
    kept: list[StepRecord],
    name: str,
) -> None:
    """Take steps off the list of what is done; their results stay."""
    names = {record["name"] for record in stale} - {record["name"] for record in kept}
    for stale_name in sorted(names):
        text = f"{stale_name} is out of date, because {name} ran again after it; run it again"
        add_warning(session, text)
    done = session.attrs.get("completed_steps", [])
    session.attrs["completed_steps"] = [known for known in done if known not in names]


def fill_in(step: Any, arguments: Arguments) -> dict[str, Any]:
    """Return a step's parameters with those that it finds elsewhere, such as a lab's folders.

    `step` is a function made with :func:`step`.
    """
    fills = getattr(step, "fills", None)
    return {**arguments, **(fills(arguments) if fills else {})}


def step(
    *,
    requires: Iterable[str] = (),
    starts: Callable[[Arguments], xr.DataTree] | None = None,
    depends: Callable[[Arguments], Mapping[str, Any]] | None = None,
    fills: Callable[[Arguments], Mapping[str, Any]] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn a function whose first argument is the session into a pipeline step.

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
        For the first step of a pipeline: creates the session from the parameters if none is
        given.
    depends : callable, optional
        Takes the parameters and returns further values that the result depends on.
    fills : callable, optional
        Takes the parameters and returns those that were not given and are found elsewhere.
        They are recorded like the others.

    Returns
    -------
    callable
        A decorator.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> import labtree
    >>> @labtree.step()
    ... def count_spikes(session, at_least=0):
    ...     counts = session["units"]["row_size"]
    ...     session["features/count"] = xr.DataTree(counts.to_dataset(name="count"))
    >>> session = labtree.create_session("rec1")
    >>> session.session.add_units({"unit_001": {"spike_times": np.array([5, 9])}})
    >>> session = count_spikes(session=session)
    >>> sorted(session.session.completed_steps)
    ['count_spikes']
    """
    needed = (requires,) if isinstance(requires, str) else tuple(requires)

    def decorate(body: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(body)
        if not signature.parameters:
            raise ConfigurationError(
                f"step {body.__name__} takes no argument; its first one is the session"
            )
        made = _Step(body, needed, starts, depends, fills)
        if not module_of_step(body.__name__):
            declare_steps(body.__module__, [body.__name__])

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
            if session is not None and hdf5_path is not None:
                raise ConfigurationError("give session= or hdf5_path=, not both")
            arguments = _bind(signature, args, parameters)
            if session is None:
                return _run_on_file(made, arguments, force, hdf5_path)
            _run(check_session(session), made, arguments, force)
            return session

        run.__signature__ = _signature_of_step(signature)  # type: ignore[attr-defined]
        run.fills = fills  # type: ignore[attr-defined]
        return run

    return decorate


def _bind(
    signature: inspect.Signature, args: tuple[Any, ...], parameters: Arguments
) -> dict[str, Any]:
    """Return a body's arguments by name, with defaults, without the session."""
    bound = signature.bind(None, *args, **parameters)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    del arguments[next(iter(signature.parameters))]
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(parameter.name))
    return arguments


def _signature_of_step(signature: inspect.Signature) -> inspect.Signature:
    """Return a body's signature with session, hdf5_path and force in place of its first."""
    own = list(signature.parameters.values())[1:]
    tail = [p for p in own if p.kind is inspect.Parameter.VAR_KEYWORD]
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in (("session", None), ("hdf5_path", None), ("force", False))
    ]
    return signature.replace(parameters=[p for p in own if p not in tail] + extra + tail)


def _run_on_file(
    step: _Step, arguments: Arguments, force: bool, hdf5_path: str | Path | None
) -> StepResult:
    """Run a step on a saved session; the file changes only when the step has succeeded."""
    if hdf5_path is None and step.starts is None:
        raise ConfigurationError(
            f"{step.name} needs a session: {step.name}(session=session) or "
            f"{step.name}(hdf5_path='artifacts/rec1.h5')"
        )
    path = with_suffix_h5(hdf5_path) if hdf5_path is not None else None
    if path is not None and path.is_file():
        session = load_saved_session(path)
    elif step.starts is None:
        raise MissingFileError(f"{path}: there is no such session to run {step.name} on")
    else:
        session = step.starts(arguments)
        if path is None:
            path = session_path(session)
            if path.is_file():
                session = load_saved_session(path)
    assert path is not None
    known = set(session.attrs.get("warnings", ()))
    started = time.perf_counter()
    ran = _run(session, step, arguments, force)
    if ran:
        save(session, path)
    new = tuple(text for text in session.attrs.get("warnings", ()) if text not in known)
    return StepResult(step.name, path, not ran, time.perf_counter() - started, new)
