"""Translated connections by ctnetlink: those that are there, and what becomes of them.

Law: subscribe before you list, then nothing falls between the two; where the kernel had no room for events, list again.
Of untranslated connections nothing is seen here: a filter gets rid of their events in the kernel.
Neighbours: `core/translations.py` keeps them; `conntrack_filter.py` is that filter, `netlink_messages.py` the framing.
Source: include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
import struct
from collections.abc import Iterator, Set
from typing import NamedTuple, NoReturn

import attrs
import trio

from netwatch.core.translations import Translations
from netwatch.kernel.conntrack_filter import event_filter, is_untranslated
from netwatch.kernel.netlink_messages import (
    DATAGRAM_BYTES,
    attributes_in,
    dump,
    dump_request,
    join_groups,
    messages_in,
    queued,
)
from netwatch.kernel.syscall import address

_NETLINK_NETFILTER = 12
# NFNLGRP_CONNTRACK_*. Updates are most of the events, are made for subscribers only, and tell nothing of interest: a
# connection is new when its first packet has been through all chains, and then nf_conntrack_alter_reply() lets it be.
_GROUP_NEW, _GROUP_DESTROY = 1, 3
_NEW, _GET, _DELETE = 0x100, 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*
_NFGENMSG = struct.Struct("=BBH")  # family, version, resource

_TUPLE_ORIGINAL, _TUPLE_REPLY, _ZONE = 1, 2, 18  # enum ctattr_type
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2  # enum ctattr_tuple
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4  # enum ctattr_ip
_NUMBER, _SRC_PORT, _DST_PORT = 1, 2, 3  # enum ctattr_l4proto
_ICMP_TYPE, _ICMP_CODE, _ICMPV6_TYPE, _ICMPV6_CODE = 5, 6, 8, 9
# What `bpf/parse.bpf.h` reads ports of. Of GRE conntrack has its keys there.
_WITH_PORTS = {socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP}

_KEY = struct.Struct("=16s16sHHBBBx")  # struct flow_key of bpf/netwatch.h
_V4_MAPPED = bytes(10) + b"\xff\xff"
_PORT = struct.Struct("!H")

_SO_ATTACH_FILTER = 26
_FILTER_PROGRAM = struct.Struct("@HP")  # struct sock_fprog: instructions, and where they are
_INSTRUCTION_BYTES = 8
# 8 MB hold about 10,000 events of 300 B, and their socket buffers, while a drain is under way.
_EVENT_BUFFER_BYTES = 8 << 20
# One turn of the loop: 64 datagrams x 20 us.
_MAX_DATAGRAMS_AT_ONCE = 64
# With net.netfilter.nf_conntrack_events = 2, the default, the end of a connection that began before anybody listened is
# not told. A table of 200,000 connections takes 0.6 s in a thread.
_LIST_AGAIN_S = 60.0

Connection = tuple[bytes, bytes, int]
"""Raw FLOW_KEY of the first direction and of the other, each as it comes to this host; zone."""

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


async def follow_translations(
    translations: Translations, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Keep `translations` in step with the kernel, until cancelled; started once all that are there are known.

    Returns where the kernel has no connection tracking, and says so. Connections that end while the kernel has no room
    for events, or whose end it does not tell, are known to have ended when all are listed again: at once, or after a
    minute.
    """
    follower = _Follower(translations, task_status)
    while True:
        try:
            with open_events() as events:
                await follower.follow(events)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                log.info("no address translation is told: conntrack by netlink: %s", error.strerror)
                follower.start()
                return
            if not translations.overruns:
                log.warning("connection tracking told more than could be read: listing it again, this and every time")
            translations.overruns += 1


@attrs.define
class _Follower:
    """What outlives a subscription."""

    translations: Translations
    _task_status: trio.TaskStatus[None]
    _is_started: bool = False

    def start(self) -> None:
        """Let the starter go on. Idempotent."""
        if not self._is_started:
            self._is_started = True
            self._task_status.started()

    async def follow(self, events: socket.socket) -> NoReturn:
        """List, then take events; list again as long as there is something whose end will not be told."""
        untold: Set[bytes] | None = None
        while True:
            listed = await trio.to_thread.run_sync(lambda: list(list_connections()))
            self.translations.replace(listed)
            self.start()
            originals = {original for original, _, _ in listed}
            untold = originals if untold is None else untold & originals
            with trio.move_on_after(_LIST_AGAIN_S if untold else math.inf):
                await _follow(events, self.translations)


async def _follow(events: socket.socket, translations: Translations) -> NoReturn:
    datagram = bytearray(DATAGRAM_BYTES)
    while True:
        await trio.lowlevel.wait_readable(events)
        for received in queued(events, datagram, _MAX_DATAGRAMS_AT_ONCE):
            _take(received, translations)


def _take(datagram: memoryview, translations: Translations) -> None:
    for kind, _, body in messages_in(datagram):
        connection = translation_in(body) if kind in (_NEW, _DELETE) else None
        if connection is None:
            continue
        if kind == _NEW:
            translations.add(*connection)
        else:
            translations.remove(*connection[:2])


def translation_in(body: memoryview) -> Connection | None:
    """Return the keys of both directions and the zone, from the body of a message; None: not translated, or no IP."""
    if is_untranslated(body):
        return None
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
    protocol = numbers[_NUMBER]
    src_port, dst_port = (numbers[_SRC_PORT], numbers[_DST_PORT]) if protocol in _WITH_PORTS else (0, 0)
    return Tuple(src, dst, src_port, dst_port, protocol, kind, code)


def _address(octets: bytes) -> bytes:
    return octets if len(octets) == 16 else _V4_MAPPED + octets


def open_events() -> socket.socket:
    """Subscribe, in this thread's network namespace, to what may be translated connections."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    try:
        events.setblocking(False)
        program = bytearray(event_filter())
        length = len(program) // _INSTRUCTION_BYTES
        events.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _FILTER_PROGRAM.pack(length, address(program)))
        join_groups(events, _EVENT_BUFFER_BYTES, _GROUP_NEW, _GROUP_DESTROY)
    except OSError:
        events.close()
        raise
    return events


def list_connections() -> Iterator[Connection]:
    """Yield the translated connections that are there. Blocks for 3 us a connection, 15 us where it is translated."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as answers:
        for kind, _, body in dump(answers, dump_request(_GET, _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0))):
            connection = translation_in(body) if kind == _NEW else None
            if connection:
                yield connection
