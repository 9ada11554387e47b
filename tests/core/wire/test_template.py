"""Templates and their cells: rows of bytes that decode to the columns they were made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.wire.protobuf import WIRE_FIXED32, encode_varint, groups_of, tag
from netwatch.core.wire.template import Part, Records, TemplateBuilder, join
from netwatch.exporters import pbflow_pb2

U64 = (1 << 64) - 1
numbers = st.integers(0, 10).flatmap(lambda groups: st.integers(0, min((1 << 7 * groups), U64)))


def rows_of(part: Part, row_count: int, *, is_minimal: bool) -> list[bytes]:
    """Write a part alone, and return its rows, with what is not kept cut out of them."""
    content = np.tile(np.frombuffer(part.content, np.uint8), (row_count, 1))
    kept = np.ones_like(content) if is_minimal else None
    part.write(slice(None), Records(content, kept), 0)
    if kept is None:
        return [bytes(row) for row in content]
    return [bytes(row[keep]) for row, keep in zip(content, kept.view(np.bool_), strict=True)]


def column(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint64)


@pytest.mark.parametrize("field", [8, 16], ids=["tag of one byte", "tag of two bytes"])
@given(values=st.lists(numbers, min_size=1, max_size=5), spare_groups=st.integers(0, 3))
def test_padded_numbers(field: int, values: list[int], spare_groups: int) -> None:
    """A padded column decodes to its numbers, in rows of one length, also if it is wider than it needs to be."""
    groups = min(groups_of(max(values).bit_length()) + spare_groups, 10)
    builder = TemplateBuilder()
    builder.add_varint(field, groups)

    rows = rows_of(builder.build().fill([column(values)], is_minimal=False), len(values), is_minimal=False)

    records = [pbflow_pb2.Record.FromString(row) for row in rows]
    assert [record.bytes if field == 8 else record.pkt_drop_bytes for record in records] == values
    assert len({len(row) for row in rows}) == 1


@pytest.mark.parametrize("is_joined", [False, True], ids=["by column", "joined"])
@given(values=st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=4))
def test_minimal_message(is_joined: bool, values: list[tuple[int, int, int, int]]) -> None:
    """Minimal rows are byte for byte what protobuf serializes: zeros left out, and embedded lengths shortened."""
    columns = list(map(column, zip(*values, strict=True)))
    widths = [groups_of(int(values.max()).bit_length()) for values in columns]
    builder = TemplateBuilder()
    with builder.message(5):
        builder.add_varint(1, widths[0])
        builder.add_varint(2, widths[1])
    builder.add_varint(8, widths[2])
    builder.add_varint(16, widths[3])
    part = builder.build().fill(columns, is_minimal=True)

    rows = rows_of(join([part], len(values)) if is_joined else part, len(values), is_minimal=True)

    expected = [
        pbflow_pb2.Record(
            data_link=pbflow_pb2.DataLink(src_mac=src, dst_mac=dst), bytes=octets, pkt_drop_bytes=dropped
        ).SerializeToString()
        for src, dst, octets, dropped in values
    ]
    assert rows == expected
    assert np.broadcast_to(part.kept_bytes, len(rows)).tolist() == [len(row) for row in expected]


@pytest.mark.parametrize("is_minimal", [False, True])
def test_part_of_a_few_bytes_joined(is_minimal: bool) -> None:
    """A joined part may be as short as a number."""
    builder = TemplateBuilder()
    builder.add_varint(9, 1)
    part = builder.build().fill([column([5, 6])], is_minimal=is_minimal)

    rows = rows_of(join([part], 2), 2, is_minimal=is_minimal)

    assert [pbflow_pb2.Record.FromString(row).packets for row in rows] == [5, 6]


@pytest.mark.parametrize("is_minimal", [False, True])
def test_fixed_number_in_a_message(is_minimal: bool) -> None:
    """A fixed number is stored little-endian, from a column in any byte order, and always kept."""
    builder = TemplateBuilder()
    with builder.message(12):
        builder.add_constant(tag(1, WIRE_FIXED32))
        builder.add_fixed(4)
    addresses = np.array([0, 0xC0000201], ">u4")

    rows = rows_of(builder.build().fill([addresses], is_minimal=is_minimal), 2, is_minimal=is_minimal)

    assert rows == [
        pbflow_pb2.Record(agent_ip=pbflow_pb2.IP(ipv4=address)).SerializeToString() for address in (0, 0xC0000201)
    ]


@pytest.mark.parametrize("is_minimal", [False, True])
def test_some_rows_between_others(is_minimal: bool) -> None:
    """Some rows of a part are written where they belong, and nothing around them is touched."""
    builder = TemplateBuilder()
    builder.add_varint(8, 3)
    part = builder.build().fill([column([1, 300, 70_000, 0])], is_minimal=is_minimal)
    content = np.full((2, 10), 0xEE, np.uint8)
    kept = np.full((2, 10), 0xDD, np.uint8) if is_minimal else None

    part.write(slice(1, 3), Records(content, kept), 3)

    assert set(content[:, :3].ravel().tolist()) | set(content[:, 7:].ravel().tolist()) == {0xEE}
    if kept is not None:
        assert kept[:, 3:7].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
        assert set(kept[:, :3].ravel().tolist()) | set(kept[:, 7:].ravel().tolist()) == {0xDD}
    else:
        assert [pbflow_pb2.Record.FromString(bytes(row[3:7])).bytes for row in content] == [300, 70_000]


def test_columns_of_zeros() -> None:
    """A column of no groups takes its place among the columns, and none in the rows; the message around it stays."""
    builder = TemplateBuilder()
    with builder.message(7):
        builder.add_varint(1, 0)
    builder.add_varint(9, 1)

    rows = rows_of(builder.build().fill([column([0]), column([9])], is_minimal=False), 1, is_minimal=False)

    record = pbflow_pb2.Record.FromString(rows[0])
    assert record.HasField("transport")
    assert record.packets == 9
    assert len(rows[0]) == 4


def test_message_that_is_too_long() -> None:
    """An embedded message whose length takes two bytes is refused when it is declared."""
    builder = TemplateBuilder()
    with pytest.raises(AssertionError, match="one byte"), builder.message(6):
        builder.add_constant(bytes(128))


@given(st.lists(st.integers(1, 70_000), min_size=1, max_size=4))
def test_lengths(lengths: list[int]) -> None:
    """A column of lengths announces messages that follow, in as few bytes as each needs."""
    builder = TemplateBuilder()
    builder.add_length(1, groups_of(max(lengths).bit_length()))

    part = builder.build().fill([column(lengths)], is_minimal=True)

    assert rows_of(part, len(lengths), is_minimal=True) == [b"\x0a" + encode_varint(length) for length in lengths]
