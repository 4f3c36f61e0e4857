"""The exact side of the scalar-reward baselines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equilign.errors import ConfigError
from equilign.rules import REWARD_RULES
from equilign.rules.reward_gradient import (
    exact_reward_gradient,
    regularised_optimum,
    regularised_value,
)


def draw(seed, size=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 1.0, (2, size))
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits[0], logits[1], rng.normal(0.0, 1.0, size)


def softmax(logits):
    return logits - np.log(np.exp(logits).sum())


@given(st.integers(0, 10_000), st.floats(0.05, 5.0))
def test_the_optimum_beats_every_other_policy(seed, beta):
    policy, ref, reward = draw(seed)
    best = regularised_optimum(ref, reward, beta)
    assert np.exp(best).sum() == pytest.approx(1.0)
    highest = regularised_value(best, ref, reward, beta)
    gap = highest - regularised_value(policy, ref, reward, beta)
    kl = float(np.exp(policy) @ (policy - best))
    assert gap == pytest.approx(beta * kl, abs=1e-9)  # the gap is exactly beta KL(pi || best)
    np.testing.assert_allclose(exact_reward_gradient(best, ref, reward, beta), 0.0, atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_gradient_is_that_of_the_value(beta):
    policy, ref, reward = draw(1)
    step = 1e-6 * np.eye(5)
    slope = [
        (
            regularised_value(softmax(policy + d), ref, reward, beta)
            - regularised_value(softmax(policy - d), ref, reward, beta)
        )
        / 2e-6
        for d in step
    ]
    np.testing.assert_allclose(exact_reward_gradient(policy, ref, reward, beta), slope, atol=1e-8)


def test_three_responses_by_hand():
    """r = (1, 0, -1), beta = 1/2, uniform reference: weights e^2, 1, e^-2."""
    found = np.exp(regularised_optimum(np.log(np.full(3, 1 / 3)), np.array([1.0, 0, -1]), 0.5))
    np.testing.assert_allclose(found, [0.8668, 0.1173, 0.0159], atol=5e-5)


def test_limits_of_the_kl_weight():
    _, ref, reward = draw(2)
    np.testing.assert_allclose(regularised_optimum(ref, reward, 1e9), ref, atol=1e-8)
    cold = np.exp(regularised_optimum(ref, reward, 1e-4))
    assert np.isfinite(cold).all()
    assert cold[reward.argmax()] == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="beta = 0"):
        regularised_optimum(ref, reward, 0.0)


def test_rules_by_name():
    assert list(REWARD_RULES) == ["reinforce", "rloo", "ppo"]
    for name, rule in REWARD_RULES.items():
        assert rule.name == name
        assert rule.title
        assert rule.paper
        assert rule.converges_to
