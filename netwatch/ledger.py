"""The ledger: where every packet that reached a hook went.

Law: `seen = exported + lost by the exporter + in flight + duplicate + ignored + lost before any exporter`, in packets
and in bytes, for each exporter, exactly. Nothing here estimates: a term is added where it happens, once.
Neighbours: `poll.py` adds closed epochs, `export.py` adds what left or was lost, `metrics.py` and `cli.py` read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class Amount:
    """Packets and bytes."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.packets + other.packets, self.bytes + other.bytes)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.packets - other.packets, self.bytes - other.bytes)


@attrs.frozen
class FlowAmount:
    """Flows, with their packets and bytes."""

    flows: int = 0
    packets: int = 0
    bytes: int = 0

    def __add__(self, other: FlowAmount) -> FlowAmount:
        return FlowAmount(self.flows + other.flows, self.packets + other.packets, self.bytes + other.bytes)

    def __sub__(self, other: FlowAmount) -> FlowAmount:
        return FlowAmount(self.flows - other.flows, self.packets - other.packets, self.bytes - other.bytes)

    @property
    def amount(self) -> Amount:
        """The packets and bytes alone."""
        return Amount(self.packets, self.bytes)


@attrs.frozen(order=True)
class Loss:
    """Where something was lost, and why: `stage` is kernel, join, queue, export or shutdown."""

    stage: str
    reason: str


def total(amounts: Mapping[Any, Amount]) -> Amount:
    """Return the sum of the amounts, by whatever they are told apart."""
    return sum(amounts.values(), Amount())


@attrs.frozen
class EpochCount:
    """What the kernel counted while one epoch was current, and what its flow map held."""

    seen: Mapping[int, Amount]  # by hook number
    duplicate: Amount
    ignored: Mapping[str, Amount]  # by reason
    lost: Mapping[Loss, FlowAmount]
    drained: FlowAmount
    in_ring: Amount = Amount()  # found the flow map full, and went through the ring instead

    @property
    def missing(self) -> Amount:
        """What the audit does not find again: zero, or a bug. Negative: counted twice."""
        lost = sum(self.lost.values(), FlowAmount()).amount
        found = self.duplicate + total(self.ignored) + lost + self.drained.amount + self.in_ring
        return total(self.seen) - found


@attrs.frozen
class Overflow:
    """What became of packets that found the flow map full and went through the ring."""

    drained: FlowAmount = FlowAmount()
    duplicate: Amount = Amount()
    lost: FlowAmount = FlowAmount()


PENDING_FULL = Loss("join", "too many pending events")


@attrs.define
class ExporterLedger:
    """The account of one exporter. `accepted` is all that was put before it."""

    exporter: str
    accepted: FlowAmount = FlowAmount()
    exported: FlowAmount = FlowAmount()
    lost: dict[Loss, FlowAmount] = attrs.Factory(dict)

    def lose(self, loss: Loss, amount: FlowAmount) -> None:
        """Add a loss."""
        self.lost[loss] = self.lost.get(loss, FlowAmount()) + amount

    @property
    def in_flight(self) -> FlowAmount:
        """What it has neither delivered nor lost."""
        return self.accepted - self.exported - sum(self.lost.values(), FlowAmount())

    def write_off(self, loss: Loss) -> None:
        """Count everything that is still in flight as lost: the last entry of an account."""
        if self.in_flight != FlowAmount():
            self.lose(loss, self.in_flight)


@attrs.define
class Ledger:
    """All accounts of a run."""

    seen: dict[int, Amount] = attrs.Factory(dict)
    duplicate: Amount = Amount()
    ignored: dict[str, Amount] = attrs.Factory(dict)
    lost: dict[Loss, FlowAmount] = attrs.Factory(dict)
    drained: FlowAmount = FlowAmount()
    drains: int = 0
    mismatches: int = 0
    exporters: list[ExporterLedger] = attrs.Factory(list)

    def open_exporter(self, url: str) -> ExporterLedger:
        """Open the account of an exporter."""
        account = ExporterLedger(url)
        self.exporters.append(account)
        return account

    def add_epoch(self, epoch: EpochCount) -> Amount:
        """Add a closed epoch and audit it. Return what is missing: Amount(0, 0) where the epoch balances."""
        for hook, amount in epoch.seen.items():
            self.seen[hook] = self.seen.get(hook, Amount()) + amount
        self.duplicate += epoch.duplicate
        for reason, amount in epoch.ignored.items():
            self.ignored[reason] = self.ignored.get(reason, Amount()) + amount
        for loss, flows in epoch.lost.items():
            self.lost[loss] = self.lost.get(loss, FlowAmount()) + flows
        self.drained += epoch.drained
        self.drains += 1
        missing = epoch.missing
        if missing != Amount():
            self.mismatches += 1
        return missing

    def add_overflow(self, overflow: Overflow) -> None:
        """Add what came through the ring because the flow map was full: it counts as if it had been drained."""
        self.drained += overflow.drained
        self.duplicate += overflow.duplicate
        if overflow.lost != FlowAmount():
            self.lost[PENDING_FULL] = self.lost.get(PENDING_FULL, FlowAmount()) + overflow.lost

    def balances(self, account: ExporterLedger) -> bool:
        """Say whether an exporter's account closes: all that was seen is accounted for and nothing is in flight."""
        lost = sum(self.lost.values(), FlowAmount()) + sum(account.lost.values(), FlowAmount())
        accounted = account.exported.amount + self.duplicate + total(self.ignored) + lost.amount
        return accounted == total(self.seen)

    def as_json(self) -> dict[str, object]:
        """Return the ledger in the documented JSON form."""
        return {
            "seen": attrs.asdict(total(self.seen)),
            "duplicate": attrs.asdict(self.duplicate),
            "ignored": [{"reason": reason} | attrs.asdict(self.ignored[reason]) for reason in sorted(self.ignored)],
            "exporters": [
                {
                    "exporter": account.exporter,
                    "exported": attrs.asdict(account.exported),
                    "lost": _losses_as_json(account.lost),
                    "balances": self.balances(account),
                }
                for account in self.exporters
            ],
            "lost": _losses_as_json(self.lost),
            "audits": {"drains": self.drains, "mismatches": self.mismatches},
        }

    def as_text(self) -> str:
        """Return the ledger for a person: one line a term, the verdict last."""
        lines = ["ledger".ljust(42) + "packets".rjust(14) + "bytes".rjust(18)]

        def row(title: str, amount: Amount, note: str = "") -> None:
            lines.append(f"  {title:<40}{amount.packets:>14,}{amount.bytes:>18,}  {note}".rstrip())

        row("seen", total(self.seen))
        row("duplicate", self.duplicate)
        for reason in sorted(self.ignored):
            row(f"ignored: {reason}", self.ignored[reason])
        for loss in sorted(self.lost):
            row(f"lost: {loss.stage}, {loss.reason}", self.lost[loss].amount)
        for account in self.exporters:
            row(f"exported: {account.exporter}", account.exported.amount, f"{account.exported.flows:,} flows")
            for loss in sorted(account.lost):
                row(f"  lost: {loss.stage}, {loss.reason}", account.lost[loss].amount)
            verdict = "balances" if self.balances(account) else "DOES NOT BALANCE"
            lines.append(f"  {account.exporter}: {verdict}")
        lines.append(f"  audits: {self.drains} drains, {self.mismatches} mismatches")
        return "\n".join(lines)


def _losses_as_json(losses: Mapping[Loss, FlowAmount]) -> list[dict[str, object]]:
    return [attrs.asdict(loss) | attrs.asdict(losses[loss]) for loss in sorted(losses)]
