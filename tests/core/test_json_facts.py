"""The JSON fields of enrichment: all of them, and when they are not there."""

from __future__ import annotations

import json

import pytest

from netwatch.core.enrichment import Names
from netwatch.core.json_lines import format_batch_json
from tests.core.enriched import NAMES, ODD_TEXT, Row, enriched
from tests.core.flows import Flow, batch_of

MAPPED = bytes(10) + b"\xff\xff"
DROPS = {
    "packets": 7,
    "bytes": 420,
    "latest_flags": 18,
    "latest_state": 1,
    "latest_cause": 2,
    "causes": 2,
    "cause": [3, 2],
    "cause_packets": [5, 2],
}
RTT = {"smoothed_ns": 1_200_000, "minimum_ns": 900_000, "maximum_ns": 5_000_000, "handshake_ns": 1_000_000}
DNS = {
    "id": 4711,
    "flags": 0x8183,
    "latency_ns": 20_999_999,
    "question_type": 28,
    "errno": 110,
    "messages": 2,
    "name_bytes": 12,
    "name": b"\x07example\x03org",
}
TCP = {
    "retransmitted_packets": 3,
    "retransmitted_bytes": 4500,
    "connect_ns": 3_000_000,
    "connect_errno": 111,
    "state": 7,
    "resets_sent": 1,
    "resets_received": 2,
}
OWNER = {"pid": 1234, "command": b"curl", "cgroup_id": 7}
TRANSLATION = {
    "src_addr": MAPPED + b"\x0a\0\0\1",
    "dst_addr": MAPPED + b"\x0a\1\2\3",
    "src_port": 443,
    "dst_port": 80,
    "zone": 5,
}
CONTAINER = NAMES.containers[7]

TOLD = {"drops": DROPS, "rtt": RTT, "dns": DNS, "tcp": TCP, "source": OWNER, "destination": OWNER}
TOLD |= {"translation": TRANSLATION, "kinds": {"kind": 1}}
PLAIN = json.loads(format_batch_json(batch_of(Flow()), "192.0.2.7"))


def fields_of(**kinds: Row) -> dict[str, object]:
    """Return the fields that facts of these kinds add to the line of a flow."""
    batch = enriched(batch_of(Flow()), NAMES, **{kind: {0: fields} for kind, fields in kinds.items()})
    fields: dict[str, object] = json.loads(format_batch_json(batch, "192.0.2.7"))
    assert {name: fields.pop(name) for name in PLAIN} == PLAIN
    return fields


def test_drops() -> None:
    """Sums, the latest packet's flags, state and reason, and what each reason took, most first."""
    fields = fields_of(drops=DROPS)
    assert fields == {
        "PktDropPackets": 7,
        "PktDropBytes": 420,
        "PktDropLatestFlags": 18,
        "PktDropLatestState": "TCP_ESTABLISHED",
        "PktDropLatestDropCause": "SKB_DROP_REASON_NO_SOCKET",
        "PktDropCauses": {"SKB_DROP_REASON_NETFILTER_DROP": 5, "SKB_DROP_REASON_NO_SOCKET": 2},
    }
    causes = fields["PktDropCauses"]
    assert isinstance(causes, dict)
    assert list(causes.values()) == [5, 2]


def test_two_reasons_of_one_name() -> None:
    """What two subsystems call by one name is one reason, so that no name stands twice."""
    names = Names({2: "NO_ROUTE", 0x20001: "NO_ROUTE"})
    drops = DROPS | {"cause": [2, 0x20001]}
    (line,) = format_batch_json(enriched(batch_of(Flow()), names, drops={0: drops}), "").splitlines()
    assert b'"PktDropCauses":{"NO_ROUTE":7}' in line


def test_rtt() -> None:
    """Four times in nanoseconds."""
    assert fields_of(rtt=RTT) == {
        "TimeFlowRttNs": 1_200_000,
        "TimeFlowRttMinNs": 900_000,
        "TimeFlowRttMaxNs": 5_000_000,
        "TimeFlowRttHandshakeNs": 1_000_000,
    }


def test_dns() -> None:
    """The header, whole milliseconds as collectors expect them, and the question."""
    assert fields_of(dns=DNS) == {
        "DnsId": 4711,
        "DnsFlags": 0x8183,
        "DnsFlagsResponseCode": "NXDomain",
        "DnsLatencyMs": 20,
        "DnsLatencyNs": 20_999_999,
        "DnsErrno": 110,
        "DnsName": "example.org",
        "DnsQueryType": "AAAA",
        "DnsMessages": 2,
    }


def test_quick_answer() -> None:
    """An answer within a millisecond took 0 ms, which says that there was one."""
    assert fields_of(dns=DNS | {"latency_ns": 1})["DnsLatencyMs"] == 0
    assert fields_of(dns=DNS | {"latency_ns": 1})["DnsLatencyNs"] == 1


def test_question() -> None:
    """A question has no response code: its four bits mean nothing."""
    assert "DnsFlagsResponseCode" not in fields_of(dns=DNS | {"flags": 0x0100})


def test_question_about_the_root() -> None:
    """The root has a name of its own: a dot."""
    assert fields_of(dns=DNS | {"name_bytes": 0})["DnsName"] == "."


def test_tcp() -> None:
    """Retransmits, connecting with its error as number and name, state, resets."""
    assert fields_of(tcp=TCP) == {
        "TcpRetransmits": 3,
        "TcpRetransmitBytes": 4500,
        "TcpState": "TCP_CLOSE",
        "TcpConnectNs": 3_000_000,
        "TcpConnectErrno": 111,
        "TcpConnectError": "ECONNREFUSED",
        "TcpResetsSent": 1,
        "TcpResetsReceived": 2,
    }


@pytest.mark.parametrize(("kind", "end"), [("source", "Src"), ("destination", "Dst")])
def test_process(kind: str, end: str) -> None:
    """The process of an end, its cgroup and its container."""
    assert fields_of(**{kind: OWNER}) == {
        f"{end}ProcessId": 1234,
        f"{end}ProcessName": "curl",
        f"{end}CgroupId": 7,
        f"{end}ContainerId": CONTAINER,
    }


def test_translation() -> None:
    """Addresses and ports after NAT, and the zone."""
    assert fields_of(translation=TRANSLATION) == {
        "XlatSrcAddr": "10.0.0.1",
        "XlatDstAddr": "10.1.2.3",
        "XlatSrcPort": 443,
        "XlatDstPort": 80,
        "ZoneId": 5,
    }


@pytest.mark.parametrize(
    ("kind", "fields"), [(0, {}), (1, {"RecordKind": "continuation"}), (2, {"RecordKind": "drop-only"})]
)
def test_kind(kind: int, fields: dict[str, str]) -> None:
    """A continuation and a drop-only record say so; a flow is a flow."""
    assert fields_of(kinds={"kind": kind}) == fields


ABSENT_AT_ZERO = [
    *[("drops", name, {f"PktDrop{label}"}) for name, label in (("latest_flags", "LatestFlags"), ("causes", "Causes"))],
    ("drops", "latest_state", {"PktDropLatestState"}),
    ("rtt", "smoothed_ns", {"TimeFlowRttNs"}),
    ("rtt", "minimum_ns", {"TimeFlowRttMinNs"}),
    ("rtt", "maximum_ns", {"TimeFlowRttMaxNs"}),
    ("rtt", "handshake_ns", {"TimeFlowRttHandshakeNs"}),
    ("dns", "flags", {"DnsFlagsResponseCode"}),
    ("dns", "latency_ns", {"DnsLatencyMs", "DnsLatencyNs"}),
    ("dns", "errno", {"DnsErrno"}),
    ("dns", "question_type", {"DnsQueryType"}),
    ("dns", "messages", {"DnsMessages"}),
    ("tcp", "retransmitted_packets", {"TcpRetransmits"}),
    ("tcp", "retransmitted_bytes", {"TcpRetransmitBytes"}),
    ("tcp", "connect_ns", {"TcpConnectNs"}),
    ("tcp", "connect_errno", {"TcpConnectErrno", "TcpConnectError"}),
    ("tcp", "state", {"TcpState"}),
    ("tcp", "resets_sent", {"TcpResetsSent"}),
    ("tcp", "resets_received", {"TcpResetsReceived"}),
    ("source", "pid", {"SrcProcessId"}),
    ("source", "command", {"SrcProcessName"}),
    ("source", "cgroup_id", {"SrcCgroupId", "SrcContainerId"}),
    ("destination", "pid", {"DstProcessId"}),
    ("translation", "src_port", {"XlatSrcPort"}),
    ("translation", "dst_port", {"XlatDstPort"}),
    ("translation", "zone", {"ZoneId"}),
]


@pytest.mark.parametrize(("kind", "column", "names"), ABSENT_AT_ZERO)
def test_zero(kind: str, column: str, names: set[str]) -> None:
    """What is not known, or did not happen, is left out, and all the rest stays."""
    empty: object = b"" if column == "command" else 0
    changed = {name: value for name, value in TOLD[kind].items() if name != column} | {column: empty}
    assert fields_of(**TOLD).keys() - fields_of(**TOLD | {kind: changed}).keys() == names


@pytest.mark.parametrize("column", ["packets", "bytes", "id"])
def test_zero_that_means_something(column: str) -> None:
    """Zero octets were dropped, or a DNS message has the number 0: that is a fact."""
    kind = "dns" if column == "id" else "drops"
    assert fields_of(**{kind: TOLD[kind] | {column: 0}}).keys() == fields_of(**{kind: TOLD[kind]}).keys()


def test_names_of_odd_characters() -> None:
    """Quotes, line ends, escape sequences and bytes that are no text leave one valid line of ASCII."""
    batch = enriched(
        batch_of(Flow()),
        NAMES,
        drops={0: DROPS | {"cause": [4, 3]}},
        dns={0: DNS | {"name_bytes": 5, "name": b'\x04"\\\n\xff'}},
        source={0: OWNER | {"command": b'"\\\x1b\n\xff', "cgroup_id": 8}},
    )
    line = format_batch_json(batch, "192.0.2.7")
    assert line.isascii()
    assert line.count(b"\n") == 1
    fields = json.loads(line)
    assert list(fields["PktDropCauses"]) == [ODD_TEXT, "SKB_DROP_REASON_NETFILTER_DROP"]
    assert fields["SrcProcessName"] == '"\\\x1b\n\ufffd'
    assert fields["SrcContainerId"] == ODD_TEXT
    assert fields["DnsName"] == '"\\\\\\010\\255'


def test_line_of_all_facts() -> None:
    """Kinds stand in one order for ever, between the flow's own fields and the agent's address."""
    batch = enriched(batch_of(Flow()), NAMES, **{kind: {0: fields} for kind, fields in TOLD.items()})
    names = list(json.loads(format_batch_json(batch, "192.0.2.7")))
    first_of_kind = ["Sampling", "PktDropPackets", "TimeFlowRttNs", "DnsId", "TcpRetransmits", "SrcProcessId"]
    first_of_kind += ["DstProcessId", "XlatSrcAddr", "RecordKind", "AgentIP"]
    assert [name for name in names if name in first_of_kind] == first_of_kind
    assert names[-1] == "AgentIP"
