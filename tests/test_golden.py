"""The recording in the repository gives what is checked in beside it, byte for byte, by every way out."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from netwatch.exporters import pbflow_pb2
from tests import golden


@pytest.fixture(scope="module")
def messages() -> list[bytes]:
    """Encode once."""
    return golden.pbflow_messages()


@pytest.mark.parametrize("name", golden.TEXTS)
def test_printed(name: str) -> None:
    """JSON lines, the table and the wide table are what they were; `make golden` shows the difference."""
    assert golden.printed(golden.TEXTS[name]) == (golden.DATA / name).read_bytes()


def test_pbflow_bytes(messages: list[bytes]) -> None:
    """A collector gets the bytes that it got before; `make golden` shows the difference."""
    written = (golden.DATA / golden.PBFLOW_HEX).read_text()
    assert golden.as_hex(messages) == written
    assert golden.from_hex(written) == messages


def test_pbflow_text(messages: list[bytes]) -> None:
    """The text beside the bytes says what is in them; compared as messages, for the library may lay it out anew."""
    expected = text_format.Parse((golden.DATA / golden.PBFLOW_TEXT).read_text(), pbflow_pb2.Records())
    assert golden.decoded(messages) == expected
    assert len(expected.entries) == len((golden.DATA / "hosts.json").read_bytes().splitlines())
