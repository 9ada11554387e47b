"""Clients and servers that live for five milliseconds, under names of their own.

Law: a process here names itself, makes its socket, has one conversation and ends LIFE_S after it began, or as soon
afterwards as the conversation is over; none waits longer than PATIENCE_S. The parent of them ends with its context.
Neighbours: `hosts.py` has the namespaces. The parent is a lean process that only forks: to start an interpreter takes
longer than these live, and a test process has threads.

Run: python -m tests.kernel.short_process, with an Order as JSON on each line of its input.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Literal, Self

import attrs

from tests.kernel.hosts import Namespace
from tests.kernel.leftovers import MARK, mark
from tests.kernel.waiting import PATIENCE_S

LIFE_S = 0.005
_ROOT = Path(__file__).parents[2]
_PR_SET_NAME = 15
_QUESTION, _ANSWER = b"q" * 100, b"a" * 300

Role = Literal["client", "server"]


@attrs.frozen
class Order:
    """What a process is to be and to do. A name has 15 characters at most."""

    role: Role
    name: str
    address: str
    port: int
    is_tcp: bool = True


@attrs.frozen
class Life:
    """A process that has ended: who it was, from which port it spoke, how long it lived, and its exit code."""

    pid: int
    name: str
    port: int
    lived_s: float
    exit_code: int


class ShortProcesses:
    """The parent of short-lived processes in a namespace, one at a time."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def __enter__(self) -> Self:
        command = (sys.executable, "-m", "tests.kernel.short_process")
        with self._namespace.enter():
            self._parent = subprocess.Popen(
                command,
                cwd=_ROOT,
                env=os.environ | {MARK: mark()},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
            )
        self._unread = b""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it; a process that is under way ends by itself."""
        assert self._parent.stdin
        assert self._parent.stdout
        with self._parent.stdout, self._parent.stdin:
            self._parent.stdin.close()
            try:
                self._parent.wait(PATIENCE_S)
            finally:
                self._parent.kill()
                self._parent.wait()

    def start(self, order: Order) -> int:
        """Let a process begin, and wait until it has its socket; a server then listens. Return its pid."""
        assert self._parent.stdin
        self._parent.stdin.write(json.dumps(attrs.asdict(order)).encode() + b"\n")
        return int(self._told()["ready"])

    def end(self) -> Life:
        """Wait for the end of the process."""
        return Life(**self._told())

    def _told(self) -> Any:
        assert self._parent.stdout
        while b"\n" not in self._unread:
            readable, _, _ = select.select([self._parent.stdout], [], [], PATIENCE_S)
            received = os.read(self._parent.stdout.fileno(), 4096) if readable else b""
            assert received, "the parent of the short-lived processes says nothing"
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)


def converse(server: ShortProcesses, client: ShortProcesses, order: Order, client_name: str) -> tuple[Life, Life]:
    """Let a server and a client live, ask and answer; return the server's life, and the client's."""
    server.start(order)
    client.start(attrs.evolve(order, role="client", name=client_name))
    return server.end(), client.end()


def _tell(**told: object) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


def _live(order: Order, port_to: int) -> None:
    """Be the process."""
    began_s = time.monotonic()
    # First of all: a socket remembers the name of who made it.
    ctypes.CDLL(None).prctl(_PR_SET_NAME, order.name.encode(), 0, 0, 0)
    family = socket.AF_INET6 if ":" in order.address else socket.AF_INET
    kind = socket.SOCK_STREAM if order.is_tcp else socket.SOCK_DGRAM
    with socket.socket(family, kind) as endpoint:
        endpoint.settimeout(PATIENCE_S)
        where = (order.address, order.port)
        port = _serve(endpoint, where, order) if order.role == "server" else _ask(endpoint, where, order)
    os.write(port_to, port.to_bytes(2))
    time.sleep(max(0.0, began_s + LIFE_S - time.monotonic()))


def _serve(endpoint: socket.socket, where: tuple[str, int], order: Order) -> int:
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    endpoint.bind(where)
    if not order.is_tcp:
        _tell(ready=os.getpid())
        question, client = endpoint.recvfrom(1000)
        endpoint.sendto(_ANSWER, client)
    else:
        endpoint.listen()
        _tell(ready=os.getpid())
        connection, _ = endpoint.accept()
        with connection:
            connection.settimeout(PATIENCE_S)
            question = connection.recv(len(_QUESTION), socket.MSG_WAITALL)
            connection.sendall(_ANSWER)
            connection.recv(1)  # the client closes first, so that the port is free for the next server
    assert question == _QUESTION
    return where[1]


def _ask(endpoint: socket.socket, where: tuple[str, int], order: Order) -> int:
    _tell(ready=os.getpid())
    endpoint.connect(where)
    endpoint.sendall(_QUESTION)
    assert endpoint.recv(len(_ANSWER), socket.MSG_WAITALL) == _ANSWER
    return int(endpoint.getsockname()[1])


def _carry_out(order: Order) -> None:
    port_from, port_to = os.pipe()
    began_s = time.monotonic()
    pid = os.fork()
    if pid == 0:
        exit_code = 1
        try:
            _live(order, port_to)
            exit_code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(exit_code)
    os.close(port_to)
    _, status = os.waitpid(pid, 0)
    lived_s = time.monotonic() - began_s
    port = int.from_bytes(os.read(port_from, 2))
    os.close(port_from)
    exit_code = os.waitstatus_to_exitcode(status)
    _tell(pid=pid, name=order.name, port=port, lived_s=lived_s, exit_code=exit_code)


def main() -> None:
    """Carry out orders until there are no more."""
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            _carry_out(Order(**json.loads(line)))


if __name__ == "__main__":
    main()
