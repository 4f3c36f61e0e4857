"""Log-probabilities of sequences against plain arithmetic."""

import math

import pytest
import torch

from equilign.losses import sequence_logps, token_logps
from equilign.losses.logps import linear_token_logps
from tests.arrays import LargestArray


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


def linear_case(dtype=torch.float64, bias=True, tokens=23):
    """Hidden states, weight, bias, token ids, upstream gradient."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

    parts = [draw(tokens, 5), draw(17, 5), draw(17) if bias else None]
    for x in parts:
        if x is not None:
            x.requires_grad_()
    return (*parts, torch.randint(17, (tokens,), generator=generator), draw(tokens))


def whole_logps(hidden, weight, bias, ids, temperature, softcap):
    """The definition, with all logits at once."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return token_logps((logits.to(torch.float64) / temperature)[None], ids[None])[0]


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 17 * 5, 17 * 23, 10**6, None])
def test_chunks_of_a_linear_layer_are_the_whole(softcap, bias, chunk):
    hidden, weight, offset, ids, upstream = linear_case(bias=bias)
    inputs = [x for x in (hidden, weight, offset) if x is not None]
    want = whole_logps(hidden, weight, offset, ids, 0.7, softcap)
    got = linear_token_logps(
        hidden, weight, offset, ids, temperature=0.7, softcap=softcap, chunk_elements=chunk
    )
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(want, inputs, upstream)
    first = torch.autograd.grad(got, inputs, upstream, retain_graph=True)
    again = torch.autograd.grad(got, inputs, upstream)  # nothing of the last chunk is kept now
    for a, b, c in zip(wanted, first, again, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-12)
        torch.testing.assert_close(c, a, rtol=0, atol=1e-12)


def test_gradcheck_of_a_linear_layer():
    hidden, weight, bias, ids, _ = linear_case(tokens=4)
    assert torch.autograd.gradcheck(
        lambda h, w, b: linear_token_logps(
            h, w, b, ids, temperature=1.3, softcap=3.0, chunk_elements=40
        ),
        (hidden, weight, bias),
    )


@pytest.mark.parametrize("frozen", [(0,), (1, 2), (0, 1), (0, 1, 2)])
def test_frozen_parts_get_no_gradient_and_the_others_theirs(frozen):
    """LoRA trains none of the output layer; a probe trains nothing else."""
    hidden, weight, bias, ids, upstream = linear_case()
    parts = [hidden, weight, bias]
    for i in frozen:
        parts[i].requires_grad_(False)
    got = linear_token_logps(*parts, ids, chunk_elements=40)
    assert got.requires_grad == (len(frozen) < 3)
    if got.requires_grad:
        got.backward(upstream)
        grads = [x.grad for x in parts]
        for x in parts:
            x.grad = None
        whole_logps(*parts, ids, 1.0, None).backward(upstream)
        for i, x in enumerate(parts):
            assert (grads[i] is None) == (i in frozen)
            if i not in frozen:
                torch.testing.assert_close(grads[i], x.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["autocast", "bfloat16"])
def test_half_precision_products_but_float32_sums(kind):
    """Logits as a bfloat16 layer gives them; everything after that to float32."""
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    hidden, weight, bias, ids, upstream = linear_case(dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        got = linear_token_logps(hidden, weight, bias, ids, temperature=0.7, chunk_elements=40)
        want = whole_logps(hidden, weight, bias, ids, 0.7, None)
    assert got.dtype == torch.float32
    # A layer of its own width per chunk rounds alike up to one bfloat16 step.
    torch.testing.assert_close(got.double(), want, rtol=0.01, atol=0.02)
    inputs = [hidden, weight, bias]
    grads = torch.autograd.grad(got, inputs, upstream.float())
    wanted = torch.autograd.grad(want, inputs, upstream.double())
    for a, b in zip(grads, wanted, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.float(), b.float(), rtol=0.03, atol=0.05)


def test_sums_over_chunks_are_not_rounded_to_half_precision():
    """4000 equal contributions to the weight: in bfloat16 the sum would stop growing at 256."""
    hidden = torch.ones(4000, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    ids = torch.zeros(4000, dtype=torch.long)
    linear_token_logps(hidden, weight, None, ids, chunk_elements=2).sum().backward()
    assert weight.grad.flatten().tolist() == [2000.0, -2000.0]


def test_no_more_logits_than_the_chunk_exist():
    """Every array made on the way, forward and backward: the weight's size is the largest."""
    hidden, weight, bias, _, _ = linear_case(tokens=400)
    ids = torch.arange(400) % 17
    with LargestArray() as seen:
        linear_token_logps(hidden, weight, bias, ids, chunk_elements=17 * 20).sum().backward()
    assert seen.numel <= max(17 * 20, 400 * 5)
    with LargestArray() as seen:
        whole_logps(hidden, weight, bias, ids, 1.0, None).sum().backward()
    assert seen.numel == 17 * 400, "the test could not tell"


def test_no_tokens_are_no_log_probabilities():
    hidden, weight, bias, ids, _ = linear_case(tokens=0)
    got = linear_token_logps(hidden, weight, bias, ids)
    assert got.shape == (0,)
    got.sum().backward()
    assert (weight.grad == 0).all()
