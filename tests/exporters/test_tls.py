"""What is said of certificate files; tests/exporters/test_grpc_tls.py uses good ones."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from netwatch.errors import TlsError
from netwatch.exporters.tls import TlsFiles

DAMAGED = "-----BEGIN {0}-----\nAAAA\n-----END {0}-----\n"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files good and bad, named for what they are."""
    directory = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ours, other = ca.issue_cert("agent.example"), ca.issue_cert("other.example")
    ca.cert_pem.write_to_path(directory / "ca.pem")
    ours.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    ours.private_key_pem.write_to_path(directory / "key.pem")
    other.private_key_pem.write_to_path(directory / "other-key.pem")
    (directory / "text").write_text("no PEM at all")
    (directory / "damaged-cert.pem").write_text(DAMAGED.format("CERTIFICATE"))
    (directory / "damaged-key.pem").write_text(DAMAGED.format("PRIVATE KEY"))
    (directory / "locked-key.pem").write_text(DAMAGED.format("ENCRYPTED PRIVATE KEY"))
    comment = "# Autorit\xe9 de certification\n".encode("latin-1")
    (directory / "ca-with-comment.pem").write_bytes(comment + (directory / "ca.pem").read_bytes())
    return directory


def files(directory: Path, ca: str | None, cert: str | None, key: str | None) -> TlsFiles:
    return TlsFiles(*(directory / name if name else None for name in (ca, cert, key)))


@pytest.mark.parametrize("ca", ["ca.pem", "ca-with-comment.pem"])
def test_good_files(ca: str, directory: Path) -> None:
    """The collector is checked against that authority alone, by name, and TLS is 1.2 or newer."""
    context = files(directory, ca, "cert.pem", "key.pem").client_context()
    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_no_files(directory: Path) -> None:
    """The collector is checked all the same: against the system's authorities."""
    context = files(directory, None, None, None).client_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.get_ca_certs() == ssl.create_default_context().get_ca_certs()


@pytest.mark.parametrize(
    ("names", "setting", "path", "reason"),
    [
        (("absent.pem", None, None), "ca", "absent.pem", "No such file or directory"),
        ((".", None, None), "ca", "", "Is a directory"),
        (("text", None, None), "ca", "text", "contains no PEM block with 'BEGIN CERTIFICATE'"),
        (("key.pem", None, None), "ca", "key.pem", "contains no PEM block with 'BEGIN CERTIFICATE'"),
        (("damaged-cert.pem", None, None), "ca", "damaged-cert.pem", "is damaged"),
        ((None, "absent.pem", "key.pem"), "cert", "absent.pem", "No such file or directory"),
        ((None, "cert.pem", "absent.pem"), "key", "absent.pem", "No such file or directory"),
        ((None, "key.pem", "cert.pem"), "cert", "key.pem", "contains no PEM block with 'BEGIN CERTIFICATE'"),
        ((None, "cert.pem", "cert.pem"), "key", "cert.pem", "contains no PEM block with 'PRIVATE KEY'"),
        ((None, "damaged-cert.pem", "key.pem"), "cert", "damaged-cert.pem", "is damaged"),
        ((None, "cert.pem", "damaged-key.pem"), "key", "damaged-key.pem", "is damaged"),
        ((None, "cert.pem", "locked-key.pem"), "key", "locked-key.pem", "has a passphrase"),
        ((None, "cert.pem", "other-key.pem"), "key", "other-key.pem", "is not the key of the certificate in"),
    ],
)
def test_bad_files(
    names: tuple[str | None, str | None, str | None], setting: str, path: str, reason: str, directory: Path
) -> None:
    """The complaint names the setting, the path and the reason."""
    with pytest.raises(TlsError) as caught:
        files(directory, *names).client_context()
    assert (caught.value.setting, caught.value.path) == (setting, str(directory / path))
    assert reason in str(caught.value)
