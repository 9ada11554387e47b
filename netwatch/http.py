"""A very small HTTP server: /metrics for Prometheus, /healthz and /readyz for whoever supervises the agent.

Law: bounded, because anyone who reaches the port may talk to it: MAX_CONNECTIONS at once, one request on each, its head
at most MAX_HEAD_BYTES, DEADLINE_S for all of it. Whatever comes in, the answer is a status code, never a traceback.
Neighbours: `metrics.py` renders, `agent.py` starts the server when `metrics_listen` is set.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from typing import NoReturn

import attrs
import h11
import trio

from netwatch.errors import AddressUnavailable
from netwatch.settings.addresses import Address, parse_listen

MAX_CONNECTIONS = 16  # two Prometheus, a kubelet, somebody with curl; further ones wait in the listener's backlog
DEADLINE_S = 5.0
MAX_HEAD_BYTES = 8 * 1024
# Closing on unread data resets a connection, and the client may never see its answer: so this much is read and ignored.
_MAX_IGNORED_BYTES = 64 * 1024

_TEXT = "text/plain; charset=utf-8"
_PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = frozenset((b"GET", b"HEAD"))


@attrs.frozen
class _Answer:
    status: int
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


async def serve_http(
    listen: str,
    render: Callable[[], bytes],
    is_ready: Callable[[], bool],
    task_status: trio.TaskStatus[tuple[Address, ...]] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serve until cancelled; started with the addresses that it listens on.

    /healthz answers 200 as long as the loop runs, /readyz 200 or 503 as `is_ready` says. Raises AddressUnavailable
    where the address is in use, not this machine's, or not known.
    """
    address = parse_listen(listen)
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        raise AddressUnavailable("metrics_listen", listen, error.strerror or str(error)) from error
    slots = trio.Semaphore(MAX_CONNECTIONS)
    serve = partial(_serve_connection, partial(_answer, render, is_ready), slots)
    task_status.started(tuple(Address(*listener.socket.getsockname()[:2]) for listener in listeners))
    await trio.serve_listeners(serve, [_BoundedListener(listener, slots) for listener in listeners])


@attrs.frozen(eq=False)
class _BoundedListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts only while there is a free slot; whoever serves the connection frees it."""

    _listener: trio.SocketListener
    _slots: trio.Semaphore

    async def accept(self) -> trio.SocketStream:
        await self._slots.acquire()
        try:
            return await self._listener.accept()
        except BaseException:
            self._slots.release()
            raise

    async def aclose(self) -> None:
        await self._listener.aclose()


async def _serve_connection(
    answer: Callable[[h11.Request], _Answer], slots: trio.Semaphore, stream: trio.SocketStream
) -> None:
    try:
        with trio.move_on_after(DEADLINE_S):
            await _converse(answer, stream)
    except trio.BrokenResourceError:
        pass  # the client has gone, and with it whoever would want to know
    finally:
        stream.socket.close()
        slots.release()


async def _converse(answer: Callable[[h11.Request], _Answer], stream: trio.SocketStream) -> None:
    connection = h11.Connection(h11.SERVER)
    try:
        request = await _read_request(connection, stream)
        if request is None:
            return
        answered = answer(request)
    except h11.RemoteProtocolError as error:
        request, answered = None, _Answer(error.error_status_hint, f"{error}\n".encode())
    await stream.send_all(_encode(connection, answered, with_body=request is None or request.method != b"HEAD"))
    await stream.send_eof()
    ignored_bytes = 0
    while ignored_bytes < _MAX_IGNORED_BYTES and (data := await stream.receive_some(MAX_HEAD_BYTES)):
        ignored_bytes += len(data)


async def _read_request(connection: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """Return the head of a request; None where the client closed without one."""
    room_bytes = MAX_HEAD_BYTES
    while (event := connection.next_event()) is h11.NEED_DATA:
        # h11 has a limit of its own, but checks it only after a read that may have gone far beyond.
        if not room_bytes:
            raise h11.RemoteProtocolError(f"expected a head of at most {MAX_HEAD_BYTES} bytes", error_status_hint=431)
        data = await stream.receive_some(room_bytes)
        room_bytes -= len(data)
        connection.receive_data(data)
    return event if isinstance(event, h11.Request) else None


def _encode(connection: h11.Connection, answer: _Answer, *, with_body: bool) -> bytes:
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Connection", "close"),
        *answer.headers,
    ]
    head = connection.send(h11.Response(status_code=answer.status, headers=headers))
    body = connection.send(h11.Data(data=answer.body)) if with_body else b""
    return (head or b"") + (body or b"")


def _answer(render: Callable[[], bytes], is_ready: Callable[[], bool], request: h11.Request) -> _Answer:
    path = request.target.partition(b"?")[0]
    if path not in {b"/metrics", b"/healthz", b"/readyz"}:
        return _Answer(404, b"not found: there are /metrics, /healthz and /readyz\n")
    if request.method not in _METHODS:
        return _Answer(405, b"only GET and HEAD\n", headers=(("Allow", "GET, HEAD"),))
    if path == b"/metrics":
        return _Answer(200, render(), _PROMETHEUS_TEXT)
    if path == b"/readyz" and not is_ready():
        return _Answer(503, b"not ready: not attached yet, or not draining\n")
    return _Answer(200, b"ok\n")
