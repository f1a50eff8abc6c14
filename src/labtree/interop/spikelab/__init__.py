"""SpikeLab's files and objects to labtree's and back; SpikeLab itself is not needed."""

from labtree.interop.spikelab.objects import from_spikelab
from labtree.interop.spikelab.read import import_spikelab
from labtree.interop.spikelab.write import export_spikelab

__all__ = ["export_spikelab", "from_spikelab", "import_spikelab"]
