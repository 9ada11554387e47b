"""A DNS client for tests, that knows when it asked and when the answer was there.

Law: one question, one wait of bounded time, nothing asked again.
Neighbours: `dns_server.py` answers.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator

import attrs

from tests.kernel.dns_server import DNS_PORT, wire_name
from tests.kernel.hosts import Namespace
from tests.kernel.waiting import PATIENCE_S

_RECURSION_DESIRED = 0x0100
_CLASS_IN = 1


@attrs.frozen
class Asked:
    """A question that was asked: from which port, for how long, and the answer, None where none came in time."""

    port: int
    took_s: float
    answer: bytes | None


def question_for(name: str, identifier: int, question_type: int = 1) -> bytes:
    """Return a message of one question."""
    header = struct.pack("!6H", identifier, _RECURSION_DESIRED, 1, 0, 0, 0)
    return header + wire_name(name) + struct.pack("!HH", question_type, _CLASS_IN)


def ask(
    namespace: Namespace,
    server: str,
    name: str,
    identifier: int,
    *,
    question_type: int = 1,
    is_tcp: bool = False,
    port: int = 0,
    cpu: int | None = None,
    timeout_s: float = PATIENCE_S,
) -> Asked:
    """Ask a server, from a port and a CPU if they are named, and wait for its answer."""
    question = question_for(name, identifier, question_type)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    kind = socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM
    with bound_to(cpu), namespace.enter(), socket.socket(family, kind) as client:
        client.settimeout(PATIENCE_S)
        client.bind(("", port))
        client.connect((server, DNS_PORT))
        client.settimeout(timeout_s)
        asked_s = time.monotonic()
        client.sendall(len(question).to_bytes(2) + question if is_tcp else question)
        try:
            answer = _receive(client, is_tcp)
        except TimeoutError:
            answer = None
        return Asked(client.getsockname()[1], time.monotonic() - asked_s, answer)


def _receive(client: socket.socket, is_tcp: bool) -> bytes:
    if not is_tcp:
        return client.recv(65_535)
    length = int.from_bytes(client.recv(2, socket.MSG_WAITALL))
    return client.recv(length, socket.MSG_WAITALL)


@contextlib.contextmanager
def bound_to(cpu: int | None) -> Iterator[None]:
    """Bind the calling thread to a CPU for the time of the block."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
