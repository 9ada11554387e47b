"""Reading DNS messages, against scapy's own dissection."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.compat import raw
from scapy.layers.dns import DNS, DNSQR, DNSRR, dns_compress, dns_get_str

from netwatch.core.dns_message import HEADER_BYTES, DnsMessage, read_message, read_name

shorts = st.integers(0, 0xFFFF)
labels = st.from_regex(r"[A-Za-z0-9_-]{1,63}", fullmatch=True).map(str.encode)
host_names = st.lists(labels, max_size=8).map(b".".join).filter(lambda name: len(name) < 254)
any_labels = st.lists(st.binary(min_size=1, max_size=63), max_size=20)


def wire(*parts: bytes) -> bytes:
    """Return labels as they are sent, without the root's zero."""
    return b"".join(bytes([len(part)]) + part for part in parts)


def question(name: bytes, question_type: int = 1, questions: int = 1, flags: int = 0x0100) -> bytes:
    """Return a message by the words of RFC 1035 4.1, the name as it is given, root included."""
    return struct.pack("!6H", 0x1234, flags, questions, 0, 0, 0) + name + struct.pack("!HH", question_type, 1)


@given(identifier=shorts, flags=shorts, question_type=shorts, name=host_names)
def test_message_that_scapy_made(identifier: int, flags: int, question_type: int, name: bytes) -> None:
    """Identifier, flags, response code, type and name are those that another implementation put there."""
    message = DNS(id=identifier, qd=[DNSQR(qname=name, qtype=question_type)])
    octets = raw(message)
    octets = octets[:2] + flags.to_bytes(2) + octets[4:]
    read = read_message(octets)
    dissected = DNS(octets)
    assert (read.id, read.question_count, read.question_type) == (dissected.id, 1, dissected.qd[0].qtype)
    assert (read.is_response, read.response_code) == (bool(dissected.qr), dissected.rcode)
    assert read.flags == flags
    assert read.has_question
    assert read.name == wire(*name.split(b".") if name else ())


@given(any_labels.filter(lambda parts: len(wire(*parts)) <= 254))
def test_labels_of_any_bytes(parts: list[bytes]) -> None:
    """A label may have any octets, zeros and dots too, and keeps its case."""
    assert read_message(question(wire(*parts) + b"\0")).name == wire(*parts)


def compressed(names: list[bytes]) -> bytes:
    """Return names one after the other, each ending in a pointer where its end was there before (RFC 1035 4.1.4).

    Not scapy's `dns_compress`: it replaces bytes wherever they occur, so that some names come out as others.
    """
    octets, known = b"", dict[bytes, int]()
    for name in names:
        rest = name
        while rest and rest not in known:
            known[rest] = len(octets)
            label, _, rest = rest.partition(b".")
            octets += wire(label)
        octets += (0xC000 | known[rest]).to_bytes(2) if rest else b"\0"
    return octets


few_labels = st.lists(st.sampled_from([b"a", b"B", b"org", b"x" * 40]), min_size=1, max_size=5).map(b".".join)


@given(st.lists(few_labels, min_size=1, max_size=8))
def test_names_that_were_compressed(names: list[bytes]) -> None:
    """A name is read through pointers as another implementation reads it, and ends where the next one begins."""
    octets = compressed(names)
    at = 0
    for name in names:
        found = read_name(octets, at)
        assert found is not None
        assert found[0] == wire(*name.split(b"."))
        assert (name + b".", octets[found[1] :]) == dns_get_str(octets[at:], octets)
        at = found[1]
    assert at == len(octets)


def test_message_that_scapy_compressed() -> None:
    """The question is whole, and the answer's name, a pointer to it, is the same."""
    answers = [DNSRR(rrname="www.example.org", type="A", rdata="192.0.2.1")]
    octets = raw(dns_compress(DNS(qr=1, qd=[DNSQR(qname="www.example.org")], an=answers)))
    name, end = wire(b"www", b"example", b"org"), HEADER_BYTES + 17 + 4
    assert read_message(octets).name == name
    assert octets[end] == 0xC0
    assert read_name(octets, end) == (name, end + 2)


def test_name_of_the_root() -> None:
    """The root has no labels, and a question about it was read."""
    assert read_message(question(b"\0", 2)) == DnsMessage(0x1234, 0x0100, 1, 2, b"", True)


@pytest.mark.parametrize(("last_label", "is_read"), [(61, True), (62, False)])
def test_longest_name(last_label: int, is_read: bool) -> None:
    """RFC 1035 2.3.4: 255 octets with the root's zero are a name; one more is none."""
    name = wire(b"a" * 63, b"b" * 63, b"c" * 63, b"d" * last_label)
    assert read_message(question(name + b"\0")).name == (name if is_read else b"")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"\xc0\x0c", id="to itself"),
        pytest.param(wire(b"loop") + b"\xc0\x0c", id="to the name that it ends"),
        pytest.param(wire(b"a", b"b") + b"\xc0\x0e", id="to its own middle"),
        pytest.param(b"\xc0\x14\0\0\0\0\0\0" + wire(b"later") + b"\0", id="forward"),
        pytest.param(b"\xff\xff", id="far behind the end"),
        pytest.param(b"\x40" + b"x" * 64 + b"\0", id="reserved 01"),
        pytest.param(b"\x80" + b"x" * 128 + b"\0", id="reserved 10"),
    ],
)
def test_name_that_is_none(name: bytes) -> None:
    """A name that nobody could have meant is empty; the header is told all the same."""
    assert read_message(question(name, 28)) == DnsMessage(0x1234, 0x0100, 1, 0, b"", False)


def test_pointers_in_a_circle() -> None:
    """Two pointers to each other end where the second leads forward again."""
    assert read_name(b"\xc0\x02\xc0\x00", 2) is None


def test_pointer_into_the_header() -> None:
    """A pointer to the header's last octet, a zero, is the root, as it is for a resolver."""
    assert read_message(question(wire(b"www") + b"\xc0\x0b", 28)) == DnsMessage(
        0x1234, 0x0100, 1, 28, wire(b"www"), True
    )


def test_pointers_that_make_a_long_name() -> None:
    """A name that passes the limit by means of pointers is none."""
    message = wire(b"a" * 63, b"b" * 63, b"c" * 63) + b"\0" + wire(b"d" * 63) + b"\xc0\x00"
    assert read_name(message, 0) == (message[:192], 193)
    assert read_name(message, 193) is None


@given(cut=st.integers(0, 100))
def test_message_that_was_cut(cut: int) -> None:
    """What is there is told: whole words of the header, the name once it is whole, the type with its class."""
    name = wire(b"www", b"example", b"org")
    whole = question(name + b"\0", 28)
    read = read_message(whole[:cut])
    assert read.id == (0x1234 if cut >= 2 else 0)
    assert read.flags == (0x0100 if cut >= 4 else 0)
    assert read.name == (name if cut >= HEADER_BYTES + len(name) + 1 else b"")
    assert read.has_question == (cut >= len(whole))
    assert read.question_type == (28 if cut >= len(whole) else 0)


def test_message_without_question() -> None:
    """Where the header promises no question, none is looked for."""
    assert read_message(question(wire(b"www") + b"\0", questions=0)) == DnsMessage(0x1234, 0x0100, 0, 0, b"", False)


@given(st.binary(max_size=400) | st.lists(st.sampled_from([0, 1, 12, 13, 0x3F, 0xC0, 0xFF]), max_size=80).map(bytes))
def test_any_bytes(message: bytes) -> None:
    """Nothing that comes raises, and what is read fits its column."""
    read = read_message(message)
    assert len(read.name) <= 254
    assert 0 <= read.question_type <= 0xFFFF
    assert read.has_question <= (read.question_count > 0)
