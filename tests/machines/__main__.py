"""Boot virtual machines with Debian's kernels and see what netwatch can do there: `make kernels`.

Ends with 1 where a kernel could not do what it should. With `--write` the tables of README.md (not from a part of the
tests) and bpf/README.md are made from this run, unless something failed.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from pathlib import Path

from tests.machines.kernels import SUITES, fetch
from tests.machines.machine import Machine, choose_accelerator
from tests.machines.report import Result, capability_table, verifier_table, write_between_marks

_CHECKOUT = Path(__file__).parent.parent.parent
# About every second boot of 6.12 ended in a double fault while the kernel unpacked the initramfs, with nonsense in
# EFLAGS behind a cmpxchg16b, with one emulating thread as with two: QEMU 7.2's own fault. Such a boot takes 12 s.
_BOOTS = 8


def main() -> int:
    """Fetch, boot and report, one kernel after the other."""
    options = _parser().parse_args()
    kernels = options.kernels.split() or list(SUITES)
    results = []
    for name in kernels:
        kernel = fetch(SUITES[name], options.cache)
        machine = Machine(kernel, options.accelerator or choose_accelerator(kernel))
        print(f"{kernel.release}: booting ({machine.accelerator})", flush=True)
        began = time.monotonic()
        result = _run(machine, options)
        print(f"{kernel.release}: {time.monotonic() - began:.0f} s", flush=True)
        results.append(result)
    exit_code = _conclude(results)
    if options.write and not exit_code:
        if not options.part:
            write_between_marks(_CHECKOUT / "README.md", "kernels", capability_table(results))
        write_between_marks(_CHECKOUT / "bpf/README.md", "verifier", verifier_table(results))
    return exit_code


def _run(machine: Machine, options: argparse.Namespace) -> Result:
    """Boot until the guest has begun to report; what it reports then stands, whatever it is."""
    result = Result()
    for boot in range(1, _BOOTS + 1):
        try:
            for report in machine.run(options.root, options.part, options.timeout):
                result.add(report)
        except TimeoutError as late:
            print(f"{machine.kernel.release}: {late}", flush=True)
            break
        if result.release:
            break
        print(f"{machine.kernel.release}: boot {boot} of {_BOOTS} ended before the guest began", flush=True)
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.machines", description="what netwatch can do on other kernels"
    )
    parser.add_argument("--kernels", default="", help=f"some of: {' '.join(SUITES)} (all)")
    parser.add_argument("--root", type=Path, required=True, help="a bare root file system with netwatch installed")
    parser.add_argument("--cache", type=Path, required=True, help="where kernels are kept from run to run")
    part = parser.add_mutually_exclusive_group()
    add_part = functools.partial(part.add_argument, dest="part", action="append_const", default=[])
    add_part("--short", const="--short", help="one test of each promise: four minutes by emulation")
    add_part("--verify", const="--verify", help="load the programs, and run no test: a minute")
    parser.add_argument("--accelerator", choices=("kvm", "tcg"), help="instead of the fastest that works")
    parser.add_argument("--timeout", type=float, default=5_400, help="seconds for one machine")
    parser.add_argument("--write", action="store_true", help="write the tables of README.md and bpf/README.md")
    return parser


def _conclude(results: list[Result]) -> int:
    if any(result.tests for result in results):
        print(capability_table(results))
    if any(result.verified for result in results):
        print(verifier_table(results))
    passed = failed = 0
    for result in results:
        for problem in result.problems():
            print(f"{result.release}: {problem}")
        passed += sum(outcomes.count("passed") for outcomes in result.tests.values())
        passed += sum(len(programs) for programs in result.verified.values())
        failed += len(result.problems())
    print(f"kernels: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
