"""A kernel made of a recording: it answers a drain and an intake as the real one did.

Law: no clock, no kernel; everything happens in the order of the frames. What came between two answers of the kernel
comes between them again: while a batch is handed on, as it was then, or else when the later answer is asked for.
Neighbours: `taps.py` recorded the answers, `replay.py` drives the drains, `poll.py` and `consume.py` declare what they
ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn, TypeVar

import attrs
import numpy as np
import trio

from netwatch.core.audit import EpochCounters
from netwatch.core.batch import InterfaceNames
from netwatch.core.enrichment import Names
from netwatch.core.interfaces import InterfaceRegistry
from netwatch.core.layout import DROP_EVENT, EVENT_SLOT_BYTES, FLOW_KEY, FLOW_VALUE, Counter, EventKind
from netwatch.errors import RecordingUnusable
from netwatch.event_ledger import KernelEvents
from netwatch.ledger import Amount
from netwatch.recording.frames import (
    Closed,
    Containers,
    Counted,
    Drained,
    Frame,
    InBetween,
    Interfaces,
    Looked,
    Merged,
    Named,
    Octets,
    Offset,
    Ring,
    Rows,
    RowsEnd,
    Tally,
    Translated,
    TranslationEnded,
    TranslationsReplaced,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netwatch.consume import EventRing, Intake
    from netwatch.core.translations import Translations

F = TypeVar("F", bound=Frame)


@attrs.define(eq=False)
class Playback:
    """FlowSource, CounterSource, Clock, Events, EventRing and ContainerNames in one, over frames in their order.

    `intake` and `translations` are what the frames between the drains are for; set them before the first.
    """

    name: str
    frames: Iterator[Frame]
    epoch: int = 0
    intake: Intake | None = None
    translations: Translations | None = None
    registry: PlaybackRegistry = attrs.field(init=False)
    _next: Frame | None = attrs.field(default=None, init=False)
    _containers: Mapping[int, str] = attrs.field(factory=dict, init=False)
    _replaced: list[tuple[bytes, bytes, int]] = attrs.field(factory=list, init=False)
    _counts: KernelEvents = attrs.field(factory=KernelEvents, init=False)

    def __attrs_post_init__(self) -> None:
        """Look at the first frame."""
        self.registry = PlaybackRegistry(playback=self)
        self._next = next(self.frames, None)

    def advance(self) -> bool:
        """Pass on what stands before the next drain, or the next answer in it. Return whether there is one."""
        while True:
            match self._next:
                case None:
                    return False
                case Ring() if self.intake is not None:
                    self.intake.take_chunk()
                case _ if isinstance(self._next, InBetween):
                    self._pass_on()
                case _:
                    return True

    def flip(self) -> None:
        """Go on to the next epoch: its number comes with the time."""

    def clear_idle(self) -> Iterator[int]:
        """Clear nothing."""
        yield from ()

    def kernel_ns(self) -> int:
        """Return when the epoch was closed."""
        closed = self._expect(Closed)
        self.epoch = closed.epoch + 1
        return closed.closed_ns

    def read(self, epoch: int) -> EpochCounters:
        """Return what the epoch counted."""
        counted = self._expect(Counted)
        ends = {Counter(number): amount for number, amount in _amounts(counted.ends).items()}
        return EpochCounters(_amounts(counted.seen), ends, _amounts(counted.ethertypes))

    def wall_offset_ns(self) -> int:
        """Return the offset of the drain."""
        return self._expect(Offset).wall_offset_ns

    def read_closed(self) -> Iterator[tuple[NDArray[np.void], NDArray[np.void]]]:
        """Yield the rows of the drain."""
        while self.advance() and isinstance(self._next, Rows):
            rows = self._expect(Rows)
            yield np.frombuffer(rows.keys, FLOW_KEY), np.frombuffer(rows.values, FLOW_VALUE)
        self._expect(RowsEnd)

    @property
    def ring(self) -> EventRing:
        """The ring, which is this."""
        return self

    async def wait(self, at_most_s: float) -> NoReturn:
        """Wait for ever: nothing comes by itself."""
        await trio.sleep_forever()

    def take(self, *, lingers: bool = False) -> NDArray[np.uint8]:
        """Return what was taken at once; none where something else happened next."""
        while isinstance(self._next, InBetween) and not isinstance(self._next, Ring):
            self._pass_on()
        if not isinstance(self._next, Ring):
            return np.empty((0, EVENT_SLOT_BYTES), np.uint8)
        return np.frombuffer(self._expect(Ring).slots, np.uint8).reshape(-1, EVENT_SLOT_BYTES)

    async def take_merged_drops(self) -> NDArray[np.void]:
        """Return the merged drops of the drain."""
        merged = self._expect(Merged)
        made, lost, thinned = map(_by_kind, (merged.made, merged.lost, merged.thinned))
        self._counts = KernelEvents(made, lost, thinned, merged.missed, merged.wakes)
        return np.frombuffer(bytearray(merged.drops), DROP_EVENT)

    def counts(self) -> KernelEvents:
        """Return what the programs had counted at the latest drain."""
        return self._counts

    def resolve(self, cgroup_ids: Iterable[int]) -> Mapping[int, str]:
        """Return the containers that were known when these were asked for."""
        if isinstance(self._next, Containers):
            self._containers = self._expect(Containers).by_cgroup
        return self._containers

    def names(self, names: Callable[[], Names]) -> Names:
        """Note that a batch is complete; what came while it was handed on is passed on now."""
        given = names()
        self._expect(Named)
        self.advance()
        return given

    def take_interfaces(self) -> None:
        """Take the names of interfaces where they were told next."""
        while isinstance(self._next, Interfaces):
            self._pass_on()

    def drained(self) -> None:
        """Note the end of the drain."""
        self._expect(Drained)

    def _pass_on(self) -> None:
        match self._next:
            case Interfaces(by_ifindex):
                self.registry.names = InterfaceNames(by_ifindex)
            case Looked() if self.intake is not None:
                self.intake.decode()
            case Containers(by_cgroup):
                self._containers = by_cgroup
            case Translated(original, reply, zone) if self.translations is not None:
                self.translations.add(bytes(original), bytes(reply), zone)
            case TranslationEnded(original, reply) if self.translations is not None:
                self.translations.remove(bytes(original), bytes(reply))
            case TranslationsReplaced(originals, replies, zones, has_more) if self.translations is not None:
                self._replaced += zip(_keys_in(originals), _keys_in(replies), zones, strict=True)
                if not has_more:
                    self.translations.replace(self._replaced)
                    self._replaced = []
        self._step()

    def _expect(self, kind: type[F]) -> F:
        frame = self._next
        if not isinstance(frame, kind):
            found = type(frame).__name__ if frame else "its end"
            raise RecordingUnusable(self.name, f"goes on with {found} where a drain asks for {kind.__name__}")
        self._step()
        return frame

    def _step(self) -> None:
        self._next = next(self.frames, None)


@attrs.define(eq=False, kw_only=True)
class PlaybackRegistry(InterfaceRegistry):
    """The names as they were told."""

    playback: Playback
    names: InterfaceNames = attrs.field(factory=lambda: InterfaceNames({}))

    def snapshot(self) -> InterfaceNames:
        """Return the names at this place of the recording."""
        self.playback.take_interfaces()
        return self.names

    def drained(self) -> None:
        """Note the end of a drain."""
        self.playback.drained()


def _amounts(tallies: Mapping[int, Tally]) -> dict[int, Amount]:
    return {number: Amount(*tally) for number, tally in tallies.items()}


def _by_kind(numbers: Mapping[int, int]) -> dict[EventKind, int]:
    return {EventKind(number): count for number, count in numbers.items()}


def _keys_in(octets: Octets) -> Iterator[bytes]:
    size = FLOW_KEY.itemsize
    return (bytes(octets[start : start + size]) for start in range(0, len(octets), size))
