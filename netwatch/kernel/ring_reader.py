"""Read records out of a ring that is mapped: which are complete, and in which order memory is looked at.

Law: `take` returns every record that is complete, in order, none twice, and moves the consumer's position once, after
the copy. A record that a program is still writing ends it: what stands behind waits for the next time.

Why the fences suffice (kernel/bpf/ringbuf.c). __bpf_ringbuf_reserve() sets the busy bit in a record's header before it
moves the producer's position by smp_store_release(); bpf_ringbuf_commit() writes the length without the bit by xchg(),
which is a full barrier, after the program has written the contents, and reads the consumer's position after that.
So, with a fence between each two of these, as libbpf does it by smp_load_acquire() and smp_store_release():
position before headers: each header up to the position is the new one, busy or not, never what lay there before;
headers before contents: what is not busy is written to the end; contents before our position, which
__bpf_ringbuf_reserve() reads by smp_load_acquire(): nothing is written over before it is copied. And our position
before the last look at positions and headers, with a full fence against the full barrier in xchg(): a record that this
look finds neither there nor complete is committed by somebody who sees our position, and wakes us.
Neighbours: `ring.py` maps and waits, `fences.py` has the fences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs
import numpy as np

from netwatch.core.events import slots_of, starts_of_records
from netwatch.core.layout import EVENT_SLOT_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netwatch.kernel.fences import Fences

Number = TypeVar("Number", bound=np.generic)

_BUSY = np.uint32(1 << 31)


@attrs.define(eq=False)
class RingReader:
    """What the kernel shows of a ring: both positions in bytes (1,), and the slots (n, EVENT_SLOT_BYTES)."""

    consumer: NDArray[np.uint64]
    producer: NDArray[np.uint64]
    slots: NDArray[np.uint8]
    lengths: NDArray[np.uint32]
    """The first word of each slot (n,): of a record's first slot, its length and the busy bit."""
    fences: Fences
    max_slots: int
    _taken: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin where the last reader ended."""
        self._taken = int(self.consumer[0]) // EVENT_SLOT_BYTES

    def take(self, *, lingers: bool = False) -> NDArray[np.uint8]:
        """Return the next complete records as a copy of their slots, shape (n, EVENT_SLOT_BYTES); n = 0: none.

        At most `max_slots`, and fewer where a record of several slots would be cut. Who does not linger has to call
        again until there is nothing more: only then is the next event sure to wake.
        """
        begin = self._taken
        last, complete = self._complete(begin)
        if not complete and not lingers:
            self._move_to(begin)
            self.fences.full()
            # What came before that has woken nobody.
            last, complete = self._complete(begin)
        if not complete:
            return self.slots[:0]
        self.fences.after_loads()
        slots = _wrapped(self.slots, begin % len(self.slots), complete)
        self.fences.after_loads()
        self._taken = begin + complete
        self._move_to(begin + last if lingers else self._taken)
        return slots

    def _complete(self, begin: int) -> tuple[int, int]:
        waiting = int(self.producer[0]) // EVENT_SLOT_BYTES - begin
        if not waiting:
            return 0, 0
        self.fences.after_loads()
        return complete_slots(_wrapped(self.lengths, begin % len(self.slots), min(waiting, self.max_slots)))

    def _move_to(self, slot: int) -> None:
        self.consumer[0] = np.uint64(slot * EVENT_SLOT_BYTES)


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
