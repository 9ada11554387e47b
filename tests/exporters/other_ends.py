"""The other ends of the `grpc` exporter in its tests: a good collector, and servers that do anything else.

Law: all listen on loopback, on ports of the kernel's choice. Time passes as it does, and jumps where a test says so,
so that nobody waits for a deadline.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import FrameType
from typing import NoReturn

import attrs
import trio
import trio.testing
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.settings import SettingCodes

from netwatch.core.batch import Message
from netwatch.exporters.collector import serve
from netwatch.exporters.grpc import GrpcExporter, GrpcSettings

WATCHDOG_S = 120

Behaviour = Callable[[trio.SocketStream], Awaitable[None]]
"""What a server does with a connection."""


def run(main: Callable[[trio.testing.MockClock], Awaitable[None]]) -> None:
    """Run a test on a clock that can jump; end it if it hangs, in real time, which no jump shortens."""

    def bark(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"the test hangs since {WATCHDOG_S} s")

    clock = trio.testing.MockClock(rate=1.0)
    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(WATCHDOG_S)
    try:
        trio.run(main, clock, clock=clock, strict_exception_groups=True)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def message(payload: bytes | memoryview = b"payload") -> Message:
    return Message(payload, flows=1, packets=3, bytes=180)


def exporter(*ports: int, scheme: str = "grpc", host: str = "127.0.0.1", **settings: object) -> GrpcExporter:
    """Make an exporter to these ports; what it encodes is no concern of these tests."""
    url = f"{scheme}://" + ",".join(f"{host}:{port}" for port in ports)
    return GrpcExporter(url, GrpcSettings(**settings), encoder=None)


@attrs.define(eq=False)
class Collector:
    """The real collector, keeping what it took."""

    port: int = 0
    taken: list[bytes] = attrs.Factory(list)

    async def receive(self, content: bytes) -> None:
        """Take a message."""
        self.taken.append(content)


@contextlib.asynccontextmanager
async def collecting(*, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Collector]:
    """Run a collector; at the end it is gone as after a kill, with all connections."""
    collector = Collector()
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(functools.partial(serve, f"127.0.0.1:{port}", collector.receive, tls=tls))
        collector.port = addresses[0].port
        yield collector
        nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class Server:
    """A server of another kind, and how often somebody came."""

    port: int = 0
    connections: int = 0
    came: trio.Event = attrs.Factory(trio.Event)


@contextlib.asynccontextmanager
async def serving(*behaviours: Behaviour) -> AsyncIterator[Server]:
    """Run a server that treats its first connection as the first behaviour says, and so on; the last one stays."""
    server = Server()

    async def accept(stream: trio.SocketStream) -> None:
        behaviour = behaviours[min(server.connections, len(behaviours) - 1)]
        server.connections += 1
        server.came.set()
        # The client may leave at any moment.
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await behaviour(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(trio.serve_tcp, accept, 0, host="127.0.0.1"))
        server.port = listeners[0].socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()


async def hang(stream: trio.SocketStream) -> None:
    """Read nothing, say nothing."""
    await trio.sleep_forever()


async def close(stream: trio.SocketStream) -> None:
    """Go away at once."""


async def swallow(stream: trio.SocketStream) -> None:
    """Read everything, say nothing."""
    while await stream.receive_some():
        pass


def saying(data: bytes) -> Behaviour:
    """Make a server that says something fixed to whatever comes, and then reads on."""

    async def say(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(data)
        await swallow(stream)

    return say


async def reset(stream: trio.SocketStream) -> None:
    """Break the connection while there is something to read."""
    await stream.receive_some(1)


Script = Callable[[H2Connection, int], None]
"""What a server does in HTTP/2 to a request, given its stream."""


@attrs.define(eq=False)
class ScriptedHttp2:
    """A server that speaks HTTP/2, and then says what the script has it say when a request begins or has ended."""

    at_end: Script = lambda h2, stream_id: None
    at_begin: Script = lambda h2, stream_id: None
    settings: Mapping[SettingCodes, int] = attrs.field(factory=dict)
    requests: list[bytes] = attrs.field(factory=list)
    frame_sizes: list[int] = attrs.field(factory=list)
    fields: dict[bytes, bytes] = attrs.field(factory=dict)

    async def __call__(self, stream: trio.SocketStream) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, validate_outbound_headers=False))
        h2.initiate_connection()
        h2.update_settings(self.settings)
        await stream.send_all(h2.data_to_send())
        bodies: dict[int, bytes] = {}
        while data := await stream.receive_some():
            for event in h2.receive_data(data):
                match event:
                    case RequestReceived(stream_id=stream_id):
                        bodies[stream_id] = b""
                        self.fields = dict(event.headers)
                        self.at_begin(h2, stream_id)
                    case DataReceived():
                        bodies[event.stream_id] += event.data
                        self.frame_sizes.append(len(event.data))
                        h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case StreamEnded(stream_id=stream_id):
                        self.requests.append(bodies.pop(stream_id))
                        self.at_end(h2, stream_id)
            await stream.send_all(h2.data_to_send())


def replying(*, trailers: Mapping[str, str] | None = None, body: bytes = b"\0\0\0\0\0", **fields: str) -> Script:
    """Make a script that replies: with a good gRPC reply, but for what is given."""
    headers = {":status": "200", "content-type": "application/grpc"} | {
        name.replace("_", "-") if name != "status" else ":status": value for name, value in fields.items()
    }
    last = {"grpc-status": "0"} if trailers is None else trailers

    def reply(h2: H2Connection, stream_id: int) -> None:
        h2.send_headers(stream_id, list(headers.items()))
        h2.send_data(stream_id, body, end_stream=not last)
        if last:
            h2.send_headers(stream_id, list(last.items()), end_stream=True)

    return reply
