"""From a URL to an exporter.

Law: an exporter's libraries are imported only where its URL is asked for; a table needs no gRPC.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from netwatch.address import AgentAddress
from netwatch.core.pbflow import PbflowEncoder
from netwatch.exporters import Exporter
from netwatch.settings.exporter_url import STDOUT

if TYPE_CHECKING:
    from netwatch.config import Config


def open_exporter(url: str, config: Config, agent_ip: AgentAddress) -> Exporter:
    """Return the exporter that a checked URL names; it connects to nothing yet.

    Raises ConfigError or TlsError for what only its library can find wrong.
    """
    if url == STDOUT:
        from netwatch.exporters.stdout import StdoutExporter  # noqa: PLC0415 - see the law

        return StdoutExporter(config.format or ("table" if os.isatty(1) else "json"), str(agent_ip))
    from netwatch.exporters.grpc import GrpcExporter, GrpcSettings  # noqa: PLC0415

    settings = GrpcSettings(
        deadline_s=config.deadline_s,
        reconnect_after_s=config.reconnect_s,
        backoff_min_s=config.backoff_min_s,
        backoff_max_s=config.backoff_max_s,
        ca=config.ca,
        cert=config.cert,
        key=config.key,
        require_tls=config.require_tls,
    )
    encoder = PbflowEncoder(agent_ip, config.minimal_varints, config.max_message_flows, config.max_message_bytes)
    return GrpcExporter(url, settings, encoder)
