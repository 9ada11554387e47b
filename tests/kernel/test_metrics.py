"""What a running daemon tells of itself: the ledger in its metrics, readiness, and what the kernel says it costs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from attrs import evolve

from bench.generator import Traffic, generate
from netwatch.kernel.compile import MAPS
from tests.kernel.agent_process import AgentProcess
from tests.kernel.conftest import Pair
from tests.kernel.scrape import FLAGS, Scrape, get, scrape_until

NOWHERE = "grpc://127.0.0.1:1"  # no collector has ever listened there
BROADCAST = "ff:ff:ff:ff:ff:ff"
# Answered by nobody: the frames are for another host.
NOT_IP = bytes.fromhex("026e77000000026e77000001") + b"\x88\xcc" + bytes(50)

Start = Callable[..., AgentProcess]


def assert_adds_up(now: Scrape, exporter: str) -> None:
    """Assert the ledger's equation for one exporter, in packets and bytes."""
    for unit in ("packets", "bytes"):
        before = ("duplicate", "ignored", "lost")
        elsewhere = sum(now.sum(f"{name}_{unit}_total") for name in before)
        here = [f"exporter_exported_{unit}_total", f"exporter_lost_{unit}_total", f"exporter_in_flight_{unit}"]
        assert now.sum(f"seen_{unit}_total") == elsewhere + sum(now.sum(name, exporter=exporter) for name in here)


def test_the_ledger(pair: Pair, agent: Start, tmp_path: Path) -> None:
    """Each packet is in exactly one term: exported, duplicate, ignored, lost or waiting; for each exporter."""
    namespace, prefix = pair.right.namespace, pair.left.namespace.prefix
    bridge = namespace.bridge("br0", pair.right)
    settings = tmp_path / "netwatch.toml"
    settings.write_text('bpf_stats = true\nenrich = ["drops", "dns"]\n')
    limits = ("--max-flows", "509", "--active-timeout", "0.2")
    daemon = agent(namespace, "-c", str(settings), "-x", "stdout", "-x", NOWHERE, *limits, *FLAGS, "--grace", "0.1")
    # To all, so that the bridge itself receives them too: seen twice, counted once.
    traffic = Traffic(interface=pair.left.name, source="10.0.0.1", destination="10.0.0.2", destination_mac=BROADCAST)
    # 509 a drain: ten seconds of drains would have room for all.
    sent = generate(evolve(traffic, flows=25_013), prefix)
    pair.left.send([NOT_IP] * 101)
    seen = {"interface": "right0", "direction": "ingress"}
    scrape_until(namespace, lambda now: now.sum("seen_packets_total", **seen) == sent.packets + 101)
    now = scrape_until(namespace, lambda now: not now.sum("exporter_in_flight_packets", exporter="stdout"))
    for exporter in ("stdout", NOWHERE):
        assert_adds_up(now, exporter)
    assert now.sum("duplicate_packets_total") > 0
    assert now.sum("ignored_packets_total", reason="not IP: LLDP (0x88cc)") > 0
    assert now.sum("lost_packets_total", reason="flow map full") > 0
    assert now.sum("exporter_exported_flows_total", exporter="stdout") >= 509
    assert now.sum("exporter_exported_flows_total", exporter=NOWHERE) == 0
    assert now.sum("exporter_in_flight_flows", exporter=NOWHERE) > 0
    assert now.sum("exporter_errors_total", exporter=NOWHERE) > 0
    assert now.sum("audit_mismatches_total") == 0
    # Nobody listens where the frames go, or they are for nobody here.
    assert now.sum("events_made_total", kind="drop") + now.sum("events_thinned_total", kind="drop") > 0
    assert now.sum("events_ring_lost_total") == 0
    assert now.sum("drain_duration_seconds_count") == now.sum("audited_drains_total") > 0
    attached = {(one.labels["interface"], one.labels["direction"]) for one in now.find("attached_hooks")}
    assert attached == {(name, way) for name in ("right0", bridge.name) for way in ("ingress", "egress")}
    # One run a packet at each hook, as the kernel counts: no segmentation happens here.
    at_hooks = now.sum("program_runs_total") - now.sum("program_runs_total", program="drop")
    assert at_hooks == now.sum("seen_packets_total")
    assert sum(one.value for one in now.find("program_run_seconds_total")) > 0
    assert {one.labels["map"] for one in now.find("map_memory_bytes") if one.value > 0} == set(MAPS)
    result = daemon.stop()
    assert result.exit_code == 0
    assert result.ledger is not None
    assert all(account["balances"] for account in result.ledger["exporters"])
    assert result.ledger["seen"] == {unit: now.sum(f"seen_{unit}_total") for unit in ("packets", "bytes")}


def test_runs_of_filters(pair: Pair, agent: Start, tmp_path: Path) -> None:
    """With clsact, where an entry stands before each program, runs and time are counted as with TCX."""
    settings = tmp_path / "netwatch.toml"
    settings.write_text('bpf_stats = true\nenrich = []\nattach = "tc"\n')
    agent(pair.right.namespace, "-c", str(settings), "-i", "right0", "--active-timeout", "0.2", *FLAGS)
    pair.left.send([NOT_IP] * 101)
    now = scrape_until(pair.right.namespace, lambda now: now.sum("seen_packets_total") == 101)
    assert now.sum("program_runs_total", program="ingress_ethernet") == 101
    assert sum(one.value for one in now.find("program_run_seconds_total", program="ingress_ethernet")) > 0


def test_readiness(pair: Pair, agent: Start) -> None:
    """It is ready from when it captures until it is told to stop, and healthy until it has ended."""
    namespace = pair.right.namespace
    daemon = agent(namespace, "-x", NOWHERE, "--grace", "1h", "--active-timeout", "1h", *FLAGS)
    assert get(namespace, "/readyz") == get(namespace, "/healthz") == (200, "ok\n")
    generate(
        Traffic(interface=pair.left.name, source="10.0.0.1", destination="10.0.0.2", flows=1),
        pair.left.namespace.prefix,
    )
    daemon.send_signal(signal.SIGTERM)
    daemon.wait_for_log("trying again")
    assert get(namespace, "/readyz")[0] == 503
    assert get(namespace, "/healthz") == (200, "ok\n")
    assert not scrape_until(namespace, lambda now: now.sum("exporter_in_flight_flows") == 1).find("program_runs_total")
    daemon.stop()
