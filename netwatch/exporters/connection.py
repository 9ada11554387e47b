"""A connection to one collector: the trio side, where connecting, TLS and cancelling are.

Law: only DeliveryFailed comes out, and a cancelled step leaves no socket open. Names are resolved anew for each
connection. trio connects, because it tries all addresses of a name and gives up a look-up as soon as it is cancelled;
asyncio takes over the connected socket.
Neighbours: `grpc.py` keeps connections, `http2.py` speaks over them.
"""

from __future__ import annotations

import socket

import attrs
import trio
import trio_asyncio

from netwatch import __version__
from netwatch.errors import DeliveryFailed, TlsError
from netwatch.exporters.http2 import ClientProtocol, RequestFields
from netwatch.exporters.reasons import describe
from netwatch.exporters.tls import TlsFiles
from netwatch.settings.addresses import Address

SEND_METHOD = "/pbflow.Collector/Send"


@attrs.frozen(eq=False)
class Connection:
    """An open connection. Resource handling: abort() it, whatever happened to it."""

    expires_at_s: float
    _loop: trio_asyncio.TrioEventLoop
    _protocol: ClientProtocol
    _fields: RequestFields

    @property
    def is_open(self) -> bool:
        """Whether the other end is still there, as far as is known."""
        return self._protocol.is_open

    async def send(self, payload: bytes | memoryview) -> None:
        """Deliver one message. Raises DeliveryFailed; then, or once cancelled, there is nothing to do but abort."""
        await self._loop.run_aio_coroutine(self._protocol.call(self._fields, payload))

    def abort(self) -> None:
        """Close at once, without waiting for the other end. Idempotent."""
        self._protocol.abort()


@attrs.frozen
class Connector:
    """What all connections of an exporter have in common. `tls_files` is None where flows go in plain text."""

    loop: trio_asyncio.TrioEventLoop
    deadline_s: float
    tls_files: TlsFiles | None

    async def connect(self, address: Address, expires_at_s: float) -> Connection:
        """Connect. Raises DeliveryFailed; cancelled, nothing stays open."""
        target = str(address)
        try:
            stream = await trio.open_tcp_stream(address.host, address.port)
            try:
                protocol = await self.loop.run_aio_coroutine(self._adopt(stream, address))
            finally:
                # Does nothing where asyncio has taken the socket over; if cancelled early, it has not.
                stream.socket.close()
        # A name that cannot be a host name is a UnicodeError.
        except (OSError, UnicodeError) as error:
            raise DeliveryFailed(target, describe(error)) from error
        except TlsError as error:
            raise DeliveryFailed(target, str(error)) from error
        return Connection(expires_at_s, self.loop, protocol, self._fields(target))

    async def _adopt(self, stream: trio.SocketStream, address: Address) -> ClientProtocol:
        context = self.tls_files.client_context() if self.tls_files else None
        _, protocol = await self.loop.create_connection(
            lambda: ClientProtocol(str(address)),
            sock=socket.socket(fileno=stream.socket.detach()),
            ssl=context,
            server_hostname=address.host if context else None,
        )
        assert isinstance(protocol, ClientProtocol)
        return protocol

    def _fields(self, authority: str) -> RequestFields:
        return (
            (":method", "POST"),
            (":scheme", "https" if self.tls_files else "http"),
            (":path", SEND_METHOD),
            (":authority", authority),
            # The whole deadline, whatever is left of it: a value that stays the same costs one byte.
            ("grpc-timeout", f"{max(1, round(self.deadline_s * 1000))}m"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", f"netwatch/{__version__}"),
        )
