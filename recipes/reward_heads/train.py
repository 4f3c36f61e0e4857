"""Fit the restaurant reward heads to human ratings and measure them on held-out ratings.

    python recipes/reward_heads/train.py

Reads only the repository's `data`, takes under two minutes on one core and writes the same file
every time. The weights come from 80 % of the meaning representations; the other 20 % are used
once, for the numbers that are written next to the weights.
"""

import argparse
import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from fit import (
    FOLDS,
    LEAST_PAIRS,
    Features,
    Measure,
    Penalty,
    cross_validated,
    fit_weights,
    folds,
    known_phrases,
    margins,
    measure,
    pair_features,
)
from ratings import ATTRIBUTES, Comparison, is_test, read_comparisons
from tables import build_tables, read_sentences

from equilign.files import write_json
from equilign.oracles.reward_heads import (
    FORMAT,
    SHIPPED,
    RewardHead,
    decode_tables,
    encode_tables,
    load_reward_heads,
)
from equilign.oracles.text_features import FAULTS, WordTables

PENALTIES = [Penalty(*values) for values in itertools.product((1.0, 2.0), (1.0, 3.0), (0.01, 0.03))]
"""What cross-validation chooses from, per head, by log-loss.

Weaker ridges of the phrases are not offered: the bound on style then acts like a switch, and a
rated sentence's phrases decide everything on text of another kind.
"""

DATASETS = ("BAGEL", "SFRES", "SFHOT")


def fold_blocks(
    comparisons: list[Comparison], fold: np.ndarray, tables: WordTables
) -> dict[int, Features]:
    """Features per fold, with the phrases known from the other folds only."""
    blocks = {}
    for number in range(FOLDS):
        rest = [c for c, f in zip(comparisons, fold, strict=True) if f != number]
        blocks[number] = pair_features(comparisons, tables, known_phrases(rest))
    return blocks


def choose_penalty(
    blocks: dict[int, Features], fold: np.ndarray, margin: np.ndarray
) -> tuple[Penalty, Measure]:
    """The penalty of least cross-validated log-loss, and its cross-validated measure."""
    tried = [(measure(cross_validated(blocks, fold, margin, p), margin), p) for p in PENALTIES]
    best, penalty = min(tried, key=lambda pair: pair[0].log_loss)
    return penalty, best


def fit_heads(training: list[Comparison], tables: WordTables) -> dict[str, Any]:
    """Phrases and weights of all heads, as they stand in the file."""
    fold = folds(training)
    blocks = fold_blocks(training, fold, tables)
    known = known_phrases(training)
    x = pair_features(training, tables, known)
    heads = {}
    for attribute in ATTRIBUTES:
        margin = margins(training, attribute)
        penalty, validation = choose_penalty(blocks, fold, margin)
        use = margin != 0
        weights = fit_weights(x.rows(use), np.sign(margin[use]), penalty).round(4)
        heads[attribute] = {
            "fault_weights": dict(zip(FAULTS, weights[: len(FAULTS)].tolist(), strict=True)),
            "phrase_weights": weights[len(FAULTS) :].tolist(),
            "penalty": asdict(penalty),
            "cross_validation": asdict(validation),
        }
    return {"phrases": list(known), "heads": heads}


def measure_head(head: RewardHead, comparisons: list[Comparison]) -> Measure:
    """How well a head predicts the ratings of its attribute."""
    prompts = [c.prompt for c in comparisons]
    logits = head.score(prompts, [c.a for c in comparisons]) - head.score(
        prompts, [c.b for c in comparisons]
    )
    return measure(logits, margins(comparisons, head.name))


def held_out(head: RewardHead, comparisons: list[Comparison]) -> dict[str, Any]:
    """Measure on all held-out comparisons, and per data set."""
    parts = {d: [c for c in comparisons if c.dataset == d] for d in DATASETS}
    by_dataset = {d: asdict(measure_head(head, part)) for d, part in parts.items()}
    return {**asdict(measure_head(head, comparisons)), "datasets": by_dataset}


def show(name: str, m: dict[str, Any]) -> None:
    """One line of the report."""
    print(
        f"{name:28s} accuracy {m['accuracy']:.3f} [{m['low']:.3f}, {m['high']:.3f}]"
        f"  log-loss {m['log_loss']:.3f}  pairs {m['pairs']:3d}  ties {m['ties']:3d}"
    )


def main() -> None:
    """Fit, write, measure, write again with the measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=SHIPPED, help="the file to write")
    output = parser.parse_args().output
    comparisons = read_comparisons()
    training = [c for c in comparisons if not is_test(c)]
    test = [c for c in comparisons if is_test(c)]
    # The features are computed from the tables as they are stored, rounding included.
    stored = encode_tables(build_tables(read_sentences()))
    file = {"format": FORMAT, "least_pairs": LEAST_PAIRS, "tables": stored}
    file |= fit_heads(training, decode_tables(stored))
    write_json(output, file)
    for name, head in load_reward_heads(output).items():
        entry = file["heads"][name]
        entry["held_out"] = held_out(head, test)
        show(f"{name}, {FOLDS}-fold", entry["cross_validation"])
        show(f"{name}, held out", entry["held_out"])
        for dataset, part in entry["held_out"]["datasets"].items():
            show(f"  {dataset}", part)
    write_json(output, file)
    print(f"wrote {output} ({output.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
