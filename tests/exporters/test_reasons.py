"""Errors and replies in words."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.exporters.reasons import describe, failure_in

OK = [(b":status", b"200"), (b"content-type", b"application/grpc+proto")]


def of_all_addresses(*errors: OSError) -> OSError:
    """Return what trio raises when no address of a name can be connected to."""
    error = OSError("all attempts to connect to collector:2055 failed")
    error.__cause__ = ExceptionGroup("all attempts failed", errors)
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ECONNREFUSED, "Error connecting to ('::1', 1, 0, 0): refused"), "Connection refused"),
        (ConnectionResetError(), "Connection reset by peer"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (UnicodeError("Empty Label"), "Empty Label"),
        (TimeoutError(), "TimeoutError"),
        (
            of_all_addresses(
                OSError(errno.ECONNREFUSED, "1"), OSError(errno.ENETUNREACH, "2"), OSError(errno.ECONNREFUSED, "3")
            ),
            "Connection refused; Network is unreachable",
        ),
    ],
)
def test_error(error: Exception, words: str) -> None:
    """The system's words, without addresses; each once, where there are several."""
    assert describe(error) == words


def test_tls_error() -> None:
    """OpenSSL's reason, readable."""
    with pytest.raises(ssl.SSLError) as caught:
        ssl.create_default_context(cadata=b"no certificate")
    assert describe(caught.value).startswith("TLS: not enough data")


def test_taken() -> None:
    """Status 0 says that the message was taken, in trailers and in a reply without body; its message is not read."""
    assert failure_in(OK, [(b"grpc-status", b"0"), (b"grpc-message", b"\xff")]) is None
    assert failure_in([*OK, (b"grpc-status", b"0")], []) is None


fields = st.lists(
    st.tuples(
        st.sampled_from([b":status", b"content-type", b"grpc-status", b"grpc-message", b"x"]),
        st.one_of(st.binary(max_size=400), st.sampled_from([b"200", b"0", b"14", b"application/grpc"])),
    ),
    max_size=6,
)


@given(fields, fields)
def test_any_reply(headers: list[tuple[bytes, bytes]], trailers: list[tuple[bytes, bytes]]) -> None:
    """It is a success only with HTTP status 200 and gRPC status 0; any other reason is short, printable, one line."""
    reason = failure_in(headers, trailers)
    said = {**dict(headers), **dict(trailers)}
    assert (reason is None) == (said.get(b":status") == b"200" and said.get(b"grpc-status") == b"0")
    if reason is not None:
        assert 0 < len(reason) <= 200
        assert reason.isprintable()
