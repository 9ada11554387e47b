"""Standard output, written without holding the loop while nobody reads.

Law: a write never waits in the kernel, and no flag of a descriptor that other programs share is changed: O_NONBLOCK
belongs to the open file description, which the shell and every program on the terminal have too. So a pipe or
terminal is opened a second time, for a description of our own; a socket takes MSG_DONTWAIT with each call; a regular
file never waits for a reader, and must keep its shared position. No thread: one that hangs in write(2) can be neither
cancelled nor asked later how much it wrote.
Neighbours: `exporters/stdout.py`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from collections.abc import Callable

import attrs
import trio

from netwatch.errors import DeliveryFailed, OutputClosed

WIDTH_WITHOUT_TERMINAL = 120
_WIDTH_OF_NAMELESS_TERMINAL = 80  # a serial line reports no size

# EPIPE and ECONNRESET: the reader has gone. EBADF: started with the descriptor closed.
_CLOSED = frozenset((errno.EPIPE, errno.ECONNRESET, errno.EBADF))


@attrs.define(eq=False)
class Output:
    """An inherited descriptor. Resource handling: `close` leaves the descriptor itself open."""

    name: str
    fd: int
    _write: Callable[[memoryview], int] = attrs.field(init=False)
    _wait_fd: int = attrs.field(init=False)
    _waits_first: bool = attrs.field(default=False, init=False)
    _close: Callable[[], None] | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Write to the descriptor itself until `open` finds a better way."""
        self._wait_fd, self._write = self.fd, self._write_to_shared

    def open(self) -> None:
        """Find the way to write that fits what the descriptor is. Never fails: a bad descriptor fails in `write`."""
        try:
            mode = os.fstat(self.fd).st_mode
            if stat.S_ISSOCK(mode):
                self._use_socket()
            elif not stat.S_ISREG(mode):
                self._use_own_description()
        except OSError:
            # Somebody else's terminal or pipe, or no /proc. What is left: wait until there is room, then write no
            # more than a pipe takes at once. A terminal that is stopped at that moment can then hold the loop.
            self._waits_first = True

    def close(self) -> None:
        """Give back what `open` took. Idempotent."""
        if self._close:
            trio.lowlevel.notify_closing(self._wait_fd)
            self._close()
            self._close = None
            self.__attrs_post_init__()

    async def write(self, data: memoryview) -> int:
        """Write some of the data, waiting for room if need be, and return how many bytes that was.

        Raises OutputClosed where nobody will ever read it, DeliveryFailed where it can be tried again (disk full).
        Cancelled, it has written nothing. Not a checkpoint while there is room.
        """
        try:
            if self._waits_first:
                await trio.lowlevel.wait_writable(self._wait_fd)
            while True:
                try:
                    return self._write(data)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._wait_fd)
        except OSError as error:
            reason = error.strerror or str(error)
            # A terminal that was hung up says EIO, and no longer that it is a terminal.
            if error.errno in _CLOSED or (error.errno == errno.EIO and stat.S_ISCHR(os.fstat(self.fd).st_mode)):
                raise OutputClosed(self.name, reason) from error
            raise DeliveryFailed(self.name, reason) from error

    def width(self) -> int:
        """Return the characters in a line, now: a window changes its size."""
        try:
            return os.get_terminal_size(self.fd).columns or _WIDTH_OF_NAMELESS_TERMINAL
        except OSError:
            return WIDTH_WITHOUT_TERMINAL

    def _use_socket(self) -> None:
        connection = socket.socket(fileno=os.dup(self.fd))
        self._wait_fd, self._close = connection.fileno(), connection.close
        self._write = lambda data: connection.send(data, socket.MSG_DONTWAIT)

    def _use_own_description(self) -> None:
        own = os.open(f"/proc/self/fd/{self.fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        self._wait_fd, self._close = own, lambda: os.close(own)
        self._write = lambda data: os.write(own, data)

    def _write_to_shared(self, data: memoryview) -> int:
        return os.write(self.fd, data[: select.PIPE_BUF] if self._waits_first else data)
