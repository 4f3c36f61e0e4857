"""The neural interpreter against the exact one, rule by rule, and its options."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import equilign.neural
from equilign.errors import ConfigError
from equilign.games import PreferenceGame, duality_gap
from equilign.neural import MLPPolicy, TabularPolicy, train_policy
from equilign.play import log_normalise, play
from equilign.rules import (
    COMAL,
    EGPO,
    MIRROR_RULES,
    MWU,
    NASH_MD,
    OMD,
    OMWU,
    OMWU_TWO_SEQUENCE,
    RULES,
    SPPO_CONSTANT,
    Closing,
    MirrorRule,
    MirrorStage,
    Slot,
)
from tests.enumerable import random_prefs

GAMES = np.stack([random_prefs(seed, 5) for seed in range(3)])
LOGITS = np.random.default_rng(0).normal(size=(3, 5))
START = np.exp([log_normalise(row) for row in LOGITS])
REF = np.random.default_rng(1).dirichlet(np.ones(5), size=3)
by_closing = {
    closing: [r for r in MIRROR_RULES.values() if r.closing == closing] for closing in Closing
}


def batch(beta=0.0):
    return PreferenceGame(GAMES, REF, beta)


def trained(rule, game=None, **options):
    policy = TabularPolicy(LOGITS)
    run = train_policy(policy, batch() if game is None else game, rule, **options)
    np.testing.assert_allclose(policy.log_policy(), run.final_log_policy, atol=1e-14)
    return run


def trained_apart(rule, **options):
    return train_policy(TabularPolicy(LOGITS), batch(), rule, **options)


def same_run(got, expected, atol):
    np.testing.assert_array_equal(got.steps, expected.steps)
    np.testing.assert_allclose(got.final_log_policy, expected.final_log_policy, atol=atol)
    np.testing.assert_allclose(got.average_policy, expected.average_policy, atol=atol)
    np.testing.assert_allclose(got.duality_gap, expected.duality_gap, atol=atol)
    np.testing.assert_allclose(got.average_duality_gap, expected.average_duality_gap, atol=atol)


@pytest.mark.parametrize("rule", by_closing[Closing.NORMALISE], ids=lambda r: r.name)
def test_a_table_with_uniform_pairs_plays_the_rule_exactly(rule):
    """Step n/4 on the pair loss: every sequence, mixture, half step and moving reference."""
    options = {"steps": 60, "eta": 1.3, "beta": 0.15, "inner_steps": 7}
    expected = play(batch(), rule, start=START, **options)
    got = trained(rule, **options)
    same_run(got, expected, 1e-10)
    assert got.rule == rule.name
    moved = np.abs(got.final_policy - START).max()
    assert moved > 0.05, "the test would pass without training"


@pytest.mark.parametrize("rule", by_closing[Closing.GRADIENT], ids=lambda r: r.name)
@pytest.mark.parametrize("loss", [None, "own-pairs"])
def test_policy_gradients_are_descent_on_the_divergence(rule, loss):
    options = {"steps": 60, "eta": 1.3, "beta": 0.15, "mixture": 0.3}
    expected = play(batch(), rule, start=START, **options)
    same_run(trained(rule, loss=loss, **options), expected, 1e-10)


def test_the_constant_of_sppo_is_fitted_by_its_own_regression():
    """Many gradient steps on each target end where the exact least-squares step does."""
    options = {"steps": 3, "eta": 1.5}
    expected = play(batch(), SPPO_CONSTANT, start=START, **options)
    got = trained(SPPO_CONSTANT, gradient_steps=1200, learning_rate=0.5, **options)
    plain = trained(MWU, **options)
    np.testing.assert_allclose(got.final_policy, expected.final_policy, atol=1e-7)
    assert np.abs(plain.final_policy - got.final_policy).max() > 1e-4


@pytest.mark.parametrize("loss", ["own-pairs", "pointwise", "kl"])
def test_every_loss_fitted_to_the_end_is_the_exact_step(loss):
    options = {"steps": 2, "eta": 0.8}
    expected = play(batch(), OMWU, start=START, **options)
    got = trained(OMWU, loss=loss, gradient_steps=800, **options)
    np.testing.assert_allclose(got.final_log_policy, expected.final_log_policy, atol=1e-6)


@pytest.mark.parametrize("loss", ["own-pairs", "pointwise", "kl"])
def test_losses_agree_to_first_order(loss):
    """One gradient step at the policy itself: the same policy gradient for all three."""
    options = {"steps": 1, "eta": 0.5}
    expected = trained(replace(MWU, closing=Closing.GRADIENT), **options)
    same_run(trained(MWU, loss=loss, **options), expected, 1e-12)


def test_no_rule_is_known_by_name():
    source = "".join(p.read_text() for p in Path(equilign.neural.__file__).parent.glob("*.py"))
    for name in RULES:
        assert f'"{name}"' not in source
    assert ".name ==" not in source
    assert ".title ==" not in source


def test_a_rule_that_is_not_shipped():
    """Three stages, a half step against a mixture that contains the previous policy."""
    rule = MirrorRule(
        name="strange",
        title="Strange",
        paper="none",
        converges_to="nothing",
        stages=(
            MirrorStage(
                anchor=lambda s: {Slot.CURRENT: 0.7, Slot.PREVIOUS: 0.3},
                payoff=lambda s: {Slot.MIXTURE: 1.0},
                writes=Slot.HALF,
                mixture=lambda s: {Slot.PREVIOUS: 0.5, Slot.REFERENCE: 0.5},
            ),
            MirrorStage(
                anchor=lambda s: {Slot.BASE: 0.9, Slot.HALF: 0.1},
                payoff=lambda s: {Slot.HALF: 1.5, Slot.REFERENCE: -0.5},
                writes=Slot.BASE,
            ),
            MirrorStage(
                anchor=lambda s: {Slot.CURRENT: 0.5, Slot.BASE: 0.5},
                payoff=lambda s: {Slot.HALF: 1.0},
            ),
        ),
    )
    options = {"steps": 40, "eta": 0.7}
    same_run(trained(rule, **options), play(batch(), rule, start=START, **options), 1e-10)


@pytest.mark.parametrize("rule", [EGPO, OMWU_TWO_SEQUENCE, NASH_MD, COMAL], ids=lambda r: r.name)
def test_networks_follow_the_rule_when_every_target_is_fitted(rule):
    """Adam, many steps per stage: parameters of half points and second sequences stay apart."""
    policy = MLPPolicy(3, 5, seed=0, networks=3)
    start = np.exp(policy.log_policy())
    options = {"steps": 3, "eta": 0.8, "beta": 0.2, "inner_steps": 2}
    run = train_policy(
        policy,
        batch(),
        rule,
        gradient_steps=250,
        optimiser="adam",
        learning_rate=0.01,
        **options,
    )
    expected = play(batch(), rule, start=start, **options)
    np.testing.assert_allclose(run.final_policy, expected.final_policy, atol=2e-3)
    assert np.abs(run.final_policy - start).max() > 0.05


def contract(logits, target, share=0.5):
    """A gradient step with a part of the exact step's learning rate, on one game."""
    return logits + share * (target - log_normalise(logits))


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_half_fits_show_where_each_sequence_starts(steps):
    """With half the step nothing forgets its start: sequences go on, half points start anew."""
    game, eta, beta = PreferenceGame(GAMES[0], REF[0]), 1.3, 0.2
    options = {"steps": steps, "eta": eta, "beta": beta, "learning_rate": 5 / 8}

    def rates(logits):
        return eta * game.win_rates(np.exp(log_normalise(logits)))

    base = current = LOGITS[0]
    for _ in range(steps):
        payoff = rates(current)
        base = contract(base, log_normalise(base) + payoff)
        current = contract(current, log_normalise(base) + payoff)
    got = train_policy(TabularPolicy(LOGITS[:1]), game, OMWU_TWO_SEQUENCE, **options)
    np.testing.assert_allclose(got.final_log_policy, log_normalise(current), atol=1e-12)

    current, pull = LOGITS[0], eta * beta
    for _ in range(steps):
        anchor = (1.0 - pull) * log_normalise(current) + pull * np.log(REF[0])
        half = contract(current, anchor + rates(current))
        current = contract(current, anchor + rates(half))
    got = train_policy(TabularPolicy(LOGITS[:1]), game, EGPO, **options)
    np.testing.assert_allclose(got.final_log_policy, log_normalise(current), atol=1e-12)


def test_the_half_step_leaves_no_trace_in_the_optimiser():
    """With Adam a half step that leaked its moments would change the second stage's step."""
    first = MirrorStage(
        anchor=lambda s: {Slot.CURRENT: 1.0},
        payoff=lambda s: {Slot.REFERENCE: 5.0},
        writes=Slot.HALF,
    )
    detour = replace(MWU, stages=(first, *MWU.stages))
    options = {"steps": 20, "eta": 0.5, "optimiser": "adam", "learning_rate": 0.05}
    same_run(trained(detour, **options), trained(MWU, **options), 0.0)


def test_a_single_game_and_its_batch_of_one():
    one = train_policy(TabularPolicy(LOGITS[:1]), batch()[0], OMWU, steps=20, eta=1.0)
    many = trained(OMWU, steps=20, eta=1.0)
    assert one.duality_gap.shape == one.steps.shape
    np.testing.assert_allclose(one.duality_gap, many.duality_gap[0], atol=1e-14)
    np.testing.assert_allclose(one.final_policy, many.final_policy[0], atol=1e-14)


def test_gaps_are_those_of_the_game_and_of_the_rule():
    """A plain game and a rule with a pull: the true gap, and beside it the regularised one."""
    run = trained(EGPO, steps=30, eta=1.0, beta=0.3)
    for x in range(3):
        final = run.final_policy[x] / run.final_policy[x].sum()
        plain, pulled = PreferenceGame(GAMES[x]), PreferenceGame(GAMES[x], REF[x], 0.3)
        assert run.duality_gap[x, -1] == pytest.approx(duality_gap(plain, final), abs=1e-14)
        assert run.extra["regularised_gap"][x, -1] == pytest.approx(
            duality_gap(pulled, final), abs=1e-14
        )
    regularised = trained(EGPO, game=batch(0.3), steps=30, eta=1.0)
    np.testing.assert_allclose(
        regularised.duality_gap, run.extra["regularised_gap"], rtol=1e-9, atol=1e-15
    )
    assert "regularised_gap" not in trained(OMWU, steps=3, eta=1.0).extra


@pytest.mark.parametrize("loss", ["pairs", "own-pairs", "pointwise"])
def test_sampled_feedback_is_unbiased_and_repeatable(loss):
    """One small step from many samples is the exact step within noise; the seed decides it."""
    options = {"steps": 1, "eta": 1.0, "loss": loss}
    exact = trained(OMWU, **options).final_policy - START
    sampled = [
        trained(OMWU, samples=400_000, seed=seed, **options).final_policy - START
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(sampled[0], sampled[1])
    assert np.abs(sampled[0] - sampled[2]).max() > 0.0
    assert np.abs(exact).max() > 0.015
    np.testing.assert_allclose(sampled[0], exact, atol=0.003)


def test_sampled_verdicts_are_noisy():
    """Two samples per step: the policy jumps, unlike with exact expectations."""
    runs = [trained(MWU, steps=5, eta=0.5, samples=s) for s in (2, None)]
    assert np.abs(runs[0].final_policy - runs[1].final_policy).max() > 0.02


def test_a_diverging_run_stops_and_says_so():
    rates = np.array([1.25, 1e160, 1.25])
    options = {"steps": 50, "eta": 1.0, "beta": 0.1, "gradient_steps": 2}
    run = trained_apart(OMD, learning_rate=rates, **options)
    assert run.status == "diverged"
    assert run.diverged_at[1] > 0
    assert run.diverged_at[[0, 2]].tolist() == [-1, -1]
    assert np.isnan(run.duality_gap[1, -1])
    assert np.isnan(run.extra["regularised_gap"][1, -1])
    assert np.isfinite(run.final_log_policy).all()
    calm = trained(OMD, **options)
    np.testing.assert_allclose(run.duality_gap[[0, 2]], calm.duality_gap[[0, 2]], atol=1e-12)
    np.testing.assert_allclose(run.average_policy[[0, 2]], calm.average_policy[[0, 2]], atol=1e-12)


def test_a_learning_rate_per_game_is_a_run_each():
    rates = np.array([0.3, 1.0, 2.0])
    together = trained_apart(OMWU, learning_rate=rates, steps=30, eta=1.0)
    for x in range(3):
        alone = trained(OMWU, learning_rate=rates[x], steps=30, eta=1.0)
        np.testing.assert_allclose(together.duality_gap[x], alone.duality_gap[x], atol=1e-13)
    assert together.extra["learning_rate"].tolist() == rates.tolist()
    with pytest.raises(ConfigError, match="2 learning rates for 3 games"):
        trained(OMWU, learning_rate=rates[:2], steps=1)
    with pytest.raises(ConfigError, match="needs optimiser='sgd'"):
        trained(OMWU, learning_rate=rates, optimiser="adam", steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "no loss|loss = 'hinge'; there are: pairs"),
        ({"optimiser": "lion"}, "optimiser = 'lion'; there are: sgd, adam"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0"),
        ({"gradient_steps": 0}, "gradient_steps = 0"),
        ({"tolerance": 0.1}, "tolerance"),
        ({"start": "uniform"}, "starts where its parameters are"),
        ({"loss": "kl", "samples": 5}, "exact expectations"),
        ({"momentum": 0.9}, "no option 'momentum'"),
        ({"eta": -1.0}, "eta = -1.0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        trained(MWU, **{"steps": 2, "eta": 1.0, **options})


@pytest.mark.parametrize("rule", by_closing[Closing.PROJECT], ids=lambda r: r.name)
def test_projections_cannot_be_fitted(rule):
    with pytest.raises(ConfigError, match="Play it on the matrix"):
        trained(rule, steps=1)


def test_unsuited_losses_shapes_and_rules_are_refused():
    with pytest.raises(ConfigError, match="cannot be fitted by 'pairs'; by: kl, own-pairs"):
        trained(replace(MWU, closing=Closing.GRADIENT), loss="pairs", steps=1)
    with pytest.raises(ConfigError, match=r"shape \(3, 5\), the games are of \(1, 5\)"):
        train_policy(TabularPolicy(LOGITS), batch()[0], MWU)
    with pytest.raises(ConfigError, match="no mirror rule 'stackelberg-gda'"):
        trained("stackelberg-gda")
    masked = PreferenceGame(GAMES, mask=np.array([[True] * 5, [True] * 4 + [False], [True] * 5]))
    with pytest.raises(ConfigError, match="mask"):
        train_policy(TabularPolicy(LOGITS), masked, MWU)


def test_progress_is_told():
    told = []
    trained("mwu", steps=250, eta=0.1, progress=lambda done, total: told.append((done, total)))
    assert told == [(100, 250), (200, 250)]


def test_omwu_settles_and_mwu_does_not_on_a_network():
    """The paper's contrast on the smallest game: last-iterate gaps of two small networks."""
    game = PreferenceGame(np.array([[[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]]]))
    gaps = {}
    for rule in (OMWU, MWU):
        run = train_policy(
            MLPPolicy(1, 3, seed=1), game, rule, steps=1500, eta=0.3, learning_rate=0.2
        )
        gaps[rule.name] = run.duality_gap[0, -1]
    assert gaps["omwu"] < 0.05
    assert gaps["mwu"] > 0.1
    assert torch.get_default_dtype() == torch.float32, "nobody changed the global default"
