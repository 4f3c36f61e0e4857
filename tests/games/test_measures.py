"""The measures against brute force, closed forms and equilibria that are known exactly.

Every other test of a solver or of a trainer trusts these numbers, so each is pinned from both
sides: at an equilibrium it is zero, away from it it has the value that arithmetic gives.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, root
from scipy.special import logsumexp, softmax, xlogy

from equilign.errors import PolicyError
from equilign.games import (
    CycleReport,
    PreferenceGame,
    condorcet_winner,
    cycle_report,
    cyclic_triples,
    duality_gap,
    exploitability,
    has_cycle,
)
from tests.enumerable import random_prefs

SEEDED = settings(derandomize=True, deadline=None)

ROCK_PAPER_SCISSORS = np.array([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
# P(b > a) = P(c > b) = 0.9, P(a > c) = 0.8: the example of arXiv:2410.23223.
COMAL = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]])
CONDORCET = np.array([[0.5, 0.6, 0.7], [0.4, 0.5, 0.8], [0.3, 0.2, 0.5]])
UNIFORM = np.ones(3) / 3


def policies(seed, size, count=1):
    return np.random.default_rng(seed).dirichlet(np.ones(size), size=count)


def value(game, x, y):
    """What the first player gets for ``x`` against ``y``, both paying for leaving ``ref``."""
    kl = [float((xlogy(p, p) - xlogy(p, game.ref)).sum()) for p in (x, y)]
    return x @ game.prefs @ y - game.beta * kl[0] + game.beta * kl[1]


def textbook(game, policy):
    """beta logsumexp(log ref + P pi / beta) + beta KL(pi || ref) - 1/2."""
    kl = (xlogy(policy, policy) - xlogy(policy, game.ref)).sum()
    top = logsumexp(np.log(game.ref) + game.prefs @ policy / game.beta)
    return game.beta * (top + kl) - 0.5


# -- without regularisation ---------------------------------------------------------------


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 7))
def test_unregularised_gap_is_the_best_pure_reply(seed, size):
    prefs = random_prefs(seed, size)
    policy = policies(seed, size)[0]
    best = max(sum(prefs[i, j] * policy[j] for j in range(size)) for i in range(size))
    worst = min(sum(policy[i] * prefs[i, j] for i in range(size)) for j in range(size))
    game = PreferenceGame(prefs)
    assert exploitability(game, policy) == pytest.approx(best - 0.5, abs=1e-12)
    assert duality_gap(game, policy) == pytest.approx(best - worst, abs=1e-12)


@pytest.mark.parametrize(
    ("prefs", "policy", "gap"),
    [
        (ROCK_PAPER_SCISSORS, UNIFORM, 0.0),
        (ROCK_PAPER_SCISSORS, [1.0, 0.0, 0.0], 1.0),
        (ROCK_PAPER_SCISSORS, [0.5, 0.25, 0.25], 0.25),
        (COMAL, np.array([4, 3, 4]) / 11, 0.0),
        (COMAL, UNIFORM, 1 / 15),
        (CONDORCET, [1.0, 0.0, 0.0], 0.0),
        (CONDORCET, UNIFORM, 0.2),
        (np.array([[0.5]]), [1.0], 0.0),
    ],
)
def test_known_gaps(prefs, policy, gap):
    assert duality_gap(PreferenceGame(prefs), np.array(policy)) == pytest.approx(gap, abs=1e-15)


def test_the_gap_is_never_below_zero_by_rounding():
    """At an equilibrium best - 1/2 may round to -1e-17."""
    for seed in range(200):
        prefs = random_prefs(seed, 3)
        a, b, c = prefs[0, 1] - 0.5, prefs[1, 2] - 0.5, prefs[2, 0] - 0.5
        if min(a, b, c) > 0 or max(a, b, c) < 0:  # a cycle: the equilibrium is interior
            equilibrium = np.array([b, c, a]) / (a + b + c)
            assert 0.0 <= exploitability(PreferenceGame(prefs), equilibrium) < 1e-15


# -- with regularisation ------------------------------------------------------------------


@SEEDED
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 7),
    beta=st.floats(0.02, 20.0),
)
def test_regularised_gap_is_the_textbook_form(seed, size, beta):
    ref, policy = policies(seed, size, 2)
    game = PreferenceGame(random_prefs(seed, size), ref, beta)
    assert exploitability(game, policy) == pytest.approx(textbook(game, policy), abs=1e-11)


@pytest.mark.parametrize("beta", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_reply_does_better_than_the_exploitability_says(seed, beta):
    """Brute force: the best of a numerical optimiser and of many random replies."""
    ref, policy = policies(seed, 4, 2)
    game = PreferenceGame(random_prefs(seed, 4), ref, beta)
    claimed = exploitability(game, policy)
    found = minimize(
        lambda z: -value(game, softmax(z), policy), np.zeros(4), method="BFGS", tol=1e-10
    )
    assert -found.fun - 0.5 == pytest.approx(claimed, abs=1e-8)
    for reply in policies(seed + 1, 4, 500):
        assert value(game, reply, policy) - 0.5 <= claimed + 1e-12


@pytest.mark.parametrize("beta", [0.05, 0.3, 2.0])
def test_both_players_together_gain_the_duality_gap(beta):
    ref, policy = policies(5, 4, 2)
    game = PreferenceGame(random_prefs(5, 4), ref, beta)
    best = softmax(np.log(ref) + game.prefs @ policy / beta)
    gap = value(game, best, policy) - value(game, policy, best)
    assert duality_gap(game, policy) == pytest.approx(gap, abs=1e-12)
    assert gap > 0.01, "the test needs a policy away from the equilibrium"


@pytest.mark.parametrize(
    ("prefs", "ref", "beta", "equilibrium"),
    [
        # With this reference the orientation of the three signs matters: hence the transpose.
        (ROCK_PAPER_SCISSORS.T, (0.6, 0.3, 0.1), 1.0, (0.6416, 0.2344, 0.1240)),
        (ROCK_PAPER_SCISSORS.T, (0.6, 0.3, 0.1), 0.1, (0.4321, 0.2303, 0.3376)),
        (ROCK_PAPER_SCISSORS.T, (0.6, 0.3, 0.1), 0.01, (0.3410, 0.3215, 0.3376)),
        (COMAL, UNIFORM, 1.0, (0.3240, 0.3306, 0.3453)),
        (COMAL, UNIFORM, 0.1, (0.3371, 0.2835, 0.3794)),
        (COMAL, UNIFORM, 0.01, (0.3610, 0.2729, 0.3662)),
    ],
)
def test_known_regularised_equilibria(prefs, ref, beta, equilibrium):
    """The fixed point of pi = ref exp(P pi / beta) / Z, printed to four digits, has gap zero.

    Two-sided: the rounded point itself has a small positive gap, a point 0.05 away a large one.
    """
    game = PreferenceGame(prefs, np.array(ref), beta)
    policy = np.array(equilibrium) / sum(equilibrium)
    near = duality_gap(game, policy)

    def residual(logits):
        x = softmax(logits)
        target = np.log(game.ref) + game.prefs @ x / beta
        return beta * (logits - logits.mean() - (target - target.mean()))

    found = root(residual, np.log(policy), tol=1e-13)
    policy = softmax(found.x)
    np.testing.assert_allclose(policy, equilibrium, atol=6e-5)
    assert 0.0 <= duality_gap(game, policy) < 1e-14
    assert 0.0 < near < 1e-4
    assert duality_gap(game, policy + np.array([0.05, -0.05, 0.0])) > 20 * near


@pytest.mark.parametrize("beta", [0.01, 1.0, 100.0])
def test_rock_paper_scissors_with_a_uniform_reference_stays_uniform(beta):
    game = PreferenceGame(ROCK_PAPER_SCISSORS, beta=beta)
    assert duality_gap(game, UNIFORM) == pytest.approx(0.0, abs=1e-15)
    assert duality_gap(game, np.array([0.4, 0.3, 0.3])) > 1e-3


@pytest.mark.parametrize("p", [0.05, 0.5, 0.8])
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_two_responses_have_a_closed_form(p, beta):
    """Log-odds of the equilibrium = log-odds of the reference + (p - 1/2) / beta."""
    game = PreferenceGame(np.array([[0.5, p], [1 - p, 0.5]]), np.array([0.3, 0.7]), beta)
    odds = 0.3 / 0.7 * np.exp((p - 0.5) / beta)
    equilibrium = np.array([odds, 1.0]) / (1.0 + odds)
    assert exploitability(game, equilibrium) == pytest.approx(0.0, abs=1e-15)
    assert exploitability(game, equilibrium + np.array([0.01, -0.01])) > 1e-5


def test_close_to_the_equilibrium_no_digits_are_lost():
    """The textbook form loses everything below 1e-16; here the gap is of second order exactly."""
    game = PreferenceGame(ROCK_PAPER_SCISSORS, beta=1.0)
    shift = np.array([1.0, -1.0, 0.0])
    step = 1e-9
    gap = exploitability(game, UNIFORM + step * shift)
    # d = log(policy) - log(best) = step * (3 shift - A shift), gap = sum(pi d^2) / 2 for small d.
    d = step * (3.0 * shift - (ROCK_PAPER_SCISSORS - 0.5) @ shift)
    d -= d.mean()
    assert gap == pytest.approx((UNIFORM * d * d).sum() / 2, rel=1e-6, abs=0)


@pytest.mark.parametrize("policy", [[1.0, 0.0, 0.0], [0.0, 0.4, 0.6], [1e-8, 0.4, 0.6 - 1e-8]])
@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_zeros_and_small_numbers_in_the_policy(policy, beta):
    game = PreferenceGame(COMAL, np.array([0.2, 0.5, 0.3]), beta)
    got = exploitability(game, np.array(policy))
    assert got == pytest.approx(textbook(game, np.array(policy)), abs=1e-12)
    assert got > 0.01


@pytest.mark.parametrize("tiny", [1e-12, 1e-300, 1e-310, 5e-324])
@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_almost_zero_is_as_good_as_zero(tiny, beta):
    """Probabilities of a long run underflow into the subnormal numbers before they are 0."""
    game = PreferenceGame(COMAL, np.array([0.2, 0.5, 0.3]), beta)
    exact = exploitability(game, np.array([0.0, 0.4, 0.6]))
    assert exploitability(game, np.array([tiny, 0.4, 0.6])) == pytest.approx(exact, abs=1e-10)


def test_zeros_in_the_reference():
    """Whoever plays what the reference never plays pays without end; nobody else notices."""
    ref = np.array([0.0, 0.4, 0.6])
    game = PreferenceGame(COMAL, ref, 0.5)
    assert exploitability(game, np.array([0.1, 0.4, 0.5])) == np.inf
    smaller = PreferenceGame(COMAL[1:, 1:], ref[1:], 0.5)
    policy = np.array([0.0, 0.7, 0.3])
    assert exploitability(game, policy) == pytest.approx(exploitability(smaller, policy[1:]))


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(2, 6))
def test_small_beta_tends_to_the_unregularised_gap(seed, size):
    """From below by at most beta log n, from above by at most beta KL(policy || ref)."""
    prefs, policy = random_prefs(seed, size), policies(seed, size)[0]
    plain = exploitability(PreferenceGame(prefs), policy)
    for beta in (1e-2, 1e-4, 1e-8, 1e-12):
        gap = exploitability(PreferenceGame(prefs, beta=beta), policy)
        assert abs(gap - plain) <= beta * np.log(size) + 1e-12


def test_large_beta_leaves_only_the_distance_to_the_reference():
    game = PreferenceGame(COMAL, np.array([0.2, 0.5, 0.3]), 1e6)
    policy = np.array([0.3, 0.4, 0.3])
    kl = (policy * np.log(policy / game.ref)).sum()
    assert exploitability(game, policy) / 1e6 == pytest.approx(kl, rel=1e-5)


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 6), beta=st.sampled_from([0.0, 0.1, 1.0]))
def test_names_do_not_matter(seed, size, beta):
    prefs = random_prefs(seed, size)
    ref, policy = policies(seed, size, 2)
    order = np.random.default_rng(seed).permutation(size)
    gap = exploitability(PreferenceGame(prefs, ref, beta), policy)
    moved = PreferenceGame(prefs[np.ix_(order, order)], ref[order], beta)
    assert exploitability(moved, policy[order]) == pytest.approx(gap, abs=1e-12)
    assert gap >= 0.0


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_what_is_no_policy_is_refused(beta):
    game = PreferenceGame(COMAL, beta=beta)
    for measure in (exploitability, duality_gap):
        with pytest.raises(PolicyError, match="sums to 2"):
            measure(game, np.array([1.0, 1.0, 0.0]))
        with pytest.raises(PolicyError, match=r"policy\[1\] = -0.5"):
            measure(game, np.array([1.0, -0.5, 0.5]))


# -- batches and logarithms ---------------------------------------------------------------


@pytest.mark.parametrize("measure", [exploitability, duality_gap])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("beta", [0.0, 0.05, 2.0])
@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_is_a_loop_of_games(measure, dtype, beta, shared):
    prefs = np.stack([random_prefs(seed, 5) for seed in range(30)]).astype(dtype)
    ref, policy = policies(0, 5, 30), policies(1, 5, 30)
    policy[3] = np.eye(5)[2]
    game = PreferenceGame(prefs, ref[0] if shared else ref, beta)
    gaps = measure(game, policy)
    assert gaps.shape == (30,)
    for x in range(30):
        alone = PreferenceGame(prefs[x].astype(np.float64), ref[0 if shared else x], beta)
        assert isinstance(measure(alone, policy[x]), float)
        assert gaps[x] == pytest.approx(measure(alone, policy[x]), rel=1e-12, abs=1e-16)


@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_a_mask_is_a_smaller_game(beta):
    rng = np.random.default_rng(0)
    prefs = np.stack([random_prefs(seed, 5) for seed in range(20)])
    mask = rng.random((20, 5)) < 0.6
    mask[:, 4] |= ~mask.any(axis=1)
    weights = rng.random((2, 20, 5)) * mask
    ref, policy = weights / weights.sum(axis=2, keepdims=True)
    ref[5], policy[5] = policy[5], ref[5] * 0.0 + mask[5] * (np.arange(5) == mask[5].argmax())
    prefs[~mask] = np.nan
    prefs.swapaxes(1, 2)[~mask] = np.nan
    game = PreferenceGame(prefs, ref, beta, mask)
    gaps = duality_gap(game, policy)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(duality_gap(game, log_policy=np.log(policy)), gaps, atol=1e-14)
    for x in range(20):
        assert gaps[x] == pytest.approx(duality_gap(game[x], policy[x, mask[x]]), abs=1e-14)


def test_a_large_batch_is_looked_at_in_pieces():
    """More than one piece of 32 MB, and never all of it in float64."""
    import tracemalloc

    prefs = np.stack([random_prefs(seed, 64) for seed in range(4)] * 600).astype(np.float32)
    game = PreferenceGame(prefs)
    policy = policies(0, 64, 2400)
    gaps = exploitability(game, policy)
    tracemalloc.start()
    again = exploitability(game, policy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 2**25 < 2.2 * prefs.nbytes * 2
    np.testing.assert_array_equal(gaps, again)
    for x in (0, 1023, 1024, 2399):
        alone = PreferenceGame(prefs[x].astype(np.float64))
        assert gaps[x] == pytest.approx(exploitability(alone, policy[x]), abs=1e-15)


@pytest.mark.parametrize("beta", [0.0, 0.05, 1.0])
def test_logarithms_say_the_same(beta):
    ref, policy = policies(3, 4, 2)
    game = PreferenceGame(random_prefs(3, 4), ref, beta)
    expected = exploitability(game, policy)
    assert exploitability(game, log_policy=np.log(policy)) == pytest.approx(expected, abs=1e-15)
    policy = np.array([0.0, 0.5, 0.5, 0.0])
    with np.errstate(divide="ignore"):
        logs = np.log(policy)
    assert exploitability(game, log_policy=logs) == pytest.approx(exploitability(game, policy))


def test_logarithms_below_underflow_are_at_the_equilibrium():
    """Win rate 0.1 against 0.9 at beta = 1e-3: log-odds -400 and -1e300 in the reference."""
    game = PreferenceGame(np.array([[0.5, 0.1], [0.9, 0.5]]), beta=5e-4)
    logs = np.array([-800.0, 0.0])
    assert np.exp(logs[0]) == 0.0
    assert exploitability(game, log_policy=logs) < 1e-300
    # Off by a factor e^790 where everything is tiny: still nothing to gain but e^-10 beta.
    off = exploitability(game, log_policy=np.array([-10.0, np.log1p(-np.exp(-10.0))]))
    assert off == pytest.approx(5e-4 * np.exp(-10.0) * 789, rel=1e-3)
    never = PreferenceGame(game.prefs, np.array([0.0, 1.0]), 5e-4)
    assert exploitability(never, log_policy=logs) == np.inf
    assert exploitability(never, log_policy=np.array([-np.inf, 0.0])) == 0.0


def test_small_margins_keep_their_digits():
    """1/2 + 1e-12 - 1/2 would leave four digits."""
    unit = 2.0**-40
    game = PreferenceGame(0.5 + unit * (ROCK_PAPER_SCISSORS - 0.5))
    gap = exploitability(game, np.array([0.5, 0.3, 0.2]))
    assert gap == pytest.approx(0.15 * unit, rel=1e-14, abs=0.0)


def test_exactly_one_kind_of_policy_is_needed():
    game = PreferenceGame(COMAL)
    with pytest.raises(PolicyError, match="either policy or log_policy"):
        exploitability(game)
    with pytest.raises(PolicyError, match="either policy or log_policy"):
        duality_gap(game, UNIFORM, log_policy=np.log(UNIFORM))
    for logs in ([np.nan, 0.0, 0.0], [1.0, -1.0, -1.0]):
        with pytest.raises(PolicyError, match="none above 0"):
            exploitability(game, log_policy=np.array(logs))
    with pytest.raises(PolicyError, match="sums to 3"):
        exploitability(game, log_policy=np.zeros(3))
    batch = PreferenceGame(COMAL[None])
    with pytest.raises(PolicyError, match="sums to 2"):
        exploitability(batch, np.array([[1.0, 1.0, 0.0]]))


# -- cycles -------------------------------------------------------------------------------


def some_prefs(size):
    """Games with ties and certain wins, not only generic ones."""
    pairs = size * (size - 1) // 2
    return st.lists(
        st.sampled_from([0.0, 0.3, 0.5, 0.5 + 1e-12, 0.8, 1.0]), min_size=pairs, max_size=pairs
    ).map(lambda draws: _matrix(size, draws))


def _matrix(size, draws):
    prefs = np.full((size, size), 0.5)
    for (i, j), p in zip(itertools.combinations(range(size), 2), draws, strict=True):
        prefs[i, j], prefs[j, i] = p, 1.0 - p
    return prefs


def has_cycle_by_force(prefs):
    return any(
        all(prefs[path[k], path[(k + 1) % length]] > 0.5 for k in range(length))
        for length in range(3, len(prefs) + 1)
        for path in itertools.permutations(range(len(prefs)), length)
    )


@settings(SEEDED, max_examples=150)
@given(prefs=st.integers(1, 5).flatmap(some_prefs))
def test_cycles_against_all_paths(prefs):
    assert has_cycle(prefs) == has_cycle_by_force(prefs)


@SEEDED
@given(prefs=st.integers(1, 6).flatmap(some_prefs))
def test_cyclic_triples_against_all_triples(prefs):
    beats = prefs > 0.5
    expected = sum(
        bool(
            (beats[a, b] and beats[b, c] and beats[c, a])
            or (beats[a, c] and beats[c, b] and beats[b, a])
        )
        for a, b, c in itertools.combinations(range(len(prefs)), 3)
    )
    assert cyclic_triples(prefs) == expected


@SEEDED
@given(prefs=st.integers(1, 6).flatmap(some_prefs))
def test_condorcet_winner_by_definition(prefs):
    size = len(prefs)
    winners = [i for i in range(size) if all(prefs[i, j] > 0.5 for j in range(size) if j != i)]
    assert condorcet_winner(prefs) == (winners[0] if winners else None)
    assert len(winners) <= 1


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(3, 7))
def test_without_ties_a_cycle_contains_a_cyclic_triple(seed, size):
    prefs = random_prefs(seed, size)
    assert has_cycle(prefs) == (cyclic_triples(prefs) > 0)


def test_with_ties_a_long_cycle_need_not_contain_a_triple():
    prefs = np.full((4, 4), 0.5)
    for i in range(4):
        prefs[i, (i + 1) % 4], prefs[(i + 1) % 4, i] = 0.9, 0.1
    assert has_cycle(prefs)
    assert cyclic_triples(prefs) == 0
    assert condorcet_winner(prefs) is None


def test_ties_are_neither_cycles_nor_wins():
    tie = np.full((3, 3), 0.5)
    assert not has_cycle(tie)
    assert cyclic_triples(tie) == 0
    assert condorcet_winner(tie) is None
    almost = CONDORCET.copy()
    almost[0, 1] = almost[1, 0] = 0.5
    assert condorcet_winner(almost) is None


def test_the_winner_may_stand_above_a_cycle():
    prefs = np.full((4, 4), 0.9)
    prefs[1:, 1:] = ROCK_PAPER_SCISSORS
    prefs[1:, 0], prefs[0, 0] = 0.1, 0.5
    assert condorcet_winner(prefs) == 0
    assert has_cycle(prefs)
    assert cyclic_triples(prefs) == 1


def test_prefs_are_left_alone():
    prefs = CONDORCET.copy()
    condorcet_winner(prefs), has_cycle(prefs), cyclic_triples(prefs)
    np.testing.assert_array_equal(prefs, CONDORCET)


def test_cycle_report_adds_up():
    pair = np.array([[0.5, 0.8], [0.2, 0.5]])
    four = np.full((4, 4), 0.5)
    one = np.array([[0.5]])
    five = _matrix(5, [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0])  # each beats the next two
    report = cycle_report([ROCK_PAPER_SCISSORS, COMAL, CONDORCET, pair, four, one, five])
    assert report == CycleReport(
        prompts=7, with_cycle=3, with_condorcet_winner=3, triples=17, cyclic_triples=7
    )
    assert cycle_report([]) == CycleReport(0, 0, 0, 0, 0)
