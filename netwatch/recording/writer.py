"""Record: take frames from the tasks, and write them in a task of their own.

Law: who gives a frame never waits. Frames wait in memory, at most MAX_WAITING_BYTES, while a thread writes others.
Where the disk is too slow for that, or full, the recording ends with one line in the log: with a gap it would replay as
something that never happened. The capture goes on, and the ledger knows nothing of it.
Neighbours: `taps.py` gives frames, `files.py` writes them, `agent.py` starts the task.
"""

from __future__ import annotations

import logging

import attrs
import trio

from netwatch.recording.files import RecordingFiles
from netwatch.recording.frames import End, Frame

log = logging.getLogger(__name__)

# 12 s of 26,000 flows of 144 B and 10,000 events of 128 B a second: longer than a disk is busy with something else.
MAX_WAITING_BYTES = 64 << 20


@attrs.define(eq=False)
class RecordWriter:
    """The frames of a run on their way to the disk."""

    files: RecordingFiles
    max_waiting_bytes: int = MAX_WAITING_BYTES
    _waiting: list[Frame] = attrs.field(factory=list, init=False)
    # Of those that wait, and of those that are being written.
    _waiting_bytes: int = attrs.field(default=0, init=False)
    _is_over: bool = attrs.field(default=False, init=False)  # nothing is taken any more
    _has_changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _is_written: trio.Event = attrs.field(factory=trio.Event, init=False)

    def put(self, frame: Frame) -> None:
        """Take a frame, whose bytes nobody changes afterwards. Never blocks; past the end it does nothing."""
        if self._is_over:
            return
        self._waiting.append(frame)
        self._waiting_bytes += _size_bytes(frame)
        if self._waiting_bytes > self.max_waiting_bytes:
            self._give_up(f"the disk is too slow: {self._waiting_bytes >> 20} MB wait for it")
        self._has_changed.set()

    async def write(self) -> None:
        """Write what comes, until the recording is closed or has to end. Cancelled, what waits is not written."""
        try:
            while not self._is_over or self._waiting:
                await self._has_changed.wait()
                self._has_changed = trio.Event()
                frames, self._waiting = self._waiting, []
                # A disk that hangs must not hold the stop: the thread is then left to itself.
                await trio.to_thread.run_sync(self.files.write, frames, abandon_on_cancel=True)
                self._waiting_bytes -= sum(map(_size_bytes, frames))
            self.files.close()
        except OSError as error:
            self._give_up(error.strerror or str(error))
            self.files.close()
        finally:
            self._is_over = True
            self._is_written.set()

    async def close(self, deadline: float) -> None:
        """Write the end, after the last drain, and wait until all is written or the deadline (trio time) has come."""
        self.put(End())
        self._is_over = True
        with trio.move_on_at(deadline) as waiting:
            await self._is_written.wait()
        if waiting.cancelled_caught:
            log.warning("recording %s has no end: the disk is too slow", self.files.path)

    def _give_up(self, reason: str) -> None:
        if not self._is_over:
            log.warning("recording %s ended early: %s; the capture goes on", self.files.path, reason)
        self._is_over = True
        self._waiting.clear()


def _size_bytes(frame: Frame) -> int:
    """Return what a frame holds in memory, but for its names."""
    return sum(memoryview(value).nbytes for value in _values(frame) if isinstance(value, bytes | memoryview))


def _values(frame: Frame) -> tuple[object, ...]:
    values: tuple[object, ...] = attrs.astuple(frame, recurse=False)
    return values
