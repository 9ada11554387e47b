"""The metrics server on loopback: right answers to right requests, a bound and a status code for everything else."""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from netwatch.errors import AddressUnavailable
from netwatch.http import DEADLINE_S, MAX_CONNECTIONS, MAX_HEAD_BYTES, serve_http
from netwatch.settings.addresses import Address

BODY = b"# HELP netwatch_up Always 1.\nnetwatch_up 1.0\n"
GET_METRICS = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"


@attrs.define(eq=False)
class Server:
    """A running server, and what it is told to say."""

    body: bytes = BODY
    is_ready: bool = False
    address: Address = attrs.field(init=False)

    async def connect(self) -> trio.SocketStream:
        """Open a connection."""
        return await trio.open_tcp_stream(self.address.host, self.address.port)

    async def ask(self, request: bytes) -> Answer:
        """Send bytes, and read until the server closes."""
        async with await self.connect() as stream:
            await stream.send_all(request)
            return await read_answer(stream)


@attrs.frozen
class Answer:
    """What came back; the names of headers in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes


async def read_answer(stream: trio.SocketStream) -> Answer:
    raw = b"".join([chunk async for chunk in stream])
    head, _, body = raw.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    version, status, *_ = status_line.split(" ")
    assert version == "HTTP/1.1"
    return Answer(int(status), {name.lower(): value for name, value in (line.split(": ") for line in lines)}, body)


@asynccontextmanager
async def serving(listen: str = "127.0.0.1:0") -> AsyncIterator[Server]:
    server = Server()
    async with trio.open_nursery() as nursery:
        (server.address,) = await nursery.start(serve_http, listen, lambda: server.body, lambda: server.is_ready)
        yield server
        nursery.cancel_scope.cancel()


def run(main: Callable[[], Awaitable[None]], clock: trio.abc.Clock | None = None) -> None:
    async def bounded() -> None:
        with trio.fail_after(120):
            await main()

    trio.run(bounded, clock=clock, strict_exception_groups=True)


def answer_to(request: bytes) -> Answer:
    answers = []

    async def main() -> None:
        async with serving() as server:
            answers.append(await server.ask(request))

    run(main)
    return answers[0]


def test_scrape() -> None:
    """A scrape gets what is rendered, in the text format that Prometheus knows, and the connection is closed."""
    answer = answer_to(GET_METRICS)
    assert (answer.status, answer.body) == (200, BODY)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["content-length"] == str(len(BODY))
    assert answer.headers["connection"] == "close"


def test_client_of_somebody_else() -> None:
    """Python's own client understands the answer."""

    def fetch(address: Address) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=120)
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        connection.close()
        return response.status, response.read()

    async def main() -> None:
        async with serving("[::1]:0") as server:
            assert await trio.to_thread.run_sync(fetch, server.address) == (200, BODY)

    run(main)


def test_readiness() -> None:
    """Ready or not is asked each time; alive it is as long as it answers."""

    async def main() -> None:
        async with serving() as server:
            for is_ready, status in ((False, 503), (True, 200), (False, 503)):
                server.is_ready = is_ready
                assert (await server.ask(b"GET /readyz HTTP/1.1\r\nHost: here\r\n\r\n")).status == status
                assert (await server.ask(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")).status == 200

    run(main)


def test_head_request() -> None:
    """HEAD gets the headers of GET and no body."""
    answer = answer_to(b"HEAD /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(BODY))


def test_path_with_a_query() -> None:
    """What follows a question mark changes nothing."""
    assert answer_to(b"GET /metrics?name=x HTTP/1.1\r\nHost: here\r\n\r\n").body == BODY


@pytest.mark.parametrize("path", [b"/", b"/metrics/", b"//metrics", b"/../etc/passwd", b"*"])
def test_other_path(path: bytes) -> None:
    """There is nothing else."""
    assert answer_to(b"GET " + path + b" HTTP/1.1\r\nHost: here\r\n\r\n").status == 404


@pytest.mark.parametrize("method", [b"POST", b"DELETE", b"OPTIONS", b"BREW"])
def test_other_method(method: bytes) -> None:
    """Nothing can be changed, and the answer says what can be done."""
    answer = answer_to(method + b" /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_request_with_a_body() -> None:
    """A client that sends a body we did not ask for can finish it and read its answer: it is not cut off."""

    async def main() -> None:
        async with serving() as server, await server.connect() as stream:
            await stream.send_all(b"POST /metrics HTTP/1.1\r\nHost: here\r\nContent-Length: 60000\r\n\r\n")
            for _ in range(3):
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_all(bytes(20_000))
            assert (await read_answer(stream)).status == 405

    run(main)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"\r\n \r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"GET /met rics HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: here\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_garbage(garbage: bytes) -> None:
    """What is not a request gets a 400, and the next client is served as ever."""

    async def main() -> None:
        async with serving() as server:
            assert (await server.ask(garbage)).status == 400
            assert (await server.ask(GET_METRICS)).status == 200

    run(main)


def test_request_cut_off() -> None:
    """A client that ends in the middle of its request gets a 400."""

    async def main() -> None:
        async with serving() as server, await server.connect() as stream:
            await stream.send_all(b"GET /metr")
            await stream.send_eof()
            assert (await read_answer(stream)).status == 400

    run(main)


def test_connection_that_says_nothing_and_ends() -> None:
    """A probe that connects and closes is no request: nothing is sent."""

    async def main() -> None:
        async with serving() as server, await server.connect() as stream:
            await stream.send_eof()
            assert await stream.receive_some() == b""

    run(main)


@pytest.mark.parametrize(("size_bytes", "status"), [(MAX_HEAD_BYTES, 200), (MAX_HEAD_BYTES + 1, 431)])
def test_long_head(size_bytes: int, status: int) -> None:
    """A head may have 8 KiB and not a byte more, also when it comes in one piece."""
    start, end = b"GET /metrics HTTP/1.1\r\nHost: here\r\nX: ", b"\r\n\r\n"
    assert answer_to(start + b"x" * (size_bytes - len(start) - len(end)) + end).status == status


@pytest.mark.parametrize("request_", [b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: here\r\n"])
def test_client_that_does_not_go_on(request_: bytes) -> None:
    """A request that is not complete in time is closed without an answer."""
    clock = trio.testing.MockClock()

    async def main() -> None:
        async with serving() as server, await server.connect() as stream:
            await stream.send_all(request_)
            await trio.testing.wait_all_tasks_blocked()
            clock.jump(DEADLINE_S)
            assert await stream.receive_some() == b""

    run(main, clock)


def test_client_that_does_not_read() -> None:
    """An answer that nobody takes is cut off in time, and its place is free again."""
    clock = trio.testing.MockClock()

    async def main() -> None:
        async with serving() as server:
            server.body = bytes(50_000_000)
            async with await server.connect() as stream:
                await stream.send_all(GET_METRICS)
                await trio.testing.wait_all_tasks_blocked(0.05)
                clock.jump(DEADLINE_S)
                answer = await read_answer(stream)
                assert len(answer.body) < int(answer.headers["content-length"]) == len(server.body)
            server.body = BODY
            assert (await server.ask(GET_METRICS)).body == BODY

    run(main, clock)


def test_more_clients_than_places() -> None:
    """While all places are taken the next client waits, and is served as soon as one is free."""
    clock = trio.testing.MockClock()
    served = trio.Event()

    async def main() -> None:
        async with serving() as server, trio.open_nursery() as nursery:
            idle = [await server.connect() for _ in range(MAX_CONNECTIONS)]

            async def ask() -> None:
                assert (await server.ask(GET_METRICS)).status == 200
                served.set()

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not served.is_set()
            await idle[0].aclose()
            await served.wait()
            for stream in idle:
                await stream.aclose()

    run(main, clock)


def test_clients_that_hang_up() -> None:
    """A client that resets its connection in the middle harms nobody."""

    async def main() -> None:
        async with serving() as server:
            for request in (b"", b"GET /met", GET_METRICS, b"garbage\r\n\r\n"):
                stream = await server.connect()
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await stream.send_all(request)
                stream.socket.close()
            for _ in range(2 * MAX_CONNECTIONS):
                assert (await server.ask(GET_METRICS)).status == 200

    run(main)


def test_address_in_use() -> None:
    """The error names the setting, the address and the reason, and has its own exit code."""

    async def main() -> None:
        async with serving() as server:
            with pytest.raises(AddressUnavailable) as raised:
                await serve_http(str(server.address), bytes, bool)
            assert str(raised.value) == (
                f"metrics_listen {server.address}: Address already in use; choose another HOST:PORT"
            )
            assert raised.value.exit_code == 9

    run(main)


def test_address_of_another_machine() -> None:
    """An address that is not ours gets the same error."""

    async def main() -> None:
        with pytest.raises(AddressUnavailable, match="Cannot assign requested address"):
            await serve_http("192.0.2.1:0", bytes, bool)

    run(main)
