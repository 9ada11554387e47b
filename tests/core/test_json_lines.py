"""JSON lines, checked against a second reading of the same rows."""

from __future__ import annotations

import ipaddress
import json

import attrs
import numpy as np
import pytest
from hypothesis import given

from netwatch.core.batch import FlowBatch, InterfaceNames
from netwatch.core.batch_records import records_of
from netwatch.core.direction import Direction
from netwatch.core.enrichment import NOTHING
from netwatch.core.json_lines import format_batch_json, format_json
from netwatch.core.layout import hook_of
from netwatch.core.record import format_address
from tests.core.enriched import enriched_batches
from tests.core.flows import ETH0, VETH, Flow, batch_of, batches

AGENT_IP = "192.0.2.7"


def json_of(flow: Flow) -> dict[str, object]:
    (line,) = format_batch_json(batch_of(flow), AGENT_IP).decode().splitlines()
    return json.loads(line)


def test_tcp_flow() -> None:
    """The line is compact, on one line, and its fields stand in one order for ever."""
    flow = Flow(observed=(hook_of(VETH, Direction.EGRESS),))
    assert format_batch_json(batch_of(flow), AGENT_IP) == (
        b'{"SrcAddr":"10.0.0.1","DstAddr":"192.168.100.200","SrcPort":443,"DstPort":51234,"Proto":6,"Etype":2048,'
        b'"Bytes":1500,"Packets":3,"TimeFlowStartMs":1700000005000,"TimeFlowEndMs":1700000006250,"Flags":18,"Dscp":46,'
        b'"SrcMac":"02:00:00:00:00:0a","DstMac":"02:00:00:00:00:0b","Interfaces":["eth0","veth1a2b"],'
        b'"IfDirections":[0,1],"Sampling":1,"AgentIP":"192.0.2.7"}\n'
    )


PORTS, FLAGS, ICMP = {"SrcPort", "DstPort"}, {"Flags"}, {"IcmpType", "IcmpCode"}


@pytest.mark.parametrize(
    ("protocol", "present"),
    [(6, PORTS | FLAGS), (17, PORTS), (132, PORTS), (1, ICMP), (58, ICMP), (47, set()), (0, set())],
)
def test_fields_of_a_protocol(protocol: int, present: set[str]) -> None:
    """Ports are there for TCP, UDP and SCTP only, flags for TCP only, type and code for ICMP only, even where 0."""
    fields = json_of(Flow(protocol=protocol, src_port=0, dst_port=0, flags=0))
    assert fields.keys() & (PORTS | FLAGS | ICMP) == present


def test_icmp_flow() -> None:
    """Type and code are those of the flow key."""
    fields = json_of(Flow(protocol=58, eth_type=0x86DD, icmp_type=135, icmp_code=1))
    assert (fields["IcmpType"], fields["IcmpCode"]) == (135, 1)


def test_record_that_is_not_ip() -> None:
    """What is not IP has neither addresses nor protocol nor DSCP, but its type and link-layer addresses."""
    fields = json_of(Flow(eth_type=0x0806))
    assert not fields.keys() & ({"SrcAddr", "DstAddr", "Proto", "Dscp"} | PORTS | FLAGS | ICMP)
    assert fields["Etype"] == 0x0806
    assert fields["SrcMac"] == "02:00:00:00:00:0a"


@pytest.mark.parametrize("field", ["Bytes", "Packets", "Sampling"])
def test_count_of_zero(field: str) -> None:
    """Bytes, packets and sampling of zero say nothing and are left out, the other two stay."""
    fields = json_of(attrs.evolve(Flow(), **{field.lower(): 0}))
    assert {"Bytes", "Packets", "Sampling"} - fields.keys() == {field}


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
        ("::", "::"),
        ("::1", "::1"),
    ],
)
def test_address(address: str, text: str) -> None:
    """IPv4 inside IPv6 is IPv4; IPv6 is written the short way."""
    assert json_of(Flow(src=address))["SrcAddr"] == text


def test_interface_without_a_name() -> None:
    """An interface whose name is not known is named by its number."""
    assert json_of(Flow(home=hook_of(9, Direction.EGRESS)))["Interfaces"] == ["ifindex9"]


def test_interface_name_of_odd_characters() -> None:
    """Quotes, escapes and bytes that are not UTF-8, which the kernel allows in a name, leave valid JSON, all ASCII."""
    name = '"\\\x1b[2J\udcffé'
    line = format_batch_json(batch_of(Flow(), interfaces=InterfaceNames({ETH0: name})), AGENT_IP)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert json.loads(line)["Interfaces"] == [name]


def test_batch_without_flows() -> None:
    """Nothing gives nothing: no empty line."""
    assert format_batch_json(batch_of(), AGENT_IP) == b""


@given(enriched_batches())
def test_batch_and_its_records(batch: FlowBatch) -> None:
    """The quick way from a batch and the way through records give the same text, byte by byte, whatever is known."""
    slow = "".join(f"{format_json(record)}\n" for record in records_of(batch, AGENT_IP))
    assert format_batch_json(batch, AGENT_IP) == slow.encode()


@given(enriched_batches())
def test_any_facts(batch: FlowBatch) -> None:
    """Whatever processes, containers and domains are called, lines are ASCII, valid, and say no field twice."""

    def without_duplicates(fields: list[tuple[str, object]]) -> dict[str, object]:
        assert len(fields) == len(dict(fields))
        return dict(fields)

    lines = format_batch_json(batch, AGENT_IP)
    assert lines.isascii()
    assert lines.count(b"\n") == batch.flows
    for line in lines.splitlines():
        json.loads(line, object_pairs_hook=without_duplicates)


@given(enriched_batches())
def test_flows_without_facts_beside_others(batch: FlowBatch) -> None:
    """A flow that nothing is known about reads as if nothing were known of the others either."""
    told = {row for facts in batch.enrichment.facts() for row in facts.rows.tolist()}
    lines = format_batch_json(batch, AGENT_IP).splitlines()
    plain = format_batch_json(attrs.evolve(batch, enrichment=NOTHING), AGENT_IP).splitlines()
    assert [row for row in range(batch.flows) if lines[row] != plain[row] and row not in told] == []


@given(batches())
def test_batch_read_a_second_way(batch: FlowBatch) -> None:
    """Every line, parsed, says what the row says when it is read field by field."""
    lines = format_batch_json(batch, AGENT_IP).splitlines()
    assert [json.loads(line) for line in lines] == [
        expected_fields(key, value, batch) for key, value in zip(batch.keys, batch.values, strict=True)
    ]


def expected_fields(key: np.void, value: np.void, batch: FlowBatch) -> dict[str, object]:
    hooks = [hook for hook in (int(value["home"]), *value["observed"].tolist()) if hook]
    fields: dict[str, object] = {
        "Etype": int(value["eth_type"]),
        "TimeFlowStartMs": (int(value["first_ns"]) + batch.wall_offset_ns) // 10**6,
        "TimeFlowEndMs": (int(value["last_ns"]) + batch.wall_offset_ns) // 10**6,
        "SrcMac": value["src_mac"].tobytes().hex(":"),
        "DstMac": value["dst_mac"].tobytes().hex(":"),
        "Interfaces": [batch.interfaces.name(hook & 0x7FFF_FFFF) for hook in hooks],
        "IfDirections": [hook >> 31 for hook in hooks],
        "AgentIP": AGENT_IP,
    }
    fields |= {name: int(value[name.lower()]) for name in ("Bytes", "Packets", "Sampling") if value[name.lower()]}
    if value["eth_type"] in {0x0800, 0x86DD}:
        fields |= {"Proto": int(key["protocol"]), "Dscp": int(value["dscp"])}
        fields |= {"SrcAddr": address_text(key["src_addr"]), "DstAddr": address_text(key["dst_addr"])}
        if key["protocol"] in {6, 17, 132}:
            fields |= {"SrcPort": int(key["src_port"]), "DstPort": int(key["dst_port"])}
        if key["protocol"] == 6:
            fields["Flags"] = int(value["flags"])
        if key["protocol"] in {1, 58}:
            fields |= {"IcmpType": int(key["icmp_type"]), "IcmpCode": int(key["icmp_code"])}
    return fields


def address_text(raw: np.ndarray) -> str:
    text = format_address(raw.tobytes())
    address = ipaddress.IPv6Address(raw.tobytes())
    assert ipaddress.ip_address(text) == (address.ipv4_mapped or address)
    return text
