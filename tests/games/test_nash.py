"""Equilibria against closed forms, rational arithmetic, HiGHS, and theorems."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equilign.errors import ConfigError
from equilign.games import PreferenceGame, duality_gap, exploitability, large
from equilign.games.nash import nash
from tests.games import equilibrium_oracles as oracles

SEEDED = settings(derandomize=True, deadline=None)
METHODS = ["simplex", "interior-point"]
SELECTIONS = ["center", "vertex"]

ROCK_PAPER_SCISSORS = np.array([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
COMAL = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]])
CONDORCET = np.array([[0.5, 0.6, 0.7], [0.4, 0.5, 0.8], [0.3, 0.2, 0.5]])
SCORES = np.array([0.0, 2.0, 1.0, -1.0])
BRADLEY_TERRY = 1.0 / (1.0 + np.exp(SCORES - SCORES[:, None]))
WEAK_CONDORCET = np.array([[0.5, 0.5, 0.7], [0.5, 0.5, 0.8], [0.3, 0.2, 0.5]])


def solved(prefs, **options):
    """The solution of one game, after what holds of every solution."""
    prefs = np.array(prefs, dtype=float)
    before = prefs.copy()
    game = PreferenceGame(prefs)
    solution = nash(game, **options)
    np.testing.assert_array_equal(prefs, before)
    policy = solution.policy
    assert policy.shape == (len(prefs),)
    assert policy.min() >= 0.0
    assert policy.sum() == pytest.approx(1.0, abs=1e-14)
    assert duality_gap(game, policy) <= 1e-12
    assert solution.gap == pytest.approx(duality_gap(game, policy), abs=1e-16)
    assert (solution.concept, solution.value) == ("nash", 0.5)
    assert solution.status == ("optimal" if solution.unique else "not unique")
    assert bool(solution.notes) == (not solution.unique)
    return solution


# -- known equilibria ---------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize(
    ("prefs", "equilibrium"),
    [
        (ROCK_PAPER_SCISSORS, [1 / 3, 1 / 3, 1 / 3]),
        (COMAL, [4 / 11, 3 / 11, 4 / 11]),
        (CONDORCET, [1, 0, 0]),
        ([[0.5]], [1]),
        ([[0.5, 0.8], [0.2, 0.5]], [1, 0]),
        ([[0.5, 0.5 - 1e-9], [0.5 + 1e-9, 0.5]], [0, 1]),
        ([[0.5, 0.0, 0.25], [1.0, 0.5, 0.5 + 2**-30], [0.75, 0.5 - 2**-30, 0.5]], [0, 1, 0]),
        (BRADLEY_TERRY, [0, 1, 0, 0]),
    ],
)  # fmt: skip
def test_known_unique_equilibria(prefs, equilibrium, method, selection):
    solution = solved(prefs, method=method, selection=selection)
    np.testing.assert_allclose(solution.policy, equilibrium, atol=1e-15)
    assert solution.unique


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("prefs", "centre", "corners"),
    [
        (np.full((2, 2), 0.5), [1 / 2, 1 / 2], np.eye(2)),
        (np.full((4, 4), 0.5), [1 / 4] * 4, np.eye(4)),
        # the largest p (1 - p) times the slack 0.2 p + 0.3 (1 - p)
        (WEAK_CONDORCET, [(4 - 7**0.5) / 3, (7**0.5 - 1) / 3, 0], np.eye(3)[:2]),
        # three clones of rock: together as often as paper
        (
            ROCK_PAPER_SCISSORS[np.ix_([0, 0, 0, 1, 2], [0, 0, 0, 1, 2])],
            [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 3],
            [np.array([*rock, 1, 1]) / 3 for rock in np.eye(3)],
        ),
    ],
)
def test_the_canonical_choice_among_several(prefs, centre, corners, method):
    solution = solved(prefs, method=method)
    np.testing.assert_allclose(solution.policy, centre, atol=1e-12)
    assert not solution.unique
    assert "analytic centre" in solution.notes[0]
    solution = solved(prefs, method=method, selection="vertex")
    assert min(np.abs(solution.policy - corner).max() for corner in corners) < 1e-15
    assert not solution.unique
    assert "one corner" in solution.notes[0]


# -- rational arithmetic ------------------------------------------------------------------


def prefs_from(draws, size):
    prefs = np.full((size, size), 0.5)
    prefs[np.triu_indices(size, 1)] = draws
    return np.triu(prefs) + np.tril(1.0 - prefs.T, -1)


def tied_games(size):
    entries = st.sampled_from([0.0, 0.25, 0.5, 0.5, 0.75, 1.0, 0.5 + 2.0**-12])
    pairs = size * (size - 1) // 2
    return st.lists(entries, min_size=pairs, max_size=pairs).map(lambda d: prefs_from(d, size))


@settings(SEEDED, max_examples=80)
@given(prefs=st.integers(1, 4).flatmap(tied_games), method=st.sampled_from(METHODS))
def test_against_all_vertices_in_rational_arithmetic(prefs, method):
    exact = oracles.vertices(prefs).astype(float)
    corner = solved(prefs, method=method, selection="vertex")
    centre = solved(prefs, method=method)
    assert centre.unique == corner.unique == (len(exact) == 1)
    assert np.abs(exact - corner.policy).max(axis=1).min() < 1e-12
    np.testing.assert_array_equal(centre.policy > 1e-11, (exact > 0).any(axis=0))
    assert_analytic_centre(prefs, centre.policy, exact)


def assert_analytic_centre(prefs, policy, exact):
    """No other equilibrium has a larger product of what is positive on the whole set's inside."""
    rng = np.random.default_rng(0)
    margin = (prefs - prefs.T) / 2
    inside = exact.mean(axis=0)
    played, losing = inside > 0, margin @ inside < -1e-12

    def product(x):
        return np.log(x[played]).sum() + np.log(-(margin @ x)[losing]).sum()

    for weights in rng.dirichlet(np.ones(len(exact)), size=50):
        x = 0.99 * policy + 0.01 * weights @ exact  # nearby ones are what could be better
        assert product(x) <= product(policy) + 1e-8


def test_a_vertex_may_have_even_support():
    """Two clones of a tie, kept in balance by two others: no odd support is a vertex here."""
    prefs = np.array(
        [[0.5, 0.5, 0.2, 0.8], [0.5, 0.5, 0.8, 0.2], [0.8, 0.2, 0.5, 0.5], [0.2, 0.8, 0.5, 0.5]]
    )
    exact = oracles.vertices(prefs).astype(float)
    assert {int((v > 0).sum()) for v in exact} == {2}
    corner = solved(prefs, selection="vertex")
    assert np.abs(exact - corner.policy).max(axis=1).min() < 1e-15
    np.testing.assert_allclose(solved(prefs).policy, 0.25, atol=1e-14)


# -- HiGHS --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", oracles.FAMILIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", [3, 10, 25])
def test_against_highs(family, size):
    for seed in range(4):
        prefs = family(np.random.default_rng(seed), size)
        other = oracles.highs_equilibrium(prefs)
        solutions = [solved(prefs, method=m, selection=s) for m in METHODS for s in SELECTIONS]
        assert len({s.unique for s in solutions}) == 1
        if solutions[0].unique:
            for solution in solutions:
                np.testing.assert_allclose(solution.policy, other, atol=1e-7)
                np.testing.assert_allclose(solution.policy, solutions[0].policy, atol=1e-12)


@pytest.mark.parametrize("family", [oracles.uniform, oracles.counts, oracles.clones,
                                    oracles.tournament], ids=lambda f: f.__name__)  # fmt: skip
def test_uniqueness_is_that_of_the_ranges_of_all_equilibria(family):
    verdicts = []
    for seed in range(12):
        prefs = family(np.random.default_rng(seed), 4 + seed % 5)
        low, high = oracles.equilibrium_ranges(prefs)
        solution = solved(prefs)
        assert solution.unique == ((high - low).max() < 1e-6)
        np.testing.assert_array_equal(solution.policy > 1e-9, high > 1e-6)  # largest support
        verdicts.append(solution.unique)
    assert any(verdicts)
    assert all(verdicts) == (family in (oracles.uniform, oracles.tournament))


# -- theorems -----------------------------------------------------------------------------


def test_supports_are_odd_and_the_equilibrium_unique_in_random_games():
    """A generic skew matrix of even order is nonsingular; sizes seen: 1, 3, 5, 7, 9 of 10."""
    prefs = np.stack([oracles.uniform(np.random.default_rng(s), 10) for s in range(300)])
    solution = nash(PreferenceGame(prefs))
    assert solution.unique.all()
    sizes = np.bincount((solution.policy > 0).sum(axis=1), minlength=11)
    assert sizes[1::2].sum() == 300
    assert (sizes[[1, 3, 5, 7]] > 0).all()
    assert sizes.argmax() == 5


def test_odd_margins_make_the_equilibrium_unique_even_in_tournaments():
    """Laffond, Laslier and Le Breton 1997: margins that are odd multiples of one number."""
    rng = np.random.default_rng(0)
    for size in (2, 5, 8, 21, 40):
        for _ in range(5):
            assert solved(oracles.tournament(rng, size)).unique
            odd = rng.integers(0, 2, (size, size)) * 2 + 1
            signs = rng.choice([-1, 1], (size, size))
            assert solved(0.5 + oracles.skew(odd * signs / 6)).unique


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [3, 4, 9, 10, 31])
def test_full_support_games(size, method):
    prefs, x = oracles.full_support(np.random.default_rng(size), size)
    assert np.abs((prefs - 0.5) @ x).max() < 1e-15
    solution = solved(prefs, method=method)
    margin = (prefs - prefs.T) / 2
    assert (solution.policy > 1e-6).all()
    assert np.abs(margin @ solution.policy).max() < 1e-13
    if size % 2:
        assert solution.unique
        np.testing.assert_allclose(solution.policy, x, atol=1e-11)
    else:  # an even number of directions is free
        assert not solution.unique


@SEEDED
@given(
    seed=st.integers(0, 10_000), size=st.integers(1, 12), family=st.sampled_from(oracles.FAMILIES)
)
def test_names_do_not_matter(seed, size, family):
    rng = np.random.default_rng(seed)
    prefs, order = family(rng, size), rng.permutation(size)
    solution, moved = solved(prefs), solved(prefs[np.ix_(order, order)])
    np.testing.assert_allclose(moved.policy, solution.policy[order], atol=1e-9)
    assert moved.unique == solution.unique


@pytest.mark.parametrize("scale", [1e-3, 1e-9, 1e-12])
@pytest.mark.parametrize("method", METHODS)
def test_small_margins_are_as_good_as_large_ones(scale, method):
    """The equilibrium does not depend on the unit of the margins (powers of two: exactly)."""
    unit = 2.0 ** np.round(np.log2(scale))
    margin = np.round((COMAL - 0.5) * 10) * unit
    solution = nash(PreferenceGame(0.5 + margin), method=method)
    np.testing.assert_allclose(solution.policy, np.array([4, 3, 4]) / 11, atol=1e-13)
    assert solution.unique
    assert solution.gap <= 1e-14 * scale


def test_a_small_cycle_above_a_large_loser():
    """Margins of 1e-9 decide among the best three, next to margins of 1/2."""
    prefs = np.full((4, 4), 1.0)
    prefs[:3, :3] = 0.5 + 2.0**-30 * (COMAL - 0.5).round(1)
    prefs[3] = [0.0, 0.0, 0.0, 0.5]
    exact = oracles.vertices(prefs).astype(float)
    solution = solved(prefs)
    assert len(exact) == 1
    assert solution.unique
    np.testing.assert_allclose(solution.policy, exact[0], atol=1e-6)


def pivoted(prefs):
    from equilign.games import simplex

    every, exist = np.arange(len(prefs)), np.empty((0, prefs.shape[1]), dtype=bool)
    _, gains, verdicts = simplex.vertices(prefs, exist, every)
    assert (verdicts != simplex.FAILED).all()
    return gains


@pytest.mark.parametrize("family", oracles.FAMILIES, ids=lambda f: f.__name__)
def test_pivoting_alone_is_exact_to_rounding(family):
    """Over a hundred pivots leave errors of 1e-11, which the refinement takes away."""
    for size, games in ((5, 200), (30, 40), (80, 4)):
        prefs = np.stack([family(np.random.default_rng(s), size) for s in range(games)])
        assert pivoted(prefs).max() < 1e-15


def test_pivoting_alone_does_not_mind_small_margins():
    prefs = np.stack([oracles.uniform(np.random.default_rng(s), 9) for s in range(50)])
    assert pivoted(0.5 + 2.0**-40 * (prefs - 0.5)).max() < 1e-27


# -- batches ------------------------------------------------------------------------------


def ragged(seed, games=40, size=7, dtype=np.float64):
    rng = np.random.default_rng(seed)
    prefs = np.stack([oracles.FAMILIES[k % 6](rng, size) for k in range(games)]).astype(dtype)
    if dtype == np.float32:
        prefs = np.triu(prefs) + np.tril(1 - prefs.swapaxes(1, 2), -1)
    mask = rng.random((games, size)) < 0.7
    mask[np.arange(games), rng.integers(0, size, games)] = True
    mask[0] = np.arange(size) == 3
    return prefs, mask


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_batch_is_a_loop_of_games_and_a_mask_a_smaller_game(dtype, method, selection):
    prefs, mask = ragged(0, dtype=dtype)
    prefs[~mask] = np.nan  # what is off the mask is not looked at
    prefs.swapaxes(1, 2)[~mask] = np.nan
    game = PreferenceGame(prefs, mask=mask)
    solution = nash(game, method=method, selection=selection)
    assert solution.policy.dtype == np.float64
    assert (solution.policy[~mask] == 0.0).all()
    assert solution.value.tolist() == [0.5] * 40
    assert not solution.unique.all()
    assert solution.unique[0]
    assert solution.status == "not unique"
    assert solution.notes[0].startswith(f"{(~solution.unique).sum()} of 40 games")
    np.testing.assert_allclose(solution.gap, duality_gap(game, solution.policy), atol=1e-16)
    assert solution.gap.max() < 1e-12
    for x in range(40):
        alone = nash(game[x], method=method, selection=selection)
        np.testing.assert_allclose(solution.policy[x, mask[x]], alone.policy, atol=1e-12)
        assert solution.unique[x] == alone.unique


def test_threads_and_slices_do_not_change_the_answer(monkeypatch):
    prefs, mask = ragged(1, games=3000, size=5)
    answers = []
    for threads in ("1", "3"):
        monkeypatch.setenv("EQUILIGN_THREADS", threads)
        answers.append(nash(PreferenceGame(prefs, mask=mask)).policy)
    np.testing.assert_array_equal(*answers)


def test_a_float32_batch_is_not_copied():
    import tracemalloc

    prefs = np.stack([oracles.uniform(np.random.default_rng(0), 64)] * 600).astype(np.float32)
    prefs = np.triu(prefs) + np.tril(1 - prefs.swapaxes(1, 2), -1)
    game = PreferenceGame(prefs)
    nash(game)
    tracemalloc.start()
    nash(game)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 600 * 64 * 8 + 2**20 < prefs.nbytes / 2


# -- large games and failures -------------------------------------------------------------


@pytest.mark.parametrize("backend", ["torch", "lapack"])
@pytest.mark.parametrize("family", [oracles.uniform, oracles.low_rank, oracles.counts],
                         ids=lambda f: f.__name__)  # fmt: skip
def test_large_games(family, backend, monkeypatch):
    assert "torch" in sys.modules
    monkeypatch.setattr(large, "FEWEST_FOR_TORCH", 0 if backend == "torch" else 10**6)
    monkeypatch.setattr(sys.modules[nash.__module__], "LARGEST_COMPILED", 50)
    prefs = family(np.random.default_rng(0), 170)
    solution = solved(prefs, method="interior-point")
    pivoted = solved(prefs, method="simplex")
    np.testing.assert_allclose(solution.policy, pivoted.policy, atol=1e-11)
    assert solution.unique
    assert pivoted.unique


@pytest.mark.parametrize("selection", SELECTIONS)
def test_large_games_with_clones_and_masks(selection, monkeypatch):
    rng = np.random.default_rng(0)
    prefs = np.stack([oracles.clones(rng, 170), oracles.uniform(rng, 170)])
    mask = np.ones((2, 170), dtype=bool)
    mask[:, 160:] = False
    game = PreferenceGame(prefs, mask=mask)
    other = nash(game, selection=selection, method="simplex")
    monkeypatch.setattr(sys.modules[nash.__module__], "LARGEST_COMPILED", 50)
    solution = nash(game, selection=selection, method="interior-point")
    assert solution.unique.tolist() == [False, True]
    assert solution.gap.max() < 1e-12
    assert (solution.policy[:, 160:] == 0.0).all()
    np.testing.assert_allclose(solution.policy, other.policy, atol=1e-9)


def test_a_thousand_responses():
    game = PreferenceGame(oracles.uniform(np.random.default_rng(0), 1000))
    solution = nash(game)
    assert exploitability(game, solution.policy) < 1e-14
    assert solution.unique
    assert (solution.policy > 0).sum() % 2 == 1


@pytest.mark.parametrize("selection", SELECTIONS)
def test_where_pivoting_fails_the_interior_point_answers(selection, monkeypatch):
    from equilign.games import simplex

    prefs, mask = ragged(2)
    game = PreferenceGame(prefs, mask=mask)
    expected = nash(game)

    def broken(prefs, exist, games):
        policies = exist[games] / exist[games].sum(axis=1, keepdims=True)
        return policies, np.full(len(games), np.nan), np.full(len(games), simplex.FAILED, np.int8)

    monkeypatch.setattr(simplex, "vertices", broken)
    solution = nash(game, selection=selection)
    np.testing.assert_allclose(solution.policy, expected.policy, atol=1e-9)
    np.testing.assert_array_equal(solution.unique, expected.unique)


def test_an_inaccurate_answer_says_so(monkeypatch):
    monkeypatch.setattr(sys.modules[nash.__module__], "ACCURATE", -1.0)
    solution = nash(PreferenceGame(COMAL))
    assert solution.status == "inaccurate"
    assert "could not be found to a duality gap" in solution.notes[-1]


def test_unknown_options_are_refused():
    game = PreferenceGame(COMAL)
    with pytest.raises(ConfigError, match="selection = 'middle'; there are: center, vertex"):
        nash(game, selection="middle")
    with pytest.raises(ConfigError, match="method = 'magic'; there are: auto, simplex, interior"):
        nash(game, method="magic")


def test_labels_come_along():
    solution = nash(PreferenceGame(COMAL, labels=("a", "b", "c")))
    assert list(solution.support()) == ["a", "c", "b"] or list(solution.support()) == [
        "c",
        "a",
        "b",
    ]
