"""DNS of the real kernel: a server that answers after a known time, and what the records say of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.agent_process import AgentProcess, AgentResult, FlowLine
from tests.kernel.dns_client import Asked, ask
from tests.kernel.dns_server import DNS_PORT, Behaviour, DnsServer, long_name
from tests.kernel.hosts import Pair
from tests.kernel.waiting import PATIENCE_S

DELAY_S = 0.02
TIMEOUT_S = 0.5  # where nobody answers
SERVER = "10.0.0.2"
ETIMEDOUT = 110
CPUS = sorted(os.sched_getaffinity(0))
BEHAVIOURS = {
    "many.example.org": Behaviour.COMPRESSED,
    "missing.example.org": Behaviour.NXDOMAIN,
    "bare.example.org": Behaviour.BARE,
    "silent.example.org": Behaviour.SILENT,
}

StartDaemon = Callable[..., AgentProcess]


@pytest.fixture
def dns_agent(tmp_path: Path, agent: Callable[..., AgentProcess]) -> StartDaemon:
    """Start the daemon beside the client; `dns_timeout_s` is longer than a busy machine may need for an answer."""

    def start(pair: Pair, dns_timeout_s: float = PATIENCE_S) -> AgentProcess:
        settings = tmp_path / "netwatch.toml"
        settings.write_text(f"dns_timeout_s = {dns_timeout_s}\n")
        return agent(pair.left.namespace, "-i", pair.left.name, "--active-timeout", "0.2", "-c", str(settings))

    return start


def dns_server(pair: Pair, address: str = SERVER, cpu: int | None = None) -> DnsServer:
    return DnsServer(pair.right.namespace, address, delay_s=DELAY_S, behaviours=BEHAVIOURS, cpu=cpu)


def told_of(result: AgentResult, asked: Asked, is_answer: bool) -> FlowLine:
    """Return the one line with facts of DNS about one direction of an exchange."""
    assert result.exit_code == 0, result.log
    ports = (DNS_PORT, asked.port) if is_answer else (asked.port, DNS_PORT)
    (line,) = (flow for flow in result.flows if (flow["SrcPort"], flow["DstPort"]) == ports and "DnsId" in flow)
    return line


def assert_latency(line: FlowLine, asked: Asked) -> None:
    """Check a latency against both ends: what the server waited at least, what the client waited in all."""
    assert DELAY_S * 1e3 <= line["DnsLatencyMs"] <= asked.took_s * 1e3


@pytest.mark.parametrize("server", [SERVER, "fd00::2"])
@pytest.mark.parametrize("is_tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize(
    "name", ["www.Example.org", "many.example.org", long_name(253)], ids=["short", "compressed", "long"]
)
def test_name_that_exists(pair: Pair, dns_agent: StartDaemon, server: str, is_tcp: bool, name: str) -> None:
    """Question and answer name what was asked for; the answer says how long it took, the question does not."""
    daemon = dns_agent(pair)
    with dns_server(pair, server):
        asked = ask(pair.left.namespace, server, name, 4711, question_type=28, is_tcp=is_tcp)
    result = daemon.stop()
    for is_answer in (False, True):
        line = told_of(result, asked, is_answer)
        assert (line["DnsId"], line["DnsName"], line["DnsQueryType"], line["DnsMessages"]) == (4711, name, "AAAA", 1)
        assert line.get("DnsFlagsResponseCode") == ("NoError" if is_answer else None)
        assert bool(line["DnsFlags"] & 0x8000) == is_answer
        assert "DnsErrno" not in line
    assert "DnsLatencyMs" not in told_of(result, asked, is_answer=False)
    assert_latency(told_of(result, asked, is_answer=True), asked)


def test_name_that_does_not_exist(pair: Pair, dns_agent: StartDaemon) -> None:
    """A short answer says so, with its name and its latency."""
    daemon = dns_agent(pair)
    with dns_server(pair):
        asked = ask(pair.left.namespace, SERVER, "missing.example.org", 5)
    line = told_of(daemon.stop(), asked, is_answer=True)
    assert (line["DnsFlagsResponseCode"], line["DnsName"]) == ("NXDomain", "missing.example.org")
    assert_latency(line, asked)


def test_answer_of_a_header_alone(pair: Pair, dns_agent: StartDaemon) -> None:
    """The shortest of answers is matched by its id, though it names nothing."""
    daemon = dns_agent(pair)
    with dns_server(pair):
        asked = ask(pair.left.namespace, SERVER, "bare.example.org", 6)
    line = told_of(daemon.stop(), asked, is_answer=True)
    assert (line["DnsId"], line["DnsFlagsResponseCode"]) == (6, "FormErr")
    assert "DnsQueryType" not in line
    assert_latency(line, asked)


def test_nobody_answers(pair: Pair, dns_agent: StartDaemon) -> None:
    """After the timeout the question is a failure of its flow: with errno, and with nothing of an answer."""
    daemon = dns_agent(pair, TIMEOUT_S)
    with dns_server(pair):
        asked = ask(pair.left.namespace, SERVER, "silent.example.org", 7, timeout_s=0.1)
    daemon.wait_for_flows(lambda flows: any("DnsErrno" in flow for flow in flows))
    result = daemon.stop()
    (line,) = (flow for flow in result.flows if "DnsErrno" in flow)
    assert (line["SrcPort"], line["DstPort"]) == (asked.port, DNS_PORT)
    assert (line["DnsErrno"], line["DnsId"], line["DnsName"]) == (ETIMEDOUT, 7, "silent.example.org")
    assert line["DnsLatencyMs"] == TIMEOUT_S * 1e3
    # The flow had left when time was up, unless the drain was late.
    assert line.get("RecordKind") == ("continuation" if len(result.flows) == 2 else None)
    assert result.sum("Packets") == 1


@pytest.mark.parametrize("client_cpu", CPUS)
@pytest.mark.parametrize("server_cpu", CPUS)
def test_client_and_server_on_any_cpu(pair: Pair, dns_agent: StartDaemon, client_cpu: int, server_cpu: int) -> None:
    """Every answer has its latency, wherever question and answer were seen."""
    daemon = dns_agent(pair)
    with dns_server(pair, cpu=server_cpu):
        all_asked = [
            # Ports of our own: of those that the kernel chooses at random, two may be the same.
            ask(pair.left.namespace, SERVER, f"n{number}.example.org", number, port=40_000 + number, cpu=client_cpu)
            for number in range(23)
        ]
    result = daemon.stop()
    for number, asked in enumerate(all_asked):
        line = told_of(result, asked, is_answer=True)
        assert (line["DnsId"], line["DnsName"]) == (number, f"n{number}.example.org")
        assert_latency(line, asked)
