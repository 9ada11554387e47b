"""The facts about a batch as lists of what people read, for the rows that have any.

Law: pure; the columns of a kind stand in the order of the fields of its class in `core/record_facts.py`. No string
holds a byte that is not text, whatever a process calls itself.
Neighbours: `core/batch_records.py` and `core/json_lines.py` use them; `core/row_columns.py` does the same for rows.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from netwatch.core.dns_name import name_text
from netwatch.core.record import format_address

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netwatch.core.enrichment import Enrichment, Facts, Names

Columns = tuple[Iterable[Any], ...]


class FactKind(enum.Enum):
    """What there are facts about, in the order in which they are told; the values are the fields of RecordFacts."""

    DROPS = "drops"
    RTT = "rtt"
    DNS = "dns"
    TCP = "tcp"
    SOURCE = "source"
    DESTINATION = "destination"
    TRANSLATION = "translation"
    KIND = "kind"


def columns_of(enrichment: Enrichment, names: Names) -> Iterator[tuple[FactKind, list[int], Columns]]:
    """Yield each kind that has facts: its rows, and a column for each field."""
    for kind, facts in _facts_by_kind(enrichment):
        if len(facts):
            yield kind, facts.rows.tolist(), _READERS[kind](facts.values, names)


def _facts_by_kind(enrichment: Enrichment) -> tuple[tuple[FactKind, Facts], ...]:
    return (
        (FactKind.DROPS, enrichment.drops),
        (FactKind.RTT, enrichment.rtt),
        (FactKind.DNS, enrichment.dns),
        (FactKind.TCP, enrichment.tcp),
        (FactKind.SOURCE, enrichment.source),
        (FactKind.DESTINATION, enrichment.destination),
        (FactKind.TRANSLATION, enrichment.translation),
        (FactKind.KIND, enrichment.kinds),
    )


def _drops(values: NDArray[np.void], names: Names) -> Columns:
    name = names.drop_reason
    causes = zip(values["causes"].tolist(), values["cause"].tolist(), values["cause_packets"].tolist(), strict=True)
    return (
        *_lists(values, "packets", "bytes", "latest_flags", "latest_state"),
        map(name, values["latest_cause"].tolist()),
        (tuple(zip(map(name, cause[:count]), packets, strict=False)) for count, cause, packets in causes),
    )


def _rtt(values: NDArray[np.void], _: Names) -> Columns:
    return _lists(values, "smoothed_ns", "minimum_ns", "maximum_ns", "handshake_ns")


def _dns(values: NDArray[np.void], _: Names) -> Columns:
    wire_names = zip(values["name_bytes"].tolist(), _strings(values["name"]), strict=True)
    return (
        *_lists(values, "id", "flags", "latency_ns", "question_type", "errno"),
        (name_text(name[:size]) for size, name in wire_names),
        values["messages"].tolist(),
    )


def _tcp(values: NDArray[np.void], _: Names) -> Columns:
    return (
        *_lists(values, "retransmitted_packets", "retransmitted_bytes", "connect_ns", "connect_errno", "state"),
        *_lists(values, "resets_sent", "resets_received"),
    )


def _owner(values: NDArray[np.void], names: Names) -> Columns:
    cgroups: list[int] = values["cgroup_id"].tolist()
    containers = names.containers
    return (
        values["pid"].tolist(),
        map(_command_text, _strings(values["command"])),
        cgroups,
        (containers.get(cgroup, "") for cgroup in cgroups),
    )


def _translation(values: NDArray[np.void], _: Names) -> Columns:
    return (
        map(format_address, _strings(values["src_addr"])),
        map(format_address, _strings(values["dst_addr"])),
        *_lists(values, "src_port", "dst_port", "zone"),
    )


def _kind(values: NDArray[np.void], _: Names) -> Columns:
    return _lists(values, "kind")


_READERS = MappingProxyType[FactKind, Callable[["NDArray[np.void]", "Names"], Columns]](
    {
        FactKind.DROPS: _drops,
        FactKind.RTT: _rtt,
        FactKind.DNS: _dns,
        FactKind.TCP: _tcp,
        FactKind.SOURCE: _owner,
        FactKind.DESTINATION: _owner,
        FactKind.TRANSLATION: _translation,
        FactKind.KIND: _kind,
    }
)


def _lists(values: NDArray[np.void], *fields: str) -> tuple[list[int], ...]:
    return tuple(values[field].tolist() for field in fields)


def _strings(octets: NDArray[np.void]) -> list[bytes]:
    """Return each row of octets (m, n) as one string of bytes."""
    strings: list[bytes] = np.ascontiguousarray(octets).view(f"V{octets.shape[1]}")[:, 0].tolist()
    return strings


def _command_text(command: bytes) -> str:
    # Cut off at 15 bytes by the kernel, perhaps inside a character; and a process may call itself anything. What is
    # no text becomes U+FFFD, because a JSON parser may refuse half of a surrogate pair, and protobuf does.
    return command.partition(b"\0")[0].decode("utf-8", "replace")
