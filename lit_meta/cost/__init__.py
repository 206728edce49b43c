"""The cost of learning: operations, spikes, memory and energy, counted while a Trainer runs."""

from lit_meta.cost.ledger import CostLedger
from lit_meta.cost.totals import Cost

__all__ = ["Cost", "CostLedger"]
