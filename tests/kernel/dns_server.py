"""A DNS server for tests, that answers after a set delay, as it was told to answer each name.

Law: it answers no question before its delay is over, holds MAX_WAITING questions at most, and ends with its context.
Neighbours: `dns_client.py` asks, `hosts.py` has the namespaces. What is on the wire is put together here by hand, so
that a test knows each byte.
"""

from __future__ import annotations

import contextlib
import enum
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Self

from tests.kernel.hosts import Namespace
from tests.kernel.waiting import PATIENCE_S

DNS_PORT = 53
MAX_WAITING = 1_000
HEADER_BYTES = 12

_TYPE_A, _CLASS_IN, _TIME_TO_LIVE_S = 1, 1, 60
_RESPONSE = 0x8180  # response, recursion desired and available
_FORMAT_ERROR, _NXDOMAIN = 1, 3
_POINTER_TO_QUESTION = struct.pack("!H", 0xC000 | HEADER_BYTES)


class Behaviour(enum.Enum):
    """What a name is answered with."""

    ADDRESS = "question and an address, the name in full"
    COMPRESSED = "question and three addresses, their names a pointer to the question's"
    NXDOMAIN = "question alone, no such name"
    BARE = "header alone, a format error"
    SILENT = "nothing"


def wire_name(name: str) -> bytes:
    """Return a name as it is sent: RFC 1035 3.1, the root's zero included."""
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def long_name(characters: int) -> str:
    """Return a name of so many characters, 253 at most, in as few labels as it takes."""
    labels = characters // 64 + 1
    shorter, longer = divmod(characters - labels + 1, labels)
    return ".".join("x" * (shorter + (number < longer)) for number in range(labels))


def answer_to(question: bytes, behaviour: Behaviour) -> bytes | None:
    """Return the answer to a message of one question, or None where there is none."""
    end = question.index(b"\0", HEADER_BYTES) + 5  # the root, type, class
    name, asked = question[HEADER_BYTES : end - 4], question[HEADER_BYTES:end]
    match behaviour:
        case Behaviour.SILENT:
            return None
        case Behaviour.BARE:
            return question[:2] + struct.pack("!5H", _RESPONSE | _FORMAT_ERROR, 0, 0, 0, 0)
        case Behaviour.NXDOMAIN:
            return question[:2] + struct.pack("!5H", _RESPONSE | _NXDOMAIN, 1, 0, 0, 0) + asked
        case Behaviour.ADDRESS:
            records = [_address_record(name, 1)]
        case Behaviour.COMPRESSED:
            records = [_address_record(_POINTER_TO_QUESTION, number) for number in (1, 2, 3)]
    return question[:2] + struct.pack("!5H", _RESPONSE, 1, len(records), 0, 0) + asked + b"".join(records)


def _address_record(name: bytes, number: int) -> bytes:
    return name + struct.pack("!HHIH", _TYPE_A, _CLASS_IN, _TIME_TO_LIVE_S, 4) + bytes([192, 0, 2, number])


class DnsServer:
    """A server on UDP and TCP at an address of a namespace, a thread that can be bound to a CPU."""

    def __init__(
        self,
        namespace: Namespace,
        address: str,
        *,
        delay_s: float = 0.0,
        behaviours: Mapping[str, Behaviour] = MappingProxyType({}),
        cpu: int | None = None,
    ) -> None:
        self._namespace, self._address = namespace, address
        self._delay_s, self._cpu = delay_s, cpu
        self._behaviours = {wire_name(name): behaviour for name, behaviour in behaviours.items()}
        # When to answer, and how. One delay for all, so the first to come is the first to go.
        self._waiting: deque[tuple[float, Callable[[], object]]] = deque()
        self.asked = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._stop, stopped = (stack.enter_context(end) for end in socket.socketpair())
            self._selector.register(stopped, selectors.EVENT_READ, None)
            family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
            with self._namespace.enter():
                self._datagrams = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                self._datagrams.bind((self._address, DNS_PORT))
                where = (self._address, DNS_PORT)
                self._listener = stack.enter_context(socket.create_server(where, family=family))
            self._selector.register(self._datagrams, selectors.EVENT_READ, self._take_datagram)
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._thread = threading.Thread(target=self._serve)
            self._thread.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it; questions that wait get no answer."""
        self._stop.send(b"\0")
        self._thread.join()
        for connection in self._connections():
            connection.close()
        self._stack.close()

    def _connections(self) -> Iterator[socket.socket]:
        ours = (self._datagrams, self._listener)
        for key in list(self._selector.get_map().values()):
            if key.data is not None and key.fileobj not in ours:
                assert isinstance(key.fileobj, socket.socket)
                yield key.fileobj

    def _serve(self) -> None:
        if self._cpu is not None:
            os.sched_setaffinity(0, {self._cpu})  # of a thread: this one
        while True:
            rest_s = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            for key, _ in self._selector.select(rest_s):
                if key.data is None:
                    return
                key.data(key.fileobj)
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                # The client may have gone.
                with contextlib.suppress(OSError):
                    self._waiting.popleft()[1]()

    def _take_datagram(self, datagrams: socket.socket) -> None:
        question, client = datagrams.recvfrom(65_535)
        self._answer(question, lambda answer: datagrams.sendto(answer, client))

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(PATIENCE_S)
        self._selector.register(connection, selectors.EVENT_READ, self._take_segment)

    def _take_segment(self, connection: socket.socket) -> None:
        # RFC 1035 4.2.2: "a two byte length field which gives the message length".
        length = connection.recv(2, socket.MSG_WAITALL)
        if len(length) < 2:
            self._selector.unregister(connection)
            connection.close()
            return
        question = connection.recv(int.from_bytes(length), socket.MSG_WAITALL)
        # In one segment, as all servers do.
        self._answer(question, lambda answer: connection.sendall(len(answer).to_bytes(2) + answer))

    def _answer(self, question: bytes, send: Callable[[bytes], object]) -> None:
        self.asked += 1
        name = question[HEADER_BYTES : question.index(b"\0", HEADER_BYTES) + 1]
        answer = answer_to(question, self._behaviours.get(name, Behaviour.ADDRESS))
        if answer is None:
            return
        assert len(self._waiting) < MAX_WAITING
        self._waiting.append((time.monotonic() + self._delay_s, lambda: send(answer)))
