"""Prompts read once: the numbers and gradients of one row per pair, with fewer tokens read."""

import json
from pathlib import Path

import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    MptConfig,
    MptForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
)

from equilign.rollout import completion_logps, prefix, score_completions
from equilign.rollout.scoring import batching_order, completion_token_logps
from tests.rollout.test_scoring import (
    FLOAT32_INSIDE,
    MODELS,
    SMALL,
    VOCAB,
    checkpointing,
    gradients,
    llama,
    make,
    one_by_one,
    same_gradients,
)
from tests.trainers.launch import start

A, B, C = (1, 2, 3, 4, 5, 6, 7, 8), (9, 10, 11, 12, 13), (14, 15, 16, 17, 18, 19, 20)
PROMPTS = [A, B, A, C, A, B, C, A, A]
ANSWERS = [
    *((3, 40, 0), (7, 8, 9, 41, 42, 21, 22, 0), (23,), (13, 14, 15), (24, 25, 26, 27, 0)),
    *((28, 0), (29, 30, 31, 32, 33, 34, 35, 36, 37, 0), (38,), (3, 40, 39)),
]

# name -> how to make one whose past is read in another way: by distance, by count, by window
OTHERS = {
    "bloom": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=VOCAB, hidden_size=16, n_layer=2, n_head=2)
    ),
    "mpt": lambda: MptForCausalLM(
        MptConfig(vocab_size=VOCAB, d_model=16, n_layers=2, n_heads=2, max_seq_len=64)
    ),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCAB, hidden_size=16, ffn_dim=24, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=64, word_embed_proj_dim=16, dropout=0.0,
        )
    ),
    "neox": lambda: GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=64,
        )
    ),
    "window": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)),
}  # fmt: skip
SHARING = [name for name in MODELS if name not in ("mamba", "checkpointing")]
LOOSE = {*FLOAT32_INSIDE, "bloom", "mpt", "opt"}  # parts of theirs compute in float32


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(prefix, "_LEAST", 1)
    monkeypatch.setattr(prefix, "_WORTH", 1.0)


def build(name, padded):
    torch.manual_seed(0)
    model = make(name) if name in MODELS else OTHERS[name]().double().eval()
    # Their own attention knows no left padding in float64.
    return model.float() if padded and name in ("softcap", "bias", "bloom", "mpt") else model


def plain(model, prompts=PROMPTS, answers=ANSWERS):
    """Row after row, nothing padded, no cache."""
    return [x.double() for x in one_by_one(model, 0.7, prompts, answers)]


class Reads:
    """Shapes of the token arrays that a model is given."""

    def __init__(self, model):
        self.shapes = []
        model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module, args, kwargs):
        self.shapes.append(tuple(kwargs["input_ids"].shape))


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("one_run", [False, True])
@pytest.mark.parametrize("name", [*SHARING, *OTHERS])
def test_values_and_gradients_are_those_of_the_plain_computation(name, one_run, padded):
    model = build(name, padded)
    prompts = PROMPTS if padded else [(*p, *range(21, 29))[:8] for p in PROMPTS]
    want = plain(model, prompts)
    weights = torch.linspace(-1.0, 2.0, sum(map(len, ANSWERS)), dtype=torch.float64)
    wanted = gradients(model, torch.cat(want) @ weights)
    completion_logps(model, prompts[:1], ANSWERS[:1], pad_id=0)  # a first pass looks at the model
    reads = Reads(model)
    got, mask = completion_token_logps(
        model, prompts, ANSWERS, pad_id=0, temperature=0.7, one_run=one_run
    )
    assert reads.shapes[0] == (3, 7)
    assert (len(reads.shapes) == 2) == one_run
    assert sum(n for n, _ in reads.shapes[1:]) == len(ANSWERS)
    assert mask.sum(1).tolist() == [len(a) for a in ANSWERS]
    close = 1e-12 if model.dtype == torch.float64 and name not in LOOSE else 5e-5
    torch.testing.assert_close(got[mask].double(), torch.cat(want), rtol=0, atol=close)
    assert (got[~mask] == 0).all()
    found = gradients(model, got[mask].double() @ weights)
    # Norms compute in float32: sums of gradients in another order round otherwise.
    same_gradients(found, wanted, max(close, 1e-7))


@pytest.mark.parametrize("name", ["untied", "lora"])
def test_under_autocast_the_gradient_is_that_of_half_precision(name):
    model = make(name).float()
    weights = torch.linspace(-1.0, 2.0, sum(map(len, ANSWERS)))
    with torch.autocast("cpu", torch.bfloat16):
        want = torch.cat(plain(model)).float()
        got, mask = completion_token_logps(model, PROMPTS, ANSWERS, pad_id=0, temperature=0.7)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got[mask], want, rtol=0.02, atol=0.1)
    wanted, found = gradients(model, want @ weights), gradients(model, got[mask] @ weights)
    for key, value in wanted.items():
        assert (found[key] - value).norm() < 0.05 * (value.norm() + 0.02), key


def test_completions_of_similar_length_are_read_together(monkeypatch):
    model, answers = make("untied"), [(1,) * n for n in (2, 30, 2, 3, 29, 2, 2, 3)]
    monkeypatch.setattr(prefix, "_LEAST", 20)
    reads = Reads(model)
    completion_logps(model, [A] * 8, answers, pad_id=0)
    assert reads.shapes[-2:] == [(2, 31), (6, 4)]  # the last token of the prompt is read again


def test_runs_are_cut_where_that_saves_most():
    lengths = [9, 1, 4, 9, 1, 4]
    order = sorted(range(6), key=lambda i: (-lengths[i], i))
    assert prefix._runs(order, lengths, 1) == [(0, 3), (2, 5), (1, 4)]
    assert prefix._runs(order, lengths, 7) == [(0, 3), (2, 5, 1, 4)]  # saves 20, then but 6
    assert prefix._runs(order, lengths, 21) == [tuple(order)]
    assert prefix._runs([0, 3], lengths, 1) == [(0, 3)]


def test_a_pass_that_saves_little_is_not_made(monkeypatch):
    model = make("untied")
    completion_logps(model, [A], ANSWERS[:1], pad_id=0)
    reads = Reads(model)
    completion_logps(model, [A, B, C], ANSWERS[:3], pad_id=0)  # nobody's prompt is another's
    completion_logps(model, [(1,), (1,)], ANSWERS[:2], pad_id=0)  # nothing before the last token
    assert reads.shapes == [(3, 13), (2, 9)]
    monkeypatch.setattr(prefix, "_LEAST", 6)
    completion_logps(model, [A] * 2, [(1,)] * 2, pad_id=0)  # 18 tokens at once, 7 + 4 in two
    assert reads.shapes[-2:] == [(1, 7), (2, 2)]
    monkeypatch.setattr(prefix, "_LEAST", 8)
    completion_logps(model, [A] * 2, [(1,)] * 2, pad_id=0)
    assert reads.shapes[-1] == (2, 9)
    monkeypatch.setattr(prefix, "_LEAST", 1)
    monkeypatch.setattr(prefix, "_WORTH", 0.6)
    completion_logps(model, [A] * 2, [(1,)] * 2, pad_id=0)
    assert reads.shapes[-1] == (2, 9)


def tuned(kind):
    return get_peft_model(llama(), kind(task_type="CAUSAL_LM", num_virtual_tokens=2))


class Wrapped(torch.nn.Module):
    """As DDP wraps a model."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, **inputs):
        return self.module(**inputs)


WHOLE_ROWS = {
    "mamba": MODELS["mamba"][0],
    "checkpointing": checkpointing,
    "prefix tuning": lambda: tuned(PrefixTuningConfig),
    "prompt tuning, wrapped": lambda: Wrapped(tuned(PromptTuningConfig)),
    "compiled": lambda: torch.compile(llama(), backend="eager"),
    "no cache": lambda: OpenAIGPTLMHeadModel(
        OpenAIGPTConfig(vocab_size=VOCAB, n_positions=64, n_embd=16, n_layer=2, n_head=2)
    ),
    "angles by length": lambda: llama(rope_parameters=dict(DYNAMIC)),
    "positions after padding": lambda: RobertaForCausalLM(
        RobertaConfig(**{**SMALL, "num_key_value_heads": 2, "pad_token_id": 1}, is_decoder=True)
    ),
    "router": lambda: MixtralForCausalLM(
        MixtralConfig(**SMALL, num_local_experts=2, output_router_logits=True)
    ),
}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}


@pytest.mark.parametrize("name", WHOLE_ROWS)
def test_models_without_a_past_to_share_read_whole_rows(name):
    torch.manual_seed(0)
    model = WHOLE_ROWS[name]()
    assert prefix.read_prompts(model, PROMPTS, ANSWERS, 0) is None
    if name in ("no cache", "angles by length", "positions after padding", "router"):
        model = model.eval()
        logps, mask = completion_token_logps(model, PROMPTS, ANSWERS, pad_id=0, temperature=0.7)
        found = logps[mask].detach().double()
        torch.testing.assert_close(found, torch.cat(plain(model)).detach(), rtol=0, atol=2e-5)
    if name == "checkpointing":
        model.eval()  # then nothing is forgotten
        assert prefix.read_prompts(model, PROMPTS, ANSWERS, 0) is not None


def test_under_checkpointing_the_gradient_is_the_same():
    torch.manual_seed(0)
    model = checkpointing().double()
    wanted = gradients(model, torch.cat(plain(model)).sum())
    found = gradients(
        model, completion_logps(model, PROMPTS, ANSWERS, pad_id=0, temperature=0.7).sum()
    )
    same_gradients(found, wanted, 1e-11)


def test_batches_keep_a_prompt_s_completions_together():
    order = batching_order(PROMPTS, ANSWERS)
    assert sorted(order) == list(range(9))
    runs = [PROMPTS[i] for i in order]
    assert all(runs.index(p) + runs.count(p) == 9 - runs[::-1].index(p) for p in (A, B, C))
    mine = [len(ANSWERS[i]) for i in order if PROMPTS[i] == A]
    assert mine == sorted(mine)
    # Where no prompt is another's: by length.
    assert batching_order([A, B, (1,)], [(1,), (1,), (1,)]) == [2, 1, 0]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_scores_do_not_depend_on_the_batches(batch_size):
    model = make("untied")
    want = [x.sum().item() for x in plain(model)]
    got = score_completions(
        model, PROMPTS, ANSWERS, pad_id=0, temperature=0.7, batch_size=batch_size
    )
    torch.testing.assert_close(torch.tensor(got), torch.tensor(want), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "kind",
    [
        "ddp, unused",
        pytest.param("ddp", marks=pytest.mark.slow),
        pytest.param("fsdp2", marks=pytest.mark.slow),
    ],
)
def test_processes_of_which_one_could_not_share(kind, tmp_path):
    """Each makes as many forward passes as the others: none waits for ever, none goes wrong."""
    script = Path(__file__).parent / "prefix_ranks.py"
    start(script, tmp_path, 2, kind)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        # Training: all share, or none does. Without a gradient: as each likes.
        both = 1 if kind == "fsdp2" else 2
        assert found["passes"] == [[both, both], [1, 1], [3 if rank == 0 else 1]]
        assert found["error"] < 1e-7
