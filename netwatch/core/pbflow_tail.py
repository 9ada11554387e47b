"""The tail of a pbflow Record: what follows from the hooks where a flow was seen, and from the agent.

Law: pure. Each list of hooks has one tail, made once a chunk and copied into all its rows.
Neighbours: `core/pbflow_record.py` has the fields that are columns; `core/pbflow_chunk.py` asks for tails.
"""

from __future__ import annotations

import ipaddress

import attrs

from netwatch.core.batch import InterfaceNames
from netwatch.core.direction import Direction
from netwatch.core.wire.protobuf import WIRE_FIXED32, WIRE_VARINT, delimited, pad_varint, tag, varint_field

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# Tails of fewer different lengths make longer runs of equal records, for 3.5 bytes a record on average.
STEP_BYTES = 8

# 4,096 lists of hooks x (200 B of tail + 200 B of list) = 1.6 MB, for a host with hundreds of pods; if all lists were
# the longest, 4,096 x (64 x 22 B + 64 x 40 B) = 16 MB.
_MAX_REMEMBERED = 4096

_INTERFACE, _DIRECTION, _AGENT_IP, _DUP_LIST = 10, 2, 12, 26  # pbflow.Record
_DIRECTION_TAG = tag(_DIRECTION, WIRE_VARINT)
_PADDED_DIRECTIONS = {
    direction: [_DIRECTION_TAG + pad_varint(direction, size) for size in range(1, STEP_BYTES + 1)]
    for direction in Direction
}


@attrs.frozen
class _Hook:
    """What a hook contributes: where it is the home, and in the list of all."""

    direction: Direction
    interface: bytes
    entry: bytes


@attrs.define(eq=False)
class TailEncoder:
    """Makes tails. Unless minimal, their lengths are multiples of STEP_BYTES.

    Remembers tails while the names stay the same.
    """

    is_minimal: bool
    _agent: bytes
    _interfaces: InterfaceNames | None = None
    _hooks: dict[int, _Hook] = attrs.field(init=False, factory=dict)
    _tails: dict[tuple[int, ...], bytes] = attrs.field(init=False, factory=dict)

    @classmethod
    def of(cls, agent_ip: IPAddress | None, *, is_minimal: bool) -> TailEncoder:
        """Return one for an agent."""
        return cls(is_minimal, b"" if agent_ip is None else delimited(_AGENT_IP, _ip(agent_ip)))

    def use(self, interfaces: InterfaceNames) -> None:
        """Take names from there, from now on."""
        if interfaces != self._interfaces:
            self._interfaces = interfaces
            self._hooks.clear()
            self._tails.clear()

    def encode(self, hooks: tuple[int, ...]) -> bytes:
        """Return the tail of flows seen at these hooks, home first."""
        tail = self._tails.get(hooks)
        if tail is None:
            if len(self._tails) >= _MAX_REMEMBERED:
                self._tails.clear()
            tail = self._tails[hooks] = self._encode(hooks)
        return tail

    def _encode(self, hooks: tuple[int, ...]) -> bytes:
        seen = [self._hooks.get(hook) or self._describe(hook) for hook in hooks]
        home = seen[0]
        tail = b"".join([self._agent, home.interface, *[hook.entry for hook in seen]])
        if self.is_minimal:
            return tail + varint_field(_DIRECTION, home.direction)
        missing = -(len(tail) + len(_DIRECTION_TAG) + 1) % STEP_BYTES
        return tail + _PADDED_DIRECTIONS[home.direction][missing]

    def _describe(self, number: int) -> _Hook:
        assert self._interfaces is not None
        name, direction = self._interfaces.describe(number)
        # The kernel takes almost any byte in an interface name, a protobuf string takes UTF-8 only.
        utf8 = name.encode(errors="replace")
        entry = delimited(_DUP_LIST, delimited(1, utf8) + varint_field(2, direction))
        hook = self._hooks[number] = _Hook(direction, delimited(_INTERFACE, utf8), entry)
        return hook


def _ip(address: IPAddress) -> bytes:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else address
    if mapped is None:
        return delimited(2, address.packed)
    return tag(1, WIRE_FIXED32) + mapped.packed[::-1]
