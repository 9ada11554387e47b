"""What a pbflow Record says beside the flow, as facts for people.

Law: pure. A kind of fact is there where any of its fields is: proto3 does not tell a zero from nothing.
Neighbours: `exporters/pbflow_reader.py` reads the rest; `core/pbflow_facts.py` is the way there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netwatch.core.enrichment import Names, RecordKind
from netwatch.core.record_facts import (
    DnsFacts,
    DropFacts,
    ProcessFacts,
    RecordFacts,
    RttFacts,
    TcpFacts,
    TranslationFacts,
)
from netwatch.exporters.pbflow_address import address_text

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from netwatch.exporters.pbflow_pb2 import Process, Record

_NO_NAMES = Names()
_KINDS = {int(kind): kind for kind in RecordKind}


def facts_in(entry: Record) -> RecordFacts:
    """Return the facts of a record."""
    return RecordFacts(
        drops=_drops(entry),
        rtt=_rtt(entry),
        dns=_dns(entry),
        tcp=_tcp(entry),
        source=_process(entry.src_process) if entry.HasField("src_process") else None,
        destination=_process(entry.dst_process) if entry.HasField("dst_process") else None,
        translation=_translation(entry) if entry.HasField("xlat") else None,
        kind=_KINDS.get(entry.record_kind, RecordKind.FLOW),
    )


def _drops(entry: Record) -> DropFacts | None:
    # Other agents fill the protocol's own fields alone, which end at 16 bits.
    packets = entry.pkt_drop_packets_total or entry.pkt_drop_packets
    octets = entry.pkt_drop_bytes_total or entry.pkt_drop_bytes
    if not (packets or octets or entry.pkt_drop_causes or entry.pkt_drop_latest_drop_cause):
        return None
    names = {cause.cause: cause.name for cause in entry.pkt_drop_causes}
    latest = entry.pkt_drop_latest_drop_cause
    return DropFacts(
        packets=packets,
        bytes=octets,
        latest_flags=entry.pkt_drop_latest_flags,
        latest_state=entry.pkt_drop_latest_state,
        latest_cause=names.get(latest) or _NO_NAMES.drop_reason(latest),
        causes=tuple((cause.name, cause.packets) for cause in entry.pkt_drop_causes),
    )


def _rtt(entry: Record) -> RttFacts | None:
    times = (
        _ns(entry.time_flow_rtt),
        _ns(entry.time_flow_rtt_min),
        _ns(entry.time_flow_rtt_max),
        _ns(entry.time_flow_rtt_handshake),
    )
    return RttFacts(*times) if any(times) else None


def _dns(entry: Record) -> DnsFacts | None:
    if not (entry.dns_id or entry.dns_flags or entry.dns_errno or entry.dns_name or entry.dns_messages):
        return None
    return DnsFacts(
        id=entry.dns_id,
        flags=entry.dns_flags,
        latency_ns=_ns(entry.dns_latency),
        question_type=entry.dns_query_type,
        errno=entry.dns_errno,
        name=entry.dns_name,
        messages=entry.dns_messages,
    )


def _tcp(entry: Record) -> TcpFacts | None:
    facts = TcpFacts(
        retransmitted_packets=entry.tcp_retransmit_packets,
        retransmitted_bytes=entry.tcp_retransmit_bytes,
        connect_ns=entry.tcp_connect_ns,
        connect_errno=entry.tcp_connect_errno,
        state=entry.tcp_state,
        resets_sent=entry.tcp_resets_sent,
        resets_received=entry.tcp_resets_received,
    )
    return facts if facts != TcpFacts(0, 0, 0, 0, 0, 0, 0) else None


def _process(process: Process) -> ProcessFacts:
    return ProcessFacts(process.pid, process.name, process.cgroup_id, process.container_id)


def _translation(entry: Record) -> TranslationFacts:
    xlat = entry.xlat
    return TranslationFacts(
        src_addr=address_text(xlat.src_addr),
        dst_addr=address_text(xlat.dst_addr),
        src_port=xlat.src_port,
        dst_port=xlat.dst_port,
        zone=xlat.zone_id,
    )


def _ns(duration: Duration) -> int:
    nanoseconds: int = duration.ToNanoseconds()
    return nanoseconds
