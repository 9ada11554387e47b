"""Which machine gets which fences, with the system call as a value."""

from __future__ import annotations

import errno

import pytest

from netwatch.errors import KernelUnsupported
from netwatch.kernel.fences import fences, fences_of


class Membarrier:
    """The system call: counts, and answers what it is told to."""

    def __init__(self, answer: int = 0) -> None:
        self.answer = answer
        self.numbers: list[int] = []

    def __call__(self, number: int) -> int:
        self.numbers.append(number)
        return self.answer


@pytest.mark.parametrize(("machine", "number"), [("aarch64", 283), ("riscv64", 283), ("ppc64le", 365)])
def test_machine_that_reorders_loads(machine: str, number: int) -> None:
    """Each fence is a system call of that machine's number."""
    membarrier = Membarrier()
    found = fences_of(machine, membarrier)
    membarrier.numbers.clear()
    found.after_loads()
    found.full()
    assert membarrier.numbers == [number, number]


def test_machine_that_keeps_loads_in_order() -> None:
    """X86 pays for nothing but the full fence."""
    membarrier = Membarrier()
    found = fences_of("x86_64", membarrier)
    membarrier.numbers.clear()
    found.after_loads()
    assert membarrier.numbers == []
    found.full()
    assert membarrier.numbers == [324]


def test_refused_where_nothing_else_keeps_the_order() -> None:
    """Records that may be read before they are written are no choice: it ends, with what the kernel said."""
    with pytest.raises(KernelUnsupported, match=r"membarrier\(2\): Operation not permitted on aarch64; needs"):
        fences_of("aarch64", Membarrier(errno.EPERM))


def test_refused_where_only_a_wake_up_may_be_late() -> None:
    """X86 goes on without."""
    membarrier = Membarrier(errno.EPERM)
    found = fences_of("x86_64", membarrier)
    membarrier.numbers.clear()
    found.full()
    assert membarrier.numbers == []


def test_this_machine() -> None:
    """The running kernel has the call."""
    found = fences()
    found.after_loads()
    found.full()
