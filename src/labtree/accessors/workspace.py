"""The doors ``tree.ws`` and ``ds.ws``."""

from pathlib import Path
from typing import Any

import xarray as xr

__all__ = ["ObjectWorkspaceAccessor", "TreeWorkspaceAccessor"]


@xr.register_datatree_accessor("ws")
class TreeWorkspaceAccessor:
    """The workspace that a DataTree is: its items, their notes, its file."""

    def __init__(self, tree: xr.DataTree):
        self._tree = tree

    @property
    def workspace_id(self) -> str | None:
        """The UUID4 of the workspace; None for a tree that is none yet."""
        return self._tree.root.attrs.get("labtree_workspace_id")

    @property
    def name(self) -> str | None:
        """The name that people gave it."""
        return self._tree.root.attrs.get("labtree_name")

    @property
    def created_at(self) -> float | None:
        """When it was made, in POSIX seconds."""
        return self._tree.root.attrs.get("labtree_created_at")

    @property
    def path(self) -> Any:
        """The file, folder or URL that it was opened from or saved to."""
        from labtree.workspace.state import state_of

        return state_of(self._tree.root).where

    @property
    def is_lazy(self) -> bool:
        """Whether its data live in files rather than in memory."""
        from labtree.workspace.state import state_of

        return state_of(self._tree.root).is_lazy

    def store(self, namespace: str, key: str, obj: Any, note: str | None = None) -> None:
        """Store a copy of an object; see :func:`labtree.workspace.verbs.store_item`."""
        from labtree.workspace import verbs

        verbs.store_item(self._tree, namespace, key, obj, note=note)

    def get(self, namespace: str, key: str) -> Any:
        """Return a copy of what was stored, in memory; None where there is nothing."""
        from labtree.workspace import verbs

        return verbs.get(self._tree, namespace, key)

    def __getitem__(self, place: tuple[str, str]) -> Any:
        """Return a copy of what was stored; KeyError where there is nothing."""
        from labtree.workspace import verbs

        return verbs.require(self._tree, *verbs.check_place(place))

    def __contains__(self, place: object) -> bool:
        """Say whether there is an item at (namespace, key)."""
        from labtree.workspace import verbs

        return self.get_info(*verbs.check_place(place)) is not None

    def get_info(self, namespace: str, key: str) -> dict[str, Any] | None:
        """Return type, shape, time and note of an item as JSON values, or None."""
        from labtree.workspace import verbs

        return verbs.get_info(self._tree, namespace, key)

    def describe(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return what :meth:`get_info` says of every item, by namespace and key."""
        from labtree.workspace import verbs

        return verbs.describe(self._tree)

    def list_keys(self, namespace: str | None = None) -> Any:
        """Return the keys of a namespace, or of all of them as a dict of lists."""
        from labtree.workspace import verbs

        return verbs.list_keys(self._tree, namespace)

    def list_namespaces(self) -> list[str]:
        """Return the namespaces."""
        from labtree.workspace import verbs

        return verbs.list_namespaces(self._tree)

    def rename(
        self, namespace: str, old_key: str, new_key: str, overwrite: bool = False
    ) -> bool:
        """Give an item another key; see :func:`labtree.workspace.verbs.rename`."""
        from labtree.workspace import verbs

        return verbs.rename(self._tree, namespace, old_key, new_key, overwrite)

    def add_note(self, namespace: str, key: str, note: str) -> bool:
        """Put a note to an item in the place of an older one; False without an item."""
        from labtree.workspace import verbs

        return verbs.add_note(self._tree, namespace, key, note)

    def delete(self, namespace: str, key: str | None = None) -> bool:
        """Delete an item, or a namespace; False where there is none."""
        from labtree.workspace import verbs

        return verbs.delete(self._tree, namespace, key)

    def merge_from(self, other: xr.DataTree, overwrite: bool = False) -> dict[str, Any]:
        """Take another workspace's items, all or nothing."""
        from labtree.workspace.merging import merge_workspace

        return merge_workspace(self._tree, other, overwrite)

    def save(self, path: str | Path | None = None) -> Path:
        """Write ``name.h5`` and ``name.json``, or a zarr store at ``name.zarr`` or a URL."""
        from labtree.workspace.files import save_workspace

        return save_workspace(self._tree, path)

    def close(self) -> None:
        """Release the files; what was not loaded cannot be read any more."""
        self._tree.root.close()

    @staticmethod
    def comparison_namespace(*namespaces: str) -> str:
        """Return the conventional namespace of results that compare recordings."""
        from labtree.workspace import verbs

        return verbs.comparison_namespace(*namespaces)

    def __repr__(self) -> str:
        from labtree.workspace.workspace_panel import workspace_panel

        return workspace_panel(self._tree).text()

    def _repr_html_(self) -> str:
        from labtree.workspace.workspace_panel import workspace_panel

        return workspace_panel(self._tree).html()


@xr.register_dataset_accessor("ws")
@xr.register_dataarray_accessor("ws")
class ObjectWorkspaceAccessor:
    """One object: what kind it is, what can be done with it, and storing it."""

    def __init__(self, obj: xr.Dataset | xr.DataArray):
        self._obj = obj

    def store(
        self,
        namespace: str,
        key: str,
        *,
        into: xr.DataTree | None = None,
        note: str | None = None,
    ) -> None:
        """Store a copy in the active workspace, or in the one that is given."""
        from labtree.workspace import active, verbs

        verbs.store_item(active.target_workspace(into), namespace, key, self._obj, note=note)

    @property
    def kind(self) -> str:
        """What it is: "dataset", "dataarray", "spike_data" and so on."""
        from labtree.objects import inspection

        return inspection.kind(self._obj)

    def summary(self) -> dict[str, Any]:
        """Return what a list of items shows of it, JSON values; reads no data."""
        from labtree.objects import inspection

        return inspection.summary(self._obj)

    def validate(self) -> None:
        """Raise an error that says what is wrong with it, for its kind."""
        from labtree.objects import inspection

        inspection.validate(self._obj)

    def plot(self, **options: Any) -> Any:
        """Draw it as its kind is drawn; returns the matplotlib Axes."""
        from labtree.objects import inspection

        return inspection.plot(self._obj, **options)

    def __repr__(self) -> str:
        from labtree.workspace.workspace_panel import object_panel

        return object_panel(self._obj).text()

    def _repr_html_(self) -> str:
        from labtree.workspace.workspace_panel import object_panel

        return object_panel(self._obj).html()
