"""Conversations between the two hosts of the testbed: connections, refused ones, lost segments, questions to a server.

Law: one thread holds them all, one after the other, so that each turn of a benchmark sees the same packets.
Neighbours: `hook_cost.py` measures the hooks that these come by; `generator.py` sends packets without sockets.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Self

from bench.testbed import Testbed
from tests.kernel.hosts import connect

_CLIENT, _SERVER = "10.0.0.1", "10.0.0.2"
_PORT, _CLOSED_PORT, _DNS_PORT = 8080, 8081, 53
_CONNECTIONS = _QUESTIONS = 50
_REFUSED = 10
_ANSWER = bytes(8_000)
_TIMEOUT_S = 5.0
_LOSSES = (
    "add table inet bench",
    "add chain inet bench here { type filter hook input priority 0; }",
    f"add rule inet bench here tcp sport {_PORT} meta length > 1000 numgen inc mod 100 == 99 drop",
)
_NAME = b"\x03www\x07example\x03org\x00" + struct.pack(">HH", 1, 1)


class Conversations:
    """A client and its server, while the context is open; `hold` has them talk."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        connect(self._testbed.sending, [f"{_CLIENT}/24"], self._testbed.watched, [f"{_SERVER}/24"])
        for command in _LOSSES:
            self._testbed.sending.namespace.run("nft", command)
        with self._testbed.watched.namespace.enter():
            self._listener = self._stack.enter_context(socket.create_server((_SERVER, _PORT)))
            self._name_server = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._name_server.bind((_SERVER, _DNS_PORT))
        self._name_server.settimeout(_TIMEOUT_S)
        self._listener.settimeout(_TIMEOUT_S)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def hold(self) -> None:
        """Have 50 connections with 8 kB each, 10 that are refused, and 50 questions answered. Raises OSError.

        Of a hundred large packets of the server one is lost, and sent again a fifth of a second later.
        """
        with self._testbed.sending.namespace.enter():
            for _ in range(_CONNECTIONS):
                self._connect()
            for _ in range(_REFUSED):
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection((_SERVER, _CLOSED_PORT), _TIMEOUT_S).close()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(_TIMEOUT_S)
                for number in range(_QUESTIONS):
                    self._ask(client, number)

    def _connect(self) -> None:
        with socket.create_connection((_SERVER, _PORT), _TIMEOUT_S) as client:
            accepted, _ = self._listener.accept()
            with accepted:
                client.sendall(b"a question")
                accepted.recv(64)
                accepted.sendall(_ANSWER)
            while client.recv(65_536):
                pass

    def _ask(self, client: socket.socket, number: int) -> None:
        client.sendto(struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + _NAME, (_SERVER, _DNS_PORT))
        question, address = self._name_server.recvfrom(512)
        self._name_server.sendto(question[:2] + b"\x81\x83" + question[4:], address)  # no such name
        client.recv(512)
