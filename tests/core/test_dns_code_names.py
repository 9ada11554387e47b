"""Names of DNS response codes, question types and header flags."""

from __future__ import annotations

import pytest

from netwatch.core.dns_code_names import header_flag_names, question_type_name, response_code_name


@pytest.mark.parametrize(
    ("flags", "name"),
    [(0x8180, "NoError"), (0x8182, "ServFail"), (0x8183, "NXDomain"), (0x8005, "Refused"), (0x800F, "15")],
)
def test_response_code(flags: int, name: str) -> None:
    """An answer's code has its name at IANA, or its number."""
    assert response_code_name(flags) == name


@pytest.mark.parametrize("flags", [0x0100, 0x0000, 0x0003])
def test_question(flags: int) -> None:
    """A question has no response code, whatever its bits say."""
    assert response_code_name(flags) == ""


@pytest.mark.parametrize(
    ("number", "name"), [(1, "A"), (28, "AAAA"), (255, "ANY"), (65, "TYPE65"), (65_535, "TYPE65535")]
)
def test_question_type(number: int, name: str) -> None:
    """A type without a name is written as RFC 3597 writes it."""
    assert question_type_name(number) == name


def test_header_flags() -> None:
    """Flags stand in dig's order, the rest of the word is not among them."""
    assert header_flag_names(0x8583) == "qr aa rd ra"
    assert header_flag_names(0x7840) == ""
