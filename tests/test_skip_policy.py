"""When a skipped kernel test is a failure: `conftest.py` beside this file, in runs of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.kernel
def test_skips():
    pytest.skip("no such kernel")

@pytest.mark.kernel
@pytest.mark.xfail(reason="known")
def test_is_known_to_fail():
    assert False

def test_needs_no_kernel():
    pytest.skip("just so")
"""


def run_pytest(directory: Path, environment: dict[str, str], content: str = TESTS) -> tuple[int, str]:
    tests = directory / "tests"
    (tests / "kernel").mkdir(parents=True)
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = kernel\naddopts = -ra --import-mode=importlib\n")
    shutil.copy(Path(__file__).with_name("conftest.py"), tests)
    (tests / "kernel" / "test_it.py").write_text(content)
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "REQUIRE_KERNEL")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tests)]
    run = subprocess.run(command, cwd=directory, env=inherited | environment, capture_output=True, text=True)
    return run.returncode, run.stdout


def test_skip_where_nothing_is_required(tmp_path: Path) -> None:
    """On a developer's machine a test that cannot run is skipped."""
    code, output = run_pytest(tmp_path, {})
    assert code == 0, output
    assert "2 skipped, 1 xfailed" in output


@pytest.mark.parametrize("variable", [("CI", "true"), ("REQUIRE_KERNEL", "1")])
def test_skip_where_the_kernel_is_required(tmp_path: Path, variable: tuple[str, str]) -> None:
    """Where the kernel must be there, the skip of a kernel test fails the run and names its reason; others stay."""
    code, output = run_pytest(tmp_path, dict([variable]))
    assert code == 1, output
    assert "1 failed, 1 skipped, 1 xfailed" in output
    assert "skipped where the kernel is required: Skipped: no such kernel" in output


def test_module_that_is_skipped_as_a_whole(tmp_path: Path) -> None:
    """A kernel test module that a missing package empties fails the run as well."""
    content = "import pytest\npytest.importorskip('no_such_package')\n"
    code, output = run_pytest(tmp_path, {"CI": "true"}, content)
    assert code != 0, output
    assert "skipped where the kernel is required" in output
