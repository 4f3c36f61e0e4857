"""SPPO's exact step: multiplicative weights in self-play (Wu et al. 2024, arXiv:2405.00675)."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equilign.games import PreferenceGame, duality_gap
from equilign.play import exact_feedback, mirror_step
from equilign.rules import MIRROR_RULES, SPPO, Slot, Step
from tests.enumerable import random_prefs

SEEDED = settings(derandomize=True, deadline=None)

COMAL = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]])
# Rock beats scissors, and so on round; the other orientation has another trajectory.
SIGNS = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
CONDORCET = np.array([[0.5, 0.6, 0.7], [0.4, 0.5, 0.8], [0.3, 0.2, 0.5]])
START = np.array([0.2, 0.5, 0.3])


def sppo(prefs, log_policy, eta):
    feedback = exact_feedback(PreferenceGame(prefs))
    return mirror_step(SPPO, {Slot.CURRENT: log_policy}, feedback, Step(eta))[Slot.CURRENT]


def play(prefs, start, eta, steps):
    """Policies 0 to ``steps``, by the library."""
    logs = [np.log(start)]
    for _ in range(steps):
        logs.append(sppo(prefs, logs[-1], eta))
    return np.exp(logs)


@pytest.mark.parametrize("eta", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("prefs", [COMAL, SIGNS, CONDORCET])
def test_one_step_by_plain_arithmetic(prefs, eta):
    rates = [sum(prefs[i][j] * START[j] for j in range(3)) for i in range(3)]
    raised = [START[i] * math.exp(eta * rates[i]) for i in range(3)]
    got = np.exp(sppo(prefs, np.log(START), eta))
    np.testing.assert_allclose(got, [x / sum(raised) for x in raised], atol=1e-14)


@pytest.mark.parametrize(
    ("eta", "expected"),
    [
        (1.0, (0.1783, 0.4782, 0.3435)),
        (5.0, (0.102, 0.363, 0.535)),
        (50.0, (2e-6, 2e-4, 0.9998)),
    ],
)
def test_known_steps(eta, expected):
    got = np.exp(sppo(COMAL, np.log(START), eta))
    np.testing.assert_allclose(got, expected, atol=6e-5 if eta == 1.0 else 6e-4)
    np.testing.assert_allclose(np.log(got), np.log(expected), atol=0.25)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_the_last_iterate_spirals_away_from_an_interior_equilibrium(eta):
    """KL(equilibrium || policy_t) grows at every step: the theorem that makes averages needed."""
    policies = play(SIGNS, START, eta, 200 if eta == 0.3 else 40)
    divergence = -np.log(policies).mean(axis=1) - math.log(3)
    assert (np.diff(divergence) > 0).all()


def test_the_average_iterate_converges():
    """Mean of policies 0 to T - 1; values computed independently of this library."""
    policies = play(SIGNS, START, 0.3, 9_999)
    game = PreferenceGame(SIGNS)
    for steps, gap in ((10, 0.268), (100, 0.067), (1000, 0.018), (10_000, 0.006)):
        assert duality_gap(game, policies[:steps].mean(axis=0)) == pytest.approx(gap, abs=5e-4)
    assert duality_gap(game, policies[-1]) > 0.3, "the last iterate must not have converged"


@pytest.mark.parametrize("eta", [0.3, 3.0])
def test_a_condorcet_winner_is_found_by_the_last_iterate(eta):
    policies = play(CONDORCET, np.array([0.02, 0.08, 0.9]), eta, int(300 / eta))
    game = PreferenceGame(CONDORCET)
    assert duality_gap(game, policies[0]) > 0.2
    assert duality_gap(game, policies[-1]) < 1e-9
    assert policies[-1][0] == pytest.approx(1.0, abs=1e-9)


def test_a_transitive_game_is_won_by_its_best_response():
    scores = np.array([0.3, -1.0, 2.0, 0.9])
    prefs = 1.0 / (1.0 + np.exp(scores[None, :] - scores[:, None]))
    assert play(prefs, np.array([0.3, 0.3, 0.1, 0.3]), 1.0, 200)[-1].argmax() == 2


@SEEDED
@given(seed=st.integers(0, 10_000), eta=st.floats(0.01, 20.0))
def test_the_equilibrium_stands_still(seed, eta):
    """At an interior equilibrium every response wins half the time, so the step is the identity."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(0.05, 0.45, 3)
    prefs = 0.5 + np.array([[0.0, a, -b], [-a, 0.0, c], [b, -c, 0.0]])
    equilibrium = np.array([c, b, a]) / (a + b + c)
    np.testing.assert_allclose(
        np.exp(sppo(prefs, np.log(equilibrium), eta)), equilibrium, atol=1e-12
    )


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 8), eta=st.floats(0.01, 50.0))
def test_one_step_never_loses_to_where_it_came_from(seed, size, eta):
    """<new, P old> >= 1/2: the step raises what wins against the current policy."""
    prefs = random_prefs(seed, size)
    old = np.random.default_rng(seed).dirichlet(np.ones(size))
    new = np.exp(sppo(prefs, np.log(old), eta))
    assert new @ prefs @ old >= 0.5 - 1e-12


def test_the_entry_in_the_table():
    assert MIRROR_RULES["sppo"] is SPPO
    assert len(SPPO.stages) == 1
    assert SPPO.slots(Step(eta=3.0, beta=0.7)) == ({Slot.CURRENT}, {Slot.CURRENT})
    assert SPPO.stages[0].anchor(Step(3.0, 0.7)) == {Slot.CURRENT: 1.0}
    assert SPPO.stages[0].payoff(Step(3.0, 0.7)) == {Slot.CURRENT: 1.0}
