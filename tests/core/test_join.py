"""The join: where every event ends, whatever comes in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netwatch.core import join as join_module
from netwatch.core import key_hash
from netwatch.core.dns_fact import DNS_FACT
from netwatch.core.enrichment import Enrichment, Facts, RecordKind
from netwatch.core.event_facts import head_of
from netwatch.core.events import EVENT_TYPES
from netwatch.core.join import JoinStore
from netwatch.core.layout import FLOW_KEY, FLOW_VALUE, HOOK_EGRESS, EventKind, FlowEnd
from netwatch.ledger import FlowAmount

WATCHED = (2, 3)
HOME = 2
PORTS = st.integers(1, 4)
TIMES = st.integers(1, 400)


@attrs.frozen
class Told:
    """An event, small enough to be shown."""

    kind: EventKind
    port: int
    time_ns: int
    number: int = 1
    hook: int = HOME


TOLD = st.builds(
    Told, st.sampled_from(EventKind), PORTS, TIMES, st.integers(1, 9), st.sampled_from([2, 3, 9, 2 | HOOK_EGRESS])
)


def event_of(told: Told) -> np.ndarray:
    """Lay one event out."""
    event = np.zeros(1, DNS_FACT if told.kind is EventKind.DNS else EVENT_TYPES[told.kind])
    head_of(event)["time_ns"], head_of(event)["key"]["src_port"] = told.time_ns, told.port
    if told.kind is not EventKind.DNS:
        event["event"]["hook"], event["event"]["kind"] = told.hook, told.kind
    match told.kind:
        case EventKind.DROP:
            event["packets"], event["bytes"], event["reason"] = told.number, told.number * 100, told.number % 3
            event["first_ns"], event["eth_type"] = told.time_ns, 0x800
        case EventKind.RTT:
            event["smoothed_us"] = told.number
        case EventKind.TCP:
            event["packets"], event["bytes"], event["state"] = told.number, told.number * 60, told.number
            event["happening"] = told.number % 4
        case EventKind.OWNER:
            event["owner"]["pid"], event["end"] = told.number, told.number % 2
        case EventKind.FLOW:
            event["packets"], event["bytes"], event["eth_type"] = told.number, told.number * 100, 0x800
        case EventKind.DNS:
            event["dns"]["id"], event["dns"]["messages"] = told.number, 1
    return event


def rows_of(ports: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of a closed epoch, one a port."""
    ports = sorted(set(ports))
    keys, values = np.zeros(len(ports), FLOW_KEY), np.zeros(len(ports), FLOW_VALUE)
    keys["src_port"] = ports
    values["packets"], values["bytes"], values["home"], values["flags"] = 1, 100, HOME, 0x10
    values["src_mac"], values["dst_mac"], values["observed"][:, 0] = 7, 8, 3
    return keys, values


def facts(found: Facts, row: int) -> bytes | None:
    place = np.flatnonzero(found.rows == row)
    return found.values[place[0]].tobytes() if len(place) else None


def shown(keys: np.ndarray, values: np.ndarray, enrichment: Enrichment) -> list[tuple[object, ...]]:
    """Return records as values that can be compared, in any order."""
    return sorted(
        (
            *(int(keys["src_port"][row]), values[row].tobytes()),
            *(str(facts(found, row)) for found in enrichment.facts()),
        )
        for row in range(len(keys))
    )


@attrs.define
class Run:
    """A store with all that came out of it."""

    store: JoinStore = attrs.field(factory=lambda: JoinStore(10_000, 10_000))
    records: list[tuple[object, ...]] = attrs.Factory(list)
    duplicate_packets: int = 0
    lost: FlowAmount = attrs.Factory(FlowAmount)
    packets_in_rows: int = 0

    def add(self, *told: Told) -> None:
        for one in told:
            self.store.add(one.kind, event_of(one))

    def drain(self, closed_ns: int, ports: Sequence[int] = (), *, final: bool = False) -> list[tuple[object, ...]]:
        """Join the rows of an epoch, in two chunks; return the records that the flows and the leftovers became."""
        joining = self.store.close(closed_ns, WATCHED, final=final)
        out: list[tuple[object, ...]] = []
        keys, values = rows_of(ports)
        for part in (slice(0, 2), slice(2, None)):
            out += shown(keys[part], values[part], joining.join(keys[part], values[part]))
        overflow = joining.overflow_rows()
        self.packets_in_rows += int(overflow[1]["packets"].sum())
        out += shown(*overflow, joining.join(*overflow))
        out += shown(*joining.finish())
        self.duplicate_packets += joining.duplicate_packets
        self.lost += joining.lost
        self.records += out
        self.check()
        return out

    def check(self) -> None:
        for kind in EventKind:
            assert self.store.ends(kind).is_complete, (kind, self.store.ends(kind))
        held = sum(self.store.ends(kind).held for kind in EventKind)
        assert held <= self.store.max_pending_events
        assert len(self.store.recent) <= self.store.max_recent_flows


EPOCHS = st.lists(st.tuples(st.lists(TOLD, max_size=8), st.lists(PORTS, max_size=3)), max_size=5)


@given(EPOCHS, st.integers(0, 12), st.integers(0, 5), st.booleans())
@settings(max_examples=300)
def test_every_event_ends_in_one_place(
    epochs: list[tuple[list[Told], list[int]]], pending: int, recent: int, is_packet_sampled: bool
) -> None:
    """Taken is joined, continued, drop-only, unclaimed, not sampled, evicted or held, whatever the bounds.

    At the end nothing is held, and each packet that came through the ring is in a row, a duplicate, or lost.
    """
    run = Run(JoinStore(pending, recent, is_packet_sampled))
    sent = 0
    for number, (told, ports) in enumerate(epochs, 1):
        for one in told:
            run.add(one)
            run.check()
            sent += one.number if one.kind is EventKind.FLOW else 0
        run.drain(number * 100, ports)
    run.drain(10_000, final=True)
    assert all(run.store.ends(kind).held == 0 for kind in EventKind)
    assert sent == run.packets_in_rows + run.duplicate_packets + run.lost.packets
    if is_packet_sampled:
        assert all(run.store.ends(kind).drop_only == 0 for kind in EventKind)
    else:
        assert all(run.store.ends(kind).not_sampled == 0 for kind in EventKind)


@given(st.lists(TOLD, max_size=12), st.lists(PORTS, max_size=3), st.lists(PORTS, max_size=3), st.randoms())
@settings(max_examples=300)
def test_order_of_arrival_never_matters(told: list[Told], first: list[int], second: list[int], random) -> None:  # type: ignore[no-untyped-def]
    """The same events in another order give the same records, also those of equal times."""
    shuffled = list(told)
    random.shuffle(shuffled)
    runs = []
    for order in (told, shuffled):
        run = Run()
        run.add(*order)
        run.drain(100, first)
        run.drain(200, second)
        run.drain(300, final=True)
        runs.append(run)
    assert runs[0].records == runs[1].records
    assert [runs[0].store.ends(kind) for kind in EventKind] == [runs[1].store.ends(kind) for kind in EventKind]


@given(st.lists(TOLD, max_size=10), st.lists(PORTS, max_size=4))
@settings(max_examples=100)
def test_keys_that_share_a_hash(told: list[Told], ports: list[int]) -> None:
    """A hash only narrows the search: with the same for all keys the records are the same."""
    with pytest.MonkeyPatch.context() as patch:
        plain, colliding = Run(), Run()
        plain.add(*told)
        plain.drain(200, ports)
        for module in (key_hash, join_module):
            patch.setattr(module, "hash_words", lambda words: np.full(len(words), 7, np.uint64))
        colliding.add(*told)
        colliding.drain(200, ports)
    assert sorted(plain.records) == sorted(colliding.records)


def kinds(store: JoinStore, kind: EventKind) -> dict[str, int]:
    return {name: count for name, count in attrs.asdict(store.ends(kind)).items() if count}


def test_event_of_a_row() -> None:
    """An event that happened before the epoch closed is in the flow's row."""
    run = Run()
    run.add(Told(EventKind.DROP, 1, 50, 3), Told(EventKind.DROP, 1, 60, 4))
    joining = run.store.close(100, WATCHED)
    enrichment = joining.join(*rows_of([2, 1]))
    assert enrichment.drops.rows.tolist() == [0]
    drops = enrichment.drops.values[0]
    assert (drops["packets"], drops["bytes"], drops["latest_cause"], drops["causes"]) == (7, 700, 1, 2)
    assert (drops["cause"][:2].tolist(), drops["cause_packets"][:2].tolist()) == ([1, 0], [4, 3])
    assert len(joining.finish()[0]) == 0
    assert kinds(run.store, EventKind.DROP) == {"taken": 2, "joined": 2}


def test_event_after_the_close_waits() -> None:
    """What happened later belongs to the next epoch, where its row is."""
    run = Run()
    run.add(Told(EventKind.DROP, 1, 150))
    run.drain(100, [1])
    assert kinds(run.store, EventKind.DROP) == {"taken": 1, "held": 1}
    run.drain(200, [1])
    assert kinds(run.store, EventKind.DROP) == {"taken": 1, "joined": 1}


def last_record(run: Run, closed_ns: int) -> tuple[np.ndarray, np.ndarray, Enrichment]:
    joining = run.store.close(closed_ns, WATCHED)
    return joining.finish()


def test_continuation() -> None:
    """An event whose row has left waits for one more drain, then repeats what is known of the flow, without packets."""
    run = Run()
    owner = Told(EventKind.OWNER, 1, 50, 2 * 21 + FlowEnd.SOURCE)
    run.add(owner)
    run.drain(100, [1])
    run.add(Told(EventKind.DROP, 1, 150))
    assert run.drain(200) == []
    keys, values, enrichment = last_record(run, 300)
    assert keys["src_port"].tolist() == [1]
    assert enrichment.kinds.values["kind"].tolist() == [RecordKind.CONTINUATION]
    value = values[0]
    assert (value["packets"], value["bytes"], value["home"], value["flags"]) == (0, 0, HOME, 0x10)
    assert (value["src_mac"].tolist(), value["dst_mac"].tolist(), value["observed"][0]) == ([7] * 6, [8] * 6, 3)
    assert (value["first_ns"], value["last_ns"]) == (150, 150)
    assert enrichment.source.values["pid"].tolist() == [42]
    assert kinds(run.store, EventKind.DROP) == {"taken": 1, "continued": 1}


def test_drop_only() -> None:
    """A drop at a watched interface, of a flow that no hook saw, is a record of its own, with all that is told."""
    run = Run()
    run.add(Told(EventKind.DROP, 1, 50, hook=3 | HOOK_EGRESS), Told(EventKind.TCP, 1, 60))
    assert run.drain(100) == []
    keys, values, enrichment = last_record(run, 200)
    assert keys["src_port"].tolist() == [1]
    assert enrichment.kinds.values["kind"].tolist() == [RecordKind.DROP_ONLY]
    assert (values["packets"][0], values["home"][0], values["eth_type"][0]) == (0, 3 | HOOK_EGRESS, 0x800)
    assert len(enrichment.tcp) == 1
    assert kinds(run.store, EventKind.DROP) == kinds(run.store, EventKind.TCP) == {"taken": 1, "drop_only": 1}


@pytest.mark.parametrize(
    "told",
    [Told(EventKind.DROP, 1, 50, hook=9), Told(EventKind.DROP, 1, 50, hook=0), Told(EventKind.TCP, 1, 50)],
    ids=["another interface", "no interface", "no drop"],
)
def test_unclaimed(told: Told) -> None:
    """What is told of traffic that nobody watches is counted, and no record."""
    run = Run()
    run.add(told)
    assert run.drain(100) == run.drain(200) == []
    assert kinds(run.store, told.kind) == {"taken": 1, "unclaimed": 1}


@pytest.mark.parametrize("kind", [EventKind.OWNER, EventKind.HOOK])
def test_what_says_nothing_alone(kind: EventKind) -> None:
    """Who owned a flow that has left, or where else it was seen, is no reason for another record of it."""
    run = Run()
    run.drain(100, [1])
    run.add(Told(kind, 1, 150))
    assert run.drain(200) == run.drain(300) == []
    assert kinds(run.store, kind) == {"taken": 1, "unclaimed": 1}


def test_overflow() -> None:
    """Packets that found the map full are a row at their flow's home; elsewhere duplicates that note the hook."""
    run = Run()
    run.drain(100, [1])
    run.add(Told(EventKind.FLOW, 1, 150, 5, hook=3), Told(EventKind.FLOW, 1, 160, 4), Told(EventKind.FLOW, 1, 170, 3))
    run.add(Told(EventKind.DROP, 1, 165, 2))
    joining = run.store.close(200, WATCHED)
    keys, values = joining.overflow_rows()
    assert len(keys) == 1
    assert (values["packets"][0], values["bytes"][0], values["home"][0]) == (7, 700, HOME)
    assert (values["first_ns"][0], values["last_ns"][0], values["observed"][0, 0]) == (160, 170, 3)
    assert (joining.duplicate_packets, joining.duplicate_bytes) == (5, 500)
    assert joining.join(keys, values).drops.values["packets"].tolist() == [2]
    assert len(joining.finish()[0]) == 0
    assert kinds(run.store, EventKind.FLOW) == {"taken": 3, "joined": 3}


def test_further_hooks() -> None:
    """Each is told once, and none that the row has itself."""
    run = Run()
    run.add(*(Told(EventKind.HOOK, 1, 50 + n, hook=hook) for n, hook in enumerate((9, 3, 2, 8, 9))))
    enrichment = run.store.close(100, WATCHED).join(*rows_of([1]))
    (more,) = enrichment.hooks.values
    assert (more["count"], more["hooks"][:3].tolist()) == (2, [8, 9, 0])


def test_eviction() -> None:
    """Past the limit the oldest to arrive go, and packets among them are lost."""
    run = Run(JoinStore(3, 10))
    run.add(Told(EventKind.FLOW, 1, 50, 5), *(Told(EventKind.DROP, 1, 60) for _ in range(4)))
    assert kinds(run.store, EventKind.FLOW) == {"taken": 1, "evicted": 1}
    assert kinds(run.store, EventKind.DROP) == {"taken": 4, "evicted": 1, "held": 3}
    assert run.store.close(100, WATCHED).lost == FlowAmount(0, 5, 500)


@given(st.integers(40, 120), st.integers(0, 8))
def test_packet_without_room_that_comes_last(time_ns: int, later_ns: int) -> None:
    """It leaves with an epoch that what was told of it right afterwards belongs to, too; whichever epoch that is."""
    run = Run(JoinStore(10, 10, overflow_grace_ns=10))
    run.add(Told(EventKind.FLOW, 1, time_ns), Told(EventKind.DROP, 1, time_ns + later_ns))
    for closed_ns in (100, 200, 300):
        run.drain(closed_ns)
    assert len(run.records) == 1
    assert kinds(run.store, EventKind.DROP) == {"taken": 1, "joined": 1}
