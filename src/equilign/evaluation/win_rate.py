"""Who wins, head to head on the same prompts, and by how much are we sure."""

from collections.abc import Sequence

import numpy as np

from equilign.errors import OracleError
from equilign.evaluation.intervals import Estimate, clustered_mean
from equilign.oracles import Oracle, Panel, compare_symmetric
from equilign.rollout import Group, prompt_text

Pairs = tuple[list[str], list[str], list[str], list[tuple[int, int]]]


def _pairs(a: Sequence[Group], b: Sequence[Group]) -> Pairs:
    prompts: list[str] = []
    left: list[str] = []
    right: list[str] = []
    spans: list[tuple[int, int]] = []
    for mine, theirs in zip(a, b, strict=True):
        if prompt_text(mine.prompt) != prompt_text(theirs.prompt):
            raise ValueError("both sides must answer the same prompts in the same order")
        start = len(prompts)
        for x in mine.completions:
            for y in theirs.completions:
                prompts.append(prompt_text(mine.prompt))
                left.append(x.text)
                right.append(y.text)
        spans.append((start, len(prompts)))
    return prompts, left, right, spans


def head_to_head(
    oracle: Oracle, a: Sequence[Group], b: Sequence[Group]
) -> tuple[Estimate, np.ndarray]:
    """Win rate of ``a`` over ``b``: every answer of one plays every answer of the other.

    Both orders are asked and averaged, ties count one half. Pairs without a verdict (an oracle
    that abstains) count nowhere, and neither do prompts that have no verdict at all.

    Returns:
        The mean over prompts with its interval clustered by prompt, and the matrix per prompt,
        shape ``(prompts, answers of a, answers of b)``; nan where there is no verdict.

    Raises:
        OracleError: no pair got a verdict.
    """
    prompts, left, right, spans = _pairs(a, b)
    verdicts = compare_symmetric(oracle, prompts, left, right)
    shape = (len(a[0].completions), len(b[0].completions))
    matrix = np.stack([verdicts[i:j].reshape(shape) for i, j in spans])
    means = mean_verdicts(matrix)
    if np.isnan(means).all():
        raise OracleError(
            f"{type(oracle).__name__} gave no verdict on any of {len(verdicts)} pairs of answers, "
            "so there is no win rate"
        )
    return clustered_mean(means[~np.isnan(means)]), matrix


def mean_verdicts(matrix: np.ndarray) -> np.ndarray:
    """Mean of each prompt's verdicts, nan where it has none; ``(n, a, b)`` to ``(n,)``."""
    seen = (~np.isnan(matrix)).sum(axis=(1, 2))
    totals = np.nan_to_num(matrix).sum(axis=(1, 2))
    return np.where(seen > 0, totals / np.maximum(seen, 1), np.nan)


def by_attribute(panel: Panel, a: Sequence[Group], b: Sequence[Group]) -> dict[str, Estimate]:
    """`head_to_head` for each attribute of a panel alone: who would win if only it counted."""
    prompts, left, right, spans = _pairs(a, b)
    votes = panel.votes(prompts, left, right)
    return {
        attribute.name: clustered_mean(np.array([row[i:j].mean() for i, j in spans]))
        for attribute, row in zip(panel.attributes, votes, strict=True)
    }
