"""Other ends that are there and do not do what a collector does.

Law: bounded: one thread that serves one connection after another, and a socket that closes with the context.
Neighbours: `collector_process.py` is one that does, `test_delivery.py` puts the daemon before these.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from tests.kernel.hosts import Namespace

Behaviour = Callable[[socket.socket], None]

_READ_BYTES = 1 << 16
_NO_LINGER = struct.pack("ii", 1, 0)


def hangs(connection: socket.socket) -> None:
    """Take what comes, and never answer."""
    while connection.recv(_READ_BYTES):
        pass


def resets(connection: socket.socket) -> None:
    """Reset the connection in the middle of the first message."""
    connection.recv(_READ_BYTES)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def speaks_http1(connection: socket.socket) -> None:
    """Be a web server of the last century."""
    connection.recv(_READ_BYTES)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def sends_garbage(connection: socket.socket) -> None:
    """Send what is no protocol at all, more than any frame can be."""
    connection.sendall(bytes(range(256)) * 1024)


@contextlib.contextmanager
def bad_collector(namespace: Namespace, address: str, behave: Behaviour) -> Iterator[None]:
    """Listen in a namespace and behave as told; stop at the end of the block, whatever is under way."""
    host, _, port = address.rpartition(":")
    with namespace.enter():
        listener = socket.create_server((host, int(port)))
    connections: list[socket.socket] = []
    thread = threading.Thread(target=_serve, args=(listener, connections, behave))
    thread.start()
    try:
        yield
    finally:
        # Shutting down, unlike closing, wakes who waits in accept() and recv().
        for open_socket in (listener, *connections):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def _serve(listener: socket.socket, connections: list[socket.socket], behave: Behaviour) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connections[:] = [connection]
        # The daemon goes when it has had enough.
        with connection, contextlib.suppress(OSError):
            behave(connection)
