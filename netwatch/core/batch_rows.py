"""Some rows of a batch as a batch of their own, with their facts.

Law: pure; each chosen row keeps every fact about it, in its new place.
Neighbours: `exporters/stdout.py` prints a batch part by part; `core/enrichment.py` says how facts name their rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.batch import FlowBatch
from netwatch.core.enrichment import NOTHING, Enrichment

if TYPE_CHECKING:
    from numpy.typing import NDArray


def select_rows(batch: FlowBatch, chosen: slice | NDArray[np.intp]) -> FlowBatch:
    """Return a batch of the chosen rows: a slice of them, or their indices, none twice, in the order wanted."""
    enrichment = NOTHING
    if batch.enrichment:
        rows = np.arange(batch.flows)[chosen] if isinstance(chosen, slice) else chosen
        enrichment = _select_facts(batch.enrichment, rows)
    return attrs.evolve(batch, keys=batch.keys[chosen], values=batch.values[chosen], enrichment=enrichment)


def _select_facts(enrichment: Enrichment, rows: NDArray[np.intp]) -> Enrichment:
    names = (field.name for field in attrs.fields(Enrichment))
    return Enrichment(**{name: getattr(enrichment, name).at(rows) for name in names})
