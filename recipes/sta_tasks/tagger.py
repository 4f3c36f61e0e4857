"""Make the part-of-speech tagger that ships inside the package, and measure it.

    python recipes/sta_tasks/tagger.py

The perceptron of `data/pos` without its small weights (a sixth of the size), rounded to integers;
tested on `data/pos/pud_tagged.jsonl.gz`, whose sentences it has never seen.
"""

import gzip
import json
from pathlib import Path

from equilign.tasks.tagger import PerceptronTagger

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "data" / "pos"
TARGET = ROOT / "src" / "equilign" / "assets" / "pos_tagger" / "tagger.json.gz"
LEAST = 2.0
NOUNS = ("NOUN", "PROPN")


def prune(weights: dict[str, dict[str, float]]) -> dict[str, dict[str, int]]:
    """Weights of at least `LEAST`, rounded."""
    kept = {
        feature: {tag: round(w) for tag, w in by_tag.items() if abs(w) >= LEAST}
        for feature, by_tag in weights.items()
    }
    return {feature: by_tag for feature, by_tag in kept.items() if by_tag}


def measure(tagger: PerceptronTagger) -> dict[str, float]:
    """Accuracy over words, precision and recall of nouns, error of a sentence's unique nouns."""
    with gzip.open(SOURCE / "pud_tagged.jsonl.gz", "rt", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    right = words = found = wanted = both = 0
    error = 0.0
    for row in rows:
        tags = tagger.tag(row["tokens"])
        pairs = list(zip(row["tokens"], tags, row["upos"], strict=True))
        right += sum(tag == true for _, tag, true in pairs)
        words += len(pairs)
        found += sum(tag in NOUNS for _, tag, _ in pairs)
        wanted += sum(true in NOUNS for _, _, true in pairs)
        both += sum(tag in NOUNS and true in NOUNS for _, tag, true in pairs)
        counts = [
            len({token.lower() for token, *kinds in pairs if kinds[side] in NOUNS})
            for side in (0, 1)
        ]
        error += abs(counts[0] - counts[1])
    return {
        "accuracy": right / words,
        "noun_precision": both / found,
        "noun_recall": both / wanted,
        "unique_nouns_error": error / len(rows),
    }


def main() -> None:
    """Write the tagger, print what it is worth."""
    with gzip.open(SOURCE / "perceptron_upos.json.gz", "rt", encoding="utf-8") as f:
        held = json.load(f)
    pruned = prune(held["weights"])
    text = json.dumps({"tagdict": held["tagdict"], "weights": pruned}, separators=(",", ":"))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    for name, tagger in (
        ("whole", PerceptronTagger(held["weights"], held["tagdict"])),
        ("shipped", PerceptronTagger(pruned, held["tagdict"])),
    ):
        print(name, {key: round(value, 4) for key, value in measure(tagger).items()})
    print(f"{len(pruned)} features, {TARGET.stat().st_size} bytes -> {TARGET.name}")


if __name__ == "__main__":
    main()
