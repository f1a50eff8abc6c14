"""Several workspaces by their ids, for programs that hand ids around."""

import functools
import threading
from pathlib import Path
from typing import Any

import xarray as xr

from labtree.errors import ItemNotFoundError, WorkspaceError
from labtree.workspace import operations, workspace_files
from labtree.workspace.items import find_whole_item, missing_item


class WorkspaceManager:
    """A thread-safe registry of workspaces by id.

    Examples
    --------
    >>> manager = WorkspaceManager()
    >>> workspace_id = manager.create_workspace("pilot")
    >>> manager.get_workspace(workspace_id).ws.name
    'pilot'
    >>> manager.delete_workspace(workspace_id)
    True
    """

    def __init__(self) -> None:
        self._workspaces: dict[str, xr.DataTree] = {}
        self._lock = threading.RLock()

    def create_workspace(self, name: str | None = None, lazy: bool = False) -> str:
        """Make an empty workspace; return its id."""
        return self._add(operations.create_workspace(name, lazy=lazy))

    def _add(self, tree: xr.DataTree) -> str:
        workspace_id = str(tree.attrs["labtree_workspace_id"])
        with self._lock:
            if workspace_id in self._workspaces:
                raise WorkspaceError(
                    f"workspace {workspace_id} is here already and may have changed since; "
                    f"write manager.delete_workspace({workspace_id!r}) before loading it again"
                )
            self._workspaces[workspace_id] = tree
        return workspace_id

    def get_workspace(self, workspace_id: str) -> xr.DataTree | None:
        """Return a workspace, or None."""
        with self._lock:
            return self._workspaces.get(workspace_id)

    def _require(self, workspace_id: str) -> xr.DataTree:
        tree = self.get_workspace(workspace_id)
        if tree is None:
            known = ", ".join(self._workspaces) or "none"
            raise ItemNotFoundError(f"no workspace {workspace_id!r} here; there is: {known}")
        return tree

    def delete_workspace(self, workspace_id: str) -> bool:
        """Forget a workspace; its saved files stay. False where there is none."""
        with self._lock:
            return self._workspaces.pop(workspace_id, None) is not None

    def list_workspaces(self) -> list[dict[str, Any]]:
        """Return workspace_id, name, created_at, namespace_count and item_count of each."""
        with self._lock:
            trees = list(self._workspaces.values())
        return [
            {
                "workspace_id": tree.attrs["labtree_workspace_id"],
                "name": tree.attrs.get("labtree_name"),
                "created_at": tree.attrs["labtree_created_at"],
                "namespace_count": len(operations.list_namespaces(tree)),
                "item_count": sum(map(len, operations.list_keys(tree).values())),
            }
            for tree in trees
        ]

    def save_workspace(self, workspace_id: str, path: str | Path) -> None:
        """Save a workspace; see ``tree.ws.save``."""
        workspace_files.save_workspace(self._require(workspace_id), path)

    def load_workspace(self, path: str | Path) -> str:
        """Read a saved workspace into memory; return its id."""
        return self._add(workspace_files.load_workspace(path))

    def load_workspace_item(
        self, path: str | Path, namespace: str, key: str, workspace_id: str
    ) -> None:
        """Copy one item of a saved workspace into a managed one, with its time and note."""
        target = self._require(workspace_id)
        with workspace_files.open_workspace(path) as saved:
            node = find_whole_item(saved, namespace, key)
            if node is None:
                raise missing_item(saved, namespace, key)
            operations.store_item(
                target,
                namespace,
                key,
                operations.get(saved, namespace, key),
                note=node.attrs.get("labtree_note"),
                created_at=node.attrs.get("labtree_created_at"),
            )


@functools.cache
def get_workspace_manager() -> WorkspaceManager:
    """Return the one manager of this process."""
    return WorkspaceManager()
