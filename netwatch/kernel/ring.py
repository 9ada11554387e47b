"""The enrichment ring, read through a mapping.

Law: `take` returns every record that is complete, in order, none twice, and moves the consumer's position once, after
the copy. A record that a program is still writing ends it: what stands behind waits for the next time.
Who comes back by a clock lingers: the position stays at the last record that was taken, so the ring does not look empty
to the kernel, and the next event wakes nobody.
Why not libbpf's or bcc's reader: an empty callback costs ten times what a row costs here.
Neighbours: `bpf/event.bpf.h` writes, `core/events.py` reads the slots, `consume.py` waits.
Source: kernel/bpf/ringbuf.c; struct bpf_ringbuf's pages of positions, BPF_RINGBUF_BUSY_BIT.
"""

from __future__ import annotations

import mmap
import select
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import trio

from netwatch.core.events import slots_of, starts_of_records
from netwatch.core.layout import EVENT_SLOT_BYTES
from netwatch.kernel.syscall import max_entries
from netwatch.kernel.timer import Timer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)

_BUSY = np.uint32(1 << 31)
# 8,192 slots x 128 B = 1 MB and about 1 ms of decoding between two checkpoints.
MAX_SLOTS = 8_192


class Ring:
    """A ring whose records take whole slots. Owns its mappings and two descriptors; the map is the caller's."""

    def __init__(self, map_fd: int, max_slots: int = MAX_SLOTS) -> None:
        size_bytes = max_entries(map_fd)
        self._slots_total = size_bytes // EVENT_SLOT_BYTES
        self._max_slots = max_slots
        page = mmap.PAGESIZE
        self._consumer: NDArray[np.uint64] = np.frombuffer(mmap.mmap(map_fd, page), np.uint64, 1)
        # The data pages stand there twice, one after the other; records that never go around the end need them once.
        shared = mmap.mmap(map_fd, page + size_bytes, prot=mmap.PROT_READ, offset=page)
        self._producer = np.frombuffer(shared, np.uint64, 1)
        self._slots = np.frombuffer(shared, np.uint8, size_bytes, page).reshape(-1, EVENT_SLOT_BYTES)
        self._lengths = self._slots.view("<u4")[:, 0]
        # A ring that holds anything is readable, and stays so while programs write without waking: a loop of ours would
        # turn without rest. An edge comes only with a wake-up.
        self._taken = int(self._consumer[0]) // EVENT_SLOT_BYTES
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
        """Return the next complete records as a copy of their slots, shape (n, EVENT_SLOT_BYTES); n = 0: none.

        At most `max_slots`, and fewer where a record of several slots would be cut. Who does not linger has to call
        again until there is nothing more: only then is the next event sure to wake.
        """
        begin = self._taken
        waiting = self._waiting(begin)
        if not waiting and not lingers:
            self._move_to(begin)
            # What came before that has woken nobody.
            waiting = self._waiting(begin)
        if not waiting:
            return self._slots[:0]
        first = begin % self._slots_total
        count = min(waiting, self._max_slots)
        # Positions before lengths, lengths before contents: the kernel writes them the other way around. x86 keeps the
        # order of loads; elsewhere the thousands of instructions in between have to do: not proven there.
        last, complete = complete_slots(_wrapped(self._lengths, first, count))
        slots = _wrapped(self._slots, first, complete)
        self._taken = begin + complete
        self._move_to(begin + last if lingers and complete else self._taken)
        return slots

    def _waiting(self, begin: int) -> int:
        return int(self._producer[0]) // EVENT_SLOT_BYTES - begin

    def _move_to(self, slot: int) -> None:
        self._consumer[0] = np.uint64(slot * EVENT_SLOT_BYTES)


def _wrapped(column: NDArray[Number], first: int, count: int) -> NDArray[Number]:
    """Copy `count` rows from `first` on, around the end."""
    until_end = len(column) - first
    if count <= until_end:
        return column[first : first + count].copy()
    return np.concatenate((column[first:], column[: count - until_end]))


def complete_slots(lengths: NDArray[np.uint32]) -> tuple[int, int]:
    """Return where the last complete record begins and the complete ones end, from the slots' first words (n,)."""
    is_start = starts_of_records(lengths)
    busy = np.flatnonzero((lengths >= _BUSY) & is_start)
    starts = np.flatnonzero(is_start[: busy[0]] if len(busy) else is_start)
    if not len(starts):
        return 0, 0
    last = int(starts[-1])
    end = last + slots_of(int(lengths[last]))
    if end <= len(lengths):
        return last, end
    return (int(starts[-2]), last) if len(starts) > 1 else (0, 0)
