"""What enrichment found, as fields of a JSON line: the names are those of flowlogs-pipeline where it has them.

Law: pure. A field is there when it means something: zero is left out wherever it stands for "not known" or "none".
ASCII only, and valid, whatever the name of a process, a domain or a container holds.
Neighbours: `core/json_lines.py` puts the text into lines; `core/record_facts.py` says what the arguments are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from netwatch.core.dns_code_names import question_type_name, response_code_name
from netwatch.core.enrichment import KIND_WORDS, RecordKind
from netwatch.core.fact_columns import FactKind, columns_of
from netwatch.core.record_facts import NO_FACTS, RecordFacts
from netwatch.core.socket_names import error_name, tcp_state_name

if TYPE_CHECKING:
    from netwatch.core.batch import FlowBatch

_NS_PER_MS = 1_000_000


def facts_as_json(facts: RecordFacts) -> str:
    """Return the fields of all facts about a record, each with a comma behind it."""
    return "" if facts is NO_FACTS else "".join(_fields(facts))


def _fields(facts: RecordFacts) -> Iterator[str]:
    for kind, write in _WRITERS.items():
        fact = getattr(facts, kind.value)
        if isinstance(fact, RecordKind):
            yield write(fact)
        elif fact is not None:
            yield write(*attrs.astuple(fact, recurse=False))


def batch_facts_as_json(batch: FlowBatch) -> list[str]:
    """Return the fields of all facts about each row, made for those rows alone that have some."""
    texts = [""] * batch.flows
    for kind, rows, columns in columns_of(batch.enrichment, batch.names):
        for row, text in zip(rows, map(_WRITERS[kind], *columns), strict=True):
            texts[row] += text
    return texts


def _drops(  # noqa: PLR0917 - the fields of DropFacts
    packets: int, num_bytes: int, flags: int, state: int, cause: str, causes: tuple[tuple[str, int], ...]
) -> str:
    by_cause = ",".join(f"{_quoted(name)}:{count}" for name, count in (_summed(causes) if len(causes) > 1 else causes))
    return (
        f'"PktDropPackets":{packets},"PktDropBytes":{num_bytes},'
        + _number("PktDropLatestFlags", flags)
        + _text("PktDropLatestState", tcp_state_name(state) if state else "")
        + _text("PktDropLatestDropCause", cause)
        + (f'"PktDropCauses":{{{by_cause}}},' if by_cause else "")
    )


def _summed(causes: tuple[tuple[str, int], ...]) -> Iterable[tuple[str, int]]:
    """Return the causes with no name twice: two subsystems, or another agent, may have one name for two numbers."""
    packets_by_name: dict[str, int] = {}
    for name, packets in causes:
        packets_by_name[name] = packets_by_name.get(name, 0) + packets
    return packets_by_name.items()


def _rtt(smoothed_ns: int, minimum_ns: int, maximum_ns: int, handshake_ns: int) -> str:
    return (
        _number("TimeFlowRttNs", smoothed_ns)
        + _number("TimeFlowRttMinNs", minimum_ns)
        + _number("TimeFlowRttMaxNs", maximum_ns)
        + _number("TimeFlowRttHandshakeNs", handshake_ns)
    )


def _dns(  # noqa: PLR0917 - the fields of DnsFacts
    message_id: int, flags: int, latency_ns: int, question_type: int, errno: int, name: str, messages: int
) -> str:
    return (
        f'"DnsId":{message_id},"DnsFlags":{flags},'
        + _text("DnsFlagsResponseCode", response_code_name(flags))
        # Whole milliseconds are what flowlogs-pipeline has; many a resolver takes less than one.
        + (f'"DnsLatencyMs":{latency_ns // _NS_PER_MS},"DnsLatencyNs":{latency_ns},' if latency_ns else "")
        + _number("DnsErrno", errno)
        + _text("DnsName", name)
        + _text("DnsQueryType", question_type_name(question_type) if question_type else "")
        + _number("DnsMessages", messages)
    )


def _tcp(  # noqa: PLR0917 - the fields of TcpFacts
    packets: int, num_bytes: int, connect_ns: int, connect_errno: int, state: int, sent: int, received: int
) -> str:
    return (
        _number("TcpRetransmits", packets)
        + _number("TcpRetransmitBytes", num_bytes)
        + _text("TcpState", tcp_state_name(state) if state else "")
        + _number("TcpConnectNs", connect_ns)
        + _number("TcpConnectErrno", connect_errno)
        + _text("TcpConnectError", error_name(connect_errno) if connect_errno else "")
        + _number("TcpResetsSent", sent)
        + _number("TcpResetsReceived", received)
    )


# The same processes talk in every drain: found in 0.1 us, written in 2 us. 4,096 x 400 B = 1.6 MB.
@lru_cache(maxsize=4096)
def _process(end: str, pid: int, name: str, cgroup_id: int, container_id: str) -> str:
    return (
        _number(f"{end}ProcessId", pid)
        + _text(f"{end}ProcessName", name)
        + _number(f"{end}CgroupId", cgroup_id)
        + _text(f"{end}ContainerId", container_id)
    )


def _translation(src_addr: str, dst_addr: str, src_port: int, dst_port: int, zone: int) -> str:
    return (
        _text("XlatSrcAddr", src_addr)
        + _text("XlatDstAddr", dst_addr)
        + _number("XlatSrcPort", src_port)
        + _number("XlatDstPort", dst_port)
        + _number("ZoneId", zone)
    )


def _kind(kind: int) -> str:
    return _text("RecordKind", KIND_WORDS[RecordKind(kind)])


_WRITERS = MappingProxyType[FactKind, Callable[..., str]](
    {
        FactKind.DROPS: _drops,
        FactKind.RTT: _rtt,
        FactKind.DNS: _dns,
        FactKind.TCP: _tcp,
        FactKind.SOURCE: partial(_process, "Src"),
        FactKind.DESTINATION: partial(_process, "Dst"),
        FactKind.TRANSLATION: _translation,
        FactKind.KIND: _kind,
    }
)


def _number(name: str, number: int) -> str:
    return f'"{name}":{number},' if number else ""


def _text(name: str, text: str) -> str:
    return f'"{name}":{_quoted(text)},' if text else ""


# States, codes and reasons are few, and the same domains are asked for in every drain. 4,096 x 300 B = 1.2 MB.
@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    return json.dumps(text)
