"""Every named game is what it says, and its equilibrium is one, by arithmetic."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from equilign.errors import ConfigError
from equilign.games import PreferenceGame, condorcet_winner, cyclic_triples
from equilign.games.limits import bradley_terry
from equilign.games.named import NAMED_GAMES, named_game
from equilign.games.voting import borda, condorcet, smith_set

SEEDED = settings(derandomize=True, deadline=None, max_examples=30)

CASES = {
    "rock-paper-scissors": [{}, {"win": 0.7}],
    "weighted-rock-paper-scissors": [{}, {"paper": 1.0, "scissors": 0.51, "rock": 0.8}],
    "condorcet-cycle": [{}, {"win": 0.6}],
    "comal": [{}],
    "condorcet-winner": [{}],
    "favourite-loses": [{}, {"narrow": 0.51, "wide": 1.0}],
    "bradley-terry": [{}, {"n": 20, "seed": 4}, {"scores": [0.5, 2.0, 2.0]}],
    "majority-of-annotators": [{}, {"confidence": 0.8}],
    "rotational": [{}, {"n": 3}, {"n": 9, "win": 0.6}],
    "clones": [{}, {"copies": 1}, {"copies": 5, "win": 0.8}],
    "all-ties": [{}, {"n": 1}],
    "tournament": [{}, {"n": 12, "win": 0.7, "seed": 3}],
    "random": [{}, {"n": 15, "seed": 2}],
    "full-support": [{}, {"n": 10, "seed": 1}, {"n": 3}, {"n": 31, "seed": 5}],
}
ALL = [(name, options) for name, cases in CASES.items() for options in cases]


def is_the_only_equilibrium(game, policy):
    """No equilibrium plays any response more often than ``policy`` does: one LP per response."""
    size = game.size
    for i in range(size):
        found = linprog(
            -np.eye(size)[i],
            A_ub=game.margin,
            b_ub=np.zeros(size),
            A_eq=np.ones((1, size)),
            b_eq=[1.0],
            method="highs",
        )
        if -found.fun > policy[i] + 1e-6:
            return False
    return True


def test_every_game_is_tested():
    assert set(CASES) == set(NAMED_GAMES)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_known_solutions_are_equilibria(name, options):
    entry, game = NAMED_GAMES[name], named_game(name, **options)
    assert isinstance(game, PreferenceGame)
    assert game.labels is not None
    np.testing.assert_allclose(game.prefs + game.prefs.T, 1.0, atol=1e-15)
    if entry.solution is None:
        assert not entry.unique
        return
    policy = entry.solution(**options)
    assert policy.shape == (game.size,)
    assert (policy >= 0.0).all()
    assert policy.sum() == pytest.approx(1.0, abs=1e-14)
    payoff = [
        sum(game.margin[i, j] * policy[j] for j in range(game.size)) for i in range(game.size)
    ]
    assert max(payoff) < 1e-14, "nobody beats it"
    if entry.unique:
        assert is_the_only_equilibrium(game, policy)


@pytest.mark.parametrize("name", ["clones", "all-ties"])
def test_games_said_to_have_several_equilibria_have_them(name):
    game, policy = named_game(name), NAMED_GAMES[name].solution()
    assert not is_the_only_equilibrium(game, policy)
    assert not NAMED_GAMES[name].unique


@pytest.mark.parametrize("entry", NAMED_GAMES.values(), ids=lambda e: e.name)
def test_entries_are_complete(entry):
    assert entry.title
    assert entry.description.endswith(".")
    assert entry.source
    assert all(v is not inspect.Parameter.empty for v in entry.options.values())
    if entry.solution is not None:
        own = inspect.signature(entry.solution).parameters
        assert {k: p.default for k, p in own.items()} == dict(entry.options)


# -- what each one is ---------------------------------------------------------------------


def test_who_beats_whom():
    rps = named_game("rock-paper-scissors")
    assert rps.names == ("rock", "paper", "scissors")
    np.testing.assert_array_equal(rps.prefs, [[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]])
    cycle = named_game("condorcet-cycle")
    np.testing.assert_allclose(cycle.prefs, [[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
    comal = named_game("comal")
    assert (comal.prefs[1, 0], comal.prefs[2, 1], comal.prefs[0, 2]) == (0.9, 0.9, 0.8)
    np.testing.assert_allclose(NAMED_GAMES["comal"].solution(), [4 / 11, 3 / 11, 4 / 11])
    weighted = named_game("weighted-rock-paper-scissors", paper=0.9, scissors=0.8, rock=0.7)
    np.testing.assert_allclose(
        (weighted.prefs[1, 0], weighted.prefs[2, 1], weighted.prefs[0, 2]), (0.9, 0.8, 0.7)
    )
    assert condorcet_winner(named_game("condorcet-winner").prefs) == 0


def test_annotators_agree_within_and_cycle_together():
    game = named_game("majority-of-annotators")
    np.testing.assert_allclose(game.prefs[[0, 1, 2], [1, 2, 0]], 2 / 3)
    assert cyclic_triples(game.prefs) == 1
    unsure = named_game("majority-of-annotators", confidence=0.8)
    np.testing.assert_allclose(unsure.prefs[0, 1], (2 * 0.8 + 0.2) / 3)


def test_the_favourite_loses():
    game = named_game("favourite-loses")
    assert condorcet(game).support() == {"sound": 1.0}
    assert borda(game).support() == bradley_terry(game).support() == {"flashy": 1.0}


def test_rings_and_tournaments():
    ring = named_game("rotational", n=7)
    assert ((ring.prefs == 1.0).sum(axis=1) == 3).all()
    assert ring.prefs[0, 1] == ring.prefs[0, 3] == 1.0
    assert smith_set(ring.prefs) == tuple(range(7))
    game = named_game("tournament", n=9, win=0.75, seed=1)
    assert set(np.unique(game.prefs)) == {0.25, 0.5, 0.75}
    assert (game.prefs == 0.5).sum() == 9


@SEEDED
@given(seed=st.integers(0, 1000))
def test_seeds_make_games(seed):
    for name in ("random", "tournament", "full-support", "bradley-terry"):
        one, again = named_game(name, n=5, seed=seed), named_game(name, n=5, seed=seed)
        np.testing.assert_array_equal(one.prefs, again.prefs)
        assert (one.prefs != named_game(name, n=5, seed=seed + 1).prefs).any()


def test_random_preferences_fill_the_unit_interval():
    """Kolmogorov-Smirnov distance to the uniform law of 4,950 entries; 1 % point 1.63 / 70."""
    prefs = named_game("random", n=100, seed=0).prefs
    drawn = np.sort(prefs[np.tril_indices(100, -1)])
    assert np.abs(drawn - np.arange(1, 4951) / 4950).max() < 1.63 / np.sqrt(4950)


@pytest.mark.parametrize("n", [3, 7, 11, 10])
def test_full_support_games_have_an_interior_equilibrium(n):
    for seed in range(5):
        game = named_game("full-support", n=n, seed=seed)
        x = NAMED_GAMES["full-support"].solution(n=n, seed=seed)
        assert x.min() > 1e-4
        np.testing.assert_allclose(game.margin @ x, 0.0, atol=1e-15)
        assert np.abs(game.margin).max() == pytest.approx(0.5)
        rank = np.linalg.matrix_rank(game.margin, tol=1e-9)
        assert rank == (n - 1 if n % 2 else n - 2)
        assert is_the_only_equilibrium(game, x) == (n % 2 == 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rock-paper-scisors", {}, "did you mean 'rock-paper-scissors'"),
        ("zzz", {}, "no game 'zzz' There are: rock-paper-scissors, "),
        ("random", {"size": 3}, "no option 'size'; it has: n=10, seed=0"),
        ("comal", {"n": 3}, "it has: none"),
        ("random", {"n": 0}, "n = 0; .* at least 1"),
        ("random", {"n": 2.5}, "n = 2.5"),
        ("random", {"n": True}, "n = True"),
        ("random", {"seed": -1}, "seed = -1"),
        ("rotational", {"n": 4}, "n = 4; .* odd"),
        ("full-support", {"n": 2}, "at least 3"),
        ("condorcet-cycle", {"win": 0.4}, r"win = 0.4; .* \(0.5, 1\]"),
        ("weighted-rock-paper-scissors", {"rock": 0.5}, "rock = 0.5"),
        ("bradley-terry", {"scores": ["a"]}, r"scores = \['a'\]; a list of numbers"),
        ("bradley-terry", {"scores": []}, "one per response"),
    ],
)
def test_bad_names_and_options_are_refused(name, options, message, without_shape_checks):
    with pytest.raises(ConfigError, match=message):
        named_game(name, **options)
