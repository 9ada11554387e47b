"""Why a message was not delivered, in the words of a log line.

Law: pure; whatever the other end sent, the result is short, printable and one line.
Neighbours: `connection.py` and `http2.py` put the words into DeliveryFailed, `collector.py` into AddressUnavailable.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Iterable
from urllib.parse import unquote

from grpclib.const import Status

# A reason stands in a log line beside address and pause.
_MAX_CHARS = 200

_GRPC_CONTENT_TYPE = b"application/grpc"

Fields = Iterable[tuple[bytes, bytes]]
"""HTTP/2 header fields as they came."""


def describe(error: BaseException) -> str:
    """Return what a failed name look-up, connection or TLS session comes to."""
    # trio tries every address of a name and groups what each attempt said.
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(describe(inner) for inner in cause.exceptions))
    words = str(error) or type(error).__name__
    match error:
        case ssl.SSLCertVerificationError():
            words = f"TLS: {error.verify_message}"
        case ssl.SSLError():
            words = f"TLS: {error.reason.replace('_', ' ').lower() if error.reason else error.strerror}"
        case OSError(errno=int(number)) if number > 0:
            words = os.strerror(number)  # trio and asyncio put the address into theirs
        case ConnectionResetError():  # asyncio raises the bare class when a TLS handshake is cut off
            words = os.strerror(errno.ECONNRESET)
        case OSError(strerror=str(strerror)):
            words = strerror
    return _clean(words)


def failure_in(headers: Fields, trailers: Fields) -> str | None:
    """Return what keeps a complete reply from saying that the message was taken, or None.

    A reply without a body has its status among the headers, others in the trailers ("Trailers-Only", gRPC over HTTP2).
    """
    fields = {**dict(headers), **dict(trailers)}
    if (http_status := fields.get(b":status", b"")) != b"200":
        return _clean(f"HTTP status {_text(http_status)}; is this a gRPC collector?")
    if (status := fields.get(b"grpc-status")) is None:
        content_type = fields.get(b"content-type", b"")
        if content_type.startswith(_GRPC_CONTENT_TYPE):
            return "reply without a gRPC status"
        return _clean(f"content type {_text(content_type)!r} instead of gRPC")
    if status == b"0":
        return None
    message = unquote(_text(fields.get(b"grpc-message", b"")), errors="replace")
    return _clean(f"{_status_name(status)}: {message}" if message else _status_name(status))


def _status_name(status: bytes) -> str:
    try:
        return str(Status(int(status)).name)
    except ValueError:
        return f"gRPC status {_text(status)}"


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _clean(text: str) -> str:
    line = "".join(char if char.isprintable() else " " for char in text)
    return line if len(line) <= _MAX_CHARS else f"{line[: _MAX_CHARS - 3]}..."
