"""The metrics of a running daemon, as Prometheus reads them.

Law: only what the daemon says is looked at, and what is waited for has a timeout.
Neighbours: `agent_process.py` starts the daemon (with `--metrics-listen`), `netwatch/metrics.py` says what there is.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable

import attrs
from prometheus_client.parser import text_string_to_metric_families

from tests.kernel.hosts import Namespace
from tests.kernel.waiting import PATIENCE_S, look_until

# Each daemon has a namespace, and with it all ports, to itself.
LISTEN = "127.0.0.1:9464"
FLAGS = ("--metrics-listen", LISTEN)


@attrs.frozen
class Sample:
    """One line of a scrape."""

    name: str
    labels: dict[str, str]
    value: float


@attrs.frozen
class Scrape:
    """All that one scrape said. Names are those of the text format, without `netwatch_`."""

    samples: list[Sample]

    def sum(self, name: str, **labels: str) -> int:
        """Add up the samples of a name that have these labels; 0 where there is none."""
        return int(sum(sample.value for sample in self.find(name, **labels)))

    def find(self, name: str, **labels: str) -> list[Sample]:
        """Return the samples of a name that have these labels."""
        full_name, wanted = f"netwatch_{name}", labels.items()
        return [one for one in self.samples if one.name == full_name and wanted <= one.labels.items()]


def get(namespace: Namespace, path: str) -> tuple[int, str]:
    """Ask the daemon's HTTP server. Returns status and body; raises OSError where nobody listens."""
    host, _, port = LISTEN.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
    try:
        with namespace.enter():
            connection.connect()
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def scrape(namespace: Namespace) -> Scrape:
    """Read all metrics."""
    status, body = get(namespace, "/metrics")
    assert status == 200, body
    families = text_string_to_metric_families(body)
    return Scrape([Sample(one.name, one.labels, one.value) for family in families for one in family.samples])


def scrape_until(namespace: Namespace, is_enough: Callable[[Scrape], bool], timeout_s: float = PATIENCE_S) -> Scrape:
    """Read the metrics until they are as they should become."""
    read = look_until(lambda: scrape(namespace), is_enough, timeout_s)
    assert is_enough(read), f"not in {timeout_s} s; at the end: {read.samples}"
    return read
