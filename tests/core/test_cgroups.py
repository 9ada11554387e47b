"""The container of a cgroup, by the paths that container runtimes make."""

from __future__ import annotations

import pytest

from netwatch.core.cgroups import container_id

ID = "4f1c" * 16
POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podc0ffee00_1234_5678_9abc_def012345678.slice"


@pytest.mark.parametrize(
    "path",
    [
        f"/system.slice/docker-{ID}.scope",
        f"/docker/{ID}",
        f"/docker/{ID}/init.scope",
        f"{POD}/cri-containerd-{ID}.scope",
        f"{POD}/crio-{ID}.scope",
        f"/kubepods/burstable/podc0ffee00-1234-5678-9abc-def012345678/{ID}",
        f"/system.slice/{POD.rpartition('/')[2]}:cri-containerd:{ID}",
        f"/machine.slice/libpod-{ID}.scope",
        f"/machine.slice/libpod-{ID}.scope/container",
        f"/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope",
    ],
)
def test_container(path: str) -> None:
    """The id is found under whichever runtime's name, also for a cgroup inside the container."""
    assert container_id(path) == ID


def test_ecs() -> None:
    """A task's container has 32 digits and a number."""
    assert container_id(f"/ecs/{'ab' * 16}/{'cd' * 16}-1234567890") == f"{'cd' * 16}-1234567890"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/system.slice/ssh.service",
        POD,
        f"/machine.slice/libpod-conmon-{ID}.scope",
        f"{POD}/crio-conmon-{ID}.scope",
        f"/docker/{ID[:-1]}",
        f"/docker/{ID.upper()}",
        "",
    ],
)
def test_no_container(path: str) -> None:
    """A service, a pod's own cgroup and a runtime's helper are in no container, and nothing is guessed."""
    assert container_id(path) == ""
