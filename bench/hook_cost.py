"""What each switch of `enrich` costs in the kernel: run time of its hooks, and what it adds to the packet hook.

Law: one switch at a time, by turns with none at all, on the same conversations: what a switch adds is the difference.
The measurement's own cost is taken off the hooks that are no packet hooks; in a difference it is not.
Neighbours: `conversations.py` is the traffic, `ring_cost.py` measures the drop hook and the way of an event from there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from bench.conversations import Conversations
from bench.measure import Quantity, Sample, alternate
from bench.plan import Plan
from bench.ring_cost import bare_tracepoint
from bench.testbed import Testbed, open_testbed
from netwatch.core.direction import Direction
from netwatch.kernel.attach import attach_tcx
from netwatch.kernel.event_source import EventSource
from netwatch.kernel.hooks import ENRICHMENTS, HOOKS, PACKET_HOOKS
from netwatch.kernel.program import LoadedPrograms, ProgramSettings, load_programs
from netwatch.kernel.syscall import enable_stats, program_stats
from netwatch.kernel.tracing import attached_tracing

_NONE = "none"
_SWITCHES = (_NONE, *(word for word in ENRICHMENTS if word != "nat"))  # nat has no program
_MAX_FLOWS = 65_536
_FULL_MAP = 64  # for `overflow`: nearly every packet finds no room
_PORTIONS = 20  # the ring is emptied in between, as the daemon does


def measure(plan: Plan) -> Iterator[Sample]:
    """Hold the same conversations under every switch."""
    for _, word in alternate(_SWITCHES, plan.rounds):
        with open_testbed() as testbed, _attached(testbed, word) as loaded:
            yield from _hooks(testbed, loaded, word)


@contextlib.contextmanager
def _attached(testbed: Testbed, word: str) -> Iterator[LoadedPrograms]:
    max_flows = _FULL_MAP if word == "overflow" else _MAX_FLOWS
    settings = ProgramSettings(max_flows, 64, enrich=[] if word == _NONE else [word])
    with contextlib.ExitStack() as stack:
        loaded = stack.enter_context(contextlib.closing(load_programs(settings)))
        stack.enter_context(attached_tracing(loaded))
        with testbed.watched.namespace.enter():
            for direction in Direction:
                program = loaded.programs[f"{direction.name.lower()}_ethernet"]
                stack.callback(os.close, attach_tcx(program, testbed.watched.ifindex, direction))
        yield loaded


def _hooks(testbed: Testbed, loaded: LoadedPrograms, word: str) -> Iterator[Sample]:
    with contextlib.ExitStack() as stack:
        bare, link = bare_tracepoint()
        stack.callback(os.close, bare)
        stack.callback(os.close, link)
        conversations = stack.enter_context(Conversations(testbed))
        source = stack.enter_context(contextlib.closing(EventSource(loaded)))
        conversations.hold()  # caches are warm, and neighbours known, in all turns alike
        stack.callback(os.close, enable_stats())
        programs = {**loaded.programs, "bare": bare}
        before = {name: program_stats(fd) for name, fd in programs.items()}
        for _ in range(_PORTIONS):
            conversations.hold()
            while len(source.ring.take()):
                pass
        after = {name: program_stats(fd) for name, fd in programs.items()}
    runs = {name: after[name][1] - before[name][1] for name in programs}
    total_ns = {name: after[name][0] - before[name][0] for name in programs}
    yield from _samples(word, runs, total_ns)


def _samples(word: str, runs: Mapping[str, int], total_ns: Mapping[str, int]) -> Iterator[Sample]:
    measuring_ns = total_ns["bare"] / runs["bare"]
    packets = sum(runs[name] for name in PACKET_HOOKS)
    packet_ns = sum(total_ns[name] for name in PACKET_HOOKS) / packets - measuring_ns
    yield Sample(Quantity("hooks", f"{word}: packet hook, a packet", "ns"), "netwatch", packet_ns)
    for name, count in runs.items():
        # A hook that nothing came by has no figure.
        if name in HOOKS and name not in PACKET_HOOKS and count:
            quantity = Quantity("hooks", f"{word}: {HOOKS[name].target}, a run", "ns")
            yield Sample(quantity, "netwatch", total_ns[name] / count - measuring_ns)
