"""A host whose interfaces come and go, as netlink tells it and as attachments feel it.

Law: like the kernel's, an attachment belongs to an interface, not to its index, and ends with it; a queue of events
that is full loses the newest and says so; a second subscription forgets what was queued for the first.
Neighbours: `test_watch.py`; `tests/kernel/test_watch.py` asks the kernel the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from netwatch.core.link import EventsLost, Link, LinkEvent, LinkGone, LinkSeen
from netwatch.errors import AttachError


@attrs.define(eq=False)
class Device:
    """An interface as itself: what keeps its identity when another takes over its index."""

    link: Link
    attached: int = 0


@attrs.define
class FakeHost:
    """A LinkSource and an Attacher over one set of interfaces."""

    max_events: int = 1000
    attach_s: float = 0
    refused: dict[str, str] = attrs.Factory(dict)  # errno by interface name
    devices: dict[int, Device] = attrs.Factory(dict)
    attempts: list[str] = attrs.Factory(list)
    calls: list[str] = attrs.Factory(list)
    _queue: list[LinkEvent] | None = None
    _has_lost: bool = False
    _told: trio.Event = attrs.Factory(trio.Event)

    def add(self, link: Link) -> Device:
        """Make an interface."""
        assert link.ifindex not in self.devices
        device = self.devices[link.ifindex] = Device(link)
        self._tell(LinkSeen(link))
        return device

    def change(self, ifindex: int, **changes: object) -> None:
        """Change an interface: its name, state or link type."""
        device = self.devices[ifindex]
        device.link = attrs.evolve(device.link, **changes)
        self._tell(LinkSeen(device.link))

    def delete(self, ifindex: int) -> None:
        """Delete an interface, and what is attached to it."""
        self.devices.pop(ifindex).attached = 0
        self._tell(LinkGone(ifindex))

    def attached(self) -> list[str]:
        """Return the names of the interfaces that have an attachment."""
        return sorted(device.link.name for device in self.devices.values() if device.attached)

    def _tell(self, event: LinkEvent) -> None:
        if self._queue is None:
            return
        if len(self._queue) < self.max_events:
            self._queue.append(event)
        else:
            self._has_lost = True
        self._told.set()

    def subscribe(self) -> None:
        """Begin a queue."""
        self.calls.append("subscribe")
        self._queue, self._has_lost = [], False

    async def links(self) -> Sequence[Link]:
        """List; like the kernel, only after other things have had time to happen."""
        self.calls.append("links")
        await trio.lowlevel.checkpoint()
        return [device.link for device in self.devices.values()]

    async def receive(self) -> Sequence[LinkEvent]:
        """Wait for the queue."""
        assert self._queue is not None
        await trio.lowlevel.checkpoint()
        while not self._queue and not self._has_lost:
            self._told = trio.Event()
            await self._told.wait()
        if self._has_lost:
            self._has_lost = False
            return [EventsLost()]
        events, self._queue = self._queue, []
        return events

    async def attach(self, link: Link) -> FakeAttachment | None:
        """Attach to the device that has the index now."""
        self.attempts.append(link.name)
        await trio.sleep(self.attach_s)
        device = self.devices.get(link.ifindex)
        if device is None:
            return None
        if link.name in self.refused:
            raise AttachError(link.name, "tcx ingress", self.refused[link.name], "a hint")
        assert not device.attached, "attached twice"
        device.attached += 1
        return FakeAttachment(device)


@attrs.define
class FakeAttachment:
    """An attachment to a device; it may be closed once."""

    device: Device
    is_open: bool = True

    async def is_attached(self) -> bool:
        """Say whether the device still has it."""
        await trio.lowlevel.checkpoint()
        return bool(self.device.attached)

    async def aclose(self) -> None:
        """Detach, however the task is cancelled."""
        assert self.is_open, "closed twice"
        self.is_open = False
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        self.device.attached = 0
