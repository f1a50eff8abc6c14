"""NWB files as workspaces, and workspaces and sessions as NWB files, through pynwb."""

from labtree.interop.nwb.read import import_nwb
from labtree.interop.nwb.write import export_nwb

__all__ = ["export_nwb", "import_nwb"]
