r"""Which majorities, and which cycles of them, are more than noise.

A majority "i beats j" is tested against ``Pr <= 1/2`` by the exact binomial test on the decided
comparisons (the sign test). A cycle needs three majorities, and it is one only if all three are:
by the intersection-union principle (Berger 1982, Technometrics 24) its p-value is the largest of
the three. Many pairs are looked at, so p-values are adjusted by Holm's rule (1979, Scandinavian
Journal of Statistics 6), which holds the probability of any false claim under the level whatever
the dependence. There are two ways to count what was looked at, and the one with fewer hypotheses
is taken, which depends on the design alone and not on the outcome:

- every majority in either direction (two per pair), and a cycle of claimed majorities is claimed;
- every cycle in either direction (two per triple), which are fewer below five players.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaincinv

from equilign.games.measures import has_cycle

LEVEL = 0.05
"""Probability of calling any cycle where there is none, at most."""

_ROUNDING = 1e-9
_BLOCK = 200_000


@dataclass(frozen=True)
class Cycle:
    """Three players that beat each other in a circle.

    Attributes:
        players: the first beats the second, the second the third, the third the first.
        p_value: largest of the three majorities' p-values.
        adjusted_p: after Holm's rule over everything that was looked at.
    """

    players: tuple[int, int, int]
    p_value: float
    adjusted_p: float


def decided(wins: np.ndarray, ties: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers of decided comparisons won, and decided at all, per ordered pair.

    Where ties are known they are left out, as the sign test does. Where they are not, halves in
    ``wins`` are rounded against the claim that i beats j; the test is then conservative.
    """
    if ties is not None:
        won = np.rint(np.maximum(wins - ties / 2.0, 0.0))
        return won, won + won.T
    won = np.floor(wins + _ROUNDING)
    lost = np.ceil(wins.T - _ROUNDING)
    return won, won + lost


def majority_p_values(wins: np.ndarray, ties: np.ndarray | None = None) -> np.ndarray:
    """Exact one-sided p-values of "i beats j more often than not", 1 on the diagonal.

    Args:
        wins: ties counted half, shape ``(n, n)``.
        ties: ties per pair, symmetric, where known.
    """
    won, number = decided(wins, ties)
    p_values = np.ones_like(wins)
    some = (won > 0.0) & (number > 0.0)
    p_values[some] = betainc(won[some], number[some] - won[some] + 1.0, 0.5)
    np.fill_diagonal(p_values, 1.0)
    return p_values


def holm(p_values: np.ndarray, hypotheses: int) -> np.ndarray:
    """Holm-adjusted p-values.

    Args:
        p_values: any shape.
        hypotheses: how many were looked at, at least as many; those not given have p-value 1.
    """
    flat = p_values.ravel()
    order = np.argsort(flat, kind="stable")
    factors = np.maximum(hypotheses - np.arange(flat.size), 1.0)
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(np.maximum.accumulate(flat[order] * factors), 1.0)
    return adjusted.reshape(p_values.shape)


@dataclass(frozen=True)
class CycleTest:
    """Cycles of a table of wins.

    Attributes:
        count: strict majority cycles of three.
        strict: triples whose three pairs are all decided by a majority.
        significant: cycles that are more than noise.
        longer: whether the significant majorities contain a cycle of any length.
        best: the cycles with the smallest p-values, most significant first.
        majorities: adjusted p-values of "i beats j", shape ``(n, n)``.
        method: what was adjusted for.
    """

    count: int
    strict: int
    significant: int
    longer: bool
    best: tuple[Cycle, ...]
    majorities: np.ndarray
    method: str


def find_cycles(
    wins: np.ndarray, ties: np.ndarray | None = None, *, level: float = LEVEL, keep: int = 20
) -> CycleTest:
    """Find the majority cycles of three and test them.

    Args:
        wins: ties counted half, shape ``(n, n)``.
        ties: ties per pair, symmetric, where known.
        level: family-wise error rate.
        keep: how many cycles to list.
    """
    beats = wins > wins.T
    compared = (wins + wins.T) > 0.0
    np.fill_diagonal(compared, False)
    raw = majority_p_values(wins, ties)
    pairs = int(compared.sum())  # ordered: both directions
    triples = 2 * _triangles(compared)
    majorities = holm(np.where(compared, raw, 1.0), pairs)
    by_pairs = pairs <= triples
    count, significant = 0, 0
    best = np.empty((0, 5))
    for block in _cycles(beats, raw, majorities):
        if not by_pairs:  # four players at most: all cycles are in one block
            block[:, 4] = holm(block[:, 3], triples)
        count += len(block)
        significant += int((block[:, 4] <= level).sum())
        best = np.concatenate([best, block])
        best = best[np.lexsort((best[:, 3], best[:, 4]))[:keep]]
    number, what = (pairs, "majorities") if by_pairs else (triples, "cycles")
    return CycleTest(
        count=count,
        strict=_triangles(beats | beats.T),
        significant=significant,
        longer=has_cycle(np.where(majorities <= level, 1.0, 0.0)),
        best=tuple(Cycle((int(i), int(j), int(k)), p, q) for i, j, k, p, q in best.tolist()),
        majorities=majorities,
        method=f"Holm over {number} {what}",
    )


def _triangles(edges: np.ndarray) -> int:
    counts = edges.astype(np.float64)
    return round(float(((counts @ counts) * counts).sum())) // 6


def _cycles(beats: np.ndarray, raw: np.ndarray, adjusted: np.ndarray) -> Iterator[np.ndarray]:
    """All cycles of three: players, largest raw and largest adjusted p-value, shape ``(m, 5)``.

    Blocks hold the cycles of some first players, which are the smallest of their cycles; a
    block of few players holds all.
    """
    blocks = []
    for i in range(len(beats)):
        after = i + 1 + np.flatnonzero(beats[i, i + 1 :])
        before = i + 1 + np.flatnonzero(beats[i + 1 :, i])
        j, k = np.nonzero(beats[np.ix_(after, before)])
        j, k = after[j], before[k]
        worst = [
            np.maximum(np.maximum(table[i, j], table[j, k]), table[k, i])
            for table in (raw, adjusted)
        ]
        blocks.append(np.stack([np.full(len(j), i), j, k, *worst], axis=1))
        if sum(map(len, blocks)) > _BLOCK:
            yield np.concatenate(blocks)
            blocks = []
    if blocks:
        yield np.concatenate(blocks)


def win_rate_bounds(wins: np.ndarray, counts: np.ndarray, level: float) -> tuple[np.ndarray, ...]:
    """Clopper-Pearson bounds of Pr(i beats j), each wrong with probability ``level / 2``.

    Halves from ties are rounded away from the bound, which makes it wider. Pairs without
    comparisons have bounds 0 and 1.
    """
    low, high = np.zeros_like(wins), np.ones_like(wins)
    down, up = np.floor(wins + _ROUNDING), np.ceil(wins - _ROUNDING)
    number = np.maximum(np.rint(counts), up)
    some = down > 0.0
    low[some] = betaincinv(down[some], number[some] - down[some] + 1.0, level / 2.0)
    some = (number > 0.0) & (up < number)
    high[some] = betaincinv(up[some] + 1.0, number[some] - up[some], 1.0 - level / 2.0)
    return low, high
