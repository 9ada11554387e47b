"""What the daemon records of the real kernel, replayed: what it printed, and no kernel needed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.kernel.agent_process import AgentProcess, AgentResult
from tests.kernel.command import netwatch
from tests.kernel.hosts import Pair
from tests.kernel.scrape import FLAGS, scrape
from tests.kernel.told import assert_accounted
from tests.kernel.waiting import PATIENCE_S, look_until

Start = Callable[..., AgentProcess]
_DATAGRAMS = 41
# No capability, and no interface but a loopback that is down.
_UNPRIVILEGED = ("unshare", "--net", "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")


@attrs.frozen
class Replayed:
    """What a replay printed, and its ledger."""

    printed: list[str]
    ledger: dict[str, Any]
    said: str


def replay(recording: Path, prefix: tuple[str, ...] = ()) -> Replayed:
    """Replay a recording; `prefix` is a command that runs it."""
    ledger = recording.with_name("replayed.json")
    command = [sys.executable, "-m", "netwatch", "replay", str(recording), "--format", "json", "--ledger", str(ledger)]
    finished = subprocess.run([*prefix, *command], capture_output=True, text=True, timeout=PATIENCE_S)
    assert finished.returncode == 0, finished.stderr
    return Replayed(finished.stdout.splitlines(), json.loads(ledger.read_text()), finished.stderr)


def talk(pair: Pair, turns: int) -> None:
    """Send datagrams to a closed port, connect to one, and ask for pages, in turns."""
    left, right = pair.left.namespace, pair.right.namespace
    with right.enter():
        listener = socket.create_server(("10.0.0.2", 80))
    listener.settimeout(PATIENCE_S)
    server = threading.Thread(target=_serve, args=(listener, turns))
    server.start()
    with listener:
        for _ in range(turns):
            with left.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                for _ in range(_DATAGRAMS):
                    datagrams.sendto(b"x" * 100, ("10.0.0.2", 9))
            with left.enter(), socket.socket() as refused:
                assert refused.connect_ex(("10.0.0.2", 81))
            with left.enter(), socket.create_connection(("10.0.0.2", 80), PATIENCE_S) as client:
                client.sendall(b"GET /")
                while client.recv(65_536):
                    pass
        server.join()


def _serve(listener: socket.socket, turns: int) -> None:
    for _ in range(turns):
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"x" * 50_000)


def assert_same(run: AgentResult, replayed: Replayed) -> None:
    """Compare what was printed, line by line, and where everything ended."""
    assert [json.loads(line) for line in replayed.printed] == run.flows
    assert replayed.ledger == run.ledger


def test_same_records(pair: Pair, agent: Start, tmp_path: Path) -> None:
    """Whatever the tasks did meanwhile, a replay gives the lines and ledgers of the run, without any right, twice."""
    recording = tmp_path / "recording"
    options = (
        "-i",
        "right0",
        "--active-timeout",
        "0.1",
        "--record",
        str(recording),
        *FLAGS,
    )
    daemon = agent(pair.right.namespace, *options)
    for _ in range(20):
        talk(pair, 5)
        scrape(pair.right.namespace)
    result = daemon.stop()
    assert_accounted(result)
    assert len(result.flows) > 200
    assert any("PktDropCauses" in flow for flow in result.flows)
    assert any("SrcProcessName" in flow for flow in result.flows)
    assert_same(result, replay(recording))
    first = replay(recording, prefix=_UNPRIVILEGED)
    assert_same(result, first)
    assert replay(recording, prefix=_UNPRIVILEGED).printed == first.printed


def test_killed(pair: Pair, agent: Start, tmp_path: Path) -> None:
    """What a killed daemon had printed can be replayed, up to its last whole drain; and that is said."""
    recording = tmp_path / "recording"
    daemon = agent(pair.right.namespace, "-i", "right0", "--active-timeout", "0.1", "--record", str(recording))
    talk(pair, 5)
    daemon.wait_for_flows(lambda flows: sum("PktDropCauses" in flow for flow in flows) >= 5)
    before = recording.stat().st_size
    look_until(lambda: recording.stat().st_size, lambda size: size > before)  # the drain is in the file, too
    result = daemon.stop(signal.SIGKILL)
    replayed = replay(recording)
    printed = [json.loads(line) for line in replayed.printed]
    assert printed[: len(result.flows)] == result.flows[: len(printed)]
    assert sum("PktDropCauses" in flow for flow in printed) >= 5
    assert "has no end" in replayed.said or "cut off" in replayed.said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 256 kB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_full_disk(pair: Pair, agent: Start, small_disk: Path) -> None:
    """The recording ends with one line, the run goes on as without one, and what is on the disk can be replayed."""
    recording = small_disk / "recording"
    daemon = agent(pair.right.namespace, "-i", "right0", "--active-timeout", "0.1", "--record", str(recording))
    talk(pair, 1)
    daemon.wait_for_flows(lambda flows: any("PktDropCauses" in flow for flow in flows))
    for _ in range(20):
        talk(pair, 10)
    daemon.wait_for_log("recording")
    talk(pair, 1)
    result = daemon.stop()
    assert_accounted(result)
    (line,) = (line for line in result.log if "recording" in line)
    assert line == f"netwatch: warning: recording {recording} ended early: No space left on device; the capture goes on"
    copy = small_disk.with_name("recording")
    copy.write_bytes(recording.read_bytes())
    printed = [json.loads(line) for line in replay(copy).printed]
    assert printed
    assert printed == result.flows[: len(printed)]


def test_no_place_for_the_file(pair: Pair, tmp_path: Path) -> None:
    """A file that cannot be made ends the run before it captures, with one line."""
    ended = netwatch(pair.left.namespace, "run", "-i", "left0", "--record", str(tmp_path / "missing" / "file"))
    assert ended.exit_code == 2
    (line,) = ended.stderr
    assert "record = " in line
    assert "name another file" in line
