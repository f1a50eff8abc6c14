"""Functions on spike trains: they take a Dataset and return xarray or pandas objects.

They take the Datasets of :func:`labtree.spike_data`. Times are in ms, and results carry
units and parameters as attributes.
"""

from labtree._lazy import attach_stub as _attach_stub

__getattr__, __dir__, __all__ = _attach_stub(__name__, __file__)
