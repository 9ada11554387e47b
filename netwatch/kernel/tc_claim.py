"""A sign of life and a lock, which all agents of a network namespace see and nobody without its rights can give.

Law: what is claimed is free as soon as its process has ended, in whatever way.
Neighbours: `tc_owner.py` asks whether the owner of a filter lives, and works under the lock.

*What it is.* A netlink socket of NETLINK_USERSOCK, bound to a port, in a multicast group. The kernel closes it with the
process. Ports belong to the network namespace, whatever PID namespace, container or user its processes have. Any user
may bind a port, and make one that has become free look taken; but to join a group of this protocol takes
CAP_NET_ADMIN, which is also what it takes to delete a filter: netlink_bind() in net/netlink/af_netlink.c asks for it,
unless NL_CFG_F_NONROOT_RECV is set (it is for NETLINK_ROUTE, and not for NETLINK_USERSOCK). /proc/net/netlink shows
ports and groups. A flock() on the namespace's file, or an abstract Unix socket, is there for any user to take.
"""

from __future__ import annotations

import errno
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NETLINK_USERSOCK = 2
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP, _NETLINK_DROP_MEMBERSHIP = 1, 2
# Two of the 32, which nobody is known to use. A claim has a random port beside it: others may use them.
_LIVING, _LOCKING = 23, 24

# An agent holds the lock for about 1 ms. One that was stopped while it held it must not stop the others, too.
_LOCK_TIMEOUT_S = 1.0
_LOCK_PAUSE_S = 0.001
# Whoever takes a port and gives it up as fast as possible is there for the one look and not for the other, as often as
# not: 2^-100.
_LOOKS = 100


def claim(port: int) -> socket.socket | None:
    """Claim a port for as long as the socket is open; None where it is taken. Raises OSError without CAP_NET_ADMIN."""
    return _bind(port, _mask(_LIVING))


def is_claimed(port: int) -> bool:
    """Say whether a living process has claimed a port of this thread's network namespace."""
    for _ in range(_LOOKS):
        groups = _groups_by_port().get(port)
        if groups is not None:
            return bool(groups & _mask(_LIVING))
        # A list that is read while others change it may lack one; this never errs.
        if taken := _bind(port, 0):
            taken.close()
            return False
    return True


@contextmanager
def lock() -> Iterator[None]:
    """Keep other agents in this network namespace out meanwhile. Blocks, for a second at most; then it goes on."""
    with _socket() as ours:
        ours.bind((0, 0))
        port = ours.getsockname()[0]
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        # Say it, then look: of two that come at the same time at least one sees the other, and steps back.
        ours.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _LOCKING)
        while _is_locked_by_others(port) and time.monotonic() < deadline:
            ours.setsockopt(_SOL_NETLINK, _NETLINK_DROP_MEMBERSHIP, _LOCKING)
            time.sleep(random.uniform(0, _LOCK_PAUSE_S))
            ours.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _LOCKING)
        yield


def _is_locked_by_others(port: int) -> bool:
    return any(groups & _mask(_LOCKING) for other, groups in _groups_by_port().items() if other != port)


def _mask(group: int) -> int:
    return 1 << group - 1


def _bind(port: int, groups: int) -> socket.socket | None:
    bound = _socket()
    try:
        bound.bind((port, groups))
    except OSError as error:
        bound.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return bound


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_USERSOCK)
    # Any user may send to it, and nobody reads: no more than one message may wait.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    return made


def _groups_by_port() -> dict[int, int]:
    """Return all ports of the protocol in this thread's network namespace, with the first 32 groups of each."""
    lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
    # sk Eth Pid Groups ...: the protocol, the port, the groups as a mask.
    rows = [line.split()[1:4] for line in lines]
    return {int(port): int(groups, 16) for protocol, port, groups in rows if int(protocol) == _NETLINK_USERSOCK}
