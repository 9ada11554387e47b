"""What a killed agent leaves on interfaces that it attached to by clsact filters: nothing, and soon.

Times are not asserted, because a busy machine has its own: netwatch promises two seconds, and these tests wait ten.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netwatch.kernel.tc_guardian import start_guardian
from tests.kernel.bare_programs import TCX_PASS, add_foreign_filter, foreign_program, tc_filters
from tests.kernel.bystander import bystander
from tests.kernel.guardian_process import guardian_of, guardians_of, has_ended, kill_guardian
from tests.kernel.hosts import Interface, Namespace
from tests.kernel.kernel_objects import KernelObject, objects_left
from tests.kernel.waiting import look_until
from tests.kernel.watcher import PROGRAMS, Watcher

INTERFACES = 20


@pytest.fixture
def namespace(namespaces: Callable[[], Namespace]) -> Iterator[Namespace]:
    """Return a namespace with twenty interfaces, `a0` to `a9` and `b0` to `b9`."""
    made = namespaces()
    for number in range(INTERFACES // 2):
        made.run("ip", "link", "add", f"a{number}", "type", "veth", "peer", "name", f"b{number}")
    return made


def with_clsact(namespace: Namespace) -> list[str]:
    """Return the interfaces that have the qdisc."""
    shown = namespace.run("tc", "qdisc", "show").splitlines()
    return sorted(line.split()[line.split().index("dev") + 1] for line in shown if line.startswith("qdisc clsact"))


def filters(interface: Interface) -> list[str]:
    """Return the names of all filters, of both directions."""
    found = tc_filters(interface, "ingress") + tc_filters(interface, "egress")
    return [str(one["options"].get("bpf_name")) for one in found]


def wait_until_clear(namespace: Namespace) -> None:
    """Wait until no interface has the qdisc."""
    assert look_until(lambda: with_clsact(namespace), lambda found: not found) == []


def programs_of(watcher: Watcher, *events: str) -> list[KernelObject]:
    """Return the programs at the hooks ("loaded": the entries), and those behind them ("behind")."""
    return [KernelObject("prog", told[name]) for told in map(watcher.wait, events) for name in PROGRAMS]


def test_twenty_interfaces(namespace: Namespace) -> None:
    """After SIGKILL no filter, qdisc or program of ours is left, and no process."""
    with Watcher(namespace, "tc") as watcher:
        watcher.wait("started")
        programs, guardian = programs_of(watcher, "loaded", "behind"), guardian_of(watcher.pid)
        assert len(set(programs)) == 8
        assert all(one.exists() for one in programs)
        assert len(with_clsact(namespace)) == INTERFACES
        watcher.kill()
        wait_until_clear(namespace)
        assert objects_left(programs) == []
        assert look_until(lambda: has_ended(guardian), bool)


def test_what_is_not_ours_stays(namespace: Namespace) -> None:
    """A qdisc of others, a filter of others on our qdisc, and another agent; a deleted interface is no obstacle."""
    a0, a1, a2 = (namespace.interface(name) for name in ("a0", "a1", "a2"))
    namespace.run("tc", "qdisc", "add", "dev", "a0", "clsact")
    with foreign_program(TCX_PASS) as other, Watcher(namespace, "tc", "a2") as living:
        living.wait("started")
        kept = filters(a2)
        assert len(kept) == 2
        with Watcher(namespace, "tc") as killed:
            killed.wait("started")
            add_foreign_filter(a1, other, "pref", "7")
            namespace.run("ip", "link", "del", "a9")
            killed.wait("detached")
            killed.kill()
            assert look_until(lambda: with_clsact(namespace), lambda found: len(found) == 3) == ["a0", "a1", "a2"]
        assert filters(a0) == []
        assert [one["options"]["prog"]["id"] for one in tc_filters(a1, "ingress")] == [other.id]
        assert tc_filters(a1, "egress") == []
        assert filters(a2) == kept
    assert with_clsact(namespace) == ["a0", "a1"]


@pytest.mark.parametrize("moment", ["attached", "detached"])
@pytest.mark.parametrize("number", [1, 2, 7, 13])
def test_kill_in_the_middle(namespace: Namespace, moment: str, number: int) -> None:
    """While it attaches to the interfaces one after the other, or detaches: nothing is left of either."""
    with Watcher(namespace, "tc") as watcher:
        if moment == "detached":
            watcher.wait("started")
            watcher.terminate()
        for _ in range(number):
            watcher.wait(moment)
        watcher.kill()
        wait_until_clear(namespace)


def test_signals_to_all(namespace: Namespace) -> None:
    """Who ends a service signals all of its processes: the guardian stays until the agent has ended."""
    with Watcher(namespace, "tc", "a0") as watcher:
        watcher.wait("started")
        guardian = guardian_of(watcher.pid)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            os.kill(guardian, number)
        assert not has_ended(guardian)
        watcher.kill()
        wait_until_clear(namespace)


def test_what_the_guardian_holds(namespace: Namespace) -> None:
    """The pipe and nothing else: no stream of the agent's, no terminal, no directory; a session of its own."""
    with Watcher(namespace, "tc", "a0") as watcher:
        watcher.wait("started")
        process = Path(f"/proc/{guardian_of(watcher.pid)}")
        held = {int(link.name): os.readlink(link) for link in (process / "fd").iterdir() if int(link.name) < 10}
        assert held.pop(0).startswith("pipe:")
        assert held == {1: "/dev/null", 2: "/dev/null"}
        assert os.readlink(process / "cwd") == "/"
        assert os.getsid(int(process.name)) == int(process.name)
        assert b"netwatch-guardian" in (process / "cmdline").read_bytes().split(b"\0")
        watcher.stop()
        assert has_ended(int(process.name))


def test_only_clsact_needs_one(namespace: Namespace) -> None:
    """TCX links go with the process."""
    with Watcher(namespace, "tcx", "a0") as watcher:
        watcher.wait("started")
        assert guardians_of(watcher.pid) == []


def test_without_guardian(namespace: Namespace) -> None:
    """Where it is killed, too, the kernel frees the programs all the same; packets pass, and the next run clears up."""
    with Watcher(namespace, "tc") as watcher:
        watcher.wait("started")
        entries, behind = programs_of(watcher, "loaded"), programs_of(watcher, "behind")
        watcher.kill_with_guardian()
        assert objects_left(behind) == []
        assert [one.exists() for one in entries] == [True, True, False, False]
        assert len(with_clsact(namespace)) == INTERFACES
    with Watcher(namespace, "tcx", "a0") as next_one:
        assert next_one.wait("log", "INFO")["text"] == f"removed {2 * INTERFACES} filters of a netwatch that was killed"
        assert with_clsact(namespace) == []
    assert objects_left(entries) == []


def test_a_guardian_that_was_killed_before(namespace: Namespace) -> None:
    """The agent ends in order without it."""
    with Watcher(namespace, "tc") as watcher:
        watcher.wait("started")
        kill_guardian(guardian_of(watcher.pid))
        watcher.stop()
        assert not [told for told in watcher.told if told["event"] == "log"]
    assert with_clsact(namespace) == []


def test_a_stopped_guardian(namespace: Namespace) -> None:
    """It holds up neither the end of its agent nor the next run, which clears up what it does not."""
    with Watcher(namespace, "tc") as watcher:
        watcher.wait("started")
        guardian = guardian_of(watcher.pid)
        os.kill(guardian, signal.SIGSTOP)
        watcher.kill()
        with Watcher(namespace, "tc", "a0") as next_one:
            next_one.wait("log", "INFO")
            next_one.wait("started")
            os.kill(guardian, signal.SIGCONT)
            assert look_until(lambda: has_ended(guardian), bool)
            assert with_clsact(namespace) == ["a0"]
            assert len(filters(namespace.interface("a0"))) == 2


def test_a_user_without_rights(namespace: Namespace) -> None:
    """Whoever takes all that a user may take, as soon as it is free, does not hold the guardian up."""
    with Watcher(namespace, "tc") as watcher:
        watcher.wait("started")
        port = int(filters(namespace.interface("a0"))[0].split("-")[1], 16)
        guardian = guardian_of(watcher.pid)
        os.kill(guardian, signal.SIGSTOP)
        watcher.kill()
        with bystander(namespace, port) as told:
            assert {"lock", "port", "name"} <= {*told["got"]}
            os.kill(guardian, signal.SIGCONT)
            wait_until_clear(namespace)


def test_no_shell(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A container without one runs all the same, and the log says what is missing."""

    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, os.strerror(2))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert start_guardian(1) is None
    (record,) = caplog.records
    assert record.getMessage() == (
        "no guardian: /bin/sh: No such file or directory; what SIGKILL leaves stays until the next run"
    )
