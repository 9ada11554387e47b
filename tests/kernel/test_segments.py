"""What a GSO packet counts as, against the segments that it becomes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from netwatch.kernel.program import ProgramSettings, load_programs
from netwatch.ledger import Amount
from tests.kernel.dissection import Flow
from tests.kernel.program_runner import ProgramRunner, segmented
from tests.kernel.test_parse import PROGRAMS, examples

GSO_BY_FRAGS = 0xFFFF  # an SCTP packet is cut where its parts end, not by size
OUTER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
IPV4 = IP(src="10.0.0.1", dst="10.0.0.2")
IPV6 = IPv6(src="fd00::1", dst="fd00::2")
HEADERS: dict[str, Packet] = {
    "tcp": OUTER / IPV4 / TCP(),
    "tcp with options": OUTER / IPV4 / TCP(options=[("NOP", None)] * 12),
    "tcp in a vlan": OUTER / Dot1Q(vlan=7) / IPV4 / TCP(),
    "tcp over ipv6 with an extension": OUTER / IPV6 / IPv6ExtHdrDestOpt() / TCP(),
    "udp": OUTER / IPV4 / UDP(dport=9),
    "udp over ipv6": OUTER / IPV6 / UDP(dport=9),
    "tcp in vxlan": OUTER / IPV4 / UDP(dport=4789) / VXLAN(vni=42, flags=8) / OUTER / IPV6 / TCP(),
    "tcp in ip": OUTER / IPV4 / IPV6 / TCP(),
}


@pytest.fixture(scope="module")
def runner() -> Iterator[ProgramRunner]:
    """Load programs that count what is on the wire."""
    loaded = load_programs(ProgramSettings(max_flows=64, max_fragments=64))
    yield ProgramRunner(loaded)
    loaded.close()


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("is_counted", [True, False], ids=["counted", "uncounted"])
@examples(20)
@given(data=st.data())
def test_segments(runner: ProgramRunner, name: str, is_counted: bool, data: st.DataObject) -> None:
    """A packet that the device will cut counts as its segments, each with all headers, in packets and in bytes.

    The kernel says how many segments there are, or, for what comes from a guest, only how long one is.
    """
    payload_bytes = data.draw(st.integers(1, 3_000), label="payload")
    segment_bytes = data.draw(st.integers(1, 1_400), label="of a segment")
    segments = math.ceil(payload_bytes / segment_bytes)
    headers = bytes(HEADERS[name])
    frame = bytes(HEADERS[name] / Raw(bytes(payload_bytes)))
    on_the_wire = Amount(segments, payload_bytes + segments * len(headers))
    context = segmented(segment_bytes, segments if is_counted else 0)
    program = data.draw(st.sampled_from(PROGRAMS), label="program")
    assert isinstance(runner.ending(program, frame, context, counts_as=on_the_wire), Flow)


def test_segments_of_sctp(runner: ProgramRunner) -> None:
    """Each packet of a bundle has the common header of 12 octets (RFC 9260 3.1)."""
    headers, chunks = OUTER / IPV4 / SCTP(), [bytes(100), bytes(40), bytes(60)]
    on_the_wire = Amount(3, sum(len(bytes(headers / Raw(chunk))) for chunk in chunks))
    frame = bytes(headers / Raw(b"".join(chunks)))
    assert isinstance(runner.ending("egress_ethernet", frame, segmented(GSO_BY_FRAGS, 3), on_the_wire), Flow)


def test_headers_that_only_the_kernel_knows(runner: ProgramRunner) -> None:
    """At egress the kernel's own sum counts where it is more: it knows tunnels that the parser does not."""
    frame = bytes(OUTER / IPV4 / UDP(dport=6081) / Raw(bytes(1_000)))
    wire_bytes = len(frame) + 9 * 100
    context = segmented(100, 10, wire_bytes)
    assert isinstance(runner.ending("egress_ethernet", frame, context, Amount(10, wire_bytes)), Flow)


def test_socket_buffers() -> None:
    """With gso = "skb" a packet counts once, with its own bytes, whatever it will become."""
    loaded = load_programs(ProgramSettings(max_flows=64, max_fragments=64, gso="skb"))
    try:
        frame = bytes(OUTER / IPV4 / TCP() / Raw(bytes(3_000)))
        assert isinstance(ProgramRunner(loaded).ending("egress_ethernet", frame, segmented(1_000, 3)), Flow)
    finally:
        loaded.close()
