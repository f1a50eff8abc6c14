"""Synthetic data with known properties, for examples and for the tests of your own code."""

from labtree._lazy import attach_stub as _attach_stub

__getattr__, __dir__, __all__ = _attach_stub(__name__, __file__)
