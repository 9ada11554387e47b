"""What holds for every test: how hypothesis looks for examples, and when a test of the kernel may be skipped.

Law: no property has a deadline, for how long an example takes is the machine's business. In CI (CI=true) the examples
are the same in each run; `make fuzz` looks for others. HYPOTHESIS_PROFILE names one of the profiles.

Law: without root a test of the kernel is skipped and says so. Where the kernel is meant to be there (CI=true or
REQUIRE_KERNEL=1), a skip is a failure, so that a broken set-up never looks like a green run.
Tests marked `devices` want modules that a kernel for virtual machines may lack (tunnels, bonds, netem). They run where
REQUIRE_DEVICES=1 says that they are there, as in `make kernels`, and are deselected elsewhere.
"""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# An assertion in there should say as much as one in a test.
pytest.register_assert_rewrite("tests.kernel.agent_process", "tests.kernel.program_runner")

_KERNEL_TESTS = Path(__file__).with_name("kernel")
_IS_CI = os.environ.get("CI") == "true"

# A failure prints what reproduces it (print_blob). "Too slow" is a health check of the machine. Hypothesis looks at the
# environment itself and derandomizes in CI; its profiles inherit that.
_PATIENT = settings(deadline=None, derandomize=False, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _PATIENT)
settings.register_profile("ci", _PATIENT, derandomize=True, database=None)
# Without what earlier runs have found, so that a seed is all that it takes to see a failure again.
settings.register_profile("fuzz", _PATIENT, database=None)
# Before the modules of tests are imported: `@settings(...)` takes what it does not say from the profile of that moment.
_PROFILE = os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if _IS_CI else "default")
settings.load_profile(_PROFILE)


def _is_kernel_required() -> bool:
    return _IS_CI or os.environ.get("REQUIRE_KERNEL") == "1"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests marked `kernel` where there is no root. Runs last: other hooks set the mark."""
    if os.environ.get("REQUIRE_DEVICES") != "1":
        for_machines = [item for item in items if item.get_closest_marker("devices")]
        config.hook.pytest_deselected(items=for_machines)
        items[:] = [item for item in items if item not in for_machines]
    if _PROFILE == "fuzz":
        # The time may be over in the middle of a round: modules begin in another order each time.
        turns = {path: random.random() for path in {item.path for item in items}}
        items.sort(key=lambda item: turns[item.path])
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("kernel"):
            item.add_marker(pytest.mark.skip(reason="needs root: network namespaces and BPF"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where it is one. An expected failure is reported as a skip, and is none."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("kernel"):
        _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same for a module that is skipped as a whole, as by `importorskip`."""
    report = yield
    if report.skipped and collector.path.is_relative_to(_KERNEL_TESTS):
        _refuse(report)
    return report


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    if _is_kernel_required():
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped where the kernel is required: {reason}"
