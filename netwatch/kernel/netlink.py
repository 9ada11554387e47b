"""Interfaces by rtnetlink: what there is, and what happens to them.

Law: subscribe before you list, then nothing falls between the two. Events come in the kernel's order; where it had no
room for some, that is an event too, and whoever reads it starts again by subscribing.
Neighbours: `watch.py` is the reader; `netlink_messages.py` has the framing; `clsact.py` speaks to traffic control;
`core/link.py` has the values.

Why not pyroute2: importing any part of it costs 12.7 MB resident and 150 ms (0.9.7, measured), a quarter of the
daemon's memory; and its sockets are asyncio inside: IPRoute refuses to work in a Trio task, in a trio-asyncio loop
too. What we need of the protocol, here and for traffic control, are a few kinds of message, unchanged since Linux 4.5.
Source: include/uapi/linux/netlink.h, rtnetlink.h and if_link.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from types import TracebackType

import trio

from netwatch.core.link import EventsLost, Link, LinkEvent, LinkGone, LinkSeen
from netwatch.kernel.netlink_messages import (
    DATAGRAM_BYTES,
    attribute,
    attributes_in,
    dump,
    dump_request,
    join_groups,
    messages_in,
    open_route_socket,
    queued,
)

_RTM_NEWLINK = 16
_RTM_DELLINK = 17
_RTM_GETLINK = 18
_NLM_F_DUMP_INTR = 0x10
_RTNLGRP_LINK = 1

_IFLA_IFNAME = 3
_IFLA_LINKINFO = 18
_IFLA_INFO_KIND = 1
_IFLA_EXT_MASK = 29
_RTEXT_FILTER_SKIP_STATS = 8
_IFF_UP = 1

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change

# An event takes about 4 KB of it (1.5 KB of payload, and the socket buffer's own size): 2,000 events, or 500 veth
# pairs made in one go, while an attachment waits for the kernel. Only what is queued takes memory.
_EVENT_BUFFER_BYTES = 8 << 20
# One turn of the loop: 256 events x 10 us = 2.6 ms.
_MAX_EVENTS_AT_ONCE = 256
_DUMP_ATTEMPTS = 5


class RouteNetlink:
    """The interfaces of the network namespace that the process is in. Close it once its reader has ended."""

    def __init__(self, event_buffer_bytes: int = _EVENT_BUFFER_BYTES) -> None:
        self._event_buffer_bytes = event_buffer_bytes
        self._datagram = bytearray(DATAGRAM_BYTES)
        self._events: socket.socket | None = None

    def __enter__(self) -> RouteNetlink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the subscription. Idempotent."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def subscribe(self) -> None:
        """Ask for events from now on; a former subscription ends, with what is still queued for it."""
        self.close()
        self._events = open_route_socket()
        self._events.setblocking(False)
        join_groups(self._events, self._event_buffer_bytes, _RTNLGRP_LINK)

    async def links(self) -> list[Link]:
        """List all interfaces. In a worker thread: the kernel answers once nobody else changes interfaces."""
        return await trio.to_thread.run_sync(list_links)

    async def receive(self) -> list[LinkEvent]:
        """Wait for events and return those that are there, at most 256.

        After EventsLost, what is queued is void: subscribe again, then list. Cancelling loses nothing.
        """
        assert self._events is not None, "subscribe first"
        while True:
            await trio.lowlevel.wait_readable(self._events)
            if events := self._receive_queued(self._events):
                return events

    def _receive_queued(self, events_socket: socket.socket) -> list[LinkEvent]:
        events: list[LinkEvent] = []
        try:
            for datagram in queued(events_socket, self._datagram, _MAX_EVENTS_AT_ONCE):
                events += _events_in(datagram)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return [EventsLost()]
        return events


def list_links() -> list[Link]:
    """Return all interfaces of this thread's network namespace. Blocks for some milliseconds."""
    for _ in range(_DUMP_ATTEMPTS):
        links, is_consistent = _dump_links()
        if is_consistent:
            break
    # Else the interfaces changed during each attempt; a subscriber learns the rest from the events.
    return links


def _dump_links() -> tuple[list[Link], bool]:
    mask = attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))
    body = _LINK.pack(0, 0, 0, 0, 0) + mask
    links: list[Link] = []
    is_consistent = True
    with open_route_socket() as answers:
        for kind, flags, answer in dump(answers, dump_request(_RTM_GETLINK, body)):
            is_consistent = is_consistent and not flags & _NLM_F_DUMP_INTR
            link = _link_in(answer) if kind == _RTM_NEWLINK else None
            if link is not None:
                links.append(link)
    return links, is_consistent


def _events_in(datagram: memoryview) -> Iterator[LinkEvent]:
    for kind, _, body in messages_in(datagram):
        if kind == _RTM_NEWLINK:
            link = _link_in(body)
            if link is not None:
                yield LinkSeen(link)
        elif kind == _RTM_DELLINK and body[0] == socket.AF_UNSPEC:
            yield LinkGone(_LINK.unpack_from(body)[2])


def _link_in(body: memoryview) -> Link | None:
    family, arphrd, ifindex, flags, _ = _LINK.unpack_from(body)
    # A port that joins or leaves a bridge is told as a link, too, of the family AF_BRIDGE: its leaving as RTM_DELLINK.
    if family != socket.AF_UNSPEC:
        return None
    name, kind = "", None
    for number, value in attributes_in(body[_LINK.size :]):
        if number == _IFLA_IFNAME:
            name = _text(value)
        elif number == _IFLA_LINKINFO:
            kinds = [_text(inner) for inner_number, inner in attributes_in(value) if inner_number == _IFLA_INFO_KIND]
            kind = kinds[0] if kinds else None
    return Link(ifindex, name, arphrd, bool(flags & _IFF_UP), kind) if name else None


def _text(value: memoryview) -> str:
    # The kernel allows any bytes in a name; exporters need UTF-8.
    return bytes(value).rstrip(b"\0").decode(errors="replace")
