"""Processes that are gone before anybody can look at them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.hosts import Namespace, Pair
from tests.kernel.short_process import LIFE_S, Life, Order, ShortProcesses, converse


@pytest.mark.parametrize("server", ["10.0.0.2", "fd00::2"])
@pytest.mark.parametrize("is_tcp", [True, False], ids=["tcp", "udp"])
def test_client_and_server(pair: Pair, server: str, is_tcp: bool) -> None:
    """Both speak and are gone, one after the other on the same port, each a process of its own."""
    lives: list[Life] = []
    with ShortProcesses(pair.right.namespace) as right, ShortProcesses(pair.left.namespace) as left:
        for number in range(11):
            order = Order("server", f"server-{number}", server, 80, is_tcp)
            lives += converse(right, left, order, f"client-{number}")
    assert [life.exit_code for life in lives] == [0] * 22
    assert [life.name for life in lives] == [
        f"{role}-{number}" for number in range(11) for role in ("server", "client")
    ]
    assert {life.port for life in lives[::2]} == {80}
    assert all(life.port > 1_024 for life in lives[1::2])
    assert len({life.pid for life in lives}) == 22
    assert not any(os.path.exists(f"/proc/{life.pid}") for life in lives)
    assert all(life.lived_s >= LIFE_S for life in lives)


def test_client_without_server(namespaces: Callable[[], Namespace]) -> None:
    """A process that fails is told as one that failed, and the next one begins all the same."""
    with ShortProcesses(namespaces()) as processes:
        for _ in range(2):
            processes.start(Order("client", "alone", "127.0.0.1", 80))
            assert processes.end().exit_code == 1


def test_name(namespaces: Callable[[], Namespace]) -> None:
    """While it lives, the kernel knows it by its name."""
    namespace = namespaces()
    with ShortProcesses(namespace) as servers, ShortProcesses(namespace) as clients:
        pid = servers.start(Order("server", "known-name", "127.0.0.1", 80))
        # It waits for a client now.
        assert Path(f"/proc/{pid}/comm").read_text() == "known-name\n"
        clients.start(Order("client", "client", "127.0.0.1", 80))
        assert servers.end().pid == pid
        assert clients.end().exit_code == 0
