"""A path between two namespaces that takes a known time and drops chosen segments. The kernel here has no netem.

Law: every frame that one end sends the other gets, in its order and as it was, the delay later or a little more; except
the segments that are dropped, which are known. At most MAX_WAITING frames are under way.
Neighbours: `hosts.py` has the namespaces; the two ends are TAP devices, whose frames this process reads and writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Self

import attrs

from tests.kernel.hosts import Interface, Namespace

MAX_WAITING = 10_000
_MAX_FRAME_BYTES = 65_535
_TUNSETIFF = 0x4004_54CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000

_ETHERNET_BYTES = 14
_IPV4, _IPV6, _TCP = 0x0800, 0x86DD, 6
_IPV6_BYTES = 40
_SYN = 0x02


@attrs.frozen
class Segment:
    """A TCP segment with data: the octets of its connection, and where its data begins and ends in the stream."""

    connection: bytes
    sequence: int
    end: int


def data_segment(frame: bytes) -> Segment | None:
    """Return the segment in an Ethernet frame, None where there is none or it has no data."""
    eth_type = int.from_bytes(frame[12:14])
    ip = frame[_ETHERNET_BYTES:]
    if eth_type == _IPV4 and ip[9] == _TCP:
        header_bytes, addresses = (ip[0] & 0xF) * 4, ip[12:20]
        ip = ip[: int.from_bytes(ip[2:4])]
    elif eth_type == _IPV6 and ip[6] == _TCP:
        header_bytes, addresses = _IPV6_BYTES, ip[8:40]
        ip = ip[: _IPV6_BYTES + int.from_bytes(ip[4:6])]
    else:
        return None
    tcp = ip[header_bytes:]
    (sequence,) = struct.unpack_from("!I", tcp, 4)
    octets = len(tcp) - (tcp[12] >> 4) * 4
    if not octets or tcp[13] & _SYN:
        return None
    return Segment(addresses + tcp[:4], sequence, (sequence + octets) % 2**32)


@attrs.define
class SegmentDropper:
    """Drop each `every`th TCP segment with data, `at_most` so many; what is sent again neither counts nor is dropped.

    So as many segments must be sent again as were dropped, each once.
    """

    every: int
    at_most: int
    dropped: list[Segment] = attrs.field(factory=list, init=False)
    _seen: int = attrs.field(default=0, init=False)
    _ends: dict[bytes, int] = attrs.field(factory=dict, init=False)

    def drops(self, frame: bytes) -> bool:
        """Return whether to drop a frame, and remember it."""
        segment = data_segment(frame)
        if segment is None or _is_before(segment.sequence, self._ends.get(segment.connection, segment.sequence)):
            return False
        self._ends[segment.connection] = segment.end
        self._seen += 1
        if self._seen % self.every or len(self.dropped) >= self.at_most:
            return False
        self.dropped.append(segment)
        return True


def _is_before(sequence: int, other: int) -> bool:
    # RFC 9293 3.4: arithmetic modulo 2**32.
    return (sequence - other) % 2**32 >= 2**31


class DelayedPath:
    """Two TAP devices, `left0` and `right0`, in two namespaces. They exist, up and without addresses, in its context.

    `left_drops` looks at what the left end sends. `overflowed` counts the frames for which there was no room.
    """

    def __init__(
        self, left: Namespace, right: Namespace, delay_s: float, left_drops: SegmentDropper | None = None
    ) -> None:
        self._namespaces = (left, right)
        self._delay_s = delay_s
        self._dropper = left_drops
        self._waiting: deque[tuple[float, int, bytes]] = deque()
        self.overflowed = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            left, right = self._namespaces
            self._left_fd, self.left = stack.enter_context(_tap(left, "left0"))
            self._right_fd, self.right = stack.enter_context(_tap(right, "right0"))
            self._stopped, self._stop = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, self._stopped)
            stack.callback(os.close, self._stop)
            self._thread = threading.Thread(target=self._forward)
            self._thread.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Remove both ends; frames under way are gone."""
        os.write(self._stop, b"\0")
        self._thread.join()
        self._stack.close()

    def _forward(self) -> None:
        other = {self._left_fd: self._right_fd, self._right_fd: self._left_fd}
        while True:
            rest_s = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            readable, _, _ = select.select([*other, self._stopped], [], [], rest_s)
            if self._stopped in readable:
                return
            for fd in readable:
                self._take(fd, other[fd])
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, fd, frame = self._waiting.popleft()
                os.write(fd, frame)

    def _take(self, source_fd: int, destination_fd: int) -> None:
        frame = os.read(source_fd, _MAX_FRAME_BYTES)
        if self._dropper and source_fd == self._left_fd and self._dropper.drops(frame):
            return
        if len(self._waiting) >= MAX_WAITING:
            self.overflowed += 1
            return
        self._waiting.append((time.monotonic() + self._delay_s, destination_fd, frame))


@contextlib.contextmanager
def _tap(namespace: Namespace, name: str) -> Iterator[tuple[int, Interface]]:
    """Make a TAP device. Without offloads, as it is, it hands out single segments with their checksums."""
    with namespace.enter():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
            # As the links of hosts.py: neighbours are static, groups are not joined.
            namespace.run("ip", "link", "set", name, "multicast", "off", "arp", "off", "up")
        except BaseException:
            os.close(fd)
            raise
    try:
        yield fd, namespace.interface(name)
    finally:
        os.close(fd)
