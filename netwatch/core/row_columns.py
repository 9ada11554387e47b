"""The columns of a batch as lists of what people read: numbers, text of addresses, names of interfaces.

Law: pure; columns in the order of FlowRecord's fields, made without an object for a row.
Neighbours: `core/batch_records.py` and `core/json_lines.py` use them; `core/fact_columns.py` does the same for facts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from netwatch.core.enrichment import Facts
from netwatch.core.layout import FLOW_KEY, FLOW_VALUE
from netwatch.core.record import Sight, format_address

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netwatch.core.batch import FlowBatch

_NS_PER_MS = 1_000_000
_HOME_BYTES = 8
_HOOK_BYTES = 4

Given = TypeVar("Given")


def addresses_and_numbers(batch: FlowBatch) -> tuple[Iterable[Any], ...]:
    """Return the columns from SrcAddr to Sampling."""
    keys, values = batch.keys, batch.values
    return (
        map(format_address, _raw(keys, _SRC_ADDR)),
        map(format_address, _raw(keys, _DST_ADDR)),
        keys["src_port"].tolist(),
        keys["dst_port"].tolist(),
        keys["protocol"].tolist(),
        values["eth_type"].tolist(),
        values["bytes"].tolist(),
        values["packets"].tolist(),
        _unix_ms(values["first_ns"], batch.wall_offset_ns),
        _unix_ms(values["last_ns"], batch.wall_offset_ns),
        values["flags"].tolist(),
        values["dscp"].tolist(),
        keys["icmp_type"].tolist(),
        keys["icmp_code"].tolist(),
        values["sampling"].tolist(),
    )


def mac_pairs(batch: FlowBatch) -> list[bytes]:
    """Return the link-layer addresses of each row, source and destination in one: 12 bytes."""
    return _raw(batch.values, _BOTH_MACS)


def for_each_sights(batch: FlowBatch, give: Callable[[tuple[Sight, ...]], Given]) -> list[Given]:
    """Return what is given for the interfaces of each row, asked once for each list: a batch has very few."""
    raws = _raw(batch.values, _HOME_AND_OBSERVED)
    if batch.enrichment.hooks:
        _lengthen(raws, batch.enrichment.hooks)
    describe = batch.interfaces.describe
    given = {raw: give(tuple(describe(hook) for hook in _hooks_in(raw) if hook)) for raw in set(raws)}
    return [given[raw] for raw in raws]


def _lengthen(raws: list[bytes], more: Facts) -> None:
    counts, hooks = more.values["count"].tolist(), more.values["hooks"]
    for row, count, following in zip(more.rows.tolist(), counts, hooks, strict=True):
        raws[row] += following[:count].tobytes()


def _hooks_in(raw: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<Q{(len(raw) - _HOME_BYTES) // _HOOK_BYTES}I", raw)


def _unix_ms(times_ns: NDArray[np.uint64], wall_offset_ns: int) -> list[int]:
    # Signed, because the offset is below zero on a machine whose clock says 1970.
    milliseconds: list[int] = ((times_ns.astype(np.int64) + wall_offset_ns) // _NS_PER_MS).tolist()
    return milliseconds


def _window(dtype: np.dtype[np.void], first: str, *following: str) -> np.dtype[np.void]:
    """Return a dtype that shows a row's neighbouring fields as one string of bytes, named raw."""
    assert dtype.fields is not None
    start = end = dtype.fields[first][1]
    for name in (first, *following):
        field, offset = dtype.fields[name][:2]
        assert offset == end, "only neighbours can be read as one"
        end += field.itemsize
    return np.dtype({"names": ["raw"], "formats": [f"V{end - start}"], "offsets": [start], "itemsize": dtype.itemsize})


_SRC_ADDR = _window(FLOW_KEY, "src_addr")
_DST_ADDR = _window(FLOW_KEY, "dst_addr")
_BOTH_MACS = _window(FLOW_VALUE, "src_mac", "dst_mac")
_HOME_AND_OBSERVED = _window(FLOW_VALUE, "home", "observed")


def _raw(rows: NDArray[np.void], window: np.dtype[np.void]) -> list[bytes]:
    """Return the bytes in a window, row by row."""
    raws: list[bytes] = rows.view(window)["raw"].tolist()
    return raws
