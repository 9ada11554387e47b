"""Protobuf fields of one message, as bytes.

Law: pure; names and numbers as in https://protobuf.dev/programming-guides/encoding. A varint has seven bits to a byte,
low bits first, and the top bit of a byte says that more follow.
Neighbours: `core/wire/varint.py` does for many rows what this does for one number.
"""

from __future__ import annotations

import functools

WIRE_VARINT, WIRE_BYTES, WIRE_FIXED32 = 0, 2, 5

GROUP_BITS = 7
CONTINUES = 0x80


def encode_varint(value: int) -> bytes:
    """Return the minimal varint of one number."""
    groups = bytearray()
    while value >= CONTINUES:
        groups.append(value & 0x7F | CONTINUES)
        value >>= GROUP_BITS
    groups.append(value)
    return bytes(groups)


def pad_varint(value: int, size_bytes: int) -> bytes:
    """Return the varint of one number in so many bytes, which must be enough."""
    minimal = encode_varint(value)
    missing = size_bytes - len(minimal)
    assert missing >= 0, f"{value} takes {len(minimal)} bytes"
    if not missing:
        return minimal
    return minimal[:-1] + bytes((minimal[-1] | CONTINUES,)) + bytes((CONTINUES,)) * (missing - 1) + b"\0"


def groups_of(bits: int) -> int:
    """Return how many groups of seven bits hold so many bits: the bytes of a varint."""
    return -(-bits // GROUP_BITS)


@functools.cache
def tag(field: int, wire_type: int) -> bytes:
    """Return the tag of a field."""
    return encode_varint(field << 3 | wire_type)


def varint_field(field: int, value: int) -> bytes:
    """Return a number field; nothing for 0, which is how proto3 says it."""
    return tag(field, WIRE_VARINT) + encode_varint(value) if value else b""


def delimited(field: int, payload: bytes) -> bytes:
    """Return a string, bytes or message field."""
    return tag(field, WIRE_BYTES) + encode_varint(len(payload)) + payload
