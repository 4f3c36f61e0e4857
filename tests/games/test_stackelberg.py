"""The sequential game against printed values, brute force, nested optimisers and its limits."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import softmax, xlogy

import equilign.games.stackelberg as module
from equilign.errors import ConfigError, PolicyError
from equilign.games import PreferenceGame
from equilign.games.stackelberg import (
    follower_policy,
    leader_values,
    refine,
    stackelberg,
    stackelberg_gap,
)

SEEDED = settings(derandomize=True, deadline=None, max_examples=40)
CYCLE = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])  # A > B > C > A
COMAL = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]])


def random_prefs(rng, *shape):
    lower = np.tril(rng.random((*shape, shape[-1])) - 0.5, -1)
    return 0.5 + lower - lower.swapaxes(-1, -2)


def random_game(seed, size, beta=0.2):
    rng = np.random.default_rng(seed)
    game = PreferenceGame(random_prefs(rng, size), rng.dirichlet(np.ones(size)), beta)
    return game, rng.dirichlet(np.ones(size), size)


def kl(p, q):
    return float((xlogy(p, p) - xlogy(p, q)).sum())


def objective(game, leader, follower, beta_follower, ref_follower):
    """The double sum of the definition."""
    total = -game.beta * kl(leader, game.ref)
    for y, z in itertools.product(range(game.size), repeat=2):
        total += leader[y] * follower[y, z] * game.prefs[y, z]
    for y in range(game.size):
        total += leader[y] * beta_follower * kl(follower[y], ref_follower[y])
    return total


# -- printed values -----------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "value"), [(1.0, 0.4474), (0.1, 0.208), (0.01, 0.111)])
def test_condorcet_cycle(beta, value):
    game = PreferenceGame(CYCLE, beta=beta)
    solution = stackelberg(game)
    np.testing.assert_allclose(solution.policy, 1 / 3, atol=1e-15)
    np.testing.assert_allclose(leader_values(game), value, atol=6e-4 if beta < 1 else 6e-5)
    assert solution.value == pytest.approx(leader_values(game)[0], abs=1e-15)
    assert solution.gap < 1e-15
    assert (solution.unique, solution.status) == (True, "optimal")
    if beta == 0.1:
        np.testing.assert_allclose(solution.follower[0], (0.018, 0.0003, 0.982), atol=6e-4)
        assert solution.follower[0, 1] == pytest.approx(0.000329, abs=1e-6)


def test_comal_game():
    game = PreferenceGame(COMAL, beta=0.1)
    np.testing.assert_allclose(leader_values(game), (0.208, 0.208, 0.305), atol=6e-4)
    np.testing.assert_allclose(stackelberg(game).policy, (0.216, 0.216, 0.569), atol=6e-4)
    limit = stackelberg(PreferenceGame(COMAL))
    np.testing.assert_array_equal(limit.policy, (0.0, 0.0, 1.0))
    np.testing.assert_allclose(leader_values(PreferenceGame(COMAL)), (0.1, 0.1, 0.2), atol=1e-15)
    assert limit.value == pytest.approx(0.2, abs=1e-15)
    assert limit.unique is True


def test_refinement_on_a_cycle_visits_all_three():
    """a -> c -> b -> a: a chain of three holds everybody's favourite."""
    solution = stackelberg(PreferenceGame(CYCLE))
    np.testing.assert_array_equal(solution.follower, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert solution.unique is False, "the leader is indifferent"
    for start in range(3):
        path = refine(np.eye(3)[start], solution.follower, rounds=4)
        visited = path.argmax(axis=1)
        assert sorted(visited[:3]) == [0, 1, 2]
        assert visited[3] == start
        for n, hit in ((1, 1 / 3), (2, 2 / 3), (3, 1.0)):
            favourites = np.ones(3) / 3
            assert favourites @ (path[:n].max(axis=0) == 1.0) == pytest.approx(hit)
    uniform = refine(solution.policy, solution.follower, rounds=5)
    np.testing.assert_allclose(uniform, 1 / 3)


# -- against brute force ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "beta", "beta_f"), [(0, 0.2, 0.2), (1, 0.05, 0.5), (2, 1.0, 0.02)]
)
def test_no_leader_does_better(seed, beta, beta_f):
    """20,000 random leaders; each meets the follower's optimal answers."""
    game, omega = random_game(seed, 5, beta)
    solution = stackelberg(game, beta_follower=beta_f, ref_follower=omega)
    values = leader_values(game, beta_follower=beta_f, ref_follower=omega)
    rng = np.random.default_rng(seed)
    leaders = rng.dirichlet(np.ones(5), 10_000)
    near = softmax(np.log(solution.policy) + 0.1 * rng.normal(size=(10_000, 5)), axis=1)
    for others in (leaders, near):
        kls = (xlogy(others, others) - xlogy(others, game.ref)).sum(axis=1)
        assert (others @ values - beta * kls).max() <= solution.value + 1e-13
    best = solution.policy @ values - beta * kl(solution.policy, game.ref)
    assert best == pytest.approx(solution.value, abs=1e-13)


@pytest.mark.parametrize(("seed", "beta", "beta_f"), [(0, 0.3, 0.3), (1, 0.1, 0.7), (2, 0.8, 0.1)])
def test_a_nested_optimiser_without_closed_forms_finds_the_same(seed, beta, beta_f):
    game, omega = random_game(seed, 3, beta)

    def answer(y):
        def cost(z):
            w = softmax(z)
            return w @ game.prefs[y] + beta_f * kl(w, omega[y])

        found = minimize(cost, np.zeros(3), method="L-BFGS-B", tol=1e-14)
        return found.fun, softmax(found.x)

    values, rows = zip(*(answer(y) for y in range(3)), strict=True)

    def loss(z):
        return -softmax(z) @ np.array(values) + beta * kl(softmax(z), game.ref)

    found = minimize(loss, np.zeros(3), method="L-BFGS-B", tol=1e-14)
    solution = stackelberg(game, beta_follower=beta_f, ref_follower=omega)
    assert solution.value == pytest.approx(-found.fun, abs=1e-8)
    np.testing.assert_allclose(solution.follower, rows, atol=1e-4)
    np.testing.assert_allclose(solution.policy, softmax(found.x), atol=1e-4)
    np.testing.assert_allclose(
        leader_values(game, beta_follower=beta_f, ref_follower=omega), values, atol=1e-8
    )


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 6), beta_f=st.floats(0.05, 3.0))
def test_value_and_gap_are_those_of_the_definition(seed, size, beta_f):
    game, omega = random_game(seed, size)
    solution = stackelberg(game, beta_follower=beta_f, ref_follower=omega)
    value = objective(game, solution.policy, solution.follower, beta_f, omega)
    assert solution.value == pytest.approx(value, abs=1e-12)
    rng = np.random.default_rng(seed + 1)
    leader, follower = rng.dirichlet(np.ones(size)), rng.dirichlet(np.ones(size), size)
    # What the leader lacks with an optimal answer, plus what the follower lacks to that answer.
    optimal = objective(game, leader, solution.follower, beta_f, omega)
    played = objective(game, leader, follower, beta_f, omega)
    options = {"beta_follower": beta_f, "ref_follower": omega}
    leaders_gap = stackelberg_gap(game, leader, **options)
    assert leaders_gap == pytest.approx(solution.value - optimal, abs=1e-12)
    assert leaders_gap == pytest.approx(game.beta * kl(leader, solution.policy), abs=1e-12)
    both = stackelberg_gap(game, leader, follower, **options)
    assert both - leaders_gap == pytest.approx(played - optimal, abs=1e-12)
    assert played >= optimal - 1e-12


# -- limits -------------------------------------------------------------------------------


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 6))
def test_without_weights_it_is_maximin(seed, size):
    prefs = random_prefs(np.random.default_rng(seed), size)
    solution = stackelberg(PreferenceGame(prefs))
    worst = prefs.min(axis=1)
    assert solution.value == worst.max()
    np.testing.assert_array_equal(solution.policy, np.eye(size)[worst.argmax()])
    np.testing.assert_array_equal(solution.follower, np.eye(size)[prefs.argmin(axis=1)])
    assert (solution.gap, solution.unique, solution.status) == (0.0, True, "optimal")
    assert not solution.notes


@pytest.mark.parametrize("beta", [1e-4, 1e-8, 1e-300])
def test_tiny_weights_neither_overflow_nor_differ_from_the_limit(beta):
    prefs = random_prefs(np.random.default_rng(3), 5)
    solution, limit = (
        stackelberg(PreferenceGame(prefs, beta=beta)),
        stackelberg(PreferenceGame(prefs)),
    )
    np.testing.assert_allclose(solution.policy, limit.policy, atol=1e-12)
    np.testing.assert_allclose(solution.follower, limit.follower, atol=1e-12)
    assert solution.value == pytest.approx(limit.value, abs=3 * beta * np.log(5) + 1e-15)
    assert 0.0 <= solution.gap < 1e-12
    batch = stackelberg(PreferenceGame(np.tile(prefs, (6000, 1, 1)), beta=beta), follower=False)
    np.testing.assert_allclose(batch.policy, np.tile(limit.policy, (6000, 1)), atol=1e-12)
    assert np.isfinite(batch.value).all()


def test_a_huge_follower_weight_leaves_its_reference():
    game, omega = random_game(4, 4)
    solution = stackelberg(game, beta_follower=1e9, ref_follower=omega)
    np.testing.assert_allclose(solution.follower, omega, atol=1e-8)
    np.testing.assert_allclose(
        leader_values(game, beta_follower=1e9, ref_follower=omega),
        (game.prefs * omega).sum(axis=1),
        atol=1e-6,
    )


def test_one_weight_zero_and_the_other_not():
    game, omega = random_game(5, 4, beta=0.3)
    soft_leader = stackelberg(game, beta_follower=0.0)
    want = game.ref * np.exp(game.prefs.min(axis=1) / 0.3)
    np.testing.assert_allclose(soft_leader.policy, want / want.sum(), atol=1e-13)
    assert soft_leader.unique is True
    hard_leader = stackelberg(
        PreferenceGame(game.prefs, game.ref), beta_follower=0.3, ref_follower=omega
    )
    values = leader_values(game, beta_follower=0.3, ref_follower=omega)
    np.testing.assert_array_equal(hard_leader.policy, np.eye(4)[values.argmax()])
    assert hard_leader.value == values.max()


def test_ties_are_split_and_said():
    """Two conquerors of `a` that are clones: the follower is indifferent, the leader is not."""
    prefs = np.full((4, 4), 0.5)
    prefs[0, 1], prefs[0, 2], prefs[0, 3] = 0.8, 0.45, 0.45
    prefs[1, 2], prefs[1, 3] = 0.9, 0.9
    prefs = np.triu(prefs, 1) + np.tril(1 - prefs.T, -1) + np.eye(4) / 2
    solution = stackelberg(PreferenceGame(prefs))
    np.testing.assert_array_equal(solution.policy, (1, 0, 0, 0))
    np.testing.assert_array_equal(solution.follower[0], (0, 0, 0.5, 0.5))
    assert (solution.unique, solution.status) == (False, "not unique")
    assert "follower has several best answers" in solution.notes[0]
    assert len(solution.notes) == 1
    everything = stackelberg(PreferenceGame(np.full((3, 3), 0.5)))
    np.testing.assert_allclose(everything.policy, 1 / 3)
    assert len(everything.notes) == 2
    assert everything.gap == 0.0


def test_a_leader_that_gives_something_away_has_a_gap():
    game = PreferenceGame(COMAL)
    assert stackelberg_gap(game, np.array([1.0, 0.0, 0.0])) == pytest.approx(0.1)
    assert stackelberg_gap(game, np.array([0.5, 0.0, 0.5])) == pytest.approx(0.05)
    lazy = np.eye(3)  # the follower repeats what it saw
    assert stackelberg_gap(game, np.array([0.0, 0.0, 1.0]), lazy) == pytest.approx(0.3)


# -- batches ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("betas", [(0.1, 0.3), (0.0, 0.3), (0.1, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_masked_batch_is_a_loop_over_its_games(betas, dtype, compiled, monkeypatch):
    if compiled:
        monkeypatch.setattr(module, "_COMPILED_FROM", 1)
    rng = np.random.default_rng(0)
    prefs = random_prefs(rng, 20, 5).astype(dtype)
    mask = rng.random((20, 5)) < 0.7
    mask[:, 1] = True
    hidden = prefs.copy()
    hidden[~(mask[:, :, None] & mask[:, None, :])] = np.nan
    ref = rng.dirichlet(np.ones(5), 20)
    per_row = rng.dirichlet(np.ones(5), (20, 5))

    def onto(weights):
        kept = np.where(mask[:, None, :], weights, 0.0)
        return kept / kept.sum(axis=-1, keepdims=True)

    cases = [
        (PreferenceGame(prefs, ref[0], betas[0]), None),
        (PreferenceGame(prefs, ref, betas[0]), ref[1]),
        (PreferenceGame(prefs, ref, betas[0]), per_row[0]),
        (PreferenceGame(prefs, None, betas[0]), per_row),
        (PreferenceGame(hidden, None, betas[0], mask), None),
        (PreferenceGame(hidden, onto(ref[:, None])[:, 0], betas[0], mask), onto(per_row)),
    ]
    for batch, omega in cases:
        together = stackelberg(batch, beta_follower=betas[1], ref_follower=omega)
        short = stackelberg(batch, beta_follower=betas[1], ref_follower=omega, follower=False)
        np.testing.assert_array_equal(short.policy, together.policy)
        assert short.follower is None
        np.testing.assert_allclose(together.policy.sum(axis=1), 1.0)
        if batch.mask is not None:
            assert (together.policy[~mask] == 0.0).all()
            values = leader_values(batch, beta_follower=betas[1], ref_follower=omega)
            assert (values[~mask] == 0.5).all()
        for x in range(20):
            keep = np.arange(5) if batch.mask is None else np.flatnonzero(mask[x])
            rows = omega
            if omega is not None:
                rows = omega[x] if omega.ndim == 3 else omega
                rows = rows[np.ix_(keep, keep)] if rows.ndim == 2 else rows[keep]
            one = stackelberg(batch[x], beta_follower=betas[1], ref_follower=rows)
            np.testing.assert_allclose(together.policy[x, keep], one.policy, atol=1e-12)
            np.testing.assert_allclose(
                together.follower[x][np.ix_(keep, keep)], one.follower, atol=1e-12
            )
            assert together.value[x] == pytest.approx(one.value, abs=1e-12)
            assert together.gap[x] == pytest.approx(one.gap, abs=1e-12)
            assert together.unique[x] == one.unique


def test_the_compiled_path_serves_large_batches():
    """Same numbers as the plain one, and no table unless it is asked for."""
    rng = np.random.default_rng(1)
    game = PreferenceGame(random_prefs(rng, 3000, 8), rng.dirichlet(np.ones(8), 3000), beta=0.07)
    assert game.prefs.size >= module._COMPILED_FROM
    solution = stackelberg(game, follower=False)
    for x in (0, 1499, 2999):
        one = stackelberg(game[x])
        np.testing.assert_allclose(solution.policy[x], one.policy, rtol=1e-12)
        assert solution.value[x] == pytest.approx(one.value, rel=1e-13)
    assert 0.0 < solution.gap.max() < 1e-15, "measured, so rounding shows"
    assert solution.status == "optimal"
    worse = np.roll(solution.policy, 1, axis=1)
    gaps = stackelberg_gap(game, worse)
    assert gaps[7] == pytest.approx(stackelberg_gap(game[7], worse[7]), rel=1e-9)
    assert gaps.min() > 0.0


def test_zero_reference_probabilities():
    omega = np.array([0.0, 0.5, 0.5])
    game = PreferenceGame(CYCLE, np.array([0.5, 0.5, 0.0]), beta=0.1)
    solution = stackelberg(game, ref_follower=omega)
    assert solution.policy[2] == 0.0
    assert (solution.follower[:, 0] == 0.0).all()
    assert solution.gap < 1e-12
    # Against B the reply A is not available: the leader's B is worth what C and B leave it.
    want = -0.1 * np.log(0.5 * np.exp(-0.5 / 0.1) + 0.5 * np.exp(-0.9 / 0.1))
    assert leader_values(game, ref_follower=omega)[1] == pytest.approx(want)
    assert stackelberg_gap(game, np.array([0.0, 0.5, 0.5])) == np.inf


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"beta_follower": -0.1}, ConfigError, "beta_follower = -0.1"),
        ({"beta_follower": np.nan}, ConfigError, "beta_follower = nan"),
        ({"ref_follower": np.ones(2) / 2}, PolicyError, r"shape \(2,\); needed: \(3,\), \(3, 3\)"),
        ({"ref_follower": np.ones((2, 3)) / 3}, PolicyError, r"shape \(2, 3\)"),
        ({"ref_follower": np.ones((1, 1, 1, 3)) / 3}, PolicyError, r"shape \(1, 1, 1, 3\)"),
        ({"ref_follower": np.ones(3)}, PolicyError, r"row \[0\] of ref_follower .* sums to 3"),
        (
            {"ref_follower": np.array([[1.0, 0, 0], [0, 2.0, -1.0], [0, 0, 1.0]])},
            PolicyError,
            r"row \[1\] of ref_follower is no distribution",
        ),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        stackelberg(PreferenceGame(CYCLE, beta=0.1), **options)


def test_bad_policies_are_named():
    game = PreferenceGame(CYCLE, beta=0.1)
    with pytest.raises(PolicyError, match=r"sums to 0\.9"):
        stackelberg_gap(game, np.array([0.3, 0.3, 0.3]))
    with pytest.raises(PolicyError, match=r"row \[2\] of follower"):
        stackelberg_gap(game, np.ones(3) / 3, np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0.5]]))
    with pytest.raises(ConfigError, match="rounds = 0"):
        refine(np.ones(3) / 3, np.eye(3), rounds=0)
    mask = np.array([[True, True, False]])
    masked = PreferenceGame(CYCLE[None], mask=mask, beta=0.1)
    with pytest.raises(PolicyError, match=r"row \[0, 0\] of ref_follower .* 0 where there is no"):
        stackelberg(masked, ref_follower=np.ones(3) / 3)


def test_follower_rows_are_gibbs_policies():
    game, omega = random_game(7, 4)
    rows = follower_policy(game, beta_follower=0.25, ref_follower=omega)
    want = omega * np.exp(game.prefs.T / 0.25)  # Pr(the answer beats the leader's)
    np.testing.assert_allclose(rows, want / want.sum(axis=1, keepdims=True), rtol=1e-12)
    default = follower_policy(game)
    want = game.ref * np.exp(-game.prefs / game.beta)
    np.testing.assert_allclose(default, want / want.sum(axis=1, keepdims=True), rtol=1e-12)
