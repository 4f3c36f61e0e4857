"""The exact interpreter of mirror rules, and what every rule must keep."""

import ast
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import equilign
from equilign.errors import ConfigError
from equilign.games import PreferenceGame
from equilign.play import apply_stage, exact_feedback, log_normalise, mirror_step
from equilign.rules import MIRROR_RULES, RULES, Closing, MirrorRule, MirrorStage, Slot, Step
from tests.enumerable import random_prefs

SEEDED = settings(derandomize=True, deadline=None)

# A stage that uses every slot, with weights that all differ: nothing can be swapped unseen.
EVERYTHING = MirrorStage(
    anchor=lambda s: {
        Slot.CURRENT: 0.7 - s.eta * s.beta,
        Slot.PREVIOUS: 0.3,
        Slot.REFERENCE: s.eta * s.beta,
    },
    payoff=lambda s: {Slot.CURRENT: 2.0, Slot.PREVIOUS: -1.0, Slot.REFERENCE: 0.25},
)
STEP = Step(eta=1.5, beta=0.1)
rules = pytest.mark.parametrize("rule", MIRROR_RULES.values(), ids=MIRROR_RULES.keys())
NORMALISING = {k: r for k, r in MIRROR_RULES.items() if r.closing == Closing.NORMALISE}
normalising = pytest.mark.parametrize("rule", NORMALISING.values(), ids=NORMALISING.keys())


def slots(seed, size):
    draws = np.random.default_rng(seed).dirichlet(np.ones(size), size=len(Slot))
    return dict(zip(Slot, np.log(draws), strict=True))


# -- the interpreter ----------------------------------------------------------------------


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 6))
def test_one_stage_by_plain_arithmetic(seed, size):
    game, policies = PreferenceGame(random_prefs(seed, size)), slots(seed, size)
    q = {slot: [math.exp(x) for x in logs] for slot, logs in policies.items()}

    def rate(slot, i):
        return sum(game.prefs[i, j] * q[slot][j] for j in range(size))

    raised = [
        q[Slot.CURRENT][i] ** (0.7 - 0.15)
        * q[Slot.PREVIOUS][i] ** 0.3
        * q[Slot.REFERENCE][i] ** 0.15
        * math.exp(
            1.5
            * (2 * rate(Slot.CURRENT, i) - rate(Slot.PREVIOUS, i) + 0.25 * rate(Slot.REFERENCE, i))
        )
        for i in range(size)
    ]
    got = np.exp(apply_stage(EVERYTHING, policies, exact_feedback(game), STEP))
    np.testing.assert_allclose(got, np.array(raised) / sum(raised), atol=1e-13)


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(2, 6), eta=st.floats(0.05, 10.0))
def test_a_step_is_the_proximal_argmax(seed, size, eta):
    """KKT of max <pi, payoff> - KL(pi || anchor) / eta: the stationarity residual is flat."""
    game, policies = PreferenceGame(random_prefs(seed, size)), slots(seed, size)
    step = Step(eta, beta=0.05 / eta)
    new = apply_stage(EVERYTHING, policies, exact_feedback(game), step)
    anchor = sum(w * policies[s] for s, w in EVERYTHING.anchor(step).items())
    payoff = sum(w * game.prefs @ np.exp(policies[s]) for s, w in EVERYTHING.payoff(step).items())
    residual = new - log_normalise(anchor) - eta * payoff
    assert np.ptp(residual) < 1e-9
    best = np.exp(new) @ payoff - np.exp(new) @ (new - log_normalise(anchor)) / eta
    for other in np.random.default_rng(seed).dirichlet(np.ones(size), size=20):
        divergence = other @ (np.log(other) - log_normalise(anchor)) / eta
        assert other @ payoff - divergence <= best + 1e-9


def test_stages_are_applied_in_order_and_the_last_one_counts():
    game, policies = PreferenceGame(random_prefs(1, 4)), slots(1, 4)
    halved = MirrorStage(
        lambda s: {Slot.REFERENCE: 1.0}, lambda s: {Slot.CURRENT: 0.5}, writes=Slot.BASE
    )
    rule = MirrorRule("two", "Two", "", "", (halved, EVERYTHING))
    after = mirror_step(rule, policies, exact_feedback(game), STEP)
    got = after[Slot.CURRENT]
    np.testing.assert_array_equal(
        after[Slot.BASE], apply_stage(halved, policies, exact_feedback(game), STEP)
    )
    assert after[Slot.PREVIOUS] is policies[Slot.CURRENT]
    assert after[Slot.REFERENCE] is policies[Slot.REFERENCE]
    np.testing.assert_array_equal(
        got, apply_stage(EVERYTHING, policies, exact_feedback(game), STEP)
    )
    assert np.abs(got - apply_stage(halved, policies, exact_feedback(game), STEP)).max() > 0.1


def test_slots_are_those_with_a_weight():
    rule = MirrorRule(
        "test",
        "Test",
        "",
        "",
        (
            MirrorStage(
                anchor=lambda s: {Slot.CURRENT: 1 - s.beta, Slot.REFERENCE: s.beta},
                payoff=lambda s: {Slot.CURRENT: 1.0, Slot.PREVIOUS: 0.0},
                writes=Slot.HALF,
            ),
            MirrorStage(
                anchor=lambda s: {Slot.CURRENT: 1.0},
                payoff=lambda s: {Slot.PREVIOUS: -s.eta},
            ),
        ),
    )
    both, anchors = {Slot.CURRENT, Slot.PREVIOUS}, {Slot.CURRENT, Slot.REFERENCE}
    assert rule.slots(Step(eta=2.0, beta=0.1)) == (anchors, both)
    assert rule.slots(Step(eta=2.0, beta=0.0)) == ({Slot.CURRENT}, both)
    assert rule.slots(Step(eta=0.0, beta=0.0)) == ({Slot.CURRENT}, {Slot.CURRENT})


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ((Slot.HALF,), "the last stage must write current"),
        ((), "the last stage must write current"),
        ((Slot.CURRENT, Slot.CURRENT), "before the last one must write half or base"),
        ((Slot.REFERENCE, Slot.CURRENT), "before the last one must write half or base"),
    ],
)
def test_stages_write_what_the_interpreters_expect(written, message):
    stages = tuple(replace(EVERYTHING, writes=slot) for slot in written)
    with pytest.raises(ConfigError, match=message):
        MirrorRule("bad", "Bad", "", "", stages)


def test_slots_of_weight_zero_are_skipped():
    """0 * log 0 would be nan: a response that the reference never gives stays possible."""
    stage = MirrorStage(
        anchor=lambda s: {Slot.CURRENT: 1.0, Slot.REFERENCE: s.beta},
        payoff=lambda s: {Slot.CURRENT: 1.0, Slot.PREVIOUS: s.beta},
    )
    game = PreferenceGame(random_prefs(2, 3))
    current = np.log([0.2, 0.5, 0.3])
    with np.errstate(divide="ignore"):
        policies = {
            Slot.CURRENT: current,
            Slot.REFERENCE: np.log([0.0, 0.5, 0.5]),
            Slot.PREVIOUS: np.log([1.0, 0.0, 0.0]),
        }
    with_slots = apply_stage(stage, policies, exact_feedback(game), Step(eta=2.0, beta=0.0))
    alone = apply_stage(
        stage, {Slot.CURRENT: current}, exact_feedback(game), Step(eta=2.0, beta=0.0)
    )
    assert np.isfinite(with_slots).all()
    np.testing.assert_array_equal(with_slots, alone)


# -- what every rule must keep ------------------------------------------------------------


@rules
@SEEDED
@given(eta=st.floats(1e-3, 1e3), beta=st.floats(0.0, 10.0))
def test_anchors_sum_to_one(rule, eta, beta):
    for stage in rule.stages:
        weights = stage.anchor(Step(eta, beta))
        assert sum(weights.values()) == pytest.approx(1.0, abs=1e-9 * (1 + eta * beta))
        assert set(weights) <= set(Slot)
        assert set(stage.payoff(Step(eta, beta))) <= set(Slot)


@rules
@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 7), eta=st.floats(0.01, 20.0))
def test_names_of_responses_do_not_matter(rule, seed, size, eta):
    prefs, policies = random_prefs(seed, size), slots(seed, size)
    order = np.random.default_rng(seed).permutation(size)
    step = Step(eta, beta=0.5 / eta)
    new = mirror_step(rule, policies, exact_feedback(PreferenceGame(prefs)), step)[Slot.CURRENT]
    moved = mirror_step(
        rule,
        {slot: logs[order] for slot, logs in policies.items()},
        exact_feedback(PreferenceGame(prefs[np.ix_(order, order)])),
        step,
    )[Slot.CURRENT]
    np.testing.assert_allclose(np.exp(moved), np.exp(new[order]), atol=1e-10)
    assert np.exp(new).sum() == pytest.approx(1.0, abs=1e-12)


@normalising
@SEEDED
@given(
    seed=st.integers(0, 10_000),
    shifts=st.lists(st.floats(-50, 50), min_size=len(Slot), max_size=len(Slot)),
)
def test_how_anchors_are_normalised_does_not_matter(rule, seed, shifts):
    """Sequence log-probabilities are known up to a constant per prompt at best."""
    game, policies = PreferenceGame(random_prefs(seed, 4)), slots(seed, 4)
    step = Step(1.5, 0.2)
    for stage in rule.stages:
        weights = stage.anchor(step)
        plain = sum(w * policies[s] for s, w in weights.items())
        shifted = sum(
            w * (policies[s] + c) for (s, w), c in zip(weights.items(), shifts, strict=False)
        )
        np.testing.assert_allclose(log_normalise(shifted), log_normalise(plain), atol=1e-9)
        new = apply_stage(stage, policies, exact_feedback(game), step)
        assert np.exp(new).sum() == pytest.approx(1.0, abs=1e-12)


@normalising
@pytest.mark.parametrize("eta", [1e-3, 1.0, 1e5])
@pytest.mark.parametrize(
    "logits", [[0.0, -800.0, -5000.0], [1e6, 0.0, -1e6], [-1e8, -1e8 - 1.0, -1e8 - 2.0]]
)
def test_extreme_logits_stay_finite(rule, logits, eta):
    """Probabilities of exp(-800) are 0 in float64; their logarithms must not be."""
    current = log_normalise(np.array(logits))
    policies = dict.fromkeys(Slot, current)
    game = PreferenceGame(random_prefs(3, 3))
    step = Step(eta)
    new = mirror_step(rule, policies, exact_feedback(game), step)[Slot.CURRENT]
    assert np.isfinite(new).all()
    assert np.exp(new).sum() == pytest.approx(1.0, abs=1e-9)
    if len(rule.stages) > 1:
        return  # the second stage answers where the first one went
    rates = game.prefs @ np.exp(current)
    expected = np.diff(current) + eta * np.diff(rates)
    np.testing.assert_allclose(np.diff(new), expected, rtol=1e-9, atol=1e-6)


def test_long_runs_do_not_underflow():
    """In probability space rock-paper-scissors would stick at a vertex: 0 stays 0."""
    game = PreferenceGame(np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]))
    rule, current = MIRROR_RULES["sppo"], np.log([0.2, 0.5, 0.3])
    lowest, late_leaders = 0.0, set()
    for step in range(1000):
        now = mirror_step(rule, {Slot.CURRENT: current}, exact_feedback(game), Step(100.0))
        current = now[Slot.CURRENT]
        lowest = min(lowest, current.min())
        if step >= 800:
            late_leaders.add(int(current.argmax()))
    assert lowest < -750.0, "no probability underflowed; the test would be vacuous"
    assert np.isfinite(current).all()
    assert late_leaders == {0, 1, 2}


@SEEDED
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9))
def test_log_normalise(values):
    logits = np.array(values)
    got = log_normalise(logits)
    assert np.exp(got).sum() == pytest.approx(1.0, abs=1e-12)
    assert np.ptp(logits - got) < 1e-9


def test_log_normalise_keeps_minus_infinity():
    got = log_normalise(np.array([-np.inf, 0.0, math.log(3)]))
    np.testing.assert_allclose(np.exp(got), [0.0, 0.25, 0.75])
    assert got[0] == -np.inf


# -- the contract: a rule's name decides nothing ------------------------------------------


def decisions_on(names, source):
    """Line numbers where code branches on, or compares with, one of ``names``."""
    lines = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            parts = [node.test]
        elif isinstance(node, ast.comprehension):
            parts = node.ifs
        elif isinstance(node, ast.Compare | ast.MatchValue):
            parts = [node]
        else:
            continue
        for part in parts:
            for leaf in ast.walk(part):
                named = isinstance(leaf, ast.Constant) and leaf.value in names
                variable = isinstance(leaf, ast.Name) and leaf.id.lower() in names
                if named or variable:
                    lines.add(leaf.lineno)
    return lines


def test_no_code_decides_by_the_name_of_a_rule():
    """A new rule must need one file and one entry: whoever asks for a name breaks that."""
    package = Path(equilign.__file__).parent
    files = [
        path
        for path in sorted(package.rglob("*.py"))
        if path.parent != package / "rules"
        and path != package / "methods.py"
        # An experiment is about methods by name; it plays none of them itself.
        and package / "experiments" not in path.parents
    ]
    assert len(files) > 20
    found = {
        str(path.relative_to(package)): lines
        for path in files
        if (lines := decisions_on(set(RULES), path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "if name == 'sppo': pass",
        "x = 1 if method.name in ('sppo', 'other') else 2",
        "flag = rule.name != 'sppo'",
        "match name:\n  case 'sppo': pass",
        "y = [r for r in rules if 'sppo'.startswith(r)]",
        "if rule is SPPO: pass",
    ],
)
def test_the_contract_can_fail(source):
    assert decisions_on({"sppo"}, source)
    assert not decisions_on({"other rule"}, source)


def test_the_contract_lets_tables_and_calls_pass():
    assert not decisions_on({"sppo"}, "table = {'sppo': 1}\nrule = SPPO\ntrain(SPPO, 'sppo')")
