"""Two hosts and a cable: the generator at one end, the agent under test and its collector at the other.

Law: nothing passes the watched interface but what the generator sends. Generator and collector have the last
processor; the agent may run on any, and has the others for itself.
Neighbours: `tests/kernel/hosts.py` makes the namespaces, `generator.py` sends, `daemon.py` runs beside the collector.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from attrs import evolve

from bench.generator import Generator, Sent, Traffic, generate
from bench.sink import Sink
from tests.kernel.hosts import Interface, Namespace

PAYLOAD_BYTES = 100
_SOURCE, _DESTINATION = "10.0.0.1", "10.0.0.2"


@attrs.frozen
class Load:
    """Unique UDP flows at a pace, 0 for full speed."""

    flows_per_second: int
    packets_per_flow: int

    def __str__(self) -> str:
        rate = self.flows_per_second
        return f"{rate // 1000}k x {self.packets_per_flow}" if rate >= 1000 else f"{rate} x {self.packets_per_flow}"

    def max_flows(self, period_s: float) -> int:
        """Return how large a flow map has to be for two periods of this load."""
        return int(2 * self.flows_per_second * period_s)


FULL_SPEED = Load(0, 1)


@attrs.frozen
class Testbed:
    """The cable's two ends. `cpu` is where generator and collector run; None on a machine with one processor."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    sending: Interface
    watched: Interface
    cpu: int | None

    def send(self, load: Load, duration_s: float, flow_offset: int = 0) -> Sent:
        """Send a load for so long; flows are numbered from the offset, and no two are the same."""
        return self._send(load, int(load.flows_per_second * duration_s), 2 * duration_s + 60, flow_offset)

    def send_flows(self, load: Load, flows: int) -> Sent:
        """Send a number of flows; the same ones each time."""
        return self._send(load, flows, 60 + (2 * flows / load.flows_per_second if load.flows_per_second else 0), 0)

    def start(self, load: Load) -> Generator:
        """Begin to send a load, for an hour at most; leaving its context ends it."""
        return Generator(evolve(self._traffic(load), duration_s=3600.0), self.sending.namespace.prefix)

    def _send(self, load: Load, flows: int, timeout_s: float, flow_offset: int) -> Sent:
        traffic = evolve(self._traffic(load), flows=flows, flow_offset=flow_offset, duration_s=timeout_s)
        return generate(traffic, self.sending.namespace.prefix)

    def _traffic(self, load: Load) -> Traffic:
        return Traffic(
            self.sending.name,
            _SOURCE,
            _DESTINATION,
            packets_per_flow=load.packets_per_flow,
            flows_per_second=load.flows_per_second,
            payload=PAYLOAD_BYTES,
            cpu=self.cpu,
        )

    def sink(self) -> Sink:
        """Start a collector beside the agent."""
        return Sink(self.watched.namespace, self.cpu)


@contextmanager
def open_testbed() -> Iterator[Testbed]:
    """Make the namespaces and the cable, and remove them."""
    cpus = sorted(os.sched_getaffinity(0))
    # Some agents look into every namespace of the machine: a name that nobody else has keeps them here.
    name = f"nwb{os.getpid()}"
    with Namespace() as left, Namespace() as right:
        sending, watched = left.veth(f"{name}s", right, f"{name}w")
        yield Testbed(sending, watched, cpus[-1] if len(cpus) > 1 else None)
