"""The path that other tests measure: how long it takes, and what it drops."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.kernel.delayed_path import DelayedPath, SegmentDropper, data_segment
from tests.kernel.hosts import Namespace, connect
from tests.kernel.tcp_ends import TcpSent
from tests.kernel.waiting import PATIENCE_S

DELAY_S = 0.02
PORT = 5001
SEGMENT_BYTES = 1_000


@contextlib.contextmanager
def connected(
    namespaces: Callable[[], Namespace], dropper: SegmentDropper | None = None, delay_s: float = DELAY_S
) -> Iterator[DelayedPath]:
    """Make the path, with addresses at both ends."""
    with DelayedPath(namespaces(), namespaces(), delay_s, dropper) as path:
        connect(path.left, ("10.0.0.1/24", "fd00::1/64"), path.right, ("10.0.0.2/24", "fd00::2/64"))
        yield path


def retransmitted(namespace: Namespace) -> int:
    """Return the kernel's own count of segments sent again."""
    return namespace.counter("Tcp", "RetransSegs")


def send_over_tcp(path: DelayedPath, server: str, segments: int) -> tuple[bytes, TcpSent]:
    """Send so many segments from left to right; return what arrived, and what the sender says of it."""
    received = bytearray()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with path.right.namespace.enter():
        listener = socket.create_server((server, PORT), family=family)

    def receive() -> None:
        connection, _ = listener.accept()
        with connection:
            while more := connection.recv(65_536):
                received.extend(more)

    reader = threading.Thread(target=receive)
    reader.start()
    with listener, path.left.namespace.enter(), socket.socket(family) as client:
        client.settimeout(PATIENCE_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect((server, PORT))
        client.sendall(bytes(segment % 251 for segment in range(segments) for _ in range(SEGMENT_BYTES - 12)))
        client.shutdown(socket.SHUT_WR)
        client.recv(1)
        reader.join(PATIENCE_S)
        return bytes(received), TcpSent.by(client)


@pytest.mark.parametrize(
    ("family", "here", "there"), [("ipv4", "10.0.0.1", "10.0.0.2"), ("ipv6", "fd00::1", "fd00::2")]
)
def test_round_trip(namespaces: Callable[[], Namespace], family: str, here: str, there: str) -> None:
    """A datagram and its answer take twice the delay, and carry what was sent."""
    kind = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}[family]
    with connected(namespaces) as path:
        with path.right.namespace.enter():
            server = socket.socket(kind, socket.SOCK_DGRAM)
        with path.left.namespace.enter():
            client = socket.socket(kind, socket.SOCK_DGRAM)
        with server, client:
            for end, address in ((server, there), (client, here)):
                end.bind((address, PORT))
                end.settimeout(PATIENCE_S)
            sent_s = time.monotonic()
            client.sendto(b"there", (there, PORT))
            assert server.recv(100) == b"there"
            assert time.monotonic() - sent_s >= DELAY_S
            server.sendto(b"back", (here, PORT))
            assert client.recv(100) == b"back"
            took_s = time.monotonic() - sent_s
    assert took_s >= 2 * DELAY_S


def test_link_that_carries_nothing_but_what_is_sent(namespaces: Callable[[], Namespace]) -> None:
    """The ends have said nothing by themselves, and are gone with the context."""
    with connected(namespaces) as path:
        assert path.left.statistics().tx_packets == path.right.statistics().tx_packets == 0
        namespace = path.left.namespace
    assert "left0" not in namespace.run("ip", "link")


@pytest.mark.parametrize("server", ["10.0.0.2", "fd00::2"])
def test_segments_that_are_dropped(namespaces: Callable[[], Namespace], server: str) -> None:
    """Every tenth segment is dropped, seven in all; the kernel sends each of them again, and the stream is whole."""
    dropper = SegmentDropper(every=10, at_most=7)
    with connected(namespaces, dropper) as path:
        received, _ = send_over_tcp(path, server, segments=211)
        # A busy machine may have it send one again that was only late.
        assert retransmitted(path.left.namespace) >= len(dropper.dropped) == 7
    assert len(received) == 211 * (SEGMENT_BYTES - 12)
    assert path.overflowed == 0


def test_stream_without_drops(namespaces: Callable[[], Namespace]) -> None:
    """The path as it is loses nothing: what arrives is what was sent."""
    with connected(namespaces) as path:
        received, _ = send_over_tcp(path, "10.0.0.2", segments=211)
        assert path.overflowed == 0
    assert len(received) == 211 * (SEGMENT_BYTES - 12)


OUTER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
TCP_DATA = TCP(sport=1, dport=2, seq=100, flags="A", options=[("NOP", None)] * 4) / Raw(b"x" * 9)


@pytest.mark.parametrize("ip", [IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")], ids=["4", "6"])
def test_segment_with_data(ip: Packet) -> None:
    """A segment is known by its place in the stream; padding of the frame is no data."""
    segment = data_segment(bytes(OUTER / ip / TCP_DATA) + bytes(20))
    assert segment is not None
    assert (segment.sequence, segment.end) == (100, 109)


@pytest.mark.parametrize(
    "packet", [IP() / TCP(flags="A"), IP() / TCP(flags="S") / Raw(b"x"), IP() / UDP() / Raw(b"x"), Raw(b"\x08\x06")]
)
def test_segment_without_data(packet: Packet) -> None:
    """What carries no data of a stream is none of the dropper's business."""
    assert data_segment(bytes(OUTER / packet) + bytes(20)) is None


@pytest.mark.parametrize("first", [0, 2**32 - 3])
def test_segment_that_is_sent_again(first: int) -> None:
    """It does not count, and is not dropped a second time; also where the numbers begin anew."""
    dropper = SegmentDropper(every=2, at_most=2)
    numbers = [(first + number) % 2**32 for number in (1, 2, 1, 2, 3, 4, 4, 5, 6)]
    frames = [bytes(OUTER / IP() / TCP(seq=number, flags="A") / Raw(b"x")) for number in numbers]
    assert [dropper.drops(frame) for frame in frames] == [False, True, *[False] * 3, True, *[False] * 3]
    assert [segment.sequence for segment in dropper.dropped] == [numbers[1], numbers[5]]
