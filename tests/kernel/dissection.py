"""What the parser must make of a packet, by scapy's dissection of it.

Law: nothing here looks at bpf/. Offsets, protocols and fields are scapy's; how much of a header must be there before
a packet counts in a flow is the named RFC's.
Neighbours: `packets.py` makes the packets, `program_runner.py` says what the parser made of them.
"""

from __future__ import annotations

import functools
import itertools
import socket
import warnings

import attrs
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.layers.l2 import Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import NoPayload, Packet, bind_layers, split_layers

from netwatch.core.layout import FLAG_FIN_ACK, FLAG_RST_ACK, FLAG_SYN_ACK, Counter

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it names ciphers that cryptography is about to drop
    from scapy.layers.ipsec import AH

VLAN_TYPES = {Dot1Q: 0x8100, Dot1AD: 0x88A8}
EXTENSIONS = {
    0: IPv6ExtHdrHopByHop,
    43: IPv6ExtHdrRouting,
    44: IPv6ExtHdrFragment,
    51: AH,
    60: IPv6ExtHdrDestOpt,
}
_LEAST_TYPE = 0x600  # below, IEEE 802.3 3.2.6 has a length, and no type
_MAX_TAGS = 2
_MAX_EXTENSIONS = 8

_PORTED = {6: TCP, 17: UDP, 132: SCTP}
_ICMP = (1, 58)
# What must be there of a transport header: of TCP all but options (RFC 9293 3.1); of UDP and SCTP the ports and what
# else fits into 8 octets, which RFC 791 3.2 lets any fragment carry; of ICMP type, code and checksum.
_NEEDED_BYTES = {6: 20, 17: 8, 132: 8, 1: 4, 58: 4}

# Scapy knows only some of the orders in which headers may come, and reads 0 behind AH as IPv4: its IPPROTO_IP.
split_layers(AH, IP, nh=0)
for _above, (_number, _below) in itertools.product(EXTENSIONS.values(), (EXTENSIONS | _PORTED).items()):
    bind_layers(_above, _below, nh=_number)


@attrs.frozen
class Flow:
    """The flow that a packet belongs to, and what it adds beside packets and bytes."""

    source: bytes  # 16 octets, IPv4 as ::ffff:a.b.c.d
    destination: bytes
    protocol: int
    eth_type: int
    dscp: int
    source_mac: str
    destination_mac: str
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    flags: int = 0


@attrs.frozen
class NotIp:
    """A packet that is counted by its Ethernet type; 0 where it has a length instead."""

    eth_type: int


Ending = Flow | NotIp | Counter


@attrs.frozen
class Datagram:
    """What fragments have in common: RFC 791 3.2 (with the protocol), RFC 8200 4.5 (without)."""

    source: bytes
    destination: bytes
    number: int
    protocol: int | None


@attrs.define
class _Dissection:
    """The headers of a packet in order, each as the offset where it ends and the counter where it is cut."""

    headers: list[tuple[int, Counter]]
    ending: Ending | None = None
    datagram: Datagram | None = None
    is_later_fragment: bool = False


def expected(
    whole: bytes,
    available: int | None = None,
    first_fragments: dict[Datagram, Flow] | None = None,
    link: type[Packet] = Ether,
) -> Ending:
    """Return where a well-formed packet ends of which only `available` bytes are there (None: all).

    `first_fragments` is what earlier calls have learned; a first fragment adds to it. `link` is the class of the
    outermost header: Ether, or IP or IPv6 where the interface has none.
    """
    found = _dissect(whole, link)
    for end, counter in found.headers:
        if available is not None and available < end:
            return counter
    assert found.ending is not None
    if not isinstance(found.ending, Flow) or found.datagram is None or first_fragments is None:
        return found.ending
    if not found.is_later_fragment:
        first_fragments[found.datagram] = found.ending
        return found.ending
    first = first_fragments.get(found.datagram, found.ending)
    names = ("protocol", "source_port", "destination_port", "icmp_type", "icmp_code")
    return attrs.evolve(found.ending, **{name: getattr(first, name) for name in names})


# The same packet is asked for again and again while a test cuts it.
@functools.lru_cache(maxsize=1)
def _dissect(whole: bytes, link: type[Packet]) -> _Dissection:
    packet = link(whole)
    found = _Dissection([])
    source_mac = destination_mac = bytes(6).hex(":")
    length, tags = len(whole), 0
    if isinstance(packet, Ether | Dot3):
        source_mac, destination_mac = packet.src, packet.dst
        found.headers.append((14, Counter.IGNORED_TRUNCATED_LINK))
        while isinstance(packet.payload, Dot1Q):  # Dot1AD is one too
            if tags == _MAX_TAGS:
                found.ending = Counter.IGNORED_DEEP_HEADERS
                return found
            tags += 1
            packet = packet.payload
            found.headers.append((length - len(packet.original) + 4, Counter.IGNORED_TRUNCATED_LINK))
        if not isinstance(packet.payload, IP | IPv6):
            found.ending = NotIp(0 if isinstance(packet, Dot3) or packet.type < _LEAST_TYPE else packet.type)
            return found
        packet = packet.payload
    start = length - len(packet.original)
    if isinstance(packet, IP):
        _dissect_ipv4(found, packet, start, (source_mac, destination_mac))
    else:
        _dissect_ipv6(found, packet, start, (source_mac, destination_mac))
    return found


def _dissect_ipv4(found: _Dissection, ip: Packet, start: int, macs: tuple[str, str]) -> None:
    found.headers.append((start + 20, Counter.IGNORED_TRUNCATED_IP))
    source, destination = (bytes(10) + b"\xff\xff" + socket.inet_aton(address) for address in (ip.src, ip.dst))
    if ip.frag or ip.flags.MF:
        found.datagram = Datagram(source, destination, ip.id, ip.proto)
        found.is_later_fragment = ip.frag > 0
    flow = Flow(source, destination, ip.proto, 0x0800, ip.tos >> 2, *macs)
    _dissect_transport(found, flow, ip.payload, start + ip.len)


def _dissect_ipv6(found: _Dissection, ip: Packet, start: int, macs: tuple[str, str]) -> None:
    found.headers.append((start + 40, Counter.IGNORED_TRUNCATED_IP))
    source, destination = (socket.inet_pton(socket.AF_INET6, address) for address in (ip.src, ip.dst))
    end, header = start + 40 + ip.plen, ip
    extensions = 0
    while header.nh in EXTENSIONS and not found.is_later_fragment:
        if extensions == _MAX_EXTENSIONS:
            found.ending = Counter.IGNORED_DEEP_HEADERS
            return
        extensions += 1
        assert isinstance(header.payload, EXTENSIONS[header.nh]), "scapy did not follow the chain"
        header = header.payload
        # RFC 8200 4: each is "an integer multiple of 8 octets long", so that much must be there to know its length.
        found.headers.append((_offset(header, end) + 8, Counter.IGNORED_TRUNCATED_IP))
        if isinstance(header, IPv6ExtHdrFragment) and (header.offset or header.m):
            found.datagram = Datagram(source, destination, header.id, None)
            found.is_later_fragment = header.offset > 0
    flow = Flow(source, destination, header.nh, 0x86DD, ip.tc >> 2, *macs)
    _dissect_transport(found, flow, header.payload, end)


def _dissect_transport(found: _Dissection, flow: Flow, transport: Packet, end: int) -> None:
    found.ending = flow
    if found.is_later_fragment or flow.protocol not in _NEEDED_BYTES:
        return
    needed = _offset(transport, end) + _NEEDED_BYTES[flow.protocol]
    found.headers.append((needed, Counter.IGNORED_TRUNCATED_TRANSPORT))
    if needed > end:
        found.ending = Counter.IGNORED_TRUNCATED_TRANSPORT
    elif flow.protocol in _ICMP:
        # Type and code are the first two octets (RFC 792, RFC 4443 2.1); scapy has no class for unassigned types.
        found.ending = attrs.evolve(flow, icmp_type=transport.original[0], icmp_code=transport.original[1])
    else:
        assert isinstance(transport, _PORTED[flow.protocol]), "scapy did not see the transport header"
        flags = _flags(transport) if isinstance(transport, TCP) else 0
        found.ending = attrs.evolve(flow, source_port=transport.sport, destination_port=transport.dport, flags=flags)


def _flags(tcp: TCP) -> int:
    """Return the eight flags of RFC 9293 and RFC 3168, and the pairs that collectors want."""
    pairs = ((tcp.flags.S, FLAG_SYN_ACK), (tcp.flags.F, FLAG_FIN_ACK), (tcp.flags.R, FLAG_RST_ACK))
    return (int(tcp.flags) & 0xFF) | sum(flag for is_set, flag in pairs if is_set and tcp.flags.A)


def _offset(layer: Packet, end: int) -> int:
    """Return where a layer of a datagram begins that ends at `end`."""
    return end if isinstance(layer, NoPayload) else end - len(layer.original)
