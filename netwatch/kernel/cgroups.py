"""Containers by the cgroup ids that the programs tell.

Law: bounded: names of `max_cgroups` are kept, the oldest goes first; a call does 10 ms of work at most. A container
that is gone before its id is asked for has no name.
Source: a cgroup's id is the inode number of its directory, and what open_by_handle_at(2) finds it by
(kernfs_fh_to_dentry() in fs/kernfs/mount.c; bpf_get_current_cgroup_id()).
Neighbours: `core/cgroups.py` reads paths, `consume.py` asks as soon as a process is told.

Without CAP_DAC_READ_SEARCH nothing is opened by its id. Then the hierarchy is walked, in steps, once a second at most.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import attrs

from netwatch.core.cgroups import container_id
from netwatch.kernel.tracing import cgroup2_root

_HANDLE = struct.Struct("=IiQ")  # struct file_handle: bytes of it, type, and the handle itself
_FILEID_KERNFS = 0xFE
_WALK_EVERY_S = 1.0
# 256 x 40 us, a directory of 50 files each, or 15 us by id.
_CGROUPS_AT_ONCE = 256

_libc = ctypes.CDLL(None, use_errno=True)


@attrs.define
class Containers:
    """What is known of cgroups. `root` is where the hierarchy is mounted; None: there is none."""

    # 16,384 x 200 B = 3 MB: a Kubernetes node has some hundred pods of some containers.
    max_cgroups: int = 16_384
    root: Path | None = attrs.field(factory=cgroup2_root)
    opens_by_id: bool = True
    forgotten: int = attrs.field(default=0, init=False)
    """Cgroups that were never looked for: too many were sought at once."""
    _known: dict[int, str] = attrs.field(factory=dict, init=False)
    """The container of each cgroup, or nothing, so that none is looked for twice."""
    _containers: dict[int, str] = attrs.field(factory=dict, init=False)
    _sought: dict[int, None] = attrs.field(factory=dict, init=False)
    _walk: Iterator[None] | None = attrs.field(default=None, init=False)
    _walk_at: float = attrs.field(default=0.0, init=False)

    def resolve(self, cgroup_ids: Iterable[int]) -> Mapping[int, str]:
        """Look for what is not known, and return all containers that are, by cgroup id: a view of what is known.

        What was too much for this call is looked for by the next.
        """
        if self.root:
            self._sought |= dict.fromkeys(each for each in cgroup_ids if each and each not in self._known)
            while len(self._sought) > self.max_cgroups:
                self._sought.popitem()
                self.forgotten += 1
            if self._sought and self.opens_by_id:
                self._open_sought(self.root)
            if self._sought and not self.opens_by_id:
                self._walk_on(self.root)
        return self._containers

    def _open_sought(self, root: Path) -> None:
        hierarchy = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for number in list(itertools.islice(self._sought, _CGROUPS_AT_ONCE)):
                self._learn(number, _path_of(hierarchy, number))
        except PermissionError:
            self.opens_by_id = False
        finally:
            os.close(hierarchy)

    def _walk_on(self, root: Path) -> None:
        if self._walk is None:
            if time.monotonic() < self._walk_at:
                return
            self._walk_at = time.monotonic() + _WALK_EVERY_S
            self._walk = self._walk_through(root)
        for _ in itertools.islice(self._walk, _CGROUPS_AT_ONCE):
            pass

    def _walk_through(self, root: Path) -> Iterator[None]:
        """Learn of all cgroups, one a step. What was sought when the walk began and is not there is in no container."""
        sought = tuple(self._sought)
        for number, path in _directories(root, self.max_cgroups):
            if number not in self._known:
                self._learn(number, path)
            yield
        for number in sought:
            if number not in self._known:
                self._learn(number, "")
        self._walk = None

    def _learn(self, number: int, path: str) -> None:
        self._sought.pop(number, None)
        self._known[number] = container_id(path)
        if self._known[number]:
            self._containers[number] = self._known[number]
        if len(self._known) > self.max_cgroups:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._containers.pop(oldest, None)


def _path_of(hierarchy: int, number: int) -> str:
    """Return the path of a cgroup; nothing where there is none any more. Raises PermissionError."""
    handle = bytearray(_HANDLE.pack(8, _FILEID_KERNFS, number))
    c_handle = (ctypes.c_char * len(handle)).from_buffer(handle)
    directory = _libc.open_by_handle_at(hierarchy, c_handle, os.O_PATH | os.O_CLOEXEC)
    if directory < 0:
        if ctypes.get_errno() == errno.EPERM:
            raise PermissionError(errno.EPERM, "open_by_handle_at")
        return ""
    try:
        return os.readlink(f"/proc/self/fd/{directory}")
    finally:
        os.close(directory)


def _directories(root: Path, at_most: int) -> Iterator[tuple[int, str]]:
    """Yield inode number and path of cgroups, breadth first."""
    left = [str(root)]
    for path in left:
        try:
            with os.scandir(path) as entries:
                left += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            yield os.stat(path).st_ino, path
        except OSError:
            continue  # gone since it was listed
        at_most -= 1
        if not at_most:
            return
