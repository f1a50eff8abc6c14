"""Files, arrays and catalogues; knows nothing of neuroscience."""

from labtree.storage.trees import close_tree, open_tree, save_tree

__all__ = ["close_tree", "open_tree", "save_tree"]
