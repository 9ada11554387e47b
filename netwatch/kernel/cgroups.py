"""Containers by the cgroup ids that the programs tell.

Law: bounded: the hierarchy is walked at most once a second, when an id comes that is not known; what walks have found
is kept for as many ids as `max_cgroups`. A container that is gone before its id is asked for has no name.
Source: a cgroup's id is the inode number of its directory (bpf_get_current_cgroup_id(), cgroup_id() in
include/linux/cgroup.h).
Neighbours: `core/cgroups.py` reads paths, `consume.py` asks as soon as a process is told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import attrs

from netwatch.core.cgroups import container_id
from netwatch.kernel.tracing import cgroup2_root

_WALK_EVERY_S = 1.0


@attrs.define
class Containers:
    """What is known of cgroups. `root` is where the hierarchy is mounted; None: there is none."""

    # 16,384 x 200 B = 3 MB: a Kubernetes node has some hundred pods of some containers.
    max_cgroups: int = 16_384
    root: Path | None = attrs.field(factory=cgroup2_root)
    _known: dict[int, str] = attrs.field(factory=dict, init=False)
    _containers: dict[int, str] = attrs.field(factory=dict, init=False)
    _walk_at: float = attrs.field(default=0.0, init=False)

    def resolve(self, cgroup_ids: Iterable[int]) -> Mapping[int, str]:
        """Look for what is not known, and return all containers that are, by cgroup id. Blocks for the walk."""
        is_known = all(each in self._known for each in cgroup_ids)
        if self.root and not is_known and time.monotonic() >= self._walk_at:
            self._walk_at = time.monotonic() + _WALK_EVERY_S
            self._walk(self.root)
        return self._containers

    def _walk(self, root: Path) -> None:
        """Read the hierarchy anew. Ids whose cgroups are gone stay while there is room: their flows are to come."""
        found = dict(_directories(root, self.max_cgroups))
        kept = {number: path for number, path in self._known.items() if number not in found}
        while kept and len(kept) + len(found) > self.max_cgroups:
            del kept[next(iter(kept))]
        self._known = kept | found
        named = ((number, container_id(path)) for number, path in self._known.items())
        self._containers = {number: name for number, name in named if name}


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
