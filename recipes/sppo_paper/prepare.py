"""Write the prompts of the SPPO paper: UltraFeedback, for three iterations, and 500 held-out ones.

    python recipes/sppo_paper/prepare.py

Needs the hub; not run here. The authors published their prompts in three parts of about 20,000,
one per iteration. They are joined; `equilign train` shuffles them with its seed and plays a new
third in each iteration, so the parts differ from the authors' by chance alone.
"""

import argparse
import json
import random
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = [f"UCLA-AGI/data-mistral-7b-instruct-sppo-iter{n}" for n in (1, 2, 3)]
MODEL = "mistralai/Mistral-7B-Instruct-v0.2"
LONGEST_PROMPT = 512
HELD_OUT = 500


def main() -> None:
    """Download, drop what is too long, hold out, write."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, default=HERE)
    folder = parser.parse_args().output_dir
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    texts = dict.fromkeys(
        row["prompt"] for name in PARTS for row in load_dataset(name, split="train")
    )
    chats = [[{"role": "user", "content": text}] for text in texts]
    kept = [
        chat
        for chat in chats
        if len(tokenizer.apply_chat_template(chat, add_generation_prompt=True)) <= LONGEST_PROMPT
    ]
    held_out = set(random.Random(0).sample(range(len(kept)), HELD_OUT))
    for name, inside in (("train", False), ("evaluate", True)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as lines:
            for i, chat in enumerate(kept):
                if (i in held_out) == inside:
                    lines.write(json.dumps({"prompt": chat}, ensure_ascii=False) + "\n")
    print(f"{len(kept) - HELD_OUT} prompts to train on, {HELD_OUT} held out, {len(texts)} in all")


if __name__ == "__main__":
    main()
