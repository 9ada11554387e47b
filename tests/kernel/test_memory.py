"""What the daemon has in its memory while it works: nothing of the compiler. How much: `bench/memory_cost.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.generator import Generator, Traffic
from tests.kernel.agent_process import AgentProcess
from tests.kernel.collector_process import CollectorProcess
from tests.kernel.hosts import Pair
from tests.kernel.scrape import FLAGS, scrape_until

LISTEN = "127.0.0.1:2055"


def test_no_compiler_in_memory(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """With flows in every drain, all of them going out by gRPC, it never maps LLVM, clang or bcc."""
    namespace = pair.right.namespace
    traffic = Traffic(
        interface=pair.left.name, source="10.0.0.1", destination="10.0.0.2", flows_per_second=1_000, duration_s=3600
    )
    with CollectorProcess(namespace, LISTEN) as collector:
        daemon = agent(namespace, "-i", "right0", "--active-timeout", "0.05", "-x", f"grpc://{LISTEN}", *FLAGS)
        mapped_at_start = Path(f"/proc/{daemon.pid}/maps").read_text()
        with Generator(traffic, pair.left.namespace.prefix) as generator:
            scrape_until(namespace, lambda now: now.sum("exporter_exported_flows_total") >= 1_000)
            mapped_at_end = Path(f"/proc/{daemon.pid}/maps").read_text()
            generator.stop()
        result = daemon.stop()
        collector.stop()
    assert result.exit_code == 0
    for mapped in (mapped_at_start, mapped_at_end):
        assert "libpython" in mapped or "python3" in mapped
        assert not [line for line in mapped.splitlines() if "LLVM" in line or "libbcc" in line or "libclang" in line]
    assert result.ledger is not None
    (account,) = result.ledger["exporters"]
    assert (account["balances"], account["lost"]) == (True, [])
