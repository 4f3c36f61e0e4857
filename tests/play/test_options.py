"""What can be asked for, and what is said when it cannot."""

import numpy as np
import pytest

from equilign.errors import ConfigError, PolicyError
from equilign.games import PreferenceGame
from equilign.play import decreasing, play, suggest_eta
from equilign.play.options import record_steps, start_policy
from equilign.rules import COMAL, EGPO, MWU, OGDA, OMD, OMWU, ONPO, RULES
from tests.play.games import SIGNS, random_game, random_matrix


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 0.0}, "eta = 0.0; it must be finite and > 0"),
        ({"eta": float("inf")}, "eta = inf"),
        ({"beta": -1.0}, "beta = -1.0; a KL weight must be finite and >= 0"),
        ({"steps": -1}, "steps = -1; at least 0"),
        ({"mixture": 1.5}, r"mixture = 1.5; a weight in \[0, 1\]"),
        ({"inner_steps": 0}, "inner_steps = 0"),
        ({"samples": 0}, "samples = 0; at least 1 verdict"),
        ({"start": "corner"}, "start = 'corner'; random, uniform, reference, or a policy"),
        ({"record": 0}, "record = 0"),
        ({"steps": 5, "record": [3, 6]}, "record lists steps outside 0 to 5"),
        ({"step": 5}, "OMWU has no option 'step'; it has: steps, start,"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        play(random_game(0, 3), "omwu", **options)


def test_unknown_rules_are_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="no rule 'omvu'; there are: sppo, ") as error:
        play(random_game(0, 3), "omvu")
    assert all(name in str(error.value) for name in RULES)


def test_a_start_must_be_a_policy():
    with pytest.raises(PolicyError, match="sums to"):
        play(random_game(0, 3), "omwu", start=np.array([0.5, 0.2, 0.2]))


def test_starts():
    game = random_game(1, 4)
    np.testing.assert_array_equal(start_policy(game, "uniform", 0), np.full(4, 0.25))
    np.testing.assert_array_equal(start_policy(game, "reference", 0), game.ref)
    a, b, c = (start_policy(game, "random", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.01
    batch = PreferenceGame(np.stack([game.prefs] * 3))
    same = start_policy(batch, np.array([0.1, 0.2, 0.3, 0.4]), 0)
    np.testing.assert_array_equal(same, np.tile([0.1, 0.2, 0.3, 0.4], (3, 1)))
    many = start_policy(PreferenceGame(np.stack([SIGNS] * 4000)), "random", 0)
    np.testing.assert_allclose(many.mean(axis=0), 1 / 3, atol=0.02)
    np.testing.assert_allclose(many.var(axis=0), 1 / 18, atol=0.005)  # Dirichlet(1, 1, 1)


def test_recorded_steps():
    np.testing.assert_array_equal(record_steps(3, None), [0, 1, 2, 3])
    np.testing.assert_array_equal(record_steps(10, 4), [0, 4, 8, 10])
    np.testing.assert_array_equal(record_steps(10, [7, 2, 2]), [2, 7])
    long = record_steps(100_000, None)
    assert long[0] == 0
    assert long[-1] == 100_000
    assert 100 < long.size <= 202
    assert (np.diff(long) > 0).all()
    np.testing.assert_array_equal(record_steps(0, None), [0])


def test_no_steps_is_the_start():
    run = play(random_game(0, 3), "omwu", steps=0, seed=3)
    np.testing.assert_array_equal(run.final_log_policy, run.log_policies[0])
    np.testing.assert_allclose(run.average_policy, run.final_policy)


def test_the_suggested_step_follows_the_norm_and_the_slots():
    game = PreferenceGame(SIGNS)  # largest margin 1/2, spectral norm sqrt(3)/2
    assert suggest_eta(OMWU, game, 0.0) == pytest.approx(1.0)
    assert suggest_eta(EGPO, game, 0.0) == pytest.approx(1.0)
    assert suggest_eta(ONPO, game, 0.0) == pytest.approx(1.0)
    assert suggest_eta(MWU, game, 0.0) == pytest.approx(0.2)
    assert suggest_eta(OGDA, game, 0.0) == pytest.approx(1 / np.sqrt(3))
    assert suggest_eta(OMD, game, 0.1) == pytest.approx(0.4)
    assert suggest_eta(COMAL, game, 0.1) == pytest.approx(0.4)
    assert suggest_eta(EGPO, game, 5.0) == pytest.approx(0.1), "eta beta must stay below 1"
    small = PreferenceGame(0.5 + (SIGNS - 0.5) / 10)
    assert suggest_eta(OMWU, small, 0.0) == pytest.approx(10.0)
    batch = PreferenceGame(np.stack([small.prefs, SIGNS]))
    assert suggest_eta(OMWU, batch, 0.0) == pytest.approx(1.0)
    assert suggest_eta(OMWU, PreferenceGame(np.full((2, 2), 0.5)), 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rule", ["ogda", "omwu"])
def test_the_suggested_step_settles(rule, seed):
    game = PreferenceGame(random_matrix(seed, 5))
    run = play(game, rule, steps=30_000, seed=seed)
    assert run.duality_gap[-1] < run.duality_gap[0] / 5


def test_decreasing_needs_a_kl_weight():
    assert decreasing(0.5)(0) == pytest.approx(2.0)
    assert decreasing(0.5)(2) == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="positive KL weight"):
        decreasing(0.0)
