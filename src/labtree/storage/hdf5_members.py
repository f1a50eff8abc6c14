"""Which groups and datasets of an HDF5 file can be read, and which must not be opened."""

import contextlib
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import h5py
from h5py import h5d, h5o, h5z

_DEEPEST = 200  # groups below one another
_MOST_REPEATED = 1000  # groups that are read again; links in links can make them countless


class Members:
    """The groups of a file, and what in them must not be opened.

    Parameters
    ----------
    file
        The file, open in h5py.
    name
        Its path.
    leave_out
        Called with the path of each member that must not be opened, and why.

    Attributes
    ----------
    groups
        The paths of the groups, parents before children.
    hidden
        By the path of a group: the members that must not be opened.
    """

    def __init__(self, file: Any, name: str, leave_out: Callable[[str, object], None]):
        self.groups: list[tuple[str, ...]] = []
        self.hidden: dict[str, set[str]] = {}
        self._file, self._name, self._leave_out = file, name, leave_out
        self._folder = os.path.dirname(os.path.realpath(name))  # noqa: PTH120
        self._seen: set[tuple[int, int]] = set()
        self._repeated = 0
        self._look_into(file["/"], (), frozenset())
        del self._file  # which may be closed before this object

    def _look_into(
        self, group: Any, path: tuple[str, ...], above: frozenset[tuple[int, int]]
    ) -> None:
        hidden: set[str] = set()
        self.hidden["/" + "/".join(path)] = hidden
        self.groups.append(path)
        above |= {_address(group)}
        self._seen |= above
        below = []
        for name in group:
            try:
                reason = self._link_refused(group, name)
                member = group[name] if reason is None else None
                if isinstance(member, h5py.Group):
                    reason = self._group_refused(member, path, above)
                    if reason is None:
                        below.append((name, member))
                elif isinstance(member, h5py.Dataset):
                    reason = self._data_refused(member)
                elif member is not None and not isinstance(member, h5py.Datatype):
                    reason = "it is no group and no dataset"
            except Exception as error:  # h5py raises whatever a damaged object makes it
                reason = str(error)
            if reason is not None:
                hidden.add(name)
                self._leave_out("/" + "/".join([*path, name]), reason)
        for name, member in below:
            self._look_into(member, (*path, name), above)

    # Each of these returns why a member must not be opened, or None.

    def _link_refused(self, group: Any, name: str) -> str | None:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink) and not self._is_inside(link.filename):
            return f"it is a link to {link.filename}, which is no file in this file's folder"
        return None

    def _group_refused(
        self, group: Any, path: tuple[str, ...], above: frozenset[tuple[int, int]]
    ) -> str | None:
        address = _address(group)
        if address in above:
            return "it is a link to a group that contains it"
        if len(path) >= _DEEPEST:
            return f"groups are nested more than {_DEEPEST} deep"
        if address in self._seen:
            self._repeated += 1
            if self._repeated > _MOST_REPEATED:
                return f"more than {_MOST_REPEATED} links lead to groups that were read already"
        self._seen.add(address)
        return None

    def _data_refused(self, dataset: Any) -> str | None:
        plist = dataset.id.get_create_plist()
        files = []
        if plist.get_layout() == h5d.VIRTUAL:
            if self._reads_itself(dataset.name, ()):
                return "it is a virtual dataset that reads itself"
            files = [plist.get_virtual_filename(i) for i in range(plist.get_virtual_count())]
        elif plist.get_layout() == h5d.CONTIGUOUS:
            files = [plist.get_external(i)[0] for i in range(plist.get_external_count())]
        for each in files:
            file = os.fsdecode(each)
            if file != "." and not self._is_inside(file):
                return f"its data are in {file}, which is no file in this file's folder"
        if _is_half_labeled(dataset):  # for which h5netcdf would refuse the whole file
            return "some of its dimensions have a scale and others none"
        return _lacks_filter(dataset, plist)

    def _reads_itself(self, name: str, above: tuple[str, ...]) -> bool:
        """Return whether a virtual dataset has itself among its sources: HDF5 would crash."""
        found = self._file.get(name)
        if not isinstance(found, h5py.Dataset) or not found.is_virtual:
            return False
        if found.name in above or len(above) > _DEEPEST:
            return True
        own = (".", os.path.basename(self._name), self._name)  # noqa: PTH119
        return any(
            self._reads_itself(source.dset_name, (*above, found.name))
            for source in found.virtual_sources()
            if source.file_name in own
        )

    def _is_inside(self, file: str) -> bool:
        target = os.path.realpath(os.path.join(self._folder, file))  # noqa: PTH118
        if os.path.exists(target) and not os.path.isfile(target):  # noqa: PTH110, PTH113
            return False  # a pipe or a device
        return os.path.commonpath([self._folder, target]) == self._folder


def _address(member: Any) -> tuple[int, int]:
    """Return what tells an HDF5 object from others: its file, and its place there."""
    info = h5o.get_info(member.id)
    return info.fileno, info.addr


def _is_half_labeled(dataset: Any) -> bool:
    if len(dataset.shape or ()) < 2 or "DIMENSION_LIST" not in dataset.attrs:
        return False
    counts = {len(scales) for scales in dataset.attrs["DIMENSION_LIST"]}
    return {0} < counts


def _lacks_filter(dataset: Any, creation: Any) -> str | None:
    """Return why the chunks of a dataset cannot be unpacked here, or None."""
    for place in range(creation.get_nfilters()):
        code, _, _, name = creation.get_filter(place)
        if h5z.filter_avail(code):
            continue
        with contextlib.suppress(ImportError):
            import_module("hdf5plugin")  # which adds its filters to h5py
        if h5z.filter_avail(code) or _is_skipped(dataset, place):
            continue
        what = f"filter {code} ({name.decode(errors='replace')})"
        return f"it is compressed with {what}, which is not installed; hdf5plugin has many"
    return None


def _is_skipped(dataset: Any, place: int) -> bool:
    """Return whether all chunks were written without a filter of the dataset's."""
    chunks = range(dataset.id.get_num_chunks())
    return all(dataset.id.get_chunk_info(n).filter_mask >> place & 1 for n in chunks)
