"""Parts of a batch keep their facts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.batch import FlowBatch
from netwatch.core.batch_records import records_of
from netwatch.core.batch_rows import select_rows
from tests.core.enriched import enriched_batches


@given(enriched_batches(), st.data())
def test_rows_in_any_order(batch: FlowBatch, data: st.DataObject) -> None:
    """The records of chosen rows are the chosen ones of all records."""
    chosen = data.draw(st.lists(st.integers(0, max(0, batch.flows - 1)), unique=True, max_size=batch.flows))
    records = records_of(batch)
    assert records_of(select_rows(batch, np.array(chosen, np.intp))) == [records[row] for row in chosen]


@given(enriched_batches(), st.integers(0, 7), st.integers(0, 7))
def test_slice(batch: FlowBatch, start: int, stop: int) -> None:
    """So it is with a slice, one that ends behind the batch included."""
    assert records_of(select_rows(batch, slice(start, stop))) == records_of(batch)[start:stop]


@given(enriched_batches())
def test_facts_of_a_part(batch: FlowBatch) -> None:
    """Rows of facts stay ascending and inside the batch, none twice."""
    part = select_rows(batch, np.arange(batch.flows)[::-1])
    for facts in part.enrichment.facts():
        assert (np.diff(facts.rows) > 0).all()
        assert len(facts.rows) == len(facts.values)
        assert not len(facts) or 0 <= facts.rows[0] <= facts.rows[-1] < part.flows
