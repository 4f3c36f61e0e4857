"""What every claim is made of: a verdict with its evidence, and how numbers are read and said."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Results = dict[str, Any]
"""``tabular``, ``floors``, ``linear`` and ``neural`` by family, and ``regrowth``."""

IMPLIED = "implied by its comparisons"
ALPHA = 0.05
MOST = 0.9
"""What "most games" means: nine in ten."""


@dataclass(frozen=True)
class Claim:
    """One statement with its verdict.

    Attributes:
        claim: in words.
        holds: True, False, or None where this run does not decide.
        evidence: the numbers, and the rule that judged them.
        source: where the claim is from.
    """

    claim: str
    holds: bool | None
    evidence: str
    source: str = "paper"


def array(values: list[float | None], missing: float = np.inf) -> np.ndarray:
    """Numbers from JSON, with ``missing`` for None."""
    return np.array([missing if v is None else v for v in values], dtype=float)


def amount(value: float | None) -> str:
    """A number of any size, in words that a reader can take in."""
    if value is None or not np.isfinite(value):
        return "never"
    if value == 0.0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2g}"


def all_of(verdicts: list[bool | None]) -> bool | None:
    """False if one is False, else None if one is None, else True."""
    return False if False in verdicts else (None if None in verdicts else True)
