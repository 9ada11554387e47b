"""The enrichment ring: its mapping, and waiting for it.

Who comes back by a clock lingers: the position stays at the last record that was taken, so the ring does not look empty
to the kernel, and the next event wakes nobody.
Why not libbpf's or bcc's reader: an empty callback costs ten times what a row costs here.
Neighbours: `ring_reader.py` reads what is mapped here, `bpf/event.bpf.h` writes, `core/events.py` reads the slots,
`consume.py` waits.
Source: kernel/bpf/ringbuf.c; struct bpf_ringbuf's pages of positions.
"""

from __future__ import annotations

import mmap
import select
from typing import TYPE_CHECKING

import numpy as np
import trio

from netwatch.core.layout import EVENT_SLOT_BYTES
from netwatch.kernel.fences import fences
from netwatch.kernel.ring_reader import RingReader
from netwatch.kernel.syscall import max_entries
from netwatch.kernel.timer import Timer

if TYPE_CHECKING:
    from numpy.typing import NDArray

# 8,192 slots x 128 B = 1 MB and about 1 ms of decoding between two checkpoints.
MAX_SLOTS = 8_192


class Ring:
    """A ring whose records take whole slots. Owns its mappings and two descriptors; the map is the caller's."""

    def __init__(self, map_fd: int, max_slots: int = MAX_SLOTS) -> None:
        self._reader = _map_ring(map_fd, max_slots)
        # A ring that holds anything is readable, and stays so while programs write without waking: a loop of ours would
        # turn without rest. An edge comes only with a wake-up.
        self._edges = select.epoll()
        self._edges.register(map_fd, select.EPOLLIN | select.EPOLLET)
        self._timer = Timer()
        self._edges.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)

    def close(self) -> None:
        """Give the descriptors back, when nobody waits any more; the mappings go with the object."""
        self._edges.close()
        self._timer.close()

    async def wait(self, at_most_s: float) -> None:
        """Wait until a program has woken us: the ring was empty and is no longer, or it is a quarter full."""
        self._timer.start(at_most_s)
        await trio.lowlevel.wait_readable(self._edges.fileno())
        self._edges.poll(timeout=0, maxevents=2)

    def take(self, *, lingers: bool = False) -> NDArray[np.uint8]:
        """Return the next complete records as slots (n, EVENT_SLOT_BYTES): see RingReader."""
        return self._reader.take(lingers=lingers)


def _map_ring(map_fd: int, max_slots: int) -> RingReader:
    size_bytes, page = max_entries(map_fd), mmap.PAGESIZE
    consumer: NDArray[np.uint64] = np.frombuffer(mmap.mmap(map_fd, page), np.uint64, 1)
    # The data pages stand there twice, one after the other; records that never go around the end need them once.
    shared = mmap.mmap(map_fd, page + size_bytes, prot=mmap.PROT_READ, offset=page)
    producer = np.frombuffer(shared, np.uint64, 1)
    slots = np.frombuffer(shared, np.uint8, size_bytes, page).reshape(-1, EVENT_SLOT_BYTES)
    return RingReader(consumer, producer, slots, slots.view("<u4")[:, 0], fences(), max_slots)
