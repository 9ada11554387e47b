"""What the agent is wired through, whether it records or not.

Law: without a recording each method returns what it was given, and nothing is in the way of anything.
Neighbours: `agent.py` wires, `taps.py` records, `writer.py` writes.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import attrs

from netwatch import __version__
from netwatch.core.interfaces import InterfaceRegistry
from netwatch.core.translations import Translations
from netwatch.recording.files import RecordingFiles
from netwatch.recording.frames import Header, RecordedSettings
from netwatch.recording.taps import (
    RecordedClock,
    RecordedContainers,
    RecordedCounters,
    RecordedEvents,
    RecordedFlows,
    RecordedInterfaces,
    RecordedNames,
    RecordedTranslations,
)
from netwatch.recording.writer import RecordWriter

if TYPE_CHECKING:
    from netwatch.config import Config
    from netwatch.consume import ContainerNames, Events
    from netwatch.core.enrichment import Names
    from netwatch.poll import Clock, CounterSource, FlowSource


class Recorder:
    """No recording: everything passes."""

    def sources(
        self, flows: FlowSource, counters: CounterSource, clock: Clock
    ) -> tuple[FlowSource, CounterSource, Clock]:
        """Record what a drain asks for."""
        return flows, counters, clock

    def events(self, events: Events) -> Events:
        """Record what comes out of the ring, and what belongs to it."""
        return events

    def containers(self, containers: ContainerNames) -> ContainerNames:
        """Record which containers there are."""
        return containers

    def names(self, names: Callable[[], Names]) -> Callable[[], Names]:
        """Record when a batch is complete."""
        return names

    def registry(self) -> InterfaceRegistry:
        """Return a registry whose names are recorded."""
        return InterfaceRegistry()

    def translations(self, max_translations: int) -> Translations:
        """Return translations that are recorded."""
        return Translations(max_translations)

    async def write(self) -> None:
        """Write what is recorded, until it is closed: a task."""

    async def close(self, deadline: float) -> None:
        """Write the end of the recording, after the last drain; give up at the deadline (trio time)."""


@attrs.define(eq=False)
class FileRecorder(Recorder):
    """A recording into files."""

    writer: RecordWriter

    def sources(
        self, flows: FlowSource, counters: CounterSource, clock: Clock
    ) -> tuple[FlowSource, CounterSource, Clock]:
        """Record what a drain asks for."""
        put = self.writer.put
        recorded = RecordedFlows(flows, put)
        return recorded, RecordedCounters(counters, put), RecordedClock(clock, recorded, put)

    def events(self, events: Events) -> Events:
        """Record what comes out of the ring, and what belongs to it."""
        return RecordedEvents(events, self.writer.put)

    def containers(self, containers: ContainerNames) -> ContainerNames:
        """Record which containers there are."""
        return RecordedContainers(containers, self.writer.put)

    def names(self, names: Callable[[], Names]) -> Callable[[], Names]:
        """Record when a batch is complete."""
        return RecordedNames(names, self.writer.put)

    def registry(self) -> InterfaceRegistry:
        """Return a registry whose names are recorded."""
        return RecordedInterfaces(put=self.writer.put)

    def translations(self, max_translations: int) -> Translations:
        """Return translations that are recorded."""
        return RecordedTranslations(max_translations, put=self.writer.put)

    async def write(self) -> None:
        """Write what is recorded, until it is closed."""
        await self.writer.write()

    async def close(self, deadline: float) -> None:
        """Write the end."""
        await self.writer.close(deadline)


def open_recorder(config: Config, drop_reasons: Mapping[int, str], agent_ip: str) -> Recorder:
    """Return a recorder for the file in the settings, which is made now; or one that records nothing.

    Raises ConfigError where the file cannot be written.
    """
    if config.record is None:
        return Recorder()
    header = Header(
        run=secrets.token_bytes(8),
        number=0,
        netwatch=__version__,
        kernel=platform.release(),
        agent_ip=agent_ip,
        settings=recorded_settings(config),
        drop_reasons=dict(drop_reasons),
    )
    files = RecordingFiles(config.record, config.max_record_bytes, header)
    files.open()
    return FileRecorder(RecordWriter(files))


def recorded_settings(config: Config) -> RecordedSettings:
    """Return those of the settings that a recording has to know."""
    return RecordedSettings(**{field.name: getattr(config, field.name) for field in attrs.fields(RecordedSettings)})
