"""What enrichment found out about a flow, in a few words, bad news first.

Law: pure; the first words already say what is wrong, because a narrow terminal cuts off the end.
Neighbours: `core/table.py` shows them in one column; `core/fact_cells.py` has a column for every fact.
"""

from __future__ import annotations

from collections.abc import Iterator

from netwatch.core.dns_code_names import NO_ERROR, response_code_name
from netwatch.core.enrichment import KIND_WORDS
from netwatch.core.fact_words import (
    connect_words,
    drop_reason_words,
    process_name,
    question_words,
    silence_words,
    translation_words,
)
from netwatch.core.quantities import short_count, short_time
from netwatch.core.record import FlowRecord
from netwatch.core.record_facts import NO_FACTS, DnsFacts, DropFacts, RecordFacts, RttFacts, TcpFacts


def notes_of(record: FlowRecord) -> str:
    """Return what there is to say: drops, failures, retransmits, processes, NAT, DNS, times."""
    return "" if record.facts is NO_FACTS else ", ".join(filter(None, _notes(record, record.facts)))


def _notes(record: FlowRecord, facts: RecordFacts) -> Iterator[str]:
    drops, dns, tcp, rtt = facts.drops, facts.dns, facts.tcp, facts.rtt
    dns_trouble = _dns_trouble(dns) if dns else ""
    if drops:
        yield _drops(drops)
    if tcp and tcp.connect_errno:
        yield connect_words(tcp)
    yield dns_trouble
    if tcp:
        yield from _troubles(tcp)
    source, destination = process_name(facts.source), process_name(facts.destination)
    if source or destination:
        yield f"{source}→{destination}"
    if facts.translation:
        yield translation_words(record, facts.translation)
    if dns and not dns_trouble:
        yield _dns(dns)
    if rtt:
        yield _rtt(rtt)
    if tcp and tcp.connect_ns and not tcp.connect_errno:
        yield f"connect {connect_words(tcp)}"
    yield KIND_WORDS[facts.kind]


def _drops(drops: DropFacts) -> str:
    reason = drop_reason_words(drops.causes[0][0] if drops.causes else drops.latest_cause)
    more = f" +{len(drops.causes) - 1}" if len(drops.causes) > 1 else ""
    return (
        f"{short_count(drops.packets)} dropped: {reason}{more}" if reason else f"{short_count(drops.packets)} dropped"
    )


def _troubles(tcp: TcpFacts) -> Iterator[str]:
    for count, word in (
        (tcp.retransmitted_packets, "retransmit"),
        (tcp.resets_sent, "reset sent"),
        (tcp.resets_received, "reset received"),
    ):
        if count:
            noun, _, participle = word.partition(" ")
            yield f"{short_count(count)} {noun}{'s' if count > 1 else ''} {participle}".rstrip()


def _dns_trouble(dns: DnsFacts) -> str:
    code = response_code_name(dns.flags)
    trouble = silence_words(dns) or (code if code != NO_ERROR else "")
    return f"{trouble}: {_dns(dns)}" if trouble else ""


def _dns(dns: DnsFacts) -> str:
    return f"{question_words(dns)} {short_time(dns.latency_ns)}" if dns.latency_ns else question_words(dns)


def _rtt(rtt: RttFacts) -> str:
    best_known_ns = rtt.smoothed_ns or rtt.handshake_ns
    return f"rtt {short_time(best_known_ns)}" if best_known_ns else ""
