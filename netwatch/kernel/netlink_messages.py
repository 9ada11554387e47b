"""Netlink messages: how they are framed, asked for, and subscribed to.

Law: bytes in, values out; what is cut off or malformed ends the iteration.
Neighbours: `netlink.py` speaks of interfaces with it, `clsact.py` of filters, `conntrack.py` of translated connections.
Source: include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence

from netwatch.errors import KernelUnsupported

ERROR, DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_NLM_F_REQUEST = 1
_NLM_F_ACK = 4
_NLM_F_DUMP = 0x300
_NLA_TYPE_MASK = 0x3FFF
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_SO_RCVBUFFORCE = 33

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type

# Twice what netlink_dump() in net/netlink/af_netlink.c puts into one datagram at most.
DATAGRAM_BYTES = 65_536


def dump_request(kind: int, body: bytes) -> bytes:
    """Return a message that asks for all there is of a kind."""
    return _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0) + body


def request(kind: int, flags: int, body: bytes) -> bytes:
    """Return a message that asks for something to be done, and for an answer whether it was."""
    return _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, 0, 0) + body


def attribute(number: int, value: bytes) -> bytes:
    """Return an attribute, padded to where the next one may begin."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, number) + value + bytes(_aligned(size) - size)


def open_route_socket() -> socket.socket:
    """Return a socket for rtnetlink, in the network namespace of this thread."""
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    except OSError as error:
        hint = "allow AF_NETLINK sockets (RestrictAddressFamilies= of systemd, the container's seccomp profile)"
        raise KernelUnsupported("rtnetlink", f"no socket: {error.strerror}", hint) from error


def send_requests(answers: socket.socket, requests: Sequence[bytes]) -> None:
    """Send requests in one datagram and wait for all answers. Blocks; raises OSError for the first that was refused.

    The kernel works off all of them within the call that sends them, those after a refused one, too.
    """
    answers.sendto(b"".join(requests), (0, 0))
    refusals: list[OSError] = []
    for _ in requests:
        for kind, _, body in messages_in(memoryview(answers.recv(DATAGRAM_BYTES))):
            try:
                raise_for(body)
            except OSError as error:
                refusals.append(error)
            assert kind == ERROR, f"netlink message {kind} instead of an answer"
    if refusals:
        raise refusals[0]


def join_groups(events: socket.socket, buffer_bytes: int, *groups: int) -> None:
    """Subscribe a socket to groups, with room for what comes while nobody reads."""
    try:
        events.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
    except PermissionError:
        events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    # Without an address of its own it has the kernel's, 0, and the kernel sends nothing to itself.
    events.bind((0, 0))
    for group in groups:
        events.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)


def raise_for(body: memoryview) -> None:
    """Raise OSError where the body of an ERROR or DONE says so."""
    # NLMSG_DONE and NLMSG_ERROR both begin with 0 or a negated errno.
    code: int = struct.unpack_from("=i", body)[0]
    if code < 0:
        raise OSError(-code, os.strerror(-code))


def dump(answers: socket.socket, request: bytes) -> Iterator[tuple[int, int, memoryview]]:
    """Ask, and yield type, flags and body of each message of the answer, the DONE included. Blocks; raises OSError."""
    answers.sendto(request, (0, 0))
    while True:
        for kind, flags, body in messages_in(memoryview(answers.recv(DATAGRAM_BYTES))):
            if kind in (DONE, ERROR):
                raise_for(body)
            yield kind, flags, body
            if kind in (DONE, ERROR):
                return


def queued(events: socket.socket, datagram: bytearray, at_most: int) -> Iterator[memoryview]:
    """Yield the datagrams that are there for a subscriber, each in the same buffer. Raises OSError: ENOBUFS, say."""
    for _ in range(at_most):
        try:
            size, (port, _) = events.recvfrom_into(datagram)
        except BlockingIOError:
            return
        if port == 0:  # from the kernel, not from another process that may send to the group
            yield memoryview(datagram)[:size]


def messages_in(datagram: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield type, flags and body of each netlink message."""
    while len(datagram) >= _HEADER.size:
        length, kind, flags, _, _ = _HEADER.unpack_from(datagram)
        if not _HEADER.size <= length <= len(datagram):
            return
        yield kind, flags, datagram[_HEADER.size : length]
        datagram = datagram[_aligned(length) :]


def attributes_in(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield type and value of each attribute."""
    while len(body) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(body)
        if not _ATTRIBUTE.size <= length <= len(body):
            return
        yield kind & _NLA_TYPE_MASK, body[_ATTRIBUTE.size : length]
        body = body[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3
