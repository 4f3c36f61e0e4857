"""What every claim is made of: a verdict with its evidence, and how numbers are read and said."""

from typing import Any

import numpy as np

from equilign.experiments.verdicts import Claim, all_of

Results = dict[str, Any]
"""``tabular``, ``floors``, ``linear`` and ``neural`` by family, and ``regrowth``."""

IMPLIED = "implied by its comparisons"
ALPHA = 0.05
MOST = 0.9
"""What "most games" means: nine in ten."""


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


__all__ = ["ALPHA", "IMPLIED", "MOST", "Claim", "Results", "all_of", "amount", "array"]
