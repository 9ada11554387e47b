"""The grpc exporter against the real collector, and against servers that do anything else."""

from __future__ import annotations

import random
import socket

import pytest
import trio
import trio.testing
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from netwatch.errors import ConfigError, DeliveryFailed
from netwatch.exporters.http2 import MAX_WRITE_BYTES, data_frames
from tests.exporters.other_ends import (
    Behaviour,
    Script,
    ScriptedHttp2,
    close,
    collecting,
    exporter,
    hang,
    message,
    replying,
    reset,
    run,
    saying,
    serving,
    swallow,
)

pytestmark = pytest.mark.usefixtures("nothing_left")

NOT_HTTP2 = "expected HTTP/2; is this a gRPC collector?"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # nothing but defaults
FRAME_BYTES = 16_384  # RFC 9113, 6.5.2: the initial SETTINGS_MAX_FRAME_SIZE


def bytes_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def failure_of(grpc: object, payload: bytes = b"payload") -> str:
    with pytest.raises(DeliveryFailed) as caught:
        await grpc.send(message(payload))
    return str(caught.value)


# What is delivered


@pytest.mark.parametrize(
    "size",
    [
        *(0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 65_530, 65_535, 65_536),
        *(MAX_WRITE_BYTES - 1, MAX_WRITE_BYTES, MAX_WRITE_BYTES + 1, 4 << 20),
    ],
)
def test_message_of_any_size(size: int) -> None:
    """It arrives byte for byte, one connection carrying message after message."""
    payloads = [bytes_of(size), bytes_of(size + 1)]

    async def main(clock: object) -> None:
        async with collecting() as collector, exporter(collector.port) as grpc:
            for payload in payloads:
                await grpc.send(message(memoryview(payload)))
            assert collector.taken == payloads

    run(main)


@pytest.mark.parametrize(("window", "frame_bytes"), [(1, FRAME_BYTES), (1_000, FRAME_BYTES), (100_000, 1 << 20)])
def test_collector_with_another_window(window: int, frame_bytes: int) -> None:
    """A message waits for room in the window and uses all of it, in frames as large as allowed."""
    settings = {SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_FRAME_SIZE: frame_bytes}
    server = ScriptedHttp2(replying(), settings=settings)
    payload = bytes_of(200 if window == 1 else 300_000)

    async def main(clock: object) -> None:
        async with serving(server) as peer, exporter(peer.port) as grpc:
            # Until the settings have come, a client goes by the defaults.
            await grpc.send(message())
            server.frame_sizes.clear()
            await grpc.send(message(payload))

    run(main)
    prefix = b"\0" + len(payload).to_bytes(4, "big")
    assert server.requests[1:] == [prefix + payload]
    assert max(server.frame_sizes) == min(window, len(payload), 65_535)


def test_frames() -> None:
    """Headers and slices by turns; a length of more than 16 bits fits its 24."""
    content = memoryview(bytes(70_000 + 3))
    parts = data_frames(5, content, 70_000)
    assert [len(part) for part in parts] == [9, 70_000, 9, 3]
    assert parts[0] == (70_000).to_bytes(3, "big") + b"\0\0" + (5).to_bytes(4, "big")
    assert parts[1].obj is content.obj


def test_request() -> None:
    """It is what the gRPC protocol asks for; the deadline is in it."""
    server = ScriptedHttp2(replying())

    async def main(clock: object) -> None:
        async with serving(server) as peer, exporter(peer.port, deadline_s=2.5) as grpc:
            await grpc.send(message())
            assert server.fields.pop(b":authority") == f"127.0.0.1:{peer.port}".encode()

    run(main)
    assert server.fields.pop(b"user-agent").startswith(b"netwatch/")
    assert server.fields == {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/pbflow.Collector/Send",
        b"grpc-timeout": b"2500m",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }


def test_frames_of_unknown_type() -> None:
    """They are ignored, as HTTP/2 demands."""

    def reply(h2: H2Connection, stream_id: int) -> None:
        h2._data_to_send += b"\0\0\x08\xbe\0\0\0\0\0anything"
        h2.advertise_alternative_service(b'h2=":1"', origin=b"example")
        replying()(h2, stream_id)

    async def main(clock: object) -> None:
        async with serving(ScriptedHttp2(reply)) as peer, exporter(peer.port) as grpc:
            await grpc.send(message())
            await grpc.send(message())
            assert peer.connections == 1

    run(main)


def test_sends_at_the_same_time() -> None:
    """Each is delivered."""
    payloads = [bytes_of(100_000 + number) for number in range(5)]

    async def main(clock: object) -> None:
        async with collecting() as collector, exporter(collector.port) as grpc:
            async with trio.open_nursery() as nursery:
                for payload in payloads:
                    nursery.start_soon(grpc.send, message(payload))
            assert sorted(collector.taken) == sorted(payloads)

    run(main)


def test_two_exporters() -> None:
    """Each has its own loop; they do not disturb each other."""

    async def main(clock: object) -> None:
        async with (
            collecting() as collector,
            exporter(collector.port) as first,
            exporter(collector.port) as second,
        ):
            for grpc in (first, second, first):
                await grpc.send(message())
            assert len(collector.taken) == 3

    run(main)


# What fails


def goaway(h2: H2Connection, stream_id: int) -> None:
    h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)


def reset_stream(h2: H2Connection, stream_id: int) -> None:
    h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)


def trailers_only(h2: H2Connection, stream_id: int) -> None:
    fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")]
    h2.send_headers(stream_id, fields, end_stream=True)


def headers_alone(h2: H2Connection, stream_id: int) -> None:
    h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
    h2.close_connection()


def push(h2: H2Connection, stream_id: int) -> None:
    """Push a resource, of which grpclib's client knows nothing."""
    h2.push_stream(stream_id, 2, [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x")])


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (replying(status="503", content_type="text/plain", trailers={}), "HTTP status 503; is this a gRPC collector?"),
        (replying(content_type="text/html", trailers={}), "content type 'text/html' instead of gRPC"),
        (replying(trailers={}), "reply without a gRPC status"),
        (replying(trailers={"x": "1"}), "reply without a gRPC status"),
        (replying(status="500"), "HTTP status 500; is this a gRPC collector?"),
        (replying(trailers={"grpc-status": "14", "grpc-message": "over%20load"}), "UNAVAILABLE: over load"),
        (replying(trailers={"grpc-status": "99"}), "gRPC status 99"),
        (replying(trailers={"grpc-status": "gärbäge"}), "gRPC status gärbäge"),
        (replying(trailers={"grpc-status": "13", "grpc-message": "a%0Ab" + "x" * 999}), "INTERNAL: a b" + "x" * 184),
        (trailers_only, "UNIMPLEMENTED"),
        (reset_stream, "Stream reset by remote party, error_code: 7"),
        (goaway, "Received GOAWAY frame, closing connection; error_code: 11"),
        (headers_alone, "Received GOAWAY frame, closing connection; error_code: 0"),
    ],
)
def test_reply_that_is_no_success(script: Script, reason: str) -> None:
    """The message counts as not delivered, the reason is short and printable, and the next message has its chance."""
    server = ScriptedHttp2(script)

    async def main(clock: object) -> None:
        async with serving(server) as peer, exporter(peer.port) as grpc:
            assert (await failure_of(grpc)).removesuffix("...") == f"127.0.0.1:{peer.port}: {reason}"
            server.at_end = replying()
            await grpc.send(message())

    run(main)


def test_what_the_library_does_not_expect() -> None:
    """An exception inside of it ends the connection, not the program."""

    async def main(clock: object) -> None:
        server = ScriptedHttp2(push)
        async with serving(server) as peer, exporter(peer.port) as grpc:
            assert (await failure_of(grpc)).startswith(f"127.0.0.1:{peer.port}: connection lost: <PushedStreamReceived")
            server.at_end = replying()
            await grpc.send(message())

    run(main)


def test_reply_with_garbage_inside() -> None:
    """The status says that the message was taken; what else is in the reply does not matter."""

    async def main(clock: object) -> None:
        async with serving(ScriptedHttp2(replying(body=bytes_of(16_000)))) as peer, exporter(peer.port) as grpc:
            for _ in range(9):  # more than the window holds
                await grpc.send(message())
            assert peer.connections == 1

    run(main)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (trailers_only, "UNIMPLEMENTED"),
        (replying(), "reply before the end of the message"),
        (reset_stream, "Stream reset by remote party, error_code: 7"),
    ],
)
def test_reply_before_the_end_of_the_message(script: Script, reason: str) -> None:
    """A collector that answers at once, and opens the window no further, ends the call at once."""
    server = ScriptedHttp2(at_begin=script, settings={SettingCodes.INITIAL_WINDOW_SIZE: 10})

    async def main(clock: object) -> None:
        async with serving(server) as peer, exporter(peer.port) as grpc:
            assert (await failure_of(grpc, bytes(1_000_000))).endswith(reason)

    run(main)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (close, "connection"),
        (reset, "connection lost: "),
        (saying(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"), NOT_HTTP2),
        (saying(b"SSH-2.0-OpenSSH_9.2p1\r\n"), NOT_HTTP2),
        (saying(SETTINGS + b"\0\0\4\1\4\0\0\0\1\xff\xff\xff\xff"), "Protocol error"),
    ],
    ids=["closes", "resets", "http1", "ssh", "bad header block"],
)
def test_server_that_is_no_collector(behaviour: Behaviour, reason: str) -> None:
    """Whatever it does, sending fails with DeliveryFailed, at once, and can be tried again."""

    async def main(clock: object) -> None:
        async with serving(behaviour, behaviour, ScriptedHttp2(replying())) as peer, exporter(peer.port) as grpc:
            for _ in range(2):
                said = await failure_of(grpc, bytes(500_000))
                assert said.startswith(f"127.0.0.1:{peer.port}: {reason}")
            await grpc.send(message())

    run(main)


def test_noise() -> None:
    """Frames that begin well and go on at random never bring out anything but DeliveryFailed."""

    def noise(seed: int) -> Behaviour:
        chance = random.Random(seed)
        frames = [
            # Mostly known types on the stream of the call, with a length that is right.
            len(body).to_bytes(3, "big") + bytes((chance.randrange(14), chance.randrange(256), 0, 0, 0, stream)) + body
            for body, stream in ((chance.randbytes(chance.randrange(40)), chance.randrange(3)) for _ in range(20))
        ]

        async def speak(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await stream.send_all(SETTINGS + b"".join(frames))

        return speak

    async def main(clock: object) -> None:
        async with serving(*map(noise, range(200))) as peer, exporter(peer.port) as grpc:
            for _ in range(200):
                await failure_of(grpc)
            assert peer.connections == 200

    run(main)


def test_nobody_listens() -> None:
    """The reason is the system's, and the exporter works as soon as somebody does."""
    port = free_port()

    async def main(clock: object) -> None:
        async with exporter(port) as grpc:
            assert await failure_of(grpc) == f"127.0.0.1:{port}: Connection refused"
            async with collecting(port=port) as collector:
                await grpc.send(message())
                assert len(collector.taken) == 1

    run(main)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 64])
def test_host_that_does_not_exist(host: str) -> None:
    """It may come to exist: not delivered, this time."""

    async def main(clock: object) -> None:
        async with exporter(1, host=host) as grpc:
            assert (await failure_of(grpc)).startswith(f"{host}:1: ")

    run(main)


@pytest.mark.parametrize("behaviour", [hang, swallow])
@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_server_that_hangs(behaviour: Behaviour, scheme: str) -> None:
    """Sending ends at the deadline, wherever it hangs, and leaving does not wait for the server either."""

    async def main(clock: trio.testing.MockClock) -> None:
        async with (
            serving(behaviour) as peer,
            # Far more than what passes by itself on this clock, which goes on as the real one; asyncio gives TLS 60 s.
            exporter(peer.port, scheme=scheme, deadline_s=59.0) as grpc,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_expect, grpc, f"127.0.0.1:{peer.port}: no answer within 59 s")
            await peer.came.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
            clock.jump(29.0)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert nursery.child_tasks
            clock.jump(30.0)

    run(main)


async def _expect(grpc: object, failure: str) -> None:
    assert await failure_of(grpc, bytes(8 << 20)) == failure


def test_collector_killed_and_restarted() -> None:
    """The connection that died is noticed, and the next message goes over a new one to the same port."""

    async def main(clock: object) -> None:
        async with collecting() as first, exporter(first.port) as grpc:
            pass
        grpc = exporter(first.port)
        async with grpc:
            async with collecting(port=first.port) as second:
                await grpc.send(message(b"before"))
            assert "Connection refused" in await failure_of(grpc)
            async with collecting(port=first.port) as third:
                await grpc.send(message(b"after"))
            assert (second.taken, third.taken) == ([b"before"], [b"after"])

    run(main)


def test_collector_that_says_goodbye_between_messages() -> None:
    """A GOAWAY while nothing is under way costs nothing: the next message opens a connection."""
    server = ScriptedHttp2()

    def reply(h2: H2Connection, stream_id: int) -> None:
        replying()(h2, stream_id)
        h2.close_connection()

    server.at_end = reply

    async def main(clock: object) -> None:
        async with serving(server) as peer, exporter(peer.port) as grpc:
            await grpc.send(message())
            await trio.testing.wait_all_tasks_blocked(0.01)
            await grpc.send(message())
            assert peer.connections == 2

    run(main)


# Several targets


def test_two_collectors() -> None:
    """They get messages in turn."""

    async def main(clock: object) -> None:
        async with collecting() as first, collecting() as second, exporter(first.port, second.port) as grpc:
            for number in range(6):
                await grpc.send(message(bytes([number])))
            assert (first.taken, second.taken) == ([b"\0", b"\2", b"\4"], [b"\1", b"\3", b"\5"])

    run(main)


def test_one_of_two_is_dead(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing fails, the dead one is asked once until its pause has ended, and the log says once that it is dead."""

    async def main(clock: trio.testing.MockClock) -> None:
        async with (
            serving(close, close, ScriptedHttp2(replying())) as dead,
            collecting() as alive,
            exporter(dead.port, alive.port, backoff_min_s=20.0, backoff_max_s=20.0) as grpc,
        ):
            for number in range(5):
                await grpc.send(message(bytes([number])))
            assert len(alive.taken) == 5
            assert dead.connections == 1
            clock.jump(20.0)
            for _ in range(2):
                await grpc.send(message())
            assert dead.connections == 2
            clock.jump(20.0)
            for _ in range(2):
                await grpc.send(message())
            assert dead.connections == 3
            said = [record.getMessage() for record in caplog.records if record.name.startswith("netwatch")]
            assert len(said) == 2
            assert said[0].startswith(f"127.0.0.1:{dead.port}: ")
            assert said[0].endswith("; going on with the other collectors")
            assert said[1] == f"127.0.0.1:{dead.port}: delivering again"

    run(main)


def test_all_are_dead() -> None:
    """All are tried within one send, and what each of them came to is said."""
    ports = free_port(), free_port()

    async def main(clock: object) -> None:
        async with exporter(*ports) as grpc:
            first, second = (f"127.0.0.1:{port}: Connection refused" for port in ports)
            assert await failure_of(grpc) == f"{grpc.url}: {first}; {second}"
            # Both are in their pauses now. Whoever retries has a pause of his own: the two do not add up.
            async with collecting(port=ports[1]) as collector:
                await grpc.send(message())
                assert len(collector.taken) == 1

    run(main)


def test_one_of_two_hangs() -> None:
    """The message that hung is for the caller to send again; then the other one gets it, at once."""

    async def main(clock: trio.testing.MockClock) -> None:
        async with serving(hang) as hanging, collecting() as alive, exporter(hanging.port, alive.port) as grpc:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_expect, grpc, f"127.0.0.1:{hanging.port}: no answer within 10 s")
                await hanging.came.wait()
                clock.jump(10.0)
            for _ in range(3):
                await grpc.send(message())
            assert len(alive.taken) == 3
            assert hanging.connections == 1

    run(main)


# Reconnecting


def test_periodic_reconnection() -> None:
    """A connection is replaced between two messages when its time has come; jitter spreads the times."""

    async def connections_after(clock: trio.testing.MockClock, **settings: float) -> int:
        async with serving(ScriptedHttp2(replying())) as peer, exporter(peer.port, **settings) as grpc:
            for _ in range(101):
                await grpc.send(message())
                clock.jump(1.0)
            return peer.connections

    async def main(clock: trio.testing.MockClock) -> None:
        assert await connections_after(clock) == 1
        assert await connections_after(clock, reconnect_after_s=9.5, reconnect_jitter=0.0) == 11
        assert 8 <= await connections_after(clock, reconnect_after_s=9.5, reconnect_jitter=0.2) <= 13

    run(main)


# Cancelling


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
@pytest.mark.parametrize("behaviour", [hang, swallow])
@pytest.mark.parametrize("size", [10, 8 << 20])
def test_cancelled_send(behaviour: Behaviour, size: int, scheme: str) -> None:
    """It ends at once, wherever it is, and the exporter goes on working."""

    async def main(clock: object) -> None:
        good = ScriptedHttp2(replying())
        async with serving(behaviour, good) as peer, exporter(peer.port, scheme=scheme) as grpc:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(grpc.send, message(bytes(size)))
                await peer.came.wait()
                await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.cancel_scope.cancel()
            if scheme == "grpc":
                await grpc.send(message())
                assert peer.connections == 2

    run(main)


def test_cancelled_send_at_any_step() -> None:
    """However far it has come, in steps of the scheduler, nothing is left behind and the next message arrives."""

    async def main(clock: object) -> None:
        async with collecting() as collector:
            for steps in range(60):
                async with exporter(collector.port) as grpc:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(grpc.send, message(bytes(100_000)))
                        for _ in range(steps):
                            await trio.lowlevel.checkpoint()
                        nursery.cancel_scope.cancel()
                    await grpc.send(message(b"next"))
                    assert collector.taken.pop() == b"next"
            # The last ones have come all the way.
            assert bytes(100_000) in collector.taken

    run(main)


def test_cancelled_while_connecting() -> None:
    """A connection that nobody accepts is given up at once."""

    async def main(clock: object) -> None:
        # A full accept queue: the kernel leaves further connections unanswered.
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as filler:
            filler.connect(listener.getsockname())
            async with exporter(listener.getsockname()[1]) as grpc:
                with trio.move_on_after(0.05) as scope:
                    await grpc.send(message())
                assert scope.cancelled_caught

    run(main)


def test_cancelled_as_a_whole() -> None:
    """The nursery around exporter and send ends at once, as at SIGTERM when the grace period is over."""

    async def main(clock: object) -> None:
        async with serving(swallow) as peer, trio.open_nursery() as nursery:

            async def export() -> None:
                async with exporter(peer.port) as grpc:
                    await grpc.send(message())

            nursery.start_soon(export)
            await peer.came.wait()
            nursery.cancel_scope.cancel()

    run(main)


def test_plain_text_refused() -> None:
    """With require_tls no exporter is made that would send flows in plain text."""
    with pytest.raises(ConfigError, match="require_tls is set; use grpcs://") as caught:
        exporter(1, require_tls=True)
    assert caught.value.setting == "exporters"
