"""What is tried on each kernel, and which tests try it.

Invariant: a test file belongs to one capability; a file that none has is not tried in the machines, and says so in
the README's table by its absence.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# A row of the README's table: the files of tests/kernel/ that it takes.
CAPABILITIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "every packet counted, across drains": ("test_conservation.py", "test_event_conservation.py"),
        "one packet, one count": ("test_duplicates.py", "test_interfaces.py"),
        "every kind of packet, against scapy": ("test_parse.py", "test_segments.py"),
        "drops, with reasons": ("test_enrich_drops.py", "test_enrich_drops_late.py"),
        "round-trip times": ("test_enrich_rtt.py", "test_netem.py"),
        "DNS": ("test_enrich_dns.py",),
        "connections and retransmissions": ("test_enrich_connections.py",),
        "processes and containers": ("test_enrich_process.py", "test_enrich_container.py"),
        "NAT, by conntrack": ("test_enrich_nat.py",),
        "full map, by the ring": ("test_enrich_overflow.py",),
        "tunnels, bonds, VLANs": ("test_devices.py",),
        "kill -9 leaves nothing": ("test_attach.py", "test_shutdown.py"),
    }
)

# One test of each promise: four minutes by emulation.
SHORT: tuple[str, ...] = (
    "test_conservation.py::test_every_kind_of_packet",
    "test_enrich_drops.py::test_output",
    "test_enrich_dns.py::test_name_that_does_not_exist",
    "test_enrich_connections.py::test_reset",
    "test_netem.py::test_known_delay",
    "test_devices.py::test_view",
    "test_shutdown.py::test_kill_while_it_captures",
)
