"""The container that a cgroup belongs to, out of its path.

Law: pure; what does not look like a container's cgroup is in none. Nothing is asked of a container runtime.
Neighbours: `kernel/cgroups.py` finds the paths.
"""

from __future__ import annotations

import re

# Docker, containerd, CRI-O and podman call a container by 64 hexadecimal digits, and its cgroup after it. Where systemd
# keeps the hierarchy, the runtime stands before it and .scope behind: docker-ID.scope, cri-containerd-ID.scope,
# crio-ID.scope, libpod-ID.scope; SLICE:cri-containerd:ID where it was to and does not. ECS has 32 digits and a number.
_CONTAINER = re.compile(r"(?:[^/]*[-:])?([0-9a-f]{64}|[0-9a-f]{32}-[0-9]+)(?:\.scope)?")
# Runtimes keep their own helpers under the container's id, too.
_HELPER = re.compile(r"(?:crio-conmon|libpod-conmon|conmon)-")


def container_id(path: str) -> str:
    """Return the id of the container whose cgroup this is, or which it is part of; nothing where there is none."""
    for name in reversed(path.split("/")):
        if not _HELPER.match(name) and (match := _CONTAINER.fullmatch(name)):
            return match[1]
    return ""
