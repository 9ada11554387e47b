"""What an exporter is, and how a URL becomes one.

Law: grpclib and asyncio are imported in this package and nowhere else. An exporter encodes and sends; it keeps no
queue and retries nothing: `export.py` does both, the same way for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from netwatch.core.batch import FlowBatch, Message


class Exporter(Protocol):
    """One destination, named by its URL."""

    url: str

    async def __aenter__(self) -> Exporter:
        """Open what lives as long as the exporter (an asyncio island, a channel); never connects, never fails."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Close it. Idempotent; does not wait for the other end."""
        ...

    def encode(self, batch: FlowBatch) -> Sequence[Message]:
        """Turn a batch into messages, in order; their sums are the batch's sums. Pure; under 10 ms a batch."""
        ...

    async def send(self, message: Message) -> None:
        """Deliver one message.

        Returns when the other end has taken it. Raises DeliveryFailed when it may not have been; the caller sends
        the same message again. Cancelling is safe: the message then counts as not delivered.
        """
        ...
