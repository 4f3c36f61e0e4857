"""Compare forms of the reward heads by cross-validation on the training ratings only.

    python recipes/reward_heads/compare.py

Two questions per form: how well it predicts other meaning representations of the same systems
(folds grouped by meaning representation), and how well it predicts a data set that it was not
fitted to (BAGEL, SFRES and SFHOT left out in turn), which is nearer to how the heads are used.
The held-out test split is not read.
"""

import numpy as np
from fit import (
    Features,
    Penalty,
    cross_validated,
    folds,
    known_phrases,
    margins,
    measure,
    pair_features,
)
from ratings import ATTRIBUTES, Comparison, bucket, is_test, read_comparisons
from tables import build_tables, read_sentences
from train import DATASETS

from equilign.oracles.reward_heads import decode_tables, encode_tables
from equilign.oracles.text_features import WordTables, normalise, phrases, tokens

HASHED = 1024
SHIPPED_PENALTY = Penalty(fault_cost=1.0, fault_ridge=1.0, phrase_ridge=0.01)


def free(x: np.ndarray) -> Features:
    """Columns of either sign: each column and its negative, both held >= 0; shape (n, d)."""
    empty = np.zeros((len(x), 0))
    return Features(np.hstack([x, -x]), empty, empty)


def hashed(comparisons: list[Comparison]) -> np.ndarray:
    """Presence of each word and pair of neighbours in one of `HASHED` buckets, a minus b."""
    x = np.zeros((len(comparisons), HASHED))
    for row, c in zip(x, comparisons, strict=True):
        for answer, sign in ((c.a, 1.0), (c.b, -1.0)):
            for phrase in phrases(c.prompt, answer):
                row[bucket(phrase, HASHED)] += sign
    return x


def length(comparisons: list[Comparison]) -> np.ndarray:
    """Log number of tokens, a minus b, shape (n, 1)."""
    counts = [[len(tokens(normalise(answer))) for answer in (c.a, c.b)] for c in comparisons]
    logs = np.log(np.maximum(counts, 1))
    return logs[:, :1] - logs[:, 1:]


def systems(comparisons: list[Comparison]) -> np.ndarray:
    """Which data set, so that the weight says which of its two systems people prefer."""
    return np.array([[float(c.dataset == d) for d in DATASETS] for c in comparisons])


def forms(
    comparisons: list[Comparison], fold: np.ndarray, tables: WordTables
) -> dict[str, tuple[dict[int, Features], Penalty]]:
    """Name of each form to its features per fold and its penalty."""
    numbers = sorted(set(fold.tolist()))
    both: dict[int, Features] = {}
    for number in numbers:
        rest = [c for c, f in zip(comparisons, fold, strict=True) if f != number]
        both[number] = pair_features(comparisons, tables, known_phrases(rest))
    none = np.zeros((len(comparisons), 0))
    linear = {k: x.style_a - x.style_b for k, x in both.items()}
    plain = {
        "which system": (free(systems(comparisons)), Penalty(0.0, 1.0, 1.0)),
        "length": (free(length(comparisons)), Penalty(0.0, 1.0, 1.0)),
        "hashed words and pairs": (free(hashed(comparisons)), Penalty(0.0, 30.0, 1.0)),
    }
    return {
        **{name: (dict.fromkeys(numbers, x), p) for name, (x, p) in plain.items()},
        "phrases, unbounded": ({k: free(x) for k, x in linear.items()}, Penalty(0.0, 0.05, 1.0)),
        "faults, prior 0": (
            {k: Features(x.faults, none, none) for k, x in both.items()},
            Penalty(0.0, 1.0, 1.0),
        ),
        "faults, prior 1": (
            {k: Features(x.faults, none, none) for k, x in both.items()},
            Penalty(1.0, 1.0, 1.0),
        ),
        "faults + bounded phrases": (both, SHIPPED_PENALTY),
    }


def main() -> None:
    """Print one line per form, "accuracy/log-loss" per attribute."""
    comparisons = [c for c in read_comparisons() if not is_test(c)]
    tables = decode_tables(encode_tables(build_tables(read_sentences())))
    left_out = np.array([DATASETS.index(c.dataset) for c in comparisons])
    for title, fold in (("other prompts", folds(comparisons)), ("other data set", left_out)):
        print(f"{title:26s}" + "".join(f"{attribute:>18s}" for attribute in ATTRIBUTES))
        for name, (blocks, penalty) in forms(comparisons, fold, tables).items():
            cells = []
            for attribute in ATTRIBUTES:
                margin = margins(comparisons, attribute)
                m = measure(cross_validated(blocks, fold, margin, penalty), margin)
                cells.append(f"{m.accuracy:.3f}/{m.log_loss:.3f}")
            print(f"{name:26s}" + "".join(f"{cell:>18s}" for cell in cells))


if __name__ == "__main__":
    main()
