"""Containers found in a hierarchy of cgroups by the numbers of their directories."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from netwatch.kernel import cgroups
from netwatch.kernel.cgroups import Containers
from netwatch.kernel.tracing import cgroup2_root
from tests.kernel.waiting import PATIENCE_S

ID = "5eed" * 16


class Clock:
    """A clock that a test sets; and a count of the walks, by the directories that were opened first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        self.walks = 0
        monkeypatch.setattr(cgroups.time, "monotonic", lambda: self.now_s)
        directories = cgroups._directories

        def counted(root: Path, at_most: int) -> object:
            self.walks += 1
            return directories(root, at_most)

        monkeypatch.setattr(cgroups, "_directories", counted)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def make(root: Path, path: str) -> int:
    """Make a directory, and return its number."""
    directory = root / path
    directory.mkdir(parents=True)
    return directory.stat().st_ino


def walking(root: Path, max_cgroups: int = 100) -> Containers:
    """Containers as they are without the right to open cgroups by their ids."""
    return Containers(max_cgroups, root, opens_by_id=False)


def test_container_and_what_is_none(tmp_path: Path, clock: Clock) -> None:
    """A container's cgroups are named after it; others are not, and are not looked for again."""
    scope = make(tmp_path, f"system.slice/docker-{ID}.scope")
    inner = make(tmp_path, f"system.slice/docker-{ID}.scope/init")
    service = make(tmp_path, "system.slice/ssh.service")
    containers = walking(tmp_path)
    assert containers.resolve([scope, inner, service]) == {scope: ID, inner: ID}
    clock.now_s += 60
    assert containers.resolve([scope, inner, service]) == {scope: ID, inner: ID}
    assert clock.walks == 1


def test_unknown_ids(tmp_path: Path, clock: Clock) -> None:
    """An id that is nowhere is looked for once; no id at all (0), never."""
    containers = walking(tmp_path)
    for _ in range(3):
        assert containers.resolve([0]) == {}
    assert clock.walks == 0
    for _ in range(3):
        containers.resolve([(1 << 60) + 1])
        clock.now_s += 60
    assert clock.walks == 1


def test_too_early_for_a_walk(tmp_path: Path, clock: Clock) -> None:
    """What comes within a second of a walk is found by the next, although nobody asks for it again."""
    first = make(tmp_path, f"docker/{ID}")
    containers = walking(tmp_path)
    containers.resolve([first])
    second = make(tmp_path, f"docker/{ID[::-1]}")
    clock.now_s += 0.5
    assert containers.resolve([second]) == {first: ID}
    clock.now_s += 0.6
    assert containers.resolve([first]) == {first: ID, second: ID[::-1]}
    assert clock.walks == 2


def test_walk_in_steps(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call goes a few steps of a long walk; the next ones go on, and the walk ends."""
    monkeypatch.setattr(cgroups, "_CGROUPS_AT_ONCE", 3)
    numbers = [make(tmp_path, f"docker/{number:064x}") for number in range(10)]
    containers = walking(tmp_path)
    found = [len(containers.resolve(numbers)) for _ in range(5)]
    # The first two directories are the root and docker.
    assert found == [1, 4, 7, 10, 10]
    assert clock.walks == 1


def test_container_that_has_gone(tmp_path: Path, clock: Clock) -> None:
    """It keeps its name: its flows are still to come."""
    gone = make(tmp_path, f"docker/{ID}")
    containers = walking(tmp_path)
    containers.resolve([gone])
    (tmp_path / f"docker/{ID}").rmdir()
    clock.now_s += 60
    assert containers.resolve([(1 << 60) + 1]) == {gone: ID}
    assert clock.walks == 2


def test_bound(tmp_path: Path, clock: Clock) -> None:
    """However many cgroups there are and however many ids are asked for, no more are kept than the limit."""
    numbers = [make(tmp_path, f"docker/{number:064x}") for number in range(29)]
    for opens_by_id in (True, False):
        containers = Containers(7, tmp_path, opens_by_id)
        for start in range(0, 2_000, 100):
            assert len(containers.resolve([*numbers, *range(1 << 50, (1 << 50) + start)])) <= 7
            assert len(containers._known) <= 7
            clock.now_s += 60


def test_more_sought_than_kept(tmp_path: Path, clock: Clock) -> None:
    """What there is no room to look for is counted."""
    containers = walking(tmp_path, max_cgroups=2)
    containers.resolve((1 << 40, (1 << 40) + 1, (1 << 40) + 2))
    assert containers.forgotten == 1


def test_host_without_cgroup2(clock: Clock) -> None:
    """Where only version 1 is mounted there is nothing to find, and nothing is looked for."""
    containers = Containers(root=None)
    assert containers.resolve([1, 2, 3]) == {}
    assert clock.walks == 0


@pytest.mark.parametrize("opens_by_id", [True, False], ids=["opened by id", "walked"])
def test_real_hierarchy(opens_by_id: bool) -> None:
    """The kernel's own cgroups are found by the numbers that processes are told with, and have gone with them."""
    root = cgroup2_root()
    if root is None:
        pytest.skip("no cgroup2 is mounted: it is on the machines of .ci/run")
    identifier = secrets.token_hex(32)
    directory = root / f"docker-{identifier}.scope"
    directory.mkdir()
    try:
        # It moves itself there, and says what it finds it is in.
        script = f"echo $$ > {directory}/cgroup.procs && cat /proc/self/cgroup"
        told = subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE_S
        ).stdout
        assert f"0::/docker-{identifier}.scope\n" in told
        number = directory.stat().st_ino
        containers = Containers(opens_by_id=opens_by_id)
        assert containers.resolve([number])[number] == identifier
        assert containers.opens_by_id == opens_by_id
    finally:
        directory.rmdir()
    assert containers.resolve([number])[number] == identifier
    assert Containers(opens_by_id=opens_by_id).resolve([number]) == {}


def test_without_the_right_to_open_by_id() -> None:
    """Where the kernel refuses that, the hierarchy is walked."""
    script = (
        "from netwatch.kernel.cgroups import Containers, cgroup2_root\n"
        "containers = Containers()\n"
        "containers.resolve([cgroup2_root().stat().st_ino])\n"
        "print(containers.opens_by_id, len(containers._known) > 0)\n"
    )
    command = ["setpriv", "--bounding-set=-dac_read_search", sys.executable, "-c", script]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert finished.stdout.split() == ["False", "True"]
