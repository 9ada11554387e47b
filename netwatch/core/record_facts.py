"""What enrichment found out about one flow, as objects for people and tests.

Law: nothing but fields. None stands for facts that nobody told; 0 and "" inside them for what is not known.
Neighbours: `core/fact_columns.py` makes them from a batch, `exporters/pbflow_reader.py` from a message;
`core/json_facts.py`, `core/notes.py` and `core/fact_cells.py` show them.
"""

from __future__ import annotations

import attrs

from netwatch.core.enrichment import RecordKind


@attrs.frozen
class DropFacts:
    """Packets that the kernel dropped. `causes` are names with their packets, most packets first."""

    packets: int
    bytes: int
    latest_flags: int
    latest_state: int
    latest_cause: str
    causes: tuple[tuple[str, int], ...]


@attrs.frozen
class RttFacts:
    """Round-trip times of TCP; 0: not known."""

    smoothed_ns: int
    minimum_ns: int
    maximum_ns: int
    handshake_ns: int


@attrs.frozen
class DnsFacts:
    """The latest DNS message of a flow. `latency_ns` is 0 for a question; `errno` ETIMEDOUT if nobody answered."""

    id: int
    flags: int
    latency_ns: int
    question_type: int
    errno: int
    name: str
    messages: int


@attrs.frozen
class TcpFacts:
    """What a TCP socket went through. `connect_ns` ends with success or failure; 0: not known."""

    retransmitted_packets: int
    retransmitted_bytes: int
    connect_ns: int
    connect_errno: int
    state: int
    resets_sent: int
    resets_received: int


@attrs.frozen
class ProcessFacts:
    """The process that owns one end of a flow. `container_id` is empty outside of containers."""

    pid: int
    name: str
    cgroup_id: int
    container_id: str


@attrs.frozen
class TranslationFacts:
    """Addresses and ports after NAT, and the conntrack zone."""

    src_addr: str
    dst_addr: str
    src_port: int
    dst_port: int
    zone: int


@attrs.frozen
class RecordFacts:
    """All facts about a flow. Interfaces beyond the row's are simply among the record's interfaces."""

    drops: DropFacts | None = None
    rtt: RttFacts | None = None
    dns: DnsFacts | None = None
    tcp: TcpFacts | None = None
    source: ProcessFacts | None = None
    destination: ProcessFacts | None = None
    translation: TranslationFacts | None = None
    kind: RecordKind = RecordKind.FLOW


NO_FACTS = RecordFacts()
