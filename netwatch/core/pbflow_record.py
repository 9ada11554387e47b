"""What a pbflow Record says of a flow: the columns of a batch as the fields of `protos/flow.proto`.

Law: pure. Every value arrives as it is in the columns, except that time does not run backwards, and that packets end
at 32 bits, where the receiver would cut off the high ones. Fields come in an order of our own, which protobuf allows.
Neighbours: `core/wire/template.py` encodes columns; `core/pbflow_tail.py` has the fields that are no columns;
`core/pbflow_chunk.py` puts records together.
"""

from __future__ import annotations

import functools

import attrs
import numpy as np
from numpy.typing import NDArray

from netwatch.core.layout import FLOW_KEY
from netwatch.core.survey import Survey, is_uniform
from netwatch.core.wire.protobuf import WIRE_BYTES, WIRE_FIXED32, encode_varint, groups_of, tag
from netwatch.core.wire.template import Part, Template, TemplateBuilder
from netwatch.core.wire.varint import Words

# Numbers that go into the record as they are: field number and column.
_TRANSPORT_FIELDS = ((1, "src_port"), (2, "dst_port"), (3, "protocol"))
_RECORD_FIELDS = (
    (1, "eth_type"),
    (8, "bytes"),
    (9, "packets"),
    (13, "flags"),
    (14, "icmp_type"),
    (15, "icmp_code"),
    (29, "sampling"),
)
_NUMBERS = tuple(name for _, name in _TRANSPORT_FIELDS + _RECORD_FIELDS)

_NS_PER_S = np.uint64(1_000_000_000)
_MAX_U32 = np.uint64((1 << 32) - 1)
_MAX_U64 = (1 << 64) - 1
_SECONDS_GROUPS = groups_of((_MAX_U64 // int(_NS_PER_S)).bit_length())
_NANOS_GROUPS = groups_of((int(_NS_PER_S) - 1).bit_length())
_MAC_GROUPS = groups_of(48)
_PACKETS_GROUPS = groups_of(32)

# What the third 32-bit word of an address in ::ffff:0:0/96 reads as, low byte first.
_MAPPED_WORD = int.from_bytes(b"\x00\x00\xff\xff", "little")


def is_ipv4(keys: Survey) -> NDArray[np.bool_] | bool:
    """Say which rows have two IPv4 addresses; True if all have."""
    halves = keys.words("src_addr", "<u8")[:1] + keys.words("dst_addr", "<u8")[:1]
    thirds = keys.words("src_addr", "<u4")[2:3] + keys.words("dst_addr", "<u4")[2:3]
    if not any(any_bits for _, any_bits in halves) and all(
        any_bits == _MAPPED_WORD and is_uniform(column, any_bits) for column, any_bits in thirds
    ):
        return True
    answer = np.ones(len(keys.rows), np.bool_)
    for column, _ in halves:
        answer &= column == 0
    for column, _ in thirds:
        answer &= column == _MAPPED_WORD
    return answer


def are_ipv4(addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Say which of some addresses, of 16 bytes each, are IPv4."""
    first, second = addresses[:, :8].view("<u8")[:, 0], addresses[:, 8:12].view("<u4")[:, 0]
    mapped: NDArray[np.bool_] = (first == 0) & (second == _MAPPED_WORD)
    return mapped


@attrs.frozen(eq=False)
class RecordLayout:
    """Where everything goes in the records of some flows: wide enough for the widest number in any of them."""

    body: Template
    networks: tuple[Template, Template]
    """For IPv6 and for IPv4."""

    @classmethod
    def of(cls, keys: Survey, values: Survey) -> RecordLayout:
        """Return the layout for these flows."""

        def groups(name: str) -> int:
            count = groups_of((keys if name in _KEY_COLUMNS else values).bits(name))
            return min(count, _PACKETS_GROUPS) if name == "packets" else count

        dscp_groups = groups("dscp")
        networks = _network_template(dscp_groups, is_ipv4=False), _network_template(dscp_groups, is_ipv4=True)
        return cls(_body_template(tuple(map(groups, _NUMBERS))), networks)

    def body_of(
        self, keys: NDArray[np.void], values: NDArray[np.void], wall_offset_ns: int, *, is_minimal: bool
    ) -> Part:
        """Return the fields that every flow has, whatever its IP version and its hooks."""
        times_ns = _unix_times(values, wall_offset_ns)
        seconds = times_ns // _NS_PER_S
        times_ns -= seconds * _NS_PER_S
        columns: list[Words] = [seconds[0], times_ns[0], seconds[1], times_ns[1]]
        columns += (_numbers_of(values["src_mac"]), _numbers_of(values["dst_mac"]))
        for name in _NUMBERS:
            column = (keys if name in _KEY_COLUMNS else values)[name]
            columns.append(np.minimum(column, _MAX_U32) if name == "packets" else column)
        return self.body.fill(columns, is_minimal=is_minimal)

    def network_of(self, keys: NDArray[np.void], values: NDArray[np.void], *, is_ipv4: bool, is_minimal: bool) -> Part:
        """Return the network field, with all addresses read as IPv4, or as IPv6."""
        columns = address_words(keys, is_ipv4=is_ipv4)
        return self.networks[is_ipv4].fill([*columns, values["dscp"]], is_minimal=is_minimal)


_KEY_COLUMNS = frozenset(FLOW_KEY.names or ())


# One for each combination of widths that occurs: a few dozen in practice, of a few kB each.
@functools.lru_cache(maxsize=256)
def _body_template(groups: tuple[int, ...]) -> Template:
    """Return the layout of the body, given the widths of _NUMBERS."""
    width = iter(groups)
    body = TemplateBuilder()
    for field in (3, 4):
        with body.message(field):
            body.add_varint(1, _SECONDS_GROUPS)
            body.add_varint(2, _NANOS_GROUPS)
    with body.message(5):
        body.add_varint(1, _MAC_GROUPS)
        body.add_varint(2, _MAC_GROUPS)
    with body.message(7):
        for field, _ in _TRANSPORT_FIELDS:
            body.add_varint(field, next(width))
    for field, _ in _RECORD_FIELDS:
        body.add_varint(field, next(width))
    return body.build()


@functools.cache
def _network_template(dscp_groups: int, *, is_ipv4: bool) -> Template:
    network = TemplateBuilder()
    with network.message(6):
        add_addresses(network, is_ipv4=is_ipv4)
        network.add_varint(3, dscp_groups)
    return network.build()


def add_addresses(message: TemplateBuilder, *, is_ipv4: bool) -> None:
    """Declare the addresses of source and destination: what begins a Network, and an Xlat."""
    for field in (1, 2):
        with message.message(field):
            if is_ipv4:
                message.add_constant(tag(1, WIRE_FIXED32))
                message.add_fixed(4)
            else:
                message.add_constant(tag(2, WIRE_BYTES) + encode_varint(16))
                message.add_fixed(8)
                message.add_fixed(8)


def address_words(rows: NDArray[np.void], *, is_ipv4: bool) -> list[Words]:
    """Return the columns for what add_addresses declares."""
    columns: list[Words] = []
    for addresses in (rows["src_addr"], rows["dst_addr"]):
        if is_ipv4:
            columns.append(addresses.view(">u4")[:, 3])
        else:
            columns.extend(addresses.view("<u8").T)
    return columns


def _unix_times(values: NDArray[np.void], wall_offset_ns: int) -> Words:
    """Return first and last times in Unix time, shape (2, n), kept within 64 bits: 1970 to 2554."""
    times_ns: Words = np.empty((2, len(values)), np.uint64)
    times_ns[0] = values["first_ns"]
    np.maximum(times_ns[0], values["last_ns"], out=times_ns[1])
    shift_ns = np.uint64(abs(wall_offset_ns))
    if wall_offset_ns < 0:
        np.maximum(times_ns, shift_ns, out=times_ns)
        times_ns -= shift_ns
    else:
        np.minimum(times_ns, np.uint64(_MAX_U64) - shift_ns, out=times_ns)
        times_ns += shift_ns
    return times_ns


def _numbers_of(macs: NDArray[np.uint8]) -> Words:
    """Return link-layer addresses as numbers, the first byte highest."""
    numbers: Words = macs[:, :2].view(">u2")[:, 0].astype(np.uint64)
    numbers <<= np.uint64(32)
    numbers |= macs[:, 2:].view(">u4")[:, 0]
    return numbers
