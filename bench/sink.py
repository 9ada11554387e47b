"""A collector that disturbs the measured agent as little as one can: it keeps what comes and looks at it afterwards.

Law: while an agent runs, a message costs receiving and one append, on the generator's processor; it is decoded when the
sink's input ends. What is reported comes from the messages alone: a judge that is independent of any agent's ledger.
Protocol: run as `python -m bench.sink HOST`; prints its port, reads until end of file, prints `Received` as JSON.
Neighbours: `netwatch/exporters/collector.py` receives; the generated protobuf classes decode.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Self

import attrs
import trio

from netwatch.exporters.collector import serve
from netwatch.exporters.pbflow_pb2 import Records
from tests.kernel.hosts import Namespace

_HOST = "127.0.0.1"
_DECODE_TIMEOUT_S = 600.0  # 2 us a flow: a minute for 30 million


@attrs.frozen
class Received:
    """What arrived. A partial flow is a record without packets or without bytes; dropped is what the kernel dropped.

    The delay is from a flow's last packet to its arrival, for flows with a drop.
    """

    messages: int = 0
    message_bytes: int = 0
    flows: int = 0
    packets: int = 0
    partial_flows: int = 0
    dropped_packets: int = 0
    least_delay_s: float = 0.0
    median_delay_s: float = 0.0


class SinkFailed(Exception):
    """The sink did not start, or ended before it was asked to."""


class Sink:
    """A sink in a namespace, in a process of its own. Leaving the context ends it."""

    def __init__(self, namespace: Namespace, cpu: int | None) -> None:
        """Start it and wait until it listens."""
        with namespace.enter():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.sink", _HOST],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        if cpu is not None:
            os.sched_setaffinity(self._process.pid, {cpu})
        assert self._process.stdout is not None
        if not (port := self._process.stdout.readline()):
            raise SinkFailed(f"the sink does not listen: exit code {self._process.wait()}")
        self.port = int(port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Kill it where it still runs."""
        self._process.kill()
        self._process.communicate()

    def received(self) -> Received:
        """End it and return what it received."""
        output, _ = self._process.communicate(timeout=_DECODE_TIMEOUT_S)
        if self._process.returncode:
            raise SinkFailed(f"the sink ended with exit code {self._process.returncode}")
        return Received(**json.loads(output))


def count(messages: Iterable[tuple[int, bytes]]) -> Received:
    """Decode messages, each with the time of its arrival (Unix, ns), and count."""
    received = Received()
    delays: list[float] = []
    for arrived_ns, message in messages:
        entries = Records.FromString(message).entries
        delays += [(arrived_ns - e.time_flow_end.ToNanoseconds()) / 1e9 for e in entries if e.pkt_drop_packets]
        sizes = [(entry.packets, entry.bytes) for entry in entries]
        received = Received(
            received.messages + 1,
            received.message_bytes + len(message),
            received.flows + len(sizes),
            received.packets + sum(packets for packets, _ in sizes),
            received.partial_flows + sum(not (packets and octets) for packets, octets in sizes),
            received.dropped_packets + sum(entry.pkt_drop_packets for entry in entries),
        )
    if delays:
        received = attrs.evolve(received, least_delay_s=min(delays), median_delay_s=statistics.median(delays))
    return received


async def _serve_until_input_ends(host: str) -> list[tuple[int, bytes]]:
    messages: list[tuple[int, bytes]] = []

    async def keep(message: bytes) -> None:
        messages.append((time.time_ns(), message))

    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(serve, f"{host}:0", keep)
        print(address.port, flush=True)
        with contextlib.closing(trio.lowlevel.FdStream(os.dup(0))) as commands:
            while await commands.receive_some():
                pass
        nursery.cancel_scope.cancel()
    return messages


if __name__ == "__main__":
    print(json.dumps(attrs.asdict(count(trio.run(_serve_until_input_ends, sys.argv[1])))))
