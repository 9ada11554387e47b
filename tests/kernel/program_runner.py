"""One packet through one program, and where it was counted.

Law: the kernel runs the program on the packet alone (BPF_PROG_TEST_RUN), on no interface, beside no other traffic; all
counters are looked at after each run, so that a packet that is counted twice or nowhere is seen.
Neighbours: `dissection.py` says what should have come out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import attrs
import numpy as np

from netwatch.core.layout import FLOW_KEY, FLOW_VALUE, FRAGMENT_KEY, FRAGMENT_VALUE, HOOK_EGRESS
from netwatch.kernel.counters import KernelCounters
from netwatch.kernel.flow_map import BatchReader, FlowMaps
from netwatch.kernel.program import LoadedPrograms
from netwatch.kernel.syscall import Command, map_update, test_run
from netwatch.ledger import Amount
from tests.kernel.dissection import Ending, Flow, NotIp

LOOPBACK = 1  # a packet of BPF_PROG_TEST_RUN comes from here where nothing else is said
GO_ON = -1  # TCX_NEXT, TC_ACT_UNSPEC
# BPF_PROG_TEST_RUN takes the first bytes for an Ethernet header, and wants all of the IP header that this one names.
_LEAST_BYTES = {b"\x08\x00": 14 + 20, b"\x86\xdd": 14 + 40}
_SKB_BYTES = 192
_SKB_WIRE_LEN, _SKB_GSO_SEGS, _SKB_GSO_SIZE = 160, 164, 176  # in struct __sk_buff, include/uapi/linux/bpf.h


@attrs.frozen
class Outcome:
    """What one run left in the kernel: the hooks that saw it, and each place where it was counted."""

    seen: Mapping[int, Amount]
    endings: list[tuple[Ending, Amount]]


def least_bytes(packet: bytes) -> int:
    """Return how many bytes of a packet the kernel must have to run a program on it alone."""
    return _LEAST_BYTES.get(packet[12:14], 14)


def segmented(size: int, segments: int = 0, wire_bytes: int = 0) -> bytes:
    """Return the context of a GSO packet: payload bytes of a segment, number of segments, bytes on the wire."""
    context = bytearray(_SKB_BYTES)
    struct.pack_into("=II", context, _SKB_WIRE_LEN, wire_bytes, segments)
    struct.pack_into("=I", context, _SKB_GSO_SIZE, size)
    return bytes(context)


class ProgramRunner:
    """Runs the loaded programs. The epoch never moves: what a run left is read and deleted after it."""

    def __init__(self, loaded: LoadedPrograms) -> None:
        self._loaded = loaded
        self._epoch = FlowMaps(loaded).epoch  # and now the kernel knows it too
        self._counters = KernelCounters(loaded)
        self._flows = BatchReader(FLOW_KEY, FLOW_VALUE, 64)
        self._fragments = BatchReader(FRAGMENT_KEY, FRAGMENT_VALUE, 4_096)

    def forget_fragments(self) -> None:
        """Empty the fragment table: examples of a property know nothing of each other."""
        self._take(self._fragments, "fragments")

    def age_fragments(self, by_ns: int) -> None:
        """Let every fragment in the table have passed so much earlier."""
        for count in self._take(self._fragments, "fragments"):
            for key, value in zip(self._fragments.keys[:count], self._fragments.values[:count], strict=True):
                value["seen_ns"] -= np.uint64(by_ns)
                map_update(self._loaded.maps["fragments"], key.tobytes(), value.tobytes())

    def run(self, program: str, packet: bytes, context: bytes = b"") -> Outcome:
        """Run a program and collect what it left."""
        assert test_run(self.descriptor(program), packet, context=context).retval == GO_ON
        return self.collect()

    def descriptor(self, program: str) -> int:
        """Return a program's descriptor, to attach it where BPF_PROG_TEST_RUN does not do."""
        return self._loaded.programs[program]

    def collect(self) -> Outcome:
        """Take what was counted since the last time."""
        counted = self._counters.read(self._epoch)
        endings: list[tuple[Ending, Amount]] = [*counted.ends.items()]
        endings += [(NotIp(eth_type), amount) for eth_type, amount in counted.ethertypes.items()]
        for count in self._take(self._flows, "flows_0"):
            endings += [_flow(*row) for row in zip(self._flows.keys[:count], self._flows.values[:count], strict=True)]
        return Outcome(counted.seen, endings)

    def ending(self, program: str, packet: bytes, context: bytes = b"", counts_as: Amount | None = None) -> Ending:
        """Run a program and return where the packet was counted: once, in one place, with all its bytes."""
        outcome = self.run(program, packet, context)
        amount = counts_as or Amount(1, len(packet))
        assert outcome.seen == {LOOPBACK | (HOOK_EGRESS if program.startswith("egress") else 0): amount}
        ((ending, counted),) = outcome.endings
        assert counted == amount
        return ending

    def _take(self, reader: BatchReader, name: str) -> list[int]:
        return list(reader.batches(Command.MAP_LOOKUP_AND_DELETE_BATCH, self._loaded.maps[name], name))


def _flow(key: np.void, value: np.void) -> tuple[Flow, Amount]:
    assert not key["pad"]
    assert not value["pad"].any()
    assert value["sampling"] == 1
    assert 0 < value["first_ns"] == value["last_ns"]
    assert not value["observed"].any()
    return Flow(
        source=bytes(key["src_addr"]),
        destination=bytes(key["dst_addr"]),
        protocol=int(key["protocol"]),
        eth_type=int(value["eth_type"]),
        dscp=int(value["dscp"]),
        source_mac=bytes(value["src_mac"]).hex(":"),
        destination_mac=bytes(value["dst_mac"]).hex(":"),
        source_port=int(key["src_port"]),
        destination_port=int(key["dst_port"]),
        icmp_type=int(key["icmp_type"]),
        icmp_code=int(key["icmp_code"]),
        flags=int(value["flags"]),
    ), Amount(int(value["packets"]), int(value["bytes"]))
