"""Reading a ring that is an array of the test: in which order it is looked at, and what a kernel may do meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from netwatch.core.layout import EVENT_SLOT_BYTES
from netwatch.kernel.fences import Fences
from netwatch.kernel.ring_reader import RingReader

SLOTS = 8
# A record of one slot, without the kernel's header.
LENGTH = EVENT_SLOT_BYTES - 8
BUSY = 1 << 31


class Watched(np.ndarray[Any, Any]):
    """An array that writes down each access, of itself or of a part."""

    name: str
    log: list[str]

    def __array_finalize__(self, parent: object) -> None:
        self.name, self.log = getattr(parent, "name", ""), getattr(parent, "log", [])

    def __getitem__(self, key: Any) -> Any:
        self.log.append(self.name)
        return np.asarray(self)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.log.append(f"{self.name} is set")
        np.asarray(self)[key] = value


class Memory:
    """A ring of eight slots, and what a program in the kernel does to it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.consumer, self.producer = np.zeros(1, np.uint64), np.zeros(1, np.uint64)
        self.slots = np.zeros((SLOTS, EVENT_SLOT_BYTES), np.uint8)
        self.lengths = self.slots.view("<u4")[:, 0]
        self.at_full_fence: Callable[[], None] = lambda: None

    def reader(self) -> RingReader:
        """Return a reader whose every access is written down."""
        return RingReader(
            *(self._watched(name, getattr(self, name)) for name in ("consumer", "producer", "slots", "lengths")),
            fences=Fences(lambda: self.log.append("fence"), self._full),
            max_slots=SLOTS,
        )

    def _watched(self, name: str, array: NDArray[Any]) -> Watched:
        watched = array.view(Watched)
        watched.name, watched.log = name, self.log
        return watched

    def _full(self) -> None:
        self.log.append("full fence")
        self.at_full_fence()

    def reserve(self) -> int:
        """Reserve the next slot, as __bpf_ringbuf_reserve() does. Returns its number."""
        slot = int(self.producer[0]) // EVENT_SLOT_BYTES
        self.lengths[slot % SLOTS] = LENGTH | BUSY
        self.producer[0] += np.uint64(EVENT_SLOT_BYTES)
        return slot

    def commit(self, slot: int) -> None:
        """Fill a reserved slot and commit it, as a program and bpf_ringbuf_commit() do."""
        self.slots[slot % SLOTS, 8:] = slot
        self.lengths[slot % SLOTS] = LENGTH


@pytest.fixture
def memory() -> Memory:
    """Return an empty ring."""
    return Memory()


def numbers(slots: NDArray[np.uint8]) -> list[int]:
    """Return what stands in the records."""
    return slots[:, -1].tolist()


@pytest.mark.parametrize("lingers", [False, True])
def test_fence_between_any_two_steps(memory: Memory, lingers: bool) -> None:
    """Position, headers, contents, our position: in this order, whatever a processor would rather do."""
    reader = memory.reader()
    memory.commit(memory.reserve())
    memory.log.clear()
    assert numbers(reader.take(lingers=lingers)) == [0]
    assert memory.log == ["producer", "fence", "lengths", "fence", "slots", "fence", "consumer is set"]


def test_full_fence_before_the_last_look(memory: Memory) -> None:
    """Where nothing is found, our position is there to be seen before it is looked again."""
    reader = memory.reader()
    memory.log.clear()
    assert numbers(reader.take()) == []
    assert memory.log[:4] == ["producer", "consumer is set", "full fence", "producer"]


def test_record_that_comes_before_our_position_is_seen(memory: Memory) -> None:
    """It has woken nobody, so it is taken now."""
    reader = memory.reader()
    memory.at_full_fence = lambda: memory.commit(memory.reserve())
    assert numbers(reader.take()) == [0]


def test_record_that_is_completed_before_our_position_is_seen(memory: Memory) -> None:
    """The same with one that was found busy: who committed it saw the old position, and has woken nobody."""
    reader = memory.reader()
    memory.commit(memory.reserve())
    assert numbers(reader.take(lingers=True)) == [0]
    slot = memory.reserve()
    memory.at_full_fence = lambda: memory.commit(slot)
    assert numbers(reader.take()) == [1]


def test_record_that_stays_busy(memory: Memory) -> None:
    """It ends what can be taken, and our position says that it is the next: its commit wakes us."""
    reader = memory.reader()
    first, second, third = memory.reserve(), memory.reserve(), memory.reserve()
    memory.commit(first)
    memory.commit(third)
    assert numbers(reader.take()) == [0]
    assert numbers(reader.take()) == []
    assert int(memory.consumer[0]) == second * EVENT_SLOT_BYTES
    memory.commit(second)
    assert numbers(reader.take()) == [1, 2]


def test_around_the_end(memory: Memory) -> None:
    """Records are taken in order wherever the ring ends."""
    reader = memory.reader()
    taken: list[int] = []
    for _ in range(5):
        for slot in [memory.reserve() for _ in range(5)]:
            memory.commit(slot)
        taken += numbers(reader.take())
    assert taken == list(range(25))
