"""Messages of the protocol as records: our own encoder's, and those of agents that fill fields as they like."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.batch_records import records_of
from netwatch.core.direction import Direction
from netwatch.core.json_lines import format_json
from netwatch.core.layout import hook_of
from netwatch.core.pbflow import PbflowEncoder
from netwatch.core.record import FlowRecord
from netwatch.exporters.pbflow_pb2 import Record, Records
from netwatch.exporters.pbflow_reader import read_records
from tests.core.flows import ETH0, VETH, Flow, batch_of

AGENT_IP = "192.0.2.7"

FLOWS = [
    Flow(),
    Flow(src="2001:db8::1", dst="ff02::1", eth_type=0x86DD, protocol=58, icmp_type=135, flags=0),
    Flow(protocol=17, observed=(hook_of(VETH, Direction.EGRESS), hook_of(9, Direction.INGRESS)), bytes=1 << 40),
    Flow(home=hook_of(ETH0, Direction.EGRESS), sampling=1000, packets=(1 << 32) - 1),
]


def read(*records: Record) -> list[FlowRecord]:
    return list(read_records(Records(entries=records).SerializeToString()))


@pytest.mark.parametrize("is_minimal", [False, True])
def test_our_own_messages(is_minimal: bool) -> None:
    """What is encoded comes out as the same records that stdout prints."""
    batch = batch_of(*FLOWS)
    (message,) = PbflowEncoder(ipaddress.ip_address(AGENT_IP), minimal_varints=is_minimal).encode(batch)
    # The encoder does not keep the order of rows.
    came_out = sorted(read_records(bytes(message.payload)), key=format_json)
    assert came_out == sorted(records_of(batch, AGENT_IP), key=format_json)


def test_empty_record() -> None:
    """Fields that were left out are zero or empty."""
    (record,) = read(Record())
    assert record == FlowRecord(
        **dict.fromkeys(("src_addr", "dst_addr", "agent_ip"), ""),
        **dict.fromkeys(("src_port", "dst_port", "protocol", "eth_type", "bytes", "packets", "start_ms", "end_ms"), 0),
        **dict.fromkeys(("flags", "dscp", "icmp_type", "icmp_code", "sampling"), 0),
        **dict.fromkeys(("src_mac", "dst_mac"), "00:00:00:00:00:00"),
        interfaces=(("", Direction.INGRESS),),
    )


def test_agent_without_a_list_of_interfaces() -> None:
    """The one interface of older agents is the flow's."""
    (record,) = read(Record(interface="ens3", direction=1))
    assert record.interfaces == (("ens3", Direction.EGRESS),)


@given(st.binary(max_size=400))
def test_any_bytes(content: bytes) -> None:
    """They are records that can be printed, or refused with a reason."""
    try:
        records = list(read_records(content))
    except ValueError as error:
        assert str(error) == "not a pbflow.Records message"  # noqa: PT017 - both ways are right
    else:
        for record in records:
            assert format_json(record)


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_records(entries: list[bytes]) -> None:
    """So are bytes inside of a valid message."""
    content = b"".join(b"\x0a" + bytes((len(entry),)) + entry for entry in entries)
    test_any_bytes.hypothesis.inner_test(content)
