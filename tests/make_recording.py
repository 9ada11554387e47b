"""Make the recording that the repository carries: real traffic between the tests' own hosts, watched at a gateway.

Law: everything in it is made here; addresses are private, names are those of RFC 2606. As root:
`python -m tests.make_recording tests/data/hosts.netwatch`.
Neighbours: `tests/kernel/` has the hosts; the README shows `netwatch replay` on what comes out.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.kernel.agent_process import AgentProcess
from tests.kernel.dns_client import ask
from tests.kernel.dns_server import Behaviour, DnsServer
from tests.kernel.hosts import Gateway, Namespace

_PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000
_UPLOAD = b"PUT / HTTP/1.1\r\nContent-Length: 600000\r\n\r\n" + b"x" * 600_000
_TIMEOUT_S = 120.0
_BEHAVIOURS = {"gone.example.org": Behaviour.NXDOMAIN, "silent.example.org": Behaviour.SILENT}
_AT_THE_GATEWAY = (
    "add table ip nat",
    "add chain ip nat out { type nat hook postrouting priority 100; }",
    "add rule ip nat out oifname outside0 masquerade",
    "add chain ip nat in { type nat hook prerouting priority -100; }",
    "add rule ip nat in iifname inside0 tcp dport 8080 dnat to 10.2.0.3:80",
    "add table ip filter",
    "add chain ip filter pass { type filter hook forward priority 0; }",
    "add rule ip filter pass udp dport 9999 drop",
)
# A path with losses: every twentieth piece of the upload is lost (a piece is as large as TSO makes it).
_AT_THE_SERVER = (
    "add table ip filter",
    "add chain ip filter take { type filter hook input priority 0; }",
    "add rule ip filter take tcp dport 8000 meta length > 1000 numgen inc mod 20 == 5 drop",
)
_SETTINGS = """\
dns_timeout_s = 0.5
active_timeout_s = 0.5
"""


@attrs.frozen
class Hosts:
    """A client, 10.1.0.1, a gateway that is watched, 10.1.0.2 and 10.2.0.2, and a server, 10.2.0.3."""

    client: Namespace
    gateway: Namespace
    server: Namespace


@contextlib.contextmanager
def _hosts() -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        client_host, gateway, server_host = (stack.enter_context(Namespace()) for _ in range(3))
        Gateway.between(client_host, gateway, server_host)
        client_host.route("10.2.0.0/24", "10.1.0.2")
        for namespace, rules in ((gateway, _AT_THE_GATEWAY), (server_host, _AT_THE_SERVER)):
            for rule in rules:
                namespace.run("nft", rule)
        yield Hosts(client_host, gateway, server_host)


def make_recording(path: Path) -> None:
    """Record names looked up, pages fetched through a translating gateway, an upload with losses, what is refused."""
    with tempfile.TemporaryDirectory() as directory, _hosts() as hosts:
        settings, ledger = Path(directory) / "netwatch.toml", Path(directory) / "ledger.json"
        settings.write_text(_SETTINGS)
        with AgentProcess(hosts.gateway, ledger, "--record", str(path), "-c", str(settings)) as daemon:
            _look_up(hosts)
            daemon.wait_for_flows(lambda flows: any("DnsErrno" in flow for flow in flows))
            _fetch_pages(hosts)
            daemon.wait_for_flows(lambda flows: any("XlatDstAddr" in flow for flow in flows))
            _upload(hosts)
            daemon.wait_for_flows(lambda flows: any("TcpRetransmits" in flow for flow in flows))
            _be_refused(hosts)
            result = daemon.stop(signal.SIGTERM)
        assert result.ledger is not None
        assert result.ledger["events"]["balances"], result.log
        path.chmod(0o644)


@contextlib.contextmanager
def _called(name: str) -> Iterator[None]:
    """Give the calling thread a name, under which the records show the sockets that it makes."""
    command = Path("/proc/thread-self/comm")
    before = command.read_text().strip()
    command.write_text(name)
    try:
        yield
    finally:
        command.write_text(before)


def _look_up(hosts: Hosts) -> None:
    with contextlib.ExitStack() as stack:
        with _called("resolver"):
            stack.enter_context(DnsServer(hosts.gateway, "10.1.0.2", delay_s=0.02, behaviours=_BEHAVIOURS))
        for number, name in enumerate(("www.example.org", "gone.example.org", "silent.example.org"), 1):
            ask(hosts.client, "10.1.0.2", name, number, timeout_s=0.7)


def _fetch_pages(hosts: Hosts) -> None:
    with _serving(hosts.server, 80, 3, _PAGE), _called("browser"):
        for _ in range(3):
            _talk_to(hosts.client, ("10.1.0.2", 8080), b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n")


def _upload(hosts: Hosts) -> None:
    with _serving(hosts.server, 8000, 1, b"HTTP/1.1 204 No Content\r\n\r\n"), _called("backup"):
        _talk_to(hosts.gateway, ("10.2.0.3", 8000), _UPLOAD)


def _be_refused(hosts: Hosts) -> None:
    with _called("monitor"), hosts.gateway.enter(), socket.socket() as refused:
        refused.connect_ex(("10.2.0.3", 81))
    with hosts.client.enter(), socket.socket() as refused:
        refused.connect_ex(("10.1.0.2", 81))
    with hosts.client.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as filtered:
        for _ in range(17):
            filtered.sendto(b"x" * 300, ("10.2.0.3", 9999))


@contextlib.contextmanager
def _serving(namespace: Namespace, port: int, connections: int, answer: bytes) -> Iterator[None]:
    """Answer so many connections, each when the client has sent all that it has."""
    with _called("web-server"), namespace.enter():
        listener = socket.create_server(("10.2.0.3", port))
    listener.settimeout(_TIMEOUT_S)

    def serve() -> None:
        for _ in range(connections):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(_TIMEOUT_S)
                while connection.recv(65_536):
                    pass
                connection.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    with listener:
        yield
        server.join()


def _talk_to(namespace: Namespace, address: tuple[str, int], request: bytes) -> None:
    with namespace.enter():
        connection = socket.create_connection(address, timeout=_TIMEOUT_S)
    with connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass


if __name__ == "__main__":
    make_recording(Path(sys.argv[1]))
