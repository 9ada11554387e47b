"""Every fact about a flow as text, one column each: what the wide table shows behind the flow itself.

Law: pure; a text is empty where nothing was found, and cannot steer the terminal.
Neighbours: `core/table.py` lays the texts out; `core/notes.py` has the same in a few words. Numbers of cgroups, which
tell a person nothing, are in JSON only.
"""

from __future__ import annotations

from netwatch.core.dns_code_names import header_flag_names, response_code_name
from netwatch.core.enrichment import KIND_WORDS
from netwatch.core.fact_words import (
    connect_words,
    drop_reason_words,
    question_words,
    silence_words,
    translation_words,
)
from netwatch.core.flow_cells import Row
from netwatch.core.protocol_names import flag_letters
from netwatch.core.quantities import short_count, short_time
from netwatch.core.record import FlowRecord
from netwatch.core.record_facts import NO_FACTS, DnsFacts, DropFacts, ProcessFacts, RttFacts, TcpFacts
from netwatch.core.socket_names import tcp_state_name
from netwatch.core.terminal_text import harmless

_STATE_PREFIX = "TCP_"
_CONTAINER_DIGITS = 12  # as many as container tools show

_KIND_TITLES: Row = ("KIND",)
_DROP_TITLES: Row = ("DROPPED", "DROP BYTES", "DROP CAUSES", "LATEST DROP")
_TCP_TITLES: Row = ("CONNECT", "RETRANS", "RETRANS BYTES", "RESETS", "STATE")
_SOURCE_TITLES: Row = ("SRC PROCESS", "SRC CONTAINER")
_DESTINATION_TITLES: Row = ("DST PROCESS", "DST CONTAINER")
_NAT_TITLES: Row = ("NAT", "ZONE")
_DNS_TITLES: Row = ("DNS QUESTION", "DNS ANSWER", "DNS TIME", "DNS ID", "DNS FLAGS", "DNS MSGS")
_RTT_TITLES: Row = ("RTT", "RTT MIN", "RTT MAX", "RTT SYN")

FACT_TITLES: Row = (
    *(*_KIND_TITLES, *_DROP_TITLES, *_TCP_TITLES, *_SOURCE_TITLES, *_DESTINATION_TITLES),
    *(*_NAT_TITLES, *_DNS_TITLES, *_RTT_TITLES),
)
QUANTITIES = frozenset(
    (
        *("DROPPED", "DROP BYTES", "RETRANS", "RETRANS BYTES", "ZONE"),
        *("DNS TIME", "DNS ID", "DNS MSGS", *_RTT_TITLES),
    )
)
"""The titles of numbers and times, to be aligned on the right."""

_NOTHING: Row = ("",) * len(FACT_TITLES)


def fact_cells(record: FlowRecord) -> Row:
    """Return the texts of the columns in FACT_TITLES."""
    facts = record.facts
    if facts is NO_FACTS:
        return _NOTHING
    return (
        KIND_WORDS[facts.kind],
        *(_drops(facts.drops) if facts.drops else _none(_DROP_TITLES)),
        *(_tcp(facts.tcp) if facts.tcp else _none(_TCP_TITLES)),
        *(_process(facts.source) if facts.source else _none(_SOURCE_TITLES)),
        *(_process(facts.destination) if facts.destination else _none(_DESTINATION_TITLES)),
        *(_translation(record) if facts.translation else _none(_NAT_TITLES)),
        *(_dns(facts.dns) if facts.dns else _none(_DNS_TITLES)),
        *(_rtt(facts.rtt) if facts.rtt else _none(_RTT_TITLES)),
    )


def _drops(drops: DropFacts) -> Row:
    latest = (
        drop_reason_words(drops.latest_cause),
        flag_letters(drops.latest_flags) if drops.latest_flags else "",
        _state(drops.latest_state),
    )
    return (
        short_count(drops.packets),
        short_count(drops.bytes),
        ", ".join(f"{short_count(packets)} {drop_reason_words(cause)}" for cause, packets in drops.causes),
        " ".join(filter(None, latest)),
    )


def _tcp(tcp: TcpFacts) -> Row:
    resets = ((tcp.resets_sent, "sent"), (tcp.resets_received, "received"))
    return (
        connect_words(tcp),
        _count(tcp.retransmitted_packets),
        _count(tcp.retransmitted_bytes),
        ", ".join(f"{short_count(count)} {word}" for count, word in resets if count),
        _state(tcp.state),
    )


def _process(process: ProcessFacts) -> Row:
    number = f"[{process.pid}]" if process.pid else ""
    return f"{harmless(process.name)}{number}", harmless(process.container_id[:_CONTAINER_DIGITS])


def _translation(record: FlowRecord) -> Row:
    after = record.facts.translation
    assert after
    return translation_words(record, after), str(after.zone or "")


def _dns(dns: DnsFacts) -> Row:
    return (
        question_words(dns),
        silence_words(dns) or response_code_name(dns.flags),
        _time(dns.latency_ns),
        str(dns.id),
        header_flag_names(dns.flags),
        _count(dns.messages),
    )


def _rtt(rtt: RttFacts) -> Row:
    return _time(rtt.smoothed_ns), _time(rtt.minimum_ns), _time(rtt.maximum_ns), _time(rtt.handshake_ns)


def _none(titles: Row) -> Row:
    return _NOTHING[: len(titles)]


def _count(count: int) -> str:
    return short_count(count) if count else ""


def _time(time_ns: int) -> str:
    return short_time(time_ns) if time_ns else ""


def _state(state: int) -> str:
    return tcp_state_name(state).removeprefix(_STATE_PREFIX) if state else ""
