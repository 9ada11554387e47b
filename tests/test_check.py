"""The verdicts of `netwatch check` on machines of every kind."""

from __future__ import annotations

import attrs
import pytest

from netwatch import check
from netwatch.check import Verdict, findings
from netwatch.kernel.probe import Machine
from netwatch.kernel.requirement import REQUIREMENTS, Answer, Requirement

WORKS = Answer()
INVALID = Answer("EINVAL", "Invalid argument")
FORBIDDEN = Answer("EPERM", "Operation not permitted")
MISSING = Answer("ENOENT", "No such file or directory")

GOOD = Machine(
    kernel_release="6.6.0-1-amd64",
    architecture="x86_64",
    byte_order="little",
    capabilities=(1 << 41) - 1,
    memlock_bytes=None,
    bpf=WORKS,
    features=tuple((requirement, WORKS) for requirement in REQUIREMENTS),
    tcx=WORKS,
    clsact=WORKS,
    tracepoints=WORKS,
    socket_hook=WORKS,
    bcc=Answer(detail="0.26.0"),
    uapi_headers=WORKS,
)
UNPRIVILEGED = attrs.evolve(
    GOOD,
    capabilities=0,
    bpf=FORBIDDEN,
    features=tuple((requirement, FORBIDDEN) for requirement in REQUIREMENTS),
    tcx=FORBIDDEN,
    clsact=FORBIDDEN,
    tracepoints=FORBIDDEN,
    socket_hook=FORBIDDEN,
)


def lines(machine: Machine, verdict: Verdict) -> list[str]:
    return [str(finding) for finding in findings(machine) if finding.verdict is verdict]


def test_machine_with_everything() -> None:
    """Every line says ok, and headers are said not to be needed."""
    found = findings(GOOD)
    assert lines(GOOD, Verdict.OK) == [str(finding) for finding in found]
    assert "ok   kernel 6.6.0-1-amd64 (6.6 or newer for TCX)" in map(str, found)
    assert "ok   kernel headers: not needed" in map(str, found)


@pytest.mark.parametrize(
    ("fact", "line"),
    [
        ("tracepoints", "warn BTF tracepoints: No such file or directory: no drops, no TCP"),
        ("socket_hook", "warn cgroup hook of sockets: No such file or directory: fewer processes are known"),
    ],
)
def test_less_is_found_out(fact: str, line: str) -> None:
    """What only enriches is no reason not to run, and the line says what will be missing."""
    machine = attrs.evolve(GOOD, **{fact: MISSING})
    assert lines(machine, Verdict.WARN) == [line]
    assert lines(machine, Verdict.FAIL) == []


UNTRIED = "netwatch has not been tried before Linux 6.1"


@pytest.mark.parametrize(
    ("fact", "value", "line"),
    [
        ("kernel_release", "5.10.0-30-amd64", "FAIL kernel 5.10.0-30-amd64: Linux 5.12 or newer is needed"),
        ("kernel_release", "unheard of", "FAIL kernel unheard of: Linux 5.12 or newer is needed"),
        ("byte_order", "big", "FAIL architecture x86_64: big-endian"),
        ("capabilities", 0, "FAIL capabilities: missing CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF: run as root, or grant it"),
        ("capabilities", 1 << 12 | 1 << 39, "FAIL capabilities: missing CAP_PERFMON: run as root"),
        ("capabilities", 1 << 21, "FAIL capabilities: missing CAP_NET_ADMIN: run as root"),
        ("bpf", Answer("ENOSYS"), "FAIL bpf system call: ENOSYS: needs a kernel with CONFIG_BPF_SYSCALL"),
        ("bpf", FORBIDDEN, "FAIL bpf system call: EPERM: it takes capabilities of the host"),
        ("bcc", Answer("ENOENT", "No module named 'bcc'"), "FAIL BCC: No module named 'bcc': install it: apt install"),
        ("uapi_headers", Answer("ENOENT", "/usr/include/linux/if_ether.h"), "FAIL UAPI headers: no /usr/include/linux"),
    ],
)
def test_one_thing_missing(fact: str, value: object, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly one line fails, with what is missing and the remedy, and the exit code is 1."""
    machine = attrs.evolve(GOOD, **{fact: value})
    (failed,) = lines(machine, Verdict.FAIL)
    assert failed.startswith(line)
    assert ": " in failed

    monkeypatch.setattr(check, "probe_machine", lambda: machine)
    text, code = check.run()
    assert code == 1
    assert failed + "\n" in text
    assert text.endswith(f"netwatch cannot run here: 1 of {len(findings(machine))} checks failed\n")


@pytest.mark.parametrize("missing", REQUIREMENTS, ids=lambda requirement: requirement.title)
def test_feature_missing(missing: Requirement) -> None:
    """Whatever the kernel lacks of the requirements is one line with the errno and the remedy."""
    features = tuple((each, INVALID if each is missing else WORKS) for each in REQUIREMENTS)
    machine = attrs.evolve(GOOD, features=features)
    assert lines(machine, Verdict.FAIL) == [f"FAIL {missing.title}: EINVAL: {missing.remedy}"]


def test_good_machine_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing fails, a sentence says so and the exit code is 0."""
    monkeypatch.setattr(check, "probe_machine", lambda: GOOD)
    text, code = check.run()
    assert (code, text.splitlines()[-1]) == (0, "netwatch can run here")


def test_unprivileged_user() -> None:
    """Without rights nothing is said of features that could not be tried: the two causes fail, no more."""
    assert [line[:16] for line in lines(UNPRIVILEGED, Verdict.FAIL)] == ["FAIL capabilitie", "FAIL bpf system "]
    not_tried = lines(UNPRIVILEGED, Verdict.WARN)
    assert len(not_tried) == len(REQUIREMENTS) + len(("TCX", "clsact", "tracepoints", "sockets"))
    assert all("not tried" in line for line in not_tried)


def test_kernel_before_tcx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12's kernel has clsact only: a warning, and it can run."""
    machine = attrs.evolve(GOOD, kernel_release="6.1.0-25-amd64", tcx=INVALID)
    assert lines(machine, Verdict.WARN) == ["warn TCX: needs Linux 6.6; clsact will be used"]
    assert lines(machine, Verdict.FAIL) == []
    monkeypatch.setattr(check, "probe_machine", lambda: machine)
    assert check.run()[1] == 0


def test_kernel_before_tcx_where_clsact_cannot_be_tried() -> None:
    """Capabilities for BPF alone do not allow a namespace to try in: no reason to fail."""
    machine = attrs.evolve(GOOD, tcx=INVALID, clsact=FORBIDDEN)
    assert lines(machine, Verdict.FAIL) == []


def test_neither_tcx_nor_clsact() -> None:
    """Without any hook nothing works, and both lines say what would help."""
    machine = attrs.evolve(GOOD, tcx=INVALID, clsact=MISSING)
    tcx, clsact = lines(machine, Verdict.FAIL)
    assert tcx == "FAIL TCX: needs Linux 6.6, or clsact"
    assert clsact.endswith("needs CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF")


def test_clsact_missing_beside_tcx() -> None:
    """Nobody needs clsact where TCX works."""
    machine = attrs.evolve(GOOD, clsact=MISSING)
    assert lines(machine, Verdict.FAIL) == []
    assert len(lines(machine, Verdict.WARN)) == 1


def test_loopback_with_a_full_chain() -> None:
    """What others have attached to lo is no property of the kernel."""
    machine = attrs.evolve(GOOD, tcx=Answer("ERANGE", "Numerical result out of range"))
    (line,) = lines(machine, Verdict.WARN)
    assert line.startswith("warn TCX: ERANGE on lo")


@pytest.mark.parametrize(("release", "is_tried"), [("6.1.0-50-cloud-amd64", True), ("5.15.0-100-generic", False)])
def test_kernel_that_nobody_tried(release: str, is_tried: bool) -> None:
    """A kernel that may do, but has not been seen to, is a warning."""
    old = [line for line in lines(attrs.evolve(GOOD, kernel_release=release), Verdict.WARN) if "not been tried" in line]
    assert old == ([] if is_tried else [f"warn kernel {release} (before 6.6: clsact, not TCX): {UNTRIED}"])


@pytest.mark.parametrize(("release", "fails"), [("5.12.0", False), ("5.10.0", True)])
def test_limit_of_locked_memory(release: str, fails: bool) -> None:
    """It concerns maps before Linux 5.11 only, and only where there is one."""
    limited = attrs.evolve(GOOD, kernel_release=release, memlock_bytes=8 << 20)
    assert any("locked memory" in line for line in lines(limited, Verdict.FAIL)) == fails
    unlimited = attrs.evolve(limited, memlock_bytes=None)
    assert not any("locked memory" in line for line in lines(unlimited, Verdict.FAIL))
