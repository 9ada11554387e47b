"""A gRPC server of pbflow.Collector: the other end of the `grpc` exporter, for `netwatch collect` and for tests.

Law: a message is acknowledged when `receive` has returned, not before. What a client sends can fail its own call or
its own connection, nothing else. A message has at most MAX_MESSAGE_BYTES.
Neighbours: `collect.py` prints what arrives; `connection.py` is the client.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import weakref
from collections.abc import Awaitable, Callable, Mapping

import attrs
import trio
import trio_asyncio
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.protocol import Stream as RawStream
from grpclib.server import Server, Stream

from netwatch.errors import AddressUnavailable
from netwatch.exporters.connection import SEND_METHOD
from netwatch.exporters.http2 import AbortableProtocol, note_exception
from netwatch.exporters.reasons import describe
from netwatch.settings.addresses import Address, parse_listen

log = logging.getLogger(__name__)

# Four times what gRPC servers take by default; a length prefix could announce 4 GiB.
MAX_MESSAGE_BYTES = 16 << 20

# How long the end waits for messages that are being received: one is taken, or its sender knows that it was not.
GRACE_S = 2.0

_ENDING = "the collector is shutting down"
_PREFIX = struct.Struct(">BI")  # gRPC over HTTP2, Length-Prefixed-Message: compressed or not, length

Receive = Callable[[bytes], Awaitable[None]]
"""Takes one serialized pbflow.Records; trio-flavoured.

A ValueError says why this message is refused, a trio.BrokenResourceError that no message can be taken any more.
"""


async def serve(
    listen: str,
    receive: Receive,
    *,
    tls: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Receive messages until cancelled; never returns otherwise. Tells the task status where it listens.

    Cancelled, it takes no further message and waits up to GRACE_S for those that `receive` has in hand.
    Raises AddressUnavailable.
    """
    address = parse_listen(listen)
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except (OSError, UnicodeError) as error:
        raise AddressUnavailable("--listen", listen, describe(error)) from error
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(note_exception)
        service = _Service(loop, receive)
        server = _Server(loop, tls, Server([service], codec=_RawCodec()))
        try:
            task_status.started([Address(*listener.socket.getsockname()[:2]) for listener in listeners])
            await trio.serve_listeners(server.accept, listeners)
        finally:
            with trio.move_on_after(GRACE_S, shield=True):
                await service.close()
            server.abort()


@attrs.define(eq=False)
class _Service:
    """The methods of pbflow.Collector."""

    loop: trio_asyncio.TrioEventLoop
    receive: Receive
    _in_hand: int = 0
    _is_closing: bool = False
    _idle: trio.Event = attrs.field(factory=trio.Event)

    def __mapping__(self) -> Mapping[str, Handler]:
        return {SEND_METHOD: Handler(self.send, Cardinality.UNARY_UNARY, bytes, bytes)}

    async def send(self, stream: Stream) -> None:
        """Take one message; asyncio-flavoured."""
        content = await _read_message(stream._stream)
        if self._is_closing:
            raise GRPCError(Status.UNAVAILABLE, _ENDING)
        self._in_hand += 1
        try:
            await self.loop.trio_as_future(self.receive, content)
            await stream.send_message(b"")
            await stream.send_trailing_metadata()
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        except trio.BrokenResourceError as error:
            raise GRPCError(Status.UNAVAILABLE, _ENDING) from error
        finally:
            self._in_hand -= 1
            if not self._in_hand:
                self._idle.set()

    async def close(self) -> None:
        """Take nothing more, and wait until what is in hand has been received and acknowledged."""
        self._is_closing = True
        while self._in_hand:
            self._idle = trio.Event()
            await self._idle.wait()


@attrs.define(eq=False)
class _Server:
    """The connections. grpclib's server has no way to close them; so it gets them one by one."""

    loop: trio_asyncio.TrioEventLoop
    tls: ssl.SSLContext | None
    grpc: Server
    _connections: weakref.WeakSet[AbortableProtocol] = attrs.field(factory=weakref.WeakSet)

    async def accept(self, stream: trio.SocketStream) -> None:
        """Take over a connection."""
        try:
            await self.loop.run_aio_coroutine(self._adopt(stream))
        except OSError as error:
            log.info("connection refused: %s", describe(error))
        finally:
            stream.socket.close()

    async def _adopt(self, stream: trio.SocketStream) -> None:
        connection = socket.socket(fileno=stream.socket.detach())
        await self.loop.connect_accepted_socket(self._protocol, connection, ssl=self.tls)

    def _protocol(self) -> AbortableProtocol:
        made = self.grpc._protocol_factory()
        protocol = AbortableProtocol(made.handler, made.config, made.h2_config)
        self._connections.add(protocol)
        return protocol

    def abort(self) -> None:
        """Close all connections at once."""
        for connection in self._connections:
            connection.abort()


class _RawCodec(CodecBase):  # type: ignore[misc] # grpclib has no types that mypy may follow
    """Replies are made of bytes already."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: object) -> bytes:
        return message

    def decode(self, data: bytes, message_type: object) -> bytes:
        return data


async def _read_message(stream: RawStream) -> bytes:
    """Return what follows the prefix. grpclib's own way takes any length that is announced."""
    try:
        is_compressed, size = _PREFIX.unpack(await stream.recv_data(_PREFIX.size) or bytes(_PREFIX.size))
        if is_compressed:
            raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not supported")
        if size > MAX_MESSAGE_BYTES:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"message of {size} bytes; the limit is {MAX_MESSAGE_BYTES}")
        content: bytes = await stream.recv_data(size)
    except AssertionError as error:  # grpclib asserts that the stream does not end before
        raise GRPCError(Status.INVALID_ARGUMENT, "the request ends within a message") from error
    return content
