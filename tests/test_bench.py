"""The arithmetic of the benchmarks: what is made of samples, of files in /proc, of messages and of ledgers."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.__main__ import main
from bench.daemon import Account, Netwatch, Run, parse_ledger
from bench.export_cost import Outcome, samples_of
from bench.generator import Sent
from bench.machine import Machine, describe_machine, loop_ns
from bench.measure import Quantity, Result, Sample, alternate, collect_results, ratio
from bench.peer import NetObserv, agents_of
from bench.report import Report, as_json, as_markdown, as_text, from_json, number
from bench.sink import Received, count
from bench.testbed import Load
from bench.usage import CpuTime, Memory, cpu_time, memory, parse_memory, parse_ticks
from netwatch.exporters.pbflow_pb2 import Record, Records
from netwatch.ledger import Amount, EpochCount, FlowAmount, Ledger, Loss

COST = Quantity("export", "user CPU a flow", "us", 1.0)
LOSS = Quantity("export", "packets lost", "of 100", 0)
MACHINE = Machine(2, "a CPU", 2048, "a hypervisor", "6.18.44", "3.11.2", 0.25)
RUN = Run("eth0", 2055, 5.0, 1000, Path("ledger.json"))


def report(*results: Result) -> Report:
    return Report(MACHINE, "2026-01-02T03:04:05+00:00", "python -m bench", 3, [50, 60], results)


# Samples.


def test_one_round_was_disturbed() -> None:
    """The median does not move; the spread tells of it."""
    result = Result(COST, "netwatch", (0.7, 9.0, 0.8))
    assert (result.median, result.least, result.most) == (0.8, 0.7, 9.0)


def test_no_samples() -> None:
    """There is no result without a measurement."""
    with pytest.raises(ValueError, match="samples"):
        Result(COST, "netwatch", ())


def test_samples_of_two_agents_by_turns() -> None:
    """Each agent's samples come together in their order, quantities in the order of their first appearance."""
    samples = [Sample(COST, "a", 1), Sample(LOSS, "a", 0), Sample(COST, "b", 2), Sample(COST, "a", 3)]
    assert collect_results(samples) == [Result(COST, "a", (1, 3)), Result(LOSS, "a", (0,)), Result(COST, "b", (2,))]


@pytest.mark.parametrize(("value", "verdict"), [(0.99, True), (1.0, True), (1.01, False)])
def test_a_goal_is_the_most_that_is_allowed(value: float, verdict: bool) -> None:
    """A value at the goal meets it."""
    assert Result(COST, "netwatch", (value,)).meets_goal is verdict


def test_a_quantity_without_goal() -> None:
    """Nothing is said of it."""
    assert Result(attrs.evolve(COST, goal=None), "netwatch", (7,)).meets_goal is None


def test_the_other_lost_nothing() -> None:
    """There is no ratio to zero."""
    assert ratio(Result(LOSS, "netwatch", (3,)), Result(LOSS, "peer", (0,))) is None
    assert ratio(Result(COST, "netwatch", (1,)), Result(COST, "peer", (4,))) == 0.25


@given(st.integers(1, 4), st.integers(1, 9))
def test_agents_alternate(agents: int, rounds: int) -> None:
    """Every agent has every round once, and each begins as often as the others, give or take one round."""
    turns = list(alternate(range(agents), rounds))
    assert sorted(turns) == [(number, agent) for number in range(rounds) for agent in range(agents)]
    begins = [agent for _, agent in turns[::agents]]
    assert max(map(begins.count, range(agents))) - min(map(begins.count, range(agents))) <= 1


# What a process used.


def test_cpu_time_of_this_process() -> None:
    """The exact sum is what the process itself reads."""
    before = time.process_time()
    total_s = cpu_time(os.getpid()).total_s
    assert before <= total_s <= time.process_time()


def test_memory_of_this_process() -> None:
    """What is resident is within the peak."""
    now = memory(os.getpid())
    assert 0 < now.resident_mib <= now.peak_mib


def test_a_command_with_a_parenthesis() -> None:
    """The fields are counted from the last one."""
    stat = "42 (a) R (b) S 1 42 42 0 -1 4194304 100 0 0 0 17 5 0 0 20 0 3 0 999 1000 200 0"
    assert parse_ticks(stat) == (17, 5)


def test_memory_in_kib() -> None:
    """Both are told in MiB."""
    assert parse_memory("Name:\tx\nVmHWM:\t   81920 kB\nVmRSS:\t   51200 kB\n") == Memory(50, 80)


def test_user_share_of_the_exact_time() -> None:
    """The samples give the share, the clock the sum."""
    assert CpuTime(0.08, 3, 1).user_s == pytest.approx(0.06)


def test_too_short_for_a_sample() -> None:
    """Without samples nothing is said to be user time."""
    assert CpuTime(0.001, 0, 0).user_s == 0


def test_time_since_a_reading() -> None:
    """All parts are differences."""
    assert CpuTime(3.0, 200, 100) - CpuTime(1.0, 150, 40) == CpuTime(2.0, 50, 60)


# Where it ran.


def test_a_guest(tmp_path: Path) -> None:
    """It is said who runs it, and nothing that tells this machine from others of its kind."""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu hypervisor\n")
    (tmp_path / "meminfo").write_text("MemTotal:        2097152 kB\n")
    (tmp_path / "loadavg").write_text("0.25 0.10 0.05 1/99 1234\n")
    machine = describe_machine(tmp_path, tmp_path)
    assert (machine.cpu_model, machine.memory_mib, machine.load_average) == ("A CPU", 2048, 0.25)
    assert machine.hypervisor == "a hypervisor"


def test_this_machine() -> None:
    """It can be described, and its speed is that of a processor."""
    assert str(os.cpu_count()) in str(describe_machine())
    assert 1 < loop_ns() < 10_000


# Messages and ledgers.


def record(packets: int, octets: int) -> Record:
    return Record(packets=packets, bytes=octets)


def test_messages_are_counted() -> None:
    """A record without packets or without bytes is a partial flow, and a flow."""
    messages = [
        Records(entries=[record(3, 300), record(0, 10)]).SerializeToString(),
        Records(entries=[record(2, 0)]).SerializeToString(),
    ]
    assert count([(0, message) for message in messages]) == Received(2, sum(map(len, messages)), 3, 5, 2)


def test_delay_of_dropped_packets() -> None:
    """From the last packet of each flow with a drop to the arrival of its message."""
    records = [record(1, 10) for _ in range(4)]
    for entry, end_ms in zip(records, (1_500, 1_900, 1_000, 0), strict=True):
        entry.time_flow_end.FromMilliseconds(end_ms)
        entry.pkt_drop_packets = 1 if end_ms else 0
    received = count([(2 * 10**9, Records(entries=records).SerializeToString())])
    assert (received.least_delay_s, received.median_delay_s) == (0.1, 0.5)


def test_a_sink_that_got_nothing() -> None:
    """Everything is zero."""
    assert count([]) == Received()


def test_the_ledger_that_netwatch_writes() -> None:
    """Losses before the exporters and behind the queue are added up."""
    ledger = Ledger()
    account = ledger.open_exporter("grpc://127.0.0.1:1")
    lost = {Loss("kernel", "flow map full"): FlowAmount(0, 7, 70)}
    ledger.add_epoch(EpochCount({1: Amount(100, 1000)}, Amount(), {"not sampled": Amount(10, 100)}, lost, FlowAmount()))
    account.accepted = FlowAmount(20, 83, 830)
    account.exported = FlowAmount(19, 80, 800)
    account.lose(Loss("queue", "full"), FlowAmount(1, 3, 30))
    parsed = parse_ledger(json.dumps(ledger.as_json()))
    assert parsed == Account(seen=100, exported=80, lost=10)


def outcome(received: Received, lost: int) -> Outcome:
    used, size = CpuTime(0.002, 1, 1), Memory(40, 60)
    return Outcome(Sent(50, 100, 14_200, 1.0, 0), used, received, size, size, Account(100, 90, lost))


def values(received: Received, lost: int, load: Load) -> dict[str, float]:
    samples = samples_of(load, "netwatch", outcome(received, lost))
    return {sample.quantity.name.partition(": ")[2]: sample.value for sample in samples}


def test_a_run_of_the_export() -> None:
    """Costs are told for a flow that arrived, and every packet sent is held against the collector and the ledger."""
    found = values(Received(1, 7_000, 50, 90, 1), 10, Load(5_000, 3))
    assert found == {
        "user CPU a flow": pytest.approx(20),
        "all CPU a flow": pytest.approx(40),
        "partial flows": 2,
        "message bytes a flow": 140,
        "packets lost": 10,
        "packets not in the ledger": 0,
    }


def test_a_loss_that_the_ledger_does_not_know() -> None:
    """It stands in the table."""
    assert values(Received(1, 7_000, 50, 90, 0), 4, Load(5_000, 3))["packets not in the ledger"] == 6


def test_a_packet_that_is_there_twice() -> None:
    """It is as wrong as one that is missing."""
    assert values(Received(1, 7_000, 50, 91, 0), 9, Load(5_000, 3))["packets not in the ledger"] == 1


def test_nothing_arrived() -> None:
    """There is no cost of a flow then, only the loss."""
    assert set(values(Received(), 100, Load(5_000, 3))) == {"packets lost", "packets not in the ledger"}


# Agents.


def test_no_peer() -> None:
    """Ours is measured alone."""
    assert [agent.name for agent in agents_of({})] == ["netwatch"]


def test_a_peer() -> None:
    """Both are measured."""
    assert [agent.name for agent in agents_of({"NETOBSERV_AGENT": "/opt/agent"})] == ["netwatch", "NetObserv"]


def test_both_agents_get_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interface, collector, period and map size; and none of the settings of whoever measures."""
    monkeypatch.setenv("NETWATCH_SAMPLING", "100")
    ours, theirs = Netwatch(), NetObserv("/opt/agent")
    command = " ".join(ours.command(RUN))
    assert all(text in command for text in ("-i eth0", "grpc://127.0.0.1:2055", "--active-timeout 5", "1000"))
    assert "NETWATCH_SAMPLING" not in ours.environment(RUN)
    environment = theirs.environment(RUN)
    assert environment["INTERFACES"] == "eth0"
    assert environment["TARGET_PORT"] == "2055"
    assert environment["CACHE_ACTIVE_TIMEOUT"] == "5s"
    assert environment["CACHE_MAX_FLOWS"] == "1000"


def test_default_settings() -> None:
    """What is None is left to the agent."""
    run = attrs.evolve(RUN, period_s=None, max_flows=None)
    assert not {"--active-timeout", "--max-flows"} & set(Netwatch().command(run))
    assert not {"CACHE_ACTIVE_TIMEOUT", "CACHE_MAX_FLOWS"} & set(NetObserv("/opt/agent").environment(run))


def test_a_map_for_a_load() -> None:
    """It has room for two periods."""
    assert Load(20_000, 1).max_flows(5.0) == 200_000
    assert str(Load(20_000, 1)) == "20k x 1"
    assert str(Load(40, 1_000)) == "40 x 1000"


# Reports.


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_json_is_read_back(samples: list[float]) -> None:
    """Nothing of a report is lost."""
    written = report(Result(COST, "netwatch", tuple(samples)), Result(LOSS, "peer", (0,)))
    read = from_json(as_json(written))
    assert attrs.evolve(read, results=tuple(read.results)) == written


def test_a_row_with_both_agents() -> None:
    """It has both medians, their spreads, the ratio, and whether the goal was met."""
    text = as_markdown(report(Result(COST, "netwatch", (0.7, 0.9, 0.8)), Result(COST, "peer", (4, 5, 3))))
    assert "| export: user CPU a flow | us | 1 met | 0.8 | 0.7 to 0.9 | 4 | 3 to 5 | 0.20 |" in text


def test_a_missed_goal_is_loud() -> None:
    """It is said in capitals."""
    assert "1 MISSED" in as_text(report(Result(COST, "netwatch", (1.5,))))


def test_a_row_of_the_peer_alone() -> None:
    """Our goals are not theirs."""
    text = as_markdown(report(Result(COST, "peer", (4,))))
    assert "| export: user CPU a flow | us | 1 |  |  | 4 | 4 to 4 |  |" in text


def test_a_table_says_where_it_comes_from() -> None:
    """Machine, time, rounds and command stand above it."""
    for text in (as_text(report()), as_markdown(report())):
        assert text.startswith(f"{MACHINE}; one turn of an empty Python loop took 50 to 60 ns. ")
        assert "2026-01-02T03:04:05+00:00, 3 rounds: `python -m bench`\n" in text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (131072.0, "131,072"), (0.12345, "0.123"), (43.21, "43.2"), (1234.5, "1,234")]
)
def test_numbers(value: float, text: str) -> None:
    """Three digits say what a noisy measurement knows."""
    assert number(value) == text


# The command line.


def test_a_report_as_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is printed from a file, and nothing is measured."""
    file = tmp_path / "bench.json"
    file.write_text(as_json(report(Result(COST, "netwatch", (0.5,)))))
    assert main(["--markdown", str(file)]) == 0
    assert capsys.readouterr().out == as_markdown(from_json(file.read_text()))


def test_an_unknown_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    """The mistake and the choice are named before anything is measured."""
    with pytest.raises(SystemExit, match="2"):
        main(["exprot"])
    error = capsys.readouterr().err
    assert "exprot" in error
    assert "export" in error
