"""Measure the shipped model on held-out material and write its model card.

    python recipes/shipped_model/evaluate.py --model build/shipped_model/model --install

Perplexity on the human sentences of the 400 held-out restaurant inputs and on the held-out story
blocks, slot accuracy with greedy decoding, ten sample outputs. `--install` copies the model and
the card into the package.
"""

import argparse
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import corpus
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from equilign.evaluation.intervals import wilson
from equilign.models import load_model, load_tokenizer
from equilign.rollout import (
    Completion,
    SamplingConfig,
    TransformersSampler,
    encode_prompt,
    score_completions,
)
from equilign.tasks.restaurants import Coverage, coverage, parse_attributes

TARGET = Path(__file__).resolve().parents[2] / "src" / "equilign" / "assets" / "chat"
CARD = Path(__file__).with_name("model_card.md")


@dataclass(frozen=True)
class Perplexity:
    """Negative log-likelihood of texts.

    Attributes:
        per_token: exp of the mean over tokens, the end token included.
        bits_per_byte: independent of the tokenizer.
        tokens: counted.
    """

    per_token: float
    bits_per_byte: float
    tokens: int


@dataclass(frozen=True)
class Model:
    """A model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def perplexity(chat: Model, pairs: list[tuple[list[dict[str, str]], str]]) -> Perplexity:
    """Of answers given their prompts."""
    prompts = [encode_prompt(chat.tokenizer, p) for p, _ in pairs]
    end = chat.tokenizer.eos_token_id
    answers = [(*chat.tokenizer(a, add_special_tokens=False)["input_ids"], end) for _, a in pairs]
    logps = score_completions(chat.model, prompts, answers, pad_id=0)
    tokens, size = sum(map(len, answers)), sum(len(a.encode()) for _, a in pairs)
    return Perplexity(math.exp(-sum(logps) / tokens), -sum(logps) / math.log(2) / size, tokens)


def restaurant_pairs(data: corpus.Restaurants) -> list[tuple[list[dict[str, str]], str]]:
    """Every human sentence of every held-out input."""
    return [
        ([{"role": "user", "content": mr}], ref)
        for mr, refs in sorted(data.sentences.items())
        for ref in refs
    ]


def story_pairs(blocks: list[str]) -> list[tuple[list[dict[str, str]], str]]:
    """The first 300 characters of each half of a held-out block ask for the next 700."""
    pairs = []
    for block in blocks:
        for start in (0, len(block) // 2):
            prompt, answer = block[start : start + 300], block[start + 300 : start + 1000]
            if len(answer) > 200:
                message = {"role": "user", "content": corpus.CONTINUE + prompt}
                pairs.append(([message], answer))
    return pairs


def greedy(chat: Model, prompts: list[list[dict[str, str]]]) -> list[Completion]:
    """The greedy answer to every prompt."""
    config = SamplingConfig(max_new_tokens=96, temperature=0.0)
    sampler = TransformersSampler(chat.model, chat.tokenizer, config)
    return [g.completions[0] for g in sampler.sample(prompts, 1, seed=0)]


def covered(inputs: list[str], texts: list[str]) -> tuple[list[Coverage], int, int]:
    """What each text says of its input; values realised and requested in all."""
    found = [coverage(parse_attributes(m), t) for m, t in zip(inputs, texts, strict=True)]
    realised = sum(len(f.realised) for f in found)
    return found, realised, realised + sum(len(f.missing) for f in found)


def slots(chat: Model, inputs: list[str]) -> dict:
    """Share of requested values that greedy answers realise, and how many invent others."""
    answers = greedy(chat, [[{"role": "user", "content": mr}] for mr in inputs])
    texts = [a.text for a in answers]
    found, realised, total = covered(inputs, texts)
    estimate = wilson(realised, total)
    return {
        "slot_accuracy": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "values": total,
        "complete_share": sum(not f.missing for f in found) / len(found),
        "invented_share": sum(bool(f.invented) for f in found) / len(found),
        "finished_share": sum(a.finished for a in answers) / len(answers),
        "texts": texts,
    }


def improved(chat: Model, data: corpus.Restaurants, inputs: list[str]) -> dict:
    """Slots of an "improve the answer" turn after the poorest human sentence of each input."""

    def poorest(mr: str) -> str:
        wanted = parse_attributes(mr)
        return min(data.sentences[mr], key=lambda s: (coverage(wanted, s).share, s))

    before = [poorest(mr) for mr in inputs]
    chats = [
        [
            {"role": "user", "content": mr},
            {"role": "assistant", "content": b},
            {"role": "user", "content": corpus.IMPROVE},
        ]
        for mr, b in zip(inputs, before, strict=True)
    ]
    after = [a.text for a in greedy(chat, chats)]
    shares = [covered(inputs, texts)[1:] for texts in (before, after)]
    return {"before": shares[0][0] / shares[0][1], "after": shares[1][0] / shares[1][1]}


def continuations(chat: Model, blocks: list[str]) -> list[tuple[str, str]]:
    """Sampled continuations of three held-out passages."""
    starts = [b[:200].rsplit(" ", 1)[0] for b in blocks[:3]]
    prompts = [[{"role": "user", "content": corpus.CONTINUE + s}] for s in starts]
    sampler = TransformersSampler(chat.model, chat.tokenizer, SamplingConfig(60, temperature=0.7))
    return [
        (s, g.completions[0].text)
        for s, g in zip(starts, sampler.sample(prompts, 1, seed=0), strict=True)
    ]


def measure(folder: str) -> dict:
    """Everything the card reports."""
    chat = Model(load_model(folder), load_tokenizer(folder))
    _, held_out = corpus.load_restaurants()
    _, blocks = corpus.load_stories()
    inputs = sorted(held_out.sentences, key=corpus._hash)
    return {
        "parameters": chat.model.num_parameters(),
        "restaurants": perplexity(chat, restaurant_pairs(held_out)).__dict__,
        "stories": perplexity(chat, story_pairs(blocks)).__dict__,
        "slots": slots(chat, inputs),
        "improve": improved(chat, held_out, inputs),
        "inputs": inputs,
        "continuations": continuations(chat, blocks),
    }


def card(found: dict) -> str:
    """The model card: the template with the measured numbers and samples filled in."""
    shown = [
        f"- `{m}`\n  {t}"
        for m, t in list(zip(found["inputs"], found["slots"]["texts"], strict=True))[:7]
    ]
    tales = [
        f"- {' '.join(a.split())} ...\n  **...** {' '.join(b.split())}"
        for a, b in found["continuations"]
    ]
    s, r, t = found["slots"], found["restaurants"], found["stories"]
    return CARD.read_text(encoding="utf-8").format(
        parameters=f"{found['parameters'] / 1e6:.2f}",
        slot_accuracy=f"{s['slot_accuracy']:.4f}",
        slot_low=f"{s['low']:.4f}",
        slot_high=f"{s['high']:.4f}",
        values=s["values"],
        complete=f"{100 * s['complete_share']:.1f}",
        invented=f"{100 * s['invented_share']:.1f}",
        before=f"{found['improve']['before']:.3f}",
        after=f"{found['improve']['after']:.3f}",
        e2e_ppl=f"{r['per_token']:.2f}",
        e2e_bits=f"{r['bits_per_byte']:.3f}",
        e2e_tokens=r["tokens"],
        story_ppl=f"{t['per_token']:.2f}",
        story_bits=f"{t['bits_per_byte']:.3f}",
        story_tokens=t["tokens"],
        samples="\n".join([*shown, *tales]),
    )


def main() -> None:
    """Measure, print, and install when asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="build/shipped_model/model")
    parser.add_argument("--install", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    found = measure(args.model)
    text = card(found)
    numbers = {k: v for k, v in found.items() if k not in ("inputs", "continuations")}
    numbers["slots"] = {k: v for k, v in found["slots"].items() if k != "texts"}
    print(json.dumps(numbers, indent=2))
    if args.install:
        TARGET.mkdir(parents=True, exist_ok=True)
        for file in Path(args.model).iterdir():
            shutil.copy2(file, TARGET / file.name)
        (TARGET / "README.md").write_text(text, encoding="utf-8")
        (TARGET / "measured.json").write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
