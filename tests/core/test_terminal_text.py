"""Text on a terminal: harmless, and cut where it can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.terminal_text import endpoint, harmless, shorten, shorten_endpoint


@given(st.text())
def test_any_name(name: str) -> None:
    """Each character stays one character, of printable ASCII; what is that already stays itself."""
    text = harmless(name)
    assert len(text) == len(name)
    assert text.isascii()
    assert text.isprintable()
    assert all(shown in {char, "?"} for char, shown in zip(name, text, strict=True))


def test_endpoint() -> None:
    """An IPv6 address has brackets before its port."""
    assert endpoint("10.0.0.1", 80) == "10.0.0.1:80"
    assert endpoint("::1", 80) == "[::1]:80"


@pytest.mark.parametrize(
    ("width", "text"), [(8, "7 dropp…"), (10, "7 dropped…"), (12, "7 dropped…"), (13, "7 dropped: N…"), (1, "…")]
)
def test_cut(width: int, text: str) -> None:
    """A text is cut at its end, and a colon or comma that announces nothing any more goes too."""
    assert shorten("7 dropped: NO_SOCKET", width) == text


def test_cut_endpoint() -> None:
    """An endpoint loses its middle, and is as wide as it may be."""
    assert shorten_endpoint("[2001:db8::1234:5678]:443", 16) == "[2001:d…678]:443"
