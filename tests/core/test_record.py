"""The text of addresses."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.record import format_address, format_mac


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
        ("::", "::"),
        ("::1", "::1"),
    ],
)
def test_address(address: str, text: str) -> None:
    """IPv4 inside IPv6 is IPv4; IPv6 is written the short way."""
    assert format_address(ipaddress.IPv6Address(address).packed) == text


@given(st.binary(min_size=16, max_size=16))
def test_any_address(raw: bytes) -> None:
    """The text names the same address to an independent reader."""
    address = ipaddress.IPv6Address(raw)
    assert ipaddress.ip_address(format_address(raw)) == (address.ipv4_mapped or address)


def test_link_layer_address() -> None:
    """Two digits an octet, with colons."""
    assert format_mac(b"\x02\x00\x00\x00\x00\x0a") == "02:00:00:00:00:0a"
