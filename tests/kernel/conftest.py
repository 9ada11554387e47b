"""Fixtures of the tests that need the real kernel: hosts, links, the daemon.

Law: what a fixture makes it removes, whatever the test did; at the end of the session nothing of it may be left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.agent_process import AgentProcess
from tests.kernel.hosts import Namespace, Pair, connect
from tests.kernel.leftovers import namespaces_left, programs, programs_left

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this directory."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail the session where a namespace or a program of ours outlives it."""
    before = programs()
    yield
    assert namespaces_left() == []
    assert programs_left(before) == {}


@pytest.fixture
def namespaces() -> Iterator[Callable[[], Namespace]]:
    """Make namespaces, as many as a test calls for."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(Namespace())


@pytest.fixture
def pair(namespaces: Callable[[], Namespace]) -> Pair:
    """Two hosts joined by a veth, `left0` and `right0`."""
    left, right = namespaces().veth("left0", namespaces(), "right0")
    connect(left, ("10.0.0.1/24", "fd00::1/64"), right, ("10.0.0.2/24", "fd00::2/64"))
    return Pair(left, right)


@pytest.fixture
def agent(tmp_path: Path, namespaces: object) -> Iterator[Callable[..., AgentProcess]]:
    """Start the daemon: `agent(namespace, "-i", "left0", …)`. It asks for `namespaces` so as to end before them."""
    with contextlib.ExitStack() as stack:
        numbers = iter(range(1_000))

        def start(namespace: Namespace, *arguments: str) -> AgentProcess:
            ledger = tmp_path / f"ledger-{next(numbers)}.json"
            return stack.enter_context(AgentProcess(namespace, ledger, *arguments))

        yield start
