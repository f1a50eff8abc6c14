"""The same steps on many recordings: in parallel, resumable, continuing after failures."""

import ast
import inspect
import multiprocessing
import pickle
import re
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import xarray as xr

from labtree.errors import ConfigurationError, warn
from labtree.pipeline.checkpoints import load_saved_session, save
from labtree.pipeline.sessions import create_session, session_path
from labtree.pipeline.steps import fill_in

Step = Callable[..., Any]
_PATHS = ("cmcr_path", "cmtr_path")


def _cell(name: str, text: str, folder: Path) -> Any:
    """Return a path in the folder, an id as text, and a literal, such as a list, as itself."""
    if name.endswith(("_path", "_dir")):
        return str(folder / text)
    return text if name == "dataset_id" else read_literal(text, text)


def read_literal(text: str, default: Any) -> Any:
    """Return the value of a Python literal, such as a list; it is never run."""
    if re.fullmatch(r"[\w+-]*\d_\d\w*", text):  # a name, which Python takes for a number
        return default
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return default


def read_texts(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and rows of a CSV file as texts; "" where a field is empty.

    Raises
    ------
    ConfigurationError
        If a line has more fields than the first one, or if the file is not text.
    """
    try:
        cells = pd.read_csv(
            path, header=None, dtype=str, keep_default_na=False, skipinitialspace=True,
            encoding="utf-8-sig",
        ).fillna("")  # fmt: skip
    except pd.errors.EmptyDataError:
        return [], []
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not a table of texts ({error})") from error
    names, *rows = [[str(cell).strip() for cell in row] for row in cells.to_numpy().tolist()]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"{path}: two columns are called {', '.join(twice)}; give each a name of its own"
        )
    return names, [dict(zip(names, row, strict=True)) for row in rows]


def read_recordings(
    source: str | Path | pd.DataFrame | Iterable[Mapping[str, Any] | Sequence[Any]],
) -> list[dict[str, Any]]:
    """Return one dictionary per recording from a CSV file, a table or a list.

    A CSV or table has the columns ``cmcr_path``, ``cmtr_path``, ``dataset_id`` (at
    least one of them) and, if wanted, columns named like parameters of the steps.
    Relative paths in a CSV start at its folder. A list holds such dictionaries or
    pairs (cmcr_path, cmtr_path).

    Raises
    ------
    ConfigurationError
        If the file is missing, or if two recordings have one id.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise ConfigurationError(f"{path}: there is no such list of recordings")
        rows = [
            {name: _cell(name, text, path.parent) for name, text in row.items() if text}
            for row in read_texts(path)[1]
        ]
    elif isinstance(source, pd.DataFrame):
        records = source.to_dict("records")
        rows = [{str(k): v for k, v in r.items() if not _is_missing(v)} for r in records]
    else:
        rows = []
        for item in source:
            if isinstance(item, Mapping):
                rows.append(dict(item))
            elif isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2:
                rows.append(dict(zip(_PATHS, item, strict=True)))
            else:
                raise ConfigurationError(
                    "a recording is a dictionary or a pair (cmcr_path, cmtr_path), got "
                    f"{item!r}"
                )
    for row in rows:
        if not row.keys() & {"dataset_id", *_PATHS}:
            raise ConfigurationError(
                "a recording needs cmcr_path, cmtr_path or dataset_id; found "
                f"{', '.join(row) or 'nothing'}; of a table with other names write "
                "table.rename(columns={...: 'cmcr_path', ...: 'cmtr_path'})"
            )
        if "dataset_id" not in row:
            row["dataset_id"] = create_session(
                cmcr_path=row.get("cmcr_path"), cmtr_path=row.get("cmtr_path")
            ).attrs["dataset_id"]
    ids = [str(row["dataset_id"]) for row in rows]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"two recordings are called {', '.join(twice)}; give each its own dataset_id"
        )
    return rows


def _is_missing(value: Any) -> bool:
    """Return whether a cell of a table is empty; a list or an array in it never is."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _parameters(step: Step, given: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a step for one recording: its own columns go first."""
    known = inspect.signature(step).parameters
    own = {name: value for name, value in row.items() if name in known}
    return {**given, **own}


def _prepare(row: Mapping[str, Any], output_dir: Path) -> xr.DataTree:
    paths = {name: row[name] for name in _PATHS if name in row}
    session = create_session(str(row["dataset_id"]), output_dir=output_dir, **paths)
    saved = session_path(session)
    return load_saved_session(saved) if saved.is_file() else session


class _Report(NamedTuple):
    """The outcome of a recording; a row of the table that `run_batch` returns."""

    dataset_id: str
    status: str
    ran: str = ""
    seconds: float = float("nan")
    path: str = ""
    error: str = ""
    traceback: str = ""


def _run_recording(
    row: Mapping[str, Any],
    steps: Sequence[tuple[Step, Mapping[str, Any]]],
    output_dir: Path,
    force: bool,
) -> _Report:
    """Run all steps on one recording, saving after each that had something to do."""
    started = time.perf_counter()
    ran: list[str] = []
    dataset_id, name = str(row["dataset_id"]), "loading"
    try:
        session = _prepare(row, output_dir)
        path = output_dir / f"{dataset_id}.h5"
        for step, given in steps:
            name = step.__name__
            before = session.attrs["steps"]
            step(session=session, force=force, **_parameters(step, given, row))
            if session.attrs["steps"] != before:
                save(session, path)
                ran.append(name)
    except Exception as error:  # the other recordings go on; the report has it
        return _Report(
            dataset_id,
            "failed",
            ", ".join(ran),
            time.perf_counter() - started,
            error=f"{name}: {type(error).__name__}: {error}",
            traceback=traceback.format_exc(),
        )
    status = "done" if ran else "unchanged"
    seconds = time.perf_counter() - started
    return _Report(dataset_id, status, ", ".join(ran), seconds, str(path))


def _steps(steps: Iterable[Any]) -> list[tuple[Step, dict[str, Any]]]:
    made = []
    for member in steps:
        step, given = member if isinstance(member, (tuple, list)) else (member, {})
        if not callable(step) or "hdf5_path" not in inspect.signature(step).parameters:
            raise ConfigurationError(
                f"{step!r} is not a step; give functions made with @labtree.step, or pairs of "
                "one and its parameters: (labtree.mea.compute_sta, {'stimuli_dir': 'movies'})"
            )
        made.append((step, _with_lab(step, given)))
    if not made:
        raise ConfigurationError("run_batch needs at least one step")
    return made


def _with_lab(step: Step, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what a step finds elsewhere, as workers in other processes would not find it."""
    try:
        return fill_in(step, given)
    except ConfigurationError:  # a recording's own columns may say it; else the step fails
        return dict(given)


def run_batch(
    source: str | Path | pd.DataFrame | Iterable[Mapping[str, Any] | Sequence[Any]],
    steps: Iterable[Step | tuple[Step, Mapping[str, Any]]],
    output_dir: str | Path = "artifacts",
    *,
    workers: int = 1,
    executor: Executor | None = None,
    force: bool = False,
) -> pd.DataFrame:
    """Run steps on many recordings.

    Each recording is one session, ``output_dir/{dataset_id}.h5``, saved after every
    step that had something to do. What is done already is skipped, so a batch that
    was interrupted, or in which recordings failed, is resumed by running it again.

    Parameters
    ----------
    source : path of a CSV file, DataFrame, or list
        See :func:`read_recordings`.
    steps : list of steps, or pairs of a step and its parameters
        A recording's own columns go before these parameters.
    output_dir : path
    workers : int
        Processes that work at the same time.
    executor : concurrent.futures.Executor, optional
        What runs the recordings instead, such as ``client.get_executor()`` of a
        dask.distributed client; it stays open. Its workers must see the recordings,
        the files that the steps read, and ``output_dir`` under the same paths.
    force : bool
        Whether to run steps again that are done.

    Returns
    -------
    DataFrame
        One row per recording, in their order: dataset_id, status ("done",
        "unchanged", "failed"), ran, seconds, path, error, traceback.

    Raises
    ------
    ConfigurationError
        If the list, the steps or the executor are wrong; then nothing has run.

    Warns
    -----
    UserWarning
        If recordings failed; the message names them.

    Examples
    --------
    >>> import tempfile
    >>> import labtree
    >>> from labtree.testing.mea import write_recording
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = write_recording(folder, n_units=2, movie_frames={"noise_a": 60}, repeats=1)
    ...     pairs = [(files.cmcr_path, files.cmtr_path)]
    ...     table = run_batch(pairs, [labtree.mea.load_recording], folder)
    >>> table[["status", "ran"]].values.tolist()
    [['done', 'load_recording']]
    """
    from tqdm import tqdm

    if executor is not None and not isinstance(executor, Executor):
        raise ConfigurationError(
            "executor is a concurrent.futures.Executor, such as client.get_executor() of a "
            f"dask.distributed client, got {executor!r}"
        )
    if executor is not None and workers != 1:
        raise ConfigurationError(
            f"give workers={workers!r} or an executor, which has its own workers, not both"
        )
    rows, wanted, folder = read_recordings(source), _steps(steps), Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=len(rows), desc="recordings", disable=None)
    reports: dict[int, _Report] = {}
    if executor is not None:
        rows, folder = [_absolute(row) for row in rows], folder.absolute()
        found = _in_executor(rows, wanted, folder, force, executor)
    elif workers > 1:
        found = _in_processes(rows, wanted, folder, force, workers)
    else:
        found = (
            (index, _run_recording(row, wanted, folder, force))
            for index, row in enumerate(rows)
        )
    for index, report in found:
        reports[index] = report
        bar.update()
    bar.close()
    table = pd.DataFrame([reports[i] for i in range(len(rows))], columns=_Report._fields)
    failed = table[table["status"] == "failed"]
    if len(failed):
        lines = "\n".join(f"  {r.dataset_id}: {r.error}" for r in failed.itertuples())
        warn(f"{len(failed)} of {len(rows)} recordings failed:\n{lines}")
    return table


def _in_processes(
    rows: list[dict[str, Any]],
    steps: list[tuple[Step, dict[str, Any]]],
    folder: Path,
    force: bool,
    workers: int,
) -> Iterator[tuple[int, _Report]]:
    try:
        pickle.dumps(steps)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"the steps cannot be sent to other processes ({error}); put them into a module, "
            "or run with workers=1"
        ) from error
    # fresh processes: forking one that holds threads or open HDF5 files is not safe
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from _in_executor(rows, steps, folder, force, pool)


def _absolute(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recording whose files have absolute paths: workers have folders of their own."""
    paths = {name: str(Path(row[name]).absolute()) for name in _PATHS if name in row}
    return {**row, **paths}


def _run_recording_elsewhere(call: str, *arguments: Any) -> _Report:
    """Return a report; ``call`` differs each time, as dask keeps results of equal calls."""
    return _run_recording(*arguments)


def _in_executor(
    rows: list[dict[str, Any]],
    steps: list[tuple[Step, dict[str, Any]]],
    folder: Path,
    force: bool,
    pool: Executor,
) -> Iterator[tuple[int, _Report]]:
    call = uuid.uuid4().hex
    waiting: dict[Future[_Report], int] = {
        pool.submit(_run_recording_elsewhere, call, row, steps, folder, force): index
        for index, row in enumerate(rows)
    }
    try:
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                index = waiting.pop(future)
                died = future.exception()
                if died is None:
                    yield index, future.result()
                else:  # the process died: out of memory, killed
                    hint = ""
                    if isinstance(died, BrokenExecutor):
                        hint = (
                            " (a script that calls run_batch must do so under "
                            "if __name__ == '__main__':)"
                        )
                    problem = f"process: {type(died).__name__}: {died}{hint}"
                    dataset_id = str(rows[index]["dataset_id"])
                    yield index, _Report(dataset_id, "failed", error=problem)
    finally:
        for future in waiting:
            future.cancel()
