"""Both ends of TCP connections, in two namespaces, as a test needs them.

Law: each socket has a timeout, and ends with its context or with the call.
Neighbours: `hosts.py` has the namespaces, `delayed_path.py` a path between them.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

import attrs

from tests.kernel.hosts import Namespace
from tests.kernel.waiting import PATIENCE_S

PORT = 5001


@attrs.frozen
class Attempt:
    """A connect(2): the port that it came from, its errno (0: it succeeded), and how long it took."""

    port: int
    errno: int
    took_s: float


@attrs.frozen
class TcpSent:
    """What a TCP socket says that it sent: segments, octets of payload, and those among them that were sent again."""

    segments: int
    segments_again: int
    octets: int
    octets_again: int

    @classmethod
    def by(cls, client: socket.socket) -> Self:
        """Ask the kernel (`struct tcp_info` in linux/tcp.h)."""
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        # tcpi_segs_out, tcpi_total_retrans; tcpi_bytes_sent, retransmissions included; tcpi_bytes_retrans.
        places = (("=I", 136), ("=I", 100), ("=Q", 200), ("=Q", 208))
        return cls(*(struct.unpack_from(form, info, at)[0] for form, at in places))


def family_of(address: str) -> socket.AddressFamily:
    """Return the family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def make_socket(namespace: Namespace, address: str) -> socket.socket:
    """Make a socket that can talk to an address."""
    with namespace.enter():
        made = socket.socket(family_of(address))
    made.settimeout(PATIENCE_S)
    return made


def listen(namespace: Namespace, address: str) -> socket.socket:
    """Listen on PORT of an address."""
    with namespace.enter():
        listener = socket.create_server((address, PORT), family=family_of(address))
    listener.settimeout(PATIENCE_S)
    return listener


def attempt(namespace: Namespace, server: str, user_timeout_ms: int = 0) -> Attempt:
    """Connect to PORT of the server, without a limit of ours but the kernel's, and close."""
    with make_socket(namespace, server) as client:
        client.bind(("::" if ":" in server else "", 0))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_ms)
        client.setblocking(True)
        port = client.getsockname()[1]
        began_s = time.monotonic()
        error = client.connect_ex((server, PORT))
        return Attempt(port, error, time.monotonic() - began_s)


@contextmanager
def connection(left: Namespace, right: Namespace, server: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connect a client on the left to a server on the right; both sockets are closed at the end."""
    with ExitStack() as stack:
        listener = stack.enter_context(listen(right, server))
        client = stack.enter_context(make_socket(left, server))
        client.connect((server, PORT))
        accepted = stack.enter_context(listener.accept()[0])
        accepted.settimeout(PATIENCE_S)
        yield client, accepted
