"""Write the held-out restaurant inputs that ship inside the package.

    python recipes/shipped_model/prompts.py

400 inputs of the E2E test file, none of them in the shipped model's training data: 272 to align
on, 128 to evaluate on.
"""

import json
from pathlib import Path

import corpus

EVALUATE = 128
TARGET = (
    Path(__file__).resolve().parents[2]
    / "src"
    / "equilign"
    / "assets"
    / "prompts"
    / "restaurants.jsonl"
)


def main() -> None:
    """Write the file; the order, hence the split, is that of the texts' hashes."""
    _, held_out = corpus.load_restaurants()
    inputs = sorted(held_out.sentences, key=corpus._hash)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    with TARGET.open("w", encoding="utf-8") as f:
        for i, attributes in enumerate(inputs):
            split = "evaluate" if i < EVALUATE else "align"
            f.write(json.dumps({"prompt": attributes, "split": split}, ensure_ascii=False) + "\n")
    print(f"{len(inputs)} inputs -> {TARGET.name}")


if __name__ == "__main__":
    main()
