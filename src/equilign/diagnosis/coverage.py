"""How much was compared, and how evenly."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Coverage:
    """Which pairs of players were compared how often.

    Attributes:
        pairs_compared: pairs with at least one comparison.
        pairs: all pairs.
        components: connected parts of the graph of compared pairs; ratings of different parts
            cannot be compared.
        per_pair: least, lower quartile, median, upper quartile and most comparisons of a
            compared pair; None where only win probabilities are known.
        per_player: least and most comparisons of a player; None as well.
        ties: share of ties; None where unknown.
    """

    pairs_compared: int
    pairs: int
    components: int
    per_pair: dict[str, float] | None
    per_player: dict[str, float] | None
    ties: float | None


def coverage(counts: np.ndarray | None, ties: np.ndarray | None, size: int) -> Coverage:
    """Describe a table of counts; None stands for a matrix in which every pair is known."""
    pairs = size * (size - 1) // 2
    if counts is None:
        return Coverage(pairs, pairs, 1, None, None, None)
    upper = counts[np.triu_indices(size, 1)]
    compared = upper[upper > 0.0]
    edges = np.quantile(compared, [0.0, 0.25, 0.5, 0.75, 1.0])
    names = ("least", "lower_quartile", "median", "upper_quartile", "most")
    rows = counts.sum(axis=1)
    return Coverage(
        pairs_compared=len(compared),
        pairs=pairs,
        components=count_components(counts > 0.0),
        per_pair=dict(zip(names, map(float, edges), strict=True)),
        per_player={"least": float(rows.min()), "most": float(rows.max())},
        ties=None if ties is None else float(ties.sum() / counts.sum()),
    )


def count_components(edges: np.ndarray) -> int:
    """Connected parts of an undirected graph."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    return int(connected_components(csr_array(edges), directed=False, return_labels=False))
