"""How the daemon ends: what it has seen leaves before it does, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from attrs import evolve

from bench.generator import Generator, Traffic, generate
from netwatch.kernel.compile import FLOW_MAP_NAMES
from tests.kernel.agent_process import ATTACHED, AgentProcess
from tests.kernel.bare_programs import TCX_EGRESS, TCX_INGRESS, qdiscs, tc_filters, tcx_programs
from tests.kernel.command import started
from tests.kernel.guardian_process import guardian_of, guardians_of, has_ended, kill_guardian
from tests.kernel.hosts import Interface, Pair
from tests.kernel.kernel_objects import KernelObject, is_empty, objects_left, objects_of, processes_left, processes_with
from tests.kernel.ledger_file import account_of, read_ledger
from tests.kernel.leftovers import programs, programs_left
from tests.kernel.test_conservation import assert_balanced
from tests.kernel.waiting import PATIENCE_S, look_until

NOWHERE = "grpc://127.0.0.1:1"  # no collector has ever listened there


@pytest.fixture
def traffic(pair: Pair) -> Traffic:
    """Flows that come in at `right0`, where nobody answers: the frames are for another host."""
    return Traffic(
        interface=pair.left.name,
        source="10.0.0.1",
        destination="10.0.0.2",
        flows=1009,
        packets_per_flow=3,
    )


def hooks(interface: Interface) -> list[int]:
    """Return the programs on both hooks of an interface, by links and by filters."""
    filters = tc_filters(interface, "ingress") + tc_filters(interface, "egress")
    links = tcx_programs(interface, TCX_INGRESS) + tcx_programs(interface, TCX_EGRESS)
    return links + [one["options"]["prog"]["id"] for one in filters]


def test_flows_in_the_map(pair: Pair, traffic: Traffic, agent: Callable[..., AgentProcess]) -> None:
    """After SIGTERM all that was never drained is exported, and the hooks are free."""
    daemon = agent(pair.right.namespace, "-i", "right0", "--active-timeout", "1h")
    sent = generate(traffic, pair.left.namespace.prefix)
    result = daemon.stop()
    assert_balanced(result)
    assert (len(result.flows), result.sum("Packets"), result.sum("Bytes")) == (1009, sent.packets, sent.bytes)
    assert {flow["Packets"] for flow in result.flows} == {3}
    assert hooks(pair.right) == []


def test_ctrl_c_in_the_middle_of_traffic(pair: Pair, traffic: Traffic, agent: Callable[..., AgentProcess]) -> None:
    """Packets that come while it stops are either after the last hook or in the ledger: it balances."""
    daemon = agent(pair.right.namespace, "-i", "right0", "--active-timeout", "0.1")
    with Generator(evolve(traffic, flows=50_021, duration_s=60), pair.left.namespace.prefix) as generator:
        daemon.wait_for_flows(lambda flows: len(flows) > 100)
        result = daemon.stop(signal.SIGINT)
        generator.stop()
    assert_balanced(result)
    assert hooks(pair.right) == []


def test_duration(pair: Pair, traffic: Traffic, agent: Callable[..., AgentProcess]) -> None:
    """It ends by itself as after SIGTERM, with everything exported."""
    slow = evolve(traffic, flows=50_021, flows_per_second=1000, duration_s=60)
    with Generator(slow, pair.left.namespace.prefix) as generator:
        daemon = agent(pair.right.namespace, "-i", "right0", "--active-timeout", "1h", "--duration", "0.5")
        result = daemon.wait()
        generator.stop()
    assert_balanced(result)
    assert result.sum("Packets") > 0
    assert hooks(pair.right) == []


def test_second_signal(pair: Pair, traffic: Traffic, agent: Callable[..., AgentProcess]) -> None:
    """Whoever does not want to wait for a collector that is down signals once more; no hook stays."""
    nobody = ("-x", NOWHERE, "--grace", "1h", "--active-timeout", "1h")
    daemon = agent(pair.right.namespace, "-i", "right0", *nobody)
    generate(traffic, pair.left.namespace.prefix)
    held = objects_of(daemon.pid)
    daemon.send_signal(signal.SIGTERM)
    daemon.wait_for_log("trying again")  # the hooks are gone, and it waits for the collector
    result = daemon.stop(signal.SIGTERM)
    assert result.exit_code == 128 + signal.SIGTERM
    assert result.log[-1] == "netwatch: warning: second signal: ending at once, what is queued is lost"
    assert objects_left(held) == []
    assert hooks(pair.right) == []


@pytest.mark.parametrize("mode", ["tcx", "tc"])
def test_kill_while_it_captures(pair: Pair, traffic: Traffic, agent: Callable[..., AgentProcess], mode: str) -> None:
    """SIGKILL leaves no link, filter, program, map or process, while packets come and flows are in the map."""
    before = programs()
    daemon = agent(pair.right.namespace, "-i", "right0", "--active-timeout", "0.1", "--attach", mode)
    with Generator(evolve(traffic, flows=50_021, duration_s=60), pair.left.namespace.prefix) as generator:
        daemon.wait_for_flows(lambda flows: len(flows) > 100)
        held, guardians = objects_of(daemon.pid), guardians_of(daemon.pid)
        assert {one.kind for one in held} == {"prog", "map", "link"}
        assert len(hooks(pair.right)) == 2
        daemon.send_signal(signal.SIGKILL)
        assert daemon.process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
        assert look_until(lambda: hooks(pair.right), is_empty) == []
        assert objects_left(held) == []
        assert programs_left(before) == {}
        assert look_until(lambda: all(map(has_ended, guardians)), bool)
        generator.stop()
    assert len(guardians) == (mode == "tc")
    assert qdiscs(pair.right) == ["noqueue"]


def test_kill_of_the_whole_group(pair: Pair, traffic: Traffic, agent: Callable[..., AgentProcess]) -> None:
    """With the guardian killed, too, maps and memory go all the same; what stays on the interface counts nothing."""
    before = programs()
    daemon = agent(pair.right.namespace, "-i", "right0", "--attach", "tc")
    held = objects_of(daemon.pid)
    entries = [one["options"]["prog"]["id"] for way in ("ingress", "egress") for one in tc_filters(pair.right, way)]
    maps = {one for one in held if one.kind == "map"}
    assert len(maps) > len(FLOW_MAP_NAMES)
    kill_guardian(guardian_of(daemon.pid))
    daemon.send_signal(signal.SIGKILL)
    assert daemon.process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
    # The array that the entries name, which is empty now.
    (array,) = look_until(lambda: [one for one in maps if one.exists()], lambda left: len(left) == 1)
    assert {*look_until(lambda: programs_left(before, 0), lambda left: len(left) == 2)} == {*entries}
    sent = generate(traffic, pair.left.namespace.prefix)
    assert pair.right.statistics().rx_packets >= sent.packets
    agent(pair.right.namespace, "-i", "right0").stop()
    assert qdiscs(pair.right) == ["noqueue"]
    assert objects_left([array]) == []
    assert programs_left(before) == {}


def is_compiling(daemon: int, processes: Sequence[int]) -> bool:
    """Say whether the child is there."""
    return any(pid != daemon for pid in processes)


def has_loaded_in_child(daemon: int, processes: Sequence[int]) -> bool:
    """Say whether the child holds programs, which the daemon gets from it."""
    return any(pid != daemon and any(one.kind == "prog" for one in objects_of(pid)) for pid in processes)


def has_loaded_anywhere(processes: Sequence[int]) -> bool:
    """Say whether one of the processes holds programs."""
    return any(one.kind == "prog" for pid in processes for one in objects_of(pid))


def catches(pid: int, number: signal.Signals) -> bool:
    """Say whether a process has a handler for a signal: while it still imports what it needs, SIGTERM ends it."""
    (caught,) = (line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in line)
    return bool(int(caught, 16) >> number - 1 & 1)


def has_loaded(daemon: int, processes: Sequence[int]) -> bool:
    """Say whether the daemon holds the programs."""
    del processes
    return any(one.kind == "prog" for one in objects_of(daemon))


@pytest.mark.parametrize("moment", [is_compiling, has_loaded_in_child, has_loaded])
def test_kill_while_it_starts(moment: Callable[[int, Sequence[int]], bool], pair: Pair, tmp_path: Path) -> None:
    """SIGKILL before it captures leaves nothing either: no object, no file, and the child that compiles ends."""
    token = f"TEST_OF_NETWATCH={os.getpid()}-{moment.__name__}"
    variables = {"TMPDIR": str(tmp_path), **dict([token.split("=")])}
    before, seen = programs(), set[KernelObject]()
    with started(pair.right.namespace, "run", "-i", "right0", variables=variables) as daemon:
        deadline = time.monotonic() + PATIENCE_S
        while not moment(daemon.pid, family := processes_with(token)):
            seen.update(*map(objects_of, family))
            assert daemon.poll() is None
            assert time.monotonic() < deadline
        seen.update(*map(objects_of, family))
        daemon.kill()
        _, stderr = daemon.communicate()
    assert (daemon.returncode, ATTACHED in stderr) == (-signal.SIGKILL, False)
    assert processes_left(token) == []
    assert objects_left(seen) == []
    assert hooks(pair.right) == []
    assert programs_left(before) == {}
    assert list(tmp_path.iterdir()) == []


def test_stop_while_it_starts(pair: Pair, tmp_path: Path) -> None:
    """SIGTERM while the programs load ends it in order: exit code 0, a ledger, nothing left."""
    token = f"TEST_OF_NETWATCH={os.getpid()}-stop"
    variables = {"TMPDIR": str(tmp_path), **dict([token.split("=")])}
    path = tmp_path / "ledger.json"
    with started(pair.right.namespace, "run", "-i", "right0", "--ledger", str(path), variables=variables) as daemon:
        deadline = time.monotonic() + PATIENCE_S
        while not (catches(daemon.pid, signal.SIGTERM) and has_loaded_anywhere(processes_with(token))):
            assert time.monotonic() < deadline
        daemon.terminate()
        _, stderr = daemon.communicate(timeout=PATIENCE_S)
    assert daemon.returncode == 0, stderr
    assert read_ledger(path)["audits"]["mismatches"] == 0
    assert processes_left(token) == []
    assert hooks(pair.right) == []
    assert list(tmp_path.iterdir()) == [path]


def test_reader_that_goes(pair: Pair, traffic: Traffic, tmp_path: Path) -> None:
    """Behind `| head -1` the daemon ends with its reader, in order; what nobody read is in the ledger as lost."""
    path = tmp_path / "ledger.json"
    settings = ("-i", "right0", "--format", "json", "--active-timeout", "0.1", "--ledger", str(path))
    prefix = pair.left.namespace.prefix
    with started(pair.right.namespace, "run", *settings) as daemon:
        assert daemon.stdout is not None
        assert daemon.stderr is not None
        while ATTACHED not in daemon.stderr.readline():
            assert daemon.poll() is None
        with Generator(evolve(traffic, flows=50_021, flows_per_second=1000, duration_s=60), prefix) as generator:
            assert '"SrcAddr":"10.0.0.1"' in daemon.stdout.readline()
            daemon.stdout.close()
            stderr = daemon.stderr.read()
            generator.stop()
        assert daemon.wait(timeout=PATIENCE_S) == 0, stderr
    ledger = read_ledger(path)
    exported, lost, balances = account_of(ledger, "stdout")
    assert balances
    assert exported["flows"] > 0
    assert set(lost) == {("export", "output closed")}
    assert exported["packets"] + lost["export", "output closed"]["packets"] == ledger["seen"]["packets"]
    assert "Traceback" not in stderr
    assert hooks(pair.right) == []


def test_reader_that_never_reads(pair: Pair, traffic: Traffic, tmp_path: Path) -> None:
    """A pager that somebody left open holds up neither the capture nor the end: what it did not take is lost."""
    path, grace_s = tmp_path / "ledger.json", 1.0
    limits = ("--active-timeout", "0.1", "--grace", str(grace_s))
    read_end, write_end = os.pipe()
    settings = ("-i", "right0", "--format", "json", *limits, "--ledger", str(path))
    with started(pair.right.namespace, "run", *settings, stdout=write_end) as daemon, os.fdopen(read_end) as unread:
        os.close(write_end)
        assert daemon.stderr is not None
        while ATTACHED not in daemon.stderr.readline():
            assert daemon.poll() is None
        sent = generate(evolve(traffic, flows=2003), pair.left.namespace.prefix)  # ten times what a pipe holds
        daemon.terminate()
        _, stderr = daemon.communicate(timeout=PATIENCE_S)
        *whole, rest = unread.read().split("\n")
    assert daemon.returncode == 0, stderr
    ledger = read_ledger(path)
    exported, lost, balances = account_of(ledger, "stdout")
    assert balances
    assert set(lost) == {("shutdown", "not delivered within the grace period")}
    assert ledger["seen"]["packets"] == sent.packets
    assert exported["flows"] + lost["shutdown", "not delivered within the grace period"]["flows"] == 2003
    # A message of 128 lines that was cut off counts as not delivered, whatever of it is in the pipe.
    assert exported["flows"] <= len(whole) < exported["flows"] + 128
    assert not rest or not rest.endswith("}")
