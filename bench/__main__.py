"""`python -m bench`: measure, print a table, write JSON.

Law: the table goes to stdout, what happens meanwhile to stderr; a run that is interrupted or fails still
tells what it has measured.
Neighbours: the benchmarks yield samples, `report.py` makes the table.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from bench import (
    delivery,
    drain_cost,
    enrich_cost,
    export_cost,
    hook_cost,
    idle_cost,
    memory_cost,
    program_cost,
    ring_cost,
)
from bench.daemon import DaemonFailed
from bench.generator import GeneratorFailed
from bench.machine import describe_machine, loop_ns
from bench.measure import Sample, collect_results
from bench.peer import PEER_VARIABLE, agents_of
from bench.plan import Plan
from bench.report import Report, as_json, as_markdown, as_text, from_json, number
from bench.sink import SinkFailed
from netwatch.complaint import EXIT_INTERRUPTED

BENCHMARKS: Mapping[str, Callable[[Plan], Iterator[Sample]]] = {
    "export": export_cost.measure,
    "program": program_cost.measure,
    "drain": drain_cost.measure,
    "idle": idle_cost.measure,
    "memory": memory_cost.measure,
    "delivery": delivery.measure,
    "enrich": enrich_cost.measure,
    "ring": ring_cost.measure,
    "hooks": hook_cost.measure,
}
_DEFAULT_JSON = Path("build/bench.json")  # git ignores build/


def main(argv: Sequence[str]) -> int:
    """Do what the command line says and return the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    names = arguments.benchmarks or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {unknown[0]!r}; choose from {', '.join(BENCHMARKS)}")
    if arguments.markdown:
        print(as_markdown(from_json(arguments.markdown.read_text())), end="")
        return 0
    if os.geteuid():
        parser.error("needs root: network namespaces and BPF")
    path = os.environ.get(PEER_VARIABLE)
    if path and not os.access(path, os.X_OK):
        parser.error(f"{PEER_VARIABLE}={path}: no such program")
    # Asked for before an hour of measuring, not after it.
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    plan = Plan(agents_of(os.environ), arguments.rounds, arguments.seconds)
    machine, began = describe_machine(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    run = _Run(plan)
    code = run.measure(names)
    command = shlex.join(["python", "-m", "bench", *argv])
    report = Report(machine, began, command, plan.rounds, run.speeds_ns, collect_results(run.samples))
    arguments.json.write_text(as_json(report))
    print(as_text(report), end="")
    print(f"written to {arguments.json}", file=sys.stderr)
    return code


@attrs.define
class _Run:
    """What has been measured so far, and how fast the processor was meanwhile."""

    plan: Plan
    samples: list[Sample] = attrs.Factory(list)
    speeds_ns: list[float] = attrs.Factory(list)

    def measure(self, names: Sequence[str]) -> int:
        """Run benchmarks one after the other. Returns the exit code; what was measured before a failure stays."""
        try:
            for name in names:
                self.speeds_ns.append(loop_ns())
                for sample in BENCHMARKS[name](self.plan):
                    self.samples.append(sample)
                    _tell(sample)
        except KeyboardInterrupt:
            print("interrupted: the table is incomplete", file=sys.stderr)
            return EXIT_INTERRUPTED
        except (DaemonFailed, GeneratorFailed, SinkFailed) as failure:
            print(f"{failure}\nthe table is incomplete", file=sys.stderr)
            return 1
        finally:
            self.speeds_ns.append(loop_ns())
        return 0


def _tell(sample: Sample) -> None:
    quantity = sample.quantity
    print(f"{sample.agent}: {quantity.name}: {number(sample.value)} {quantity.unit}", file=sys.stderr, flush=True)


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def number_above_zero(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
        return value

    return number_above_zero


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure what netwatch costs and loses, on traffic in network namespaces.",
        epilog=f"{PEER_VARIABLE}=PATH measures NetObserv's agent beside it.",
    )
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"which: {', '.join(BENCHMARKS)} (all)")
    parser.add_argument(
        "--rounds", type=_positive(int), default=3, help="how often each thing is measured (%(default)s)"
    )
    parser.add_argument("--seconds", type=_positive(float), default=20, help="traffic of each run (%(default)s)")
    parser.add_argument("--json", type=Path, default=_DEFAULT_JSON, metavar="FILE", help="results (%(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="measure nothing: print FILE as Markdown")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
