"""Processors that netwatch can and cannot run on, by what /proc/cpuinfo says of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from netwatch.processor import missing_features

# As Linux writes them: qemu's qemu64, and the least that x86-64-v2 allows.
OLD = "processor\t: 0\nflags\t\t: fpu sse sse2 ht lm pni cx16 hypervisor lahf_lm svm\n"
ENOUGH = "processor\t: 0\nflags\t\t: fpu sse2 lm pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm\nbugs\t\t: f00f\n"
MISSING = ["popcnt", "ssse3", "sse4_1", "sse4_2"]

# The command line on such a processor: numpy must not be imported before it has spoken.
COMMAND = """
import sys
from pathlib import Path
from netwatch import cli, processor
cli.missing_features = lambda: processor.missing_features("x86_64", Path(sys.argv[1]))
code = cli.main(sys.argv[2:])
assert "numpy" not in sys.modules
sys.exit(code)
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return the cpuinfo of an old processor."""
    path = tmp_path / "cpuinfo"
    path.write_text(OLD)
    return path


def test_old_processor(old: Path) -> None:
    """What it lacks is named as Linux names it."""
    assert missing_features("x86_64", old) == MISSING


def test_processor_that_is_enough(tmp_path: Path) -> None:
    """The least that the level asks for is enough."""
    (tmp_path / "cpuinfo").write_text(ENOUGH)
    assert missing_features("x86_64", tmp_path / "cpuinfo") == []


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_processor_that_does_not_say(machine: str, old: Path, tmp_path: Path) -> None:
    """Another architecture, a file that is missing, a file without flags: netwatch goes on."""
    if machine == "aarch64":
        assert missing_features(machine, old) == []
    assert missing_features(machine, tmp_path / "none") == []
    (tmp_path / "empty").write_text("processor : 0\n")
    assert missing_features(machine, tmp_path / "empty") == []


@pytest.mark.parametrize("command", ["run", "replay", "collect", "check"])
def test_command_on_an_old_processor(command: str, old: Path) -> None:
    """Each command says what is missing, in one line; the exit code is that of its error, or of a check that failed."""
    arguments = [command, "nothing.netwatch"] if command == "replay" else [command]
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND, str(old), *arguments], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == (1 if command == "check" else 14), ended.stderr
    (said, *rest) = (ended.stdout if command == "check" else ended.stderr).splitlines()
    assert f"processor: it has no {', '.join(MISSING)}" in said
    assert rest == (["netwatch cannot run here"] if command == "check" else [])
