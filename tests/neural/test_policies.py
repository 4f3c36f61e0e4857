"""The policy classes: what they output, what is shared, what can be reached."""

import numpy as np
import pytest
import torch

from equilign.errors import ConfigError
from equilign.neural import MLPPolicy, TabularPolicy
from equilign.play import log_normalise


def test_a_table_is_its_softmax():
    logits = np.random.default_rng(0).normal(size=(3, 5))
    policy = TabularPolicy(logits)
    assert policy.shape == (3, 5)
    np.testing.assert_allclose(
        policy.log_policy(), [log_normalise(row) for row in logits], atol=1e-15
    )
    assert policy().requires_grad


def test_tiny_probabilities_survive():
    policy = TabularPolicy(np.array([[0.0, -2000.0, -1.0]]))
    assert policy.log_policy()[0, 1] == pytest.approx(-2000.0 - np.log(1 + np.exp(-1)))


@pytest.mark.parametrize("logits", [np.zeros(3), np.array([[0.0, np.inf]])])
def test_a_bad_table_is_refused(logits):
    with pytest.raises(ConfigError, match="logits of shape"):
        TabularPolicy(logits)


def test_the_network_is_two_hidden_layers_with_relu():
    policy = MLPPolicy(4, 7, seed=3)
    with torch.no_grad():
        x = policy.inputs[0]
        for i in range(2):
            x = (x @ policy.weights[i][0] + policy.biases[i][0]).clamp(min=0.0)
        by_hand = x @ policy.weights[2][0] + policy.biases[2][0]
        assert torch.allclose(policy.logits(), by_hand, atol=1e-14)
    sizes = [tuple(p.shape) for p in policy.parameters()]
    assert (1, 4, 10) in sizes
    assert (1, 10, 7) in sizes
    assert sum(p.numel() for p in policy.parameters()) == 40 + 2 * 110 + 77


def test_weights_are_xavier_normal_and_biases_zero():
    policy = MLPPolicy(2, 400, width=300)
    assert all(float(b.detach().abs().max()) == 0.0 for b in policy.biases)
    for weight in policy.weights:
        expected = np.sqrt(2.0 / (weight.shape[1] + weight.shape[2]))
        assert float(weight.detach().std()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("networks", "reached"), [(1, 4), (2, 2), (4, 1)])
def test_games_that_share_a_network_move_each_other(networks, reached):
    policy = MLPPolicy(4, 5, seed=1, networks=networks)
    before = policy.log_policy()
    policy()[0, 2].backward()
    with torch.no_grad():
        for p in policy.parameters():
            p -= 0.1 * p.grad
    moved = np.abs(policy.log_policy() - before).max(axis=1)
    assert (moved[:reached] > 1e-6).all()
    assert (moved[reached:] == 0.0).all()


def test_networks_can_start_the_same():
    logs = MLPPolicy(8, 5, seed=1, networks=4, starts=2).log_policy().reshape(4, 2, 5)
    np.testing.assert_array_equal(logs[0], logs[2])
    np.testing.assert_array_equal(logs[1], logs[3])
    assert np.abs(logs[0] - logs[1]).max() > 0.01
    assert np.abs(logs[0, 0] - logs[0, 1]).max() > 0.01
    other = MLPPolicy(8, 5, seed=1, networks=4).log_policy().reshape(4, 2, 5)
    assert np.abs(other[0] - other[2]).max() > 0.01


def test_the_seed_decides():
    same = MLPPolicy(2, 5, seed=1).log_policy()
    np.testing.assert_array_equal(same, MLPPolicy(2, 5, seed=1).log_policy())
    assert np.abs(same - MLPPolicy(2, 5, seed=2).log_policy()).max() > 0.01


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        MLPPolicy(0, 5)
    with pytest.raises(ConfigError, match="networks must divide games"):
        MLPPolicy(4, 5, networks=3)
    with pytest.raises(ConfigError, match="starts must divide networks"):
        MLPPolicy(4, 5, networks=4, starts=3)


def test_ten_games_of_a_hundred_can_be_fitted():
    """Width 10 and a bias: any logits of 10 games are within reach of the shared network."""
    torch.manual_seed(0)
    policy = MLPPolicy(10, 100, seed=0)
    rng = np.random.default_rng(0)
    target = torch.tensor(rng.normal(size=(10, 100))).log_softmax(dim=1)
    optimiser = torch.optim.Adam(policy.parameters(), lr=0.03)
    for _ in range(1200):
        optimiser.zero_grad()
        loss = (target.exp() * (target - policy())).sum(dim=1).mean()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 1e-2
