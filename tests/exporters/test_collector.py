"""The collector against the real exporter, and against clients that do anything else."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

import attrs
import pytest
import trio
import trio.testing
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from netwatch.errors import AddressUnavailable, DeliveryFailed
from netwatch.exporters.collector import MAX_MESSAGE_BYTES, serve
from netwatch.settings.addresses import Address
from tests.exporters.other_ends import collecting, exporter, message, run

pytestmark = pytest.mark.usefixtures("nothing_left")

REQUEST = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/pbflow.Collector/Send",
    ":authority": "collector",
    "te": "trailers",
    "content-type": "application/grpc",
}


async def status_of(port: int, *data: bytes, **fields: str) -> str:
    """Make a request by hand and return its gRPC status and message, or its HTTP status."""
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    h2.initiate_connection()
    h2.send_headers(1, list((REQUEST | fields).items()), end_stream=not data)
    for number, part in enumerate(data):
        h2.send_data(1, part, end_stream=number == len(data) - 1)
    said: dict[str, str] = {}
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(h2.data_to_send())
        while came := await stream.receive_some():
            for event in h2.receive_data(came):
                match event:
                    case ResponseReceived(headers=headers) | TrailersReceived(headers=headers):
                        said |= dict(headers)
                    case StreamEnded() | StreamReset():
                        return f"{said.get('grpc-status', said[':status'])} {said.get('grpc-message', '')}".strip()
            await stream.send_all(h2.data_to_send())
    return "closed"


def test_where_it_listens() -> None:
    """Port 0 is any free one, which is told; an IPv6 address works as well."""

    async def main(clock: object) -> None:
        async def receive(content: bytes) -> None:
            pass

        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(serve, "[::1]:0", receive)
            assert address.host == "::1"
            async with exporter(address.port, host="[::1]") as grpc:
                await grpc.send(message())
            nursery.cancel_scope.cancel()

    run(main)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.1", "Address already in use"),
        ("192.0.2.1", "Cannot assign requested address"),
        ("no-such-host.invalid", ""),
    ],
)
def test_address_that_is_not_to_be_had(host: str, reason: str) -> None:
    """The complaint names the flag, the address and the reason."""

    async def receive(content: bytes) -> None:
        pass

    async def main(clock: object) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            listen = str(Address(host, other.getsockname()[1]))
            with pytest.raises(AddressUnavailable, match=f"--listen {listen}: {reason}"):
                await serve(listen, receive)

    run(main)


def test_refused_message() -> None:
    """What `receive` says against a message reaches its sender; other messages go on."""

    async def receive(content: bytes) -> None:
        if content == b"bad":
            raise ValueError("not a pbflow.Records message")

    async def main(clock: object) -> None:
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(serve, "127.0.0.1:0", receive)
            async with exporter(address.port) as grpc:
                await grpc.send(message(b"good"))
                with pytest.raises(DeliveryFailed, match=r"INVALID_ARGUMENT: not a pbflow\.Records message"):
                    await grpc.send(message(b"bad"))
                await grpc.send(message(b"good"))
            nursery.cancel_scope.cancel()

    run(main)


@pytest.mark.parametrize(
    ("data", "fields", "status"),
    [
        ((b"\0\0\0\0\1x",), {}, "0"),
        ((b"\0", b"\0\0\0", b"\2a", b"b"), {}, "0"),
        ((b"\0\0\0\0\0",), {}, "0"),
        ((), {}, "0"),
        ((b"\0\0\0\0\5x",), {}, "3 the request ends within a message"),
        ((b"\0\0",), {}, "3 the request ends within a message"),
        ((b"\1\0\0\0\1x",), {}, "12 compressed messages are not supported"),
        ((b"\0\xff\xff\xff\xff",), {}, f"8 message of 4294967295 bytes; the limit is {MAX_MESSAGE_BYTES}"),
        ((b"\0\0\0\0\1x",), {":path": "/pbflow.Collector/Receive"}, "12 Method not found"),
        ((b"\0\0\0\0\1x",), {"content-type": "text/html"}, "2 Unacceptable content-type header"),
        ((b"\0\0\0\0\1x",), {":method": "GET"}, "405"),
    ],
)
def test_request(data: tuple[bytes, ...], fields: dict[str, str], status: str) -> None:
    """Each way to get a request wrong has its status; the collector goes on."""

    async def main(clock: object) -> None:
        async with collecting() as collector:
            assert await status_of(collector.port, *data, **fields) == status
            assert await status_of(collector.port, b"\0\0\0\0\4next") == "0"
            assert collector.taken[-1] == b"next"

    run(main)


@pytest.mark.parametrize("size", [MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1])
def test_largest_message(size: int) -> None:
    """The limit itself is taken; one byte more is refused when its length has come, not when all of it has."""

    async def main(clock: object) -> None:
        async with collecting() as collector, exporter(collector.port) as grpc:
            if size == MAX_MESSAGE_BYTES:
                await grpc.send(message(bytes(size)))
                assert len(collector.taken[0]) == size
            else:
                with pytest.raises(DeliveryFailed, match="RESOURCE_EXHAUSTED: message of 16777217 bytes"):
                    await grpc.send(message(bytes(size)))
                assert collector.taken == []

    run(main)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(range(256)) * 9]
)
def test_client_that_speaks_something_else(data: bytes) -> None:
    """Its connection ends, nobody else's."""

    async def main(clock: object) -> None:
        async with collecting() as collector, exporter(collector.port) as grpc:
            await grpc.send(message())
            async with await trio.open_tcp_stream("127.0.0.1", collector.port) as stream:
                await stream.send_all(data)
                await stream.send_eof()
                while await stream.receive_some():
                    pass
            await grpc.send(message())

    run(main)


@attrs.define(eq=False)
class Receiver:
    """Takes messages at once, but for slow ones: those it holds until it may go on."""

    came: trio.Event = attrs.Factory(trio.Event)
    may_go_on: trio.Event = attrs.Factory(trio.Event)
    taken: list[bytes] = attrs.Factory(list)

    async def receive(self, content: bytes) -> None:
        """Take a message."""
        if content == b"slow":
            self.came.set()
            await self.may_go_on.wait()
        self.taken.append(content)


@contextlib.asynccontextmanager
async def receiving(receiver: Receiver) -> AsyncIterator[tuple[int, trio.CancelScope]]:
    """Run a collector; yield its port, and the scope that ends it."""

    async def serve_in_scope(task_status: trio.TaskStatus[tuple[int, trio.CancelScope]]) -> None:
        async with trio.open_nursery() as inner:
            (address,) = await inner.start(serve, "127.0.0.1:0", receiver.receive)
            task_status.started((address.port, inner.cancel_scope))

    async with trio.open_nursery() as nursery:
        port, scope = await nursery.start(serve_in_scope)
        yield port, scope
        scope.cancel()


def test_end_while_a_message_is_received() -> None:
    """It is finished and acknowledged first; a message that comes meanwhile is refused, and its sender knows."""

    async def main(clock: object) -> None:
        receiver = Receiver()
        async with receiving(receiver) as (port, scope), exporter(port) as first, exporter(port) as second:
            await second.send(message(b"quick"))
            async with trio.open_nursery() as sending:
                sending.start_soon(first.send, message(b"slow"))
                await receiver.came.wait()
                scope.cancel()
                await trio.testing.wait_all_tasks_blocked(0.01)
                with pytest.raises(DeliveryFailed, match="UNAVAILABLE: the collector is shutting down"):
                    await second.send(message(b"late"))
                receiver.may_go_on.set()
            assert receiver.taken == [b"quick", b"slow"]

    run(main)


def test_end_while_a_message_hangs() -> None:
    """The end waits for it, but not for ever; its sender knows that it was not taken."""

    async def main(clock: trio.testing.MockClock) -> None:
        receiver = Receiver()

        async def send(port: int) -> None:
            async with exporter(port) as grpc:
                with pytest.raises(DeliveryFailed, match="connection"):
                    await grpc.send(message(b"slow"))

        async with receiving(receiver) as (port, scope), trio.open_nursery() as sending:
            sending.start_soon(send, port)
            await receiver.came.wait()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked(0.01)
            clock.jump(2.0)

    run(main)
