"""The pbflow encoder against the generated protobuf classes, which decode what it makes."""

from __future__ import annotations

import ipaddress
import itertools
from collections import Counter
from collections.abc import Iterable

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netwatch.core.batch import FlowBatch, InterfaceNames, Message
from netwatch.core.direction import Direction
from netwatch.core.layout import FLOW_KEY, FLOW_VALUE, HOOK_EGRESS
from netwatch.core.pbflow import CHUNK_FLOWS, PbflowEncoder
from netwatch.exporters import pbflow_pb2

U8, U16, U32, U48, U64 = ((1 << bits) - 1 for bits in (8, 16, 32, 48, 64))
NS_PER_S = 1_000_000_000
MAPPED = bytes(10) + b"\xff\xff"
WALL_OFFSET_NS = 1_700_000_000 * NS_PER_S
AGENT_IP = ipaddress.ip_address("192.0.2.1")


@attrs.frozen
class Flow:
    """One row, as a test writes it."""

    src_addr: bytes = MAPPED + b"\n\0\0\1"
    dst_addr: bytes = MAPPED + b"\n\0\0\2"
    src_port: int = 40_000
    dst_port: int = 443
    protocol: int = 6
    icmp_type: int = 0
    icmp_code: int = 0
    first_ns: int = 5 * NS_PER_S
    last_ns: int = 6 * NS_PER_S + 1
    packets: int = 7
    bytes: int = 4_200
    hooks: tuple[int, ...] = (2,)
    flags: int = 0x112
    sampling: int = 1
    eth_type: int = 0x0800
    src_mac: bytes = b"\2\0\0\0\0\1"
    dst_mac: bytes = b"\2\0\0\0\0\xff"
    dscp: int = 0


def batch_of(
    flows: Iterable[Flow], names: dict[int, str] | None = None, wall_offset_ns: int = WALL_OFFSET_NS
) -> FlowBatch:
    flows = list(flows)
    keys, values = np.zeros(len(flows), FLOW_KEY), np.zeros(len(flows), FLOW_VALUE)
    for row, flow in enumerate(flows):
        for name, content in attrs.asdict(flow).items():
            if name == "hooks":
                values[row]["home"] = content[0]
                values[row]["observed"][: len(content) - 1] = content[1:]
                continue
            column = keys if name in FLOW_KEY.names else values
            column[row][name] = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content
    return FlowBatch(keys, values, wall_offset_ns, InterfaceNames(names or {2: "eth0"}))


def address_of(ip: pbflow_pb2.IP) -> bytes:
    return ip.ipv6 if ip.WhichOneof("ip_family") == "ipv6" else MAPPED + ip.ipv4.to_bytes(4, "big")


def timestamp_ns(timestamp: object) -> int:
    assert 0 <= timestamp.nanos < NS_PER_S
    return timestamp.seconds * NS_PER_S + timestamp.nanos


def decoded(record: pbflow_pb2.Record) -> tuple:
    """Return all that a record says."""
    assert record.HasField("network")
    assert record.HasField("transport")
    assert record.HasField("data_link")
    return (
        address_of(record.network.src_addr),
        address_of(record.network.dst_addr),
        record.network.dscp,
        record.transport.src_port,
        record.transport.dst_port,
        record.transport.protocol,
        record.icmp_type,
        record.icmp_code,
        timestamp_ns(record.time_flow_start),
        timestamp_ns(record.time_flow_end),
        record.packets,
        record.bytes,
        record.flags,
        record.sampling,
        record.eth_protocol,
        record.data_link.src_mac,
        record.data_link.dst_mac,
        (record.interface, record.direction),
        tuple((entry.interface, entry.direction) for entry in record.dup_list),
        address_of(record.agent_ip) if record.HasField("agent_ip") else None,
    )


def expected(flow: Flow, batch: FlowBatch, agent_ip: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> tuple:
    """Return what a record of this flow has to say."""
    start_ns = min(max(flow.first_ns + batch.wall_offset_ns, 0), U64)
    sights = tuple(
        (batch.interfaces.name(hook & ~HOOK_EGRESS), Direction.EGRESS if hook & HOOK_EGRESS else Direction.INGRESS)
        for hook in flow.hooks
    )
    packed = agent_ip and (MAPPED + agent_ip.packed if agent_ip.version == 4 else agent_ip.packed)
    return (
        flow.src_addr,
        flow.dst_addr,
        flow.dscp,
        flow.src_port,
        flow.dst_port,
        flow.protocol,
        flow.icmp_type,
        flow.icmp_code,
        start_ns,
        max(start_ns, min(max(flow.last_ns + batch.wall_offset_ns, 0), U64)),
        min(flow.packets, U32),
        flow.bytes,
        flow.flags,
        flow.sampling,
        flow.eth_type,
        int.from_bytes(flow.src_mac, "big"),
        int.from_bytes(flow.dst_mac, "big"),
        sights[0],
        sights,
        packed,
    )


def records_of(messages: Iterable[Message]) -> list[pbflow_pb2.Record]:
    records = []
    for message in messages:
        entries = pbflow_pb2.Records.FromString(bytes(message.payload)).entries
        assert len(entries) == message.flows
        records += entries
    return records


def numbers(limit: int) -> st.SearchStrategy[int]:
    """Numbers whose varints have all lengths, with the limits of each."""
    edges = [value for bits in range(0, limit.bit_length() + 1, 7) for value in ((1 << bits) - 1, 1 << bits)]
    return st.sampled_from([*(edge for edge in edges if edge <= limit), limit]) | st.integers(0, limit)


addresses = st.binary(min_size=4, max_size=4).map(lambda v4: MAPPED + v4) | st.sampled_from(
    [bytes(16), MAPPED + bytes(4), b"\xff" * 16, bytes(12) + b"\1\2\3\4", bytes(8) + MAPPED[8:] + b"\1\2\3\4"]
)
addresses |= st.binary(min_size=16, max_size=16)
ifindexes = st.integers(1, 6) | st.sampled_from([0x7FFF_FFFF])
hooks = st.builds(lambda ifindex, egress: ifindex | egress, ifindexes, st.sampled_from([0, HOOK_EGRESS]))
names = st.dictionaries(st.integers(1, 5), st.text(st.characters(exclude_categories=["Cs"]), max_size=15))
flows = st.builds(
    Flow,
    src_addr=addresses,
    dst_addr=addresses,
    src_port=numbers(U16),
    dst_port=numbers(U16),
    protocol=numbers(U8),
    icmp_type=numbers(U8),
    icmp_code=numbers(U8),
    first_ns=numbers(U64),
    last_ns=numbers(U64),
    packets=numbers(U64),
    bytes=numbers(U64),
    hooks=st.lists(hooks, min_size=1, max_size=7).map(tuple),
    flags=numbers(U32),
    sampling=numbers(U32),
    eth_type=numbers(U16),
    src_mac=numbers(U48).map(lambda mac: mac.to_bytes(6, "big")),
    dst_mac=numbers(U48).map(lambda mac: mac.to_bytes(6, "little")),
    dscp=numbers(U8),
)
agent_ips = st.none() | st.ip_addresses()
wall_offsets = st.sampled_from([0, 1, -1, WALL_OFFSET_NS, -WALL_OFFSET_NS]) | st.integers(-(1 << 63), U64)


@given(st.lists(flows, min_size=1, max_size=12), names, agent_ips, wall_offsets, st.booleans())
@settings(max_examples=100)
def test_any_flows(
    rows: list[Flow],
    names: dict[int, str],
    agent_ip: ipaddress.IPv4Address | ipaddress.IPv6Address | None,
    wall_offset_ns: int,
    minimal: bool,
) -> None:
    """What the generated classes decode is what the flows were, padded or minimal, whatever the values."""
    batch = batch_of(rows, names, wall_offset_ns)

    messages = PbflowEncoder(agent_ip, minimal_varints=minimal).encode(batch)

    records = records_of(messages)
    assert Counter(map(decoded, records)) == Counter(expected(flow, batch, agent_ip) for flow in rows)
    assert sum(message.flows for message in messages) == batch.flows
    # The batch's own sums are modulo 2**64.
    assert sum(message.packets for message in messages) & U64 == batch.packets
    assert sum(message.bytes for message in messages) & U64 == batch.bytes
    if minimal:
        canonical = pbflow_pb2.Records(entries=records).SerializeToString()
        assert sum(len(message.payload) for message in messages) == len(canonical)


def many_flows(count: int) -> FlowBatch:
    """Return flows of both IP versions, on several interfaces, each with a number of its own in `bytes`."""
    number = np.arange(count)
    keys, values = np.zeros(count, FLOW_KEY), np.zeros(count, FLOW_VALUE)
    keys["src_addr"][:, 10:12] = np.where(number[:, None] % 3 == 0, 0, 0xFF)
    keys["dst_addr"][:, 10:12] = 0xFF
    keys["src_addr"][:, 12:] = number.astype(">u4")[:, None].view(np.uint8)
    keys["src_port"] = number
    values["home"] = number % 4 + 2
    values["observed"][:, 0] = np.where(number % 5 == 0, 9, 0)
    values["packets"] = number % 1000
    values["bytes"] = number
    return FlowBatch(keys, values, WALL_OFFSET_NS, InterfaceNames({2: "eth0", 3: "a-longer-name", 4: "v", 5: "veth1"}))


@pytest.mark.parametrize("minimal", [False, True], ids=["padded", "minimal"])
@pytest.mark.parametrize("count", [2047, 2048, 2049, CHUNK_FLOWS, CHUNK_FLOWS + 1, 2 * CHUNK_FLOWS + 4099])
def test_many_flows(count: int, minimal: bool) -> None:
    """However many rows are encoded at once, and in how many steps, each flow arrives once and with its own values."""
    batch = many_flows(count)

    messages = PbflowEncoder(None, minimal_varints=minimal).encode(batch)

    records = records_of(messages)
    assert sorted(record.bytes for record in records) == list(range(count))
    for record in records:
        number = record.bytes
        assert address_of(record.network.src_addr)[10:] == (b"\0\0" if number % 3 == 0 else b"\xff\xff") + (
            number.to_bytes(4, "big")
        )
        assert record.transport.src_port == number % 65_536
        assert record.packets == number % 1000
        names = ["eth0", "a-longer-name", "v", "veth1"][number % 4], *(["ifindex9"] if number % 5 == 0 else [])
        assert tuple(entry.interface for entry in record.dup_list) == names
    assert sum(message.packets for message in messages) == batch.packets
    assert sum(message.bytes for message in messages) == batch.bytes


def test_empty_batch() -> None:
    """Nothing is worth no message."""
    assert PbflowEncoder(AGENT_IP).encode(batch_of([])) == []


@pytest.mark.parametrize("minimal", [False, True], ids=["padded", "minimal"])
@given(
    count=st.integers(1, 60),
    max_flows=st.integers(1, 70),
    max_bytes=st.integers(512, 4096),
)
def test_limits_of_a_message(minimal: bool, count: int, max_flows: int, max_bytes: int) -> None:
    """No message exceeds a limit, each says the sums of what it holds, and no two could have been one."""
    batch = many_flows(count)
    encoder = PbflowEncoder(AGENT_IP, minimal, max_message_flows=max_flows, max_message_bytes=max_bytes)

    messages = encoder.encode(batch)

    for message in messages:
        assert len(message.payload) <= max_bytes
        assert message.flows <= max_flows
        entries = records_of([message])
        assert sum(record.packets for record in entries) == message.packets
        assert sum(record.bytes for record in entries) == message.bytes
    assert sorted(record.bytes for record in records_of(messages)) == list(range(count))
    for one, other in itertools.pairwise(messages):
        assert len(one.payload) + len(other.payload) > max_bytes or one.flows + other.flows > max_flows


def test_record_larger_than_a_message() -> None:
    """A record that no message can hold is not lost: it goes alone, above the limit."""
    messages = PbflowEncoder(AGENT_IP, max_message_bytes=16).encode(many_flows(5))

    assert [message.flows for message in messages] == [1] * 5
    assert sorted(record.bytes for record in records_of(messages)) == list(range(5))


def test_largest_record() -> None:
    """With names that Linux allows, a record stays within the 512 bytes that the limits are reckoned with."""
    largest = {"first_ns": 0, "last_ns": U64, "packets": U64, "bytes": U64, "flags": U32, "sampling": U32}
    largest |= dict.fromkeys(("src_port", "dst_port", "eth_type"), U16)
    largest |= dict.fromkeys(("protocol", "icmp_type", "icmp_code", "dscp"), U8)
    hooks = tuple(hook | HOOK_EGRESS for hook in range(0x7FFF_FFF0, 0x7FFF_FFF7))
    flow = Flow(src_addr=b"\xff" * 16, src_mac=b"\xff" * 6, dst_mac=b"\xff" * 6, hooks=hooks, **largest)
    (message,) = PbflowEncoder(ipaddress.ip_address("ffff::ffff")).encode(batch_of([flow], {1: "eth0"}))

    assert len(message.payload) <= 512


def test_ipv4_on_the_wire() -> None:
    """An IPv4 address is a fixed 32-bit number whose highest byte is the first: collectors shift it down by 24."""
    flow = Flow(src_addr=MAPPED + bytes((192, 0, 2, 1)))

    (message,) = PbflowEncoder(None).encode(batch_of([flow]))

    assert b"\x0d\x01\x02\x00\xc0" in bytes(message.payload)
    assert records_of([message])[0].network.src_addr.ipv4 == 0xC0000201


def test_flow_of_zeros() -> None:
    """Collectors dereference network and transport: they are there even if all that they say is 0."""
    batch = FlowBatch(np.zeros(1, FLOW_KEY), np.zeros(1, FLOW_VALUE), 0, InterfaceNames({}))
    for minimal in (False, True):
        (record,) = records_of(PbflowEncoder(None, minimal_varints=minimal).encode(batch))

        assert record.HasField("network")
        assert record.HasField("transport")
        assert record.network.src_addr.ipv6 == bytes(16)


def test_rows_that_lie_apart() -> None:
    """Columns may be views with gaps: every second row of a larger array."""
    whole = many_flows(100)
    batch = FlowBatch(whole.keys[::2], whole.values[::2], whole.wall_offset_ns, whole.interfaces)

    records = records_of(PbflowEncoder(None).encode(batch))

    assert sorted(record.bytes for record in records) == list(range(0, 100, 2))


def test_batch_is_shared() -> None:
    """Encoding changes nothing in the batch, which other exporters read, and nobody can change the message."""
    batch = many_flows(100)
    keys, values = batch.keys.copy(), batch.values.copy()

    (message,) = PbflowEncoder(AGENT_IP).encode(batch)

    assert (batch.keys == keys).all()
    assert (batch.values == values).all()
    assert memoryview(message.payload).readonly


def test_renamed_interface() -> None:
    """One encoder for the whole run: each batch is named by its own names."""
    encoder = PbflowEncoder(None)

    names = [
        records_of(encoder.encode(batch_of([Flow()], {2: name})))[0].interface for name in ("eth0", "uplink", "eth0")
    ]

    assert names == ["eth0", "uplink", "eth0"]


@pytest.mark.parametrize("setting", ["max_message_flows", "max_message_bytes"])
def test_limit_of_nothing(setting: str) -> None:
    """A message that may hold nothing is a mistake."""
    with pytest.raises(ValueError, match=setting):
        PbflowEncoder(None, **{setting: 0})
