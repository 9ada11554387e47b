"""What the agent says of itself while it runs: one frozen value, made when somebody asks.

Law: cheap to import and to make. What becomes of packets and flows is not here but in the ledger.
Neighbours: `agent.py` makes it, `metrics.py` shows it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import attrs

from netwatch.core.direction import Direction
from netwatch.event_ledger import EventLedger

# Upper limits of the buckets. 18 ms is a drain of 100,000 flows; one of 16 million takes 3 s.
DRAIN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@attrs.frozen
class DrainTimes:
    """How long drains took. `counts` has a place for each bucket, and one for what took longer."""

    last_s: float = 0.0
    total_s: float = 0.0
    counts: tuple[int, ...] = (0,) * (len(DRAIN_BUCKETS_S) + 1)

    def added(self, duration_s: float) -> DrainTimes:
        """Return the times with one more drain."""
        bucket = bisect_left(DRAIN_BUCKETS_S, duration_s)
        counts = (*self.counts[:bucket], self.counts[bucket] + 1, *self.counts[bucket + 1 :])
        return DrainTimes(duration_s, self.total_s + duration_s, counts)


@attrs.frozen
class ExporterStatus:
    """The queue before one exporter, and how often sending failed."""

    exporter: str
    queue_bytes: int
    max_queue_bytes: int
    errors: int


@attrs.frozen
class ProgramStats:
    """What the kernel says one of our programs cost (`kernel.bpf_stats_enabled`)."""

    program: str
    run_count: int
    run_ns: int


@attrs.frozen
class MapMemory:
    """What the kernel says one of our maps occupies."""

    map: str
    bytes: int


@attrs.frozen(kw_only=True)
class AgentStatus:
    """The state of the agent at one moment. `map_flows` is the fill of the flow map at the last drain."""

    map_flows: int = 0
    max_flows: int = 0
    peak_flows: int = 0
    drain_times: DrainTimes = DrainTimes()
    exporters: tuple[ExporterStatus, ...] = ()
    attached: tuple[tuple[str, Direction], ...] = ()
    program_stats: tuple[ProgramStats, ...] = ()
    map_bytes: tuple[MapMemory, ...] = ()
    events: EventLedger | None = None
    recent_flows: int = 0
    forgotten: Mapping[str, int] = attrs.Factory(dict)
    """What there was no room for, so that records may lack it."""
    translation_overruns: int = 0
    unnamed_sockets: int = 0
