"""Log-probabilities of sequences against plain arithmetic."""

import math

import pytest
import torch

from equilign.losses import sequence_logps, token_logps


def test_token_logps_by_plain_arithmetic():
    logits = torch.tensor(
        [[[0.5, -1.0, 2.0], [3.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [-2.0, 1.0, 4.0]]],
        dtype=torch.float64,
    )
    ids = torch.tensor([[2, 1], [0, 2]])
    expected = [
        [
            float(logits[b, t, ids[b, t]]) - math.log(sum(math.exp(float(x)) for x in logits[b, t]))
            for t in range(2)
        ]
        for b in range(2)
    ]
    got = token_logps(logits, ids)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_all_tokens_of_one_position_sum_to_one():
    logits = torch.randn(1, 1, 7, generator=torch.Generator().manual_seed(0)).expand(7, 1, 7)
    probabilities = token_logps(logits, torch.arange(7).unsqueeze(1)).exp()
    assert float(probabilities.sum()) == pytest.approx(1.0, abs=1e-6)


def test_a_constant_added_to_the_logits_does_not_matter():
    logits = torch.tensor([[[0.5, -1.0, 2.0]]], dtype=torch.float64)
    ids = torch.tensor([[1]])
    torch.testing.assert_close(token_logps(logits + 1e4, ids), token_logps(logits, ids))


def test_impossible_tokens_and_extreme_logits_are_no_nan():
    logits = torch.tensor([[[0.0, -math.inf, 0.0], [1e4, 0.0, -1e4]]])
    got = token_logps(logits, torch.tensor([[1, 0]]))
    assert got.tolist() == [[-math.inf, 0.0]]
    assert token_logps(logits, torch.tensor([[0, 2]])).tolist() == [
        [pytest.approx(-math.log(2)), -2e4]
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    """200 tokens, 500 words: in bfloat16 the sum would be off by whole nats."""
    torch.manual_seed(0)
    narrow = torch.randn(1, 200, 500).to(dtype)
    ids = torch.randint(500, (1, 200))
    everything = torch.ones(1, 200, dtype=torch.bool)
    got = token_logps(narrow, ids)
    assert got.dtype == torch.float32
    exact = sequence_logps(token_logps(narrow.double(), ids), everything)
    assert float(sequence_logps(got, everything)) == pytest.approx(float(exact), abs=1e-2)
    rough = (narrow.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - narrow.logsumexp(-1)).sum()
    assert abs(float(rough) - float(exact)) > 0.1, "the cast would not be needed"


def test_the_gradient_is_the_one_of_log_softmax():
    """d log p(y) / d logits = onehot(y) - softmax, also through the cast."""
    logits = torch.tensor([[[0.5, -1.0, 2.0]]], dtype=torch.float64, requires_grad=True)
    token_logps(logits, torch.tensor([[1]])).sum().backward()
    expected = torch.tensor([0.0, 1.0, 0.0]) - logits.detach()[0, 0].softmax(-1)
    torch.testing.assert_close(logits.grad[0, 0], expected)


def test_only_marked_tokens_count():
    logps = torch.tensor([[-1.0, -2.0, -4.0, -8.0], [-16.0, -32.0, -64.0, -128.0]])
    mask = torch.tensor([[False, True, True, False], [True, False, False, True]])
    assert sequence_logps(logps, mask).tolist() == [-6.0, -144.0]


def test_an_empty_mask_is_an_empty_sum():
    assert sequence_logps(torch.full((1, 3), -5.0), torch.zeros(1, 3, dtype=torch.bool)) == 0.0


def test_what_stands_under_the_mask_does_not_matter():
    """Padding may hold anything: -inf times 0 would be nan, in the gradient too."""
    logps = torch.tensor([[-1.0, -math.inf, math.nan, -2.0]], requires_grad=True)
    mask = torch.tensor([[True, False, False, True]])
    total = sequence_logps(logps, mask)
    total.sum().backward()
    assert total.tolist() == [-3.0]
    assert logps.grad.tolist() == [[1.0, 0.0, 0.0, 1.0]]
