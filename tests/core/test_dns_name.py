"""DNS names as text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.dns_name import MAX_NAME_TEXT, name_text

labels = st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=5)


def wire(*labels: bytes) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels)


def labels_of(text: str) -> list[bytes]:
    """Read the text as RFC 1035 5.1 says, independently."""
    found = [b""]
    for octet, quoted, plain in re.findall(r"\\(\d{3})|\\(\D)|(.)", text):
        if plain == ".":
            found.append(b"")
        else:
            found[-1] += bytes((int(octet),)) if octet else (quoted or plain).encode("ascii")
    return found


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "."),
        (b"\0", "."),
        (wire(b"com"), "com"),
        (wire(b"www", b"example", b"com"), "www.example.com"),
        (wire(b"www", b"com") + b"\0", "www.com"),
        (wire(b"a.b", b"c\\d"), r"a\.b.c\\d"),
        (wire(b"\0 \x7f\xc3\xa4"), r"\000\032\127\195\164"),
        (wire(b"_sip", b"_tcp", b'x;@"()$'), '_sip._tcp.x;@"()$'),
        (wire(b"www") + b"\x07exam", "www.exam"),
        (b"\xc0\x0c", r"\012"),
    ],
)
def test_names(raw: bytes, text: str) -> None:
    """Dots between labels, what is no plain character escaped, and of a name that was cut off what is left."""
    assert name_text(raw) == text


@given(labels)
def test_any_labels(content: list[bytes]) -> None:
    """The text says which labels there were, whatever is in them."""
    assert labels_of(name_text(wire(*content))) == content


@given(st.binary(max_size=255))
def test_any_bytes(raw: bytes) -> None:
    """There is a text for anything, of printable ASCII, not empty, and no longer than is reckoned with."""
    text = name_text(raw)

    assert re.fullmatch(r"[\x21-\x7e]+", text)
    assert len(text) <= MAX_NAME_TEXT
