"""Attach the programs to an interface by TCX links, and say what any attachment is.

Law: a link dies with its descriptor, so whatever ends this process detaches it. Programs of others stay as they are;
ours stand before them, because one that ends the chain would hide its packets from us, and ours never ends it.
Neighbours: `tc.py` attaches where TCX is missing, `attach_mode.py` chooses, `watch.py` says what and when.
Source: link_create.tcx in `union bpf_attr`, include/uapi/linux/bpf.h of Linux 6.6; kernel/bpf/tcx.c, mprog.c.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from typing import Protocol

import attrs
import trio

from netwatch.core.direction import Direction
from netwatch.core.link import Link
from netwatch.errors import AttachError, PermissionMissing
from netwatch.kernel.syscall import Command, address, bpf

_BPF_TCX_INGRESS = 46
_BPF_TCX_EGRESS = 47
# Before nothing in particular: before all.
_BPF_F_BEFORE = 8
# The kernel checks the attachment type first and looks for the interface then; nobody has this one.
_NO_IFINDEX = 0x7FFF_FFFF
# struct bpf_link_info: type, id, prog_id, and from byte 16 the interface index, which is 0 once the interface is gone.
_LINK_INFO_BYTES = 64
_LINK_INFO_IFINDEX_OFFSET = 16

_HINTS = {
    errno.EINVAL: "TCX needs Linux 6.6; use attach = 'tc'",
    errno.EEXIST: "this very program is there already",
    errno.ERANGE: "63 programs are attached there, the most that TCX takes; detach one (bpftool net)",
    errno.ENOMEM: "the kernel is out of memory",
}


@attrs.frozen
class HookPrograms:
    """Descriptors of the four loaded programs: each direction, with and without an Ethernet header."""

    ingress_ethernet: int
    egress_ethernet: int
    ingress_ip: int
    egress_ip: int

    def program(self, link: Link, direction: Direction) -> int:
        """Return the program for one direction of a link."""
        if link.has_link_header:
            return self.ingress_ethernet if direction is Direction.INGRESS else self.egress_ethernet
        return self.ingress_ip if direction is Direction.INGRESS else self.egress_ip


class Attachment(Protocol):
    """Programs attached to one interface."""

    async def is_attached(self) -> bool:
        """Say whether all of it is still in place: not if the interface went, even if another has its index now."""
        ...

    async def aclose(self) -> None:
        """Detach. Also where the interface is gone; never raises; completes even when cancelled."""
        ...


class Attacher(Protocol):
    """A way to attach."""

    async def attach(self, link: Link) -> Attachment | None:
        """Attach to both directions, or those that were asked for; None where the interface has gone meanwhile.

        Raises AttachError, or PermissionMissing; nothing is attached then. Cancelling waits for the kernel: each
        direction takes 8 to 16 ms, an RCU grace period, though the program sees packets from the first.
        """
        ...


def attach_tcx(program_fd: int, ifindex: int, direction: Direction) -> int:
    """Make a TCX link at the head of the chain and return its descriptor. Raises OSError.

    Blocks for an RCU grace period.
    """
    attach_type = _BPF_TCX_INGRESS if direction is Direction.INGRESS else _BPF_TCX_EGRESS
    relative_fd, expected_revision = 0, 0
    fields = (program_fd, ifindex, attach_type, _BPF_F_BEFORE, relative_fd, 0, expected_revision)
    return bpf(Command.LINK_CREATE, "=IIIIIIQ", *fields)


def supports_tcx(program_fd: int) -> bool:
    """Say whether the kernel has TCX, with a program to ask with; attaches nothing."""
    try:
        os.close(attach_tcx(program_fd, _NO_IFINDEX, Direction.INGRESS))
    except OSError as error:
        # EINVAL: no such attachment type. EPERM stays for attach() to explain.
        return error.errno != errno.EINVAL
    return True


def refusal(link: Link, hook: str, error: OSError, hints: dict[int, str]) -> AttachError | PermissionMissing:
    """Translate what the kernel answered."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return PermissionMissing(
            "CAP_BPF or CAP_NET_ADMIN", f"needed for {hook} on {link.name}; run as root or grant it"
        )
    number = error.errno or 0
    hint = hints.get(number, "run `netwatch check` for what this kernel can do")
    return AttachError(link.name, hook, errno.errorcode.get(number, str(number)), hint)


@attrs.frozen
class TcxAttachment:
    """The links of one interface, by their descriptors."""

    link_fds: tuple[int, ...]

    async def is_attached(self) -> bool:
        """Say whether the links still have an interface."""
        return await trio.to_thread.run_sync(lambda: all(map(_link_ifindex, self.link_fds)))

    async def aclose(self) -> None:
        """Close the links. In a worker thread: each waits for an RCU grace period."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_close_all, self.link_fds)


@attrs.frozen
class TcxAttacher:
    """Attaches by TCX links, in worker threads: the kernel takes 8 to 16 ms a link, longer where others change some."""

    programs: HookPrograms
    directions: Sequence[Direction] = tuple(Direction)

    async def attach(self, link: Link) -> TcxAttachment | None:
        """Attach to an interface."""
        return await trio.to_thread.run_sync(self._attach, link)

    def _attach(self, link: Link) -> TcxAttachment | None:
        link_fds: list[int] = []
        for direction in self.directions:
            try:
                link_fds.append(attach_tcx(self.programs.program(link, direction), link.ifindex, direction))
            except OSError as error:
                _close_all(link_fds)
                if error.errno == errno.ENODEV:
                    return None
                raise refusal(link, f"tcx {direction.name.lower()}", error, _HINTS) from error
        return TcxAttachment(tuple(link_fds))


def _link_ifindex(link_fd: int) -> int:
    info = bytearray(_LINK_INFO_BYTES)
    bpf(Command.OBJ_GET_INFO_BY_FD, "=IIQ", link_fd, len(info), address(info))
    ifindex: int = struct.unpack_from("=I", info, _LINK_INFO_IFINDEX_OFFSET)[0]
    return ifindex


def _close_all(link_fds: Sequence[int]) -> None:
    for link_fd in link_fds:
        os.close(link_fd)
