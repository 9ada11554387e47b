"""Attach the programs by clsact filters, where the kernel has no TCX or the operator wants tc.

Law: no qdisc and no filter that netwatch did not make is touched: ours are added beside the others, never in their
place.
Neighbours: `tc_owner.py` knows whose filters are whose, `tc_entry.py` and `tc_guardian.py` see to it that nothing stays
of a killed agent, `clsact.py` carries the requests, `attach.py` has the programs and says what an attachment is.

*Where our filter stands.* Preference 1, the first. BPF filters for all protocols share a preference and run newest
first, each under a handle of its own; ours is random, because a fixed one (1, say) is what others replace. A filter
that runs before ours and ends the chain hides its packets from us: one that comes later at the same preference, one
of another kind that holds preference 1 (then ours takes the next that is free, with a warning), or any TCX program.
Ours never ends the chain. What tc cannot prevent: others may delete a whole preference. TCX links have none of this.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from netwatch.core.direction import Direction
from netwatch.core.link import Link
from netwatch.errors import AttachError, PermissionMissing
from netwatch.kernel.attach import HookPrograms, refusal
from netwatch.kernel.clsact import Filter, TrafficControl
from netwatch.kernel.tc_claim import lock
from netwatch.kernel.tc_entry import entries_before
from netwatch.kernel.tc_guardian import start_guardian
from netwatch.kernel.tc_owner import Owner, has_mark, new_owner, withdraw

# cls_bpf takes handles up to 2^31 - 1 from those who let it choose; from the middle up nobody chooses by hand.
_LOWEST_HANDLE, _HIGHEST_HANDLE = 0x4000_0000, 0x7FFF_FFFF
# Another agent may come or go between our look and our request: 1 ms, so three in a row mean something else.
_ATTEMPTS = 3
_RACES = (errno.EEXIST, errno.EINVAL, errno.ENOENT, errno.EAGAIN)

_HINTS = {
    errno.EINVAL: "the kernel refuses a BPF filter there; CONFIG_NET_CLS_BPF is needed",
    errno.ENOENT: "the kernel has no clsact qdisc; CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF are needed",
    errno.EOPNOTSUPP: "the kernel has no traffic control; CONFIG_NET_SCHED is needed",
}

_log = logging.getLogger(__name__)


@attrs.frozen
class TcAttachment:
    """Our filters on one interface."""

    ifindex: int
    filters: tuple[Filter, ...]
    is_qdisc_ours: bool

    async def is_attached(self) -> bool:
        """Say whether all filters are still there."""
        return await trio.to_thread.run_sync(self._are_attached)

    def _are_attached(self) -> bool:
        with TrafficControl() as tc:
            present = tc.filters(self.ifindex)
        return all(ours in present for ours in self.filters)

    async def aclose(self) -> None:
        """Delete our filters, and the qdisc if it is ours and empty."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._detach)

    def _detach(self) -> None:
        try:
            with lock(), TrafficControl() as tc:
                withdraw(tc, self.ifindex, self.filters, self.is_qdisc_ours)
        except OSError as error:
            if error.errno != errno.ENODEV:
                _log.warning("filters of netwatch may stay on interface %d: %s", self.ifindex, error)


@attrs.frozen
class TcAttacher:
    """Attaches by clsact filters in this process's name."""

    programs: HookPrograms
    owner: Owner
    directions: Sequence[Direction] = tuple(Direction)

    async def attach(self, link: Link) -> TcAttachment | None:
        """Attach to an interface."""
        return await trio.to_thread.run_sync(self._attach, link)

    def _attach(self, link: Link) -> TcAttachment | None:
        with lock(), TrafficControl() as tc:
            for attempt in range(_ATTEMPTS):
                try:
                    return self._add(tc, link)
                except OSError as error:
                    if error.errno == errno.ENODEV:
                        return None
                    if error.errno not in _RACES or attempt == _ATTEMPTS - 1:
                        raise refusal(link, "tc clsact", error, _HINTS) from error
        raise AssertionError("the last attempt returns or raises")

    def _add(self, tc: TrafficControl, link: Link) -> TcAttachment:
        kind, present = tc.qdiscs().get(link.ifindex), tc.filters(link.ifindex)
        if kind == "ingress":
            # Its filters run for incoming packets whatever parent they name: ours for egress would, too.
            hint = "another program's ingress qdisc stands in the place of clsact; delete it, or use attach = 'tcx'"
            raise AttachError(link.name, "tc clsact", "EEXIST", hint)
        is_qdisc_ours = kind is None or any(map(has_mark, present))
        name = self.owner.filter_name(is_qdisc_ours)
        wanted = {
            _new_filter(link, direction, present, name): self.programs.program(link, direction)
            for direction in self.directions
        }
        try:
            tc.add(wanted, with_qdisc=kind is None)
        except OSError as error:
            # Some may have been added all the same. A qdisc that was there at the second look is not ours.
            withdraw(tc, link.ifindex, [*wanted], is_qdisc_ours and not isinstance(error, FileExistsError))
            raise
        return TcAttachment(link.ifindex, tuple(wanted), is_qdisc_ours)


@asynccontextmanager
async def open_tc_attacher(programs: HookPrograms, directions: Sequence[Direction]) -> AsyncIterator[TcAttacher]:
    """Claim a name, and attach until the end of the block, by entries: see `tc_entry.py` for the descriptors.

    Raises PermissionMissing, or KernelCallFailed.
    """
    try:
        owner = new_owner()
    except PermissionError as error:
        raise PermissionMissing("CAP_NET_ADMIN", "needed for attach = 'tc'; run as root or grant it") from error
    with contextlib.closing(owner), entries_before(programs):
        guardian = await trio.to_thread.run_sync(start_guardian, owner.port)
        try:
            yield TcAttacher(programs, owner, directions)
        finally:
            if guardian:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(guardian.dismiss)


def _new_filter(link: Link, direction: Direction, present: Sequence[Filter], name: str) -> Filter:
    return Filter(
        ifindex=link.ifindex,
        direction=direction,
        preference=_free_preference(link, direction, present),
        handle=_LOWEST_HANDLE + secrets.randbelow(_HIGHEST_HANDLE - _LOWEST_HANDLE),
        kind="bpf",
        is_for_all_protocols=True,
        name=name,
    )


def _free_preference(link: Link, direction: Direction, present: Sequence[Filter]) -> int:
    """Return the first preference that holds nothing, or only filters beside which ours may stand."""
    foreign = {
        other.preference
        for other in present
        if other.direction is direction and not (other.kind == "bpf" and other.is_for_all_protocols)
    }
    preference = next(number for number in range(1, len(foreign) + 2) if number not in foreign)
    if preference > 1:
        _log.warning(
            "%s: filters of others run first (tc filter show dev %s %s); packets that they take are not seen",
            *(link.name, link.name, direction.name.lower()),
        )
    return preference
