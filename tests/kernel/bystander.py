"""A user without any rights in the network namespace of an agent, who takes all that a user may take.

Law: what it holds it holds until the context ends; what the kernel refuses it is told, not raised.
Neighbours: `test_tc_claim.py` and `test_attach.py` show that nothing of this stands in netwatch's way.

Run: python -m tests.kernel.bystander PORT…
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.hosts import Namespace

_ROOT = Path(__file__).parents[2]
_NOBODY = 65534
_CLONE_NEWUSER = 0x1000_0000
_USERSOCK = 2
ALL_GROUPS = 0xFFFF_FFFF

_held: list[object] = []


@contextmanager
def bystander(namespace: Namespace, *ports: int) -> Iterator[dict[str, list[str]]]:
    """Let one take these ports, abstract sockets and the namespace's lock. Gives what it got and what was refused."""
    command = [*namespace.prefix, sys.executable, "-m", "tests.kernel.bystander", *map(str, ports)]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdin
        yield json.loads(process.stdout.readline())
        process.stdin.close()
    assert process.returncode == 0


def _try(what: str, told: dict[str, list[str]], take: Callable[..., object], *arguments: object) -> None:
    try:
        _held.append(take(*arguments))
        told["got"].append(what)
    except OSError:
        told["refused"].append(what)


def _netlink(port: int, groups: int) -> socket.socket:
    taken = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _USERSOCK)
    taken.bind((port, groups))
    return taken


def _unix(name: str) -> socket.socket:
    taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    taken.bind("\0" + name)
    return taken


def _flock() -> object:
    file = open("/proc/self/ns/net", "rb")  # noqa: SIM115 - held to the end
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _become_root_of_a_user_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")


def main() -> None:
    """Take it, tell, and hold it until stdin ends."""
    os.setgroups([])
    os.setresgid(*[_NOBODY] * 3)
    os.setresuid(*[_NOBODY] * 3)
    told: dict[str, list[str]] = {"got": [], "refused": []}
    ports = [int(port) for port in sys.argv[1:]]
    _try("lock", told, _flock)
    for where in ("user", "user namespace"):
        for port in ports:
            _try(f"{where}: groups", told, _netlink, port, ALL_GROUPS)
            _try(f"{where}: groups of any port", told, _netlink, 0, ALL_GROUPS)
        if where == "user":
            # All capabilities, but only of the user namespace: the network namespace is not of it.
            _try("user namespace", told, _become_root_of_a_user_namespace)
    for port in ports:
        _try("port", told, _netlink, port, 0)
        _try("name", told, _unix, f"netwatch-{port:08x}")
    print(json.dumps(told), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
