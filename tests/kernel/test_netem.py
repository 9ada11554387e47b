"""Round-trip times over netem: a delay that the kernel itself keeps, where it has the module."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.kernel.agent_process import AgentProcess
from tests.kernel.hosts import Pair
from tests.kernel.tcp_ends import PORT
from tests.kernel.test_enrich_rtt import FIELDS, converse, measured
from tests.kernel.told import assert_accounted, chosen

pytestmark = pytest.mark.devices

DELAY_NS = 50_000_000
# The kernel rounds a round-trip time to microseconds, and to milliseconds where it measures by TCP's timestamps.
LEAST_NS = DELAY_NS - 1_000_000


@pytest.mark.parametrize("server", ["10.0.0.2", "fd00::2"])
def test_known_delay(pair: Pair, agent: Callable[..., AgentProcess], server: str) -> None:
    """No measurement is shorter than the delay, and none is longer than what the client itself has waited."""
    pair.left.namespace.run(
        "tc", "qdisc", "add", "dev", "left0", "root", "netem", "delay", f"{DELAY_NS // 1_000_000}ms"
    )
    daemon = agent(pair.left.namespace, "-i", "left0", "--active-timeout", "0.2")
    waited_s = converse(pair.left.namespace, pair.right.namespace, server)
    result = daemon.stop()
    assert_accounted(result)
    flows = chosen(result.flows, DstAddr=server, DstPort=PORT)
    for field in FIELDS:
        values = measured(flows, field)
        assert values
        assert min(values) >= LEAST_NS
        assert max(values) <= max(waited_s) * 1e9
