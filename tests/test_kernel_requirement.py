"""What is said where the kernel lacks something; no kernel is asked here."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from netwatch.errors import KernelUnsupported, PermissionMissing
from netwatch.kernel import requirement
from netwatch.kernel.requirement import Answer, Requirement, answer, missing_capabilities, require_kernel

NET_ADMIN, SYS_ADMIN, PERFMON, BPF = 1 << 12, 1 << 21, 1 << 38, 1 << 39


def refuse(number: int) -> Callable[[], None]:
    def attempt() -> None:
        raise OSError(number, os.strerror(number))

    return attempt


def work() -> None:
    pass


@pytest.fixture(autouse=True)
def _kernel_with_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirement, "effective_capabilities", lambda: NET_ADMIN | PERFMON | BPF)
    monkeypatch.setattr(requirement, "make_hash_map", work)
    monkeypatch.setattr(requirement, "REQUIREMENTS", (Requirement("ring buffer", work, "needs Linux 5.8"),))


def test_kernel_with_everything() -> None:
    """Three capabilities are enough; nobody has to be root."""
    require_kernel()


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        (0, ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]),
        (NET_ADMIN | BPF, ["CAP_PERFMON"]),
        (SYS_ADMIN, ["CAP_NET_ADMIN"]),
        (SYS_ADMIN | NET_ADMIN, []),
    ],
)
def test_capabilities(held: int, missing: list[str]) -> None:
    """Each that is missing is named; CAP_SYS_ADMIN stands for the two that were made out of it."""
    assert missing_capabilities(held) == missing


def test_user_without_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """The missing ones are named, with the remedy."""
    monkeypatch.setattr(requirement, "effective_capabilities", lambda: BPF)
    with pytest.raises(PermissionMissing, match=r"^missing CAP_NET_ADMIN, CAP_PERFMON: run as root, or grant it"):
        require_kernel()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_capabilities_that_do_not_count(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root of a container or user namespace is told that it is not the host's root."""
    monkeypatch.setattr(requirement, "make_hash_map", refuse(number))
    with pytest.raises(PermissionMissing, match=r"bpf\(2\): it takes capabilities of the host"):
        require_kernel()


def test_kernel_without_bpf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without the system call is another matter than one that refuses it."""
    monkeypatch.setattr(requirement, "make_hash_map", refuse(errno.ENOSYS))
    with pytest.raises(
        KernelUnsupported, match=r"^bpf system call: ENOSYS in Linux .*; needs a kernel with CONFIG_BPF"
    ):
        require_kernel()


def test_kernel_without_a_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feature, the kernel's answer, its version and the remedy."""
    lacking = Requirement("ring buffer", refuse(errno.EINVAL), "needs Linux 5.8")
    monkeypatch.setattr(requirement, "REQUIREMENTS", (lacking,))
    with pytest.raises(KernelUnsupported, match=r"^ring buffer: EINVAL in Linux .*; needs Linux 5.8$"):
        require_kernel()


def test_answer_of_an_unknown_errno() -> None:
    """ENOTSUPP (524) is the kernel's own and has no name in user space: the number is shown."""
    assert answer(refuse(524)) == Answer("524", os.strerror(524))
