"""A process that watches the interfaces of its network namespace, with programs that do nothing.

Law: all of it is netwatch's own code: netlink, the watching task, the attachments. It tells what it does by a line of
JSON each, so that a test waits for what happens and not for time to pass.
Neighbours: `test_attach.py` and `test_watch.py` start it, look from outside, and kill it.

Run: python -m tests.kernel.watcher {auto,tcx,tc} [--event-buffer BYTES] [PATTERN…]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import attrs
import trio

from netwatch.core.interfaces import InterfaceRegistry
from netwatch.core.link import Link
from netwatch.core.selection import Selection
from netwatch.errors import NetwatchError
from netwatch.kernel.attach import Attacher, Attachment, HookPrograms
from netwatch.kernel.attach_mode import open_attacher
from netwatch.kernel.netlink import RouteNetlink
from netwatch.watch import WatchCounts, watch_interfaces
from tests.kernel.bare_programs import TCX_NEXT, load_program, program_info
from tests.kernel.guardian_process import guardian_of, kill_guardian
from tests.kernel.hosts import Namespace
from tests.kernel.leftovers import MARK, mark
from tests.kernel.waiting import PATIENCE_S

_ROOT = Path(__file__).parents[2]
PROGRAMS = ("ingress_ethernet", "egress_ethernet", "ingress_ip", "egress_ip")

Told = dict[str, Any]  # a line of JSON


class Watcher:
    """The process, from outside. Leaving the context ends it as SIGTERM does."""

    def __init__(self, namespace: Namespace, mode: str, *arguments: str) -> None:
        command = (*namespace.prefix, sys.executable, "-m", "tests.kernel.watcher", mode, *arguments)
        environment = os.environ | {MARK: mark()}
        self._process = subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, bufsize=0)
        self._unread = b""
        self._is_ending = False
        self.told: list[Told] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        """End it; a test that fails is not kept waiting."""
        try:
            if kind is None and not self._is_ending:
                self.stop()
        finally:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            assert self._process.stdout
            self._process.stdout.close()

    def wait(self, event: str, name: str | None = None) -> Told:
        """Return the first thing told with this name, and forget it. Fails when the process ends."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for told in self.told:
                if told["event"] == event and name in (None, told.get("name")):
                    self.told.remove(told)
                    self._is_ending = self._is_ending or event in ("stopped", "refused")
                    return told
            self._read(event, deadline)

    def _read(self, event: str, deadline: float) -> None:
        assert self._process.stdout
        readable, _, _ = select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))
        assert readable, f"not told in time: {event}; told: {self.told}"
        received = os.read(self._process.stdout.fileno(), 65_536)
        assert received, f"ended without telling: {event}; told: {self.told}"
        *lines, self._unread = (self._unread + received).split(b"\n")
        self.told += map(json.loads, lines)

    def stop(self) -> Told:
        """End it, and return what it says at the end."""
        self.terminate()
        stopped = self.wait("stopped")
        assert self._process.wait(PATIENCE_S) == 0
        return stopped

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Keep it from doing anything for the time of the block."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Tell it to end."""
        self._process.terminate()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._is_ending = True
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def kill_with_guardian(self) -> None:
        """End it and its guardian by SIGKILL, as the end of a container does."""
        guardian = guardian_of(self.pid)
        kill_guardian(guardian)
        self.kill()


def _tell(event: str, **details: object) -> None:
    print(json.dumps({"event": event, "at_ns": time.monotonic_ns()} | details), flush=True)


@attrs.frozen
class _TellingAttachment:
    name: str
    attachment: Attachment

    async def is_attached(self) -> bool:
        return await self.attachment.is_attached()

    async def aclose(self) -> None:
        await self.attachment.aclose()
        _tell("detached", name=self.name)


@attrs.frozen
class _TellingAttacher:
    attacher: Attacher

    async def attach(self, link: Link) -> Attachment | None:
        attachment = await self.attacher.attach(link)
        _tell("attached" if attachment else "vanished", name=link.name, ifindex=link.ifindex)
        return _TellingAttachment(link.name, attachment) if attachment else None


class _TellingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _tell("log", name=record.levelname, text=record.getMessage())


async def _watch(arguments: argparse.Namespace, programs: HookPrograms) -> None:
    names, counts = InterfaceRegistry(), WatchCounts()
    behind = {name: program_info(fd)[0] for name, fd in attrs.asdict(programs).items()}
    async with open_attacher(arguments.mode, programs) as attacher:
        # With tc these are the entries, which stand before those that were loaded.
        _tell("loaded", **{name: program_info(fd)[0] for name, fd in attrs.asdict(programs).items()})
        _tell("behind", **behind)
        with RouteNetlink(arguments.event_buffer) as netlink, trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                selection = Selection(tuple(arguments.patterns))
                watch_arguments = (netlink, selection, _TellingAttacher(attacher), names, counts)
                started = await nursery.start(watch_interfaces, *watch_arguments)
                _tell("started", names=[link.name for link in started])
                async for _ in signals:
                    break
                snapshot = {str(ifindex): name for ifindex, name in names.snapshot().by_ifindex.items()}
                said = attrs.asdict(counts)
                nursery.cancel_scope.cancel()
    _tell("stopped", names=snapshot, **said)


def _refusal_in(group: BaseException) -> NetwatchError | None:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group if isinstance(group, NetwatchError) else None


def main() -> None:
    """Watch until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["auto", "tcx", "tc"])
    parser.add_argument("--event-buffer", type=int, default=1 << 20)
    parser.add_argument("patterns", nargs="*")
    logging.basicConfig(level=logging.INFO, handlers=[_TellingHandler()])
    fds = {name: load_program(TCX_NEXT, name[:15]) for name in PROGRAMS}
    try:
        trio.run(_watch, parser.parse_args(), HookPrograms(**fds))
    except (NetwatchError, BaseExceptionGroup) as error:
        refusal = _refusal_in(error)
        if refusal is None:
            raise
        _tell("refused", name=type(refusal).__name__, text=str(refusal), exit_code=refusal.exit_code)


if __name__ == "__main__":
    main()
