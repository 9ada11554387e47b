"""Signs of life and the lock: seen by all in a network namespace, gone with their process, not to be had by others."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netwatch.kernel import tc_claim
from netwatch.kernel.tc_claim import claim, is_claimed, lock
from tests.kernel.bystander import bystander
from tests.kernel.hosts import Namespace

PORT, OTHER_PORT = 0x1234_5678, 0x1234_5679
_CLAIMER = (
    f"import time; from netwatch.kernel.tc_claim import claim; s = claim({PORT}); print(flush=True); time.sleep(99)"
)


@pytest.fixture
def inside(namespaces: Callable[[], Namespace]) -> Iterator[Namespace]:
    """Be in a new network namespace."""
    namespace = namespaces()
    with namespace.enter():
        yield namespace


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the lock for as long as it takes: a test that does not get it never ends."""
    monkeypatch.setattr(tc_claim, "_LOCK_TIMEOUT_S", 1e9)


def test_a_claim(inside: Namespace, namespaces: Callable[[], Namespace]) -> None:
    """It holds for one port in one namespace, once, until it is closed."""
    assert not is_claimed(PORT)
    sign = claim(PORT)
    assert sign
    assert claim(PORT) is None
    assert (is_claimed(PORT), is_claimed(OTHER_PORT)) == (True, False)
    with namespaces().enter():
        assert not is_claimed(PORT)
    sign.close()
    assert not is_claimed(PORT)


def test_a_claim_goes_with_its_process(inside: Namespace) -> None:
    """Whatever ends it, in whatever process namespace it is."""
    isolated = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    root = Path(__file__).parents[2]
    command = [*inside.prefix, *isolated, sys.executable, "-c", _CLAIMER]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as claimer:
        assert claimer.stdout
        claimer.stdout.readline()
        assert is_claimed(PORT)
        claimer.kill()
        claimer.stdout.read()  # ends when the last of it has ended
    assert not is_claimed(PORT)


def test_what_a_user_takes_is_no_claim(inside: Namespace, patience: None) -> None:
    """A port that has become free looks taken to whoever wants to bind it, and to nobody who asks for a claim."""
    with bystander(inside, PORT) as told:
        assert told["got"] == ["lock", "user namespace", "port", "name"]
        assert set(told["refused"]) == {
            f"{where}: {what}" for where in ("user", "user namespace") for what in ("groups", "groups of any port")
        }
        assert claim(PORT) is None
        assert not is_claimed(PORT)
        with lock(), claim(OTHER_PORT) or pytest.fail("taken"):
            assert is_claimed(OTHER_PORT)


def test_a_claim_that_the_list_lacks(inside: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is read in pieces, while others change it: nobody is taken for dead because it lacks them."""
    looks: list[int] = []
    found = tc_claim._groups_by_port

    def lacking() -> dict[int, int]:
        looks.append(1)
        return found() if len(looks) > 3 else {}

    monkeypatch.setattr(tc_claim, "_groups_by_port", lacking)
    with claim(PORT) or pytest.fail("taken"):
        assert is_claimed(PORT)
    assert len(looks) == 4


def test_the_lock(inside: Namespace, patience: None) -> None:
    """One at a time, also of threads of one process; none waits for ever."""
    within: list[int] = []
    most: list[int] = []

    def work() -> None:
        with inside.enter():
            for _ in range(50):
                with lock():
                    within.append(1)
                    most.append(len(within))
                    os.sched_yield()
                    within.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 200


def test_a_lock_in_another_namespace(inside: Namespace, namespaces: Callable[[], Namespace], patience: None) -> None:
    """It keeps nobody out here."""
    with lock(), namespaces().enter(), lock():
        pass


def test_the_lock_is_free_after_its_time(inside: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds it and is stopped keeps the others for a while, and no longer."""
    monkeypatch.setattr(tc_claim, "_LOCK_TIMEOUT_S", 0.1)
    with lock(), lock():
        pass
