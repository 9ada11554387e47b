"""Keep the attachments in step with the interfaces that come, go and change their names.

Law: every selected interface that is there is attached, whatever the order of events, and nothing else is. An
interface that has gone before it could be attached is no error; one that cannot be attached is told once.
Neighbours: `kernel/netlink.py` lists and tells, `core/selection.py` decides, `kernel/attach.py` attaches;
`core/interfaces.py` keeps the names for the drain.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol

import attrs
import trio

from netwatch.core.link import EventsLost, Link, LinkEvent, LinkGone, LinkSeen
from netwatch.errors import AttachError, InterfaceMissing

if TYPE_CHECKING:
    from netwatch.core.interfaces import InterfaceRegistry
    from netwatch.core.selection import Selection
    from netwatch.kernel.attach import Attacher, Attachment

_log = logging.getLogger(__name__)


class LinkSource(Protocol):
    """Where interfaces and events come from."""

    def subscribe(self) -> None:
        """Ask for events from now on, and forget those queued so far."""
        ...

    async def links(self) -> Sequence[Link]:
        """List all interfaces."""
        ...

    async def receive(self) -> Sequence[LinkEvent]:
        """Wait for events."""
        ...


@attrs.define
class WatchCounts:
    """What the metrics say of the interfaces; the watching task writes, others read."""

    attached: int = 0
    attach_failures: int = 0
    netlink_overruns: int = 0


async def watch_interfaces(
    netlink: LinkSource,
    selection: Selection,
    attacher: Attacher,
    names: InterfaceRegistry,
    counts: WatchCounts,
    *,
    task_status: trio.TaskStatus[tuple[Link, ...]] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Attach to the selected interfaces, report the attached ones as started, and follow the events for ever.

    Raises InterfaceMissing or AttachError only before it has started, PermissionMissing at any time. Cancelling
    detaches everything and takes until the kernel has done so: 8 to 16 ms a hook. The names stay in the registry, for
    the drains that follow.
    """
    watch = _Watch(selection, attacher, names, counts)
    try:
        netlink.subscribe()
        task_status.started(await watch.start(await netlink.links()))
        while True:
            for event in await netlink.receive():
                if isinstance(event, EventsLost):
                    counts.netlink_overruns += 1
                    netlink.subscribe()
                    await watch.reconcile(await netlink.links())
                else:
                    await watch.follow(event)
    finally:
        await watch.detach_all()


@attrs.frozen
class _Attached:
    link: Link
    attachment: Attachment


@attrs.define
class _Watch:
    """What is attached, and what could not be."""

    _selection: Selection
    _attacher: Attacher
    _names: InterfaceRegistry
    _counts: WatchCounts
    _attached: dict[int, _Attached] = attrs.Factory(dict)
    # As they were when it failed: worth another try once something has changed, as when the interface goes up.
    _passed_over: dict[int, Link] = attrs.Factory(dict)

    async def start(self, links: Sequence[Link]) -> tuple[Link, ...]:
        """Attach to what is there. Raises where the operator has to know now."""
        for pattern in self._selection.check_present(links):
            _log.warning("interface %s: nothing matches yet", pattern)
        refusals: list[AttachError] = []
        for link in filter(self._selection.selects, links):
            try:
                await self._attach(link)
            except AttachError as error:
                if self._selection.names(link):
                    raise
                self._pass_over(link, error)
                refusals.append(error)
        if not self._attached:
            raise refusals[0] if refusals else InterfaceMissing(self._selection.describe(), ())
        return tuple(attached.link for attached in self._attached.values())

    async def follow(self, event: LinkSeen | LinkGone) -> None:
        """Do what an event asks for."""
        if isinstance(event, LinkSeen):
            await self._see(event.link)
        else:
            await self._detach(event.ifindex)
            self._passed_over.pop(event.ifindex, None)

    async def reconcile(self, links: Sequence[Link]) -> None:
        """Put right what unknown events have changed."""
        present = {link.ifindex for link in links}
        for ifindex, attached in list(self._attached.items()):
            # An index that is there may be another interface's by now: then our attachment went with the first.
            if ifindex not in present or not await attached.attachment.is_attached():
                await self._detach(ifindex)
        self._passed_over.clear()
        for link in links:
            await self._see(link)

    async def detach_all(self) -> None:
        """Close all attachments, even when cancelled."""
        for attached in self._attached.values():
            await attached.attachment.aclose()
        self._attached.clear()
        self._counts.attached = 0

    async def _see(self, link: Link) -> None:
        attached = self._attached.get(link.ifindex)
        if attached and attached.link.arphrd == link.arphrd:
            self._names.rename(link.ifindex, link.name)
            return
        # A bond takes over the link type of its first member: its packets then want the other program.
        await self._detach(link.ifindex)
        if not self._selection.selects(link) or self._has_failed(link):
            return
        try:
            await self._attach(link)
        except AttachError as error:
            self._pass_over(link, error)

    async def _attach(self, link: Link) -> None:
        if not link.is_attachable:
            hint = "its packets begin with neither an Ethernet nor an IP header; exclude it"
            raise AttachError(link.name, "any hook", f"link type {link.arphrd}", hint)
        # First the name: a drain may come upon flows of this interface before the attachment returns.
        self._names.add(link)
        attachment = None
        try:
            attachment = await self._attacher.attach(link)
        finally:
            if attachment is None:
                self._names.remove(link.ifindex)
        if attachment is not None:
            self._attached[link.ifindex] = _Attached(link, attachment)
            self._passed_over.pop(link.ifindex, None)
            self._counts.attached = len(self._attached)
            _log.debug("attached to %s (index %d)", link.name, link.ifindex)

    async def _detach(self, ifindex: int) -> None:
        attached = self._attached.pop(ifindex, None)
        if attached is not None:
            self._counts.attached = len(self._attached)
            self._names.remove(ifindex)
            await attached.attachment.aclose()
            _log.debug("detached from %s (index %d)", attached.link.name, ifindex)

    def _has_failed(self, link: Link) -> bool:
        before = self._passed_over.get(link.ifindex)
        return before is not None and (before == link or (before.arphrd == link.arphrd and not link.is_attachable))

    def _pass_over(self, link: Link, error: AttachError) -> None:
        self._passed_over[link.ifindex] = link
        if link.is_attachable:
            self._counts.attach_failures += 1
            _log.warning("%s", error)
        else:
            _log.info("%s is not watched: link type %d", link.name, link.arphrd)
