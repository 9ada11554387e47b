"""Tell untranslated connections by a glance at a conntrack message: in the kernel before it is queued, and here.

Law: what is thrown away is untranslated for certain: the reply goes between the same addresses and ports. Whatever
does not look as expected (ICMP, a tuple with a zone of its own) is kept, and read with care by `conntrack.py`.
Why not by the NAT bits of its status: IPVS translates without setting them, by its source (not tried: no IPVS here).
Source: ctnetlink_dump_tuples() in net/netfilter/nf_conntrack_netlink.c writes both tuples first, and each of TCP, UDP,
SCTP, DCCP, UDP-Lite and GRE in the same way; for the filter, Documentation/networking/filter.rst.
"""

from __future__ import annotations

import struct

import attrs

_HEADERS_BYTES = 20  # struct nlmsghdr and struct nfgenmsg; then the first tuple
_LENGTH = struct.Struct("=H")  # the first half of struct nlattr
_KEEP, _DROP = 0xFFFF_FFFF, 0

# BPF_LD | BPF_ABS with BPF_W or BPF_H; BPF_JMP | BPF_JEQ with BPF_K or BPF_X; BPF_MISC | BPF_TAX; BPF_RET.
_LOAD_WORD, _LOAD_HALF, _IF_NUMBER, _IF_X, _TO_X, _RETURN = 0x20, 0x28, 0x15, 0x1D, 0x07, 0x06
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, where to jump if true and if false, number

# Operation, how far to jump where a condition is false (None: to the end, where all is kept), number.
_Instruction = tuple[int, int | None, int]


@attrs.frozen
class _Form:
    """Where in a tuple of this length the ends are: each of its attributes has four bytes before its value."""

    tuple_bytes: int
    address_bytes: int
    src: int
    dst: int
    src_port: int
    dst_port: int
    both: struct.Struct
    """Length, source, destination and ports of the first tuple, and of the other."""

    def same(self) -> list[tuple[int, int, int]]:
        """Return what must be the same: place in the one tuple, place in the other, bytes."""
        words = range(0, self.address_bytes, 4)
        addresses = [(self.src + word, self.dst + word, 4) for word in words]
        addresses += [(self.dst + word, self.src + word, 4) for word in words]
        return [*addresses, (self.src_port, self.dst_port, 2), (self.dst_port, self.src_port, 2)]


_FORMS = (
    _Form(52, 4, 12, 20, 40, 48, struct.Struct("=" + 2 * "H10x4s4x4s16x2s6x2s2x")),
    _Form(76, 16, 12, 32, 64, 72, struct.Struct("=" + 2 * "H10x16s4x16s16x2s6x2s2x")),
)
_FORM_OF = {form.tuple_bytes: form for form in _FORMS}


def is_untranslated(body: memoryview) -> bool:
    """Whether the body of a message, from struct nfgenmsg on, is of a connection that is surely not translated."""
    form = _FORM_OF.get(*_LENGTH.unpack_from(body, 4)) if len(body) > 5 else None
    if form is None or len(body) < 4 + form.both.size:
        return False
    _, src, dst, src_port, dst_port, other_bytes, *other = form.both.unpack_from(body, 4)
    return bool(other_bytes == form.tuple_bytes and other == [dst, src, dst_port, src_port])


def event_filter() -> bytes:
    """Return a program for SO_ATTACH_FILTER that keeps what may be translated."""
    code: list[_Instruction] = []
    for form in _FORMS:
        block = _block(form)
        code += [(_LOAD_HALF, 0, _HEADERS_BYTES), (_IF_NUMBER, len(block), _in_message(form.tuple_bytes)), *block]
    code.append((_RETURN, 0, _KEEP))
    end = len(code) - 1
    jumps = [(end - at - 1 if otherwise is None else otherwise) for at, (_, otherwise, _) in enumerate(code)]
    return b"".join(
        _INSTRUCTION.pack(operation, 0, otherwise, number)
        for (operation, _, number), otherwise in zip(code, jumps, strict=True)
    )


def _block(form: _Form) -> list[_Instruction]:
    """Return the instructions that drop an untranslated connection of this form."""
    first, other = _HEADERS_BYTES, _HEADERS_BYTES + form.tuple_bytes
    block: list[_Instruction] = [
        (_LOAD_HALF, 0, other),
        (_IF_NUMBER, None, _in_message(form.tuple_bytes)),
    ]
    for here, there, size in form.same():
        load = _LOAD_WORD if size == 4 else _LOAD_HALF
        block += [(load, 0, first + here), (_TO_X, 0, 0), (load, 0, other + there), (_IF_X, None, 0)]
    return [*block, (_RETURN, 0, _DROP)]


def _in_message(length: int) -> int:
    """Return a number of the machine's byte order as a filter sees it: it loads in that of the network."""
    return int.from_bytes(_LENGTH.pack(length), "big")
