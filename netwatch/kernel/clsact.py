"""The clsact qdisc and its BPF filters, as traffic control's netlink messages.

Law: no policy here; OSError on refusal. The one importer of pyroute2, and only when it is used: 12.7 MB resident.
Neighbours: `tc.py` decides what is added and removed.

An IPRoute of pyroute2 0.9 runs an asyncio loop of its own for each thread that uses it, and refuses to in a Trio
task. So a TrafficControl is opened, used and closed by one worker thread, within one operation (1 ms to open).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import attrs

from netwatch.core.direction import Direction
from netwatch.errors import DependencyMissing

# include/uapi/linux/pkt_sched.h: TC_H_CLSACT (the same number as TC_H_INGRESS), TC_H_MIN_INGRESS, TC_H_MIN_EGRESS.
_CLSACT = 0xFFFF_FFF1
_PARENTS = {Direction.INGRESS: 0xFFFF_FFF2, Direction.EGRESS: 0xFFFF_FFF3}
_ETH_P_ALL = 3


@attrs.frozen
class Filter:
    """A filter as the kernel lists it, of whatever chain; `handle` 0 is the head of all filters of one preference."""

    ifindex: int
    direction: Direction
    preference: int
    handle: int
    kind: str
    is_for_all_protocols: bool
    name: str | None = None


class TrafficControl:
    """Requests to the kernel's traffic control; open it, use it and close it in one thread."""

    def __init__(self) -> None:
        try:
            from pyroute2 import IPRoute  # noqa: PLC0415 - not in the daemon's memory where TCX works
        except ImportError as error:
            raise DependencyMissing("pyroute2", f"{error}; attach = 'tc' needs it: install pyroute2") from error
        # Any: pyroute2 makes its methods at run time.
        self._route: Any = IPRoute()

    def __enter__(self) -> TrafficControl:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._route.close()

    def qdisc_kind(self, ifindex: int) -> str | None:
        """Return what stands in the place of clsact: clsact, ingress (which excludes it), or nothing."""
        with _os_errors():
            for message in self._route.get_qdiscs(index=ifindex):
                if message["index"] == ifindex and message["parent"] == _CLSACT:
                    return str(message.get_attr("TCA_KIND"))
        return None

    def add_qdisc(self, ifindex: int) -> None:
        """Add clsact. Raises FileExistsError where its place is taken."""
        with _os_errors():
            self._route.tc("add", "clsact", ifindex)

    def delete_qdisc(self, ifindex: int) -> None:
        """Delete clsact, with all that is in it."""
        with _os_errors():
            self._route.tc("del", "clsact", ifindex)

    def filters(self, ifindex: int) -> list[Filter]:
        """List all filters of clsact, in the order in which they run; none where there is no clsact."""
        found: list[Filter] = []
        for direction, parent in _PARENTS.items():
            with _os_errors():
                messages = self._route.get_filters(index=ifindex, parent=parent)
                # An ingress qdisc answers for any parent: its messages say whose they are.
                found += [_filter_in(message, direction) for message in messages if message["parent"] == parent]
        return found

    def add_filter(self, wanted: Filter, program_fd: int) -> None:
        """Add a direct-action BPF filter. Raises FileExistsError where the handle is taken: nothing is replaced."""
        with _os_errors():
            self._route.tc(
                "add-filter",
                wanted.kind,
                wanted.ifindex,
                wanted.handle,
                parent=_PARENTS[wanted.direction],
                prio=wanted.preference,
                protocol=_ETH_P_ALL,
                fd=program_fd,
                name=wanted.name,
                direct_action=True,
            )

    def delete_filter(self, unwanted: Filter) -> None:
        """Delete exactly this filter."""
        with _os_errors():
            self._route.tc(
                "del-filter",
                unwanted.kind,
                unwanted.ifindex,
                unwanted.handle,
                parent=_PARENTS[unwanted.direction],
                prio=unwanted.preference,
                protocol=_ETH_P_ALL,
            )


def _filter_in(message: Any, direction: Direction) -> Filter:
    options = message.get_attr("TCA_OPTIONS")
    kind = str(message.get_attr("TCA_KIND"))
    is_bpf = kind == "bpf" and hasattr(options, "get_attr")
    return Filter(
        ifindex=message["index"],
        direction=direction,
        preference=message["info"] >> 16,
        handle=message["handle"],
        kind=kind,
        is_for_all_protocols=socket.ntohs(message["info"] & 0xFFFF) == _ETH_P_ALL,
        name=options.get_attr("TCA_BPF_NAME") if is_bpf else None,
    )


@contextmanager
def _os_errors() -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - imported with IPRoute already

    try:
        yield
    except NetlinkError as error:
        # Python makes it FileExistsError and so on, by its number. A dump that was interrupted has none: try again.
        raise OSError(error.code if error.code > 0 else errno.EAGAIN, str(error)) from error
