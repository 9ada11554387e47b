"""Which collector gets the next message: round robin over those that work, the others after a pause.

Law: pure; time comes in as `now_s`. A target that failed is passed over until its pause has ended, unless there is no
other: then the retry loop's own pause is the one that counts, and both together would only delay the recovery.
Neighbours: `grpc.py` asks and reports back, `core/backoff.py` says how long a pause is.
"""

from __future__ import annotations

import math
import random

import attrs

from netwatch.core.backoff import Backoff
from netwatch.errors import ConfigError
from netwatch.settings.addresses import Address, parse_listen
from netwatch.settings.exporter_url import ExporterUrl


def parse_targets(url: str) -> tuple[Address, ...]:
    """Return the addresses in `grpc://HOST:PORT[,HOST:PORT...]`. Raises ConfigError."""
    try:
        _, _, targets = ExporterUrl().parse(url).partition("://")
        return tuple(parse_listen(target) for target in targets.split(","))
    except ValueError as error:
        raise ConfigError("exporters", url, str(error)) from error


@attrs.define(eq=False)
class Target:
    """A collector's address and how it did lately."""

    address: Address
    backoff: Backoff
    retry_at_s: float = -math.inf

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed."""
        return self.retry_at_s > -math.inf


class Rotation:
    """The targets of one exporter, the least recently used first."""

    def __init__(self, addresses: tuple[Address, ...], pauses_s: tuple[float, float], rng: random.Random) -> None:
        self._targets = [Target(address, Backoff(*pauses_s, random=rng)) for address in addresses]

    def __len__(self) -> int:
        return len(self._targets)

    def order(self, now_s: float) -> list[Target]:
        """Return the targets to try for one message, one after the other; never none."""
        ready = [target for target in self._targets if target.retry_at_s <= now_s]
        return ready or sorted(self._targets, key=lambda target: target.retry_at_s)

    def succeeded(self, target: Target) -> None:
        """Note that a message was delivered: others come first now."""
        target.backoff.succeeded()
        target.retry_at_s = -math.inf
        self._move_back(target)

    def failed(self, target: Target, now_s: float, took_s: float) -> None:
        """Note an attempt that failed after `took_s`.

        The pause is no shorter than that: a target that hangs may cost half of the time, never nearly all of it.
        """
        target.retry_at_s = now_s + max(target.backoff.failed(), took_s)
        self._move_back(target)

    def _move_back(self, target: Target) -> None:
        self._targets.remove(target)
        self._targets.append(target)
