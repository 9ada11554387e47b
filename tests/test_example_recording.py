"""The recording in the repository: real traffic, replayed by whoever has no root; what the README shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECORDING = Path(__file__).parent / "data" / "hosts.netwatch"


def replay(tmp_path: Path, *options: str) -> tuple[bytes, dict[str, object]]:
    """Replay it as a user does; return what was printed, and the ledger."""
    ledger = tmp_path / "ledger.json"
    command = [sys.executable, "-m", "netwatch", "replay", str(RECORDING), "--ledger", str(ledger), *options]
    finished = subprocess.run(command, capture_output=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout, json.loads(ledger.read_text())


@pytest.mark.parametrize("output", ["json", "table", "wide"])
def test_twice(tmp_path: Path, output: str) -> None:
    """The same recording gives the same records, byte for byte, in every format."""
    assert replay(tmp_path, "--format", output)[0] == replay(tmp_path, "--format", output)[0]


def test_what_it_shows(tmp_path: Path) -> None:
    """Names, failures, drops, translations and processes are in the records; both ledgers balance."""
    printed, ledger = replay(tmp_path, "--format", "json")
    flows = [json.loads(line) for line in printed.splitlines()]
    assert ledger["audits"]["mismatches"] == 0  # type: ignore[index]
    assert all(exporter["balances"] for exporter in ledger["exporters"])  # type: ignore[attr-defined]
    assert ledger["events"]["balances"] is True  # type: ignore[index]
    assert ledger["seen"]["packets"] == sum(flow.get("Packets", 0) for flow in flows)  # type: ignore[index]
    assert {flow.get("DnsName") for flow in flows} >= {"www.example.org", "gone.example.org", "silent.example.org"}
    assert {flow.get("DnsFlagsResponseCode") for flow in flows} >= {"NoError", "NXDomain"}
    assert [flow["DnsErrno"] for flow in flows if flow.get("DnsErrno")] == [110]
    (filtered,) = (flow for flow in flows if flow.get("DstPort") == 9999)
    assert filtered["PktDropCauses"] == {"SKB_DROP_REASON_NETFILTER_DROP": 17}
    assert (filtered["PktDropPackets"], filtered["PktDropBytes"]) == (filtered["Packets"], filtered["Bytes"])
    translated = [flow for flow in flows if flow.get("XlatDstAddr") == "10.2.0.3"]
    assert len(translated) == 3
    assert all(flow["SrcProcessName"] == "browser" for flow in translated)
    uploads = [flow for flow in flows if flow.get("DstPort") == 8000]
    assert any(flow.get("TcpRetransmits") and flow.get("SrcProcessName") == "backup" for flow in uploads)
    assert [flow["DstPort"] for flow in flows if flow.get("TcpConnectError") == "ECONNREFUSED"] == [81]


def test_another_reader_of_it(tmp_path: Path) -> None:
    """Each flow of a connection is there in both directions, before and behind the gateway, with the same packets."""
    flows = [json.loads(line) for line in replay(tmp_path, "--format", "json")[0].splitlines()]
    inside = sorted(flow["Packets"] for flow in flows if flow.get("SrcPort") == 8080)
    outside = sorted(flow["Packets"] for flow in flows if flow.get("SrcPort") == 80)
    assert len(inside) == 3
    assert inside == outside
