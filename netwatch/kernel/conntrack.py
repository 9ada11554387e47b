"""Translated connections by ctnetlink: those that are there, and what becomes of them.

Law: subscribe before the dump, then nothing falls between the two; where the kernel had no room for events, begin anew.
Only translated connections are kept: the others cost a comparison.
Neighbours: `core/translations.py` keeps them; `netlink_messages.py` has the framing.
Source: include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import trio

from netwatch.core.translations import Translations
from netwatch.kernel.netlink_messages import (
    DATAGRAM_BYTES,
    DONE,
    ERROR,
    attributes_in,
    dump_request,
    join_groups,
    messages_in,
    raise_for,
)

_NETLINK_NETFILTER = 12
_GROUP_NEW, _GROUP_UPDATE, _GROUP_DESTROY = 1, 2, 3  # NFNLGRP_CONNTRACK_*
_NEW, _GET, _DELETE = 0x100, 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*
_NFGENMSG = struct.Struct("=BBH")  # family, version, resource

_TUPLE_ORIGINAL, _TUPLE_REPLY, _ZONE = 1, 2, 18  # enum ctattr_type
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2  # enum ctattr_tuple
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4  # enum ctattr_ip
_NUMBER, _SRC_PORT, _DST_PORT = 1, 2, 3  # enum ctattr_l4proto
_ICMP_TYPE, _ICMP_CODE, _ICMPV6_TYPE, _ICMPV6_CODE = 5, 6, 8, 9

_KEY = struct.Struct("=16s16sHHBBBx")  # struct flow_key of bpf/netwatch.h
_V4_MAPPED = bytes(10) + b"\xff\xff"
_PORT = struct.Struct("!H")

# 8 MB hold about 10,000 events of 300 B, and their socket buffers, while a drain is under way.
_EVENT_BUFFER_BYTES = 8 << 20
# One turn of the loop: 64 datagrams x 12 us.
_MAX_DATAGRAMS_AT_ONCE = 64

log = logging.getLogger(__name__)


class Tuple(NamedTuple):
    """One direction of a connection: addresses of 16 bytes, ports, protocol, ICMP type and code."""

    src_addr: bytes
    dst_addr: bytes
    src_port: int
    dst_port: int
    protocol: int
    icmp_type: int
    icmp_code: int


async def follow_translations(translations: Translations) -> None:
    """Keep `translations` in step with the kernel, until cancelled. Returns where there is no connection tracking."""
    while True:
        try:
            with _open_events() as events:
                for connection in await trio.to_thread.run_sync(lambda: list(_dump())):
                    translations.add(*connection)
                await _follow(events, translations)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                log.info("no address translation is told: conntrack by netlink: %s", error.strerror)
                return
            log.warning("connection tracking told more than could be read: starting again")


async def _follow(events: socket.socket, translations: Translations) -> NoReturn:
    datagram = bytearray(DATAGRAM_BYTES)
    while True:
        await trio.lowlevel.wait_readable(events)
        try:
            for _ in range(_MAX_DATAGRAMS_AT_ONCE):
                size, (port, _) = events.recvfrom_into(datagram)
                if port == 0:
                    _take(memoryview(datagram)[:size], translations)
        except BlockingIOError:
            pass


def _take(datagram: memoryview, translations: Translations) -> None:
    for kind, _, body in messages_in(datagram):
        connection = translation_in(body) if kind in (_NEW, _DELETE) else None
        if connection is None:
            continue
        if kind == _NEW:
            translations.add(*connection)
        else:
            translations.remove(*connection[:2])


def translation_in(body: memoryview) -> tuple[bytes, bytes, int] | None:
    """Return the keys of both directions and the zone, from the body of a message; None: not translated, or no IP."""
    original = reply = None
    zone = 0
    for number, value in attributes_in(body[_NFGENMSG.size :]):
        if number == _TUPLE_ORIGINAL:
            original = value
        elif number == _TUPLE_REPLY:
            reply = value
        elif number == _ZONE:
            zone = _PORT.unpack(value)[0]
    if original is None or reply is None:
        return None
    there, back = _tuple_in(original), _tuple_in(reply)
    if there is None or back is None or not _is_translated(there, back):
        return None
    return _KEY.pack(*there), _KEY.pack(*back), zone


def _is_translated(there: Tuple, back: Tuple) -> bool:
    ends = there.src_addr, there.src_port, there.dst_addr, there.dst_port
    return ends != (back.dst_addr, back.dst_port, back.src_addr, back.src_port)


def _tuple_in(value: memoryview) -> Tuple | None:
    src = dst = None
    numbers = dict.fromkeys((_NUMBER, _SRC_PORT, _DST_PORT), 0)
    for number, part in attributes_in(value):
        if number == _TUPLE_IP:
            addresses = {inner: _address(bytes(octets)) for inner, octets in attributes_in(part)}
            src = addresses.get(_V4_SRC) or addresses.get(_V6_SRC)
            dst = addresses.get(_V4_DST) or addresses.get(_V6_DST)
        elif number == _TUPLE_PROTOCOL:
            numbers |= {inner: int.from_bytes(octets) for inner, octets in attributes_in(part)}
    if src is None or dst is None:
        return None
    kind = numbers.get(_ICMP_TYPE, numbers.get(_ICMPV6_TYPE, 0))
    code = numbers.get(_ICMP_CODE, numbers.get(_ICMPV6_CODE, 0))
    return Tuple(src, dst, numbers[_SRC_PORT], numbers[_DST_PORT], numbers[_NUMBER], kind, code)


def _address(octets: bytes) -> bytes:
    return octets if len(octets) == 16 else _V4_MAPPED + octets


def _open_events() -> socket.socket:
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    try:
        events.setblocking(False)
        join_groups(events, _EVENT_BUFFER_BYTES, _GROUP_NEW, _GROUP_UPDATE, _GROUP_DESTROY)
    except OSError:
        events.close()
        raise
    return events


def _dump() -> Iterator[tuple[bytes, bytes, int]]:
    """Yield the translated connections that are there. Blocks for 4 us a connection of the whole table."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as dump:
        dump.sendto(dump_request(_GET, _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0)), (0, 0))
        while True:
            for kind, _, body in messages_in(memoryview(dump.recv(DATAGRAM_BYTES))):
                if kind in (DONE, ERROR):
                    raise_for(body)
                    return
                connection = translation_in(body) if kind == _NEW else None
                if connection:
                    yield connection
