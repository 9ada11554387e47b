"""The agent: the tree of its tasks, how they are wired, and how it ends.

    signals ── services (metrics) ── exporting (one task an exporter) ── capture (watch, poll, consume, follow NAT)

Law: an inner nursery ends before the one around it, so a stop runs through the tree in the order in which packets run
through the agent: hooks are detached, the last epoch is drained, the queues run empty, the ledger is printed.
A second signal ends the process at once, as SIGKILL does: the kernel then frees what descriptors hold, which is every
hook but clsact filters; those the guardian removes (`kernel/tc_guardian.py`).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import trio

from netwatch.address import agent_address
from netwatch.closing import close_ledger
from netwatch.consume import consume_events, open_intake
from netwatch.core.backoff import Backoff
from netwatch.core.direction import Direction
from netwatch.core.enrichment import Names
from netwatch.core.selection import Selection
from netwatch.errors import OutputClosed
from netwatch.export import OUTPUT_CLOSED, ExportQueue, export_flows
from netwatch.exporters import Exporter
from netwatch.exporters.opening import open_exporter
from netwatch.kernel.attach import HookPrograms
from netwatch.kernel.attach_mode import open_attacher
from netwatch.kernel.cgroups import Containers
from netwatch.kernel.conntrack import follow_translations
from netwatch.kernel.counters import KernelCounters
from netwatch.kernel.event_source import EventSource
from netwatch.kernel.flow_map import CHUNK_ROWS, ROW_BYTES, FlowMaps
from netwatch.kernel.hooks import PACKET_HOOKS
from netwatch.kernel.netlink import RouteNetlink
from netwatch.kernel.program import Compilation, LoadedPrograms
from netwatch.kernel.sockets import SocketScan, name_sockets
from netwatch.kernel.statistics import KernelStatistics
from netwatch.kernel.tracing import attached_tracing
from netwatch.ledger import Ledger
from netwatch.poll import Drain, Joiner, poll_flows
from netwatch.recording.recorder import open_recorder
from netwatch.status import AgentStatus, ExporterStatus
from netwatch.watch import WatchCounts, watch_interfaces

if TYPE_CHECKING:
    from netwatch.config import Config
    from netwatch.core.link import Link

log = logging.getLogger(__name__)

_DIRECTIONS = {
    "ingress": (Direction.INGRESS,),
    "egress": (Direction.EGRESS,),
    "both": (Direction.INGRESS, Direction.EGRESS),
}
_NAMES_IN_LOG = 8  # interfaces named when capture starts; a host may have hundreds


def run(config: Config, compilation: Compilation) -> int:
    """Run the agent until a signal, the end of its duration, or a closed output. Returns the exit code 0.

    The compilation has been started before this module was imported: both take their time, and there are two cores.
    """
    trio.run(_run, config, compilation)
    return 0


async def _run(config: Config, compilation: Compilation) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as signals:
        await signals.start(_stop_on_signal, stop)
        exporters = [open_exporter(url, config, agent_address(config.agent_ip)) for url in config.exporters]
        loaded = await trio.to_thread.run_sync(compilation.finish)
        with contextlib.closing(loaded):
            await Agent(config, loaded, exporters, stop).run()
        signals.cancel_scope.cancel()


async def _stop_on_signal(stop: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started()
        async for number in received:
            if stop.is_set():
                log.warning("second signal: ending at once, what is queued is lost")
                os._exit(128 + number)
            log.info("%s: stopping", signal.Signals(number).name)
            stop.set()


class SystemClock:
    """The clocks of this machine, read anew for each drain."""

    def kernel_ns(self) -> int:
        """Return CLOCK_MONOTONIC, which is bpf_ktime_get_ns()."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def wall_offset_ns(self) -> int:
        """Return Unix time minus CLOCK_MONOTONIC, in ns."""
        return time.time_ns() - self.kernel_ns()


class Agent:
    """One run. Owns nothing that would outlive a killed process, unless its guardian is killed with it."""

    def __init__(self, config: Config, loaded: LoadedPrograms, exporters: Sequence[Exporter], stop: trio.Event) -> None:
        self._config, self._loaded, self._exporters, self._stop = config, loaded, exporters, stop
        self._ledger = Ledger()
        self._queues = [
            ExportQueue(self._ledger.open_exporter(exporter.url), config.max_queue_bytes) for exporter in exporters
        ]
        address = agent_address(config.agent_ip)
        self._recorder = open_recorder(config, loaded.drop_reasons, str(address))
        self._registry = self._recorder.registry()
        self._watch_counts = WatchCounts()
        # Half of a queue: one batch that is being sent and one that waits are the least that a queue holds.
        rows = min(CHUNK_ROWS, config.max_queue_bytes // (2 * ROW_BYTES))
        sources = self._recorder.sources(FlowMaps(loaded, rows), KernelCounters(loaded), SystemClock())
        flow_maps, counters, clock = sources
        self._containers = Containers()
        self._socket_scan = SocketScan()
        self._joiner = self._open_joiner() if config.enrich else None
        self._drain = Drain(
            flow_maps, counters, self._ledger, self._registry, self._queues, clock, self._joiner, chunk_rows=rows
        )
        self._is_ready = False
        self._grace_ends_at = math.inf

    def _open_joiner(self) -> Joiner:
        config, recorder = self._config, self._recorder
        containers = recorder.containers(self._containers) if "process" in config.enrich else None
        intake = open_intake(recorder.events(EventSource(self._loaded)), config, containers)
        # A short period does not wait longer than a quarter of itself: else it would drain nothing but its own grace.
        grace_s = min(config.join_grace_s, config.active_timeout_s / 4)
        names = recorder.names(lambda: Names(self._loaded.drop_reasons, intake.containers))
        return Joiner(intake, recorder.translations(config.max_translations), grace_s, names)

    async def run(self) -> None:
        """Capture until the stop event, then deliver, then print the ledger; that also where something failed."""
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._ledger_at_end())
            statistics = stack.enter_context(KernelStatistics(self._loaded, self._config.bpf_stats))
            for exporter in self._exporters:
                await stack.enter_async_context(exporter)
            services = await stack.enter_async_context(trio.open_nursery())
            if self._config.metrics_listen:
                await self._serve_metrics(services, statistics)
            async with trio.open_nursery() as exporting:
                for queue, exporter in zip(self._queues, self._exporters, strict=True):
                    exporting.start_soon(self._export, queue, exporter)
                services.start_soon(self._recorder.write)
                await self._capture()
                # What is in the kernel has to be counted even where nobody will take it.
                with trio.CancelScope(shield=True):
                    await self._drain.run(patience_until=self._grace_ends_at, is_last=True)
                    for queue in self._queues:
                        queue.close()
                    await self._recorder.close(self._grace_ends_at)
                exporting.cancel_scope.deadline = self._grace_ends_at
            services.cancel_scope.cancel()

    async def _capture(self) -> None:
        """Watch and poll until the stop event; on return nothing is attached any more."""
        config = self._config
        patience_s = min(config.active_timeout_s, config.grace_s)
        selection = Selection(config.interfaces, config.exclude_interfaces)
        programs = HookPrograms(**{name: self._loaded.programs[name] for name in PACKET_HOOKS})
        with RouteNetlink() as netlink:
            async with (
                open_attacher(config.attach, programs, _DIRECTIONS[config.direction]) as attacher,
                trio.open_nursery() as capture,
            ):
                # From the first: attaching to hundreds of interfaces takes seconds.
                capture.start_soon(self._cancel_on_stop, capture.cancel_scope)
                links = await capture.start(
                    watch_interfaces, netlink, selection, attacher, self._registry, self._watch_counts
                )
                # After the packet hooks, and off again before them: so no drop is told of packets that they do not see.
                with attached_tracing(self._loaded):
                    await self._start_enriching(capture)
                    log.info("capturing on %s", _describe(links))
                    capture.start_soon(poll_flows, self._drain, config.active_timeout_s, patience_s)
                    self._is_ready = True
                    await trio.sleep(config.duration_s or math.inf)
                    self._stop.set()

    async def _start_enriching(self, capture: trio.Nursery) -> None:
        if self._joiner is None:
            return
        if "process" in self._config.enrich:
            self._socket_scan = await trio.to_thread.run_sync(name_sockets, self._loaded.maps["sockets"])
        if "nat" in self._config.enrich:
            await capture.start(follow_translations, self._joiner.translations)
        capture.start_soon(consume_events, self._joiner.intake, self._config.ring_period_s)

    async def _cancel_on_stop(self, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        # The grace period begins with the stop, not when a drain under way has found room.
        self._grace_ends_at = trio.current_time() + self._config.grace_s
        self._is_ready = False
        scope.cancel()

    async def _export(self, queue: ExportQueue, exporter: Exporter) -> None:
        backoff = Backoff(self._config.backoff_min_s, self._config.backoff_max_s)
        try:
            await export_flows(queue, exporter, backoff)
        except OutputClosed as closed:
            log.info("%s; stopping", closed)
            queue.abandon(OUTPUT_CLOSED)
            self._stop.set()

    @contextlib.contextmanager
    def _ledger_at_end(self) -> Iterator[None]:
        try:
            yield
        finally:
            # A run that never captured ends with the one line that says why.
            if self._ledger.drains:
                events = self._joiner.intake.ledger() if self._joiner else None
                close_ledger(self._ledger, events, self._config.ledger)

    async def _serve_metrics(self, services: trio.Nursery, statistics: KernelStatistics) -> None:
        from netwatch.http import serve_http  # noqa: PLC0415 - 3 MB that few runs need
        from netwatch.metrics import Metrics  # noqa: PLC0415

        metrics = Metrics(lambda: (self._ledger, self._status(statistics), self._registry.snapshot()))
        await services.start(serve_http, self._config.metrics_listen, metrics.render, lambda: self._is_ready)

    def _status(self, statistics: KernelStatistics) -> AgentStatus:
        drains = self._drain.statistics
        return AgentStatus(
            map_flows=drains.last_rows,
            max_flows=self._config.max_flows,
            peak_flows=drains.peak_rows,
            drain_times=drains.times,
            exporters=tuple(
                ExporterStatus(queue.account.exporter, queue.size_bytes, queue.max_bytes, queue.errors)
                for queue in self._queues
            ),
            attached=tuple(
                (name, direction)
                for name in self._registry.present()
                for direction in _DIRECTIONS[self._config.direction]
            ),
            program_stats=statistics.programs(),
            map_bytes=statistics.maps(),
            events=self._joiner.intake.ledger() if self._joiner else None,
            recent_flows=len(self._joiner.intake.store.recent) if self._joiner else 0,
            forgotten=self._forgotten(self._joiner) if self._joiner else {},
            translation_overruns=self._joiner.translations.overruns if self._joiner else 0,
            unnamed_sockets=self._socket_scan.skipped,
        )

    def _forgotten(self, joiner: Joiner) -> dict[str, int]:
        return {
            "DNS question": joiner.intake.dns.evicted,
            "owner": joiner.intake.owners.forgotten,
            "cgroup": self._containers.forgotten,
            "translation": joiner.translations.forgotten,
        }


def _describe(links: Sequence[Link]) -> str:
    names = [link.name for link in links]
    more = len(names) - _NAMES_IN_LOG
    return ", ".join(names[:_NAMES_IN_LOG]) + (f" and {more} more" if more > 0 else "")
