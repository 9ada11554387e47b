"""An exporter whose other end the test plays."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Self

import attrs
import trio

from netwatch.core.batch import FlowBatch, Message
from netwatch.errors import DeliveryFailed


@attrs.define(eq=False)
class FakeCollector:
    """Takes `flows_per_message` flows a message, in `delay_s` each; the attempts numbered in `failing` fail."""

    url: str = "fake://collector"
    flows_per_message: int = 1_000
    failing: Container[int] = range(0)
    delay_s: float = 0.0
    error: Exception = attrs.Factory(lambda: DeliveryFailed("fake://collector", "refused"))
    delivered: list[Message] = attrs.Factory(list)
    attempts: list[float] = attrs.Factory(list)

    async def __aenter__(self) -> Self:
        """Open nothing."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close nothing."""

    def encode(self, batch: FlowBatch) -> Sequence[Message]:
        """Cut the batch into messages whose payload is its source ports."""
        messages = []
        for start in range(0, batch.flows, self.flows_per_message):
            part = slice(start, start + self.flows_per_message)
            values = batch.values[part]
            payload = batch.keys[part]["src_port"].tobytes()
            messages.append(Message(payload, len(values), int(values["packets"].sum()), int(values["bytes"].sum())))
        return messages

    async def send(self, message: Message) -> None:
        """Take a message, or fail."""
        number = len(self.attempts)
        self.attempts.append(trio.current_time())
        await trio.sleep(self.delay_s)
        if number in self.failing:
            raise self.error
        self.delivered.append(message)

    @property
    def flows(self) -> int:
        """How many flows were delivered."""
        return sum(message.flows for message in self.delivered)
