"""Fit the held-out judges of the SPPO reproduction, and collect the human references.

    python recipes/sppo_held_out/make.py

The heads have the form of the training panel's, and share nothing else with them: they are fitted
to the 188 pairs of ratings that `recipes/reward_heads` sets aside, with a word list of their own,
without the tables counted from stories, and measured on the 760 pairs that the training panel's
heads were fitted to. Form and penalty were chosen by cross-validation within the 188 pairs, among
sixteen settings that hardly differed. Takes seconds.
"""

import gzip
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "recipes" / "reward_heads"))

import fit  # noqa: E402
from ratings import ATTRIBUTES, Comparison, is_test, read_comparisons  # noqa: E402

from equilign.files import write_json, write_jsonl  # noqa: E402
from equilign.oracles.reward_heads import FORMAT, encode_tables, load_reward_heads  # noqa: E402
from equilign.oracles.text_features import FAULTS, WordTables, class_names  # noqa: E402
from equilign.rollout import prompt_text  # noqa: E402
from equilign.tasks.prompts import restaurant_prompts  # noqa: E402

TARGET = REPOSITORY / "src" / "equilign" / "assets" / "sppo_held_out"
SENTENCES = REPOSITORY / "data" / "text" / "e2e_restaurants"
LEAST_PAIRS = 8
PENALTY = fit.Penalty(fault_cost=1.0, fault_ridge=3.0, phrase_ridge=0.01)
# fmt: off
FUNCTION_WORDS = (
    "a", "also", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could", "do",
    "does", "for", "from", "had", "has", "have", "if", "in", "is", "it", "its", "near", "no", "not",
    "of", "on", "or", "that", "the", "their", "there", "they", "this", "to", "very", "was", "which",
    "who", "will", "with", "would",
)
# fmt: on


def plain_tables() -> WordTables:
    """Tables that know function words and nothing counted: no odd order, every word alike."""
    size = len(class_names(FUNCTION_WORDS))
    return WordTables(FUNCTION_WORDS, np.zeros((size, size)), frozenset())


def fit_heads(training: list[Comparison], measured_on: list[Comparison]) -> dict[str, Any]:
    """The heads as they stand in the file, with how they do on pairs they have not seen."""
    tables = plain_tables()
    fit.LEAST_PAIRS = LEAST_PAIRS
    known = fit.known_phrases(training)
    x, other = (fit.pair_features(c, tables, known) for c in (training, measured_on))
    heads = {}
    for attribute in ATTRIBUTES:
        margin = fit.margins(training, attribute)
        use = margin != 0
        weights = fit.fit_weights(x.rows(use), np.sign(margin[use]), PENALTY).round(4)
        found = fit.measure(other.logits(weights), fit.margins(measured_on, attribute))
        heads[attribute] = {
            "fault_weights": dict(zip(FAULTS, weights[: len(FAULTS)].tolist(), strict=True)),
            "phrase_weights": weights[len(FAULTS) :].tolist(),
            "penalty": asdict(PENALTY),
            "held_out": asdict(found),
        }
    return {
        "format": FORMAT,
        "least_pairs": LEAST_PAIRS,
        "fitted_pairs": len(training),
        "tables": encode_tables(tables),
        "phrases": list(known),
        "heads": heads,
    }


def references() -> list[dict[str, Any]]:
    """What people wrote for each held-out prompt of the package."""
    wanted = {prompt_text(p): set[str]() for p in restaurant_prompts("evaluate")}
    for path in sorted(SENTENCES.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                if row["mr"] in wanted:
                    wanted[row["mr"]].add(row["ref"])
    return [{"prompt": p, "references": sorted(texts)} for p, texts in wanted.items()]


def main() -> None:
    """Write both files."""
    comparisons = read_comparisons()
    training = [c for c in comparisons if is_test(c)]
    file = fit_heads(training, [c for c in comparisons if not is_test(c)])
    write_json(TARGET / "heads.json", file)
    load_reward_heads(TARGET / "heads.json")
    rows = references()
    write_jsonl(TARGET / "references.jsonl", rows)
    for name, head in file["heads"].items():
        print(name, {k: round(v, 3) for k, v in head["held_out"].items()})
    counts = [len(row["references"]) for row in rows]
    print(f"{len(rows)} prompts, {min(counts)} to {max(counts)} references, {sum(counts)} in all")


if __name__ == "__main__":
    main()
