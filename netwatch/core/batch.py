"""A batch: the unit in which flows travel from the drain to the exporters.

Law: columns from end to end; a batch is never changed after it was made, so exporters may share it.
Neighbours: `poll.py` makes batches, `export.py` queues them, `exporters/` encode them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.direction import Direction
from netwatch.core.enrichment import NO_NAMES, NOTHING, Enrichment, Names
from netwatch.core.layout import FLOW_KEY, FLOW_VALUE, direction_of, ifindex_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _read_only(names: Mapping[int, str]) -> Mapping[int, str]:
    return MappingProxyType(dict(names))


@attrs.frozen
class InterfaceNames:
    """The names of interfaces at the time of a drain, those that have just gone included."""

    by_ifindex: Mapping[int, str] = attrs.field(converter=_read_only)

    def name(self, ifindex: int) -> str:
        """Return the name of an interface; its number in words where no name is known."""
        return self.by_ifindex.get(ifindex) or f"ifindex{ifindex}"

    def describe(self, hook: int) -> tuple[str, Direction]:
        """Return name and direction of a hook."""
        return self.name(ifindex_of(hook)), direction_of(hook)


@attrs.frozen(eq=False)
class FlowBatch:
    """Complete flows of one closed epoch.

    `keys` has shape (n,) and dtype FLOW_KEY, `values` shape (n,) and dtype FLOW_VALUE; both are the batch's own
    memory. `wall_offset_ns` added to a kernel time (CLOCK_MONOTONIC) gives Unix time. `enrichment` is what events
    told of the rows, `names` has the texts for its numbers.
    """

    keys: NDArray[np.void]
    values: NDArray[np.void]
    wall_offset_ns: int
    interfaces: InterfaceNames
    enrichment: Enrichment = NOTHING
    names: Names = NO_NAMES
    packets: int = attrs.field(init=False)
    bytes: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Sum the batch once: every ledger entry on its way needs the sums."""
        assert self.keys.dtype == FLOW_KEY
        assert self.values.dtype == FLOW_VALUE
        assert len(self.keys) == len(self.values)
        object.__setattr__(self, "packets", int(self.values["packets"].sum()))
        object.__setattr__(self, "bytes", int(self.values["bytes"].sum()))

    @property
    def flows(self) -> int:
        """Number of flows."""
        return len(self.keys)

    @property
    def size_bytes(self) -> int:
        """Memory that the columns hold, in bytes."""
        return int(self.keys.nbytes + self.values.nbytes) + self.enrichment.size_bytes


@attrs.frozen(eq=False)
class Message:
    """What leaves in one piece: delivered whole or not at all.

    `payload` is what goes over the wire; `flows`, `packets` and `bytes` are what the ledger will say of it.
    """

    payload: bytes | memoryview
    flows: int
    packets: int
    bytes: int
