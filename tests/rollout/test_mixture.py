"""Sampling from a token-level geometric mixture of two policies, against enumeration."""

from functools import partial

import numpy as np
import pytest
import torch

from equilign.rollout import SamplingConfig, TransformersSampler, decoding
from equilign.trainers import References
from tests.enumerable import END, RESPONSES, A, B, tiny_model, tiny_tokenizer

PROMPTS = ["a b", "b a b a"]  # of different lengths: one of them is padded


def two_policies():
    """One module with the weights of two models by name."""
    model = tiny_model(seed=3, spread=0.4)
    references = References(model)
    references.take("first")
    other = dict(tiny_model(seed=4, spread=0.4).named_parameters())
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(other[name])
    references.take("second")
    for name in ("first", "second"):  # attention so sharp that positions matter
        references.put(name)
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.q_proj.weight.mul_(15.0)
                layer.self_attn.k_proj.weight.mul_(15.0)
        references.take(name)
    return model, references


def law(model, references, weights, ids, temperature):
    """Probability of every response: next-token laws mixed and normalised token by token."""
    result = []
    for response in RESPONSES:
        logp, past = 0.0, list(ids)
        for token in response:
            mixed = 0.0
            for name, weight in weights.items():
                with references.playing(name), torch.no_grad():
                    logits = model(torch.tensor([past])).logits[0, -1].double() / temperature
                mixed = mixed + weight * logits.log_softmax(-1)
            logp += float(mixed.log_softmax(-1)[token])
            past.append(token)
        result.append(np.exp(logp))
    return np.array(result)


@pytest.mark.parametrize(
    ("weights", "temperature"),
    [((0.3, 0.7), 1.0), ((1.0, 0.0), 1.0), ((0.6, 0.4), 2.0)],
)
def test_samples_follow_the_token_level_mixture(weights, temperature):
    model, references = two_policies()
    named = dict(zip(("first", "second"), weights, strict=True))
    tokenizer = tiny_tokenizer()
    sampler = TransformersSampler(
        model, tokenizer, SamplingConfig(2, temperature=temperature, batch_size=20_000)
    )
    parts = [(w, partial(references.playing, name)) for name, w in named.items()]
    groups = sampler.sample_mixture(parts, PROMPTS, 6000, seed=0)
    again = sampler.sample_mixture(parts, PROMPTS, 6000, seed=0)
    assert groups == again
    for prompt, group in zip(PROMPTS, groups, strict=True):
        assert group.prompt == prompt
        ids = tokenizer(prompt)["input_ids"]
        exact = law(model, references, named, ids, temperature)
        assert exact.sum() == pytest.approx(1.0, abs=1e-9)
        drawn = [c.ids for c in group.completions]
        assert all(c.finished == (c.ids[-1] == END) for c in group.completions)
        share = np.array([drawn.count(r) for r in RESPONSES]) / len(drawn)
        deviation = np.sqrt(exact * (1 - exact) / len(drawn))
        assert (np.abs(share - exact) < 4.5 * deviation + 1e-9).all()
        swapped = law(model, references, dict(zip(named, weights[::-1], strict=True)), ids, 1.0)
        assert (np.abs(share - swapped) > 4.5 * deviation).any(), "the test could not tell"


def test_every_step_has_the_law_of_a_forward_pass_without_a_cache(monkeypatch):
    """Positions, masks and both caches, to rounding: draws are forced and their laws recorded."""
    model, references = two_policies()
    tokenizer, forced, seen = tiny_tokenizer(), [A, B, A, B], []

    def draw(probabilities):
        seen.append(probabilities.clone())
        return torch.full((len(probabilities),), forced[len(seen) - 1])

    monkeypatch.setattr(decoding, "draw", draw)
    parts = [
        (0.3, partial(references.playing, "first")),
        (0.7, partial(references.playing, "second")),
    ]
    TransformersSampler(model, tokenizer, SamplingConfig(4)).sample_mixture(parts, PROMPTS, 2, 0)
    assert len(seen) == 4
    for row, prompt in enumerate(sorted(PROMPTS, key=len)):
        ids = tokenizer(prompt)["input_ids"]
        for t, probabilities in enumerate(seen):
            mixed = 0.0
            for weight, playing in parts:
                with playing(), torch.no_grad():
                    logits = model(torch.tensor([ids + forced[:t]])).logits[0, -1]
                mixed = mixed + weight * logits.log_softmax(-1)
            want = mixed.softmax(-1).float()
            for sample in (2 * row, 2 * row + 1):
                torch.testing.assert_close(probabilities[sample], want, rtol=1e-5, atol=1e-7)


def test_put_makes_the_model_that_policy_for_good():
    model, references = two_policies()
    references.put("first")
    assert references.equal("first", {n: p.detach() for n, p in model.named_parameters()})
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert not references.equal("first", {n: p.detach() for n, p in model.named_parameters()})
    references.put("first")
    assert references.equal("first", {n: p.detach() for n, p in model.named_parameters()})
