"""Hosts for tests: network namespaces joined by links that carry what a test sends, and nothing else.

Law: a namespace removes itself and all that is in it when its context ends. No host here resolves neighbours, asks
for routers, joins groups or checks addresses, so that the packets of a test are all there are.
Neighbours: `conftest.py` makes the fixtures, `leftovers.py` looks for what was not removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
import termios
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import attrs

from tests.kernel.waiting import PATIENCE_S, look_until

CLONE_NEWNET = 0x4000_0000
_DIRECTORY = "/run/netns"
_libc = ctypes.CDLL(None, use_errno=True)

# A device takes these from `default` when it is made.
_QUIET_IPV6 = {"accept_ra": 0, "autoconf": 0, "router_solicitations": 0, "dad_transmits": 0, "addr_gen_mode": 1}


def session_suffix() -> str:
    """Return how the names of all namespaces of this test run end."""
    return f"-{os.getpid()}"


@attrs.frozen
class LinkStatistics:
    """The kernel's own count of what an interface received and sent; bytes are Ethernet frames.

    A veth counts as sent, and its other end as received, what found room in the queue of the other end's processor.
    """

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    tx_dropped: int


class Namespace:
    """A network namespace of its own name, `nw-RANDOM-PID`. It exists while its context is open."""

    def __init__(self) -> None:
        self.name = f"nw-{secrets.token_hex(3)}{session_suffix()}"

    @property
    def path(self) -> str:
        """The file that stands for the namespace."""
        return f"{_DIRECTORY}/{self.name}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """The command that runs another inside. Unlike `ip netns exec` it leaves the mounts: tracefs, bpffs, sysfs."""
        return ("nsenter", f"--net={self.path}")

    def __enter__(self) -> Self:
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        try:
            for name, value in _QUIET_IPV6.items():
                self.sysctl(f"net.ipv6.conf.default.{name}", value)
            self.run("ip", "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Remove it. The kernel removes its links with it as soon as no process is left inside."""
        subprocess.run(["ip", "netns", "delete", self.name], check=True)

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Move the calling thread inside: its sockets and its child processes are made there."""
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            inside = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _set_namespace(inside)
            finally:
                os.close(inside)
            try:
                yield
            finally:
                _set_namespace(outside)
        finally:
            os.close(outside)

    def run(self, *command: str, check: bool = True, timeout_s: float = PATIENCE_S) -> str:
        """Run a command inside and return what it prints. Raises CalledProcessError with its stderr as a note."""
        with self.enter():
            finished = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        try:
            if check:
                finished.check_returncode()
        except subprocess.CalledProcessError as error:
            error.add_note(finished.stderr)
            raise
        return finished.stdout

    def sysctl(self, name: str, value: int) -> None:
        """Set a kernel parameter of the namespace (`net.…`)."""
        # /proc/sys/net shows the namespace of the task that opens it.
        with self.enter(), open(f"/proc/sys/{name.replace('.', '/')}", "w") as file:
            file.write(str(value))

    def counter(self, table: str, name: str) -> int:
        """Return one of the kernel's counters of the namespace, as "Tcp", "RetransSegs"; "TcpExt", "TCPSynRetrans"."""
        with self.enter():
            texts = [Path("/proc/thread-self/net", file).read_text() for file in ("snmp", "netstat")]
        names, values = (
            line.split()[1:] for text in texts for line in text.splitlines() if line.startswith(f"{table}: ")
        )
        return int(values[names.index(name)])

    def interface(self, name: str) -> Interface:
        """Return an interface that exists."""
        (link,) = json.loads(self.run("ip", "-json", "link", "show", "dev", name))
        return Interface(self, name, link["ifindex"], link.get("address", ""))

    def veth(self, name: str, peer: Namespace, peer_name: str) -> tuple[Interface, Interface]:
        """Make a cable to another namespace (or this one); both ends are up."""
        self.run("ip", "link", "add", name, "type", "veth", "peer", "name", peer_name, "netns", peer.name)
        return self._start(name), peer._start(peer_name)

    def bridge(self, name: str, *ports: Interface) -> Interface:
        """Make a bridge of interfaces of this namespace. It floods what it has not learned, groups included."""
        self.run("ip", "link", "add", name, "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        for port in ports:
            self.run("ip", "link", "set", port.name, "master", name)
        return self._start(name)

    def vxlan(self, name: str, network_id: int, local: str, remote: str) -> Interface:
        """Make one end of a VXLAN tunnel between two addresses (UDP port 4789)."""
        tunnel = ("id", str(network_id), "local", local, "remote", remote, "dstport", "4789", "nolearning")
        self.run("ip", "link", "add", name, "type", "vxlan", *tunnel)
        return self._start(name)

    def route(self, destination: str, via: str) -> None:
        """Set (or move) a route."""
        self.run("ip", "route", "replace", destination, "via", via)

    def forward(self) -> None:
        """Make it a router, for packets from any side."""
        self.sysctl("net.ipv4.ip_forward", 1)
        self.sysctl("net.ipv6.conf.all.forwarding", 1)
        for name in ("all", "default"):
            self.sysctl(f"net.ipv4.conf.{name}.rp_filter", 0)

    def _start(self, name: str) -> Interface:
        # Without ARP an interface joins no solicited-node group and so reports none; neighbours are static anyway.
        self.run("ip", "link", "set", name, "multicast", "off", "arp", "off", "up")
        return self.interface(name)


@attrs.frozen
class Interface:
    """An interface of a namespace."""

    namespace: Namespace
    name: str
    ifindex: int
    mac: str

    def address(self, *addresses: str) -> None:
        """Give it addresses, `ADDRESS/PREFIXLENGTH`, usable at once."""
        for address in addresses:
            nodad = ("nodad",) if ":" in address else ()
            self.namespace.run("ip", "address", "add", address, "dev", self.name, *nodad)

    def neighbour(self, address: str, mac: str) -> None:
        """Tell it where an address is."""
        state = ("nud", "permanent")
        self.namespace.run("ip", "neighbour", "replace", address, "lladdr", mac, "dev", self.name, *state)

    def send(self, frames: Iterable[bytes]) -> int:
        """Send frames as they are, through the ordinary transmit path. Returns how many, once none is under way.

        A frame belongs to its socket until it has passed the hooks of a veth's other end, or is dropped.
        """
        count = 0
        with self.namespace.enter(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packet_socket:
            packet_socket.bind((self.name, 0))
            for frame in frames:
                packet_socket.send(frame)
                count += 1
            wait_until_taken(packet_socket)
        return count

    def statistics(self) -> LinkStatistics:
        """Return the kernel's own count."""
        (link,) = json.loads(self.namespace.run("ip", "-json", "-stats", "link", "show", "dev", self.name))
        received, sent = link["stats64"]["rx"], link["stats64"]["tx"]
        return LinkStatistics(received["packets"], received["bytes"], sent["packets"], sent["bytes"], sent["dropped"])


@attrs.frozen
class Pair:
    """Two hosts and the cable between them: 10.0.0.1 and fd00::1 on the left, 10.0.0.2 and fd00::2 on the right."""

    left: Interface
    right: Interface


def connect(left: Interface, left_addresses: Iterable[str], right: Interface, right_addresses: Iterable[str]) -> None:
    """Give the two ends of a link their addresses and make each know the other's."""
    for mine, addresses, other in ((left, [*left_addresses], right), (right, [*right_addresses], left)):
        mine.address(*addresses)
        for address in addresses:
            other.neighbour(address.partition("/")[0], mine.mac)


@attrs.frozen
class Gateway:
    """A client, a router, a server: `10.1.0.1 - 10.1.0.2 | 10.2.0.2 - 10.2.0.3`, and the same in fd01:: and fd02::."""

    client: Interface
    inside: Interface
    outside: Interface
    server: Interface

    @classmethod
    def between(cls, client_host: Namespace, router: Namespace, server_host: Namespace) -> Gateway:
        """Make the links client0, inside0, outside0 and server0, and a router of the one in the middle."""
        client, inside = client_host.veth("client0", router, "inside0")
        outside, server = router.veth("outside0", server_host, "server0")
        connect(client, ("10.1.0.1/24", "fd01::1/64"), inside, ("10.1.0.2/24", "fd01::2/64"))
        connect(outside, ("10.2.0.2/24", "fd02::2/64"), server, ("10.2.0.3/24", "fd02::3/64"))
        router.forward()
        return cls(client, inside, outside, server)


def wait_until_taken(sender: socket.socket) -> None:
    """Wait until no packet of a socket is under way: what went through a veth has passed the hooks of its other end."""

    def octets_under_way() -> int:
        # SIOCOUTQ, by the name that terminals give the same number.
        return int.from_bytes(fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    assert look_until(octets_under_way, lambda octets: octets == 0) == 0


def _set_namespace(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
