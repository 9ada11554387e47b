"""How exporters are named in the settings: `stdout`, `grpc://HOST:PORT[,HOST:PORT...]`, `grpcs://...`.

Law: a URL that passes here is one that an exporter can be made of; nothing is resolved or connected.
Neighbours: `config.py` (`exporters`), the packages under `exporters/` read the same URLs.
"""

from __future__ import annotations

import attrs

from netwatch.settings.kinds import Kind, nearest

STDOUT = "stdout"
_GRPC_SCHEMES = ("grpc", "grpcs")
_EXPECTED = "expected stdout, grpc://HOST:PORT or grpcs://HOST:PORT"


@attrs.frozen
class ExporterUrl(Kind[str]):
    """The URL of an exporter."""

    def parse(self, value: object) -> str:
        """Return the URL as it was written."""
        if not isinstance(value, str) or not value:
            raise ValueError(_EXPECTED)
        scheme, separator, targets = value.partition("://")
        if value == STDOUT:
            return value
        if scheme not in _GRPC_SCHEMES or not separator:
            raise ValueError(f"{value!r}: {_EXPECTED}{nearest(scheme, (STDOUT, *_GRPC_SCHEMES))}")
        for target in targets.split(","):
            _check_target(value, target)
        return value


def _check_target(url: str, target: str) -> None:
    host, colon, port = target.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{url!r}: {target!r} is not HOST:PORT")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"{url!r}: port {port!r} is not a number from 1 to 65535")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed != (":" in host):
        raise ValueError(f"{url!r}: an IPv6 address stands in brackets: [::1]:PORT")
    if not host.isprintable() or any(char in " /@?#[]" for char in (host[1:-1] if bracketed else host)):
        raise ValueError(f"{url!r}: {host!r} is no host")
