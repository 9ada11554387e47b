"""Packets for the parser, made at random with scapy.

Law: what a strategy here makes is well-formed; tests cut, shorten and spoil it themselves, so that they know where.
Neighbours: `dissection.py` says what the parser must find in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from tests.kernel.dissection import EXTENSIONS, VLAN_TYPES

ICMP, ICMPV6, ESP, MOBILITY, NO_NEXT_HEADER = 1, 58, 50, 135, 59
_PORTED = (6, 17, 132)

payloads = st.binary(max_size=48)
octets = st.integers(0, 255)
shorts = st.integers(0, 0xFFFF)
macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
ipv4_addresses = st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number)))
ipv6_addresses = st.integers(0, 2**128 - 1).map(lambda number: str(IPv6Address(number)))


def _icmp(rest: bytes, kind: int, code: int) -> Packet:
    # Raw, because scapy has no class for types that nobody has assigned; the checksum does not matter to anybody here.
    return Raw(bytes([kind, code]) + rest)


@st.composite
def transports(draw: st.DrawFn, icmp: int) -> tuple[int, Packet]:
    """Draw a protocol number and what comes with it: ported protocols, ICMP, and those that have neither."""
    payload = Raw(draw(payloads))
    protocol = draw(st.sampled_from([*_PORTED, *_PORTED, icmp, ESP, MOBILITY, NO_NEXT_HEADER, 47, 41, 4, 253]))
    source_port, destination_port = draw(shorts), draw(shorts)
    if protocol == 6:
        padding = [("NOP", None)] * draw(st.integers(0, 40))
        tcp = TCP(sport=source_port, dport=destination_port, flags=draw(octets), seq=draw(shorts), options=padding)
        return protocol, tcp / payload
    if protocol == 17:
        return protocol, UDP(sport=source_port, dport=destination_port) / payload
    if protocol == 132:
        return protocol, SCTP(sport=source_port, dport=destination_port) / payload
    if protocol == icmp:
        return protocol, _icmp(draw(st.binary(min_size=6, max_size=40)), draw(octets), draw(octets))
    return protocol, payload


@st.composite
def ipv4_packets(draw: st.DrawFn) -> Packet:
    """Draw an IPv4 packet with up to 40 octets of options."""
    length = draw(st.just(0) | st.integers(2, 40))
    protocol, transport = draw(transports(ICMP))
    ip = IP(
        src=draw(ipv4_addresses),
        dst=draw(ipv4_addresses),
        tos=draw(octets),
        id=draw(shorts),
        flags=draw(st.sampled_from(["", "DF", "evil"])),
        options=[IPOption(bytes([30, length]) + bytes(length - 2))] if length else [],
        proto=protocol,
    )
    return ip / transport


@st.composite
def _extension(draw: st.DrawFn, number: int) -> Packet:
    """Draw an extension header. Its `nh` is set by what follows it."""
    if number == 43:
        addresses = draw(st.lists(ipv6_addresses, max_size=2))
        return IPv6ExtHdrRouting(type=draw(st.sampled_from([0, 2, 3, 253])), addresses=addresses)
    if number == 44:
        # Offset 0 and no more to come: RFC 6946 calls it atomic, and it is as good as no fragment.
        return IPv6ExtHdrFragment(id=draw(shorts), offset=0, m=0)
    if number == 51:
        words = draw(st.integers(1, 6))
        return EXTENSIONS[51](payloadlen=words, spi=draw(shorts), icv=bytes((words - 1) * 4))
    options = [PadN(optdata=bytes(draw(st.integers(0, 40))))]
    return IPv6ExtHdrHopByHop(options=options) if number == 0 else IPv6ExtHdrDestOpt(options=options)


@st.composite
def ipv6_packets(draw: st.DrawFn, max_extensions: int = 8) -> Packet:
    """Draw an IPv6 packet with a chain of extension headers, in any order, repeats included."""
    numbers = draw(st.lists(st.sampled_from(sorted(EXTENSIONS)), max_size=max_extensions))
    protocol, transport = draw(transports(ICMPV6))
    packet = IPv6(src=draw(ipv6_addresses), dst=draw(ipv6_addresses), tc=draw(octets), fl=draw(shorts))
    return chain(packet, [(number, draw(_extension(number))) for number in numbers], protocol, transport)


def chain(packet: Packet, extensions: Sequence[tuple[int, Packet]], protocol: int, transport: Packet) -> Packet:
    """Put extension headers and a transport behind an IPv6 header, each naming the next."""
    names = [number for number, _ in extensions] + [protocol]
    packet.nh = names[0]
    for (_, header), name in zip(extensions, names[1:], strict=True):
        header.nh = name
        packet = packet / header
    return packet / transport


def _frame(draw: st.DrawFn, content: Packet, eth_type: int, max_tags: int) -> Packet:
    kinds = draw(st.lists(st.sampled_from([Dot1Q, Dot1AD]), max_size=max_tags))
    tags = [kind(vlan=draw(st.integers(0, 4095)), prio=draw(st.integers(0, 7))) for kind in kinds]
    frame: Packet = Ether(src=draw(macs), dst=draw(macs))
    for tag in tags:
        # `type` is what comes next, so each header names the one behind it.
        frame.lastlayer().type = VLAN_TYPES[type(tag)]
        frame = frame / tag
    frame.lastlayer().type = eth_type
    return frame / content


@st.composite
def ip_frames(draw: st.DrawFn, max_tags: int = 2, max_extensions: int = 8, has_trailer: bool = True) -> bytes:
    """Draw an Ethernet frame with an IP packet, under VLAN tags, with or without a trailer."""
    content = draw(st.one_of(ipv4_packets(), ipv6_packets(max_extensions)))
    frame = _frame(draw, content, 0x0800 if isinstance(content, IP) else 0x86DD, max_tags)
    trailer = draw(st.binary(max_size=46)) if has_trailer else b""
    return bytes(frame) + trailer


@st.composite
def other_frames(draw: st.DrawFn) -> bytes:
    """Draw a frame of another Ethernet type (or of IEEE 802.3, where the type is a length), under VLAN tags."""
    taken = (0x0800, 0x86DD, *VLAN_TYPES.values())
    eth_type = draw(shorts.filter(lambda number: number not in taken) | st.sampled_from([0x0806, 0x88CC, 0x9100, 38]))
    return bytes(_frame(draw, Raw(draw(st.binary(min_size=4, max_size=60))), eth_type, 2))
