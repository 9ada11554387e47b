"""One unary gRPC call at a time over grpclib's HTTP/2 connection: the asyncio side of the `grpc` exporter.

Law: what a collector sends, or fails to send, ends a call with DeliveryFailed and nothing else. Nothing here waits
longer than it is allowed to by whoever cancels it.
grpclib's own client takes h2 through its states for each 16 KiB, and copies each several times. Here h2 opens and ends
the stream, and the DATA frames between are put together directly: messages of 8,192 flows of 170 bytes cost 0.28 us of
user CPU a flow instead of 0.48 (medians of 30 alternating runs through loopback, on a busy VM with 2 vCPUs).
Neighbours: `connection.py` connects and calls, `reasons.py` reads the reply.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Sequence
from typing import Any

from grpclib.config import Configuration
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import AbstractHandler, EventsProcessor, H2Protocol, Stream
from grpclib.utils import Wrapper
from h2.config import H2Configuration
from h2.events import AlternativeServiceAvailable, InformationalResponseReceived, UnknownFrameReceived
from h2.exceptions import H2Error
from h2.utilities import SizeLimitDict

from netwatch.errors import DeliveryFailed
from netwatch.exporters.reasons import describe, failure_in

log = logging.getLogger(__name__)

# 16 frames of 16 KiB: what is copied of a message at a time. 4 to 32 frames cost the same CPU.
MAX_WRITE_BYTES = 16 * 16_384

# The least that HTTP/2 allows: replies are empty.
_WINDOW_BYTES = 65_535

# How many calls that ended h2 remembers, in case something still comes for them. Its own 65,536 are 7 MB, after four
# days of drains.
_MAX_CLOSED_STREAMS = 64

_PREFIX = struct.Struct(">BI")  # gRPC over HTTP2, Length-Prefixed-Message: not compressed, length
_FRAME_HEADER = struct.Struct(">BHBBI")  # RFC 9113, 4.1: length in 24 bits, type, flags, stream
_TYPE_DATA = _NO_FLAGS = 0

_NOT_HTTP2 = "expected HTTP/2; is this a gRPC collector?"

_H2_CONFIG = H2Configuration(
    client_side=True,
    # Fields stay bytes: what a stranger sends need not be text.
    header_encoding=None,
    # Ours are constant and right; theirs are only looked up.
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)
_CONFIG = Configuration(
    _keepalive_time=None,
    http2_connection_window_size=_WINDOW_BYTES,
    http2_stream_window_size=_WINDOW_BYTES,
)

# RFC 9113, 4.1: "Implementations MUST ignore and discard frames of unknown types." grpclib takes them for errors.
_IGNORED_EVENTS = (AlternativeServiceAvailable, InformationalResponseReceived, UnknownFrameReceived)

RequestFields = Sequence[tuple[str, str]]


def data_frames(stream_id: int, content: memoryview, max_frame_bytes: int) -> list[bytes | memoryview]:
    """Return content as HTTP/2 DATA frames, headers and slices by turns; nothing is copied."""
    parts: list[bytes | memoryview] = []
    for start in range(0, len(content), max_frame_bytes):
        part = content[start : start + max_frame_bytes]
        size = len(part)
        parts += (_FRAME_HEADER.pack(size >> 16, size & 0xFFFF, _TYPE_DATA, _NO_FLAGS, stream_id), part)
    return parts


def note_exception(loop: object, context: dict[str, Any]) -> None:
    """Log what asyncio cannot raise anywhere: mostly what a connection died of. trio-asyncio would end the program.

    Nothing is swallowed: the call that was under way fails with its connection.
    """
    log.debug("%s", context["message"], exc_info=context.get("exception"))


class AbortableProtocol(H2Protocol):  # type: ignore[misc] # grpclib has no types that mypy may follow
    """grpclib's connection, which can also end without waiting for the other end."""

    transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin HTTP/2."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the transport: that of asyncio's TLS can be closed twice, but not then aborted."""
        self.transport = None
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close at once. Idempotent."""
        if self.transport:
            self.transport.abort()


class ClientProtocol(AbortableProtocol):
    """An HTTP/2 connection to a collector, over any asyncio transport."""

    processor: _Processor
    _is_silent = True

    def __init__(self, target: str) -> None:
        super().__init__(_Handler(), _CONFIG, _H2_CONFIG)
        self.target = target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin HTTP/2."""
        super().connection_made(transport)
        self.processor = _Processor(self.handler, self.connection)
        self._h2 = self.connection._connection  # grpclib hides it; a frame needs its windows
        self._h2._closed_streams = SizeLimitDict(size_limit=_MAX_CLOSED_STREAMS)

    def data_received(self, data: bytes) -> None:
        """Take what came, if it can be HTTP/2.

        RFC 9113, 3.4: the first frame is SETTINGS, so the first byte, the highest of its length, is 0. Of "HTTP/1.1"
        h2 would make a length, and wait for 4.7 MB before it complains.
        """
        if self._is_silent and data[0]:
            self.processor.close(_NOT_HTTP2)
            return
        self._is_silent = False
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the call that is under way, if any, with the reason that grpclib would forget."""
        self.processor.close(f"connection lost: {describe(exc)}" if exc else "connection closed by the collector")
        super().connection_lost(exc)

    @property
    def is_open(self) -> bool:
        """Whether another call can be made."""
        return self.processor.closed_because is None

    async def call(self, fields: RequestFields, payload: bytes | memoryview) -> None:
        """Deliver one message; returns when the collector has said that it took it.

        Raises DeliveryFailed. After that, or after cancelling, the connection can only be aborted: half a message may
        be under way.
        """
        if self.processor.closed_because:  # grpclib would wait for a reply
            raise DeliveryFailed(self.target, self.processor.closed_because)
        assert self.transport
        stream = _CallStream(self.connection, self._h2, self.transport, wrapper=Wrapper())
        terminated = "no reply"
        try:
            with stream.wrapper:
                release = await stream.send_request(fields, _processor=self.processor)
                try:
                    await self._write(stream, self.transport, payload)
                    await stream.ended.wait()
                finally:
                    release()
        except StreamTerminatedError as error:
            terminated = str(error)
        except H2Error as error:
            raise DeliveryFailed(self.target, describe(error)) from error
        # A server may send its whole reply and then terminate the stream, to be spared the rest of a message.
        if not stream.ended.is_set():
            raise DeliveryFailed(self.target, terminated)
        if reason := failure_in(stream.headers or (), stream.trailers or ()):
            raise DeliveryFailed(self.target, reason)
        if not stream.is_written:
            raise DeliveryFailed(self.target, "reply before the end of the message")

    async def _write(self, stream: _CallStream, transport: asyncio.Transport, payload: bytes | memoryview) -> None:
        for content in (_PREFIX.pack(0, len(payload)), payload):
            rest = memoryview(content)
            while rest:
                room = await self._room(stream)
                part, rest = rest[:room], rest[room:]
                for window in (self._h2, self._h2.streams[stream.id]):
                    window.outbound_flow_control_window -= len(part)
                frames = data_frames(stream.id, part, self._h2.max_outbound_frame_size)
                transport.write(b"".join([self._h2.data_to_send(), *frames]))
        self._h2.end_stream(stream.id)
        transport.write(self._h2.data_to_send())
        stream.is_written = True

    async def _room(self, stream: _CallStream) -> int:
        """Wait until the socket and both windows take something; return how many bytes they take at once."""
        while True:
            await self.connection.write_ready.wait()
            window: int = self._h2.local_flow_control_window(stream.id)
            if window > 0:
                return min(window, MAX_WRITE_BYTES)
            stream.window_updated.clear()
            await stream.window_updated.wait()


class _CallStream(Stream):  # type: ignore[misc] # see above
    """The stream of one call. Its wrapper wakes the call when the other end gives it up."""

    wrapper: Wrapper
    is_written = False

    def __init__(self, *args: object, wrapper: Wrapper) -> None:
        super().__init__(*args, wrapper=wrapper)
        self.ended = asyncio.Event()

    def __ended__(self) -> None:
        """Note the end of the reply; where the message has not ended yet, there is no use in going on."""
        self.ended.set()
        if not self.is_written:
            self.wrapper.cancel(StreamTerminatedError("reply before the end of the message"))


class _Processor(EventsProcessor):  # type: ignore[misc] # see above
    """What happens on the connection. Remembers why it was closed."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.closed_because: str | None = None
        self.processors |= dict.fromkeys(_IGNORED_EVENTS, _ignore)

    def close(self, reason: str = "connection closed") -> None:
        """Close, and end the call that is under way. What is said first is the cause, the rest its consequence."""
        self.closed_because = self.closed_because or reason
        super().close(self.closed_because)


class _Handler(AbstractHandler):  # type: ignore[misc] # see above
    """What grpclib tells the owner of a connection: nothing that is not known already."""

    def accept(self, stream: Stream, headers: object, release_stream: Callable[[], None]) -> None:
        """Never called: h2 refuses requests that come to a client."""
        raise NotImplementedError

    def cancel(self, stream: Stream) -> None:
        """Do nothing: the stream's wrapper has ended the call."""

    def close(self) -> None:
        """Do nothing: the processor remembers."""


def _ignore(event: object) -> None:
    """Do nothing."""
