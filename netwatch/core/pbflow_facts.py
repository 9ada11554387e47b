"""What a pbflow Record says beside the flow: each kind of fact as a section of the records of those flows that have it.

Law: pure. Every number arrives as it is in the columns, except that drops end at 16 bits where the receiver would cut
off the high ones; in fields of our own they are there whole.
Neighbours: `core/enrichment.py` has the columns, `protos/flow.proto` the fields; `core/pbflow_text.py` encodes names.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netwatch.core.distinct import distinct_of, varying
from netwatch.core.enrichment import Enrichment, Facts, Names
from netwatch.core.pbflow_record import add_addresses, address_words, are_ipv4
from netwatch.core.pbflow_section import Section
from netwatch.core.pbflow_text import dns_name, drop_cause, process
from netwatch.core.wire.protobuf import groups_of
from netwatch.core.wire.template import Template, TemplateBuilder
from netwatch.core.wire.texts import Texts
from netwatch.core.wire.varint import Words

_XLAT, _RECORD_KIND, _DROP_CAUSES, _SRC_PROCESS, _DST_PROCESS = 28, 1000, 1001, 1016, 1017  # pbflow.Record
_DROP_CAUSE_PACKETS, _PID = 3, 1  # pbflow.DropCause, pbflow.Process

# Numbers that go into the record as they are: field number and column.
_DROP_FIELDS = (
    *((18, "latest_flags"), (19, "latest_state"), (20, "latest_cause")),
    *((1002, "packets"), (1003, "bytes")),
)
_CLAMPED_DROP_FIELDS = ((16, "bytes"), (17, "packets"))
_RTT_DURATIONS = ((24, "smoothed_ns"), (1004, "minimum_ns"), (1005, "maximum_ns"), (1006, "handshake_ns"))
_DNS_FIELDS = ((21, "id"), (22, "flags"), (25, "errno"), (1007, "question_type"), (1008, "messages"))
_DNS_DURATIONS = ((23, "latency_ns"),)
_TCP_FIELDS = (
    *((1009, "retransmitted_packets"), (1010, "retransmitted_bytes"), (1011, "state"), (1012, "connect_ns")),
    *((1013, "connect_errno"), (1014, "resets_sent"), (1015, "resets_received")),
)
_TRANSLATION_FIELDS = ((3, "src_port"), (4, "dst_port"), (5, "zone"))

_MAX_U16 = np.uint64((1 << 16) - 1)
_NS_PER_S = np.uint64(1_000_000_000)


def facts_within(facts: Facts, rows: slice) -> Facts:
    """Return the facts about a chunk of a batch, with rows counted from its beginning."""
    first, last = facts.rows.searchsorted((rows.start, rows.stop)).tolist()
    return Facts(facts.rows[first:last] - rows.start, facts.values[first:last])


def sections_of(enrichment: Enrichment, names: Names, rows: slice, *, is_minimal: bool) -> Iterator[Section]:
    """Encode the facts about a chunk of a batch."""
    makers: tuple[tuple[Facts, _Maker], ...] = (
        (enrichment.drops, functools.partial(_drops, names=names)),
        (enrichment.rtt, _rtt),
        (enrichment.dns, _dns),
        (enrichment.tcp, _tcp),
        (enrichment.source, functools.partial(_owner, message=_SRC_PROCESS, names=names)),
        (enrichment.destination, functools.partial(_owner, message=_DST_PROCESS, names=names)),
        (enrichment.translation, _translation),
        (enrichment.kinds, _kind),
    )
    for facts, make in makers:
        if facts and (some := facts_within(facts, rows)):
            yield from make(some, is_minimal=is_minimal)


class _Maker(Protocol):
    def __call__(self, facts: Facts, *, is_minimal: bool) -> Iterator[Section]:
        """Encode facts, at least one."""


def _drops(facts: Facts, names: Names, *, is_minimal: bool) -> Iterator[Section]:
    values = facts.values
    clamped = [(field, np.minimum(values[name], _MAX_U16)) for field, name in _CLAMPED_DROP_FIELDS]
    yield Section.of(facts.rows, _numbers([*clamped, *_columns(values, _DROP_FIELDS)]), is_minimal=is_minimal)
    # The first cause of all rows is a section, then the second of those that have two, and so on.
    counts = values["causes"]
    for place in range(int(counts.max())):
        has_it = counts > place
        some = facts if has_it.all() else Facts(facts.rows[has_it], values[has_it])
        yield _cause(some, place, names, is_minimal=is_minimal)


def _cause(facts: Facts, place: int, names: Names, *, is_minimal: bool) -> Section:
    causes = np.ascontiguousarray(facts.values["cause"][:, place])
    distinct = distinct_of(varying([causes]), len(facts))
    texts = [drop_cause(cause, names.drop_reason(cause)) for cause in causes.take(distinct.firsts).tolist()]
    numbers = _numbers([(_DROP_CAUSE_PACKETS, facts.values["cause_packets"][:, place])])
    return Section.of(facts.rows, numbers, Texts.of(texts, distinct.of_row), _DROP_CAUSES, is_minimal=is_minimal)


def _rtt(facts: Facts, *, is_minimal: bool) -> Iterator[Section]:
    yield Section.of(facts.rows, _numbers([], _columns(facts.values, _RTT_DURATIONS)), is_minimal=is_minimal)


def _dns(facts: Facts, *, is_minimal: bool) -> Iterator[Section]:
    sizes = facts.values["name_bytes"]
    names = _whole_words(facts.values["name"], int(sizes.max()))
    distinct = distinct_of(varying([sizes, *_words_of(names)]), len(facts))
    some_sizes = sizes.take(distinct.firsts).tolist()
    texts = [dns_name(name[:size].tobytes()) for name, size in zip(names[distinct.firsts], some_sizes, strict=True)]
    numbers = _numbers(_columns(facts.values, _DNS_FIELDS), _columns(facts.values, _DNS_DURATIONS))
    yield Section.of(facts.rows, numbers, Texts.of(texts, distinct.of_row), is_minimal=is_minimal)


def _tcp(facts: Facts, *, is_minimal: bool) -> Iterator[Section]:
    yield Section.of(facts.rows, _numbers(_columns(facts.values, _TCP_FIELDS)), is_minimal=is_minimal)


def _owner(facts: Facts, names: Names, message: int, *, is_minimal: bool) -> Iterator[Section]:
    owners = facts.values
    columns = [np.ascontiguousarray(owners["cgroup_id"]), *_words_of(owners["command"])]
    distinct = distinct_of(varying(columns), len(facts))
    some = owners.take(distinct.firsts)
    texts = [
        process(command.tobytes(), cgroup_id, names.containers.get(cgroup_id, ""))
        for command, cgroup_id in zip(some["command"], some["cgroup_id"].tolist(), strict=True)
    ]
    numbers = _numbers([(_PID, owners["pid"])])
    yield Section.of(facts.rows, numbers, Texts.of(texts, distinct.of_row), message, is_minimal=is_minimal)


def _translation(facts: Facts, *, is_minimal: bool) -> Iterator[Section]:
    ipv4 = are_ipv4(facts.values["src_addr"]) & are_ipv4(facts.values["dst_addr"])
    for is_ipv4, chosen in ((True, ipv4), (False, ~ipv4)):
        if chosen.any():
            values = facts.values[chosen]
            numbers = [column for _, column in _columns(values, _TRANSLATION_FIELDS)]
            template = _translation_template(is_ipv4, tuple(map(_groups, numbers)))
            columns = [*address_words(values, is_ipv4=is_ipv4), *numbers]
            yield Section.of(facts.rows[chosen], (template, columns), is_minimal=is_minimal)


def _kind(facts: Facts, *, is_minimal: bool) -> Iterator[Section]:
    yield Section.of(facts.rows, _numbers([(_RECORD_KIND, facts.values["kind"])]), is_minimal=is_minimal)


def _columns(values: NDArray[np.void], fields: Sequence[tuple[int, str]]) -> list[tuple[int, Words]]:
    return [(field, values[name]) for field, name in fields]


def _whole_words(rows: NDArray[np.uint8], size_bytes: int) -> NDArray[np.uint8]:
    """Return so many bytes of each row, filled up to whole words, at least one."""
    words = np.zeros((len(rows), max(1, -(-size_bytes // 8)) * 8), np.uint8)
    words[:, :size_bytes] = rows[:, :size_bytes]
    return words


def _words_of(rows: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """Return bytes as words of eight, a column each."""
    return list(map(np.ascontiguousarray, rows.view("<u8").T))


def _numbers(
    varints: Sequence[tuple[int, Words]], durations_ns: Sequence[tuple[int, Words]] = ()
) -> tuple[Template, Sequence[Words]]:
    """Lay out number fields and Durations of a Record, wide enough for the widest in any row."""
    columns = [column for _, column in varints]
    widths = tuple((field, _groups(column)) for field, column in varints)
    duration_widths = []
    for field, column in durations_ns:
        seconds = column // _NS_PER_S
        columns += [seconds, column - seconds * _NS_PER_S]
        duration_widths.append((field, _groups(columns[-2]), _groups(columns[-1])))
    return _numbers_template(widths, tuple(duration_widths)), columns


def _groups(column: Words) -> int:
    return groups_of(int(column.max()).bit_length())


# One for each combination of widths that occurs: a few dozen in practice, of a few kB each.
@functools.lru_cache(maxsize=256)
def _numbers_template(widths: tuple[tuple[int, int], ...], durations: tuple[tuple[int, int, int], ...]) -> Template:
    numbers = TemplateBuilder()
    for field, groups in widths:
        numbers.add_varint(field, groups)
    for field, seconds_groups, nanos_groups in durations:
        with numbers.message(field):
            numbers.add_varint(1, seconds_groups)
            numbers.add_varint(2, nanos_groups)
    return numbers.build()


@functools.lru_cache(maxsize=256)
def _translation_template(is_ipv4: bool, widths: tuple[int, ...]) -> Template:
    translation = TemplateBuilder()
    with translation.message(_XLAT):
        # Collectors dereference both: an address of zeros is there too.
        add_addresses(translation, is_ipv4=is_ipv4)
        for (field, _), groups in zip(_TRANSLATION_FIELDS, widths, strict=True):
            translation.add_varint(field, groups)
    return translation.build()
