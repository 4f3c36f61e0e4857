"""Write the story prompts that ship inside the package.

    python recipes/sta_tasks/stories.py

Beginnings of paragraphs of public-domain stories (`data/text/fairy_tales`), whole sentences of 60
to 320 characters, in the form that the shipped model knows ("Continue the story: ..."). Only from
blocks that were held out of its training, and nothing that stands elsewhere in it too: 272 to align
on, 128 to evaluate on; no paragraph gives two. Which is which goes by the hash of the text.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes" / "shipped_model"))
import corpus  # noqa: E402

TARGET = ROOT / "src" / "equilign" / "assets" / "stories"
SIZES = {"evaluate": 128, "align": 272}
LEAST, MOST = 60, 320


def beginning(paragraph: str) -> str | None:
    """The longest run of whole sentences from the start that fits; None if there is none."""
    ends = [m.end() for m in re.finditer(r"[.!?]\"?(?=\s|$)", paragraph)]
    good = [end for end in ends if LEAST <= end <= MOST]
    return paragraph[: good[-1]] if good else None


def main() -> None:
    """Write one file per split."""
    train, held_out = corpus.load_stories()
    seen = "\n".join(train)
    paragraphs = [p for block in held_out for p in block.split("\n")]
    starts = {start for p in paragraphs if (start := beginning(p)) is not None}
    # Some stories are told in two of the books.
    found = {start for start in starts if start not in seen}
    order = sorted(found, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    TARGET.mkdir(parents=True, exist_ok=True)
    begin = 0
    for split, size in SIZES.items():
        rows = order[begin : begin + size]
        begin += size
        lines = [
            json.dumps({"prompt": [{"role": "user", "content": corpus.CONTINUE + text}]})
            for text in rows
        ]
        (TARGET / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{split}: {len(rows)} of {len(order)}")


if __name__ == "__main__":
    main()
