"""What network people call the numbers in a flow: protocols, ICMP messages, TCP flags.

Law: a number without a name stays a number; nothing is guessed. Names are at most 13 characters, for a column.
Neighbours: `core/flow_cells.py` shows them; JSON and pbflow carry the numbers.
"""

from __future__ import annotations

from types import MappingProxyType

from netwatch.core.record import ICMP, ICMPV6

# IANA, Assigned Internet Protocol Numbers.
_PROTOCOLS = MappingProxyType(
    {
        0: "HOPOPT",
        ICMP: "ICMP",
        2: "IGMP",
        4: "IPIP",
        6: "TCP",
        17: "UDP",
        33: "DCCP",
        41: "IPv6",
        47: "GRE",
        50: "ESP",
        51: "AH",
        ICMPV6: "ICMPv6",
        89: "OSPF",
        103: "PIM",
        112: "VRRP",
        115: "L2TP",
        132: "SCTP",
        136: "UDPLITE",
    }
)

# IANA, ICMP Parameters. By type, and by type and code where the code says more.
_ICMP_TYPES = MappingProxyType(
    {
        0: "echo-reply",
        3: "unreachable",
        4: "source-quench",
        5: "redirect",
        8: "echo",
        9: "router-adv",
        10: "router-sol",
        11: "time-exceeded",
        12: "param-problem",
        13: "timestamp",
        14: "timestamp-rep",
        42: "ext-echo",
        43: "ext-echo-rep",
    }
)
_ICMP_CODES = MappingProxyType(
    {
        (3, 0): "net-unreach",
        (3, 1): "host-unreach",
        (3, 2): "proto-unreach",
        (3, 3): "port-unreach",
        (3, 4): "frag-needed",
        (3, 9): "net-prohib",
        (3, 10): "host-prohib",
        (3, 13): "admin-prohib",
        (11, 0): "ttl-exceeded",
        (11, 1): "frag-timeout",
    }
)

# IANA, ICMPv6 Parameters.
_ICMPV6_TYPES = MappingProxyType(
    {
        1: "unreachable",
        2: "too-big",
        3: "time-exceeded",
        4: "param-problem",
        128: "echo",
        129: "echo-reply",
        130: "mld-query",
        131: "mld-report",
        132: "mld-done",
        133: "router-sol",
        134: "router-adv",
        135: "neighbor-sol",
        136: "neighbor-adv",
        137: "redirect",
        143: "mld2-report",
        160: "ext-echo",
        161: "ext-echo-rep",
    }
)
_ICMPV6_CODES = MappingProxyType(
    {
        (1, 0): "no-route",
        (1, 1): "admin-prohib",
        (1, 3): "addr-unreach",
        (1, 4): "port-unreach",
        (3, 0): "hop-exceeded",
        (3, 1): "frag-timeout",
    }
)

# The connection's life first, then what marks single packets: SAF is a whole conversation.
_FLAG_LETTERS = ((0x02, "S"), (0x10, "A"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x20, "U"), (0x40, "E"), (0x80, "C"))


def protocol_name(protocol: int) -> str:
    """Return the name of an IP protocol, or its number."""
    return _PROTOCOLS.get(protocol) or str(protocol)


def icmp_name(protocol: int, icmp_type: int, icmp_code: int) -> str:
    """Return the name of an ICMP or ICMPv6 message; without one, type and code."""
    types, codes = (_ICMPV6_TYPES, _ICMPV6_CODES) if protocol == ICMPV6 else (_ICMP_TYPES, _ICMP_CODES)
    exact = codes.get((icmp_type, icmp_code))
    if exact or icmp_code == 0:
        return exact or types.get(icmp_type) or f"{icmp_type}/{icmp_code}"
    name = types.get(icmp_type)
    return f"{name}/{icmp_code}" if name else f"{icmp_type}/{icmp_code}"


def flag_letters(flags: int) -> str:
    """Return the TCP flags seen in any packet of a flow, one letter each; `-` for none at all."""
    return "".join(letter for bit, letter in _FLAG_LETTERS if flags & bit) or "-"
