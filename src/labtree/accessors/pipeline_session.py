"""The half of the door ``tree.session`` that leads to pipelines."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

import labtree.mea  # noqa: F401, declares its steps and the dimensions of its arrays

if TYPE_CHECKING:
    import numpy as np

    from labtree.pipeline.sessions import SaveState


class PipelineSessionMethods:
    """What ``tree.session`` can do with a pipeline's session."""

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree

    @property
    def completed_steps(self) -> frozenset[str]:
        """Names of the steps that are done."""
        from labtree.pipeline.sessions import completed_steps

        return completed_steps(self._tree)

    @property
    def warnings(self) -> list[str]:
        """Warnings that steps and users left in the session; read-only."""
        from labtree.pipeline.sessions import session_warnings

        return session_warnings(self._tree)

    def add_warning(self, text: str) -> None:
        """Keep a warning in the session, each text once.

        Parameters
        ----------
        text : str

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_session("rec1")
        >>> tree.session.add_warning("the light was off")
        >>> tree.session.warnings
        ['the light was off']
        """
        from labtree.pipeline.sessions import add_warning

        add_warning(self._tree, text)

    @property
    def source_files(self) -> Mapping[str, Path]:
        """Files that the session was made from, by name; read-only."""
        from labtree.pipeline.sessions import source_files

        return source_files(self._tree)

    @property
    def save_state(self) -> "SaveState":
        """Whether the session's file holds what is in memory."""
        from labtree.pipeline.sessions import save_state

        return save_state(self._tree)

    @property
    def is_saved(self) -> bool:
        """Whether the session's file holds what is in memory."""
        return self.save_state.name == "SAVED"

    @property
    def is_deferred(self) -> bool:
        """Whether something is in memory only."""
        return self.save_state.name == "DEFERRED"

    @property
    def unit_count(self) -> int:
        """Number of units."""
        from labtree.pipeline.sessions import unit_count

        return unit_count(self._tree)

    @property
    def memory_estimate_gb(self) -> float:
        """Size of all that is in memory, GiB."""
        from labtree.pipeline.sessions import memory_estimate_gb

        return memory_estimate_gb(self._tree)

    @property
    def hdf5_path(self) -> Path | None:
        """File that the session was last saved to or loaded from."""
        from labtree.pipeline.sessions import hdf5_path

        return hdf5_path(self._tree)

    def add_units(self, units: Mapping[str, Mapping[str, Any]]) -> None:
        """Add units from a dictionary per unit."""
        from labtree.pipeline.units import add_units

        add_units(self._tree, units)

    def add_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Add to the metadata."""
        from labtree.pipeline.sessions import add_metadata

        add_metadata(self._tree, metadata)

    def add_stimulus(self, stimulus: Mapping[str, Any]) -> None:
        """Add to the stimulus."""
        from labtree.pipeline.sessions import add_stimulus

        add_stimulus(self._tree, stimulus)

    def add_feature(
        self, unit_id: str, name: str, data: Any, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Add one unit's feature."""
        from labtree.pipeline.units import add_feature

        add_feature(self._tree, unit_id, name, data, metadata)

    def feature(self, unit_id: str, name: str) -> dict[str, Any]:
        """Return one unit's feature, its data and metadata."""
        from labtree.pipeline.units import feature

        return feature(self._tree, unit_id, name)

    def spikes(self, unit_id: str) -> xr.DataArray:
        """Return one unit's spike times in samples."""
        from labtree.pipeline.units import unit_spikes

        return unit_spikes(self._tree, unit_id)

    def full_spike_times(self, unit_id: str, movie_name: str) -> "np.ndarray[Any, Any]":
        """Return one unit's spikes in all trials of a movie, each once."""
        from labtree.pipeline.sections import full_spike_times

        return full_spike_times(self._tree, unit_id, movie_name)

    def trials_spike_times(
        self, unit_id: str, movie_name: str
    ) -> "dict[int, np.ndarray[Any, Any]]":
        """Return one unit's spikes trial by trial of a movie."""
        from labtree.pipeline.sections import trials_spike_times

        return trials_spike_times(self._tree, unit_id, movie_name)

    def mark_step_complete(self, name: str) -> None:
        """Note that a step is done."""
        from labtree.pipeline.sessions import mark_step_complete

        mark_step_complete(self._tree, name)

    def save(self, output_path: str | Path | None = None, overwrite: bool = True) -> Path:
        """Save the session whole."""
        from labtree.pipeline.checkpoints import save

        return save(self._tree, output_path, overwrite)

    def checkpoint(self, path: str | Path, overwrite: bool = True) -> Path:
        """Write the session to a file and leave its state as it is.

        Parameters
        ----------
        path : path
            With or without ``.h5``. Folders are made.
        overwrite : bool
            Whether an existing file may be replaced.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        SessionError
            (also a FileExistsError) if the file exists and may not be replaced.
        BusyFileError
            If another program holds the file.
        """
        from labtree.pipeline.checkpoints import checkpoint

        return checkpoint(self._tree, path, overwrite)
