"""Flows as JSON lines: field names and presence rules are those of flowlogs-pipeline.

Law: pure; nothing but ASCII. A field is there when it means something: ports for TCP, UDP and SCTP, flags for TCP,
type and code for ICMP. One function assembles every JSON line, so a batch and the records of it cannot read
differently.
Neighbours: `core/json_facts.py` makes the fields of enrichment; `netwatch collect` prints records;
`exporters/stdout.py` goes from a batch to text at once.
"""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING

from netwatch.core.json_facts import batch_facts_as_json, facts_as_json
from netwatch.core.record import (
    ICMP_PROTOCOLS,
    IP_ETHERTYPES,
    PROTOCOLS_WITH_PORTS,
    TCP,
    FlowRecord,
    Sight,
    format_mac,
)
from netwatch.core.row_columns import addresses_and_numbers, for_each_sights, mac_pairs

if TYPE_CHECKING:
    from netwatch.core.batch import FlowBatch


def format_json(record: FlowRecord) -> str:
    """Return the JSON line of a record, without line end."""
    return _line(
        record.src_addr,
        record.dst_addr,
        record.src_port,
        record.dst_port,
        record.protocol,
        record.eth_type,
        record.bytes,
        record.packets,
        record.start_ms,
        record.end_ms,
        record.flags,
        record.dscp,
        record.icmp_type,
        record.icmp_code,
        record.sampling,
        _macs_as_json(record.src_mac, record.dst_mac),
        _sights_as_json(record.interfaces),
        json.dumps(record.agent_ip),
        facts_as_json(record.facts),
    )


def format_batch_json(batch: FlowBatch, agent_ip: str) -> bytes:
    """Return the JSON lines of a batch, in its order, each with its line end; nothing but ASCII."""
    lines = map(
        _line,
        *addresses_and_numbers(batch),
        map(_raw_macs_as_json, mac_pairs(batch)),
        for_each_sights(batch, _sights_as_json),
        repeat(json.dumps(agent_ip)),
        batch_facts_as_json(batch) if batch.enrichment else repeat(""),
    )
    return "\n".join((*lines, "")).encode("ascii")


def _line(  # noqa: PLR0917 - the columns of a row: keywords would cost 1 us a flow
    src_addr: str,
    dst_addr: str,
    src_port: int,
    dst_port: int,
    protocol: int,
    eth_type: int,
    num_bytes: int,
    packets: int,
    start_ms: int,
    end_ms: int,
    flags: int,
    dscp: int,
    icmp_type: int,
    icmp_code: int,
    sampling: int,
    macs: str,
    sights: str,
    agent_ip: str,
    facts: str,
) -> str:
    """Assemble a line; the last four are JSON already. Runs for every flow: positional, and no list or dict."""
    ends = ports = tcp = tos = icmp = ""
    if eth_type in IP_ETHERTYPES:
        if protocol in PROTOCOLS_WITH_PORTS:
            ports = f'"SrcPort":{src_port},"DstPort":{dst_port},'
            if protocol == TCP:
                tcp = f'"Flags":{flags},'
        elif protocol in ICMP_PROTOCOLS:
            icmp = f'"IcmpType":{icmp_type},"IcmpCode":{icmp_code},'
        ends = f'"SrcAddr":"{src_addr}","DstAddr":"{dst_addr}",{ports}"Proto":{protocol},'
        tos = f'"Dscp":{dscp},'
    counted = f'"Bytes":{num_bytes},' if num_bytes else ""
    counted += f'"Packets":{packets},' if packets else ""
    every = f'"Sampling":{sampling},' if sampling else ""
    return (
        f'{{{ends}"Etype":{eth_type},{counted}"TimeFlowStartMs":{start_ms},"TimeFlowEndMs":{end_ms},'
        f'{tcp}{tos}{icmp}{macs}{sights}{every}{facts}"AgentIP":{agent_ip}}}'
    )


def _macs_as_json(src_mac: str, dst_mac: str) -> str:
    return f'"SrcMac":"{src_mac}","DstMac":"{dst_mac}",'


@lru_cache(maxsize=4096)
def _raw_macs_as_json(raw: bytes) -> str:
    return _macs_as_json(format_mac(raw[:6]), format_mac(raw[6:]))


def _sights_as_json(sights: tuple[Sight, ...]) -> str:
    # An interface name may hold quotes, backslashes and control characters: all but "/", ":" and white space.
    names = ",".join(json.dumps(name) for name, _ in sights)
    directions = ",".join(f"{direction:d}" for _, direction in sights)
    return f'"Interfaces":[{names}],"IfDirections":[{directions}],'
