"""Messages of the pbflow protocol as flow records, for people and tests.

Law: pure. Another agent may leave out any field or fill it with anything; only what is no protobuf is refused.
Neighbours: `collect.py` prints the records, `core/record.py` says what they are; `core/pbflow.py` is the way there.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from netwatch.core.direction import Direction
from netwatch.core.record import FlowRecord, Sight, format_mac
from netwatch.exporters.pbflow_address import address_text
from netwatch.exporters.pbflow_facts import facts_in
from netwatch.exporters.pbflow_pb2 import Record, Records

_MAC_BITS = 48


def read_records(content: bytes) -> Iterator[FlowRecord]:
    """Read a serialized pbflow.Records; the records come one by one, because each costs some 20 us.

    Raises ValueError, before the first one.
    """
    try:
        entries = Records.FromString(content).entries
    except DecodeError as error:
        raise ValueError("not a pbflow.Records message") from error
    return map(_record, entries)


def _record(entry: Record) -> FlowRecord:
    network, transport = entry.network, entry.transport
    return FlowRecord(
        src_addr=address_text(network.src_addr),
        dst_addr=address_text(network.dst_addr),
        src_port=transport.src_port,
        dst_port=transport.dst_port,
        protocol=transport.protocol,
        eth_type=entry.eth_protocol,
        bytes=entry.bytes,
        packets=entry.packets,
        start_ms=entry.time_flow_start.ToMilliseconds(),
        end_ms=entry.time_flow_end.ToMilliseconds(),
        flags=entry.flags,
        dscp=network.dscp,
        icmp_type=entry.icmp_type,
        icmp_code=entry.icmp_code,
        sampling=entry.sampling,
        src_mac=_mac(entry.data_link.src_mac),
        dst_mac=_mac(entry.data_link.dst_mac),
        interfaces=tuple(_sight(seen.interface, seen.direction) for seen in entry.dup_list or (entry,)),
        agent_ip=address_text(entry.agent_ip),
        facts=facts_in(entry),
    )


def _mac(number: int) -> str:
    return format_mac((number & ((1 << _MAC_BITS) - 1)).to_bytes(_MAC_BITS // 8, "big"))


def _sight(interface: str, direction: int) -> Sight:
    return interface, Direction.EGRESS if direction == Direction.EGRESS else Direction.INGRESS
