"""Facts in pbflow records, against records that the generated classes make of the same columns one by one."""

from __future__ import annotations

import ipaddress
from collections import Counter

import attrs
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st

from netwatch.core import pbflow, pbflow_chunk
from netwatch.core.batch import FlowBatch, InterfaceNames, Message
from netwatch.core.direction import Direction
from netwatch.core.dns_name import name_text
from netwatch.core.enrichment import MAX_HOOKS, NOTHING, Enrichment, Facts, Names
from netwatch.core.layout import FLOW_KEY, FLOW_VALUE, OWNER, hook_of
from netwatch.core.pbflow import PbflowEncoder
from netwatch.exporters import pbflow_pb2
from tests.core.enriched import DTYPES, enriched, enriched_batches
from tests.core.flows import ETH0, VETH, Flow, batch_of

AGENT_IP = ipaddress.ip_address("192.0.2.1")
MAPPED = bytes(10) + b"\xff\xff"
U8, U16, U32, U64 = ((1 << bits) - 1 for bits in (8, 16, 32, 64))
NS_PER_S = 1_000_000_000

NUMBERS = {
    "drops": {
        "pkt_drop_latest_flags": "latest_flags",
        "pkt_drop_latest_state": "latest_state",
        "pkt_drop_latest_drop_cause": "latest_cause",
        "pkt_drop_packets_total": "packets",
        "pkt_drop_bytes_total": "bytes",
    },
    "dns": {
        "dns_id": "id",
        "dns_flags": "flags",
        "dns_errno": "errno",
        "dns_query_type": "question_type",
        "dns_messages": "messages",
    },
    "tcp": {
        "tcp_retransmit_packets": "retransmitted_packets",
        "tcp_retransmit_bytes": "retransmitted_bytes",
        "tcp_state": "state",
        "tcp_connect_ns": "connect_ns",
        "tcp_connect_errno": "connect_errno",
        "tcp_resets_sent": "resets_sent",
        "tcp_resets_received": "resets_received",
    },
    "kinds": {"record_kind": "kind"},
}
DURATIONS = {
    "rtt": {
        "time_flow_rtt": "smoothed_ns",
        "time_flow_rtt_min": "minimum_ns",
        "time_flow_rtt_max": "maximum_ns",
        "time_flow_rtt_handshake": "handshake_ns",
    },
    "dns": {"dns_latency": "latency_ns"},
}


def records_of(messages: list[Message]) -> list[pbflow_pb2.Record]:
    return [entry for part in messages for entry in pbflow_pb2.Records.FromString(bytes(part.payload)).entries]


def row_of(batch: FlowBatch, row: int) -> FlowBatch:
    rows = slice(row, row + 1)
    return attrs.evolve(batch, keys=batch.keys[rows], values=batch.values[rows], enrichment=NOTHING)


def as_utf8(text: str) -> str:
    return text.encode(errors="replace").decode()


def ip_of(raw: bytes, *, is_ipv4: bool) -> pbflow_pb2.IP:
    return pbflow_pb2.IP(ipv4=int.from_bytes(raw[12:], "big")) if is_ipv4 else pbflow_pb2.IP(ipv6=raw)


def process_of(value: np.void, names: Names) -> pbflow_pb2.Process:
    return pbflow_pb2.Process(
        pid=int(value["pid"]),
        name=value["command"].tobytes().split(b"\0")[0].decode(errors="replace"),
        cgroup_id=int(value["cgroup_id"]),
        container_id=as_utf8(names.containers.get(int(value["cgroup_id"]), "")),
    )


def add_fact(record: pbflow_pb2.Record, kind: str, value: np.void, batch: FlowBatch) -> None:
    """Say in a record what one row of facts says."""
    for field, column in NUMBERS.get(kind, {}).items():
        setattr(record, field, int(value[column]))
    for field, column in DURATIONS.get(kind, {}).items():
        seconds, nanos = divmod(int(value[column]), NS_PER_S)
        getattr(record, field).CopyFrom(Duration(seconds=seconds, nanos=nanos))
    match kind:
        case "drops":
            record.pkt_drop_packets = min(int(value["packets"]), U16)
            record.pkt_drop_bytes = min(int(value["bytes"]), U16)
            for cause, packets in list(zip(value["cause"].tolist(), value["cause_packets"].tolist(), strict=True))[
                : value["causes"]
            ]:
                name = as_utf8(batch.names.drop_reason(cause))
                record.pkt_drop_causes.add(cause=cause, name=name, packets=packets)
        case "dns":
            record.dns_name = name_text(value["name"][: value["name_bytes"]].tobytes())
        case "source":
            record.src_process.CopyFrom(process_of(value, batch.names))
        case "destination":
            record.dst_process.CopyFrom(process_of(value, batch.names))
        case "translation":
            addresses = value["src_addr"].tobytes(), value["dst_addr"].tobytes()
            is_ipv4 = all(raw.startswith(MAPPED) for raw in addresses)
            src_addr, dst_addr = (ip_of(raw, is_ipv4=is_ipv4) for raw in addresses)
            ports = int(value["src_port"]), int(value["dst_port"])
            zone = int(value["zone"])
            record.xlat.CopyFrom(
                pbflow_pb2.Xlat(
                    src_addr=src_addr, dst_addr=dst_addr, src_port=ports[0], dst_port=ports[1], zone_id=zone
                )
            )
        case "hooks":
            for hook in filter(None, value["hooks"][: value["count"]].tolist()):
                if len(record.dup_list) < MAX_HOOKS:
                    name, direction = batch.interfaces.describe(hook)
                    record.dup_list.add(interface=as_utf8(name), direction=direction)


def expected(batch: FlowBatch) -> list[pbflow_pb2.Record]:
    """Return the records of a batch: its rows alone and without facts, as they are encoded, and the facts put in."""
    records = [records_of(PbflowEncoder(AGENT_IP).encode(row_of(batch, row)))[0] for row in range(batch.flows)]
    for kind in DTYPES:
        facts = getattr(batch.enrichment, kind)
        for row, value in zip(facts.rows.tolist(), facts.values, strict=True):
            add_fact(records[row], kind, value, batch)
    return records


def canonical(record: pbflow_pb2.Record) -> bytes:
    """Return all that a record says. A process of which nothing is known is none."""
    for field in ("src_process", "dst_process"):
        if not getattr(record, field).ByteSize():
            record.ClearField(field)
    return record.SerializeToString(deterministic=True)


@pytest.mark.parametrize("chunk_flows", [3, 100])
@pytest.mark.parametrize("minimal", [False, True], ids=["padded", "minimal"])
@given(batch=enriched_batches(max_flows=8))
def test_any_facts(chunk_flows: int, minimal: bool, batch: FlowBatch) -> None:
    """Each record says what its row and its facts say and nothing else, wherever the batch is cut."""
    batch.values["flags"] &= np.uint64(U32)  # the kernel has 16 of them, and a Record holds 32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pbflow, "CHUNK_FLOWS", chunk_flows)
        patch.setattr(pbflow_chunk, "_ROWS_AT_ONCE", 2)
        messages = PbflowEncoder(AGENT_IP, minimal_varints=minimal).encode(batch)

    records = records_of(messages)
    if minimal:
        shortest = pbflow_pb2.Records(entries=records).SerializeToString()
        assert sum(len(message.payload) for message in messages) == len(shortest)
    assert Counter(map(canonical, records)) == Counter(map(canonical, expected(batch)))


SOME_NAMES = Names({3: "SKB_DROP_REASON_NO_SOCKET"}, {7: "0123456789abcdef" * 4})
EVERYTHING = {
    "drops": {"packets": 5, "bytes": 400, "latest_cause": 3, "causes": 2, "cause": [3, 4], "cause_packets": [4, 1]},
    "rtt": {"smoothed_ns": 2_500_000_000, "minimum_ns": 1, "maximum_ns": U64},
    "dns": {"id": 7, "flags": 0x8183, "question_type": 65, "name_bytes": 8, "name": b"\x03www\x03org", "messages": 2},
    "tcp": {"retransmitted_packets": 1, "connect_ns": 5, "connect_errno": 111},
    "source": {"pid": 4711, "cgroup_id": 7, "command": b"curl"},
    "destination": {"pid": 1, "cgroup_id": 1, "command": b"n\xff\xc3\xa4"},
    "translation": {"src_addr": MAPPED + b"\1\2\3\4", "dst_addr": bytes(16), "src_port": 80, "zone": 3},
    "hooks": {"count": 2, "hooks": [8, 9]},
    "kinds": {"kind": 1},
}


@pytest.mark.parametrize("minimal", [False, True], ids=["padded", "minimal"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_all_kinds_on_one_flow(minimal: bool, everywhere: bool) -> None:
    """A flow of which everything is known says everything, beside flows of which nothing is, or alone."""
    flows = [Flow(bytes=number) for number in range(1 if everywhere else 3)]
    row = len(flows) - 1
    batch = enriched(batch_of(*flows), SOME_NAMES, **{kind: {row: fact} for kind, fact in EVERYTHING.items()})

    records = records_of(PbflowEncoder(None, minimal_varints=minimal).encode(batch))

    (record,) = (record for record in records if record.bytes == row)
    assert [(cause.cause, cause.name, cause.packets) for cause in record.pkt_drop_causes] == [
        (3, "SKB_DROP_REASON_NO_SOCKET", 4),
        (4, "REASON_4", 1),
    ]
    assert record.time_flow_rtt.ToNanoseconds() == 2_500_000_000
    assert record.time_flow_rtt_max.seconds == U64 // NS_PER_S
    assert (record.dns_name, record.dns_query_type, record.dns_id) == ("www.org", 65, 7)
    assert (record.tcp_connect_ns, record.tcp_connect_errno) == (5, 111)
    assert record.src_process == pbflow_pb2.Process(
        pid=4711, name="curl", cgroup_id=7, container_id=SOME_NAMES.containers[7]
    )
    assert record.dst_process.name == "n\ufffdä"
    assert record.xlat.dst_addr.ipv6 == bytes(16)
    assert record.xlat.src_addr.ipv6 == MAPPED + b"\1\2\3\4"
    assert [entry.interface for entry in record.dup_list] == ["eth0", "ifindex8", "ifindex9"]
    assert record.record_kind == pbflow_pb2.RECORD_KIND_CONTINUATION
    for other in records:
        if other.bytes != row:
            assert not [field.name for field, _ in other.ListFields() if field.number >= 1000]


@pytest.mark.parametrize(
    ("packets", "octets", "clamped"),
    [(65_534, 65_535, (65_534, 65_535)), (65_536, 1 << 32, (65_535, 65_535)), (U64, U64, (65_535, 65_535))],
)
def test_drops_beyond_16_bits(packets: int, octets: int, clamped: tuple[int, int]) -> None:
    """Where collectors cut high bits off, drops end at the highest number; in our own fields they are whole."""
    batch = enriched(batch_of(Flow()), drops={0: {"packets": packets, "bytes": octets}})

    (record,) = records_of(PbflowEncoder(None).encode(batch))

    assert (record.pkt_drop_packets, record.pkt_drop_bytes) == clamped
    assert (record.pkt_drop_packets_total, record.pkt_drop_bytes_total) == (packets, octets)


@pytest.mark.parametrize("minimal", [False, True], ids=["padded", "minimal"])
@pytest.mark.parametrize("address", [bytes(16), MAPPED + bytes(4), b"\xff" * 16])
def test_translation_of_zeros(minimal: bool, address: bytes) -> None:
    """Collectors dereference both addresses of a translation: they are there whatever they are."""
    batch = enriched(batch_of(Flow()), translation={0: {"src_addr": address, "dst_addr": address}})

    (record,) = records_of(PbflowEncoder(None, minimal_varints=minimal).encode(batch))

    for ip in (record.xlat.src_addr, record.xlat.dst_addr):
        assert (MAPPED + ip.ipv4.to_bytes(4, "big") if ip.HasField("ipv4") else ip.ipv6) == address


@pytest.mark.parametrize("more", [57, 58, 64])
def test_sixty_four_interfaces(more: int) -> None:
    """A record lists up to 64 hooks, those in its row first."""
    observed = tuple(hook_of(ifindex, Direction.EGRESS) for ifindex in range(10, 16))
    flow = Flow(home=hook_of(ETH0, Direction.INGRESS), observed=observed)
    hooks = list(range(1000, 1000 + more))

    (record,) = records_of(
        PbflowEncoder(None).encode(enriched(batch_of(flow), hooks={0: {"count": more, "hooks": hooks}}))
    )

    names = ["eth0", *(f"ifindex{number}" for number in range(10, 16)), *(f"ifindex{hook}" for hook in hooks)]
    assert [entry.interface for entry in record.dup_list] == names[:64]


@pytest.mark.parametrize("minimal", [False, True], ids=["padded", "minimal"])
@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_many_flows(minimal: bool, share: float) -> None:
    """However many rows are encoded at once, each fact is in the record of its flow, and in no other."""
    count, random = 20_011, np.random.default_rng(5)
    batch = batch_of(*[Flow(), Flow(src="2001:db8::1"), Flow(observed=(hook_of(VETH, Direction.EGRESS),))] * 7)
    keys, values = (rows.repeat(1 + count // len(rows))[:count].copy() for rows in (batch.keys, batch.values))
    values["bytes"] = np.arange(count)
    facts = {}
    for kind in ("drops", "rtt", "dns", "tcp", "source"):
        rows = np.flatnonzero(random.random(count) < share)
        facts[kind] = Facts(rows, np.zeros(len(rows), DTYPES[kind]))
    facts["drops"].values["bytes"] = facts["drops"].rows + 70_000
    facts["rtt"].values["maximum_ns"] = facts["rtt"].rows
    facts["tcp"].values["retransmitted_packets"] = facts["tcp"].rows + 1
    facts["source"].values["pid"] = facts["source"].rows + 1
    facts["source"].values["command"][:, :5] = ord("a") + facts["source"].rows[:, None] // (1, 2, 3, 5, 7) % 26
    facts["dns"].values["name_bytes"] = sizes = 2 + facts["dns"].rows % 60
    facts["dns"].values["name"][:, 0] = sizes - 1
    facts["dns"].values["name"][:, 1:62] = ord("x")
    known = {kind: set(some.rows.tolist()) for kind, some in facts.items()}

    messages = PbflowEncoder(None, minimal_varints=minimal).encode(
        FlowBatch(keys, values, 0, batch.interfaces, Enrichment(**facts))
    )

    records = records_of(messages)
    assert sorted(record.bytes for record in records) == list(range(count))
    assert sum(message.bytes for message in messages) == count * (count - 1) // 2
    for record in records:
        row = record.bytes
        assert record.pkt_drop_bytes_total == (row + 70_000 if row in known["drops"] else 0)
        assert record.time_flow_rtt_max.nanos == (row if row in known["rtt"] else 0)
        assert record.tcp_retransmit_packets == (row + 1 if row in known["tcp"] else 0)
        assert record.src_process.pid == (row + 1 if row in known["source"] else 0)
        command = "".join(chr(ord("a") + row // step % 26) for step in (1, 2, 3, 5, 7))
        assert record.src_process.name == (command if row in known["source"] else "")
        assert record.dns_name == ("x" * (1 + row % 60) if row in known["dns"] else "")


def without_ours() -> type:
    """Return the class Records of an agent or collector that has only the protocol's own fields."""
    file = descriptor_pb2.FileDescriptorProto()
    pbflow_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = "old.proto", "old"
    for message in file.message_type:
        for field in [field for field in message.field if field.number >= 1000]:
            message.field.remove(field)
        for field in [*message.field, *(field for nested in message.nested_type for field in nested.field)]:
            if field.type_name:
                field.type_name = field.type_name.replace(".pbflow.", ".old.")
    del file.service[:]
    pool = descriptor_pool.DescriptorPool()
    for known in pbflow_pb2.DESCRIPTOR.dependencies:
        dependency = descriptor_pb2.FileDescriptorProto()
        known.CopyToProto(dependency)
        pool.Add(dependency)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("old.Records"))


OLD_RECORDS = without_ours()


@pytest.mark.parametrize("minimal", [False, True], ids=["padded", "minimal"])
@given(batch=enriched_batches(max_flows=4))
@settings(max_examples=50)
def test_collector_that_does_not_know_our_fields(minimal: bool, batch: FlowBatch) -> None:
    """Who has only the protocol's own fields reads these as if ours were not there."""
    for message in PbflowEncoder(AGENT_IP, minimal_varints=minimal).encode(batch):
        entries = OLD_RECORDS.FromString(bytes(message.payload)).entries

        ours = pbflow_pb2.Records.FromString(bytes(message.payload)).entries
        for entry in ours:
            for field, _ in entry.ListFields():
                if field.number >= 1000:
                    entry.ClearField(field.name)
        for entry in entries:
            entry.DiscardUnknownFields()
        assert [entry.SerializeToString(deterministic=True) for entry in entries] == [
            entry.SerializeToString(deterministic=True) for entry in ours
        ]


def largest() -> FlowBatch:
    """Return the flow with the longest record: all numbers as high, all texts as long as Linux makes them."""
    hooks = [0xFFFF_FF00 + number for number in range(MAX_HOOKS)]
    names = InterfaceNames({0x7FFF_FF00 + number: f"interface-{number:05}" for number in range(MAX_HOOKS)})
    keys, values = np.zeros(1, FLOW_KEY), np.zeros(1, FLOW_VALUE)
    for rows in (keys, values):
        rows.view(np.uint8)[...] = U8
    values["first_ns"], values["home"], values["observed"] = 0, hooks[0], hooks[1:7]
    facts = {kind: np.frombuffer(b"\xff" * dtype.itemsize, dtype).copy() for kind, dtype in DTYPES.items()}
    facts["drops"]["causes"], facts["drops"]["cause"] = 6, np.arange(6) + U32 - 10
    facts["hooks"]["count"], facts["hooks"]["hooks"][:, : MAX_HOOKS - 7] = MAX_HOOKS - 7, hooks[7:]
    facts["dns"]["name"][:, [0, 64, 128, 192]] = 63, 63, 63, 62
    facts["kinds"]["kind"] = 2
    enrichment = Enrichment(**{kind: Facts(np.zeros(1, np.intp), values) for kind, values in facts.items()})
    reasons = {U32 - 10 + number: f"{number:064}" for number in range(6)}
    return FlowBatch(keys, values, 0, names, enrichment, Names(reasons, {U64: "f" * 64}))


@pytest.mark.parametrize("minimal", [False, True], ids=["padded", "minimal"])
def test_largest_record(minimal: bool) -> None:
    """With all facts at their longest, a record stays within the 4,096 bytes that the limits are reckoned with."""
    (message,) = PbflowEncoder(ipaddress.ip_address("ffff::ffff"), minimal_varints=minimal).encode(largest())

    (record,) = records_of([message])
    assert len(record.dup_list) == MAX_HOOKS
    assert len(record.dns_name) > 1000
    assert len(record.src_process.name.encode()) == 3 * OWNER["command"].itemsize
    assert len(message.payload) <= 4096


@pytest.mark.parametrize("minimal", [False, True], ids=["padded", "minimal"])
@given(batch=enriched_batches(max_flows=8), max_bytes=st.integers(512, 8192), max_flows=st.integers(1, 8))
@settings(max_examples=50)
def test_limits_of_a_message(minimal: bool, batch: FlowBatch, max_bytes: int, max_flows: int) -> None:
    """Records of very different length are cut into messages within the limits, whose sums say what is in them."""
    encoder = PbflowEncoder(None, minimal, max_message_flows=max_flows, max_message_bytes=max_bytes)

    messages = encoder.encode(batch)

    assert sum(message.flows for message in messages) == batch.flows
    for message in messages:
        entries = records_of([message])
        assert len(entries) == message.flows <= max_flows
        assert len(message.payload) <= max_bytes or message.flows == 1
        assert sum(entry.bytes for entry in entries) == message.bytes


def test_batch_is_shared() -> None:
    """Encoding changes no facts, which other exporters read."""
    batch = enriched(
        batch_of(Flow(), Flow(src="::1")), SOME_NAMES, **{kind: {1: fact} for kind, fact in EVERYTHING.items()}
    )
    before = [(facts.rows.copy(), facts.values.copy()) for facts in batch.enrichment.facts()]

    for minimal in (False, True):
        PbflowEncoder(None, minimal_varints=minimal).encode(batch)

    for (rows, values), facts in zip(before, batch.enrichment.facts(), strict=True):
        assert rows.tolist() == facts.rows.tolist()
        assert values.tobytes() == facts.values.tobytes()
