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
from pathlib import Path

from tests.kernel.agent_process import AgentProcess
from tests.kernel.dns_client import ask
from tests.kernel.dns_server import Behaviour, DnsServer
from tests.kernel.hosts import Namespace, connect

_PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000
_TIMEOUT_S = 5.0


def make_recording(path: Path) -> None:
    """Record a client that looks names up, fetches pages through a translating gateway, and is refused and filtered."""
    with contextlib.ExitStack() as stack:
        client_host, gateway, server_host = (stack.enter_context(Namespace()) for _ in range(3))
        client, inside = client_host.veth("client0", gateway, "inside0")
        outside, server = gateway.veth("outside0", server_host, "server0")
        connect(client, ("10.1.0.1/24",), inside, ("10.1.0.2/24",))
        connect(outside, ("10.2.0.2/24",), server, ("10.2.0.3/24",))
        gateway.forward()
        for rule in (
            "add table ip nat",
            "add chain ip nat out { type nat hook postrouting priority 100; }",
            "add rule ip nat out oifname outside0 masquerade",
            "add chain ip nat in { type nat hook prerouting priority -100; }",
            "add rule ip nat in iifname inside0 tcp dport 8080 dnat to 10.2.0.3:80",
            "add table ip filter",
            "add chain ip filter pass { type filter hook forward priority 0; }",
            "add rule ip filter pass udp dport 9999 drop",
        ):
            gateway.run("nft", rule)
        client_host.route("10.2.0.0/24", "10.1.0.2")
        ledger = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "ledger.json"
        options = ("--active-timeout", "1", "--record", str(path), "-c", str(_settings(ledger.parent)))
        daemon = stack.enter_context(AgentProcess(gateway, ledger, *options))
        _talk(client_host, gateway, server_host)
        result = daemon.stop(signal.SIGTERM)
        assert result.ledger is not None
        assert result.ledger["events"]["balances"], result.log


def _settings(directory: Path) -> Path:
    file = directory / "netwatch.toml"
    file.write_text("dns_timeout_s = 0.5\n")
    return file


def _talk(client_host: Namespace, gateway: Namespace, server_host: Namespace) -> None:
    behaviours = {"gone.example.org": Behaviour.NXDOMAIN, "silent.example.org": Behaviour.SILENT}
    with DnsServer(gateway, "10.1.0.2", delay_s=0.02, behaviours=behaviours):
        for number, name in enumerate(("www.example.org", "gone.example.org", "silent.example.org")):
            with contextlib.suppress(TimeoutError):
                ask(client_host, "10.1.0.2", name, number, timeout_s=0.7)
    with server_host.enter():
        listener = socket.create_server(("10.2.0.3", 80))
    server = threading.Thread(target=_serve, args=(listener, 3))
    server.start()
    for _ in range(3):
        _fetch(client_host, ("10.1.0.2", 8080))
    server.join()
    listener.close()
    with client_host.enter(), socket.socket() as refused:
        refused.connect_ex(("10.1.0.2", 81))
    with client_host.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as filtered:
        for _ in range(17):
            filtered.sendto(b"x" * 300, ("10.2.0.3", 9999))


def _serve(listener: socket.socket, connections: int) -> None:
    listener.settimeout(_TIMEOUT_S)
    for _ in range(connections):
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(_TIMEOUT_S)
            connection.recv(4096)
            connection.sendall(_PAGE)


def _fetch(client_host: Namespace, address: tuple[str, int]) -> None:
    with client_host.enter():
        connection = socket.create_connection(address, timeout=_TIMEOUT_S)
    with connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n")
        while connection.recv(65_536):
            pass


if __name__ == "__main__":
    make_recording(Path(sys.argv[1]))
