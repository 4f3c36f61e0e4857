"""Train the chat model that ships with equilign, from nothing, on the text in `data/text`.

    python recipes/shipped_model/train.py --output-dir build/shipped_model

The run is a function of seed, steps and number of threads; it saves its state every few hundred
steps and goes on from there when called again. About 70 minutes on one CPU core with bfloat16
instructions; on a GPU use `--device cuda` (not run here).
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import corpus
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<|pad|>", "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|end|>' }}"
    "{% endgeneration %}{% else %}{{ m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CONTEXT = 512
LATE = 0.4  # from this share of the steps on, more restaurants and fewer stories


def build_tokenizer(texts: list[str], vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every string has an encoding and decodes to itself."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<|pad|>",
        bos_token="<|bos|>",
        eos_token="<|end|>",
        additional_special_tokens=SPECIAL[3:],
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def build_model(vocab_size: int) -> LlamaForCausalLM:
    """Four wide layers rather than six narrow ones: decoding time goes with depth."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=320,
        intermediate_size=864,
        num_hidden_layers=4,
        num_attention_heads=10,
        num_key_value_heads=10,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def encode(tokenizer: PreTrainedTokenizerFast, talk: corpus.Conversation) -> tuple[list, list]:
    """Token ids and labels (-100 where the loss does not count)."""

    def ids_of(messages: list, prompt: bool) -> list[int]:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    ids = ids_of(talk.messages, False)
    skip = len(ids_of(talk.messages[: talk.learn_from], True)) if talk.learn_from else 1
    return ids[:CONTEXT], ([-100] * skip + ids[skip:])[:CONTEXT]


def collate(rows: list[tuple[list, list]], device: str) -> dict[str, torch.Tensor]:
    """Right padding; labels of padding are -100."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for i, (row, label) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, : len(label)] = torch.tensor(label)
        mask[i, : len(row)] = 1
    return {
        k: v.to(device)
        for k, v in {"input_ids": ids, "attention_mask": mask, "labels": labels}.items()
    }


class Batches:
    """Step -> two batches (restaurants, stories); a pure function of seed and step."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace) -> None:
        self.tokenizer, self.args = tokenizer, args
        self.restaurants, _ = corpus.load_restaurants()
        self.stories, _ = corpus.load_stories()
        self.inputs = sorted(self.restaurants.clean)
        real = sorted(
            {
                v
                for mr in self.inputs
                for k, v in corpus.parse_attributes(mr).items()
                if k in ("name", "near")
            }
        )
        made = corpus.invented_names(self.stories, random.Random(args.seed))
        self.names = real * 8 + made
        self.weights = [len(s) for s in self.stories]

    def __call__(self, step: int) -> list[dict[str, torch.Tensor]]:
        """The two batches of a step."""
        rng = random.Random(f"{self.args.seed}-{step}")
        late = step >= self.args.steps * LATE
        many, few = (24, 3) if late else (16, 5)
        talks = [
            corpus.restaurant_conversation(
                self.restaurants, rng.choice(self.inputs), self.names, rng
            )
            for _ in range(many)
        ]
        tales = [
            corpus.story_conversation(rng.choices(self.stories, self.weights)[0], rng)
            for _ in range(few)
        ]
        return [
            collate([encode(self.tokenizer, t) for t in part], self.args.device)
            for part in (talks, tales)
            if part
        ]


def train(args: argparse.Namespace) -> None:
    """The loop: AdamW, linear warm-up, cosine to zero."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    out = Path(args.output_dir)
    out.mkdir(parents=True, exist_ok=True)
    stories, _ = corpus.load_stories()
    restaurants, _ = corpus.load_restaurants()
    sentences = [s for mr, refs in restaurants.sentences.items() for s in (mr, *refs)]
    tokenizer = build_tokenizer([*stories, *sentences * 3])
    model = build_model(len(tokenizer)).to(args.device)
    decay = [p for p in model.parameters() if p.ndim >= 2]
    other = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}],
        lr=args.learning_rate,
        betas=(0.9, 0.95),
        eps=1e-8,
        fused=True,
    )
    state_file = out / "state.pt"
    step, before = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, map_location=args.device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, before = state["step"], state["seconds"]
    batches = Batches(tokenizer, args)
    started, losses = time.time() - before, []
    print(f"parameters {model.num_parameters():,}, vocabulary {len(tokenizer)}", flush=True)
    while step < args.steps:
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / args.steps)
        rate = min(1.0, (step + 1) / 100) * cosine
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * rate
        parts = []
        for batch in batches(step):
            with torch.autocast(args.device, dtype=torch.bfloat16):
                loss = model(**batch, use_cache=False).loss
            loss.backward()
            parts.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(parts)
        step += 1
        if step % 50 == 0:
            mean = [sum(x) / len(losses) for x in zip(*losses, strict=True)]
            print(
                json.dumps(
                    {
                        "step": step,
                        "minutes": round((time.time() - started) / 60, 2),
                        "loss": [round(m, 4) for m in mean],
                    }
                ),
                flush=True,
            )
            losses = []
        if step % 500 == 0:
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "seconds": time.time() - started,
                },
                state_file,
            )
            save(model, tokenizer, out / "model")
    save(model, tokenizer, out / "model")
    print(json.dumps({"steps": step, "done": True}))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """bfloat16 safetensors beside the tokenizer, loadable by the Auto classes."""
    weights = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()}
    copy = build_model(len(tokenizer)).to(torch.bfloat16)
    copy.load_state_dict(weights)
    copy.generation_config.eos_token_id = tokenizer.eos_token_id
    copy.generation_config.pad_token_id = tokenizer.pad_token_id
    copy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", default="build/shipped_model")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
