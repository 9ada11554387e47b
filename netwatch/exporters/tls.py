"""TLS towards collectors: three files become an SSL context.

Law: what is wrong with a file is said with the setting and the path; OpenSSL's own words name neither. Nothing here
asks a person: a key with a passphrase is refused.
Neighbours: `grpc.py` makes a context at the start, to fail early, and `connection.py` one for each connection, because
certificates are renewed while a daemon runs.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import attrs

from netwatch.errors import TlsError

_CERTIFICATE, _PRIVATE_KEY, _ENCRYPTED = "BEGIN CERTIFICATE-----", "PRIVATE KEY-----", "ENCRYPTED"


@attrs.frozen
class TlsFiles:
    """The PEM files of a TLS client; `cert` and `key` come together, which config.py checks."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def client_context(self) -> ssl.SSLContext:
        """Return a context that checks collectors against `ca`, or the system's authorities, and has our certificate.

        Blocks while it reads the files, some milliseconds. Raises TlsError.
        """
        authorities = _read("ca", self.ca, _CERTIFICATE) if self.ca else None
        try:
            context = ssl.create_default_context(cadata=authorities)
        except ssl.SSLError as error:
            raise TlsError("ca", str(self.ca), _reason(error)) from error
        # RFC 9113, 9.2: "Implementations of HTTP/2 MUST use TLS version 1.2 or higher." OpenSSL's default may be lower.
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A gRPC server may refuse a client that does not offer HTTP/2 by ALPN.
        context.set_alpn_protocols(["h2"])
        if self.cert:
            assert self.key
            _load_certificate(context, self.cert, self.key)
        return context


def _load_certificate(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    _read("cert", cert, _CERTIFICATE)
    if _ENCRYPTED in _read("key", key, _PRIVATE_KEY):
        raise TlsError("key", str(key), "has a passphrase, and nobody to type it; store the key without one")
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError("key", str(key), f"is not the key of the certificate in {cert}") from error
        setting, path = ("key", key) if _is_certificate(cert) else ("cert", cert)
        raise TlsError(setting, str(path), _reason(error)) from error


def _is_certificate(cert: Path) -> bool:
    # OpenSSL does not say which of the two files it could not read.
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_read("cert", cert, _CERTIFICATE))
    except (ssl.SSLError, TlsError):
        return False
    return True


def _read(setting: str, path: Path, marker: str) -> str:
    """Return the ASCII of a PEM file that contains what the marker begins; comments may be in any encoding."""
    try:
        text = path.read_text(encoding="ascii", errors="ignore")
    except OSError as error:
        raise TlsError(setting, str(path), _reason(error)) from error
    if marker not in text:
        raise TlsError(setting, str(path), f"contains no PEM block with {marker.rstrip('-')!r}")
    return text


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "is damaged: OpenSSL cannot parse it"
    return error.strerror or str(error)
