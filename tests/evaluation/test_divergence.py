"""Both estimators of the KL from a start model against every string of a small language."""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from equilign.errors import ModelError
from equilign.evaluation.divergence import Divergence, distance, divergences, token_divergences
from equilign.rollout import Completion, Group, SamplingConfig, TransformersSampler
from equilign.rollout.next_tokens import NextTokens
from equilign.rollout.output_layer import output_layer
from equilign.rollout.prefix import read_prompts
from tests.arrays import LargestArray
from tests.enumerable import (
    END,
    EnumeratingSampler,
    exact_logps,
    tiny_model,
    tiny_tokenizer,
)

PROMPTS = ["a b", "b", "a a b a"]


def playing(model):
    return lambda: nullcontext(model)


def measure(policy, start, groups, **options):
    return divergences(playing(policy), playing(start), groups, pad_id=END, **options)


def everything(policy):
    """All strings with their probabilities, cut ones among them."""
    return EnumeratingSampler(policy, tiny_tokenizer()).sample(PROMPTS, 0, 0)


def exact(policy, start, group):
    """KL by enumeration: sum_y pi(y) (log pi(y) - log ref(y))."""
    mine, theirs = (exact_logps(m, group.prompt_ids) for m in (policy, start))
    return float(np.exp(mine) @ (mine - theirs))


def lora_on_the_output(seed):
    """Its logits are not those of a plain output layer."""
    torch.manual_seed(seed)
    options = {"r": 2, "init_lora_weights": False, "target_modules": ["lm_head", "q_proj"]}
    return get_peft_model(tiny_model(0), LoraConfig(**options)).double()


def test_both_are_the_kl_in_expectation():
    policy, start = tiny_model(0), tiny_model(1)
    groups = everything(policy)
    found = measure(policy, start, groups)
    truth = [exact(policy, start, g) for g in groups]
    assert min(truth) > 0.1
    back = [exact(start, policy, g) for g in groups]
    assert np.abs(np.subtract(truth, back)).min() > 0.01  # the two directions differ
    for group, row, value in zip(groups, found, truth, strict=True):
        far = distance([row], [group.weights])
        assert far.kl.value == pytest.approx(value, abs=1e-9)
        assert far.k1.value == pytest.approx(value, abs=1e-9)
        assert all(d.exact >= 0.0 for d in row)
        assert min(d.log_ratio for d in row) < 0.0  # which k1's own terms are not
    whole = distance(found, [g.weights for g in groups])
    assert whole.kl.value == pytest.approx(np.mean(truth), abs=1e-9)


def test_every_visited_place_counts_the_end_token_s_among_them():
    policy, start = tiny_model(2), tiny_model(3)
    groups = everything(policy)
    for group, row in zip(groups, measure(policy, start, groups), strict=True):
        for completion, found in zip(group.completions, row, strict=True):
            ids, total, sums = [*group.prompt_ids], 0.0, [0.0, 0.0]
            for token in completion.ids:
                laws = [
                    m(torch.tensor([ids])).logits[0, -1].log_softmax(-1).tolist()
                    for m in (policy, start)
                ]
                total += sum(np.exp(p) * (p - q) for p, q in zip(*laws, strict=True))
                sums = [s + law[token] for s, law in zip(sums, laws, strict=True)]
                ids.append(token)
            assert found.exact == pytest.approx(total, abs=1e-10)
            assert (found.logp, found.start_logp) == pytest.approx(tuple(sums), abs=1e-10)
            assert found.tokens == len(completion.ids)
            assert found.finished == (completion.ids[-1] == END)


@pytest.mark.parametrize("make", [tiny_model, lora_on_the_output])
def test_a_model_is_no_way_from_itself(make):
    model = make(0)
    rows = measure(model, model, everything(model))
    assert {d.exact for row in rows for d in row} == {0.0}
    far = distance(rows)
    assert (far.kl.low, far.kl.value, far.kl.high) == (0.0, 0.0, 0.0)
    assert far.k1.value == pytest.approx(0.0, abs=1e-12)


def test_samples_agree_and_the_exact_sum_spreads_less():
    policy, start = tiny_model(0), tiny_model(1)
    sampler = TransformersSampler(policy, tiny_tokenizer(), SamplingConfig(max_new_tokens=2))
    groups = sampler.sample([PROMPTS[0]] * 100, 8, 0)
    found = measure(policy, start, groups)
    far, truth = distance(found), exact(policy, start, groups[0])
    assert far.kl.low < truth < far.kl.high
    assert far.k1.low < truth < far.k1.high
    assert far.kl.high - far.kl.low < 0.7 * (far.k1.high - far.k1.low)
    assert far.kl.count == 100
    lengths = [len(c.ids) for c in groups[0].completions]
    assert [d.tokens for d in found[0]] == lengths


@pytest.mark.parametrize("make", [tiny_model, lora_on_the_output])
def test_chunks_and_batches_change_nothing(make):
    policy, start = make(0), tiny_model(1)
    groups = everything(policy)
    whole = measure(policy, start, groups)
    truth = [exact(policy, start, g) for g in groups]
    means = [distance([r], [g.weights]).kl.value for r, g in zip(whole, groups, strict=True)]
    assert means == pytest.approx(truth, abs=1e-9)
    for options in ({"chunk_elements": 1}, {"chunk_elements": 15}, {"batch_size": 2}):
        for mine, theirs in zip(measure(policy, start, groups, **options), whole, strict=True):
            for a, b in zip(mine, theirs, strict=True):
                assert (a.exact, a.log_ratio) == pytest.approx((b.exact, b.log_ratio), abs=1e-11)


VOCAB = 400
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}


def llama(seed):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).double().eval()


def gemma2(seed):
    torch.manual_seed(seed)
    config = Gemma2Config(**SIZES, head_dim=8, query_pre_attn_scalar=8)
    config.final_logit_softcapping = 0.5
    model = Gemma2ForCausalLM(config).double().eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20.0)
    return model


def long_groups():
    """A prompt that several answers share, read once, and a short one."""
    draw = np.random.default_rng(0)
    long, short = draw.integers(1, VOCAB, 60), draw.integers(1, VOCAB, 3)
    answers = [draw.integers(1, VOCAB, n) for n in (9, 2, 5, 12)]
    groups = []
    for prompt in (long, short):
        made = tuple(Completion(tuple(map(int, a)), "", False) for a in answers)
        groups.append(Group("p", tuple(map(int, prompt)), made))
    return groups


@pytest.mark.parametrize("make", [llama, gemma2])
@torch.no_grad()
def test_numbers_are_those_of_whole_logits(make):
    policy, start = make(0), make(1)
    groups = long_groups()
    flat = [(g.prompt_ids, c.ids) for g in groups for c in g.completions]
    assert read_prompts(policy, *zip(*flat, strict=True), END) is not None
    for group, row in zip(groups, measure(policy, start, groups), strict=True):
        for completion, found in zip(group.completions, row, strict=True):
            ids = torch.tensor([[*group.prompt_ids, *completion.ids]])
            own, other = (
                m(ids).logits[0, len(group.prompt_ids) - 1 : -1].log_softmax(-1)
                for m in (policy, start)
            )
            truth = float((own.exp() * (own - other)).sum())
            # Gemma's norms are taken in float32.
            assert found.exact == pytest.approx(truth, rel=1e-9 if make is llama else 1e-5)
            assert truth > 1e-3


def test_no_array_of_all_positions_and_all_tokens():
    policy, start = llama(0), llama(1)
    groups = long_groups()
    positions = sum(len(c.ids) for g in groups for c in g.completions)
    # The check that the output layer is a plain one sees one row's logits, once per model.
    for model in (policy, start):
        assert output_layer(model, {"input_ids": torch.tensor([[1]])}) is not None
    with LargestArray() as seen:
        measure(policy, start, groups, chunk_elements=4 * VOCAB)
    assert seen.numel < positions * VOCAB / 2


def test_adapters_of_one_model():
    """The policy is an adapter, and the start model the same module without it."""
    base = tiny_model(0)
    truth_start = tiny_model(0)
    torch.manual_seed(5)
    options = {"r": 4, "lora_alpha": 64, "init_lora_weights": False, "target_modules": ["v_proj"]}
    policy = get_peft_model(base, LoraConfig(**options)).double()
    groups = everything(policy)

    @contextmanager
    def bare():
        with policy.disable_adapter():
            yield policy

    found = divergences(playing(policy), bare, groups, pad_id=END)
    for group, row in zip(groups, found, strict=True):
        truth = exact(policy, truth_start, group)
        assert truth > 1e-4
        assert distance([row], [group.weights]).kl.value == pytest.approx(truth, abs=1e-9)


def test_tokens_that_cannot_be_drawn():
    logits = torch.tensor([[0.0, 1.0, -torch.inf], [0.0, -torch.inf, -torch.inf]]).double()
    other = torch.tensor([[0.5, 0.0, -torch.inf], [0.0, 0.0, 0.0]]).double()
    policy, start = NextTokens(logits, None), NextTokens(other, None)
    _, _, kl = token_divergences(policy, start, torch.tensor([0, 0]))
    p, q = logits[0, :2].softmax(-1), other[0, :2].softmax(-1)
    assert kl.tolist() == pytest.approx([float((p * (p / q).log()).sum()), np.log(3)])
    _, _, back = token_divergences(start, policy, torch.tensor([0, 0]))
    assert back[1] == torch.inf


def test_other_vocabularies_are_refused():
    policy, start = NextTokens(torch.zeros(1, 3), None), NextTokens(torch.zeros(1, 4), None)
    with pytest.raises(ModelError, match=r"3 tokens and the start model 4.*--start"):
        token_divergences(policy, start, torch.tensor([0]))


# -- means ----------------------------------------------------------------------------------


def test_means_by_hand():
    found = [
        [Divergence(-1.0, -2.0, 0.5, 2, True), Divergence(-3.0, -2.0, 1.5, 4, False)],
        [Divergence(-2.0, -5.0, 2.0, 3, True), Divergence(-2.0, -5.0, 4.0, 5, True)],
    ]
    far = distance(found, longest=5)
    assert (far.kl.value, far.k1.value) == (2.0, 1.5)
    assert (far.tokens.value, far.finished) == (3.5, 0.75)
    assert far.per_token.value == pytest.approx(2.0 / 3.5)
    # Student's t for two prompts: 12.706 standard errors of 1 about 2, cut at 0.
    assert (far.kl.low, far.kl.high) == pytest.approx((0.0, 2.0 + 12.706), abs=1e-3)
    assert (far.k1.low, far.k1.high) == pytest.approx((1.5 - 19.059, 1.5 + 19.059), abs=1e-3)
    residuals = np.array([1.0, 3.0]) - 2.0 / 3.5 * np.array([3.0, 4.0])
    width = 12.7062 * residuals.std(ddof=1) / np.sqrt(2) / 3.5
    assert far.per_token.high - far.per_token.value == pytest.approx(width, rel=1e-4)
    assert far.tokens.high < 5.0
    weighted = distance(found, [[1.0, 0.0], [0.25, 0.75]])
    assert weighted.kl.value == pytest.approx((0.5 + 3.5) / 2)
    assert weighted.finished == 1.0


def test_one_prompt_says_nothing_of_the_spread():
    far = distance([[Divergence(-1.0, -2.0, 0.5, 2, True)]], longest=9)
    assert (far.kl.low, far.kl.high) == (0.0, np.inf)
    assert (far.tokens.low, far.tokens.high) == (0.0, 9)
    with pytest.raises(ValueError, match="at least one prompt"):
        distance([])
