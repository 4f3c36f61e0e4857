"""Sampling and scoring: the same policy, whatever the padding."""

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import GPT2Config, GPT2LMHeadModel

from equilign.errors import DataError, ModelError
from equilign.rollout import (
    SamplingConfig,
    TransformersSampler,
    completion_logps,
    encode_prompt,
    pad_pairs,
    prompt_text,
    score_completions,
)
from equilign.rollout.generate import cut_at_end, end_tokens, seeded
from tests.enumerable import END, RESPONSES, exact_logps, tiny_model, tiny_tokenizer

PROMPTS = [(1,), (2, 1), (1, 2, 2), (2, 2, 1, 1)]


@torch.no_grad()
def one_by_one(model, prompt, completion):
    """Independent of the library: full softmax, no padding, tokens added up in a loop."""
    logits = model(torch.tensor([[*prompt, *completion]])).logits[0].double().log_softmax(-1)
    start = len(prompt)
    return float(sum(logits[start - 1 + i, token] for i, token in enumerate(completion)))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side_and_batch_do_not_matter(side):
    model = tiny_model()
    prompts = [p for p in PROMPTS for _ in RESPONSES]
    completions = list(RESPONSES) * len(PROMPTS)
    batched = completion_logps(model, prompts, completions, pad_id=END, side=side)
    single = [one_by_one(model, p, c) for p, c in zip(prompts, completions, strict=True)]
    np.testing.assert_allclose(batched.detach().numpy(), single, atol=1e-10)


def test_learned_positions_survive_left_padding():
    """Rotary models only see distances; GPT-2 needs the true positions."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=3, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config).double().eval()
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(100)
    prompts = [p for p in PROMPTS for _ in RESPONSES]
    completions = list(RESPONSES) * len(PROMPTS)
    batched = completion_logps(model, prompts, completions, pad_id=END).detach().numpy()
    single = [one_by_one(model, p, c) for p, c in zip(prompts, completions, strict=True)]
    np.testing.assert_allclose(batched, single, atol=1e-10)


@pytest.mark.parametrize("pad_id", [0, 1, 2])
def test_the_padding_token_does_not_matter(pad_id):
    model = tiny_model()
    a = score_completions(model, PROMPTS, RESPONSES[1:5], pad_id=pad_id)
    b = score_completions(model, PROMPTS, RESPONSES[1:5], pad_id=END, batch_size=1)
    np.testing.assert_allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_probabilities_of_all_responses_sum_to_one(prompt):
    """Exactly one end token counts: with none or two the sum is not 1."""
    assert np.exp(exact_logps(tiny_model(), prompt)).sum() == pytest.approx(1.0, abs=1e-12)


def test_masks_by_hand():
    ids, attention, answer = pad_pairs([(5, 6), (7,)], [(8,), (9, 9, 0)], pad_id=0, side="left")
    assert ids.tolist() == [[0, 5, 6, 8], [7, 9, 9, 0]]
    assert attention.tolist() == [[False, True, True, True], [True] * 4]
    assert answer.tolist() == [[False, False, False, True], [False, True, True, True]]
    ids, attention, answer = pad_pairs([(5, 6), (7,)], [(8,), (9, 9, 0)], pad_id=3, side="right")
    assert ids.tolist() == [[5, 6, 8, 3], [7, 9, 9, 0]]
    assert answer.tolist() == [[False, False, True, False], [False, True, True, True]]


def test_nothing_to_score_is_an_error():
    model = tiny_model()
    with pytest.raises(DataError, match="prompt 1 of the batch has no tokens"):
        completion_logps(model, [(1,), ()], [(1,), (2,)], pad_id=END)
    with pytest.raises(DataError, match="completion 0 of the batch has no tokens"):
        completion_logps(model, [(1,)], [()], pad_id=END)


def test_temperature_divides_the_logits():
    model = tiny_model()
    logits = model(torch.tensor([[1, 2]])).logits[0, 0].double() / 0.7
    expected = float(logits.log_softmax(-1)[2].detach())
    found = completion_logps(model, [(1,)], [(2,)], pad_id=0, temperature=0.7)
    assert float(found.detach()) == pytest.approx(expected, abs=1e-10)


def test_sampled_frequencies_are_the_scored_probabilities():
    """Chi-square over all seven responses, 4000 draws: sampler and scorer mean one policy."""
    model, tokenizer = tiny_model(seed=3, spread=0.5), tiny_tokenizer()
    sampler = TransformersSampler(model, tokenizer, SamplingConfig(2, batch_size=2000))
    group = sampler.sample(["a b"], 4000, seed=11)[0]
    counts = np.array([sum(c.ids == r for c in group.completions) for r in RESPONSES])
    assert counts.sum() == 4000
    expected = 4000 * np.exp(exact_logps(model, (1, 2)))
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


def test_model_generation_defaults_do_not_leak_in():
    """A model's own top_k = 1 would make sampling greedy."""
    model, tokenizer = tiny_model(seed=3, spread=0.3), tiny_tokenizer()
    model.generation_config.top_k = 1
    model.generation_config.repetition_penalty = 5.0
    sampler = TransformersSampler(model, tokenizer, SamplingConfig(2))
    assert len({c.ids for c in sampler.sample(["a b"], 64, seed=0)[0].completions}) > 3


def test_same_seed_same_answers_and_no_trace_on_the_global_stream():
    model, tokenizer = tiny_model(seed=3, spread=0.3), tiny_tokenizer()
    sampler = TransformersSampler(model, tokenizer, SamplingConfig(4, batch_size=3))
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = sampler.sample(["a", "b a b", "b"], 2, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(100)
    assert sampler.sample(["a", "b a b", "b"], 2, seed=5) == first
    assert sampler.sample(["a", "b a b", "b"], 2, seed=6) != first
    assert [g.prompt for g in first] == ["a", "b a b", "b"]


def test_mode_is_restored():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    model.train()
    TransformersSampler(model, tokenizer, SamplingConfig(2)).sample(["a"], 2, seed=0)
    assert model.training
    score_completions(model, [(1,)], [(2,)], pad_id=0)
    assert model.training


def test_greedy_takes_the_likeliest_token():
    model, tokenizer = tiny_model(seed=3), tiny_tokenizer()
    config = SamplingConfig(2, temperature=0.0)
    group = TransformersSampler(model, tokenizer, config).sample(["a b"], 1, seed=0)[0]
    with torch.no_grad():
        first = int(model(torch.tensor([[1, 2]])).logits[0, -1].argmax())
    assert group.completions[0].ids[0] == first
    assert len(group.completions) == 1


@pytest.mark.parametrize(
    ("ids", "kept", "finished"),
    [
        ((5, 0, 0, 0), (5, 0), True),
        ((5, 6), (5, 6), False),
        ((0,), (0,), True),
        ((), (), False),
        ((5, 9, 0), (5, 9), True),
    ],
)
def test_cut_at_the_first_end_token(ids, kept, finished):
    assert cut_at_end(ids, frozenset({0, 9})) == (kept, finished)


def test_end_tokens_of_model_and_tokenizer():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    model.generation_config.eos_token_id = [2, 1]
    assert end_tokens(model, tokenizer) == {0, 1, 2}
    model.generation_config.eos_token_id = None
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        end_tokens(model, tokenizer)


def test_long_and_empty_prompts_are_errors():
    sampler = TransformersSampler(
        tiny_model(), tiny_tokenizer(), SamplingConfig(2, max_prompt_tokens=2)
    )
    with pytest.raises(DataError, match="prompt 1 has 3 tokens; between 1 and 2"):
        sampler.sample(["a", "a b a"], 2, seed=0)
    with pytest.raises(DataError, match="prompt 0 has 0 tokens"):
        sampler.sample([""], 2, seed=0)


def test_chat_prompts_need_a_template_and_get_no_second_bos():
    tokenizer = tiny_tokenizer()
    chat = [{"role": "user", "content": "a b"}]
    with pytest.raises(ModelError, match="no chat template"):
        encode_prompt(tokenizer, chat)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + ' e' }}{% endfor %}"
    assert encode_prompt(tokenizer, chat) == (1, 2, 0)


def test_prompt_text():
    assert prompt_text("hi") == "hi"
    assert prompt_text([{"role": "user", "content": "hi"}]) == "hi"
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert prompt_text(chat) == "system: s\nuser: u"


def test_seeded_restores_after_an_error():
    torch.manual_seed(1)
    state = torch.get_rng_state()

    def fail():
        with seeded(3, torch.device("cpu")):
            torch.rand(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)
