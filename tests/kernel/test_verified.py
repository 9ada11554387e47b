"""What is told of each loaded program: its size, and how far the verifier had to go."""

from __future__ import annotations

import os

import pytest

from netwatch.kernel.hooks import ENRICHMENTS, HOOKS
from netwatch.kernel.program import MAX_VERIFIED, ProgramSettings, load_programs
from netwatch.kernel.syscall import load_program, verified_instructions

# r0 = 0; exit, as often as is asked for.
_SET, _EXIT = bytes.fromhex("b700000000000000"), bytes.fromhex("9500000000000000")
_SCHED_CLS = 3


@pytest.mark.parametrize("more", [0, 96])
def test_program_without_branches(more: int) -> None:
    """Each of its instructions is gone through once."""
    program = load_program(_SCHED_CLS, _SET * (1 + more) + _EXIT)
    try:
        assert verified_instructions(program) == 2 + more
    finally:
        os.close(program)


def test_programs_of_a_run() -> None:
    """Each has a size and a count; the count is within the limit, and smaller where less is compiled in."""
    counts = []
    for enrich in ENRICHMENTS, ():
        loaded = load_programs(ProgramSettings(64, 64, enrich=enrich))
        loaded.close()
        assert set(loaded.instructions) == set(loaded.verified) == set(loaded.programs)
        assert all(size > 0 for size in loaded.instructions.values())
        assert all(0 < count < MAX_VERIFIED for count in loaded.verified.values())
        counts.append(loaded.verified["ingress_ethernet"])
    assert set(loaded.verified) < set(HOOKS)
    assert counts[0] > counts[1]
