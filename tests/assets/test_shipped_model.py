"""The model in the package: what its card promises, measured again."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from equilign.models import load_model, load_tokenizer, shipped_model_path
from equilign.rollout import SamplingConfig, TransformersSampler, prompt_text
from equilign.tasks.prompts import restaurant_prompts
from equilign.tasks.restaurants import coverage, parse_attributes

FOLDER = shipped_model_path()


@pytest.fixture(scope="module")
def chat():
    return load_model("shipped"), load_tokenizer("shipped")


def test_ordinary_transformers_format_and_size():
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert 4e6 <= model.num_parameters() <= 8e6
    assert model.config.model_type == "llama"
    assert len(tokenizer) == model.config.vocab_size == 4096
    assert (FOLDER / "model.safetensors").stat().st_size <= 16e6
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(k).dtype for k in weights.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_card_states_licence_and_the_numbers_of_the_measurement():
    card = (FOLDER / "README.md").read_text()
    measured = json.loads((FOLDER / "measured.json").read_text())
    assert "CC BY-SA 4.0" in card
    assert f"**{measured['slots']['slot_accuracy']:.4f}**" in card
    assert f"| {measured['restaurants']['per_token']:.2f} (" in card
    assert f"| {measured['stories']['per_token']:.2f} (" in card
    assert card.count("\n- `name[") == 7
    assert card.count("  **...**") == 3


def test_slot_accuracy_on_held_out_inputs(chat):
    """On the 128 evaluation inputs, greedy: the promise is 0.97 on all 400."""
    sampler = TransformersSampler(*chat, SamplingConfig(96, temperature=0.0, batch_size=128))
    groups = sampler.sample(restaurant_prompts("evaluate"), 1, seed=0)
    found = [
        coverage(parse_attributes(prompt_text(g.prompt)), g.completions[0].text) for g in groups
    ]
    realised = sum(len(f.realised) for f in found)
    assert realised / (realised + sum(len(f.missing) for f in found)) >= 0.97
    assert all(g.completions[0].finished for g in groups)


def test_template_writes_one_bos_and_ends_every_turn(chat):
    tokenizer = chat[1]
    messages = [
        {"role": "user", "content": "name[A]"},
        {"role": "assistant", "content": "A."},
        {"role": "user", "content": "Improve the answer."},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|bos|><|user|>name[A]<|end|><|assistant|>A.<|end|>"
        "<|user|>Improve the answer.<|end|><|assistant|>"
    )
    assert tokenizer(text, add_special_tokens=False)["input_ids"].count(tokenizer.bos_token_id) == 1
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_template_marks_the_assistants_tokens(chat):
    out = chat[1].apply_chat_template(
        [{"role": "user", "content": "name[A]"}, {"role": "assistant", "content": "A pub."}],
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    marked = [i for i, m in zip(out["input_ids"], out["assistant_masks"], strict=True) if m]
    assert chat[1].decode(marked) == "A pub.<|end|>"


@given(text=st.text())
def test_tokenizer_encodes_every_string_and_gives_it_back(text):
    tokenizer = load_tokenizer("shipped")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_nothing_of_the_package_reads_outside_the_repository():
    root = Path(__file__).resolve().parents[2]
    for folder in ("src", "recipes", "benchmarks", "tests"):
        for path in (root / folder).rglob("*.py"):
            if path != Path(__file__):
                assert '"../' not in path.read_text(encoding="utf-8"), path
