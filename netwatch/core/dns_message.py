"""Read the header and the first question of a DNS message.

Law: any bytes have a reading, and none raises: what cannot be read is 0, or empty.
Neighbours: `bpf/dns.bpf.h` copies the bytes out of packets, `core/dns.py` matches questions and answers,
`core/dns_name.py` makes text of a name.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER_BYTES = 12  # RFC 1035 4.1.1

RESPONSE_FLAG = 0x8000
RESPONSE_CODE_MASK = 0x000F

# RFC 1035 2.3.4: "names 255 octets or less", of which the root's zero is one.
_MAX_LABELS_BYTES = 254

# RFC 1035 4.1.4: a pointer begins with two ones, "the 10 and 01 combinations are reserved for future use".
_FIRST_RESERVED = 0x40
_FIRST_POINTER = 0xC0

_read_header = struct.Struct("!HHH").unpack_from
_read_type_class = struct.Struct("!HH").unpack_from


# Not attrs: one is made for each message, and a tuple takes 0.2 us where an attrs class takes 0.43.
class DnsMessage(NamedTuple):
    """What a message says of itself. `question_count` is the header's; the others tell of the first question."""

    id: int
    flags: int  # the second word of the header
    question_count: int
    question_type: int
    name: bytes  # length and label, in turn, as they came, without the root's zero
    has_question: bool  # the first question was read to its end: an empty name is the root

    @property
    def is_response(self) -> bool:
        """Whether it answers."""
        return bool(self.flags & RESPONSE_FLAG)

    @property
    def response_code(self) -> int:
        """RCODE of the header; what EDNS adds to it is behind the first question."""
        return self.flags & RESPONSE_CODE_MASK


def read_message(message: bytes) -> DnsMessage:
    """Read a message, or as much of it as there is."""
    if len(message) < HEADER_BYTES:
        # Of half a word nothing can be told.
        message = message[: len(message) & ~1].ljust(HEADER_BYTES, b"\0")
    identifier, flags, questions = _read_header(message)
    found = read_name(message, HEADER_BYTES) if questions else None
    if found is None:
        return DnsMessage(identifier, flags, questions, 0, b"", False)
    name, end = found
    if end + 4 > len(message):
        return DnsMessage(identifier, flags, questions, 0, name, False)
    return DnsMessage(identifier, flags, questions, _read_type_class(message, end)[0], name, True)


def read_name(message: bytes, at: int) -> tuple[bytes, int] | None:
    """Read the name that begins at an offset; return its labels, and where what follows it begins.

    None where it is cut off, too long, of a reserved kind, or where a pointer does not lead to before all that was read
    so far. RFC 1035 4.1.4 has pointers to "a prior occurance", which is more than a guard against loops: in a first
    question only a pointer into the header is left. Resolvers follow that one, so it is followed here.
    """
    name = b""
    start, end = at, 0
    try:
        while length := message[at]:
            if length < _FIRST_RESERVED:
                at += 1 + length
                continue
            target = (length & 0x3F) << 8 | message[at + 1]
            name += message[start:at]
            if length < _FIRST_POINTER or target >= start or len(name) > _MAX_LABELS_BYTES:
                return None
            end = end or at + 2
            start = at = target
    except IndexError:
        return None
    name += message[start:at]
    if len(name) > _MAX_LABELS_BYTES:
        return None
    return name, end or at + 1
