"""Write a workspace as a file that SpikeLab loads.

SpikeLab's format holds less than a workspace does. What would change on the way is
found first, item by item, and said before the file appears.
"""

import json
import os
import warnings
from pathlib import Path
from typing import Literal

import h5py
import xarray as xr

from labtree.errors import DataError, LossWarning
from labtree.interop.spikelab_write import Writer
from labtree.storage.atomic import replace_file, temporary_path

__all__ = ["export_spikelab"]


def export_spikelab(
    tree: xr.DataTree,
    path: str | os.PathLike[str],
    *,
    on_loss: Literal["raise", "warn"] = "raise",
) -> Path:
    """Write a workspace as a file of SpikeLab 0.1, ``path.h5``, and its index ``path.json``.

    Parameters
    ----------
    tree : DataTree
        A workspace.
    path : path-like
        With or without ``.h5``. Files that stand there are replaced once the new ones are
        whole.
    on_loss : {"raise", "warn"}
        What to do if SpikeLab's format cannot hold something exactly. With "raise"
        nothing is written; with "warn" the rest is. Either way all of it is listed.

    Returns
    -------
    Path
        Of the ``.h5`` file.

    Raises
    ------
    DataError
        A ValueError, with ``on_loss="raise"``, that lists what the format cannot hold.

    Warns
    -----
    LossWarning
        With ``on_loss="warn"``, if something was changed or left out.
    """
    if on_loss not in ("raise", "warn"):
        raise DataError(f'on_loss must be "raise" or "warn", found {on_loss!r}')
    target = Path(path)
    if target.suffix != ".h5":
        target = target.with_name(target.name + ".h5")
    own = tree.ws.path
    if own is not None and own.resolve() == target.resolve():
        raise DataError(
            f"{target} is the file of this workspace: export it under another name, as "
            "SpikeLab's format cannot hold all of it"
        )
    index_target = target.with_suffix(".json")
    with temporary_path(target) as new, temporary_path(index_target) as new_index:
        with h5py.File(new, "w") as file:
            writer = Writer()
            index = writer.workspace(file, tree)
        listed = "\n".join(writer.losses)
        if listed and on_loss == "raise":
            raise DataError(
                f"{target} was not written: SpikeLab's format cannot hold all of the "
                f'workspace. Write export_spikelab(tree, path, on_loss="warn") to go on '
                f"without:\n{listed}"
            )
        new_index.write_text(json.dumps(index, indent=2), encoding="utf-8")
        if listed:
            warnings.warn(
                f"{target}: SpikeLab's format cannot hold all of the workspace:\n{listed}",
                LossWarning,
                stacklevel=2,
            )
        replace_file(new, target)
        replace_file(new_index, index_target)
    return target
