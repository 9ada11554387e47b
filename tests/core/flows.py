"""Flows to print: rows as the kernel fills them, and batches of any bytes at all."""

from __future__ import annotations

import ipaddress
import os

import attrs
import numpy as np
from hypothesis import strategies as st

from netwatch.core.batch import FlowBatch, InterfaceNames
from netwatch.core.direction import Direction
from netwatch.core.layout import FLOW_KEY, FLOW_VALUE, hook_of

ETH0, VETH = 2, 7
NAMES = InterfaceNames({ETH0: "eth0", VETH: "veth1a2b"})
WALL_OFFSET_NS = 1_700_000_000_000_000_000


@attrs.frozen(kw_only=True)
class Flow:
    """One flow in the terms of a test: a TCP conversation unless it says otherwise."""

    src: str = "10.0.0.1"
    dst: str = "192.168.100.200"
    src_port: int = 443
    dst_port: int = 51234
    protocol: int = 6
    eth_type: int = 0x0800
    icmp_type: int = 0
    icmp_code: int = 0
    bytes: int = 1500
    packets: int = 3
    first_ns: int = 5_000_000_000
    last_ns: int = 6_250_999_999
    flags: int = 0x12
    dscp: int = 46
    sampling: int = 1
    home: int = hook_of(ETH0, Direction.INGRESS)
    observed: tuple[int, ...] = ()


def batch_of(*flows: Flow, interfaces: InterfaceNames = NAMES, wall_offset_ns: int = WALL_OFFSET_NS) -> FlowBatch:
    """Lay flows out as the kernel does."""
    keys, values = np.zeros(len(flows), FLOW_KEY), np.zeros(len(flows), FLOW_VALUE)
    for key, value, flow in zip(keys, values, flows, strict=True):
        key["src_addr"], key["dst_addr"] = _address(flow.src), _address(flow.dst)
        for name in ("src_port", "dst_port", "protocol", "icmp_type", "icmp_code"):
            key[name] = getattr(flow, name)
        for name in ("bytes", "packets", "first_ns", "last_ns", "flags", "dscp", "sampling", "home", "eth_type"):
            value[name] = getattr(flow, name)
        value["observed"][: len(flow.observed)] = flow.observed
        value["src_mac"], value["dst_mac"] = (2, 0, 0, 0, 0, 0xA), (2, 0, 0, 0, 0, 0xB)
    return FlowBatch(keys, values, wall_offset_ns, interfaces)


def _address(text: str) -> list[int]:
    address = ipaddress.ip_address(text)
    return list(address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed)


@st.composite
def batches(draw: st.DrawFn, max_flows: int = 6) -> FlowBatch:
    """Draw rows of random bytes; protocols, types and hooks come from few values, times and counts fit 62 bits."""
    flows = draw(st.integers(0, max_flows))
    raw_keys = draw(st.binary(min_size=flows * FLOW_KEY.itemsize, max_size=flows * FLOW_KEY.itemsize))
    raw_values = draw(st.binary(min_size=flows * FLOW_VALUE.itemsize, max_size=flows * FLOW_VALUE.itemsize))
    keys = np.frombuffer(raw_keys, FLOW_KEY).copy()
    values = np.frombuffer(raw_values, FLOW_VALUE).copy()
    hooks = st.sampled_from(
        [0, hook_of(ETH0, Direction.EGRESS), hook_of(VETH, Direction.INGRESS), hook_of(9, Direction.EGRESS)]
    )
    for key, value in zip(keys, values, strict=True):
        key["protocol"] = draw(st.sampled_from([1, 6, 17, 47, 58, 132]))
        if draw(st.booleans()):
            key["src_addr"][:12] = [0] * 10 + [0xFF, 0xFF]
        value["eth_type"] = draw(st.sampled_from([0x0800, 0x86DD, 0x0806]))
        value["home"] = hook_of(ETH0, Direction.INGRESS)
        value["observed"] = [draw(hooks) for _ in range(6)]
    for name in ("first_ns", "last_ns", "packets", "bytes"):
        values[name] >>= np.uint64(4)
    interfaces = InterfaceNames({ETH0: os.fsdecode(draw(st.binary(max_size=15))), VETH: "veth1a2b"})
    return FlowBatch(keys, values, draw(st.integers(-(10**18), 10**18)), interfaces)
