"""Who judges: ``compare(prompts, a, b) -> win probability``."""

from equilign.oracles.base import (
    CallableOracle,
    Oracle,
    ScoredOracle,
    checked_compare,
    compare_symmetric,
    score_groups,
)
from equilign.oracles.panel import Attribute, Panel

__all__ = [
    "Attribute",
    "CallableOracle",
    "Oracle",
    "Panel",
    "ScoredOracle",
    "checked_compare",
    "compare_symmetric",
    "score_groups",
]
