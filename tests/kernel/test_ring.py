"""The ring in this process: who is woken, and when. Packets that find the flow map full are its events."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import trio
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from netwatch.core.events import decode
from netwatch.core.layout import EventKind
from netwatch.kernel.flow_map import FlowMaps
from netwatch.kernel.program import LoadedPrograms, ProgramSettings, load_programs
from netwatch.kernel.ring import Ring
from netwatch.kernel.syscall import test_run as run_program
from tests.kernel.waiting import PATIENCE_S

SLOTS = 512
SHORT_S = 0.3


@pytest.fixture(scope="module")
def loaded() -> Iterator[LoadedPrograms]:
    """Load the programs, with room for one flow."""
    loaded = load_programs(ProgramSettings(1, 16, enrich=["overflow"], ring_bytes=SLOTS * 128))
    FlowMaps(loaded)
    send(loaded, range(1))
    yield loaded
    loaded.close()


@pytest.fixture
def ring(loaded: LoadedPrograms) -> Iterator[Ring]:
    """Map the ring, and empty it."""
    ring = Ring(loaded.maps["ring"], max_slots=200)
    ports_in(ring)
    yield ring
    ports_in(ring)
    ring.close()


def send(loaded: LoadedPrograms, ports: range) -> None:
    """Let a packet of each flow come in."""
    for port in ports:
        packet = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1_000 + port, dport=9) / bytes(20)
        run_program(loaded.programs["ingress_ethernet"], bytes(packet))


def ports_in(ring: Ring, *, lingers: bool = False) -> list[int]:
    """Take all that there is, and return which flows it is about."""
    ports: list[int] = []
    while len(slots := ring.take(lingers=lingers)):
        ports += (decode(slots).by_kind[EventKind.FLOW]["event"]["key"]["src_port"] - 1_000).tolist()
    return ports


def waited_s(ring: Ring, at_most_s: float) -> float:
    """Wait for the ring, and return how long that was."""
    began = time.monotonic()
    trio.run(ring.wait, at_most_s)
    return time.monotonic() - began


def test_first_event_wakes(loaded: LoadedPrograms, ring: Ring) -> None:
    """One that comes into the ring after it was emptied is told at once, and only that one."""
    send(loaded, range(1, 2))
    assert waited_s(ring, PATIENCE_S) < PATIENCE_S
    send(loaded, range(2, 9))
    assert waited_s(ring, SHORT_S) >= SHORT_S
    assert ports_in(ring) == list(range(1, 9))


def test_lingering(loaded: LoadedPrograms, ring: Ring) -> None:
    """Who comes back by a clock is not woken by what comes in between, and gets all of it once."""
    send(loaded, range(1, 9))
    assert waited_s(ring, PATIENCE_S) < PATIENCE_S
    assert ports_in(ring, lingers=True) == list(range(1, 9))
    send(loaded, range(9, 20))
    assert waited_s(ring, SHORT_S) >= SHORT_S
    assert ports_in(ring, lingers=True) == list(range(9, 20))
    # From then on who does not linger is woken again.
    assert ports_in(ring) == []
    send(loaded, range(20, 21))
    assert waited_s(ring, PATIENCE_S) < PATIENCE_S
    assert ports_in(ring) == [20]


def test_quarter_wakes_who_lingers(loaded: LoadedPrograms, ring: Ring) -> None:
    """A ring that fills is told at once, whoever waits; at each position once."""
    send(loaded, range(1, 9))
    assert waited_s(ring, PATIENCE_S) < PATIENCE_S
    ports_in(ring, lingers=True)
    send(loaded, range(9, SLOTS // 4 + 20))
    assert waited_s(ring, PATIENCE_S) < PATIENCE_S
    assert ports_in(ring, lingers=True) == list(range(9, SLOTS // 4 + 20))


def test_full(loaded: LoadedPrograms, ring: Ring) -> None:
    """What finds no room is gone; what is there comes in order, around the end of the ring too."""
    for turn in range(3):
        send(loaded, range(1, 2 * SLOTS))
        taken = ports_in(ring, lingers=turn == 1)
        assert taken == list(range(1, len(taken) + 1))
        # A record that stays for the kernel's eyes takes a slot; the kernel leaves another one free.
        assert SLOTS - 2 <= len(taken) <= SLOTS
