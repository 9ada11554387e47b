"""Facts about flows: written out for an example, and any at all."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs
import numpy as np
from hypothesis import strategies as st

from netwatch.core.batch import FlowBatch
from netwatch.core.direction import Direction
from netwatch.core.enrichment import (
    DNS,
    DROPS,
    MAX_DROP_CAUSES,
    MAX_HOOKS,
    MORE_HOOKS,
    OTHER_CAUSES,
    RECORD_KIND,
    RTT,
    TCP,
    TRANSLATION,
    Enrichment,
    Facts,
    Names,
)
from netwatch.core.layout import OWNER, hook_of
from tests.core.flows import ETH0, VETH, batches

DTYPES = MappingProxyType(
    {
        "drops": DROPS,
        "rtt": RTT,
        "dns": DNS,
        "tcp": TCP,
        "source": OWNER,
        "destination": OWNER,
        "translation": TRANSLATION,
        "hooks": MORE_HOOKS,
        "kinds": RECORD_KIND,
    }
)
"""What each field of Enrichment holds."""

Row = Mapping[str, object]


def facts_of(dtype: np.dtype[np.void], rows: Mapping[int, Row]) -> Facts:
    """Lay facts out: fields that are not given are zero, strings of bytes and lists begin an array."""
    values = np.zeros(len(rows), dtype)
    for value, fields in zip(values, rows.values(), strict=True):
        for name, given in fields.items():
            if value[name].shape:
                content = list(given)  # type: ignore[call-overload]
                value[name][: len(content)] = content
            else:
                value[name] = given
    return Facts(np.array(list(rows), np.intp), values)


def enriched(batch: FlowBatch, names: Names | None = None, **kinds: Mapping[int, Row]) -> FlowBatch:
    """Return the batch with facts, by kind and row."""
    enrichment = Enrichment(**{kind: facts_of(DTYPES[kind], rows) for kind, rows in kinds.items()})
    return attrs.evolve(batch, enrichment=enrichment, names=names or batch.names)


ODD_TEXT = '"\\\x1b[2J\u202e\udcffé\n日'
NAMES = Names(
    {2: "SKB_DROP_REASON_NO_SOCKET", 3: "SKB_DROP_REASON_NETFILTER_DROP", 4: ODD_TEXT, 0x30001: "OVS_DROP_METER"},
    {7: "3f2a9c81d2e4" + 52 * "0", 8: ODD_TEXT},
)
_HOOKS = [hook_of(ifindex, direction) for ifindex in (ETH0, VETH, 9) for direction in Direction]


@st.composite
def enriched_batches(draw: st.DrawFn, max_flows: int = 6) -> FlowBatch:
    """Draw flows of any bytes with facts of any bytes about some of them; what counts or names something is valid."""
    batch = draw(batches(max_flows))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = {kind: _any_facts(random, dtype, batch.flows) for kind, dtype in DTYPES.items() if draw(st.booleans())}
    return attrs.evolve(batch, enrichment=Enrichment(**kinds), names=NAMES)


def _any_facts(random: np.random.Generator, dtype: np.dtype[np.void], flows: int) -> Facts:
    rows = np.flatnonzero(random.random(flows) < 0.7)
    values = np.frombuffer(random.bytes(len(rows) * dtype.itemsize), dtype).copy()
    assert dtype.names
    for field in dtype.names:  # a field is often zero, and means nothing then
        values[field][random.random(len(rows)) < 0.4] = 0
    reasons = [*NAMES.drop_reasons, 77, OTHER_CAUSES]
    for field, some in {
        "causes": range(MAX_DROP_CAUSES + 1),
        "cause": reasons,
        "latest_cause": reasons,
        "cgroup_id": [0, 7, 8, 9, 2**64 - 1],
        "count": range(MAX_HOOKS + 1),
        "hooks": _HOOKS,
        "kind": range(3),
    }.items():
        if field in dtype.names:
            values[field] = random.choice(np.array(some, np.uint64), values[field].shape)
    return Facts(rows, values)
