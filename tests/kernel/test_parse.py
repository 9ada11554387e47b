"""The parser on the real kernel, packet by packet, against scapy's dissection."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from netwatch.core.direction import Direction
from netwatch.core.layout import FLAG_FIN_ACK, FLAG_RST_ACK, FLAG_SYN_ACK, Counter, hook_of
from netwatch.kernel.attach import attach_tcx
from netwatch.kernel.program import ProgramSettings, load_programs
from netwatch.ledger import Amount
from tests.kernel import packets
from tests.kernel.dissection import Datagram, Flow, NotIp, expected
from tests.kernel.hosts import Pair
from tests.kernel.program_runner import ProgramRunner, least_bytes

PROGRAMS = ("ingress_ethernet", "egress_ethernet")
PROGRAMS_WITHOUT_ETHERNET = ("ingress_ip", "egress_ip")
ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
ADDRESSES = bytes(ETHERNET)[:12]
UDP_EMPTY = bytes.fromhex("0007 0009 0008 0000")
IPV4 = bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=17) / Raw(UDP_EMPTY))
IPV6 = bytes(IPv6(src="fd00::1", dst="fd00::2", nh=17) / Raw(UDP_EMPTY))


def examples(number: int) -> settings:
    # The programs are the same for all. What is given here replaces the profile's list, so that has to be repeated.
    ignored = [*settings().suppress_health_check, HealthCheck.function_scoped_fixture]
    return settings(max_examples=number, suppress_health_check=ignored)


@pytest.fixture(scope="module")
def runner() -> Iterator[ProgramRunner]:
    """Load the programs once."""
    loaded = load_programs(ProgramSettings(max_flows=64, max_fragments=4_096))
    yield ProgramRunner(loaded)
    loaded.close()


def network_offset(frame: bytes) -> int:
    """Return where the IP header begins."""
    layer: Packet = Ether(frame)
    while not isinstance(layer, IP | IPv6):
        layer = layer.payload
    return len(frame) - len(layer.original)


@examples(200)
@given(frame=packets.ip_frames(max_tags=3, max_extensions=9), program=st.sampled_from(PROGRAMS))
def test_whole_packet(runner: ProgramRunner, frame: bytes, program: str) -> None:
    """A well-formed packet counts once, with all its bytes, in the flow that scapy sees; trailers are no headers."""
    assert runner.ending(program, frame) == expected(frame)


@examples(40)
@given(frame=packets.ip_frames())
def test_packet_that_is_cut(runner: ProgramRunner, frame: bytes) -> None:
    """A packet cut after any byte counts by the first header that is not whole, else in its flow."""
    for available in range(least_bytes(frame), len(frame)):
        assert runner.ending("ingress_ethernet", frame[:available]) == expected(frame, available), available


def test_ip_header_that_is_cut(runner: ProgramRunner, pair: Pair) -> None:
    """A packet too short for its IP header counts as truncated. BPF_PROG_TEST_RUN refuses it; a device does not."""
    for eth_type, packet in ((0x0800, IPV4), (0x86DD, IPV6)):
        frame = ADDRESSES + eth_type.to_bytes(2) + packet
        cuts = [frame[:available] for available in range(14, least_bytes(frame))]
        with pair.left.namespace.enter():
            link_fd = attach_tcx(runner.descriptor("egress_ethernet"), pair.left.ifindex, Direction.EGRESS)
        try:
            pair.left.send(cuts)
        finally:
            os.close(link_fd)
        outcome = runner.collect()
        amount = Amount(len(cuts), sum(map(len, cuts)))
        assert outcome.seen == {hook_of(pair.left.ifindex, Direction.EGRESS): amount}
        assert outcome.endings == [(Counter.IGNORED_TRUNCATED_IP, amount)]


@examples(100)
@given(frame=packets.ip_frames(has_trailer=False), data=st.data())
def test_datagram_that_ends_before_the_frame(runner: ProgramRunner, frame: bytes, data: st.DataObject) -> None:
    """What lies behind the length in the IP header is never read as a header."""
    start = network_offset(frame)
    is_ipv4 = frame[start] >> 4 == 4
    header = (frame[start] & 0xF) * 4 if is_ipv4 else 40
    # An IPv6 length of zero can mean a jumbogram.
    end = data.draw(st.integers(start + header + (0 if is_ipv4 else 1), len(frame)), label="end of the datagram")
    field, length = (start + 2, end - start) if is_ipv4 else (start + 4, end - start - 40)
    shortened = frame[:field] + length.to_bytes(2) + frame[field + 2 :]
    assert runner.ending("ingress_ethernet", shortened) == expected(frame, end)


@st.composite
def fragmented(draw: st.DrawFn) -> list[bytes]:
    """Draw a datagram in two to four fragments, in order."""
    kind, number = draw(st.sampled_from(["ipv4", "ipv6"])), draw(st.integers(0, 0xFFFF))
    protocol, transport = draw(packets.transports(packets.ICMP if kind == "ipv4" else packets.ICMPV6))
    content = bytes(transport / Raw(bytes(64)))
    # Offsets count in units of eight octets. Sixteen are enough for the ports, and too few for a TCP header.
    cuts = sorted(draw(st.sets(st.integers(2, len(content) // 8 - 1), min_size=1, max_size=3)))
    bounds = [0, *(8 * cut for cut in cuts), len(content)]
    if kind == "ipv4":
        ip: Packet = IP(src=draw(packets.ipv4_addresses), dst=draw(packets.ipv4_addresses), id=number, proto=protocol)
    else:
        ip = IPv6(src=draw(packets.ipv6_addresses), dst=draw(packets.ipv6_addresses))
    has_options = draw(st.booleans())
    frames = []
    for begin, end in itertools.pairwise(bounds):
        piece, is_last = Raw(content[begin:end]), end == len(content)
        if kind == "ipv4":
            ip.frag, ip.flags = begin // 8, "" if is_last else "MF"
            fragment: Packet = ip.copy() / piece
        else:
            # Options that the last host reads stand behind the fragment header, so only the first fragment has them.
            options = [(60, IPv6ExtHdrDestOpt())] if has_options else []
            shift = len(options) if begin else 0
            header = IPv6ExtHdrFragment(id=number, offset=begin // 8 + shift, m=not is_last)
            behind = [] if begin else options
            named = 60 if begin and options else protocol
            fragment = packets.chain(ip.copy(), [(44, header), *behind], named, piece)
        frames.append(bytes(ETHERNET / fragment))
    return frames


@examples(100)
@given(datagrams=st.lists(fragmented(), min_size=1, max_size=2), data=st.data())
def test_fragments_in_any_order(runner: ProgramRunner, datagrams: list[list[bytes]], data: st.DataObject) -> None:
    """Later fragments belong to the flow of the first where it came before them, else to one without ports."""
    runner.forget_fragments()
    first_fragments: dict[Datagram, Flow] = {}
    frames = data.draw(st.permutations([frame for frames in datagrams for frame in frames]), label="order")
    for frame in frames:
        assert runner.ending("ingress_ethernet", frame) == expected(frame, first_fragments=first_fragments)


@examples(100)
@given(frame=packets.other_frames(), program=st.sampled_from(PROGRAMS))
def test_packet_that_is_not_ip(runner: ProgramRunner, frame: bytes, program: str) -> None:
    """What is not IP counts by its Ethernet type."""
    assert runner.ending(program, frame) == expected(frame)


@st.composite
def bare_packets(draw: st.DrawFn) -> tuple[bytes, type[Packet]]:
    """Draw an IP packet without a link-layer header.

    The kernel takes the protocol of a test packet from bytes 12 and 13, as if there were such a header. They are the
    first half of an IPv4 source address, and the third word of an IPv6 one.
    """
    packet = draw(st.one_of(packets.ipv4_packets(), packets.ipv6_packets()))
    link: type[Packet] = type(packet)
    raw = bytes(packet)
    raw = raw[:12] + (b"\x08\x00" if link is IP else b"\x86\xdd") + raw[14:]
    # What there is not in the packet is its trailer.
    return raw + bytes(max(0, least_bytes(raw) - len(raw))), link


@examples(60)
@given(packet=bare_packets(), program=st.sampled_from(PROGRAMS_WITHOUT_ETHERNET))
def test_packet_without_link_header(runner: ProgramRunner, packet: tuple[bytes, type[Packet]], program: str) -> None:
    """On an interface without Ethernet the first byte is the IP header's, and the flow has no MAC addresses."""
    whole, link = packet
    for available in {*range(least_bytes(whole), len(whole), 5), len(whole)}:
        assert runner.ending(program, whole[:available]) == expected(whole, available, link=link), available


@examples(250)
@given(frame=st.binary(min_size=54, max_size=200), data=st.data())
def test_bytes_without_sense(runner: ProgramRunner, frame: bytes, data: st.DataObject) -> None:
    """Whatever comes, it counts once, with all its bytes, in one place, and passes."""
    eth_type = data.draw(st.sampled_from([b"", b"\x08\x00", b"\x86\xdd", b"\x81\x00", b"\x88\xa8"]), label="type")
    first = data.draw(st.sampled_from([b"", b"\x45", b"\x4f", b"\x60"]), label="first byte of the packet")
    forced = eth_type + first if eth_type else b""
    frame = frame[:12] + forced + frame[12 + len(forced) :]
    runner.ending(data.draw(st.sampled_from(PROGRAMS + PROGRAMS_WITHOUT_ETHERNET), label="program"), frame)


@examples(200)
@given(frame=packets.ip_frames(), data=st.data())
def test_packet_with_wrong_bytes(runner: ProgramRunner, frame: bytes, data: st.DataObject) -> None:
    """A packet with some bytes changed counts once, in one place: lengths that lie lead nowhere."""
    spoiled = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4), label="how many")):
        spoiled[data.draw(st.integers(12, len(frame) - 1), label="where")] = data.draw(packets.octets, label="what")
    runner.ending("ingress_ethernet", bytes(spoiled))


def test_tcp_flags(runner: ProgramRunner) -> None:
    """Each of the eight flags is kept in every mix, and the three pairs with ACK have flags of their own."""
    pairs = {0x12: FLAG_SYN_ACK, 0x11: FLAG_FIN_ACK, 0x14: FLAG_RST_ACK}
    for flags in range(256):
        frame = bytes(ETHERNET / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(flags=flags))
        ending = runner.ending("ingress_ethernet", frame)
        assert isinstance(ending, Flow)
        assert ending.flags == flags | sum(flag for pair, flag in pairs.items() if flags & pair == pair)


@pytest.mark.parametrize("network", [IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")])
def test_depth_of_vlan_tags(runner: ProgramRunner, network: Packet) -> None:
    """Two tags are looked behind; a third is counted as too deep."""
    two = ETHERNET / Dot1AD(vlan=7) / Dot1Q(vlan=8) / network / TCP(sport=1, dport=2)
    three = ETHERNET / Dot1AD(vlan=7) / Dot1Q(vlan=8) / Dot1Q(vlan=9) / network / TCP(sport=1, dport=2)
    flow = runner.ending("ingress_ethernet", bytes(two))
    assert isinstance(flow, Flow)
    assert (flow.source_port, flow.destination_port) == (1, 2)
    assert runner.ending("ingress_ethernet", bytes(three)) is Counter.IGNORED_DEEP_HEADERS


def test_depth_of_extension_headers(runner: ProgramRunner) -> None:
    """Eight extension headers are looked behind; a ninth is counted as too deep."""
    for number, ending in ((8, expected), (9, lambda _: Counter.IGNORED_DEEP_HEADERS)):
        headers = [(60, IPv6ExtHdrDestOpt()) for _ in range(number)]
        packet = packets.chain(IPv6(src="fd00::1", dst="fd00::2"), headers, 6, TCP(sport=1, dport=2))
        frame = bytes(ETHERNET / packet)
        assert runner.ending("ingress_ethernet", frame) == ending(frame)


@pytest.mark.parametrize(
    ("eth_type", "packet"),
    [
        pytest.param(0x0800, b"\x55" + IPV4[1:], id="version 5"),
        pytest.param(0x0800, IPV6, id="IPv6 in the type of IPv4"),
        pytest.param(0x86DD, IPV4 + bytes(40), id="IPv4 in the type of IPv6"),
        pytest.param(0x0800, b"\x44" + IPV4[1:], id="IPv4 header of 16 octets"),
        pytest.param(0x0800, IPV4[:2] + b"\0\x13" + IPV4[4:], id="IPv4 packet of 19 octets"),
        pytest.param(0x0800, IPV4[:2] + b"\0\0" + IPV4[4:], id="IPv4 packet of 0 octets"),
        pytest.param(0x0800, b"\x46" + IPV4[1:2] + b"\0\x14" + IPV4[4:], id="IPv4 header longer than its packet"),
    ],
)
def test_ip_header_that_contradicts_itself(runner: ProgramRunner, eth_type: int, packet: bytes) -> None:
    """A header that cannot be right is counted as bad, and nothing behind it is believed."""
    frame = ADDRESSES + eth_type.to_bytes(2) + packet
    assert runner.ending("ingress_ethernet", frame) is Counter.IGNORED_BAD_IP


def test_ethernet_types_are_counted_apart(runner: ProgramRunner) -> None:
    """Types beside each other in number do not mix; what is a length counts as one kind."""
    for eth_type, counted in ((0, 0), (1, 0), (0x05FF, 0), (0x0600, 0x0600), (0x0806, 0x0806), (0xFFFF, 0xFFFF)):
        frame = bytes(12) + eth_type.to_bytes(2) + bytes(46)
        assert runner.ending("egress_ethernet", frame) == NotIp(counted)
