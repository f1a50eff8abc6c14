"""Files, arrays and catalogues; knows nothing of neuroscience."""

from labtree.storage.trees import open_tree, save_tree

__all__ = ["open_tree", "save_tree"]
