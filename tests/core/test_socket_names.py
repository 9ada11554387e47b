"""Names of TCP states and errors."""

from __future__ import annotations

import errno

import pytest

from netwatch.core.socket_names import error_name, tcp_state_name


@pytest.mark.parametrize(
    ("state", "name"), [(1, "TCP_ESTABLISHED"), (6, "TCP_TIME_WAIT"), (7, "TCP_CLOSE"), (10, "TCP_LISTEN"), (99, "99")]
)
def test_state(state: int, name: str) -> None:
    """A state has the kernel's name; a number that the kernel does not have stays a number."""
    assert tcp_state_name(state) == name


@pytest.mark.parametrize(
    ("number", "name"),
    [(errno.ECONNREFUSED, "ECONNREFUSED"), (errno.ETIMEDOUT, "ETIMEDOUT"), (60_000, "60000")],
)
def test_error(number: int, name: str) -> None:
    """An error has its name in errno.h, or its number."""
    assert error_name(number) == name
