"""The clsact qdisc and its BPF filters, as traffic control's netlink messages.

Law: no policy here; OSError on refusal. What is sent in one go is done in one go: the kernel works off the messages of
a datagram within the system call that sends it, so a process is killed before all of them or after.
Neighbours: `tc.py` decides what is added, `tc_owner.py` what is removed; `netlink_messages.py` has the framing.
Source: include/uapi/linux/rtnetlink.h, pkt_sched.h and pkt_cls.h; net/sched/sch_api.c and cls_api.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Mapping
from types import TracebackType

import attrs

from netwatch.core.direction import Direction
from netwatch.kernel.netlink_messages import (
    attribute,
    attributes_in,
    dump,
    dump_request,
    open_route_socket,
    request,
    send_requests,
)

_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_RTM_NEWTFILTER, _RTM_DELTFILTER, _RTM_GETTFILTER = 44, 45, 46
# Create, and never replace: NLM_F_CREATE | NLM_F_EXCL.
_NLM_F_NEW = 0x600
_NLM_F_DUMP_INTR = 0x10

_TCMSG = struct.Struct("=BxHiIII")  # struct tcmsg: family, padding, interface, handle, parent, info
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_BPF_FD, _TCA_BPF_NAME, _TCA_BPF_FLAGS = 6, 7, 8
_TCA_BPF_FLAG_ACT_DIRECT = 1

# TC_H_CLSACT (the same number as TC_H_INGRESS), its handle, TC_H_MIN_INGRESS, TC_H_MIN_EGRESS.
_CLSACT, _CLSACT_HANDLE = 0xFFFF_FFF1, 0xFFFF_0000
_PARENTS = {Direction.INGRESS: 0xFFFF_FFF2, Direction.EGRESS: 0xFFFF_FFF3}
_ALL_PROTOCOLS = socket.htons(3)  # ETH_P_ALL
_DUMP_ATTEMPTS = 5


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
    """Requests to the kernel's traffic control, in the network namespace of the thread that opens it. Each blocks."""

    def __init__(self) -> None:
        self._route = open_route_socket()

    def __enter__(self) -> TrafficControl:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._route.close()

    def qdiscs(self) -> dict[int, str]:
        """Return what stands in the place of clsact, by interface: clsact, or ingress, which excludes it."""
        answers = self._dump(dump_request(_RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0, 0)))
        return {ifindex: kind for ifindex, _, parent, _, kind, _ in map(_decode, answers) if parent == _CLSACT}

    def filters(self, ifindex: int) -> list[Filter]:
        """List all filters of clsact, in the order in which they run; none where there is no clsact."""
        found: list[Filter] = []
        for direction, parent in _PARENTS.items():
            answers = self._dump(dump_request(_RTM_GETTFILTER, _TCMSG.pack(0, 0, ifindex, 0, parent, 0)))
            # An ingress qdisc answers for any parent: its messages say whose they are.
            found += [_filter(answer, direction) for answer in answers if _decode(answer)[2] == parent]
        return found

    def add(self, filters: Mapping[Filter, int], *, with_qdisc: bool) -> None:
        """Add BPF filters, each with its program's descriptor, in one go; with the qdisc of their interface before.

        Raises FileExistsError where the place of the qdisc or a handle is taken: nothing is replaced, and what could
        be added besides is there.
        """
        requests = [_new_qdisc(next(iter(filters)).ifindex)] if with_qdisc else []
        send_requests(self._route, requests + [_new_filter(*wanted) for wanted in filters.items()])

    def delete_qdisc(self, ifindex: int) -> None:
        """Delete clsact, with all that is in it."""
        send_requests(self._route, [request(_RTM_DELQDISC, 0, _clsact(ifindex))])

    def delete_filter(self, unwanted: Filter) -> None:
        """Delete exactly this filter."""
        send_requests(self._route, [request(_RTM_DELTFILTER, 0, _place(unwanted))])

    def _dump(self, asked: bytes) -> list[memoryview]:
        for _ in range(_DUMP_ATTEMPTS):
            answers = [*dump(self._route, asked)]
            if not any(flags & _NLM_F_DUMP_INTR for _, flags, _ in answers):
                return [body for kind, _, body in answers if kind in (_RTM_NEWQDISC, _RTM_NEWTFILTER)]
        raise OSError(errno.EAGAIN, "traffic control was changed by others during each attempt to list it")


def _clsact(ifindex: int) -> bytes:
    return _TCMSG.pack(0, 0, ifindex, _CLSACT_HANDLE, _CLSACT, 0) + attribute(_TCA_KIND, b"clsact\0")


def _new_qdisc(ifindex: int) -> bytes:
    return request(_RTM_NEWQDISC, _NLM_F_NEW, _clsact(ifindex))


def _place(which: Filter) -> bytes:
    info = which.preference << 16 | _ALL_PROTOCOLS
    header = _TCMSG.pack(0, 0, which.ifindex, which.handle, _PARENTS[which.direction], info)
    return header + attribute(_TCA_KIND, which.kind.encode() + b"\0")


def _new_filter(wanted: Filter, program_fd: int) -> bytes:
    options = (
        attribute(_TCA_BPF_FD, struct.pack("=I", program_fd))
        + attribute(_TCA_BPF_NAME, (wanted.name or "").encode() + b"\0")
        + attribute(_TCA_BPF_FLAGS, struct.pack("=I", _TCA_BPF_FLAG_ACT_DIRECT))
    )
    return request(_RTM_NEWTFILTER, _NLM_F_NEW, _place(wanted) + attribute(_TCA_OPTIONS, options))


def _decode(body: memoryview) -> tuple[int, int, int, int, str, memoryview]:
    """Return interface, handle, parent, info, kind and options of a message."""
    _, _, ifindex, handle, parent, info = _TCMSG.unpack_from(body)
    values = dict(attributes_in(body[_TCMSG.size :]))
    return ifindex, handle, parent, info, _text(values[_TCA_KIND]), values.get(_TCA_OPTIONS, body[:0])


def _filter(body: memoryview, direction: Direction) -> Filter:
    ifindex, handle, _, info, kind, options = _decode(body)
    name = dict(attributes_in(options)).get(_TCA_BPF_NAME) if kind == "bpf" else None
    return Filter(
        ifindex=ifindex,
        direction=direction,
        preference=info >> 16,
        handle=handle,
        kind=kind,
        is_for_all_protocols=info & 0xFFFF == _ALL_PROTOCOLS,
        name=None if name is None else _text(name),
    )


def _text(value: memoryview) -> str:
    return bytes(value).split(b"\0")[0].decode(errors="replace")
