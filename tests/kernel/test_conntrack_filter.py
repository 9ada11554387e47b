"""What is known of a connection at a glance, against the careful reading of the same message."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.kernel import conntrack
from netwatch.kernel.conntrack import translation_in
from netwatch.kernel.conntrack_filter import is_untranslated

_NESTED = 0x8000
# Few of each, so that both directions often agree.
ADDRESSES = {4: [b"\x0a\0\0\1", b"\x0a\0\0\2"], 16: [bytes(15) + b"\1", b"\xfd" + bytes(14) + b"\1"]}
Ends = tuple[bytes, bytes, int, int]


def attribute(number: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


def direction(number: int, ends: Ends, protocol: int) -> bytes:
    """Write one direction as ctnetlink does."""
    src, dst, src_port, dst_port = ends
    first = 1 if len(src) == 4 else 3
    addresses = attribute(first, src) + attribute(first + 1, dst)
    ports = attribute(2, struct.pack("!H", src_port)) + attribute(3, struct.pack("!H", dst_port))
    numbers = attribute(1, bytes([protocol])) + ports
    return attribute(number | _NESTED, attribute(1 | _NESTED, addresses) + attribute(2 | _NESTED, numbers))


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, Ends, Ends, int]:
    """Draw the body of a message, what it says of both directions, and the zone."""
    choices = st.sampled_from(ADDRESSES[draw(st.sampled_from([4, 16]))])
    ports = st.integers(1, 2)
    original, reply = (tuple(draw(each) for each in (choices, choices, ports, ports)) for _ in range(2))
    zone = draw(st.integers(0, 3))
    body = struct.pack("=BBH", socket.AF_INET, 0, 0) + direction(1, original, 17) + direction(2, reply, 17)
    return (
        body + (attribute(18, struct.pack("!H", zone)) if zone else b"") + attribute(12, bytes(4)),
        original,
        reply,
        zone,
    )


@given(messages())
def test_glance_and_careful_reading(drawn: tuple[bytes, Ends, Ends, int]) -> None:
    """Untranslated is a connection whose reply goes the same way back, and nothing else; the others are read whole."""
    body, original, reply, zone = drawn
    src, dst, src_port, dst_port = original
    is_plain = reply == (dst, src, dst_port, src_port)
    assert is_untranslated(memoryview(body)) == is_plain
    found = translation_in(memoryview(body))
    assert (found is None) == is_plain
    if found:
        assert found[2] == zone
        for key, ends in zip(found[:2], (original, reply), strict=True):
            key_src, key_dst, *ports, protocol = struct.unpack("=16s16sHHB3x", key)
            assert (key_src.endswith(ends[0]), key_dst.endswith(ends[1]), *ports, protocol) == (
                True,
                True,
                *ends[2:],
                17,
            )


@given(messages(), st.data())
def test_cut_off(drawn: tuple[bytes, Ends, Ends, int], data: st.DataObject) -> None:
    """A message that ends in the middle is of no translation, and is no error."""
    body = drawn[0]
    cut = memoryview(body)[: data.draw(st.integers(4, len(body)))]
    found = translation_in(cut)
    assert found is None or found[:2] == translation_in(memoryview(body))[:2]


@pytest.mark.parametrize("size", range(4))
def test_nothing_at_all(size: int) -> None:
    """Not even a whole head."""
    assert not is_untranslated(memoryview(bytes(size)))
    assert conntrack.translation_in(memoryview(bytes(size))) is None
