"""What is loaded for which enrichment, and which fields of the kernel its programs read.

Law: tables only. A switch that is off loads nothing and reads nothing.
Neighbours: `compile.py` loads by these tables, `tracing.py` attaches. Imported by the compile child: the standard
library only.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

# Words of the setting `enrich`. "nat" has no program: it comes by netlink.
ENRICHMENTS = ("drops", "rtt", "dns", "tcp", "process", "interfaces", "overflow", "nat")


class HookKind(enum.Enum):
    """How a program is loaded and attached."""

    PACKET = enum.auto()  # tc, by TCX link or clsact filter
    TRACEPOINT = enum.auto()  # BTF tracepoint
    SOCKET = enum.auto()  # cgroup/sock_create


# How each is loaded: enum bpf_prog_type and enum bpf_attach_type of include/uapi/linux/bpf.h.
PROGRAM_TYPES: Mapping[HookKind, tuple[int, int]] = MappingProxyType(
    {
        HookKind.PACKET: (3, 0),  # BPF_PROG_TYPE_SCHED_CLS
        HookKind.TRACEPOINT: (26, 23),  # BPF_PROG_TYPE_TRACING, BPF_TRACE_RAW_TP
        HookKind.SOCKET: (9, 2),  # BPF_PROG_TYPE_CGROUP_SOCK, BPF_CGROUP_INET_SOCK_CREATE
    }
)


class Hook(NamedTuple):
    """A program: its function in `bpf/netwatch.bpf.c`, where it goes, and who needs it; nobody in particular: all."""

    function: str
    kind: HookKind
    target: str = ""
    needed_by: frozenset[str] = frozenset()


PACKET_HOOKS = ("ingress_ethernet", "egress_ethernet", "ingress_ip", "egress_ip")

HOOKS: Mapping[str, Hook] = MappingProxyType(
    {name: Hook("netwatch", HookKind.PACKET) for name in PACKET_HOOKS}
    | {
        "drop": Hook("on_drop", HookKind.TRACEPOINT, "kfree_skb", frozenset({"drops"})),
        "tcp_state": Hook(
            *("on_tcp_state", HookKind.TRACEPOINT, "inet_sock_set_state"), frozenset({"tcp", "process", "rtt"})
        ),
        "tcp_retransmit": Hook("on_tcp_retransmit", HookKind.TRACEPOINT, "tcp_retransmit_skb", frozenset({"tcp"})),
        "tcp_reset_sent": Hook("on_tcp_reset_sent", HookKind.TRACEPOINT, "tcp_send_reset", frozenset({"tcp"})),
        "tcp_reset_received": Hook(
            "on_tcp_reset_received", HookKind.TRACEPOINT, "tcp_receive_reset", frozenset({"tcp"})
        ),
        "socket": Hook("on_socket", HookKind.SOCKET, "sock_create", frozenset({"process"})),
    }
)


def hooks_for(enrich: Collection[str]) -> dict[str, Hook]:
    """Return the programs that these enrichments need, those that count packets included."""
    return {name: hook for name, hook in HOOKS.items() if not hook.needed_by or hook.needed_by & set(enrich)}


# The defines of bpf/kernel.bpf.h: structure and member.
KERNEL_FIELDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "K_SKB_PROTOCOL": ("sk_buff", "protocol"),
        "K_SKB_HEAD": ("sk_buff", "head"),
        "K_SKB_DATA": ("sk_buff", "data"),
        "K_SKB_LEN": ("sk_buff", "len"),
        "K_SKB_END": ("sk_buff", "end"),
        "K_SKB_MAC_HEADER": ("sk_buff", "mac_header"),
        "K_SKB_NETWORK_HEADER": ("sk_buff", "network_header"),
        "K_SKB_CAME_BY": ("sk_buff", "skb_iif"),
        "K_SKB_ROUTE": ("sk_buff", "_skb_refdst"),
        "K_ROUTE_DEVICE": ("dst_entry", "dev"),
        "K_SKB_DEVICE": ("sk_buff", "dev"),
        "K_SKB_SOCKET": ("sk_buff", "sk"),
        "K_SHARED_GSO_SEGMENTS": ("skb_shared_info", "gso_segs"),
        "K_DEVICE_IFINDEX": ("net_device", "ifindex"),
        "K_DEVICE_HEADER_BYTES": ("net_device", "hard_header_len"),
        "K_DEVICE_NET": ("net_device", "nd_net.net"),
        "K_NET_NUMBER": ("net", "ns.inum"),
        "K_SOCK_NET": ("sock_common", "skc_net.net"),
        "K_SOCK_FAMILY": ("sock_common", "skc_family"),
        "K_SOCK_STATE": ("sock_common", "skc_state"),
        "K_SOCK_DADDR": ("sock_common", "skc_daddr"),
        "K_SOCK_DPORT": ("sock_common", "skc_dport"),
        "K_SOCK_DADDR6": ("sock_common", "skc_v6_daddr"),
        "K_SOCK_SADDR6": ("sock_common", "skc_v6_rcv_saddr"),
        "K_SOCK_SADDR": ("inet_sock", "inet_saddr"),
        "K_SOCK_SPORT": ("inet_sock", "inet_sport"),
        "K_SOCK_PROTOCOL": ("sock", "sk_protocol"),
        "K_SOCK_ERROR": ("sock", "sk_err"),
        "K_TCP_SRTT": ("tcp_sock", "srtt_us"),
        "K_TCP_HEADER_BYTES": ("tcp_sock", "tcp_header_len"),
    }
)
