"""The fields that follow from hooks and agent."""

from __future__ import annotations

import ipaddress

import pytest

from netwatch.core import pbflow_tail
from netwatch.core.batch import InterfaceNames
from netwatch.core.layout import HOOK_EGRESS
from netwatch.core.pbflow_tail import STEP_BYTES, TailEncoder
from netwatch.exporters import pbflow_pb2

ETH0, VETH = 2, 7 | HOOK_EGRESS
NAMES = InterfaceNames({2: "eth0", 7: "veth1"})
EXPECTED = pbflow_pb2.Record(
    interface="eth0",
    direction=pbflow_pb2.INGRESS,
    dup_list=[
        pbflow_pb2.DupMapEntry(interface="eth0", direction=pbflow_pb2.INGRESS),
        pbflow_pb2.DupMapEntry(interface="veth1", direction=pbflow_pb2.EGRESS),
    ],
)


def tail_encoder(
    agent_ip: str | None = None, *, is_minimal: bool = False, names: InterfaceNames = NAMES
) -> TailEncoder:
    encoder = TailEncoder.of(ipaddress.ip_address(agent_ip) if agent_ip else None, is_minimal=is_minimal)
    encoder.use(names)
    return encoder


@pytest.mark.parametrize("is_minimal", [False, True])
def test_hooks(is_minimal: bool) -> None:
    """The home is the record's interface, and the first of all in the list."""
    tail = tail_encoder(is_minimal=is_minimal).encode((ETH0, VETH))

    assert pbflow_pb2.Record.FromString(tail) == EXPECTED


def test_minimal_tail() -> None:
    """A minimal tail is as long as what protobuf serializes."""
    assert len(tail_encoder(is_minimal=True).encode((ETH0, VETH))) == len(EXPECTED.SerializeToString())


@pytest.mark.parametrize("home", [ETH0, ETH0 | HOOK_EGRESS])
@pytest.mark.parametrize("length", range(1, 16))
def test_names_of_all_lengths(length: int, home: int) -> None:
    """Padding makes tails of few different lengths, and changes nothing that they say."""
    tail = tail_encoder(names=InterfaceNames({2: "n" * length})).encode((home,))

    record = pbflow_pb2.Record.FromString(tail)
    assert len(tail) % STEP_BYTES == 0
    assert (record.interface, record.direction) == ("n" * length, home >> 31)


@pytest.mark.parametrize(
    ("address", "field", "content"),
    [
        ("192.0.2.1", "ipv4", 0xC0000201),
        ("::ffff:192.0.2.1", "ipv4", 0xC0000201),
        ("::ffff:0.0.0.0", "ipv4", 0),
        ("2001:db8::1", "ipv6", ipaddress.ip_address("2001:db8::1").packed),
    ],
)
def test_agent_address(address: str, field: str, content: int | bytes) -> None:
    """An IPv4 address is a number, also inside IPv6; any other is 16 bytes."""
    agent_ip = pbflow_pb2.Record.FromString(tail_encoder(address).encode((ETH0,))).agent_ip

    assert agent_ip.WhichOneof("ip_family") == field
    assert getattr(agent_ip, field) == content


def test_name_that_is_not_utf8() -> None:
    """A byte that is not UTF-8 costs its own place in the name, not the message."""
    tail = tail_encoder(names=InterfaceNames({2: b"et\xff0".decode(errors="surrogateescape")})).encode((ETH0,))

    assert pbflow_pb2.Record.FromString(tail).interface == "et?0"


def test_renamed_interface() -> None:
    """A tail has the name that holds now, not the one of the batch before."""
    encoder = tail_encoder()
    before = pbflow_pb2.Record.FromString(encoder.encode((ETH0,)))

    encoder.use(InterfaceNames({2: "uplink"}))

    assert before.interface == "eth0"
    assert pbflow_pb2.Record.FromString(encoder.encode((ETH0,))).interface == "uplink"


def test_more_lists_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of lists has a limit, past which it begins anew, and tails stay right."""
    monkeypatch.setattr(pbflow_tail, "_MAX_REMEMBERED", 3)
    encoder = tail_encoder()

    for observed in [*range(10, 20), 10]:
        record = pbflow_pb2.Record.FromString(encoder.encode((ETH0, observed)))
        assert [entry.interface for entry in record.dup_list] == ["eth0", f"ifindex{observed}"]
        assert len(encoder._tails) <= 3
