import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equilign.losses.judges import both_orders_loss, preference_loss, skew_margin


def one(value):
    return torch.tensor([value], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("margin", [-3.0, -0.2, 0.0, 1.7])
@pytest.mark.parametrize("prob", [0.0, 0.3, 0.5, 1.0])
def test_cross_entropy_with_a_soft_label(margin, prob):
    q = 1.0 / (1.0 + math.exp(-margin))
    expected = -prob * math.log(q) - (1.0 - prob) * math.log(1.0 - q)
    m = one(margin)
    loss = preference_loss(m, torch.tensor([prob], dtype=torch.float64))
    loss.sum().backward()
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert m.grad.item() == pytest.approx(q - prob, abs=1e-12)


def test_hard_label_is_minus_log_sigmoid_of_the_right_sign():
    loss = preference_loss(torch.tensor([2.0, -2.0]), torch.ones(2))
    torch.testing.assert_close(
        loss, torch.tensor([math.log1p(math.exp(-2)), math.log1p(math.exp(2))])
    )


def test_minimum_is_the_entropy_of_the_label():
    p = 0.8
    at = preference_loss(one(math.log(p / (1 - p))), torch.tensor([p], dtype=torch.float64)).item()
    assert at == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    for m in (-1.0, 0.0, 1.0, 3.0):
        assert preference_loss(one(m), torch.tensor([p], dtype=torch.float64)).item() > at


def test_saturated_margins_are_finite():
    m = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = preference_loss(m, torch.tensor([0.0, 1.0]))
    loss.sum().backward()
    assert loss.tolist() == [1e4, 1e4]
    assert m.grad.tolist() == [1.0, -1.0]


@given(st.floats(-20, 20), st.floats(0, 1))
def test_naming_the_answers_the_other_way_round_changes_nothing(margin, prob):
    p = torch.tensor([prob], dtype=torch.float64)
    left, right = preference_loss(one(margin), p), preference_loss(one(-margin), 1.0 - p)
    assert left.item() == pytest.approx(right.item(), abs=1e-9)


def test_both_orders():
    """A judge that always says "the first" pays for one of the orders."""
    p = torch.tensor([1.0], dtype=torch.float64)
    loss = both_orders_loss(one(2.0), one(2.0), p).item()
    assert loss == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(2))) / 2)
    fair = both_orders_loss(one(2.0), one(-2.0), p).item()
    assert fair == pytest.approx(math.log1p(math.exp(-2)))


def test_skew_margin_is_the_matrix_form_and_antisymmetric():
    rng = np.random.default_rng(0)
    a, b = torch.tensor(rng.normal(size=(2, 7, 6)))
    matrix = torch.block_diag(*[torch.tensor([[0.0, -1.0], [1.0, 0.0]])] * 3).double()
    torch.testing.assert_close(skew_margin(a, b), torch.einsum("ni,ij,nj->n", a, matrix, b))
    torch.testing.assert_close(skew_margin(a, b), -skew_margin(b, a), rtol=0, atol=0)
    assert skew_margin(a, a).abs().max() == 0.0


def test_skew_margin_is_the_oracles():
    """What is trained is what judges."""
    from equilign.oracles.general_preference import skew_score

    a, b = np.random.default_rng(1).normal(size=(2, 5, 4))
    np.testing.assert_allclose(
        skew_margin(torch.tensor(a), torch.tensor(b)).numpy(), skew_score(a, b), rtol=1e-12
    )
