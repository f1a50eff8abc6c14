"""Files, arrays and catalogues; nothing here is about neuroscience."""

from labtree.storage.trees import open_tree, save_tree

__all__ = ["open_tree", "save_tree"]
