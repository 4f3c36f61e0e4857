"""The compiled interpreter and the readable one are one rule; a batch is its games."""

from dataclasses import replace

import numpy as np
import pytest

from equilign.errors import ConfigError
from equilign.games import PreferenceGame, duality_gap
from equilign.play import exact_feedback, log_normalise, mirror_step, play, start_slots
from equilign.rules import MIRROR_RULES, Closing, MirrorRule, MirrorStage, Slot, Step
from tests.play.games import random_game, random_matrix

rules = pytest.mark.parametrize("name", MIRROR_RULES)
SOME = pytest.mark.parametrize("name", ["omwu", "onpo", "ogda", "nash-md", "comal", "nash-md-pg"])


def by_hand(rule, game, start, steps, step, schedule=None):
    """Policies 0 to ``steps`` by the readable interpreter."""
    reference = start if rule.moves_reference else np.log(game.reference)
    slots, policies = start_slots(start, reference), [np.exp(start)]
    for t in range(steps):
        now = step if schedule is None else Step(schedule(t), step.beta, step.mixture)
        slots = mirror_step(rule, slots, exact_feedback(game), now)
        if rule.moves_reference and (t + 1) % step.inner_steps == 0:
            slots[Slot.REFERENCE] = slots[Slot.CURRENT]
        policies.append(np.exp(slots[Slot.CURRENT]))
    return np.array(policies)


@rules
@pytest.mark.parametrize("size", [1, 2, 7, 33])
def test_every_rule_is_the_same_in_both_interpreters(name, size):
    game = random_game(size, size, beta=0.1)
    options = {"steps": 60, "eta": 0.7, "record": 1, "inner_steps": 7, "mixture": 0.3, "seed": 5}
    got = play(game, name, **options)
    assert got.status == "done"
    want = by_hand(MIRROR_RULES[name], game, got.log_policies[0], 60, Step(0.7, 0.1, 0.3, 7))
    np.testing.assert_allclose(np.exp(got.log_policies), want, atol=1e-11)
    np.testing.assert_allclose(got.final_policy, want[-1], atol=1e-11)
    np.testing.assert_allclose(got.average_policy, want[:-1].mean(axis=0), atol=1e-11)
    if size > 1:
        assert np.abs(want[-1] - want[0]).max() > 0.01, "nothing moved; the test is vacuous"


# Two stages, every slot, weights that all differ: nothing can be swapped unseen.
EVERYTHING = MirrorRule(
    "everything",
    "Everything",
    "",
    "",
    (
        MirrorStage(
            lambda s: {Slot.CURRENT: 0.5, Slot.BASE: 0.3, Slot.PREVIOUS: 0.1, Slot.REFERENCE: 0.1},
            lambda s: {
                Slot.CURRENT: 1.0,
                Slot.PREVIOUS: -0.4,
                Slot.MIXTURE: 0.3,
                Slot.REFERENCE: 0.2,
            },
            writes=Slot.BASE,
            mixture=lambda s: {Slot.CURRENT: 0.4, Slot.PREVIOUS: 0.3, Slot.BASE: 0.3},
        ),
        MirrorStage(
            lambda s: {Slot.CURRENT: 0.6, Slot.BASE: 0.2, Slot.PREVIOUS: 0.2},
            lambda s: {Slot.BASE: 0.8, Slot.PREVIOUS: -0.3, Slot.HALF: 0.5},
            writes=Slot.HALF,
        ),
        MirrorStage(
            lambda s: {Slot.CURRENT: 0.9, Slot.HALF: 0.3, Slot.REFERENCE: -0.2},
            lambda s: {Slot.HALF: 0.7, Slot.BASE: 0.3, Slot.MIXTURE: 0.2},
            mixture=lambda s: {Slot.HALF: s.mixture, Slot.REFERENCE: 1 - s.mixture},
        ),
    ),
    moves_reference=True,
)


# Every step writes HALF before anything reads it.
FIRST = MirrorStage(lambda s: {Slot.CURRENT: 1.0}, lambda s: {Slot.CURRENT: 0.3}, writes=Slot.HALF)


@pytest.mark.parametrize("closing", [Closing.NORMALISE, Closing.PROJECT, Closing.GRADIENT])
def test_every_slot_at_once(closing):
    rule = replace(EVERYTHING, stages=(FIRST, *EVERYTHING.stages), closing=closing)
    game = random_game(3, 9, beta=0.2)
    got = play(game, rule, steps=40, eta=0.2, record=1, inner_steps=6, mixture=0.35, seed=2)
    want = by_hand(rule, game, got.log_policies[0], 40, Step(0.2, 0.2, 0.35, 6))
    np.testing.assert_allclose(np.exp(got.log_policies), want, atol=1e-9)


def test_a_schedule_gives_every_step_its_own_weights():
    game = random_game(1, 6, beta=0.3)

    def schedule(t):
        return 2.0 / (0.3 * (t + 2.0))

    got = play(game, "nash-md", steps=5000, eta=schedule, record=1)
    want = by_hand(
        MIRROR_RULES["nash-md"], game, got.log_policies[0], 5000, Step(0.0, 0.3), schedule
    )
    np.testing.assert_allclose(np.exp(got.log_policies), want, atol=1e-11)
    assert got.options["eta"] == "schedule"


def test_long_runs_in_several_pieces_are_one_run():
    """More steps than the compiled loop takes at once, with a second sequence and a memory."""
    game = random_game(2, 5)
    for name in ("omwu", "onpo", "comal"):
        long = play(game, name, steps=9000, eta=0.3, record=[4095, 4096, 4097, 8192, 9000])
        short = play(game, name, steps=4097, eta=0.3, record=[4095, 4096, 4097])
        np.testing.assert_allclose(long.log_policies[:3], short.log_policies, rtol=1e-10)
        np.testing.assert_allclose(long.duality_gap[:3], short.duality_gap, rtol=1e-10)
        want = by_hand(
            MIRROR_RULES[name], game, play(game, name, steps=0).log_policies[0], 9000, Step(0.3)
        )
        np.testing.assert_allclose(np.exp(long.log_policies), want[long.steps], atol=1e-9)


@SOME
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_gaps_are_those_of_the_measure(name, beta):
    game = random_game(4, 8, beta)
    run = play(game, name, steps=50, eta=0.5, record=1)
    mean = np.exp(run.log_policies[0])
    for t in range(51):
        policy = np.exp(run.log_policies[t])
        assert run.duality_gap[t] == pytest.approx(
            duality_gap(game, policy / policy.sum()), rel=1e-6, abs=1e-13
        )
        assert run.average_duality_gap[t] == pytest.approx(duality_gap(game, mean), rel=1e-6)
        mean = (mean * t + policy) / (t + 1) if t else policy
    assert duality_gap(game, run.average_policy) == pytest.approx(
        run.average_duality_gap[-1], rel=1e-6
    )


@SOME
@pytest.mark.parametrize("size", [6, 30])
def test_a_batch_is_its_games(name, size):
    """Small games are played many at a time, larger ones one by one."""
    rng = np.random.default_rng(0)
    prefs = np.stack([random_matrix(s, size) for s in range(9)])
    batch = PreferenceGame(prefs, rng.dirichlet(np.ones(size), size=9), beta=0.05)
    start = rng.dirichlet(np.ones(size), size=9)
    run = play(batch, name, steps=70, eta=0.4, start=start, record=7)
    assert run.log_policies is None
    assert run.duality_gap.shape == (9, 11)
    for x in range(9):
        alone = play(batch[x], name, steps=70, eta=0.4, start=start[x], record=7)
        np.testing.assert_allclose(run.final_policy[x], alone.final_policy, atol=1e-12)
        np.testing.assert_allclose(run.average_policy[x], alone.average_policy, atol=1e-12)
        np.testing.assert_allclose(run.duality_gap[x], alone.duality_gap, atol=1e-12)
        np.testing.assert_allclose(
            run.average_duality_gap[x], alone.average_duality_gap, atol=1e-12
        )


@pytest.mark.parametrize("samples", [None, 5])
@pytest.mark.parametrize("name", ["omwu", "sppo-constant", "ogda"])
def test_a_mask_is_a_smaller_game(name, samples):
    rng = np.random.default_rng(1)
    mask = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 1, 1], [0, 0, 1, 0]], dtype=bool)
    prefs = np.stack([random_matrix(s, 4) for s in range(4)])
    prefs[~(mask[:, :, None] & mask[:, None, :])] = np.nan
    start = rng.random((4, 4)) * mask
    start /= start.sum(axis=1, keepdims=True)
    batch = PreferenceGame(prefs, mask=mask)
    run = play(batch, name, steps=30, eta=0.5, start=start, samples=samples)
    assert (run.final_policy[~mask] == 0.0).all()
    assert (run.average_policy[~mask] == 0.0).all()
    np.testing.assert_allclose(run.final_policy.sum(axis=1), 1.0)
    if samples is None:
        for x in range(4):
            alone = play(batch[x], name, steps=30, eta=0.5, start=start[x, mask[x]])
            np.testing.assert_allclose(run.final_policy[x, mask[x]], alone.final_policy, atol=1e-12)
            np.testing.assert_allclose(run.duality_gap[x], alone.duality_gap, atol=1e-12)


def test_float32_batches_are_played_in_float64_and_not_copied():
    prefs = np.stack([random_matrix(s, 8) for s in range(5)]).astype(np.float32)
    batch = PreferenceGame(prefs)
    assert batch.prefs is prefs
    run = play(batch, "ogda", steps=20_000, record=20_000, start="uniform")
    assert run.duality_gap[:, -1].max() < 1e-12, "rounding of prefs must not leave a floor"


def test_one_diverging_game_does_not_disturb_the_others():
    """Interleaved games share every loop; a number that is not finite must stay in its own."""
    prefs = np.stack([random_matrix(s, 4) for s in range(6)])
    ref = np.full((6, 4), 0.25)
    ref[3] = [1.0, 0.0, 0.0, 0.0]
    # Logits grow by -1.1 a step; those of game 3 start out at -1e250 and overflow first.
    batch = PreferenceGame(prefs, ref, beta=1.0)
    run = play(batch, "omd", steps=1600, eta=2.1, record=[40, 1600])
    assert run.status == "diverged"
    assert list(np.flatnonzero(run.diverged_at >= 0)) == [3]
    assert np.isnan(run.duality_gap[3, -1])
    for x in (0, 5):
        start = play(batch, "omd", steps=0, eta=1.0).final_policy[x]
        alone = play(batch[x], "omd", steps=40, eta=2.1, record=[40], start=start)
        np.testing.assert_allclose(run.duality_gap[x, :1], alone.duality_gap, rtol=1e-6)
        assert np.isfinite(run.duality_gap[x]).all()


def test_threads_do_not_change_results(monkeypatch):
    prefs = np.stack([random_matrix(s, 5) for s in range(40)])
    runs = []
    for threads in ("1", "3"):
        monkeypatch.setenv("EQUILIGN_THREADS", threads)
        runs.append(play(PreferenceGame(prefs), "omwu", steps=200, eta=0.5))
    np.testing.assert_allclose(runs[0].final_log_policy, runs[1].final_log_policy, rtol=1e-12)
    np.testing.assert_allclose(runs[0].duality_gap, runs[1].duality_gap, rtol=1e-12)


def test_progress_is_told_and_ends_at_the_total():
    told = []
    play(random_game(0, 4), "omwu", steps=9000, progress=lambda *a: told.append(a))
    assert told[-1] == (9000, 9000)
    assert len(told) >= 3
    told.clear()
    prefs = np.stack([random_matrix(s, 3) for s in range(200)])
    play(PreferenceGame(prefs), "omwu", steps=10, progress=lambda *a: told.append(a))
    assert told[-1] == (200, 200)


def test_responses_come_back_from_below_what_float64_can_hold():
    """exp(-800) is 0 in float64; its logarithm is not, and the game asks for the response again."""
    game = PreferenceGame(np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]]))
    start = log_normalise(np.array([0.0, -800.0, -1500.0]))
    slots, leaders = start_slots(start, start), []
    for _ in range(20_000):
        slots = mirror_step(MIRROR_RULES["omwu"], slots, exact_feedback(game), Step(1.0))
        leaders.append(int(slots[Slot.CURRENT].argmax()))
    assert set(leaders) == {0, 1, 2}
    assert np.isfinite(slots[Slot.CURRENT]).all()
    # The same through the compiled loop: MWU's cycles reach such depths from an ordinary start.
    run = play(game, "mwu", eta=100.0, steps=4000, record=1, seed=1)
    assert run.log_policies.min() < -750.0
    assert set(run.log_policies[3000:].argmax(axis=1)) == {0, 1, 2}


def test_a_diverging_run_stops_and_says_so():
    game = random_game(0, 5, beta=1.0)
    run = play(game, "omd", eta=50.0, steps=5000)
    assert run.status == "diverged"
    assert run.steps[-1] < 5000
    assert np.isfinite(run.duality_gap).all()
    assert np.isfinite(run.final_log_policy).all()
    prefs = np.stack([random_matrix(s, 5) for s in range(3)])
    batch = play(PreferenceGame(prefs, beta=1.0), "omd", eta=50.0, steps=5000)
    assert batch.status == "diverged"
    assert (batch.diverged_at > 0).all()
    assert np.isnan(batch.duality_gap[:, -1]).all()
    sampled = play(game, "omd", eta=50.0, steps=5000, samples=3)
    assert sampled.status == "diverged"


def test_mass_where_the_reference_has_none_is_infinitely_far():
    game = PreferenceGame(random_matrix(1, 3), np.array([0.5, 0.5, 0.0]), beta=0.1)
    for options in ({}, {"samples": 100}):
        run = play(game, "omd", steps=50, eta=1.0, **options)
        assert run.status == "done"
        assert run.duality_gap[0] == np.inf == duality_gap(game, np.exp(run.log_policies[0]))
        assert run.duality_gap[-1] < 0.1
        assert run.average_duality_gap[-1] == np.inf, "the start policy is in the mean"
    batch = play(PreferenceGame(game.prefs[None], game.ref, 0.1), "omd", steps=50, eta=1.0)
    assert batch.duality_gap[0, 0] == np.inf
    assert np.isfinite(batch.duality_gap[0, -1])


def test_tolerance_stops_at_the_first_recorded_step_that_reaches_it():
    game = random_game(0, 6, beta=0.1)
    full = play(game, "egpo", eta=1.0, steps=400, record=1)
    cut = play(game, "egpo", eta=1.0, steps=400, record=1, tolerance=1e-6)
    first = int(np.flatnonzero(full.duality_gap <= 1e-6)[0])
    assert cut.status == "converged"
    assert cut.steps[-1] == first < 400
    np.testing.assert_array_equal(cut.final_log_policy, cut.log_policies[-1])
    np.testing.assert_allclose(cut.log_policies[-1], full.log_policies[first], rtol=1e-12)
    assert play(game, "egpo", eta=1.0, steps=5, tolerance=1e-6).status == "done"
    with pytest.raises(ConfigError, match="tolerance stops one game"):
        play(PreferenceGame(game.prefs[None]), "egpo", steps=5, tolerance=1e-3)
