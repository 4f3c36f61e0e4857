"""Write HelpSteer2's prompts, and one file of preference pairs per attribute for the judge's heads.

    python recipes/slhf_paper/prepare.py

Needs the hub; not run here. HelpSteer2 has two answers to each prompt, in neighbouring rows, each
rated 0 to 4 on five attributes. A head learns which of the two was rated higher; equal ratings are
left out. Of complexity and verbosity less is better. A fifth of the prompts is held out, from the
heads and from the training alike.
"""

import argparse
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ATTRIBUTES = {
    "helpfulness": 1,
    "correctness": 1,
    "coherence": 1,
    "complexity": -1,
    "verbosity": -1,
}
"""Name -> 1 where more is better, -1 where less is."""

SEED = 42
HELD_OUT_SHARE = 0.2


def couples(rows: list[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Neighbouring rows with the same prompt."""
    place = 0
    while place + 1 < len(rows):
        first, second = rows[place], rows[place + 1]
        if first["prompt"] == second["prompt"]:
            yield first, second
            place += 2
        else:
            place += 1


def pair(
    first: Mapping[str, Any], second: Mapping[str, Any], attribute: str
) -> dict[str, Any] | None:
    """TRL's preference format, or None where both were rated the same."""
    sign = ATTRIBUTES[attribute]
    difference = sign * (first[attribute] - second[attribute])
    if difference == 0:
        return None
    better, worse = (first, second) if difference > 0 else (second, first)
    return {
        "prompt": [{"role": "user", "content": first["prompt"]}],
        "chosen": [{"role": "assistant", "content": better["response"]}],
        "rejected": [{"role": "assistant", "content": worse["response"]}],
    }


def split(prompts: list[str]) -> tuple[list[str], list[str]]:
    """Prompts to train on and prompts held out, each once, the same on every machine."""
    order = sorted(set(prompts))
    random.Random(SEED).shuffle(order)
    count = round(HELD_OUT_SHARE * len(order))
    return order[count:], order[:count]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Download, split, write."""
    from datasets import load_dataset

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, default=HERE)
    folder = parser.parse_args().output_dir
    rows = list(load_dataset("nvidia/HelpSteer2", split="train"))
    train, held_out = split([row["prompt"] for row in rows])
    for name, prompts in (("train", train), ("evaluate", held_out)):
        chats = [{"prompt": [{"role": "user", "content": text}]} for text in prompts]
        write(folder / f"{name}.jsonl", chats)
    seen = set(train)
    kept = [(a, b) for a, b in couples(rows) if a["prompt"] in seen]
    for attribute in ATTRIBUTES:
        found = [p for a, b in kept if (p := pair(a, b, attribute)) is not None]
        write(folder / "pairs" / f"{attribute}.jsonl", found)
        print(f"{attribute}: {len(found)} pairs")
    print(f"{len(train)} prompts to train on, {len(held_out)} held out")


if __name__ == "__main__":
    main()
