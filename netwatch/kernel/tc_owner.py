"""Whose clsact filters are whose: ours, another living agent's, a dead one's, or none of netwatch's.

Law: what is removed bears a name of netwatch, and its owner has asked for it or is no more.
Neighbours: `tc.py` adds filters under an owner's name, `clsact.py` carries the requests.

*Who owns it.* Nothing removes a filter when its process is killed. So the name of each filter says whose it is,
`netwatch-` and eight hexadecimal digits, and as long as that process lives it holds the abstract Unix socket of the
same name. Both belong to the network namespace, so whoever sees the filter can ask for the socket. At the start,
filters whose socket nobody holds are removed. (A run with TCX does not look for them; the next with tc does.)

*Whose qdisc it is.* The name ends in `-clsact` where netwatch made the qdisc. An agent that comes second takes the
mark over from the filters it finds, so that the last one to leave removes the qdisc, if no filter of anyone is left.
Agents do this one after the other, under a lock on the network namespace itself. Others know nothing of the lock:
what they add between our last look and the deletion, 1 ms later, goes with the qdisc, because the kernel cannot
delete one only if it is empty.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

from netwatch.kernel.clsact import Filter, TrafficControl
from netwatch.kernel.netlink import list_links

_FILTER_NAME = re.compile(r"netwatch-([0-9a-f]{8})(-clsact)?")
# An agent holds the lock for about 5 ms. One that was stopped while it held it must not stop the others, too.
_LOCK_TIMEOUT_S = 1.0
_LOCK_POLL_S = 0.001

_log = logging.getLogger(__name__)


@attrs.frozen
class Owner:
    """The claim of this process to its filters, for as long as `claim` is open."""

    tag: str
    claim: socket.socket

    def filter_name(self, has_made_qdisc: bool) -> str:
        """Return the name of our filters on an interface."""
        return f"netwatch-{self.tag}{'-clsact' if has_made_qdisc else ''}"

    def close(self) -> None:
        """Give the claim up."""
        self.claim.close()


def claim_tag(tag: str) -> Owner | None:
    """Claim the filters with a tag; None where a living process in this network namespace has them."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        claim.bind(f"\0netwatch-{tag}")
    except OSError as error:
        claim.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return Owner(tag, claim)


@contextmanager
def lock_clsact() -> Iterator[None]:
    """Keep other agents in this network namespace from adding and removing meanwhile. Blocks, for a second at most."""
    # The file stands for the namespace; the lock goes with the descriptor, and so with the process.
    with open("/proc/thread-self/ns/net", "rb") as namespace:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(namespace, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOCK_POLL_S)
        yield


def remove_stale_filters() -> int:
    """Remove the filters of agents that are no more, in this network namespace. Return how many."""
    removed = 0
    with lock_clsact(), TrafficControl() as tc:
        for link in list_links():
            try:
                removed += _remove_stale(tc, link.ifindex)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    _log.warning("%s: filters of a killed netwatch may stay: %s", link.name, error)
    if removed:
        _log.info("removed %d filters of a netwatch that was killed", removed)
    return removed


def _remove_stale(tc: TrafficControl, ifindex: int) -> int:
    by_tag: dict[str, list[Filter]] = {}
    for present in tc.filters(ifindex):
        if match := _FILTER_NAME.fullmatch(present.name or ""):
            by_tag.setdefault(match[1], []).append(present)
    removed = 0
    for tag, filters in by_tag.items():
        if owner := claim_tag(tag):
            try:
                withdraw(tc, ifindex, filters, any(map(has_mark, filters)))
            finally:
                owner.close()
            removed += len(filters)
    return removed


def has_mark(present: Filter) -> bool:
    """Say whether a filter's name tells that netwatch made the qdisc."""
    match = _FILTER_NAME.fullmatch(present.name or "")
    return bool(match and match[2])


def withdraw(tc: TrafficControl, ifindex: int, filters: Sequence[Filter], is_qdisc_ours: bool) -> None:
    """Delete those of the filters that are there, and the qdisc if it is netwatch's and nothing is left on it."""
    present = tc.filters(ifindex)
    for ours in filters:
        if ours in present:
            tc.delete_filter(ours)
    if is_qdisc_ours and tc.qdisc_kind(ifindex) == "clsact" and not tc.filters(ifindex):
        tc.delete_qdisc(ifindex)
