"""What `netwatch/exporters/` uses of grpclib and h2 below their public interface, and what each part of it must do.

A release that changes one of these fails here, by name, before anything fails at a collector. pyproject.toml has upper
bounds for the same reason. h11 is used by its public interface alone.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from grpclib.config import Configuration
from grpclib.const import Cardinality
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Stream
from grpclib.server import Server
from grpclib.server import Stream as ServerStream
from grpclib.utils import Wrapper
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from h2.settings import SettingCodes
from h2.utilities import SizeLimitDict

from netwatch.exporters import http2

HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "test")]


def connected() -> tuple[H2Connection, H2Connection]:
    """Return a client with one open stream, and its server."""
    client, server = H2Connection(H2Configuration()), H2Connection(H2Configuration(client_side=False))
    client.initiate_connection()
    server.initiate_connection()
    client.send_headers(1, HEADERS)
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    server.receive_data(client.data_to_send())
    return client, server


def grpclib_connection_hides_h2() -> None:
    """`Connection._connection` is the h2 connection that it was given."""
    client, _ = connected()

    async def hidden() -> object:
        return Connection(client, asyncio.Transport(), config=Configuration().__for_test__())._connection

    assert asyncio.run(hidden()) is client


def h2_remembers_closed_streams() -> None:
    """`H2Connection._closed_streams` is a SizeLimitDict that takes each stream which ended."""
    client, server = connected()
    assert isinstance(client._closed_streams, SizeLimitDict)
    client._closed_streams = SizeLimitDict(size_limit=1)
    for stream in (1, 3, 5):
        if stream > 1:
            client.send_headers(stream, HEADERS)
        client.end_stream(stream)
        server.receive_data(client.data_to_send())
        server.send_headers(stream, [(":status", "200")], end_stream=True)
        client.receive_data(server.data_to_send())
    assert client.open_outbound_streams == 0
    assert len(client._closed_streams) == 1


def grpclib_needs_no_keepalive() -> None:
    """`Configuration(_keepalive_time=None)` sends no PING of its own."""
    assert Configuration(_keepalive_time=None).__for_test__()._keepalive_time is None


def grpclib_registers_the_processor() -> None:
    """`Stream.send_request(…, _processor=…)` registers the stream there and returns what takes it off again."""
    assert "_processor" in inspect.signature(Stream.send_request).parameters
    assert "register" in dir(EventsProcessor)


def grpclib_makes_a_protocol() -> None:
    """`Server._protocol_factory()` makes the protocol of a connection, with what our own needs of it."""

    async def make() -> H2Protocol:
        return Server([])._protocol_factory()

    made = asyncio.run(make())
    assert isinstance(made, H2Protocol)
    http2.AbortableProtocol(made.handler, made.config, made.h2_config)


def grpclib_hides_the_stream() -> None:
    """`grpclib.server.Stream._stream` is the HTTP/2 stream, which reads any number of bytes."""

    async def hidden() -> bool:
        client, _ = connected()
        transport = asyncio.Transport()
        raw = Stream(Connection(client, transport, config=Configuration().__for_test__()), client, transport)
        stream = ServerStream(
            raw, "/", Cardinality.UNARY_UNARY, bytes, bytes, codec=None, status_details_codec=None, dispatch=None
        )
        return stream._stream is raw

    assert asyncio.run(hidden())
    assert inspect.iscoroutinefunction(Stream.recv_data)


# Each name that begins with an underscore, and its test; below, what is public by name and documented nowhere.
PRIVATE: dict[str, Callable[[], None]] = {
    "_connection": grpclib_connection_hides_h2,
    "_closed_streams": h2_remembers_closed_streams,
    "_keepalive_time": grpclib_needs_no_keepalive,
    "_processor": grpclib_registers_the_processor,
    "_protocol_factory": grpclib_makes_a_protocol,
    "_stream": grpclib_hides_the_stream,
}


@pytest.mark.parametrize("name", PRIVATE)
def test_private_name(name: str) -> None:
    """It is there and does what we rely on."""
    PRIVATE[name]()


def test_no_other_private_name_is_used() -> None:
    """The table is complete: the exporters reach for no other name with an underscore."""
    used = set()
    for path in Path(http2.__file__).parent.glob("*.py"):
        if path.name.endswith("_pb2.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                used.add(node.attr)
            elif isinstance(node, ast.keyword) and node.arg:
                used.add(node.arg)
    assert {name for name in used if name.startswith("_") and not name.startswith("__")} == set(PRIVATE)


def test_windows_are_counters() -> None:
    """Taking bytes off both outbound windows is what sending them would have done, and the server's update refills."""
    client, server = connected()
    content = b"x" * 1_000
    before = client.local_flow_control_window(1)
    for window in (client, client.streams[1]):
        window.outbound_flow_control_window -= len(content)
    assert client.local_flow_control_window(1) == before - len(content)
    frames = http2.data_frames(1, memoryview(content), client.max_outbound_frame_size)
    client.end_stream(1)
    events = server.receive_data(b"".join(frames) + client.data_to_send())
    assert [event.data for event in events if isinstance(event, DataReceived)] == [content, b""]
    assert any(isinstance(event, StreamEnded) for event in events)
    server.acknowledge_received_data(len(content), 1)
    server.increment_flow_control_window(len(content), 1)
    server.increment_flow_control_window(len(content))
    client.receive_data(server.data_to_send())
    assert client.local_flow_control_window(1) == before


def test_frame_size_is_the_servers() -> None:
    """`max_outbound_frame_size` follows the other end's SETTINGS."""
    client, server = connected()
    server.update_settings({SettingCodes.MAX_FRAME_SIZE: 20_000})
    client.receive_data(server.data_to_send())
    assert client.max_outbound_frame_size == 20_000


def test_names_that_grpclib_does_not_document() -> None:
    """What our classes override or read is where they look for it."""
    assert {"connection_made", "connection_lost", "data_received"} <= set(dir(H2Protocol))
    assert {"close", "process"} <= set(dir(EventsProcessor))
    assert "__ended__" in dir(Stream)
    assert {"__enter__", "__exit__", "cancel"} <= set(dir(Wrapper))

    async def events() -> None:
        client, _ = connected()
        connection = Connection(client, asyncio.Transport(), config=Configuration().__for_test__())
        stream = Stream(connection, client, asyncio.Transport(), wrapper=Wrapper())
        assert isinstance(connection.write_ready, asyncio.Event)
        assert isinstance(stream.window_updated, asyncio.Event)
        assert isinstance(EventsProcessor(http2._Handler(), connection).processors, dict)

    asyncio.run(events())
