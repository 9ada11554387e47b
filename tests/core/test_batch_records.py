"""Records of a batch: every field of the row, every fact about it."""

from __future__ import annotations

import attrs

from netwatch.core.batch_records import records_of
from netwatch.core.direction import Direction
from netwatch.core.enrichment import MAX_HOOKS, OTHER_CAUSES, Names, RecordKind
from netwatch.core.json_lines import format_batch_json, format_json
from netwatch.core.layout import hook_of
from netwatch.core.record import FlowRecord
from netwatch.core.record_facts import (
    NO_FACTS,
    DnsFacts,
    DropFacts,
    ProcessFacts,
    RecordFacts,
    RttFacts,
    TcpFacts,
    TranslationFacts,
)
from tests.core.enriched import NAMES, Row, enriched
from tests.core.flows import VETH, WALL_OFFSET_NS, Flow, batch_of

AGENT_IP = "192.0.2.7"


def facts_about(flow: Flow, names: Names = NAMES, **kinds: Row) -> RecordFacts:
    """Return the facts of a record whose row has these, by kind."""
    batch = enriched(batch_of(flow), names, **{kind: {0: fields} for kind, fields in kinds.items()})
    (record,) = records_of(batch)
    return record.facts


def test_record_made_by_hand() -> None:
    """A record that came over the wire, not out of a batch, reads the same."""
    record = FlowRecord(
        src_addr="10.0.0.1",
        dst_addr="192.168.100.200",
        src_port=443,
        dst_port=51234,
        protocol=6,
        eth_type=0x0800,
        bytes=1500,
        packets=3,
        start_ms=WALL_OFFSET_NS // 10**6 + 5_000,
        end_ms=WALL_OFFSET_NS // 10**6 + 6_250,
        flags=0x12,
        dscp=46,
        icmp_type=0,
        icmp_code=0,
        sampling=1,
        src_mac="02:00:00:00:00:0a",
        dst_mac="02:00:00:00:00:0b",
        interfaces=(("eth0", Direction.INGRESS),),
        agent_ip=AGENT_IP,
    )
    assert records_of(batch_of(Flow()), AGENT_IP) == [record]
    assert f"{format_json(record)}\n".encode() == format_batch_json(batch_of(Flow()), AGENT_IP)


def test_clock_before_1970() -> None:
    """A flow that began before Unix time did has a time below zero, not one in the year 586524."""
    batch = batch_of(Flow(first_ns=1_500_000, last_ns=2_500_000), wall_offset_ns=-2_000_000)
    (record,) = records_of(batch)
    assert (record.start_ms, record.end_ms) == (-1, 0)


def test_batch_without_flows() -> None:
    """Nothing gives nothing."""
    assert records_of(batch_of()) == []


def test_drops() -> None:
    """Reasons have their names, those without one their number, and what was summed up is other."""
    fields = {"packets": 17, "bytes": 1700, "latest_flags": 0x12, "latest_state": 1, "latest_cause": 2, "causes": 3}
    facts = facts_about(Flow(), drops={**fields, "cause": [3, 77, OTHER_CAUSES, 2], "cause_packets": [9, 5, 3, 1]})
    causes = (("SKB_DROP_REASON_NETFILTER_DROP", 9), ("REASON_77", 5), ("OTHER", 3))
    assert facts == RecordFacts(drops=DropFacts(17, 1700, 0x12, 1, "SKB_DROP_REASON_NO_SOCKET", causes))


def test_rtt() -> None:
    """The four times are themselves."""
    facts = facts_about(Flow(), rtt={"smoothed_ns": 2, "minimum_ns": 1, "maximum_ns": 3, "handshake_ns": 4})
    assert facts == RecordFacts(rtt=RttFacts(2, 1, 3, 4))


def test_dns() -> None:
    """A name on the wire becomes text; what is behind its end in the array does not belong to it."""
    fields = {"id": 1, "flags": 0x8183, "latency_ns": 9, "question_type": 28, "errno": 110, "messages": 2}
    facts = facts_about(Flow(), dns={**fields, "name_bytes": 12, "name": b"\x07example\x03orgrest"})
    assert facts == RecordFacts(dns=DnsFacts(1, 0x8183, 9, 28, 110, "example.org", 2))


def test_tcp() -> None:
    """Each number is in its place."""
    facts = TcpFacts(1, 2, 3, 4, 5, 6, 7)
    assert facts_about(Flow(), tcp=attrs.asdict(facts)) == RecordFacts(tcp=facts)


def test_processes() -> None:
    """Each end has its own; a container is found by its cgroup, and a command ends at its first zero."""
    facts = facts_about(
        Flow(),
        source={"pid": 1234, "command": b"curl\0old name", "cgroup_id": 7},
        destination={"pid": 1, "command": b"nginx", "cgroup_id": 9},
    )
    container = "3f2a9c81d2e4" + 52 * "0"
    assert facts == RecordFacts(
        source=ProcessFacts(1234, "curl", 7, container), destination=ProcessFacts(1, "nginx", 9, "")
    )


def test_command_that_is_no_text() -> None:
    """A name that the kernel cut inside a character, or that is no UTF-8 at all, shows where, and breaks nothing."""
    facts = facts_about(Flow(), source={"command": "ééééééé€".encode()[:15]})
    assert facts.source
    assert facts.source.name == "ééééééé\ufffd"


def test_translation() -> None:
    """Addresses after NAT read as those before it."""
    mapped = bytes(10) + b"\xff\xff"
    fields = {"src_addr": mapped + b"\x0a\0\0\1", "dst_addr": mapped + b"\x0a\1\2\3"}
    facts = facts_about(Flow(), translation={**fields, "src_port": 443, "dst_port": 80, "zone": 5})
    assert facts == RecordFacts(translation=TranslationFacts("10.0.0.1", "10.1.2.3", 443, 80, 5))


def test_kind() -> None:
    """A row that is no ordinary flow says so."""
    assert facts_about(Flow(), kinds={"kind": 2}) == RecordFacts(kind=RecordKind.DROP_ONLY)


def test_facts_of_different_rows() -> None:
    """Each fact belongs to its row, and a row without any has none."""
    rtt = {"smoothed_ns": 5}
    batch = enriched(batch_of(Flow(), Flow(), Flow()), rtt={0: rtt, 2: rtt}, kinds={2: {"kind": 1}})
    told = RttFacts(5, 0, 0, 0)
    assert [record.facts for record in records_of(batch)] == [
        RecordFacts(rtt=told),
        NO_FACTS,
        RecordFacts(rtt=told, kind=RecordKind.CONTINUATION),
    ]


def test_more_interfaces_than_a_row_has_room_for() -> None:
    """The list goes on behind those of the row; unused places of the array are no interfaces."""
    more = [hook_of(ifindex, Direction.EGRESS) for ifindex in range(10, 10 + MAX_HOOKS)]
    flow = Flow(observed=(hook_of(VETH, Direction.EGRESS),))
    batch = enriched(
        batch_of(flow, flow, flow), hooks={1: {"count": 2, "hooks": more}, 2: {"count": 64, "hooks": more}}
    )
    own = (("eth0", Direction.INGRESS), ("veth1a2b", Direction.EGRESS))
    following = tuple((f"ifindex{ifindex}", Direction.EGRESS) for ifindex in range(10, 10 + MAX_HOOKS))
    seen = [record.interfaces for record in records_of(batch)]
    assert seen == [own, own + following[:2], own + following]


def test_agent_without_address() -> None:
    """Where none is given a record has none."""
    assert [record.agent_ip for record in records_of(batch_of(Flow()))] == [""]
