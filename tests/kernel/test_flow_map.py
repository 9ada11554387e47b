"""The flow maps in rotation, in this process: every row once, whichever way a map is emptied."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from netwatch.kernel import flow_map
from netwatch.kernel.flow_map import FlowMaps
from netwatch.kernel.program import LoadedPrograms, ProgramSettings, load_programs
from netwatch.kernel.syscall import test_run as run_program

MAX_FLOWS = 600


@pytest.fixture(scope="module")
def loaded() -> Iterator[LoadedPrograms]:
    """Load the programs, with small maps."""
    loaded = load_programs(ProgramSettings(MAX_FLOWS, 16))
    yield loaded
    loaded.close()


def send(loaded: LoadedPrograms, ports: range) -> None:
    """Let a packet of each flow come in."""
    for port in ports:
        packet = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=port, dport=9) / bytes(20)
        run_program(loaded.programs["ingress_ethernet"], bytes(packet))


def turn(maps: FlowMaps) -> list[int]:
    """Drain once and return the source ports of the rows."""
    for _ in maps.clear_idle():
        pass
    maps.flip()
    return sorted(int(port) for keys, _ in maps.read_closed() for port in keys["src_port"])


@pytest.mark.parametrize("has_memory", [True, False])
@pytest.mark.parametrize("flows", [50, 500])
def test_rotation(loaded: LoadedPrograms, flows: int, has_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each epoch's rows come out once and never again; a map that was well filled is replaced, if there is memory."""
    made: list[int] = []
    create_hash = flow_map.create_hash

    def create(name: str, key_bytes: int, value_bytes: int, entries: int) -> int:
        made.append(entries)
        if not has_memory:
            raise OSError(errno.ENOMEM, "no memory")
        return create_hash(name, key_bytes, value_bytes, entries)

    monkeypatch.setattr(flow_map, "create_hash", create)
    maps = FlowMaps(loaded, chunk_rows=64)
    turn(maps)
    for number in range(6):
        ports = range(1_000 * (number + 1), 1_000 * (number + 1) + flows)
        send(loaded, ports)
        assert turn(maps) == list(ports)
    # Rows of the last two epochs are still there, for their homes.
    assert [turn(maps) for _ in range(3)] == [[], [], []]
    assert made == ([MAX_FLOWS] * len(made) if flows == 500 else [])
    assert bool(made) == (flows == 500)


def test_full_map_and_the_one_that_follows(loaded: LoadedPrograms) -> None:
    """A map holds as many flows as it was made for, and so does the one that replaces it."""
    maps = FlowMaps(loaded)
    turn(maps)
    for _ in range(5):
        send(loaded, range(1, MAX_FLOWS + 100))
        assert len(turn(maps)) == MAX_FLOWS
