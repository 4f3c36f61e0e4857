"""Which pairs of a prompt's answers the reward model is fitted to, and with which labels."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equilign.oracles import Oracle, score_groups
from equilign.rollout import Group, prompt_text
from equilign.trainers.reward_source import choose_reward, group_rewards


@dataclass(frozen=True)
class PairRule:
    """How pairs are made of verdicts.

    Attributes:
        pairs: ``"best_worst"`` or ``"all"``.
        labels: ``"utility"``, ``"soft"`` or ``"quantal"``.
        ties: ``"replace"`` or ``"half"``; what becomes of a prompt without a better answer.
    """

    pairs: str
    labels: str
    ties: str


def annotate(
    oracle: Oracle, groups: Sequence[Group], rule: PairRule, seed: int
) -> list[dict[str, Any]]:
    """What one annotator says of every group, as JSON.

    ``utilities`` (scores, or mean win rates where the oracle only compares; null: no verdict),
    ``pairs`` (``[first, second, Pr(first wins)]``) and ``pair_weights``, in the expected
    log-likelihood of one pair. No pairs: nothing to learn from this prompt.

    Args:
        oracle: the annotator.
        groups: prompts with their answers.
        rule: which pairs, which labels.
        seed: of sampled verdicts.
    """
    kind = choose_reward(oracle, "auto")
    worths = group_rewards(oracle, kind, groups)
    games: Sequence[np.ndarray | None] = [None] * len(groups)
    if rule.labels != "utility":
        texts = [[c.text for c in g.completions] for g in groups]
        games = score_groups(oracle, [prompt_text(g.prompt) for g in groups], texts)
    dice = random.Random(seed)
    found = []
    for group, worth, game in zip(groups, worths, games, strict=True):
        chosen = _best_worst(worth, rule) if rule.pairs == "best_worst" else _all(group, worth)
        labelled = [(i, j, _label(i, j, worth, game), w) for i, j, w in chosen]
        kept = [(i, j, p, w) for i, j, p, w in labelled if not math.isnan(p)]
        if rule.labels == "quantal":
            kept = [(i, j, float(dice.random() < p), w) for i, j, p, w in kept]
        found.append(
            {
                "utilities": [None if math.isnan(u) else float(u) for u in worth],
                "pairs": [[i, j, p] for i, j, p, _ in kept],
                "pair_weights": [w for *_, w in kept],
            }
        )
    return found


def _best_worst(worth: np.ndarray, rule: PairRule) -> list[tuple[int, int, float]]:
    """The first of the best and the last of the worst; none if all are worth the same."""
    judged = np.flatnonzero(~np.isnan(worth))
    if len(judged) < 2:
        return []
    order = judged[np.argsort(-worth[judged], kind="stable")]
    best, worst = int(order[0]), int(order[-1])
    tied = bool(worth[best] == worth[worst])
    return [] if tied and rule.ties == "replace" else [(best, worst, 1.0)]


def _all(group: Group, worth: np.ndarray) -> list[tuple[int, int, float]]:
    """Every pair; of listed answers with the probability of drawing it in either order."""
    size = len(group.completions)
    law = group.weights
    return [
        (i, j, 2.0 * law[i] * law[j] if law else 2.0 / (size * (size - 1)))
        for i in range(size)
        for j in range(i + 1, size)
        if not math.isnan(worth[i] + worth[j])
    ]


def _label(i: int, j: int, worth: np.ndarray, game: np.ndarray | None) -> float:
    if game is not None:
        return float(game[i, j])
    return float(0.5 + 0.5 * np.sign(worth[i] - worth[j]))


def replace_ties(rows: Sequence[dict[str, Any]], seed: int) -> list[float]:
    """How often each row's pairs count, so that their number is that of the rows.

    A row without pairs gives its place to another one, drawn at random. All are 0 where no row
    has any.

    Args:
        rows: of one annotator, as of `annotate`.
        seed: of the draws.
    """
    useful = [i for i, row in enumerate(rows) if row["pairs"]]
    counts = [1.0 if row["pairs"] else 0.0 for row in rows]
    dice = random.Random(seed)
    if useful:
        for _ in range(len(rows) - len(useful)):
            counts[dice.choice(useful)] += 1.0
    return counts
