"""The decoder: every step has the law of a forward pass without a cache, whatever the model."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from scipy import stats
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from equilign.errors import ModelError
from equilign.rollout import SamplingConfig, TransformersSampler, decoding, score_completions
from equilign.rollout.decoding import Decoding, can_decode, decode
from equilign.rollout.draws import draw, nucleus
from equilign.rollout.generate import pad_left
from equilign.rollout.mixture import ITSELF
from equilign.rollout.scoring import completion_token_logps
from tests.enumerable import END, RESPONSES, A, B, tiny_model, tiny_tokenizer

SMALL = {
    "vocab_size": 3,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": END,
    "pad_token_id": END,
}


def gpt2():
    config = GPT2Config(
        vocab_size=3, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=None
    )
    config.eos_token_id = config.pad_token_id = END
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(50)
    return model


def gemma2():
    kinds = ["sliding_attention", "full_attention"]
    config = Gemma2Config(
        **SMALL, head_dim=4, query_pre_attn_scalar=4, sliding_window=3, layer_types=kinds
    )
    config.final_logit_softcapping = 2.0
    return Gemma2ForCausalLM(config)


def lora():
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    return get_peft_model(tiny_model(dtype=torch.float32), config)


MODELS = {
    "llama": lambda: tiny_model(dtype=torch.float32),
    "gpt2": gpt2,
    "bloom": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=3, hidden_size=16, n_layer=2, n_head=2, eos_token_id=END)
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "mistral, sliding": lambda: MistralForCausalLM(
        MistralConfig(**{**SMALL, "num_attention_heads": 2}, sliding_window=3)
    ),
    "gemma2, hybrid": gemma2,
    "lora": lora,
}


SHARP = ("q_proj", "k_proj", "c_attn", "query_key_value")


def make(name):
    """Float64, but for eager attention, whose float64 masks overflow in its float32 softmax."""
    torch.manual_seed(5)
    model = MODELS[name]().eval()
    eager = model.config._attn_implementation == "eager"
    with torch.no_grad():  # attention so sharp that positions matter
        for parameter_name, p in model.named_parameters():
            if any(kind in parameter_name for kind in SHARP):
                p.mul_(15.0)
        if name not in ("llama", "lora"):
            model.get_output_embeddings().weight.mul_(20.0)
    return model if eager else model.double()


PROMPTS = [(A, B, A), (A, B, B, A, B, A), (B, B, A, A, B, A)]
# One row finishes at once, others later and not at all: the batch shrinks several times.
FORCED = [
    [END, A, A, A, A, A],
    [A, B, B, A, A, B],
    [B, END, A, A, A, A],
    [B, A, B, END, A, A],
    [A, A, B, B, B, END],
    [END, B, B, B, B, B],
]


@pytest.mark.parametrize("drop_share", [1e-9, 0.3, 2.0])
@pytest.mark.parametrize("name", MODELS)
def test_every_step_has_the_law_of_a_forward_pass_without_a_cache(name, drop_share, monkeypatch):
    model = make(name)
    assert can_decode(model)
    monkeypatch.setattr(decoding, "_DROP_SHARE", drop_share)
    monkeypatch.setattr(decoding, "_GROWTH", 2)  # the caches must grow twice
    rows, sizes = list(range(6)), []

    def forced(probabilities):
        step, here = len(sizes), list(rows)
        sizes.append(len(here))
        assert len(probabilities) == len(here)
        for probability, row in zip(probabilities, here, strict=True):
            past = FORCED[row][:step]
            if END in past:
                continue  # finished: what it goes on with does not matter
            with torch.no_grad():
                logits = model(torch.tensor([[*PROMPTS[row // 2], *past]])).logits[0, -1]
            rtol = 1e-3 if logits.dtype == torch.float32 else 2e-5
            want = logits.softmax(-1).float()
            assert want.max() > 0.35, "so flat a law that positions could not matter"
            torch.testing.assert_close(probability, want, rtol=rtol, atol=1e-7)
        done = [r for r in here if END in FORCED[r][: step + 1]]
        if done and len(done) >= drop_share * len(here):
            rows[:] = [r for r in here if r not in done]
        return torch.tensor([FORCED[r][step] for r in here])

    monkeypatch.setattr(decoding, "draw", forced)
    ids, mask = pad_left(PROMPTS, END)
    out, _ = decode(model, ITSELF, ids, mask, Decoding(2, 6, 1.0, 1.0, frozenset({END})))
    for row, tokens in zip(FORCED, out.tolist(), strict=True):
        until = row.index(END) + 1 if END in row else 6
        assert tokens[:until] == row[:until]
    assert sizes == {1e-9: [6, 4, 3, 3, 2, 2], 0.3: [6, 4, 4, 4, 2, 2], 2.0: [6] * 6}[drop_share]


def test_a_prompt_is_encoded_once_and_only_last_logits_are_computed():
    model, seen = tiny_model(dtype=torch.float32), []
    model.register_forward_hook(
        lambda _, args, inputs, out: seen.append((inputs["input_ids"].shape, out.logits.shape)),
        with_kwargs=True,
    )
    sampler = TransformersSampler(model, tiny_tokenizer(), SamplingConfig(3))
    sampler.sample(["a b", "b a b a a"], 4, seed=0)
    assert seen[0] == ((2, 5), (2, 1, 3))
    assert len(seen) > 1
    assert all(ids[1] == 1 and ids[0] <= 8 for ids, _ in seen[1:])


def test_unpadded_prompts_need_no_mask():
    """Without one the attention kernels need not read any."""
    model, seen = tiny_model(dtype=torch.float32), []
    model.register_forward_hook(
        lambda _, args, inputs, out: seen.append("attention_mask" in inputs), with_kwargs=True
    )
    sampler = TransformersSampler(model, tiny_tokenizer(), SamplingConfig(2))
    sampler.sample(["a b", "b a"], 4, seed=0)
    assert not any(seen)
    sampler.sample(["a b", "b"], 4, seed=0)
    assert seen[-1]


def frequencies(groups):
    drawn = [c.ids for c in groups[0].completions]
    counts = np.array([drawn.count(r) for r in RESPONSES])
    assert counts.sum() == len(drawn)
    return counts


@pytest.mark.parametrize("kind", ["lora", "bf16", "autocast", "nucleus", "mamba"])
def test_sampled_frequencies_are_the_scored_probabilities(kind):
    """Chi-square over all responses, 4000 draws."""
    model, tokenizer = tiny_model(seed=3, spread=0.5, dtype=torch.float32), tiny_tokenizer()
    top_p = 1.0
    if kind == "lora":
        torch.manual_seed(0)
        model = get_peft_model(
            model, LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False)
        )
    elif kind == "bf16":
        model = model.bfloat16()
    elif kind == "mamba":
        model = mamba()
    elif kind == "nucleus":
        top_p = 0.7
    config = SamplingConfig(2, batch_size=2000, top_p=top_p)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        groups = TransformersSampler(model, tokenizer, config).sample(["a b"], 4000, seed=11)
    counts = frequencies(groups)
    exact = nucleus_law(model, (1, 2), top_p) if kind == "nucleus" else np.exp(scores(model, kind))
    assert (counts[exact == 0.0] == 0).all()
    expected = exact[exact > 0] / exact.sum() * 4000
    assert stats.chisquare(counts[exact > 0], expected).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("name", MODELS)
def test_samples_come_with_their_log_probabilities(name, temperature, monkeypatch):
    monkeypatch.setattr(decoding, "_DROP_SHARE", 1e-9)
    model = make(name)
    config = SamplingConfig(6, temperature=temperature, batch_size=16)
    groups = TransformersSampler(model, tiny_tokenizer(), config).sample(["a b", "b"], 8, seed=3)
    ids = [c.ids for g in groups for c in g.completions]
    assert len(set(ids)) > 1
    found, mask = completion_token_logps(
        model,
        [g.prompt_ids for g in groups for _ in g.completions],
        ids,
        pad_id=END,
        temperature=temperature,
    )
    told = [x for g in groups for c in g.completions for x in c.logps]
    exact = found.dtype == torch.float64 and temperature == 1.0  # it divides in float32
    close = 1e-6 if exact else 2e-4
    np.testing.assert_allclose(told, found[mask].detach(), rtol=0, atol=close)


@pytest.mark.parametrize("how", ["greedy", "nucleus", "mixture", "mamba"])
def test_other_laws_than_the_policy_s_tell_nothing(how):
    options = {"greedy": {"temperature": 0.0}, "nucleus": {"top_p": 0.9}}.get(how, {})
    model = mamba() if how == "mamba" else tiny_model(dtype=torch.float32)
    sampler = TransformersSampler(model, tiny_tokenizer(), SamplingConfig(2, **options))
    if how == "mixture":
        groups = sampler.sample_mixture([(0.5, p) for _, p in [*ITSELF, *ITSELF]], ["a"], 3, 0)
    else:
        groups = sampler.sample(["a"], 3, seed=0)
    assert [c.logps for c in groups[0].completions] == [()] * 3


def scores(model, kind):
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        return np.array(score_completions(model, [(1, 2)] * len(RESPONSES), RESPONSES, pad_id=END))


@torch.no_grad()
def nucleus_law(model, prompt, top_p):
    """By hand: keep the likeliest tokens until their mass reaches top_p, and normalise."""

    def step(past):
        p = model(torch.tensor([past])).logits[0, -1].double().softmax(-1).numpy()
        kept, mass = np.zeros(3), 0.0
        for token in np.argsort(-p):
            if mass < top_p:
                kept[token] = p[token]
            mass += p[token]
        return kept / kept.sum()

    law = [
        np.prod([step([*prompt, *response[:t]])[token] for t, token in enumerate(response)])
        for response in RESPONSES
    ]
    assert 0.0 in law, "the nucleus would be everything"
    return np.array(law)


def mamba():
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=3, hidden_size=16, num_hidden_layers=1, state_size=4)
    config.eos_token_id = config.pad_token_id = END
    model = MambaForCausalLM(config)
    model.generation_config.eos_token_id = END
    return model


def test_models_without_a_key_value_cache_generate_but_do_not_mix():
    model, tokenizer = mamba(), tiny_tokenizer()
    assert not can_decode(model)
    sampler = TransformersSampler(model, tokenizer, SamplingConfig(2))
    with pytest.raises(ModelError, match="MambaForCausalLM has no ordinary key-value cache"):
        sampler.sample_mixture([*ITSELF, *ITSELF], ["a"], 2, seed=0)
    prefix = get_peft_model(
        tiny_model(dtype=torch.float32),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    )
    assert not can_decode(prefix)
    groups = TransformersSampler(prefix, tokenizer, SamplingConfig(2)).sample(["a", "b a"], 2, 0)
    assert [len(g.completions) for g in groups] == [2, 2]


def test_greedy_answers_are_equal_and_belong_to_their_prompts():
    model, tokenizer = tiny_model(seed=3, dtype=torch.float32), tiny_tokenizer()
    sampler = TransformersSampler(model, tokenizer, SamplingConfig(3, temperature=0.0))
    prompts = ["a b a", "b", "b b"]
    together = sampler.sample(prompts, 3, seed=0)
    for prompt, group in zip(prompts, together, strict=True):
        assert group.prompt == prompt
        assert len(group.completions) == 3
        past = list(group.prompt_ids)
        for token in group.completions[0].ids:
            with torch.no_grad():
                assert token == int(model(torch.tensor([past])).logits[0, -1].argmax())
            past.append(token)
        assert len(set(group.completions)) == 1


def test_a_part_is_entered_for_each_of_its_forward_passes_and_left_again():
    model, inside, log = tiny_model(dtype=torch.float32), [], []

    @contextmanager
    def playing(name):
        inside.append(name)
        yield
        inside.remove(name)

    model.register_forward_hook(lambda *_: log.append(list(inside)))
    parts = [(0.5, lambda: playing("first")), (0.5, lambda: playing("second"))]
    sampler = TransformersSampler(model, tiny_tokenizer(), SamplingConfig(3))
    sampler.sample_mixture(parts, ["a b"], 8, seed=0)
    assert not inside
    assert log == [["first"], ["second"]] * (len(log) // 2)
    assert len(log) >= 4


@pytest.mark.parametrize("size", [3, 255, 256, 257, 1000])
def test_draws_follow_the_probabilities(size):
    """Chi-square of 40,000 draws over bins, a third of the entries being impossible."""
    generator = torch.Generator().manual_seed(size)
    weights = torch.rand(size, generator=generator) ** 4
    weights[::3] = 0.0
    torch.manual_seed(1)
    drawn = torch.cat([draw(weights.expand(2000, -1)) for _ in range(20)])
    counts = np.bincount(drawn.numpy(), minlength=size)
    assert (counts[weights.numpy() == 0] == 0).all()
    expected = (weights.double() / weights.double().sum() * 40_000).numpy()
    bins = np.arange(size) * 50 // size  # neighbours together: enough draws in each
    pooled = np.bincount(bins, expected)
    observed = np.bincount(bins, counts)
    assert stats.chisquare(observed[pooled > 0], pooled[pooled > 0]).pvalue > 1e-3


@pytest.mark.parametrize("level", [0.0, 1.0 - 2.0**-53])
@pytest.mark.parametrize("size", [3, 256, 300, 513])
def test_extreme_levels_draw_possible_tokens(level, size, monkeypatch):
    """The first and the last token of positive probability, also where blocks are empty."""
    monkeypatch.setattr(
        torch, "rand", lambda *shape, dtype, device: torch.full(shape, level, dtype=dtype)
    )
    for possible in ([1], [0, size - 1], [size // 2], [1, size - 2]):
        weights = torch.zeros(1, size)
        weights[0, possible] = 1 / 3
        assert draw(weights).tolist() == [possible[0] if level == 0.0 else possible[-1]]


def test_rows_are_drawn_independently_and_each_by_its_own_law():
    torch.manual_seed(0)
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.2, 0.2, 0.6]])
    drawn = torch.stack([draw(weights) for _ in range(4000)]).numpy()
    assert (drawn[:, 0] == 0).all()
    assert abs((drawn[:, 1] == 1).mean() - 0.5) < 0.04
    table = np.zeros((2, 3))
    np.add.at(table, (drawn[:, 1] - 1, drawn[:, 2]), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_nucleus_keeps_the_smallest_set_of_that_mass():
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25]]))
    kept = torch.isfinite(nucleus(logits, 0.7))
    assert kept.tolist() == [[False, True, False, True]]
    torch.testing.assert_close(nucleus(logits, 1.0), logits)
    assert torch.isfinite(nucleus(logits, 0.01)).sum() == 1
