"""Condorcet, Borda, Copeland and the Smith set against their definitions, spelled out."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equilign.errors import PolicyError, PreferenceMatrixError
from equilign.games import PreferenceGame, condorcet_winner, duality_gap
from equilign.games.voting import borda, condorcet, copeland, smith_set, weak_condorcet_winners
from tests.games.test_bradley_terry import DATA, real_wins

SEEDED = settings(derandomize=True, deadline=None, max_examples=80)
EXPECTED = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
CYCLE = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])


def coarse_prefs(seed, size):
    """Entries in {0, 1/4, ..., 1}: many ties and cycles."""
    lower = np.tril(np.random.default_rng(seed).integers(-2, 3, (size, size)) / 4.0, -1)
    return 0.5 + lower - lower.T


def smallest_dominating_set(prefs):
    """By trying all sets, small ones first."""
    size = len(prefs)
    for k in range(1, size + 1):
        for inside in itertools.combinations(range(size), k):
            outside = [j for j in range(size) if j not in inside]
            if all(prefs[i, j] > 0.5 for i in inside for j in outside):
                return inside
    raise AssertionError


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 7))
def test_the_smith_set_is_the_smallest_dominating_set(seed, size):
    prefs = coarse_prefs(seed, size)
    members = smith_set(prefs)
    assert members == smallest_dominating_set(prefs)
    winner = condorcet_winner(prefs)
    assert (members == (winner,)) == (winner is not None)
    assert set(weak_condorcet_winners(prefs)) <= set(members)


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 7))
def test_concepts_are_their_definitions(seed, size):
    prefs = coarse_prefs(seed, size)
    game = PreferenceGame(prefs)
    others = [[j for j in range(size) if j != i] for i in range(size)]
    wins = [
        sum((prefs[i, j] > 0.5) + 0.5 * (prefs[i, j] == 0.5) for j in others[i])
        for i in range(size)
    ]
    rates = [sum(prefs[i]) / size for i in range(size)]
    for solution, scores in ((copeland(game), wins), (borda(game), rates)):
        best = [i for i in range(size) if scores[i] > max(scores) - 1e-9]
        want = np.zeros(size)
        want[best] = 1 / len(best)
        np.testing.assert_allclose(solution.policy, want, atol=1e-15)
        assert solution.unique == (len(best) == 1)
        assert solution.status == ("optimal" if len(best) == 1 else "not unique")
        assert bool(solution.notes) == (len(best) > 1)
        assert solution.value == pytest.approx((want @ prefs).min())
        assert solution.gap == pytest.approx(duality_gap(game, want), abs=1e-15)
    assert set(np.flatnonzero(copeland(game).policy)) <= set(smith_set(prefs))
    weak = [i for i in range(size) if all(prefs[i, j] >= 0.5 for j in range(size))]
    assert weak_condorcet_winners(prefs) == tuple(weak)
    winner = condorcet_winner(prefs)
    answer = condorcet(game)
    if winner is None:
        assert answer.status == "none"
        assert (answer.policy == 0.0).all()
        assert np.isnan(answer.value)
        assert np.isnan(answer.gap)
        assert answer.notes
    else:
        assert answer.status == "optimal"
        np.testing.assert_array_equal(answer.policy, np.eye(size)[winner])
        assert (answer.value, answer.gap) == (0.5, 0.0)


@pytest.mark.parametrize("name", EXPECTED)
def test_winners_and_smith_sets_of_real_games(name):
    names, wins = real_wins(name)
    game = PreferenceGame.from_counts(wins, labels=names)
    want = EXPECTED[name]
    assert sorted(names[i] for i in smith_set(game.prefs)) == sorted(want["smith"])
    weak = sorted(names[i] for i in weak_condorcet_winners(game.prefs))
    assert weak == sorted(want["weak_cw"])
    found = condorcet(game).support()
    assert list(found) == ([want["condorcet_winner"]] if want["condorcet_winner"] else [])


def test_borda_against_a_policy():
    game = PreferenceGame(CYCLE, labels=("a", "b", "c"))
    assert not borda(game).unique
    against = np.array([0.1, 0.8, 0.1])  # mostly b, which a beats
    assert borda(game, against=against).support() == {"a": 1.0}
    with pytest.raises(PolicyError, match="sums to"):
        borda(game, against=np.array([0.1, 0.8, 0.2]))


def test_borda_is_fooled_where_condorcet_is_not():
    prefs = np.full((4, 4), 0.5)
    prefs[0, 1:], prefs[1, 2:] = 0.52, 0.95
    prefs = np.triu(prefs, 1) + np.tril(1 - prefs.T, -1) + np.eye(4) / 2
    game = PreferenceGame(prefs)
    assert condorcet(game).policy.argmax() == copeland(game).policy.argmax() == 0
    assert borda(game).policy.argmax() == 1
    assert borda(game).value == pytest.approx(0.48)
    assert borda(game).gap == pytest.approx(0.04)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("concept", [condorcet, borda, copeland])
def test_a_masked_batch_is_a_loop_over_its_games(concept, dtype):
    rng = np.random.default_rng(5)
    prefs = np.stack([coarse_prefs(seed, 6) for seed in range(60)]).astype(dtype)
    mask = rng.random((60, 6)) < 0.7
    mask[:, 2] = True
    prefs[~(mask[:, :, None] & mask[:, None, :])] = np.nan
    for batch in (
        PreferenceGame(prefs, mask=mask),
        PreferenceGame(np.stack([coarse_prefs(seed, 6) for seed in range(60)]).astype(dtype)),
    ):
        together = concept(batch)
        statuses = set()
        for x in range(60):
            keep = np.arange(6) if batch.mask is None else np.flatnonzero(mask[x])
            one = concept(batch[x])
            statuses.add(one.status)
            np.testing.assert_allclose(together.policy[x, keep], one.policy, atol=1e-15)
            assert together.policy[x].sum() == pytest.approx(one.policy.sum())
            np.testing.assert_allclose(together.value[x], one.value, atol=1e-15)
            np.testing.assert_allclose(together.gap[x], one.gap, atol=1e-15)
            assert together.unique[x] == one.unique
        assert len(statuses) == 2
        assert together.status in statuses - {"optimal"}
        assert len(together.notes) == 1


def test_regularised_games_measure_the_regularised_gap():
    game = PreferenceGame(CYCLE, np.array([0.2, 0.3, 0.5]), beta=0.1)
    solution = borda(game)
    assert solution.gap == pytest.approx(duality_gap(game, solution.policy), rel=1e-12)
    pure = borda(game, against=np.array([0.1, 0.8, 0.1]))
    assert pure.gap == pytest.approx(duality_gap(game, np.array([1.0, 0.0, 0.0])), rel=1e-12)
    assert pure.gap > 0.1
    batch = PreferenceGame(np.stack([CYCLE, CYCLE.T]), np.array([0.2, 0.3, 0.5]), beta=0.1)
    for x in range(2):
        assert borda(batch).gap[x] == pytest.approx(borda(batch[x]).gap, rel=1e-12)


@pytest.mark.parametrize("concept", [smith_set, weak_condorcet_winners])
def test_sets_refuse_what_is_no_game(concept):
    with pytest.raises(PreferenceMatrixError, match=r"\(0, 1\)"):
        concept(np.array([[0.5, 0.9], [0.9, 0.5]]))
