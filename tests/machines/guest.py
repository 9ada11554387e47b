"""What runs inside a virtual machine: `python -m tests.machines.guest [--short | --verify]`, started by `init`.

Invariant: each fact is reported as a line of JSON as soon as it is known, so a machine that hangs has told all before.
See also: `report.py` reads the lines; `capabilities.py` says which tests are run.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

import pytest

from netwatch.kernel.hooks import ENRICHMENTS
from netwatch.kernel.program import ProgramSettings, load_programs
from tests.machines.capabilities import CAPABILITIES, SHORT

_PORT = "/dev/ttyS1"
_CHECK = (sys.executable, "-m", "netwatch", "check")
# What is switched on makes the programs longer.
_SETTINGS = {"no enrichment": (), "everything": ENRICHMENTS}


class Reporter:
    """Writes lines, and is the plugin by which pytest tells of each test."""

    def __init__(self, port: IO[str]) -> None:
        self._port = port

    def report(self, **facts: Any) -> None:
        """Write one line."""
        print(json.dumps(facts), file=self._port, flush=True)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Report a test that ended: its call, or a set-up or teardown that failed or was skipped."""
        if report.when == "call" or report.outcome != "passed":
            path, _, name = report.nodeid.partition("::")
            self.report(test=name, file=path.rpartition("/")[2], outcome=report.outcome)


def check(reporter: Reporter) -> None:
    """Report what `netwatch check` says here."""
    run = subprocess.run(_CHECK, capture_output=True, text=True, check=False)
    print(run.stdout, run.stderr)
    reporter.report(check=run.stdout.splitlines(), exit=run.returncode)


def verify(reporter: Reporter) -> None:
    """Report how many instructions the verifier walked through, by settings and program."""
    for name, enrich in _SETTINGS.items():
        loaded = load_programs(ProgramSettings(max_flows=131_072, max_fragments=4_096, enrich=enrich))
        loaded.close()
        reporter.report(settings=name, verified=dict(loaded.verified), refused=dict(loaded.refused))


def test(reporter: Reporter, names: Sequence[str]) -> int:
    """Run tests of the kernel, all of which must be possible here; return pytest's exit code."""
    os.environ |= {"REQUIRE_KERNEL": "1", "REQUIRE_DEVICES": "1"}
    options = ["-v", "-p", "no:cacheprovider", "--durations=10"]
    return pytest.main([*options, *(f"tests/kernel/{name}" for name in names)], plugins=[reporter])


def main() -> int:
    """Check, verify, test. The exit code is that of the tests."""
    with open(_PORT, "w") as port:
        reporter = Reporter(port)
        reporter.report(release=platform.release())
        check(reporter)
        if "--short" in sys.argv:
            return test(reporter, SHORT)
        verify(reporter)
        if "--verify" in sys.argv:
            return 0
        return test(reporter, [name for names in CAPABILITIES.values() for name in names])


if __name__ == "__main__":
    sys.exit(main())
