"""The table of methods: complete, honest, readable, and cheap to import."""

import json
import subprocess
import sys

import numpy as np
import pytest

from equilign.cli.main import _exit_code
from equilign.errors import ConfigError
from equilign.games import PreferenceGame
from equilign.games.bradley_terry import bradley_terry_prefs, fit_bradley_terry
from equilign.methods import LANGUAGE_MODEL, MATRIX, METHODS, TRAINED, get_method
from equilign.play import decreasing, play
from equilign.play.reward_game import fit_reward
from equilign.rules import MIRROR_RULES, REWARD_GAME_RULES, REWARD_RULES, RULES, Closing
from equilign.rules.reward_gradient import exact_reward_gradient, regularised_optimum

PREFS = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]])
NASH = np.array([4.0, 3.0, 4.0]) / 11.0
REF = np.array([0.6, 0.3, 0.1])
START = np.array([0.2, 0.5, 0.3])
BETA = 0.3
FREE, PULLED = PreferenceGame(PREFS), PreferenceGame(PREFS, REF, BETA)


def gibbs(rates, beta=BETA, ref=REF):
    logits = np.log(ref) + rates / beta
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


BRISK = {"learning_rate": 1.0, "reward_learning_rate": 2.0}


def average_of_self_play(name):
    run = play(FREE, name, steps=20_000, start=START)
    assert run.duality_gap[-1] > 0.3, "the last policy must not converge"
    assert run.average_duality_gap[-1] < 0.005


def last_policy(name, **options):
    run = play(FREE, name, steps=3000, start=START, **options)
    np.testing.assert_allclose(run.final_policy, NASH, atol=1e-8)


def moving_reference(name):
    last_policy(name, beta=0.1, inner_steps=50)


def regularised(name):
    run = play(PULLED, name, steps=5000, start=START)
    np.testing.assert_allclose(run.final_policy, gibbs(PREFS @ run.final_policy), atol=1e-10)


def falling_steps(name):
    run = play(PULLED, name, steps=20_000, start=START, eta=decreasing(BETA))
    np.testing.assert_allclose(run.final_policy, gibbs(PREFS @ run.final_policy), atol=1e-4)
    constant = play(PULLED, name, steps=5000, start=START, eta=1.0).final_policy
    assert np.abs(constant - gibbs(PREFS @ constant)).max() > 1e-3, "no bias at a constant step?"


def against_the_mixture(name):
    for mixture in (0.125, 0.5):
        run = play(PULLED, name, steps=5000, start=START, mixture=mixture)
        mixed = run.final_policy ** (1 - mixture) * REF**mixture
        goal = gibbs(PREFS @ (mixed / mixed.sum()))
        np.testing.assert_allclose(run.final_policy, goal, atol=1e-9)
        assert run.duality_gap[-1] > 1e-5, "biased, says the table"


def leader(name):
    eta = {"stackelberg-gda": 0.02}.get(name, 0.1)
    run = play(PULLED, name, steps=6000, start=START, eta=eta)
    reply = np.array([gibbs(-row) for row in PREFS])
    worth = -BETA * np.log((REF * np.exp(-PREFS / BETA)).sum(axis=1))
    np.testing.assert_allclose(run.extra["follower"], reply, atol=1e-6)
    np.testing.assert_allclose(run.final_policy, gibbs(worth), atol=1e-6)


def fit_and_improve(name):
    run = play(PULLED, name, steps=1500, start=START, **BRISK)
    reward = fit_reward(PREFS, run.final_policy, 1e-3)
    np.testing.assert_allclose(run.final_policy, gibbs(reward), atol=1e-9)


def fitted_objective(policy, ridge=1e-3):
    return policy @ fit_reward(PREFS, policy, ridge) - BETA * (policy @ np.log(policy / REF))


def stationary_through_the_fit(name):
    run = play(PULLED, name, steps=600, start=START, **BRISK)

    def at(logits):
        return fitted_objective(np.exp(logits) / np.exp(logits).sum())

    logs, step = run.final_log_policy, 1e-5 * np.eye(3)
    slope = [(at(logs + d) - at(logs - d)) / 2e-5 for d in step]
    np.testing.assert_allclose(slope, 0.0, atol=1e-7)
    naive = gibbs(fit_reward(PREFS, run.final_policy, 1e-3))
    assert np.abs(naive - run.final_policy).max() > 0.1, "the total derivative changed nothing"


def fitted_once(name):
    run = play(PULLED, name, steps=1500, start=START, **BRISK)
    goal = gibbs(fit_reward(PREFS, START, 1e-3))
    np.testing.assert_allclose(run.final_policy, goal, atol=1e-9)


def nothing_promised(name):
    assert METHODS[name].converges_to == "no promise"


def rlhf_of_its_pairs(name):
    run = play(PULLED, name, steps=3, start=START)
    scores = fit_bradley_terry(PREFS * np.outer(START, START)).scores
    np.testing.assert_allclose(run.final_policy, gibbs(scores), atol=1e-9)


def best_response_to_its_pairs(name):
    run = play(PULLED, name, steps=3, start=START)
    np.testing.assert_allclose(run.final_policy, gibbs(PREFS @ START), atol=1e-12)


SCORES = np.array([0.3, 1.0, 0.8])


def favourite_or_a_circle(name):
    run = play(PreferenceGame(bradley_terry_prefs(SCORES)), name, steps=300, start=START)
    assert run.final_policy[1] > 1 - 1e-9
    circle = play(FREE, name, steps=500, start=START, record=1)
    assert circle.duality_gap[-200:].max() > 0.7


def average_of_iterated_ipo(name):
    run = play(FREE, name, steps=20_000, start=START, beta=4.0)
    assert run.duality_gap[-1] > 0.3, "the last policy must not converge"
    assert run.average_duality_gap[-1] < 0.005


def rlhf_or_its_own_fixed_point(name):
    game = PreferenceGame(bradley_terry_prefs(SCORES), REF, BETA)
    run = play(game, name, steps=3, start=START)
    np.testing.assert_allclose(run.final_policy, gibbs(SCORES), atol=1e-9)
    end = play(PULLED, name, steps=200, start=START, beta=1.0, share=0.5).final_policy
    scores = fit_bradley_terry(PREFS * np.outer(end, end)).scores
    np.testing.assert_allclose(end, gibbs(scores, beta=1.0), atol=1e-9)


def reward_optimum(name):
    """Plain ascent of the exact gradient; the trainers are tested to reach the same point."""
    logits, reward = np.log(START), np.array([1.0, 0.2, -0.5])
    for _ in range(20_000):
        logits = logits - np.log(np.exp(logits).sum())
        logits = logits + 5.0 * exact_reward_gradient(logits, np.log(REF), reward, BETA)
    goal = np.exp(regularised_optimum(np.log(REF), reward, BETA))
    np.testing.assert_allclose(np.exp(logits), goal, atol=1e-6)


LIMITS = {
    "sppo": average_of_self_play,
    "sppo-constant": nothing_promised,
    "mwu": average_of_self_play,
    "omwu": last_policy,
    "omwu-two-sequence": last_policy,
    "omwu-extragradient": last_policy,
    "ogda": last_policy,
    "onpo": last_policy,
    "omd": regularised,
    "online-ipo-1": regularised,
    "inpo": regularised,
    "nash-md": falling_steps,
    "mmd": regularised,
    "mpo": moving_reference,
    "egpo": regularised,
    "comal": moving_reference,
    "self-play-pg": regularised,
    "online-ipo-2": regularised,
    "nash-md-pg": against_the_mixture,
    "stackelberg-gda": leader,
    "stackelberg-mirror": leader,
    "slhf": leader,
    "sta-naive": fit_and_improve,
    "sta-total": stationary_through_the_fit,
    "rlhf": fitted_once,
    "dpo": rlhf_of_its_pairs,
    "ipo": best_response_to_its_pairs,
    "iterated-dpo": favourite_or_a_circle,
    "iterated-ipo": average_of_iterated_ipo,
    "online-dpo": rlhf_or_its_own_fixed_point,
    "reinforce": reward_optimum,
    "rloo": reward_optimum,
    "ppo": reward_optimum,
}
"""What `converges_to` says of each verified method, as a check."""


def test_what_is_called_verified_has_its_promise_checked():
    verified = {name for name, m in METHODS.items() if m.maturity == "verified"}
    assert verified == set(LIMITS)
    assert {m.maturity for m in METHODS.values()} == {"verified", "lightly tested"}


@pytest.mark.parametrize("name", LIMITS)
def test_promise(name):
    LIMITS[name](name)


def test_every_rule_is_a_method():
    rules = {**RULES, **REWARD_RULES}
    assert list(METHODS) == list(rules)
    for name, method in METHODS.items():
        assert method.name == name
        assert method.title == rules[name].title
        assert method.converges_to == rules[name].converges_to
        assert method.paper
        assert method.game


def test_methods_play_where_they_say():
    closings = (Closing.NORMALISE, Closing.GRADIENT)
    fitted = [n for n, r in MIRROR_RULES.items() if r.closing in closings]
    # The other forms of OMWU are OMWU; they are there to be compared on a matrix.
    fitted = [n for n in fitted if n not in ("omwu-two-sequence", "omwu-extragradient")]
    pairs = ["dpo", "ipo", "iterated-dpo", "iterated-ipo", "online-dpo"]
    assert sorted(TRAINED) == sorted([*fitted, *pairs, *REWARD_RULES, *REWARD_GAME_RULES, "slhf"])
    for method in METHODS.values():
        assert (MATRIX in method.plays) == (method.name in RULES)
        trained = method.name in TRAINED
        assert (LANGUAGE_MODEL in method.plays) == trained
        assert (method.trainer is not None) == trained
        assert (method.config is not None) == trained


@pytest.mark.parametrize("name", TRAINED)
def test_trained_methods_load(name):
    trainer, config = TRAINED[name].load()
    assert trainer.rule is {**RULES, **REWARD_RULES}[name]
    assert hasattr(config, "__dataclass_fields__")


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(TRAINED)))
def test_matrix_methods_say_how_to_play_them(name):
    with pytest.raises(ConfigError, match=rf"equilign play GAME --rules {name}\. .*by: sppo, "):
        METHODS[name].load()


def test_unknown_method():
    with pytest.raises(ConfigError, match=r"no method 'spo'; there are: comal, dpo, egpo, "):
        get_method("spo")
    assert get_method("ogda") is METHODS["ogda"]


def test_the_table_is_cheap():
    code = (
        "import sys, equilign.methods\n"
        "heavy = {'torch', 'transformers', 'numba', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_json_has_every_field(capsys):
    assert _exit_code(["methods", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["methods"]
    assert list(found) == list(METHODS)
    assert found["sppo"]["plays"] == ["matrix", "language model"]
    assert found["omwu"]["trainer"] == "equilign.trainers.mirror_family:OMWUTrainer"
    assert found["ogda"]["trainer"] is None
    assert found["rloo"]["plays"] == ["language model"]
    wanted = {"name", "title", "game", "paper", "converges_to", "maturity", "plays", "trainer"}
    assert all(wanted <= set(m) for m in found.values())


@pytest.mark.parametrize("width", [80, 130])
def test_tables_fit_the_terminal(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert _exit_code(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= width
    words = " ".join(lines).split()
    for method in METHODS.values():
        assert method.name in words, "cut or wrapped"
        assert method.paper in words
    assert "…" not in "".join(lines)
    # Every word of every cell is there, wherever it was wrapped.
    for method in METHODS.values():
        for word in f"{method.converges_to} {method.maturity} {method.game}".split():
            assert word.capitalize() in words or word in words
