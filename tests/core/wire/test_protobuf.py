"""Protobuf fields of one message, against the generated classes' own encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.wire.protobuf import WIRE_VARINT, delimited, encode_varint, groups_of, pad_varint, tag, varint_field
from netwatch.exporters import pbflow_pb2

U64 = (1 << 64) - 1


@given(st.integers(0, U64))
def test_number_field(value: int) -> None:
    """A number field is what protobuf makes of it, and 0 is no field."""
    assert varint_field(8, value) == pbflow_pb2.Record(bytes=value).SerializeToString()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_string_field(text: str) -> None:
    """A string field is what protobuf makes of it, with a tag and a length of one byte or of two."""
    assert delimited(32, text.encode()) == pbflow_pb2.Record(dns_name=text).SerializeToString()


@given(st.integers(0, U64), st.integers(0, 10))
def test_padded_varint(value: int, missing: int) -> None:
    """A padded varint is as long as asked, and decodes to the same number."""
    size = min(len(encode_varint(value)) + missing, 10)

    padded = pad_varint(value, size)

    assert len(padded) == size
    assert pbflow_pb2.Record.FromString(tag(8, WIRE_VARINT) + padded).bytes == value


def test_varint_that_does_not_fit() -> None:
    """A number is never cut to make it fit."""
    with pytest.raises(AssertionError, match="300 takes 2 bytes"):
        pad_varint(300, 1)


@given(st.integers(1, U64))
def test_groups(value: int) -> None:
    """A number has as many groups as its varint has bytes; nothing has none."""
    assert groups_of(value.bit_length()) == len(encode_varint(value))
    assert groups_of(0) == 0
