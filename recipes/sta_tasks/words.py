"""Choose the 30 target words of Word Collector: the commonest content words of instructions.

    python recipes/sta_tasks/words.py

Counts in how many of the 1,392 prompts of `data/prompts` a word stands as a noun, verb, adjective
or adverb (by the shipped tagger), three letters or more, and keeps the 30 commonest. Words that are
as often something else (auxiliaries, pronouns, ...) are left out.
"""

import gzip
import json
from collections import Counter
from pathlib import Path

from equilign.tasks.tagger import shipped_tagger, split_tokens

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "data" / "prompts" / "prompts.jsonl.gz"
TARGET = ROOT / "src" / "equilign" / "assets" / "word_collector" / "words.json"
CONTENT = ("NOUN", "VERB", "ADJ", "ADV")
NUMBER = 30
# Adverbs and adjectives that carry no content of their own.
_EMPTY = """
    not how when where why also then there here just only very more most much many other such
    have same own few some any all each both even still too well first following using
"""
EMPTY = frozenset(_EMPTY.split())


def main() -> None:
    """Write the list with the counts it was chosen by."""
    with gzip.open(SOURCE, "rt", encoding="utf-8") as f:
        prompts = [json.loads(line)["prompt"] for line in f]
    tagger = shipped_tagger()
    content: Counter[str] = Counter()
    anything: Counter[str] = Counter()
    for prompt in prompts:
        tokens = split_tokens(prompt)
        tags = tagger.tag(tokens)
        words = [t.lower() for t in tokens]
        content.update({w for w, tag in zip(words, tags, strict=True) if tag in CONTENT})
        anything.update(set(words))
    good = [
        (word, count)
        for word, count in content.items()
        if word.isascii() and word.isalpha() and len(word) >= 3 and word not in EMPTY
        if count > anything[word] / 2
    ]
    chosen = sorted(good, key=lambda item: (-item[1], item[0]))[:NUMBER]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"prompts": len(prompts), "words": dict(chosen)}, indent=1)
    TARGET.write_text(text + "\n", encoding="utf-8")
    print(", ".join(f"{word} {count}" for word, count in chosen))


if __name__ == "__main__":
    main()
