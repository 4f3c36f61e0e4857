"""The best of N by enumeration of all subsets and all chains."""

from itertools import combinations, pairwise, product

import numpy as np
import pytest

from equilign.errors import ConfigError
from equilign.evaluation.curves import (
    best_of_weights,
    chain_curve,
    hit_chances,
    independent_curve,
)


def enumerated(worth, choice, size):
    """Mean over all subsets of the worth of the best, equals sharing."""
    found = []
    for subset in combinations(range(len(choice)), size):
        top = max(choice[i] for i in subset)
        found.append(np.mean([worth[i] for i in subset if choice[i] == top]))
    return float(np.mean(found))


@pytest.mark.parametrize("levels", [100, 3, 1])
def test_the_best_of_n_is_the_mean_over_all_subsets(levels):
    rng = np.random.default_rng(levels)
    for _ in range(5):
        choice = rng.integers(0, levels, 6).astype(float)
        worth = rng.normal(size=6)
        sizes = range(1, 7)
        law = best_of_weights(choice, sizes)
        np.testing.assert_allclose(law.sum(axis=1), 1.0)
        expected = [enumerated(worth, choice, n) for n in sizes]
        np.testing.assert_allclose(law @ worth, expected, atol=1e-12)


def test_ends_of_the_curve():
    choice, worth = np.array([0.1, 0.5, 0.3]), np.array([1.0, 2.0, 6.0])
    curve = independent_curve(worth[None], choice[None], [1, 3])
    np.testing.assert_allclose(curve, [[3.0, 2.0]])


def test_the_estimate_is_unbiased():
    """From 5 of many, the best of 2: mean over all draws is the best of 2 of the many."""
    rng = np.random.default_rng(0)
    choice = np.repeat(rng.normal(size=4), 2)
    worth = rng.normal(size=8)
    truth = enumerated(worth, choice, 2)
    found = [
        float((best_of_weights(choice[list(s)], [2]) @ worth[list(s)])[0])
        for s in combinations(range(8), 5)
    ]
    assert np.mean(found) == pytest.approx(truth)


def test_large_pools_do_not_overflow():
    law = best_of_weights(np.arange(2000.0), [1, 1000, 2000])
    np.testing.assert_allclose(law.sum(axis=1), 1.0)
    assert law[1, -1] == pytest.approx(0.5)
    assert law[2, -1] == 1.0


def test_sizes_and_values_that_cannot_be():
    with pytest.raises(ConfigError, match=r"each must be in 1 \.\. 2"):
        best_of_weights(np.zeros(2), [3])
    with pytest.raises(ConfigError, match=r"each must be in 1 \.\. 2"):
        best_of_weights(np.zeros(2), [0])
    with pytest.raises(ConfigError, match="got nan"):
        best_of_weights(np.array([0.0, np.nan]), [1])


def test_chains_keep_the_first_of_the_best():
    rng = np.random.default_rng(1)
    choice = rng.integers(0, 3, (4, 2, 5)).astype(float)
    worth = rng.normal(size=choice.shape)
    found = chain_curve(worth, choice)
    for p, n in product(range(4), range(5)):
        picks = [
            worth[p, c, max(range(n + 1), key=lambda i: (choice[p, c, i], -i))] for c in range(2)
        ]
        assert found[p, n] == pytest.approx(np.mean(picks))


def test_hits_equal_enumeration_of_all_chains():
    rng = np.random.default_rng(2)
    first, step = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3)
    found = hit_chances(first, step, 4)
    for n, j in product(range(1, 5), range(3)):
        total = 0.0
        for path in product(range(3), repeat=n):
            chance = first[path[0]]
            for a, b in pairwise(path):
                chance *= step[a, b]
            total += chance * (j in path)
        assert found[n - 1, j] == pytest.approx(total)


def test_hits_on_a_ring_and_of_independent_answers():
    uniform = np.full(3, 1 / 3)
    ring = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(hit_chances(uniform, ring, 4)[:, 0], [1 / 3, 2 / 3, 1.0, 1.0])
    alone = hit_chances(uniform, np.tile(uniform, (3, 1)), 4)
    np.testing.assert_allclose(alone[:, 2], [1 - (2 / 3) ** n for n in range(1, 5)])
    with pytest.raises(ConfigError, match="at least one answer"):
        hit_chances(uniform, ring, 0)
