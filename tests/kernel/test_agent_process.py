"""The daemon as the other tests run it."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from bench.generator import Traffic, generate
from tests.kernel.agent_process import AgentProcess
from tests.kernel.hosts import Pair


def test_daemon_that_is_stopped(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """What the daemon printed until its end, and its ledger, are what was sent."""
    daemon = agent(pair.left.namespace, "-i", pair.left.name, "--active-timeout", "0.2")
    sent = generate(
        Traffic(pair.left.name, "10.1.0.0", "10.0.0.2", flows=101, packets_per_flow=3), pair.left.namespace.prefix
    )
    daemon.wait_for_flows(lambda flows: len(flows) == sent.flows)
    result = daemon.stop()
    assert result.exit_code == 0
    assert (len(result.flows), result.sum("Packets"), result.sum("Bytes")) == (sent.flows, sent.packets, sent.bytes)
    assert result.ledger is not None
    assert result.ledger["seen"] == {"packets": sent.packets, "bytes": sent.bytes}


def test_daemon_that_is_killed(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """A killed daemon says nothing more, and the result says by what it ended."""
    result = agent(pair.left.namespace, "-i", pair.left.name).stop(signal.SIGKILL)
    assert (result.exit_code, result.flows, result.ledger) == (-signal.SIGKILL, [], None)


def test_daemon_that_does_not_start(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """A daemon that ends before it captures fails the test at once, with what it said."""
    with pytest.raises(AssertionError, match=r"(?s)exit code 5.*nosuch0"):
        agent(pair.left.namespace, "-i", "nosuch0")
