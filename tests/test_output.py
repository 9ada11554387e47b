"""Output to real pipes, sockets, files and terminals: it never holds the loop and leaves shared flags alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import select
import socket
import struct
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from netwatch.errors import DeliveryFailed, OutputClosed
from netwatch.output import WIDTH_WITHOUT_TERMINAL, Output

DATA = bytes(range(256)) * 4096  # 1 MiB: more than a pipe, a socket or a terminal takes at once


@attrs.define(eq=False)
class Ends:
    """Where the output goes in, and where it comes out."""

    write_fd: int
    read_fd: int

    def close_reader(self) -> None:
        """Let the reader go."""
        os.close(self.read_fd)
        self.read_fd = -1


def open_pipe() -> Ends:
    read_fd, write_fd = os.pipe()
    return Ends(write_fd, read_fd)


def open_socket() -> Ends:
    near, far = socket.socketpair()
    return Ends(near.detach(), far.detach())


def open_terminal() -> Ends:
    read_fd, write_fd = pty.openpty()
    tty.setraw(write_fd)
    return Ends(write_fd, read_fd)


@contextlib.contextmanager
def closing(ends: Ends) -> Iterator[Ends]:
    try:
        yield ends
    finally:
        for fd in (ends.write_fd, ends.read_fd):
            if fd >= 0:
                os.close(fd)


@pytest.fixture(params=[open_pipe, open_socket, open_terminal])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    with closing(request.param()) as opened:
        yield opened


@pytest.fixture
def pipe() -> Iterator[Ends]:
    with closing(open_pipe()) as opened:
        yield opened


@pytest.fixture
def terminal() -> Iterator[Ends]:
    with closing(open_terminal()) as opened:
        yield opened


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(120):
            await main()

    trio.run(bounded, strict_exception_groups=True)


@contextlib.contextmanager
def opened(fd: int) -> Iterator[Output]:
    output = Output("stdout", fd)
    output.open()
    try:
        yield output
    finally:
        output.close()


async def write_all(output: Output, data: bytes, written: list[int]) -> None:
    rest = memoryview(data)
    while rest:
        written.append(await output.write(rest))
        rest = rest[written[-1] :]
        await trio.lowlevel.checkpoint()


async def read(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        await trio.lowlevel.wait_readable(fd)
        data += os.read(fd, 1 << 16)
    return data


def test_reader_slower_than_the_writer(ends: Ends) -> None:
    """Everything arrives, once and in order, and the descriptor has the flags it had before, all the time."""
    flags = fcntl.fcntl(ends.write_fd, fcntl.F_GETFL)
    arrived = b""

    async def main() -> None:
        nonlocal arrived
        with opened(ends.write_fd) as output:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_all, output, DATA, [])
                await trio.testing.wait_all_tasks_blocked()
                assert fcntl.fcntl(ends.write_fd, fcntl.F_GETFL) == flags
                arrived = await read(ends.read_fd, len(DATA))

    run(main)
    assert arrived == DATA
    assert fcntl.fcntl(ends.write_fd, fcntl.F_GETFL) == flags
    assert not flags & os.O_NONBLOCK


def test_nobody_reads(ends: Ends) -> None:
    """The writer waits, other tasks go on, and cancelling it leaves a true count of what was written."""
    written: list[int] = []

    async def main() -> None:
        with opened(ends.write_fd) as output:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_all, output, DATA, written)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert await read(ends.read_fd, sum(written)) == DATA[: sum(written)]

    run(main)
    assert 0 < sum(written) < len(DATA)
    assert not select.select([ends.read_fd], [], [], 0)[0]


def test_reader_goes_while_the_writer_waits(ends: Ends) -> None:
    """The writer wakes up and learns that nobody will read."""

    async def write(output: Output) -> None:
        with pytest.raises(OutputClosed, match="stdout: "):
            await write_all(output, DATA, [])

    async def main() -> None:
        with opened(ends.write_fd) as output:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, output)
                await trio.testing.wait_all_tasks_blocked()
                ends.close_reader()

    run(main)


def test_reader_gone_before_the_start(ends: Ends) -> None:
    """Opening does not fail; the first write says that nobody will read."""
    ends.close_reader()

    async def main() -> None:
        with opened(ends.write_fd) as output, pytest.raises(OutputClosed):
            await output.write(memoryview(DATA))

    run(main)


def test_descriptor_that_is_not_open() -> None:
    """A bad descriptor is an output that nobody reads."""
    fd = fcntl.fcntl(0, fcntl.F_DUPFD, 500)
    os.close(fd)

    async def main() -> None:
        with opened(fd) as output, pytest.raises(OutputClosed, match="Bad file descriptor"):
            await output.write(memoryview(b"line\n"))

    run(main)


def test_terminal_stopped_by_its_user(terminal: Ends) -> None:
    """Ctrl-S holds the writer and nothing else; Ctrl-Q lets it go on."""
    written: list[int] = []

    async def main() -> None:
        with opened(terminal.write_fd) as output:
            termios.tcflow(terminal.write_fd, termios.TCOOFF)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_all, output, b"a line\n", written)
                await trio.testing.wait_all_tasks_blocked()
                assert not written
                termios.tcflow(terminal.write_fd, termios.TCOON)
        assert await read(terminal.read_fd, 7) == b"a line\n"

    run(main)


def test_file_shared_with_others(tmp_path: Path) -> None:
    """In a regular file we write behind what others wrote through the same descriptor, and they behind us."""
    path = tmp_path / "flows"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)

    async def main() -> None:
        os.write(fd, b"theirs ")
        with opened(fd) as output:
            await write_all(output, b"ours ", [])
        os.write(fd, b"theirs")

    run(main)
    os.close(fd)
    assert path.read_bytes() == b"theirs ours theirs"


def test_full_disk() -> None:
    """A write that may succeed later is a failed delivery, with the reason."""
    fd = os.open("/dev/full", os.O_WRONLY)

    async def main() -> None:
        with opened(fd) as output, pytest.raises(DeliveryFailed, match="stdout: No space left on device"):
            await output.write(memoryview(b"line\n"))

    run(main)
    os.close(fd)


def test_pipe_that_belongs_to_somebody_else(pipe: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel refuses a description of our own, pieces that a pipe takes at once still never block."""

    def refuse(*_args: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("netwatch.output.os.open", refuse)
    test_nobody_reads(pipe)


def test_closed_twice(pipe: Ends) -> None:
    """Closing again does nothing, and the inherited descriptor stays open."""

    async def main() -> None:
        with opened(pipe.write_fd) as output:
            output.close()

    run(main)
    assert os.write(pipe.write_fd, b"still open") == 10


@pytest.mark.parametrize(("columns", "width"), [(100, 100), (0, 80)])
def test_width_of_a_terminal(terminal: Ends, columns: int, width: int) -> None:
    """The width follows the window; a terminal that does not know its own counts as 80."""
    fcntl.ioctl(terminal.write_fd, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    assert Output("stdout", terminal.write_fd).width() == width


def test_width_without_terminal(pipe: Ends) -> None:
    """A table in a pipe or a file has a width of its own."""
    assert Output("stdout", pipe.write_fd).width() == WIDTH_WITHOUT_TERMINAL == 120
