"""How hypothesis looks for examples, in CI and in `make fuzz`: `conftest.py` and `fuzz.py`, in runs of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 120
RARE = """
from pathlib import Path
from hypothesis import given, settings, strategies as st

@settings(max_examples=50)
@given(st.integers(0, 10**9))
def test_rare(number):
    with Path(__file__).with_name("tried").open("a") as file:
        print(number, file=file)
    assert number % 97 != 50

def test_no_property():
    assert False
"""
SLOW = """
import time
from hypothesis import given, settings, strategies as st

@settings(max_examples=3)
@given(st.integers())
def test_slow(number):
    time.sleep(0.3)
"""


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """Return a directory of tests that has our profiles."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = kernel\naddopts = -ra --import-mode=importlib\n")
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    shutil.copy(Path(__file__).with_name("fuzz.py"), tmp_path)
    return tmp_path


def run(tests: Path, *command: str, is_in_background: bool = False, **variables: str) -> tuple[int, str]:
    """Run a module of Python with its arguments; in the background, as shells do that, without SIGINT."""
    prefix = ("sh", "-c", 'trap "" INT; exec "$@"', "sh") if is_in_background else ()
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "HYPOTHESIS_PROFILE")}
    finished = subprocess.run(
        [*prefix, sys.executable, "-m", *command],
        cwd=tests,
        env=inherited | variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    return finished.returncode, finished.stdout + finished.stderr


def tried(tests: Path) -> list[str]:
    """Return the examples that were tried since this was asked last."""
    file = tests / "tried"
    numbers = file.read_text().splitlines()
    file.unlink()
    return numbers


def test_slow_examples(tests: Path) -> None:
    """How long an example takes is no reason to fail."""
    (tests / "test_it.py").write_text(SLOW)
    code, said = run(tests, "pytest")
    assert code == 0, said


def test_examples_in_ci(tests: Path) -> None:
    """They are the same in each run, which elsewhere they are not."""
    (tests / "test_it.py").write_text(RARE)
    runs = []
    for variables in ({"CI": "true"}, {"CI": "true"}, {"HYPOTHESIS_PROFILE": "ci"}, {}, {}):
        run(tests, "pytest", **variables)
        runs.append(tried(tests))
    assert runs[0] == runs[1] == runs[2]
    assert runs[0] != runs[3] != runs[4]


def test_fuzz_until_it_fails(tests: Path) -> None:
    """It ends with the first failure; the command that it prints tries the same examples and fails in the same way."""
    (tests / "test_it.py").write_text(RARE)
    code, said = run(tests, "fuzz", str(TIMEOUT_S))
    assert code == 1, said
    assert "test_rare" in said
    assert "test_no_property" not in said
    first = tried(tests)
    _, _, command = said.rpartition("To see it again:\n")
    again = subprocess.run(["sh", "-c", command], cwd=tests, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert again.returncode == 1, again.stdout
    assert "FAILED test_it.py::test_rare" in again.stdout
    last = tried(tests)
    assert first[-len(last) :] == last


def test_fuzz_until_the_time_is_over(tests: Path) -> None:
    """It goes on with other seeds, and ends in the middle of a test."""
    passing = RARE.replace("assert number % 97 != 50", "assert number >= 0")
    (tests / "test_it.py").write_text(passing + "\n" + SLOW.replace("max_examples=3", "max_examples=10**6"))
    code, said = run(tests, "fuzz", "2", is_in_background=True)
    assert code == 0, said
    assert "nothing failed in 2 s" in said


def test_fuzz_with_nothing_to_do(tests: Path) -> None:
    """A name that matches no property is a mistake."""
    (tests / "test_it.py").write_text(RARE)
    code, said = run(tests, "fuzz", "60", "-k", "misspelt")
    assert code == 1, said
