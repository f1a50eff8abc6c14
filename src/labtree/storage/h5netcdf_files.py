"""Files, groups, variables and attributes of h5netcdf's, without what cannot be read."""

from collections.abc import Callable, Iterator
from typing import Any

import h5netcdf
import h5py
import numpy as np
from h5py import h5r

from labtree.storage.hdf5_members import Members


class _Attributes(h5netcdf.attrs.Attributes):  # type: ignore[misc]
    """Attributes: references to objects as paths, and all that can be read."""

    def __init__(self, owner: Any):
        object_ = owner._h5group if isinstance(owner, h5netcdf.Group) else owner._h5ds
        root = owner._root
        super().__init__(object_.attrs, root._check_valid_netcdf_dtype, root._h5py)
        self._id, self._where, self._leave_out = object_.id, object_.name, root.leave_out

    def __getitem__(self, name: str) -> Any:
        attribute = self._h5attrs.get_id(name)
        kind = attribute.dtype
        parts = h5py.check_vlen_dtype(kind)
        if isinstance(parts, np.dtype) and h5py.check_ref_dtype(parts) is not None:
            lists = self._h5attrs[name] if attribute.shape else [self._h5attrs[name]]
            return [self._paths(each) for each in lists]
        if h5py.check_ref_dtype(kind) is None:
            return _as_utf8(super().__getitem__(name))
        paths = self._paths(np.ravel(np.asarray(self._h5attrs[name], object)))
        return paths[0] if len(paths) == 1 else paths

    def _paths(self, references: Any) -> list[str]:
        return [(h5r.get_name(each, self._id) or b"").decode() for each in references]

    def items(self) -> Any:
        """Return the names and values of those that can be read."""
        found = {}
        for name in self:
            try:
                found[name] = self[name]
            except Exception as error:  # h5py raises whatever a damaged object makes it
                self._leave_out(f"{self._where}, attribute {name!r}", error)
        return found.items()


def _as_utf8(value: Any) -> Any:
    """Return a text that a program marked as ASCII, as netCDF-C does, for what it is."""
    if isinstance(value, list):
        return [_as_utf8(each) for each in value]
    if not isinstance(value, str) or value.isascii():
        return value
    try:
        return value.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        return value


class _Variable(h5netcdf.Variable):  # type: ignore[misc]
    """A variable that keeps its HDF5 object: h5netcdf looks it up for each question."""

    _kept: Any = None

    @property
    def _h5ds(self) -> Any:
        if self._kept is None:
            self._kept = super()._h5ds
        return self._kept

    @property
    def attrs(self) -> Any:
        return _Attributes(self)


class _Group(h5netcdf.Group):  # type: ignore[misc]
    """A group without the members that must not be opened."""

    _variable_cls = _Variable
    _visible: Any = None

    @property
    def _group_cls(self) -> Any:
        return _Group

    @property
    def name(self) -> str:
        """The path, which h5netcdf takes from the other file where a link leads to one."""
        return str(self._h5path)

    @property
    def attrs(self) -> Any:
        return _Attributes(self)

    @property
    def _h5group(self) -> Any:
        if self._visible is None:
            found = _Visible(self._root._h5file[self._h5path].id)
            found.hidden = self._root.members.hidden.get(self._h5path, set())
            self._visible = found
        return self._visible


class _Visible(h5py.Group):  # type: ignore[misc]
    hidden: set[str]

    def __iter__(self) -> Iterator[str]:
        return (name for name in super().__iter__() if name not in self.hidden)


class File(_Group, h5netcdf.File):  # type: ignore[misc]
    """A file; what it cannot open is left out.

    Parameters
    ----------
    hdf5
        The file, open in h5py.
    members
        What in it must not be opened.
    leave_out
        Called with the path of each attribute that cannot be read, and why.
    """

    def __init__(self, hdf5: Any, members: Members, leave_out: Callable[[str, object], None]):
        self._closed = True  # until h5netcdf has it open: it is closed when collected
        self.hdf5, self.members, self.leave_out = hdf5, members, leave_out
        h5netcdf.File.__init__(self, hdf5, "r", phony_dims="access", decode_vlen_strings=True)
