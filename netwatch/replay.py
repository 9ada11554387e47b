"""`netwatch replay`: the same join and the same exporters over a recording, without root, kernel or time.

Law: the same recording and settings give the same records, byte for byte. What decides over the records comes from the
recording: the run's settings, its address, its names. What decides over their way out comes from the command line.
Nothing is lost for lack of time: a full queue is waited for as long as its exporter delivers.
Neighbours: `recording/` reads and plays, `poll.py`, `consume.py` and `export.py` do what they do in a run; `cli.py`
calls run().
"""

from __future__ import annotations

import contextlib
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from netwatch.address import agent_address
from netwatch.closing import close_ledger
from netwatch.consume import open_intake
from netwatch.core.backoff import Backoff
from netwatch.core.enrichment import Names
from netwatch.core.translations import Translations
from netwatch.errors import OutputClosed
from netwatch.export import OUTPUT_CLOSED, ExportQueue, export_flows
from netwatch.exporters.opening import open_exporter
from netwatch.ledger import Ledger
from netwatch.poll import Drain, Joiner
from netwatch.recording.playback import Playback
from netwatch.recording.reader import Recording, open_recording

if TYPE_CHECKING:
    from netwatch.config import Config
    from netwatch.exporters import Exporter

log = logging.getLogger(__name__)

# A queue that is waited for without end has to have room for any batch: 8,192 rows of 144 B, and 900 B of all facts.
_LEAST_QUEUE_BYTES = 16 << 20


def run(path: Path, config: Config) -> int:
    """Replay a recording through the exporters of the settings, print the ledger, and return the exit code 0.

    Raises RecordingUnusable before anything is exported.
    """
    recording = open_recording(path)
    agent_ip = agent_address(config.agent_ip or recording.header.agent_ip)
    exporters = [open_exporter(url, config, agent_ip) for url in config.exporters]
    _tell(path, recording)
    replay = Replay(path, recording, config, exporters)
    try:
        trio.run(replay.run)
    finally:
        replay.close_ledger()
    return 0


def _tell(path: Path, recording: Recording) -> None:
    header = recording.header
    log.info(
        "replaying %s: drains: %d, in %.1f s, recorded by netwatch %s on Linux %s",
        *(path, recording.drains, (recording.last_ns - recording.first_ns) / 1e9, header.netwatch, header.kernel),
    )
    if recording.is_continued:
        log.warning("its beginning is gone: what was told of flows and translations before is not known")
    if recording.damaged:
        log.warning("it is damaged or cut off at %s: replayed up to the last whole drain before", recording.damaged)
    elif not recording.has_end:
        log.warning("it has no end: the run was killed, or the recording ended early")


@attrs.define(eq=False)
class Replay:
    """One replay."""

    path: Path
    recording: Recording
    config: Config
    exporters: list[Exporter]
    ledger: Ledger = attrs.field(factory=Ledger, init=False)
    _queues: list[ExportQueue] = attrs.field(init=False)
    _playback: Playback = attrs.field(init=False)
    joiner: Joiner | None = attrs.field(init=False)
    _is_played: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Wire it as a run is wired."""
        limit = max(self.config.max_queue_bytes, _LEAST_QUEUE_BYTES)
        self._queues = [ExportQueue(self.ledger.open_exporter(exporter.url), limit) for exporter in self.exporters]
        self._playback = Playback(str(self.path), self.recording.frames())
        self.joiner = self._open_joiner() if self.recording.header.settings.enrich else None

    def _open_joiner(self) -> Joiner:
        playback, settings = self._playback, self.recording.header.settings
        intake = open_intake(playback, settings, playback if "process" in settings.enrich else None)
        reasons = self.recording.header.drop_reasons
        translations = Translations(settings.max_translations)
        playback.intake, playback.translations = intake, translations
        return Joiner(intake, translations, 0.0, lambda: playback.names(lambda: Names(reasons, intake.containers)))

    async def run(self) -> None:
        """Play all of it, and deliver what comes out."""
        async with contextlib.AsyncExitStack() as stack:
            for exporter in self.exporters:
                await stack.enter_async_context(exporter)
            async with trio.open_nursery() as watching:
                async with trio.open_nursery() as exporting:
                    watching.start_soon(self._give_up, exporting.cancel_scope)
                    for queue, exporter in zip(self._queues, self.exporters, strict=True):
                        exporting.start_soon(self._export, queue, exporter, exporting.cancel_scope)
                    await self._play()
                    for queue in self._queues:
                        queue.close()
                    self._is_played = True
                watching.cancel_scope.cancel()

    async def _play(self) -> None:
        playback = self._playback
        drain = Drain(playback, playback, self.ledger, playback.registry, self._queues, playback, self.joiner)
        for left in reversed(range(self.recording.drains)):
            playback.advance()
            await drain.run(math.inf, is_last=self.recording.has_end and left == 0)

    async def _export(self, queue: ExportQueue, exporter: Exporter, scope: trio.CancelScope) -> None:
        try:
            await export_flows(queue, exporter, Backoff(self.config.backoff_min_s, self.config.backoff_max_s))
        except OutputClosed as closed:
            log.info("%s; stopping", closed)
            queue.abandon(OUTPUT_CLOSED)
            scope.cancel()

    async def _give_up(self, scope: trio.CancelScope) -> None:
        """End it where everything was played and nobody has taken anything for a whole grace period."""
        while True:
            before = [queue.account.exported for queue in self._queues]
            await trio.sleep(self.config.grace_s)
            is_stuck = not any(queue.is_moving for queue in self._queues if queue.account.in_flight.flows)
            if self._is_played and is_stuck and before == [queue.account.exported for queue in self._queues]:
                scope.cancel()
                return

    def close_ledger(self) -> None:
        """Print the ledger; write it to the file in the settings."""
        close_ledger(self.ledger, self.joiner.intake.ledger() if self.joiner else None, self.config.ledger)
