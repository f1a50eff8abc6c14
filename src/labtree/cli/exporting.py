"""``labtree convert``, ``merge`` and ``export``: the same content in other files."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from labtree.cli.terminal import (
    BLOCK,
    WORKSPACE,
    complain,
    each_path,
    expanded,
    namespace_and_key,
    open_path,
    say,
)
from labtree.display.formatting import plural
from labtree.errors import (
    AlreadyExistsError,
    FormatError,
    LossWarning,
    warn,
)

if TYPE_CHECKING:
    import xarray as xr


def convert(options: argparse.Namespace) -> None:
    """Write files as .h5 files or .zarr stores."""
    target = Path(options.target)
    if target.suffix in (".h5", ".zarr"):
        if len(options.sources) > 1:
            raise FormatError(f"several sources go into a folder, and {target} is one file")
        done = [_convert_one(options.sources[0], target)]
    elif len(options.sources) == 1 and target.suffix and not target.is_dir():
        raise FormatError(f"{target}: the name of DST ends in .h5 or .zarr, or is a folder")
    else:
        done = []
        target.mkdir(parents=True, exist_ok=True)
        for source in each_path(options.sources):
            name = Path(source).name.removesuffix(".session.zip")
            name = Path(name).stem if Path(source).is_file() else name
            done.append(_convert_one(source, target / f"{name}.{options.to}"))
    text = "\n".join(
        f"{each['source']} ({each['what']}) is now {each['target']}" for each in done
    )
    say(options, done[0] if len(done) == 1 else done, text)


def _convert_one(source: Path | str, target: Path) -> dict[str, Any]:
    from labtree.storage import save_tree
    from labtree.storage.zarr.trees import save_zarr_tree
    from labtree.workspace.workspace_files import save_workspace

    if target.exists():
        raise AlreadyExistsError(f"{target} is there already; choose another name")
    found, tree = open_path(source)
    with tree:
        if WORKSPACE in tree.attrs:
            save_workspace(tree, target)
        elif target.suffix == ".zarr":
            save_zarr_tree(tree, target)
        else:
            save_tree(tree, target)
    return {
        "source": str(source),
        "format": found.name,
        "what": found.what,
        "target": str(target),
    }


def merge(options: argparse.Namespace) -> None:
    """Gather workspaces in one."""
    from tqdm import tqdm

    from labtree.workspace.merging import merge_workspace
    from labtree.workspace.operations import create_workspace
    from labtree.workspace.stores import store_at
    from labtree.workspace.workspace_files import open_workspace, save_workspace

    out = store_at(options.out, new=True).location
    report: dict[str, Any] = {"path": str(out)}
    asked = set(expanded(options.sources))
    sources = [str(path) for path in each_path(options.sources)]
    with open_workspace(out) if out.exists() else create_workspace(lazy=True) as target:
        for source in tqdm(sources, unit="file", disable=None):
            found, tree = open_path(source)
            with tree:
                if WORKSPACE not in tree.attrs:
                    if source not in asked:  # it lies in a folder with workspaces
                        complain(f"{source} is {found.what}, and left out")
                        continue
                    raise FormatError(f"{source} is {found.what}; merge takes workspaces only")
                report[source] = merge_workspace(target, tree, options.overwrite)
        save_workspace(target, out)
    lines = [
        f"{name}: {done['merged']} merged, {done['skipped']} skipped"
        + "".join(f"\n    there already: {'/'.join(place)}" for place in done["skipped_keys"])
        for name, done in report.items()
        if name != "path"
    ]
    say(options, report, "\n".join([*lines, f"saved {out}"]))


def export(options: argparse.Namespace) -> None:
    """Write what is in a file for another program."""
    import labtree

    if Path(options.target).exists():
        raise AlreadyExistsError(f"{options.target} is there already; choose another name")
    if options.item is not None and options.format != "csv":
        raise FormatError(f"export {options.format} takes all of SRC; only csv takes one item")
    found, tree = open_path(options.source)
    with tree:
        if options.format == "csv":
            written = _export_csv(found.what, tree, Path(options.target), options.item)
        elif options.format == "nwb":
            written = [labtree.export_nwb(tree, options.target)]
        else:
            if WORKSPACE not in tree.attrs:
                raise FormatError(
                    f"{options.source} is {found.what}; SpikeLab has workspaces only"
                )
            written = [
                labtree.export_spikelab(
                    tree, options.target, on_loss="warn" if options.lossy else "raise"
                )
            ]
    value = {"source": options.source, "format": found.name, "written": list(map(str, written))}
    say(options, value, "\n".join(f"wrote {path}" for path in written))


def _export_csv(what: str, tree: "xr.DataTree", target: Path, item: str | None) -> list[Path]:
    """Write the tables and streams of a tree; return the files."""
    if item is not None:
        if WORKSPACE not in tree.attrs:
            raise FormatError(f"this is {what}; only workspaces have items")
        table = _as_table(tree.ws[namespace_and_key(tree, item)])
        if table is None:
            raise FormatError(f"{item} is no table; csv takes tables (DataFrame, Series) only")
        return _write_csv(table, target)
    written = []
    for parts, table in _tables(tree):
        path = target.joinpath(*map(_file_name, parts))
        path = path.with_name(path.name + ".csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        written += _write_csv(table, path)
    if not written:
        raise FormatError(f"there are no tables or streams in {what}; nothing was written")
    return written


def _file_name(name: str) -> str:
    """Return a name as one of a file or folder; "." and ".." would lead elsewhere."""
    safe = quote(name, safe=" ()+,-=@~")
    return safe.replace(".", "%2E") if safe in (".", "..") else safe


def _write_csv(table: Any, path: Path) -> list[Path]:
    """Write a DataFrame, or a stream's Dataset block by block; return the files."""
    import pandas as pd

    from labtree.msw import save_trial_tables
    from labtree.msw.trial_times import has_tables

    if has_tables(table.attrs):
        return save_trial_tables(table, path)
    if isinstance(table, pd.DataFrame):
        table.to_csv(path)
        return [path]
    rows = max(1, BLOCK // max(1, table["data"].nbytes // max(1, table.sizes["time"])) // 16)
    for start in range(0, max(1, table.sizes["time"]), rows):
        block = table.isel(time=slice(start, start + rows)).load()
        names = block["channel"].values if "channel" in block.coords else None
        index = pd.Index(block["time"].values, name="time")
        frame = pd.DataFrame(block["data"].values, index=index, columns=names)
        frame.to_csv(path, mode="a" if start else "w", header=not start)
    return [path]


def _as_table(obj: Any) -> Any:
    """Return a DataFrame or a Series as a DataFrame; None for anything else."""
    import pandas as pd

    if isinstance(obj, pd.Series):
        return obj.to_frame()
    return obj if isinstance(obj, pd.DataFrame) else None


def _tables(tree: "xr.DataTree") -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield tables and streams by their names: items, trials, streams, labels."""
    from labtree.msw import MswSession
    from labtree.msw.session_trees import is_msw_session
    from labtree.recording.session import streams

    if WORKSPACE in tree.attrs:
        left_out = []
        for namespace, keys in tree.ws.list_keys().items():
            for key in keys:
                table = _as_table(tree.ws[namespace, key])
                if table is None:
                    left_out.append(f"{namespace}/{key}")
                else:
                    yield (namespace, key), table
        if left_out:
            names = ", ".join(left_out[:5]) + (", …" if len(left_out) > 5 else "")
            warn(
                f"left out what is no table ({plural(len(left_out), 'item')}): {names}",
                LossWarning,
            )
        return
    if is_msw_session(tree):
        frame = MswSession.from_tree(tree).df
        if frame is not None:
            yield ("trials",), frame
    for name, stream in streams(tree).items():
        yield ("streams", name), stream
    if "labels" in tree.children:
        yield ("labels",), tree.session.labels
