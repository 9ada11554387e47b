"""The names of the watched interfaces, those that have just gone included.

Law: a name is there before the interface's first flow and stays until no flow can bear its index any more. Bounded:
past `max_names` the oldest goes first, and its flows are named by number.
Neighbours: `watch.py` adds, renames and removes; `poll.py` takes a snapshot for each drain.
"""

from __future__ import annotations

import attrs

from netwatch.core.batch import InterfaceNames
from netwatch.core.link import Link

# A flow of the epoch in which the interface went is drained by the next drain; the one after it may still read the
# flow's home out of the map before. A third, because the interface may go in the middle of a drain, whose epoch has
# already closed.
_DRAINS_KEPT = 3


@attrs.define
class InterfaceRegistry:
    """Interface names by index. `max_names` bounds those present and those gone together."""

    # 65,536 names x 150 B = 10 MB at the worst: veths that come and go by the thousand within one period.
    max_names: int = attrs.field(default=65_536, validator=attrs.validators.ge(1))
    _present: dict[int, str] = attrs.field(factory=dict, init=False)
    # Index to name and drains to go, oldest first.
    _gone: dict[int, tuple[str, int]] = attrs.field(factory=dict, init=False)
    _snapshot: InterfaceNames | None = attrs.field(default=None, init=False)

    def add(self, link: Link) -> None:
        """Remember a link's name before it is attached; an index that is known gets the new name."""
        self._gone.pop(link.ifindex, None)
        self._present[link.ifindex] = link.name
        self._snapshot = None
        while len(self._present) + len(self._gone) > self.max_names:
            oldest = self._gone or self._present
            del oldest[next(iter(oldest))]

    def rename(self, ifindex: int, name: str) -> None:
        """Give a known interface its new name; nothing happens where the index is not known."""
        if self._present.get(ifindex, name) != name:
            self._present[ifindex] = name
            self._snapshot = None

    def remove(self, ifindex: int) -> None:
        """Mark an interface as gone; its name stays for the drains that still need it."""
        name = self._present.pop(ifindex, None)
        if name is not None:
            self._gone[ifindex] = (name, _DRAINS_KEPT)

    def present(self) -> tuple[str, ...]:
        """Return the names of the interfaces that are watched now."""
        return tuple(self._present.values())

    def snapshot(self) -> InterfaceNames:
        """Return the names as they are now."""
        if self._snapshot is None:
            gone = {ifindex: name for ifindex, (name, _) in self._gone.items()}
            self._snapshot = InterfaceNames(gone | self._present)
        return self._snapshot

    def drained(self) -> None:
        """Note the end of a drain: names that no coming drain can need are forgotten."""
        if not self._gone:
            return
        self._gone = {ifindex: (name, left - 1) for ifindex, (name, left) in self._gone.items() if left > 1}
        self._snapshot = None
