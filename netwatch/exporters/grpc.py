"""The `grpc` exporter: pbflow messages to one of several collectors, in plain text or by TLS.

Law: a message is delivered when a collector said so; until then it may be sent again, to another one. One message is
under way at a time. `send` fails with DeliveryFailed and nothing else, no later than its deadline.
Neighbours: `targets.py` chooses, `connection.py` connects, `core/pbflow.py` encodes, `export.py` retries.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio
import trio_asyncio

from netwatch.errors import ConfigError, DeliveryFailed
from netwatch.exporters.connection import Connection, Connector
from netwatch.exporters.http2 import note_exception
from netwatch.exporters.targets import Rotation, Target, parse_targets
from netwatch.exporters.tls import TlsFiles

if TYPE_CHECKING:
    from netwatch.core.batch import FlowBatch, Message
    from netwatch.core.pbflow import PbflowEncoder

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class GrpcSettings:
    """How to reach collectors.

    `reconnect_after_s` is the life of a connection, 0 for no end, `reconnect_jitter` the part of it that chance adds
    or takes away, so that agents which started together do not reconnect together.
    """

    deadline_s: float = 10.0
    reconnect_after_s: float = 0.0
    reconnect_jitter: float = 0.1
    backoff_min_s: float = 0.1
    backoff_max_s: float = 30.0
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    require_tls: bool = False


@attrs.define(eq=False)
class GrpcExporter:
    """Sends to the collectors of a `grpc://` or `grpcs://` URL.

    Raises ConfigError for the URL and TlsError for the files when it is made, not when it sends.
    """

    url: str
    settings: GrpcSettings
    encoder: PbflowEncoder
    _rng: random.Random = attrs.field(factory=random.Random)
    _rotation: Rotation = attrs.field(init=False)
    _tls_files: TlsFiles | None = attrs.field(init=False)
    _connector: Connector = attrs.field(init=False)
    _connections: dict[Target, Connection] = attrs.field(factory=dict, init=False)
    _sending: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _opened: contextlib.AsyncExitStack = attrs.field(factory=contextlib.AsyncExitStack, init=False)

    def __attrs_post_init__(self) -> None:
        """Read the URL, and the certificates once."""
        pauses_s = (self.settings.backoff_min_s, self.settings.backoff_max_s)
        self._rotation = Rotation(parse_targets(self.url), pauses_s, self._rng)
        self._tls_files = None
        if self.url.startswith("grpcs:"):
            self._tls_files = TlsFiles(self.settings.ca, self.settings.cert, self.settings.key)
            self._tls_files.client_context()
        elif self.settings.require_tls:
            raise ConfigError("exporters", self.url, "require_tls is set; use grpcs://")

    async def __aenter__(self) -> GrpcExporter:
        loop = await self._opened.enter_async_context(trio_asyncio.open_loop())
        loop.set_exception_handler(note_exception)
        self._connector = Connector(loop, self.settings.deadline_s, self._tls_files)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for target in list(self._connections):
            self._disconnect(target)
        await self._opened.aclose()

    def encode(self, batch: FlowBatch) -> Sequence[Message]:
        """Turn a batch into messages of type pbflow.Records."""
        return self.encoder.encode(batch)

    async def send(self, message: Message) -> None:
        """Deliver one message to the collector whose turn it is, or to another one if that fails.

        Returns when a collector has taken it. Raises DeliveryFailed when each one failed, or at the deadline.
        Cancelled, it returns at once; the message may still arrive.
        """
        async with self._sending:
            ends_at_s = trio.current_time() + self.settings.deadline_s
            failures: list[DeliveryFailed] = []
            for target in self._rotation.order(trio.current_time()):
                began_s = trio.current_time()
                try:
                    await self._try(target, message, ends_at_s)
                except DeliveryFailed as failure:
                    failures.append(failure)
                    self._failed(target, failure, began_s)
                else:
                    self._succeeded(target)
                    return
                if trio.current_time() >= ends_at_s:
                    break
        raise failures[0] if len(failures) == 1 else DeliveryFailed(self.url, "; ".join(map(str, failures)))

    async def _try(self, target: Target, message: Message, ends_at_s: float) -> None:
        with trio.move_on_at(ends_at_s) as scope:
            await self._deliver(target, message)
        if scope.cancelled_caught:
            raise DeliveryFailed(str(target.address), f"no answer within {self.settings.deadline_s:g} s")

    def _failed(self, target: Target, failure: DeliveryFailed, began_s: float) -> None:
        # With a single target, whoever retries says it.
        if len(self._rotation) > 1 and not target.is_failing:
            log.warning("%s; going on with the other collectors", failure)
        now_s = trio.current_time()
        self._rotation.failed(target, now_s, now_s - began_s)

    def _succeeded(self, target: Target) -> None:
        if len(self._rotation) > 1 and target.is_failing:
            log.warning("%s: delivering again", target.address)
        self._rotation.succeeded(target)

    async def _deliver(self, target: Target, message: Message) -> None:
        connection = self._connections.get(target)
        if connection and (not connection.is_open or connection.expires_at_s <= trio.current_time()):
            self._disconnect(target)
            connection = None
        if connection is None:
            connection = await self._connector.connect(target.address, self._expiry_s())
            self._connections[target] = connection
        try:
            await connection.send(message.payload)
        except BaseException:
            # Failed or cancelled: nothing can follow half a message.
            self._disconnect(target)
            raise

    def _disconnect(self, target: Target) -> None:
        self._connections.pop(target).abort()

    def _expiry_s(self) -> float:
        if not self.settings.reconnect_after_s:
            return float("inf")
        jitter = self._rng.uniform(-1, 1) * self.settings.reconnect_jitter
        return trio.current_time() + self.settings.reconnect_after_s * (1 + jitter)
