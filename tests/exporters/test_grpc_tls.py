"""The grpc exporter by TLS and mutual TLS, against the real collector."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from pathlib import Path

import attrs
import pytest
import trio
import trustme

from netwatch.errors import DeliveryFailed, TlsError
from tests.exporters.other_ends import ScriptedHttp2, collecting, exporter, message, replying, run, serving

pytestmark = pytest.mark.usefixtures("nothing_left")


@attrs.frozen
class Authority:
    """A certificate authority with its files."""

    ca: trustme.CA
    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / "ca.pem"

    def server(self, identity: str = "127.0.0.1", clients_of: Authority | None = None) -> ssl.SSLContext:
        """Return what a collector needs; it asks for certificates of `clients_of`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["h2"])
        self.ca.issue_cert(identity).configure_cert(context)
        if clients_of:
            clients_of.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client(self) -> dict[str, Path]:
        """Return the files of an agent, newly issued, as settings."""
        issued = self.ca.issue_cert("agent.example")
        issued.cert_chain_pems[0].write_to_path(self.directory / "cert.pem")
        issued.private_key_pem.write_to_path(self.directory / "key.pem")
        return {"cert": self.directory / "cert.pem", "key": self.directory / "key.pem"}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return new_authority(tmp_path)


@pytest.fixture
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return new_authority(tmp_path_factory.mktemp("stranger"))


def new_authority(directory: Path) -> Authority:
    authority = Authority(trustme.CA(), directory)
    authority.ca.cert_pem.write_to_path(authority.path)
    return authority


def delivered(tls: ssl.SSLContext | None, scheme: str = "grpcs", **settings: object) -> str | None:
    """Send a large message and a small one. Return why that failed, or None if both arrived."""
    payloads = [bytes(range(256)) * 4000, b"small"]

    reasons = []

    async def main(clock: object) -> None:
        async with collecting(tls=tls) as collector, exporter(collector.port, scheme=scheme, **settings) as grpc:
            try:
                for payload in payloads:
                    await grpc.send(message(payload))
            except DeliveryFailed as failure:
                reasons.append(failure.reason)
            else:
                assert collector.taken == payloads

    run(main)
    return reasons[0] if reasons else None


def test_tls(authority: Authority) -> None:
    """Messages arrive, and require_tls is content."""
    assert delivered(authority.server(), ca=authority.path, require_tls=True) is None


def test_mutual_tls(authority: Authority) -> None:
    """The collector asks for our certificate and gets it."""
    assert delivered(authority.server(clients_of=authority), ca=authority.path, **authority.client()) is None


def test_collector_of_another_authority(authority: Authority, stranger: Authority) -> None:
    """Nothing is sent to a collector that our authority does not know; nor to one that only the system would."""
    assert delivered(stranger.server(), ca=authority.path) == "TLS: unable to get local issuer certificate"
    assert delivered(stranger.server()) == "TLS: unable to get local issuer certificate"


def test_collector_of_another_name(authority: Authority) -> None:
    """A certificate for another host is refused."""
    reason = delivered(authority.server("collector.example"), ca=authority.path)
    assert reason == "TLS: IP address mismatch, certificate is not valid for '127.0.0.1'."


def alerted(server: ssl.SSLContext, **settings: object) -> str:
    """Send to a server that refuses us and says why, which neither asyncio nor trio do. Return the reason we name."""
    reasons = []

    async def refuse(stream: trio.SocketStream) -> None:
        def shake_hands() -> None:
            with socket.socket(fileno=os.dup(stream.socket.fileno())) as connection, contextlib.suppress(ssl.SSLError):
                connection.setblocking(True)
                server.wrap_socket(connection, server_side=True)

        await trio.to_thread.run_sync(shake_hands)

    async def main(clock: object) -> None:
        async with serving(refuse) as peer, exporter(peer.port, scheme="grpcs", **settings) as grpc:
            with pytest.raises(DeliveryFailed) as caught:
                await grpc.send(message())
            reasons.append(caught.value.reason)

    run(main)
    return reasons[0]


def test_missing_client_certificate(authority: Authority) -> None:
    """The collector's alert, which TLS 1.3 sends after our side of the handshake, is the reason."""
    server = authority.server(clients_of=authority)
    assert alerted(server, ca=authority.path) == "connection lost: TLS: tlsv13 alert certificate required"
    assert delivered(server, ca=authority.path) is not None


def test_client_certificate_of_another_authority(authority: Authority, stranger: Authority) -> None:
    """So is it here."""
    server, files = authority.server(clients_of=authority), stranger.client()
    assert alerted(server, ca=authority.path, **files) == "connection lost: TLS: tlsv1 alert unknown ca"
    assert delivered(server, ca=authority.path, **files) is not None


def test_plain_text_collector(authority: Authority) -> None:
    """TLS towards a server that speaks none fails in the handshake."""
    assert delivered(None, ca=authority.path) == "TLS: wrong version number"


def test_plain_text_to_a_tls_collector(authority: Authority) -> None:
    """The server ends the connection."""
    reason = delivered(authority.server(), scheme="grpc")
    assert reason
    assert reason.startswith("connection")


def test_renewed_certificate(authority: Authority, stranger: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """Files are read again for each connection: a renewed certificate needs no restart, a damaged one is a failure."""

    async def main(clock: object) -> None:
        server = authority.server(clients_of=authority)
        # Issued by an authority that the collector does not trust: what is to be renewed.
        files = stranger.client()
        async with (
            collecting(tls=server) as collector,
            exporter(collector.port, scheme="grpcs", ca=authority.path, **files) as grpc,
        ):
            with pytest.raises(DeliveryFailed, match="connection"):
                await grpc.send(message())
            files["cert"].write_text("half written")
            with pytest.raises(DeliveryFailed, match=f"cert {files['cert']}: contains no PEM block"):
                await grpc.send(message())
            for name, path in authority.client().items():
                files[name].write_bytes(path.read_bytes())
            await grpc.send(message())
            assert len(collector.taken) == 1

    run(main)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """It ends the start, before anything is captured."""
    with pytest.raises(TlsError, match="No such file or directory") as caught:
        exporter(1, scheme="grpcs", ca=tmp_path / "absent.pem")
    assert caught.value.setting == "ca"


def test_files_are_for_tls_alone(tmp_path: Path) -> None:
    """A grpc:// exporter beside a grpcs:// one does not look at them."""

    async def main(clock: object) -> None:
        async with (
            serving(ScriptedHttp2(replying())) as peer,
            exporter(peer.port, ca=tmp_path / "absent.pem") as grpc,
        ):
            await grpc.send(message())

    run(main)
