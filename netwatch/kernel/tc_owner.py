"""Whose clsact filters are whose: ours, another living agent's, a dead one's, or none of netwatch's.

Law: what is removed bears a name of netwatch, and its owner has asked for it or is no more.
Neighbours: `tc.py` adds filters under an owner's name, `clsact.py` carries the requests, `tc_claim.py` is how an owner
shows that it lives.

*Who owns it.* Nothing removes a filter when its process is killed. So the name of each filter says whose it is,
`netwatch-` and eight hexadecimal digits, and as long as that process lives it claims the port of this number in the
network namespace. What bears a name that nobody claims is removed: by the guardian (`tc_guardian.py`) at once, or at
the start of the next run, however that one attaches.

*Whose qdisc it is.* The name ends in `-clsact` where netwatch made the qdisc, which comes in one request with its first
filters, and goes in one request with the last. An agent that comes second takes the mark over from the filters it
finds, so that the last one to leave removes the qdisc, if no filter of anyone else is left. Agents do this one after
the other, under a lock. Others know nothing of the lock: what they add between our last look and the deletion, 1 ms
later, goes with the qdisc, because the kernel cannot delete one only if it is empty.
"""

from __future__ import annotations

import errno
import logging
import re
import secrets
import socket
from collections.abc import Sequence

import attrs

from netwatch.kernel.clsact import Filter, TrafficControl
from netwatch.kernel.tc_claim import claim, is_claimed, lock

_FILTER_NAME = re.compile(r"netwatch-([0-9a-f]{8})(-clsact)?")
# Above all process numbers (2^22), which the kernel gives to sockets that ask for no port; below its own numbers.
_LOWEST_PORT, _HIGHEST_PORT = 1 << 24, (1 << 31) - 1

_log = logging.getLogger(__name__)


@attrs.frozen
class Owner:
    """The claim of this process to its filters, for as long as `sign` is open."""

    port: int
    sign: socket.socket

    def filter_name(self, has_made_qdisc: bool) -> str:
        """Return the name of our filters on an interface."""
        return f"netwatch-{self.port:08x}{'-clsact' if has_made_qdisc else ''}"

    def close(self) -> None:
        """Give the claim up."""
        self.sign.close()


def new_owner() -> Owner:
    """Claim a name that nobody has. Raises OSError without CAP_NET_ADMIN."""
    while True:
        port = _LOWEST_PORT + secrets.randbelow(_HIGHEST_PORT - _LOWEST_PORT)
        if sign := claim(port):
            return Owner(port, sign)


def remove_stale_filters() -> int:
    """Remove the filters of agents that are no more, in this network namespace. Return how many; never raises OSError.

    Costs one request where nobody uses clsact, and two for each interface where somebody does.
    """
    removed = 0
    try:
        with TrafficControl() as tc:
            stale = [ifindex for ifindex, kind in tc.qdiscs().items() if kind == "clsact" and _stale(tc, ifindex)]
            if stale:
                with lock():
                    removed = sum(_remove_stale(tc, ifindex) for ifindex in stale)
    except OSError as error:
        _log.warning("filters of a killed netwatch may stay: %s", error)
    if removed:
        _log.info("removed %d filters of a netwatch that was killed", removed)
    return removed


def _remove_stale(tc: TrafficControl, ifindex: int) -> int:
    try:
        filters = _stale(tc, ifindex)
        withdraw(tc, ifindex, filters, any(map(has_mark, filters)))
    except OSError as error:
        if error.errno != errno.ENODEV:
            _log.warning("interface %d: filters of a killed netwatch may stay: %s", ifindex, error)
        return 0
    return len(filters)


def _stale(tc: TrafficControl, ifindex: int) -> list[Filter]:
    """Return the filters of dead agents on an interface."""
    ours = [(present, _FILTER_NAME.fullmatch(present.name or "")) for present in tc.filters(ifindex)]
    lives = {tag: is_claimed(int(tag, 16)) for tag in {match[1] for _, match in ours if match}}
    return [present for present, match in ours if match and not lives[match[1]]]


def has_mark(present: Filter) -> bool:
    """Say whether a filter's name tells that netwatch made the qdisc."""
    match = _FILTER_NAME.fullmatch(present.name or "")
    return bool(match and match[2])


def withdraw(tc: TrafficControl, ifindex: int, filters: Sequence[Filter], is_qdisc_ours: bool) -> None:
    """Delete those of the filters that are there; with the qdisc if it is netwatch's and they are all that is on it.

    In this one request, so that whoever is killed in the middle leaves no qdisc that nobody knows for netwatch's.
    """
    present = tc.filters(ifindex)
    there = [ours for ours in filters if ours in present]
    if is_qdisc_ours and not _others(present, there):
        if there or tc.qdiscs().get(ifindex) == "clsact":
            tc.delete_qdisc(ifindex)
        return
    for ours in there:
        tc.delete_filter(ours)


def _others(present: Sequence[Filter], ours: Sequence[Filter]) -> list[Filter]:
    """Return what is not ours: other filters, and heads of preferences where none of ours is."""
    heads = {(one.direction, one.preference) for one in ours}
    return [one for one in present if one not in ours and (one.handle or (one.direction, one.preference) not in heads)]
