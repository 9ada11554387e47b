"""Export: one bounded queue and one task for each exporter.

Law: a batch leaves the queue only when all of it was delivered, or when it is lost and counted. A failed send keeps its
message and tries again, without end; what does not fit into the queue meanwhile is lost oldest first.
Neighbours: `poll.py` puts batches in, `exporters/` encode and send, `ledger.py` keeps the account.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

import attrs
import trio

from netwatch.core.backoff import Backoff
from netwatch.core.batch import FlowBatch, Message
from netwatch.errors import DeliveryFailed
from netwatch.exporters import Exporter
from netwatch.ledger import ExporterLedger, FlowAmount, Loss

log = logging.getLogger(__name__)

QUEUE_FULL = Loss("queue", "full")
NOT_DELIVERED = Loss("shutdown", "not delivered within the grace period")
OUTPUT_CLOSED = Loss("export", "output closed")
EXPORT_LOSSES = (QUEUE_FULL, NOT_DELIVERED, OUTPUT_CLOSED)


def _amount(of: FlowBatch | Message) -> FlowAmount:
    return FlowAmount(of.flows, of.packets, of.bytes)


@attrs.define(eq=False)
class ExportQueue:
    """The batches before one exporter, the one that is being sent included. `max_bytes` bounds their columns."""

    account: ExporterLedger
    max_bytes: int
    size_bytes: int = attrs.field(default=0, init=False)
    errors: int = attrs.field(default=0, init=False)
    # Whether the last attempt to send succeeded: only then is it worth waiting for room.
    is_moving: bool = attrs.field(default=True, init=False)
    _batches: deque[FlowBatch] = attrs.field(factory=deque, init=False)
    # What `get` gave out and `done` has not taken back: so many bytes, and so much that is not delivered yet.
    _under_way_bytes: int = attrs.field(default=0, init=False)
    _under_way: FlowAmount = attrs.field(factory=FlowAmount, init=False)
    # The pause before its next attempt. Only then is it certain that nothing of it is being delivered.
    _pause: trio.CancelScope | None = attrs.field(default=None, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)
    _abandoned_for: Loss | None = attrs.field(default=None, init=False)
    # Who waits for any change. What stands between two awaits is atomic in Trio, so no lock is needed.
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    async def put(self, batch: FlowBatch, patience_until: float) -> None:
        """Take a batch; past `max_bytes` the oldest ones are lost for it.

        Waits for room while the exporter delivers, at the latest until `patience_until` (trio time). Cancelled, it
        has taken nothing. Not a checkpoint while there is room.
        """
        with trio.move_on_at(patience_until):
            while self.is_moving and not self._has_room(batch):
                await self._waiting.park()
        self.account.accepted += _amount(batch)
        if self._abandoned_for:
            self.account.lose(self._abandoned_for, _amount(batch))
            return
        while not self._has_room(batch) and (self._pause or self._batches):
            self._lose_oldest()
        self._batches.append(batch)
        self.size_bytes += batch.size_bytes
        self._waiting.unpark_all()

    def _has_room(self, batch: FlowBatch) -> bool:
        return self.size_bytes + batch.size_bytes <= self.max_bytes

    def _lose_oldest(self) -> None:
        """Lose the batch under way while it waits for its next attempt, else the oldest behind it.

        So a message that a collector refuses for good does not stand before all others for ever.
        """
        if self._pause:
            self.account.lose(QUEUE_FULL, self._under_way)
            self._pause.cancel()
            self._pause = None
            self.done()
        else:
            oldest = self._batches.popleft()
            self.size_bytes -= oldest.size_bytes
            self.account.lose(QUEUE_FULL, _amount(oldest))

    async def get(self) -> FlowBatch | None:
        """Return the oldest batch, which goes on counting as queued until `done`; None once closed and empty."""
        while not self._batches and not self._is_closed:
            await self._waiting.park()
        if not self._batches:
            return None
        batch = self._batches.popleft()
        self._under_way_bytes, self._under_way = batch.size_bytes, _amount(batch)
        return batch

    def delivered(self, message: Message) -> None:
        """Count a message of the batch under way as exported."""
        self.account.exported += _amount(message)
        self._under_way -= _amount(message)

    async def pause(self, delay_s: float) -> bool:
        """Wait before the next attempt. Returns False where the batch under way was lost meanwhile, for room."""
        with trio.CancelScope() as self._pause:
            await trio.sleep(delay_s)
        is_kept, self._pause = self._pause is not None, None
        return is_kept

    def done(self) -> None:
        """Give back the room of the batch under way."""
        self.size_bytes -= self._under_way_bytes
        self._under_way_bytes, self._under_way = 0, FlowAmount()
        self._waiting.unpark_all()

    def moving(self, is_moving: bool) -> None:
        """Note whether sending works; `put` stops waiting where it does not."""
        self.is_moving = is_moving
        self._waiting.unpark_all()

    def abandon(self, loss: Loss) -> None:
        """Lose all that is here and all that comes: nobody will deliver it."""
        self.account.write_off(loss)
        self._batches.clear()
        self.size_bytes = 0
        self._is_closed, self._abandoned_for = True, loss
        self.moving(False)

    def close(self) -> None:
        """End `get` once the queue is empty."""
        self._is_closed = True
        self._waiting.unpark_all()


async def export_flows(queue: ExportQueue, exporter: Exporter, backoff: Backoff) -> None:
    """Deliver what comes through the queue, until it is closed and empty.

    Raises OutputClosed where the other end has gone for good; everything else is tried again. Cancelled, the message
    under way counts as not delivered.
    """
    while (batch := await queue.get()) is not None:
        messages: Sequence[Message] = exporter.encode(batch)
        # The columns are not needed any more, and 50 queued batches of them are most of the daemon's memory.
        del batch
        for message in messages:
            if not await _deliver(queue, exporter, backoff, message):
                break
        else:
            queue.done()


async def _deliver(queue: ExportQueue, exporter: Exporter, backoff: Backoff, message: Message) -> bool:
    """Return whether the message was delivered; it was not where its batch was lost while it waited."""
    while True:
        try:
            await exporter.send(message)
        except DeliveryFailed as failure:
            delay_s = backoff.failed()
            # Said once an outage: a collector that is down for an hour is one line.
            log.log(
                logging.WARNING if queue.is_moving else logging.DEBUG,
                "%s; trying again in %.1f s, keeping up to %d MB",
                *(failure, delay_s, queue.max_bytes >> 20),
            )
            queue.errors += 1
            queue.moving(False)
            if not await queue.pause(delay_s):
                return False
        else:
            # At once, before anything that could be cancelled: delivered is delivered.
            queue.delivered(message)
            if not queue.is_moving:
                log.warning("%s: delivering again", exporter.url)
            backoff.succeeded()
            queue.moving(True)
            return True
