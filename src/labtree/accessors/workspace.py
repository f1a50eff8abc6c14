"""``.ws`` on trees, Datasets, DataArrays, DataFrames and Series."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import pandas as pd
import xarray as xr

if TYPE_CHECKING:
    from labtree.display import Panel


@xr.register_datatree_accessor("ws")
class TreeWorkspaceAccessor:
    """The items of a workspace, their notes, and its file.

    Examples
    --------
    >>> import labtree
    >>> tree = labtree.create_workspace("pilot")
    >>> tree.ws.store("rec1", "threshold", 0.5, note="by eye")
    >>> tree.ws["rec1", "threshold"]
    0.5
    """

    def __init__(self, tree: xr.DataTree):
        self._tree = tree

    @property
    def workspace_id(self) -> str | None:
        """The UUID4 of the workspace; None for a tree that is no workspace yet."""
        return self._tree.root.attrs.get("labtree_workspace_id")

    @property
    def name(self) -> str | None:
        """The name that was given to :func:`labtree.create_workspace`, or None."""
        return self._tree.root.attrs.get("labtree_name")

    @property
    def created_at(self) -> float | None:
        """When the workspace was made, in POSIX seconds."""
        return self._tree.root.attrs.get("labtree_created_at")

    @property
    def path(self) -> Any:
        """The file, folder or URL that it was opened from or saved to last, or None."""
        from labtree.workspace.state import state_of

        return state_of(self._tree.root).location

    @property
    def is_lazy(self) -> bool:
        """Whether its data live in files rather than in memory."""
        from labtree.workspace.state import state_of

        return state_of(self._tree.root).is_lazy

    @property
    def is_saved(self) -> bool:
        """Whether all of the workspace is on the disk; see :attr:`changes`."""
        return not self.changes

    @property
    def changes(self) -> list[str]:
        """What is not on the disk yet, one line for each item; no data are read.

        Values that were changed in place, inside an array, are saved but not listed.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_workspace("pilot")
        >>> tree.ws.store("rec1", "threshold", 0.5)
        >>> tree.ws.changes
        ['rec1/threshold: not saved yet']
        """
        from labtree.workspace.state import changes

        return changes(self._tree.root)

    @property
    def kind(self) -> str:
        """The kind of the item at this node: ``tree["namespace/key"].ws.kind``.

        Raises
        ------
        WorkspaceError
            (a ValueError) The node is the workspace or a namespace.
        """
        from labtree.workspace import operations

        return operations.item_kind(self._tree)

    def summary(self) -> dict[str, Any]:
        """Return what lists of items show about ``tree["namespace/key"]``; no data are read.

        Returns
        -------
        dict
            JSON values, such as ``shape`` and ``dtype``.

        Raises
        ------
        WorkspaceError
            (a ValueError) The node is the workspace or a namespace.

        Examples
        --------
        >>> import labtree, numpy as np
        >>> tree = labtree.create_workspace()
        >>> tree.ws.store("rec1", "rates", np.zeros((2, 3)))
        >>> tree["rec1/rates"].ws.summary()
        {'shape': [2, 3], 'dtype': 'float64'}
        """
        from labtree.workspace import operations

        return operations.item_summary(self._tree)

    def validate(self) -> None:
        """Check that the item ``tree["namespace/key"]`` is valid for its kind.

        Raises
        ------
        DataError, FormatError
            (a ValueError) It is not; the message says what was found and expected.
        WorkspaceError
            (a ValueError) The node is the workspace or a namespace.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_workspace()
        >>> tree.ws.store("rec1", "spikes", labtree.spike_data([[1.0], [2.0]], length=10))
        >>> tree["rec1/spikes"].ws.validate()
        """
        from labtree.workspace import operations

        operations.validate_item(self._tree)

    def plot(
        self,
        *,
        ax: Any = None,
        unit: int | None = None,
        slice: int | None = None,
        bin_ms: float | None = None,
        **style: Any,
    ) -> Any:
        """Draw the item ``tree["namespace/key"]`` as its kind defines.

        Parameters
        ----------
        ax, unit, slice, bin_ms, **style
            As for the ``.ws.plot`` of a Dataset.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        WorkspaceError
            (a ValueError) The node is the workspace or a namespace.
        DataError
            (a ValueError) There is no picture of such an item.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_workspace()
        >>> tree.ws.store("rec1", "spikes", labtree.spike_data([[1.0], [2.0]], length=10))
        >>> tree["rec1/spikes"].ws.plot().get_xlabel()
        'Time (ms)'
        """
        from labtree.workspace import operations

        chosen = {"ax": ax, "unit": unit, "slice": slice, "bin_ms": bin_ms}
        style |= {name: value for name, value in chosen.items() if value is not None}
        return operations.plot_item(self._tree, **style)

    def store(self, namespace: str, key: str, obj: Any, note: str | None = None) -> None:
        """Store a copy of an object under a namespace and a key.

        Parameters
        ----------
        namespace, key : str
            Any text but the empty one; they are made where they do not exist. An item
            of that name is replaced, with its note and time.
        obj : object
            An xarray Dataset or DataArray, a pandas DataFrame or Series, a numpy array, a
            dict, list or tuple of these, a number, a string, or an object of a kind that
            :func:`labtree.register_kind` knows.
        note : str, optional
            A sentence for people.

        Raises
        ------
        UnsupportedTypeError
            (a TypeError) A part of the object cannot be kept exactly; the message has its
            path. The workspace is unchanged.
        InvalidNameError
            (a ValueError) A name is empty, or holds NUL or a lone surrogate.

        Examples
        --------
        >>> import labtree, numpy as np
        >>> tree = labtree.create_workspace("pilot")
        >>> tree.ws.store("rec1", "rates", np.zeros((2, 3)), note="Hz, one row per unit")
        >>> tree.ws.list_keys("rec1")
        ['rates']
        """
        from labtree.workspace import operations

        operations.store_item(self._tree, namespace, key, obj, note=note)

    def get(self, namespace: str, key: str) -> Any:
        """Return a copy of what was stored, in memory, or None.

        Parameters
        ----------
        namespace, key : str
            Where it was stored.

        Returns
        -------
        object
            Of the type that was stored; None where there is no such item. Write
            ``tree.ws[namespace, key]`` for an error instead.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_workspace()
        >>> tree.ws.get("rec1", "rates") is None
        True
        """
        from labtree.workspace import operations

        return operations.get(self._tree, namespace, key)

    def __getitem__(self, place: tuple[str, str]) -> Any:
        """Return a copy of what was stored at ``[namespace, key]``.

        Raises
        ------
        ItemNotFoundError
            (a KeyError) There is no such item; the message lists those that there are.
        """
        from labtree.workspace import operations

        return operations.get_or_raise(self._tree, *operations.check_place(place, self._tree))

    def __contains__(self, place: object) -> bool:
        """Return whether there is a namespace, or an item at (namespace, key)."""
        from labtree.workspace import operations

        return operations.contains(self._tree, place)

    def __len__(self) -> int:
        """Return the number of items."""
        from labtree.workspace import operations

        return len(operations.list_items(self._tree))

    def __bool__(self) -> bool:
        """Return True: a workspace without items is one too."""
        return True

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Iterate over (namespace, key) of the items, in the order of storing."""
        from labtree.workspace import operations

        return iter(operations.list_items(self._tree))

    def _ipython_key_completions_(self) -> list[tuple[str, str]]:
        """Return what completes ``tree.ws[``: the namespaces, then their keys."""
        return list(self)

    def find(self, pattern: str = "*/*", kind: str | None = None) -> list[tuple[str, str]]:
        """Return namespace and key of the items whose names match a pattern.

        Parameters
        ----------
        pattern : str
            Of namespace and key, with ``*``, ``?`` and ``[abc]`` as in file names; upper
            and lower case differ. One without ``/`` is that of a key in any namespace.
        kind : str, optional
            Only items of this kind: ``"spike_data"``, ``"dataframe"``, ``"ndarray"``...

        Returns
        -------
        list of (namespace, key)
            In the order of storing.

        Raises
        ------
        UnknownNameError
            (a KeyError) There is no such kind; the message lists them.

        Examples
        --------
        >>> import labtree, numpy as np
        >>> tree = labtree.create_workspace()
        >>> for recording in ("rec1", "rec2", "all"):
        ...     tree.ws.store(recording, "rates", np.zeros(3))
        >>> tree.ws.find("rec*/rates", kind="ndarray")
        [('rec1', 'rates'), ('rec2', 'rates')]
        """
        from labtree.workspace import operations

        return operations.find(self._tree, pattern, kind)

    def get_info(self, namespace: str, key: str) -> dict[str, Any] | None:
        """Return type, shape, time and note of an item; no data are read.

        Parameters
        ----------
        namespace, key : str
            Where it was stored.

        Returns
        -------
        dict or None
            JSON values: ``type``, ``created_at`` (POSIX seconds), ``note`` and what its
            kind says, such as ``shape`` and ``dtype``; None where there is no such item.

        Examples
        --------
        >>> import labtree, numpy as np
        >>> tree = labtree.create_workspace()
        >>> tree.ws.store("rec1", "rates", np.zeros((2, 3)))
        >>> tree.ws.get_info("rec1", "rates")["shape"]
        [2, 3]
        """
        from labtree.workspace import operations

        return operations.get_info(self._tree, namespace, key)

    def describe(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return what :meth:`get_info` says of every item; no data are read.

        Returns
        -------
        dict of dict of dict
            By namespace and key.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_workspace()
        >>> tree.ws.store("rec1", "threshold", 0.5)
        >>> tree.ws.describe()["rec1"]["threshold"]["type"]
        'float'
        """
        from labtree.workspace import operations

        return operations.describe(self._tree)

    @overload
    def list_keys(self, namespace: str) -> list[str]: ...
    @overload
    def list_keys(self, namespace: None = None) -> dict[str, list[str]]: ...
    def list_keys(self, namespace: str | None = None) -> list[str] | dict[str, list[str]]:
        """Return the keys, in the order in which they were stored.

        Parameters
        ----------
        namespace : str, optional
            The namespace; all of them by default.

        Returns
        -------
        list of str, or dict of list of str
            The keys of the namespace (empty where there is no such namespace), or those
            of all namespaces by their names.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_workspace()
        >>> tree.ws.store("rec1", "threshold", 0.5)
        >>> tree.ws.list_keys()
        {'rec1': ['threshold']}
        """
        from labtree.workspace import operations

        keys: list[str] | dict[str, list[str]] = operations.list_keys(self._tree, namespace)
        return keys

    def list_namespaces(self) -> list[str]:
        """Return the namespaces, in the order in which they were made.

        Returns
        -------
        list of str

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_workspace()
        >>> tree.ws.store("rec1", "threshold", 0.5)
        >>> tree.ws.list_namespaces()
        ['rec1']
        """
        from labtree.workspace import operations

        return operations.list_namespaces(self._tree)

    def rename(
        self, namespace: str, old_key: str, new_key: str, overwrite: bool = False
    ) -> bool:
        """Give an item another key in its namespace; its data are not touched.

        Parameters
        ----------
        namespace, old_key : str
            Where the item is.
        new_key : str
            Its new key.
        overwrite : bool
            Whether an item at the new key is replaced.

        Returns
        -------
        bool
            False if there is no such item, or if the new key is taken and `overwrite` is
            False; with a warning that suggests similar names.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_workspace()
        >>> tree.ws.store("rec1", "threshold", 0.5)
        >>> tree.ws.rename("rec1", "threshold", "cutoff")
        True
        """
        from labtree.workspace import operations

        return operations.rename(self._tree, namespace, old_key, new_key, overwrite)

    def add_note(self, namespace: str, key: str, note: str) -> bool:
        """Give an item a note; an older note is replaced.

        Parameters
        ----------
        namespace, key : str
            Where the item is.
        note : str
            A sentence for people.

        Returns
        -------
        bool
            False if there is no such item, with a warning that suggests similar names.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_workspace()
        >>> tree.ws.store("rec1", "threshold", 0.5)
        >>> tree.ws.add_note("rec1", "threshold", "by eye")
        True
        """
        from labtree.workspace import operations

        return operations.add_note(self._tree, namespace, key, note)

    def delete(self, namespace: str, key: str | None = None) -> bool:
        """Delete an item, or a namespace with all its items.

        Parameters
        ----------
        namespace : str
            The namespace; it is removed with its last item.
        key : str, optional
            The item; the whole namespace by default.

        Returns
        -------
        bool
            False if there is no such item or namespace, with a warning that suggests
            similar names.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_workspace()
        >>> tree.ws.store("rec1", "threshold", 0.5)
        >>> tree.ws.delete("rec1", "threshold")
        True
        """
        from labtree.workspace import operations

        return operations.delete(self._tree, namespace, key)

    def merge_from(self, other: xr.DataTree, overwrite: bool = False) -> dict[str, Any]:
        """Copy another workspace's items into this one: all of them, or none if one fails.

        Parameters
        ----------
        other : DataTree
            The other workspace; it is not changed.
        overwrite : bool
            Whether items that are here already are replaced; they are skipped otherwise.

        Returns
        -------
        dict
            ``merged`` and ``skipped``, how many items; ``skipped_keys``, a list of
            (namespace, key).

        Examples
        --------
        >>> import labtree
        >>> day1, day2 = labtree.create_workspace(), labtree.create_workspace()
        >>> day2.ws.store("rec2", "threshold", 0.5)
        >>> day1.ws.merge_from(day2)["merged"]
        1
        """
        from labtree.workspace.merging import merge_workspace

        return merge_workspace(self._tree, other, overwrite)

    def save(
        self,
        path: Any = None,
        *,
        overwrite: bool = False,
        skip_damaged: bool = False,
        compression: str | None = None,
    ) -> Path:
        """Write the workspace to a file, all or nothing.

        Parameters
        ----------
        path : path, optional
            ``name.h5``, or ``name`` for the same (beside it goes ``name.json``, an index
            for people and scripts); ``name.zarr`` or a URL for a zarr store. By default
            where the workspace was opened from or saved to last.
        overwrite : bool
            Whether items that another workspace has at `path`, and this one lacks, may be
            lost. The save is refused otherwise.
        skip_damaged : bool
            Whether items that cannot be read are left out, with a warning that names
            them. The save is refused otherwise. Only to another path.
        compression : {"gzip", "zstd"}, optional
            Compress all arrays, in chunks. Every netCDF-4 reader has ``"gzip"``. Without
            it arrays that were compressed in the file or store that they come from stay so.

        Returns
        -------
        Path
            The file, or the URL that was given.

        Raises
        ------
        WorkspaceError
            (a ValueError) No path is known; what is there holds items that this workspace
            lacks, was changed by another program, or is no workspace. The message has the
            lines to write.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_workspace("pilot")
        >>> tree.ws.save("pilot").name
        'pilot.h5'
        """
        from labtree.workspace.workspace_files import save_workspace

        return save_workspace(
            self._tree,
            path,
            overwrite=overwrite,
            skip_damaged=skip_damaged,
            compression=compression,
        )

    def compact(self) -> int:
        """Rewrite the file without the bytes that deleted and replaced items left in it.

        Saves append to the file. A save compacts it by itself when more than half of it is
        unused.

        Returns
        -------
        int
            How many bytes smaller the file is now. Changes are saved with it.

        Raises
        ------
        WorkspaceError
            (a ValueError) There is no file yet, or another program changed it.

        Examples
        --------
        >>> import labtree, numpy as np
        >>> tree = labtree.create_workspace()
        >>> tree.ws.store("rec1", "rates", np.zeros(10_000))
        >>> path = tree.ws.save("pilot")
        >>> tree.ws.store("rec1", "rates", np.ones(10_000))
        >>> path = tree.ws.save()
        >>> tree.ws.compact() > 80_000
        True
        """
        from labtree.workspace.workspace_files import compact_workspace

        return compact_workspace(self._tree)

    def close(self) -> None:
        """Release the files; what was not loaded cannot be read any more.

        A workspace that was opened with ``mode="a"`` saves its changes first.

        Examples
        --------
        >>> import labtree
        >>> tree = labtree.create_workspace(lazy=True)
        >>> tree.ws.close()
        """
        self._tree.root.close()

    @staticmethod
    def comparison_namespace(*namespaces: str) -> str:
        """Return the conventional namespace of results that compare recordings.

        Parameters
        ----------
        *namespaces : str
            The namespaces that are compared.

        Returns
        -------
        str

        Examples
        --------
        >>> import labtree
        >>> labtree.create_workspace().ws.comparison_namespace("rec1", "rec2")
        'C_rec1_rec2'
        """
        from labtree.workspace import operations

        return operations.comparison_namespace(*namespaces)

    def _panel(self) -> "Panel":
        from labtree.workspace.operations import is_item
        from labtree.workspace.workspace_panel import item_panel, workspace_panel

        return (item_panel if is_item(self._tree) else workspace_panel)(self._tree)

    def __repr__(self) -> str:
        return self._panel().text()

    def _repr_html_(self) -> str:
        return self._panel().html()


class _Storable:
    """An object that can be stored in a workspace."""

    def __init__(self, obj: Any):
        self._obj = obj

    def store(
        self,
        namespace: str,
        key: str,
        *,
        into: xr.DataTree | None = None,
        note: str | None = None,
    ) -> None:
        """Store a copy in the active workspace, or in one that is given.

        Parameters
        ----------
        namespace, key : str
            Any text but the empty one; an item of that name is replaced.
        into : DataTree, optional
            The workspace; by default that of :func:`labtree.use_workspace`.
        note : str, optional
            A sentence for people.

        Raises
        ------
        WorkspaceError
            (a ValueError) No workspace is active and none is given; the message has the
            lines to write.
        UnsupportedTypeError
            (a TypeError) A part of the object cannot be kept exactly.

        Examples
        --------
        >>> import labtree, xarray as xr
        >>> tree = labtree.create_workspace()
        >>> xr.Dataset({"lfp": ("time", [0.1, 0.2])}).ws.store("rec1", "lfp", into=tree)
        >>> tree.ws.list_keys("rec1")
        ['lfp']
        """
        from labtree.workspace import active, operations

        operations.store_item(
            active.target_workspace(into), namespace, key, self._obj, note=note
        )

    def _panel(self) -> "Panel":
        from labtree.workspace.workspace_panel import object_panel

        return object_panel(self._obj)

    def __repr__(self) -> str:
        return self._panel().text()

    def _repr_html_(self) -> str:
        return self._panel().html()


@xr.register_dataset_accessor("ws")
@xr.register_dataarray_accessor("ws")
class ObjectWorkspaceAccessor(_Storable):
    """One Dataset or DataArray: its kind, its summary, its plot, and storing it.

    Examples
    --------
    >>> import labtree
    >>> labtree.spike_data([[1.0, 3.0], [2.0]], length=10).ws.kind
    'spike_data'
    """

    @property
    def kind(self) -> str:
        """What it is: ``"dataset"``, ``"dataarray"``, ``"spike_data"`` and so on."""
        from labtree.objects import registry

        return registry.kind_of(self._obj)

    def summary(self) -> dict[str, Any]:
        """Return what lists of items show about the object; no data are read.

        Returns
        -------
        dict
            JSON values, such as ``shape`` and ``dtype``.

        Examples
        --------
        >>> import xarray as xr, labtree
        >>> xr.DataArray([1.0, 2.0], dims="time").ws.summary()
        {'dims': ['time'], 'shape': [2], 'dtype': 'float64'}
        """
        from labtree.objects import registry

        return registry.summary(self._obj)

    def validate(self) -> None:
        """Check that the object is valid for its kind.

        Raises
        ------
        DataError
            (a ValueError) It is not; the message says what was found and expected.
        UnsupportedTypeError
            (a TypeError) A part of it cannot be kept exactly.

        Examples
        --------
        >>> import labtree
        >>> labtree.spike_data([[1.0, 3.0], [2.0]], length=10).ws.validate()
        """
        from labtree.objects import registry

        registry.validate(self._obj)

    def plot(
        self,
        *,
        ax: Any = None,
        unit: int | None = None,
        slice: int | None = None,
        bin_ms: float | None = None,
        **style: Any,
    ) -> Any:
        """Draw the object as its kind defines.

        Spike trains are drawn as a raster, rates as a heatmap, stacks as the average over
        slices, pairwise matrices as an image; anything else as xarray draws it, each array
        of a Dataset in Axes of its own.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        unit : int, optional
            Of stacks of spikes or rates: position of the unit; the average by default. Of a
            PSTH: the unit whose rate is drawn with its error; a heatmap of all by default.
        slice : int, optional
            Of stacks of pairwise matrices: position of the slice; the average by default.
        bin_ms : float, optional
            Of stacks of spikes: width of the bins of the rate in ms; a round one by default.
        **style
            For the matplotlib function that draws, such as ``color``, ``cmap``, ``vmax``; of a
            PSTH also ``array=``, one of ``rate``, ``sem`` and ``n_events``.

        Returns
        -------
        matplotlib Axes, or an array of them

        Raises
        ------
        DataError
            (a ValueError) A Dataset of no kind holds no array that can be drawn, more than
            ten of them, or several for one `ax`.
        MissingDependencyError
            (an ImportError) matplotlib is not installed.

        Examples
        --------
        >>> import labtree
        >>> ax = labtree.spike_data([[1.0, 3.0], [2.0]], length=10).ws.plot(color="k")
        >>> ax.get_xlabel()
        'Time (ms)'
        """
        from labtree.objects import registry

        chosen = {"ax": ax, "unit": unit, "slice": slice, "bin_ms": bin_ms}
        style |= {name: value for name, value in chosen.items() if value is not None}
        return registry.plot(self._obj, **style)


@pd.api.extensions.register_dataframe_accessor("ws")
@pd.api.extensions.register_series_accessor("ws")
class FrameWorkspaceAccessor(_Storable):
    """Storing one DataFrame or Series in a workspace.

    Examples
    --------
    >>> import labtree, pandas as pd
    >>> tree = labtree.create_workspace()
    >>> pd.DataFrame({"choice": [0, 1]}).ws.store("rec1", "trials", into=tree)
    """


@overload
def ws(obj: xr.DataTree) -> TreeWorkspaceAccessor: ...
@overload
def ws(obj: xr.Dataset | xr.DataArray) -> ObjectWorkspaceAccessor: ...
@overload
def ws(obj: pd.DataFrame | pd.Series) -> FrameWorkspaceAccessor: ...
def ws(
    obj: xr.DataTree | xr.Dataset | xr.DataArray | pd.DataFrame | pd.Series,
) -> TreeWorkspaceAccessor | ObjectWorkspaceAccessor | FrameWorkspaceAccessor:
    """Return ``obj.ws``, with its type known to editors and type checkers.

    Parameters
    ----------
    obj : DataTree, Dataset, DataArray, DataFrame or Series
        The object.

    Returns
    -------
    accessor
        The same as ``obj.ws``.

    Examples
    --------
    >>> import labtree
    >>> tree = labtree.create_workspace()
    >>> labtree.ws(tree).store("rec1", "threshold", 0.5)
    """
    accessor: Any = obj.ws
    found: TreeWorkspaceAccessor | ObjectWorkspaceAccessor | FrameWorkspaceAccessor = accessor
    return found
