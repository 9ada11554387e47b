"""Names of protocols, ICMP messages and TCP flags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.protocol_names import flag_letters, icmp_name, protocol_name


@pytest.mark.parametrize(("number", "name"), [(1, "ICMP"), (6, "TCP"), (58, "ICMPv6"), (132, "SCTP"), (253, "253")])
def test_protocol(number: int, name: str) -> None:
    """A protocol has the name that people use; a number that nobody has named stays a number."""
    assert protocol_name(number) == name


@pytest.mark.parametrize(
    ("protocol", "icmp_type", "icmp_code", "name"),
    [
        (1, 8, 0, "echo"),
        (1, 0, 0, "echo-reply"),
        (1, 3, 3, "port-unreach"),
        (1, 3, 14, "unreachable/14"),
        (1, 99, 0, "99/0"),
        (1, 99, 2, "99/2"),
        (58, 128, 0, "echo"),
        (58, 8, 0, "8/0"),
        (58, 1, 0, "no-route"),
        (58, 135, 0, "neighbor-sol"),
    ],
)
def test_icmp_message(protocol: int, icmp_type: int, icmp_code: int, name: str) -> None:
    """The two ICMPs number their messages differently; a code without a name is shown as a number behind the type."""
    assert icmp_name(protocol, icmp_type, icmp_code) == name


@given(st.sampled_from([1, 58]), st.integers(0, 255), st.integers(0, 255))
def test_any_icmp_message(protocol: int, icmp_type: int, icmp_code: int) -> None:
    """Every message has a name short enough for its column, and none that a wrong one could be taken for."""
    name = icmp_name(protocol, icmp_type, icmp_code)
    assert 0 < len(name) <= 17
    assert " " not in name


@pytest.mark.parametrize(
    ("flags", "letters"),
    [(0x02, "S"), (0x12, "SA"), (0x1B, "SAFP"), (0x14, "AR"), (0xFF, "SAFRPUEC"), (0, "-"), (0x100, "-")],
)
def test_flags(flags: int, letters: str) -> None:
    """Each of the eight flags has one letter; the pairs that collectors expect beside them have none."""
    assert flag_letters(flags) == letters
