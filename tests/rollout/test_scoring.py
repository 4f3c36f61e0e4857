"""Scores without logits: values and every gradient of the plain computation, on any model."""

import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from equilign.losses import logps as chunked
from equilign.rollout import completion_logps, pad_pairs, scoring
from equilign.rollout.output_layer import output_layer
from equilign.rollout.scoring import completion_token_logps
from tests.arrays import LargestArray

VOCAB = 50
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
PROMPTS = [(1, 2, 3), (4,), (5, 6, 7, 8, 9, 10), (11, 12)]
ANSWERS = [(3, 40, 0), (7, 8, 9, 41, 42, 0), (0,), (13, 14, 15)]


def llama(**options):
    return LlamaForCausalLM(LlamaConfig(**{**SMALL, **options}))


def lora(**options):
    config = LoraConfig(r=2, init_lora_weights=False, **options)
    return get_peft_model(llama(), config)


def gemma2():
    config = Gemma2Config(**SMALL, head_dim=8, query_pre_attn_scalar=8, sliding_window=3)
    config.final_logit_softcapping = 0.5
    return Gemma2ForCausalLM(config)


def cohere():
    return CohereForCausalLM(CohereConfig(**{**SMALL, "logit_scale": 3.0}))


def checkpointing():
    model = llama()
    with warnings.catch_warnings():  # renamed in transformers 5.23
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable()
    return model.train()


# name -> (model, whether its logits need not exist)
MODELS = {
    "untied": (lambda: llama(tie_word_embeddings=False), True),
    "tied": (lambda: llama(tie_word_embeddings=True), True),
    "gpt2": (
        lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=16, n_layer=2, n_head=2)
        ),
        True,
    ),
    "bias": (
        lambda: PhiForCausalLM(PhiConfig(**{**SMALL, "num_key_value_heads": 2})),
        True,
    ),
    "softcap": (gemma2, True),
    "mamba": (
        lambda: MambaForCausalLM(
            MambaConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, state_size=4)
        ),
        True,
    ),
    "lora": (lambda: lora(target_modules=["q_proj"]), True),
    "checkpointing": (checkpointing, True),
    "scaled logits": (cohere, False),
    "lora on the output": (lambda: lora(target_modules=["lm_head"]), False),
    "output trained beside lora": (
        lambda: lora(target_modules=["q_proj"], modules_to_save=["lm_head"]),
        False,
    ),
}


FLOAT32_INSIDE = ("softcap", "mamba", "scaled logits")  # norms, softmax or logits of their own


def make(name):
    torch.manual_seed(0)
    model = MODELS[name][0]().double()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():  # far from uniform
        head = model.get_output_embeddings()
        for p in head.parameters():
            p.mul_(20.0) if p.ndim == 2 else p.normal_()
    return model


def one_by_one(model, temperature, prompts=PROMPTS, answers=ANSWERS):
    """Row after row without padding or cache, all logits, `log_softmax`."""
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0]
        law = (logits[len(prompt) - 1 : -1] / temperature).log_softmax(-1)
        rows.append(law[torch.arange(len(answer)), torch.tensor(answer)])
    return rows


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def same_gradients(found, wanted, close):
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        scale = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(found[key], value, rtol=0, atol=close * scale, msg=key)


SIDES = [(n, s) for n in MODELS for s in ("right", "left") if (n, s) != ("mamba", "left")]
"""A state space model reads its padding."""


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_values_and_gradients_are_those_of_the_plain_computation(name, side, monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", 4 * VOCAB)
    monkeypatch.setattr(scoring, "CHUNK_ELEMENTS", 4 * VOCAB)
    model = make(name)
    if side == "left" and name in ("softcap", "bias"):
        model = model.float()  # their own attention knows no left padding in float64
    weights = torch.linspace(-1.0, 2.0, 13, dtype=torch.float64)
    exact = model.dtype == torch.float64 and name not in FLOAT32_INSIDE
    close = 1e-12 if exact else (1e-5 if model.dtype == torch.float64 else 5e-5)
    want = [x.double() for x in one_by_one(model, 0.7)]
    wanted = gradients(model, torch.cat(want) @ weights)
    got, mask = completion_token_logps(
        model, PROMPTS, ANSWERS, pad_id=0, temperature=0.7, side=side
    )
    assert mask.sum(1).tolist() == [len(a) for a in ANSWERS]
    torch.testing.assert_close(got[mask].double(), torch.cat(want), rtol=0, atol=close)
    assert (got[~mask] == 0).all()
    found = gradients(model, got[mask].double() @ weights)
    same_gradients(found, wanted, close)
    total = completion_logps(model, PROMPTS, ANSWERS, pad_id=0, temperature=0.7, side=side)
    torch.testing.assert_close(
        total.double(), torch.stack([x.sum() for x in want]), rtol=0, atol=close
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_way_taken_and_nothing_left_behind(name):
    """The model is as it was: its logits are logits again, its soft cap is there."""
    model, apart = make(name), MODELS[name][1]
    inputs = {"input_ids": torch.tensor([[1, 2, 3]]), "use_cache": False}
    before = model(**inputs).logits
    assert (output_layer(model, inputs) is not None) == apart
    completion_logps(model, PROMPTS, ANSWERS, pad_id=0)
    assert torch.equal(model(**inputs).logits, before)


def test_compiled_and_hooked_output_layers_are_left_alone():
    inputs = {"input_ids": torch.tensor([[1, 2, 3]]), "use_cache": False}
    model = make("untied")
    assert output_layer(torch.compile(model, backend="eager"), inputs) is None
    assert output_layer(model, inputs) is not None
    model.lm_head.forward = lambda hidden: hidden  # as accelerate's device hooks do
    assert output_layer(model, inputs) is None
    assert output_layer(torch.nn.Linear(2, 2), inputs) is None


def test_nothing_is_left_behind_by_a_failure():
    model = make("softcap")
    inputs = {"input_ids": torch.tensor([[1, 2, 3]]), "use_cache": False}
    before = model(**inputs).logits
    completion_logps(model, PROMPTS, ANSWERS, pad_id=0)
    with pytest.raises(IndexError):
        completion_logps(model, [(VOCAB + 1,)], [(1,)], pad_id=0)
    assert torch.equal(model(**inputs).logits, before)


def sizes(model, name):
    """Largest array of a forward and backward pass."""
    torch.manual_seed(0)
    prompts = [tuple(torch.randint(VOCAB, (20,)).tolist()) for _ in range(4)]
    with LargestArray() as seen:
        completion_logps(model, prompts, prompts, pad_id=0).sum().backward()
    return seen.numel


@pytest.mark.parametrize("name", ["untied", "tied", "lora", "checkpointing", "bias"])
def test_logits_of_batch_times_length_times_vocabulary_never_exist(name, monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", 4 * VOCAB)
    model = make(name)
    sizes(model, name)  # the first pass finds out, on one row, what the model does to its logits
    layers = 4 * 40 * 24  # the largest array of the layers
    assert sizes(model, name) <= max(layers, VOCAB * 16) < 4 * 20 * VOCAB
    monkeypatch.setattr(scoring, "output_layer", lambda *_: None)
    assert sizes(model, name) >= 4 * 20 * VOCAB, "the test could not tell"


def test_widened_logits_are_widened_in_chunks(monkeypatch):
    """Where a model makes its logits in bfloat16, no float32 copy of all of them exists."""
    monkeypatch.setattr(scoring, "CHUNK_ELEMENTS", 4 * 5 * VOCAB)
    seen = []
    plain = scoring.token_logps
    monkeypatch.setattr(
        scoring, "token_logps", lambda x, ids: (seen.append((x.numel(), x.dtype)), plain(x, ids))[1]
    )
    model = make("scaled logits").bfloat16()
    completion_logps(model, PROMPTS, ANSWERS, pad_id=0).sum().backward()
    assert {d for _, d in seen} == {torch.float32}
    assert max(n for n, _ in seen) <= 4 * 5 * VOCAB
    assert len(seen) >= 4  # two chunks, forward and for the gradient


@pytest.mark.parametrize("name", ["untied", "lora", "scaled logits"])
def test_autocast_agrees_with_logits_in_half_precision(name, monkeypatch):
    model = make(name).float()
    with torch.autocast("cpu", torch.bfloat16):
        want = torch.stack([x.float().sum() for x in one_by_one_wide(model)])
        got = completion_logps(model, PROMPTS, ANSWERS, pad_id=0)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=0.02, atol=0.1)
    wanted, found = gradients(model, want.sum()), gradients(model, got.sum())
    for key, value in wanted.items():
        error = (found[key] - value).norm() / (value.norm() + 1e-3)
        assert error < 0.05, key


def one_by_one_wide(model):
    rows = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0]
        law = logits[len(prompt) - 1 : -1].float().log_softmax(-1)
        rows.append(law[torch.arange(len(answer)), torch.tensor(answer)])
    return rows


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_under_ddp_its_hooks_run_and_the_numbers_are_the_same(one_process):
    model = make("untied")
    want = completion_logps(model, PROMPTS, ANSWERS, pad_id=0)
    wanted = gradients(model, want.sum())
    wrapped = DistributedDataParallel(model)
    calls = []
    wrapped.register_comm_hook(
        None, lambda _, bucket: (calls.append(1), future(bucket.buffer()))[1]
    )
    got = completion_logps(wrapped, PROMPTS, ANSWERS, pad_id=0)
    assert torch.equal(got, want)
    found = gradients(model, got.sum())
    assert calls, "gradients were not reduced"
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-13)


def future(value):
    made = torch.futures.Future()
    made.set_result(value)
    return made


def test_hooks_of_the_output_layer_still_run():
    """A critic reads the states there."""
    model, seen = make("untied"), []
    completion_logps(model, PROMPTS, ANSWERS, pad_id=0)
    model.lm_head.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    completion_logps(model, PROMPTS, ANSWERS, pad_id=0)
    ids, _, answer = pad_pairs(PROMPTS, ANSWERS, 0, "right")
    first = int(answer.long().argmax(-1).min())
    assert seen == [(4, ids.shape[1] - first + 1, 16)]
