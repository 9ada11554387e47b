"""The agent that netwatch is compared with, where the environment names it.

Law: none of it is in this repository. It is run as it is, in the namespace of the testbed, by its documented settings,
with everything off that goes beyond counting flows.
Neighbours: `daemon.py` runs it; the sink speaks its protocol, pbflow, so that it needs no collector of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs

from bench.daemon import Agent, Netwatch, Run

PEER_VARIABLE = "NETOBSERV_AGENT"


@attrs.frozen
class NetObserv:
    """NetObserv's eBPF agent. `path` is its executable."""

    path: str
    name: str = "NetObserv"

    def command(self, run: Run) -> list[str]:
        """Return the command: it takes no arguments."""
        return [self.path]

    def environment(self, run: Run) -> Mapping[str, str]:
        """Return its settings, which come by environment. Features that are not named are off by default."""
        settings = {
            "EXPORT": "grpc",
            "TARGET_HOST": "127.0.0.1",
            "TARGET_PORT": str(run.collector_port),
            "INTERFACES": run.interface,
            "SAMPLING": "1",
            "TC_ATTACH_MODE": "tcx",
            # There is no route in the namespace from which it could learn its address.
            "AGENT_IP": "127.0.0.1",
            "LOG_LEVEL": "error",
        }
        if run.period_s is not None:
            settings["CACHE_ACTIVE_TIMEOUT"] = f"{run.period_s:g}s"
        if run.max_flows is not None:
            settings["CACHE_MAX_FLOWS"] = str(run.max_flows)
        return settings | {"PATH": os.environ.get("PATH", "")}


def agents_of(environment: Mapping[str, str]) -> list[Agent]:
    """Return what is to be measured: ours, and the peer where its path is set."""
    path = environment.get(PEER_VARIABLE)
    return [Netwatch(), NetObserv(path)] if path else [Netwatch()]
