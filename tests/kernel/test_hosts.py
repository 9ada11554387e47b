"""The ground that the other tests stand on: namespaces, links, the generator, and the search for leftovers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from bench.generator import Generator, GeneratorFailed, Mode, Sent, Traffic, generate
from netwatch.kernel.program import ProgramSettings, load_programs
from tests.kernel.hosts import LinkStatistics, Namespace, Pair
from tests.kernel.leftovers import MARK, mark, namespaces_left, programs, programs_left
from tests.kernel.waiting import PATIENCE_S

PRIME = 1_009
ETHERNET_IPV4_UDP = 14 + 20 + 8
ETHERNET_IPV6_UDP = 14 + 40 + 8


def namespace_number(process: str = "thread-self") -> int:
    return os.stat(f"/proc/{process}/ns/net").st_ino


def test_namespace_is_gone_after_a_failure_inside() -> None:
    """A namespace goes with its context, whatever ended the context."""
    with contextlib.suppress(ZeroDivisionError), Namespace() as namespace:
        assert namespaces_left() == [namespace.name]
        _ = 1 / 0
    assert namespaces_left() == []
    assert not os.path.exists(namespace.path)


def test_thread_returns_to_its_own_namespace(namespaces: Callable[[], Namespace]) -> None:
    """Inside, sockets and children belong to the namespace; afterwards, even after an error, the thread is back."""
    outside, first, second = namespace_number(), namespaces(), namespaces()
    with contextlib.suppress(ZeroDivisionError), first.enter():
        inside = namespace_number()
        assert inside == os.stat(first.path).st_ino != outside
        child = subprocess.run(["readlink", "/proc/self/ns/net"], capture_output=True, text=True, check=True)
        assert child.stdout.strip() == f"net:[{inside}]"
        with second.enter():
            assert namespace_number() == os.stat(second.path).st_ino
        assert namespace_number() == inside
        _ = 1 / 0
    assert namespace_number() == outside


def test_command_that_fails_inside_says_why(namespaces: Callable[[], Namespace]) -> None:
    """The reason of a failed command stands in the report of the test."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        namespaces().run("ip", "link", "set", "nosuch0", "up")
    assert "nosuch0" in "".join(caught.value.__notes__)


def test_link_carries_nothing_but_what_is_sent(pair: Pair) -> None:
    """A pair with addresses of both families has said nothing by itself, and carries each datagram once."""
    for interface in (pair.left, pair.right):
        assert interface.statistics() == LinkStatistics(0, 0, 0, 0, tx_dropped=0)
    for family, address in ((socket.AF_INET, "10.0.0.2"), (socket.AF_INET6, "fd00::2")):
        with pair.right.namespace.enter():
            receiver = socket.socket(family, socket.SOCK_DGRAM)
            receiver.bind((address, 7))
            receiver.settimeout(PATIENCE_S)
        with pair.left.namespace.enter():
            sender = socket.socket(family, socket.SOCK_DGRAM)
        with receiver, sender:
            sender.sendto(b"x" * 100, (address, 7))
            assert len(receiver.recv(200)) == 100
    sent = ETHERNET_IPV4_UDP + ETHERNET_IPV6_UDP + 200
    assert pair.left.statistics() == LinkStatistics(0, 0, 2, sent, tx_dropped=0)
    assert pair.right.statistics() == LinkStatistics(2, sent, 0, 0, tx_dropped=0)


def test_frames_arrive_as_they_were_sent(pair: Pair) -> None:
    """A frame that a test makes, tags and all, is what the other end sees."""
    frame = bytes.fromhex("026e77000000 026e77000001 8100 0007 88b5") + bytes(46)
    with pair.right.namespace.enter(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as receiver:
        receiver.bind((pair.right.name, 3))
        receiver.settimeout(PATIENCE_S)
        assert pair.left.send([frame]) == 1
        # The kernel takes the tag out of the data into the buffer's own field.
        assert receiver.recv(200) == frame[:12] + frame[16:]


@pytest.mark.parametrize("link", ["bridge", "vxlan"])
def test_links_above_the_cable(link: str, namespaces: Callable[[], Namespace], pair: Pair) -> None:
    """Bridges and tunnels carry datagrams from end to end, and stay as quiet as the cable below."""
    left, right = pair.left.namespace, pair.right.namespace
    if link == "bridge":
        far = namespaces()
        port, end = right.veth("port0", far, "far0")
        right.bridge("bridge0", pair.right, port)
    else:
        near = left.vxlan("vxlan0", 42, "10.0.0.1", "10.0.0.2")
        end = right.vxlan("vxlan0", 42, "10.0.0.2", "10.0.0.1")
        near.address("10.1.0.1/24")
        near.neighbour("10.1.0.3", end.mac)
    end.address("10.1.0.3/24")
    if link == "bridge":
        pair.left.address("10.1.0.1/24")
        pair.left.neighbour("10.1.0.3", end.mac)
    with end.namespace.enter():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("10.1.0.3", 7))
        receiver.settimeout(PATIENCE_S)
    with left.enter():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        sender.sendto(b"x" * 100, ("10.1.0.3", 7))
        assert len(receiver.recv(200)) == 100
    assert end.statistics().rx_packets == 1
    assert pair.left.statistics().tx_packets == 1
    assert pair.right.statistics().tx_packets == 0


@pytest.mark.parametrize(
    ("traffic", "flows", "packets", "size_bytes"),
    [
        (Traffic("left0", "10.1.0.0", "10.0.0.2", flows=PRIME), PRIME, PRIME, 100 + ETHERNET_IPV4_UDP),
        (Traffic("left0", "10.1.0.0", "10.0.0.2", flows=7, packets_per_flow=11), 7, 77, 100 + ETHERNET_IPV4_UDP),
        (Traffic("left0", "10.1.0.0", "10.0.0.2", flows=67, packets_per_flow=3), 67, 201, 100 + ETHERNET_IPV4_UDP),
        (Traffic("left0", "fd01::", "fd00::2", flows=PRIME, payload=0), PRIME, PRIME, ETHERNET_IPV6_UDP),
        (
            Traffic("left0", "fd01::", "fd00::2", Mode.ONE_FLOW, packets=PRIME, payload=1_400),
            *(1, PRIME, 1_400 + ETHERNET_IPV6_UDP),
        ),
        (
            Traffic("left0", "10.0.0.1", "10.0.0.3", Mode.SOCKET, flows=PRIME, flows_per_second=10_000),
            *(PRIME, PRIME, 100 + ETHERNET_IPV4_UDP),
        ),
        (
            Traffic("left0", "fd00::1", "fd00::3", Mode.SOCKET, flows=PRIME, source_port=7),
            *(PRIME, PRIME, 100 + ETHERNET_IPV6_UDP),
        ),
    ],
)
def test_generator_says_what_it_sent(pair: Pair, traffic: Traffic, flows: int, packets: int, size_bytes: int) -> None:
    """The report, what was asked for, and the device's own count are the same, at the other end too."""
    for address in ("10.0.0.3", "fd00::3"):
        pair.left.neighbour(address, pair.right.mac)  # nobody's, so that no port is unreachable
    sent = generate(traffic, pair.left.namespace.prefix)
    assert sent == Sent(flows, packets, packets * size_bytes, sent.seconds, 0)
    left, right = pair.left.statistics(), pair.right.statistics()
    assert (left.tx_packets, left.tx_bytes) == (sent.packets, sent.bytes)
    assert (right.rx_packets, right.rx_bytes) == (sent.packets, sent.bytes)


def test_generated_flows_are_all_different(pair: Pair) -> None:
    """Flow numbers go on where ports end, with the next address; the checksums are right in every frame."""
    traffic = Traffic("left0", "10.1.2.3", "10.0.0.2", flows=3, packets_per_flow=2, flow_offset=64_511, payload=7)
    with pair.right.namespace.enter(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as receiver:
        receiver.bind((pair.right.name, 3))
        receiver.settimeout(PATIENCE_S)
        generate(traffic, pair.left.namespace.prefix)
        frames = [receiver.recv(200) for _ in range(6)]
    sources = [(socket.inet_ntoa(frame[26:30]), int.from_bytes(frame[34:36])) for frame in frames]
    assert sources[:3] == sources[3:] == [("10.1.2.3", 65_535), ("10.1.2.4", 1_024), ("10.1.2.4", 1_025)]
    for frame in frames:
        pseudo_header = frame[26:34] + bytes([0, 17]) + frame[38:40]
        assert internet_checksum(frame[14:34]) == internet_checksum(pseudo_header + frame[34:]) == 0


def internet_checksum(octets: bytes) -> int:
    """Return zero where the octets hold a right checksum of RFC 1071."""
    padded = octets + bytes(len(octets) % 2)
    total = sum(int.from_bytes(padded[i : i + 2]) for i in range(0, len(padded), 2))
    return -total % 0xFFFF


def test_generator_keeps_its_pace(pair: Pair) -> None:
    """A run at a rate lasts as long as its packets at that rate; one that is stopped reports what it did."""
    traffic = Traffic("left0", "10.1.0.0", "10.0.0.2", flows=2_003, flows_per_second=10_000)
    sent = generate(traffic, pair.left.namespace.prefix)
    assert sent.packets == 2_003
    assert sent.seconds > 0.2  # never faster; how much slower is the machine's business

    endless = Traffic("left0", "10.1.0.0", "10.0.0.2", Mode.ONE_FLOW, flows_per_second=1, duration_s=3_600)
    with pair.right.namespace.enter(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as receiver:
        receiver.bind((pair.right.name, 3))
        receiver.settimeout(PATIENCE_S)
        with Generator(endless, pair.left.namespace.prefix) as generator:
            assert len(receiver.recv(200)) == 100 + ETHERNET_IPV4_UDP
            stopped = generator.stop()
    assert stopped.packets == pair.right.statistics().rx_packets - sent.packets


@pytest.mark.parametrize(
    ("traffic", "complaint"),
    [
        (Traffic("nosuch0", "10.1.0.0", "10.0.0.2"), "nosuch0"),
        (Traffic("left0", "10.1.0.0", "fd00::2"), "one family"),
        (Traffic("left0", "10.1.0.0", "10.0.0.2", payload=1_473), "MTU"),
        (Traffic("left0", "10.1.0.0", "10.0.0.2", packets_per_flow=0), "--packets-per-flow 0"),
    ],
)
def test_generator_refuses(pair: Pair, traffic: Traffic, complaint: str) -> None:
    """Traffic that cannot be sent as asked for is an error that names the reason, not less traffic."""
    with pytest.raises(GeneratorFailed, match=complaint):
        generate(traffic, pair.left.namespace.prefix)


def test_program_held_by_nobody_else_is_found() -> None:
    """A program of this run counts as left while it is loaded, and no longer when it is closed."""
    before = programs()
    loaded = load_programs(ProgramSettings(max_flows=16, max_fragments=16))
    try:
        assert list(programs_left(before, timeout_s=0).values()) == ["netwatch"] * 4
    finally:
        loaded.close()
    assert programs_left(before) == {}


@pytest.mark.parametrize("marked", [True, False])
def test_program_held_by_another_process(marked: bool) -> None:
    """A program in the hands of a process that the tests started is left over; somebody else's is not."""
    before = programs()
    script = (
        "from netwatch.kernel.program import *\n"
        "loaded = load_programs(ProgramSettings(max_flows=16, max_fragments=16))\n"
        "print(flush=True)\n"
        "input()\n"
    )
    environment = os.environ | ({MARK: mark()} if marked else {})
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        assert len(programs_left(before, timeout_s=0)) == (4 if marked else 0)
        holder.communicate(b"\n")
    assert programs_left(before) == {}
