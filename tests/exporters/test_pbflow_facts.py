"""Facts over the wire: what the columns say is what an independent decoder reads."""

from __future__ import annotations

import ipaddress

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netwatch.core.batch import FlowBatch
from netwatch.core.batch_records import records_of
from netwatch.core.enrichment import RecordKind
from netwatch.core.pbflow import PbflowEncoder
from netwatch.core.record import FlowRecord
from netwatch.core.record_facts import NO_FACTS, ProcessFacts, RecordFacts, RttFacts, TcpFacts
from netwatch.exporters.pbflow_pb2 import Records
from netwatch.exporters.pbflow_reader import read_records
from tests.core.enriched import enriched, enriched_batches
from tests.core.flows import batches

AGENT = ipaddress.ip_address("192.0.2.1")
_NOBODY = ProcessFacts(0, "", 0, "")


def through_the_wire(batch: FlowBatch, *, minimal_varints: bool) -> list[FlowRecord]:
    messages = PbflowEncoder(AGENT, minimal_varints=minimal_varints).encode(batch)
    return [record for message in messages for record in read_records(bytes(message.payload))]


def as_seen(facts: RecordFacts) -> RecordFacts:
    """Return facts as proto3 can tell them: what is all zero is not there."""
    drops, dns = facts.drops, facts.dns
    if drops and not (drops.packets or drops.bytes or drops.causes or drops.latest_cause != "REASON_0"):
        drops = None
    if dns and not (dns.id or dns.flags or dns.errno or dns.name or dns.messages):
        dns = None
    return attrs.evolve(
        facts,
        drops=drops,
        rtt=facts.rtt if facts.rtt != RttFacts(0, 0, 0, 0) else None,
        dns=dns,
        tcp=facts.tcp if facts.tcp != TcpFacts(0, 0, 0, 0, 0, 0, 0) else None,
        source=facts.source if facts.source != _NOBODY else None,
        destination=facts.destination if facts.destination != _NOBODY else None,
    )


def identity(record: FlowRecord) -> tuple[object, ...]:
    return (record.src_addr, record.dst_addr, record.src_port, record.dst_port, record.protocol, record.bytes)


@pytest.mark.parametrize("minimal_varints", [False, True])
@given(batch=enriched_batches())
@settings(max_examples=150)
def test_every_kind_of_fact(batch: FlowBatch, minimal_varints: bool) -> None:
    """Sparse facts of any kind arrive with their rows, in both ways of writing numbers."""
    sent = records_of(batch, str(AGENT))
    received = through_the_wire(batch, minimal_varints=minimal_varints)
    assert len(sent) == len(received)
    left = list(received)
    for record in sent:
        same = [other for other in left if identity(other) == identity(record) and _agree(record, other)]
        assert same, (record, left)
        left.remove(same[0])


def _agree(sent: FlowRecord, received: FlowRecord) -> bool:
    expected = as_seen(sent.facts)
    found = as_seen(received.facts)
    for name in ("rtt", "tcp", "translation", "kind", "dns"):
        if getattr(expected, name) != getattr(found, name):
            return False
    for name in ("source", "destination"):
        ours, theirs = getattr(expected, name), getattr(found, name)
        if (ours is None) != (theirs is None) or (
            ours and (ours.pid, ours.cgroup_id) != (theirs.pid, theirs.cgroup_id)
        ):
            return False
    ours, theirs = expected.drops, found.drops
    if ours is None or theirs is None:
        return (ours is None) == (theirs is None)
    same = (ours.packets, ours.bytes, ours.latest_flags, ours.latest_state)
    return same == (theirs.packets, theirs.bytes, theirs.latest_flags, theirs.latest_state) and [
        packets for _, packets in ours.causes
    ] == [packets for _, packets in theirs.causes]


@given(batches(max_flows=3).filter(lambda batch: batch.flows == 1))
@settings(max_examples=20)
def test_what_collectors_cut_off(batch: FlowBatch) -> None:
    """Drops end at 16 bits in the protocol's own fields, and are whole in ours; what receivers dereference is there."""
    drops = {0: {"packets": 70_000, "bytes": 7_000_000, "latest_cause": 2, "causes": 1, "cause": [2]}}
    translation = {0: {"src_port": 1}}
    (message,) = PbflowEncoder(AGENT).encode(enriched(batch, drops=drops, translation=translation))
    (entry,) = Records.FromString(bytes(message.payload)).entries
    assert (entry.pkt_drop_packets, entry.pkt_drop_bytes) == (65_535, 65_535)
    assert (entry.pkt_drop_packets_total, entry.pkt_drop_bytes_total) == (70_000, 7_000_000)
    assert entry.HasField("network")
    assert entry.HasField("transport")
    assert entry.xlat.HasField("src_addr")
    assert entry.xlat.HasField("dst_addr")


@given(batches(max_flows=3))
@settings(max_examples=20)
def test_nothing_is_told(batch: FlowBatch) -> None:
    """Flows without facts come without any, and are ordinary flows."""
    for record in through_the_wire(batch, minimal_varints=False):
        assert record.facts == NO_FACTS
        assert record.facts.kind is RecordKind.FLOW


@given(st.data())
@settings(max_examples=20)
def test_a_reader_that_does_not_know_ours(data: st.DataObject) -> None:
    """Fields from 1000 up can be left out: what is left is a whole record of the protocol."""
    batch = data.draw(enriched_batches())
    for message in PbflowEncoder(AGENT).encode(batch):
        known = Records.FromString(bytes(message.payload))
        for entry in known.entries:
            for field, _ in entry.ListFields():
                if field.number >= 1000:
                    entry.ClearField(field.name)
        assert len(Records.FromString(known.SerializeToString()).entries) == len(known.entries)
