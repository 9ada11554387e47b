"""What the machines reported, as two tables: capabilities by kernel, and verifier counts by kernel and program.

Invariant: only what was reported stands in a table; a capability none of whose tests ran has a dash.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from netwatch.kernel.program import MAX_VERIFIED
from tests.machines.capabilities import CAPABILITIES

_FILES = {name: capability for capability, names in CAPABILITIES.items() for name in names}


@attrs.define
class Result:
    """What one machine reported."""

    release: str = ""
    check_exit: int | None = None
    tests: dict[str, list[str]] = attrs.Factory(lambda: defaultdict(list))  # outcomes by capability
    failed: list[str] = attrs.Factory(list)
    verified: dict[str, dict[str, int]] = attrs.Factory(dict)  # by settings, by program
    refused: list[str] = attrs.Factory(list)
    has_ended: bool = False

    def add(self, report: Mapping[str, Any]) -> None:
        """Take one line of the guest."""
        match report:
            case {"release": release}:
                self.release = release
            case {"check": _, "exit": code}:
                self.check_exit = code
            case {"settings": settings, "verified": verified, "refused": refused}:
                self.verified[settings] = verified
                self.refused += [f"{settings}: {name}: {why}" for name, why in refused.items()]
            case {"test": name, "file": file, "outcome": outcome}:
                self.tests[_FILES.get(file, file)].append(outcome)
                if outcome != "passed":
                    self.failed.append(f"{file}::{name}: {outcome}")
            case {"guest": _}:
                self.has_ended = True

    def problems(self) -> list[str]:
        """Return what was not as it should be; empty where the kernel can do all that was tried."""
        problems = [*self.failed, *self.refused]
        if self.check_exit != 0:
            problems.append(f"netwatch check: exit {self.check_exit}")
        if not self.has_ended:
            problems.append("the guest did not come to its end")
        if not self.tests and not self.verified:
            problems.append("nothing was tried")
        return problems

    def cell(self, capability: str) -> str:
        """Return a table's word for a capability."""
        outcomes = self.tests.get(capability, [])
        if not outcomes:
            return "-"
        passed = outcomes.count("passed")
        return f"yes ({passed})" if passed == len(outcomes) else f"{passed} of {len(outcomes)}"


def capability_table(results: Sequence[Result]) -> str:
    """Return the table of the README: in brackets, how many tests passed."""
    rows = [[capability, *(result.cell(capability) for result in results)] for capability in CAPABILITIES]
    return _table(["", *(result.release for result in results)], rows)


def verifier_table(results: Sequence[Result]) -> str:
    """Return the table of bpf/README.md: the most instructions of any program, by settings and kernel."""
    programs = sorted({name for result in results for counts in result.verified.values() for name in counts})
    rows = []
    for settings in results[0].verified:
        for program in programs:
            counts = [result.verified.get(settings, {}).get(program) for result in results]
            if any(counts):
                rows.append([settings, f"`{program}`", *(f"{count:,}" if count else "-" for count in counts)])
    limit = f"The limit is {MAX_VERIFIED:,}."
    return f"{_table(['settings', 'program', *(result.release for result in results)], rows)}\n\n{limit}"


def write_between_marks(path: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- end of NAME -->`."""
    before, after = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    content = path.read_text()
    pattern = re.escape(before) + ".*?" + re.escape(after)
    replaced, count = re.subn(pattern, lambda _: f"{before}{text}\n{after}", content, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{path} has {count} places for {name}")
    path.write_text(replaced)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
