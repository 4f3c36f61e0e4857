"""Who judges: the oracle protocol, and scoring whole groups of answers with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from equilign.errors import OracleError

Prompt = str


@runtime_checkable
class Oracle(Protocol):
    """Anything that says how probably one answer beats another."""

    def compare(self, prompts: Sequence[Prompt], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """Pr(``a[i]`` beats ``b[i]`` for ``prompts[i]``), shape ``(n,)``, in [0, 1].

        Only the plain text of prompts and answers goes in, so the judge's vocabulary and chat
        template are its own business.
        """
        ...


@dataclass(frozen=True)
class CallableOracle:
    """A plain function of (prompt, a, b) as an oracle."""

    function: "PairFunction"

    def compare(self, prompts: Sequence[Prompt], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """See `Oracle.compare`."""
        rows = zip(prompts, a, b, strict=True)
        return np.array([float(self.function(x, y, z)) for x, y, z in rows], dtype=np.float64)


class PairFunction(Protocol):
    """``f(prompt, a, b) -> Pr(a beats b)``."""

    def __call__(self, prompt: str, a: str, b: str) -> float:
        """Pr(a beats b)."""
        ...


def checked_compare(
    oracle: Oracle, prompts: Sequence[Prompt], a: Sequence[str], b: Sequence[str]
) -> np.ndarray:
    """``oracle.compare`` with its answer checked.

    Raises:
        OracleError: wrong number of verdicts, or one that is no probability; names the pair.
    """
    if not prompts:
        return np.zeros(0)
    verdicts = np.asarray(oracle.compare(prompts, a, b), dtype=np.float64)
    name = type(oracle).__name__
    if verdicts.shape != (len(prompts),):
        raise OracleError(
            f"{name}.compare returned shape {verdicts.shape} for {len(prompts)} pairs; "
            "it must return one probability per pair"
        )
    bad = ~(np.isfinite(verdicts) & (verdicts >= 0.0) & (verdicts <= 1.0))
    if bad.any():
        i = int(np.argmax(bad))
        raise OracleError(
            f"{name}.compare returned {verdicts[i]} for pair {i} "
            f"(prompt {prompts[i][:60]!r}, a {a[i][:30]!r}, b {b[i][:30]!r}); "
            "a verdict must be Pr(a beats b) in [0, 1]. Turn scores into probabilities first, "
            "for instance 1 / (1 + exp(score_b - score_a))."
        )
    return verdicts


def compare_symmetric(
    oracle: Oracle, prompts: Sequence[Prompt], a: Sequence[str], b: Sequence[str]
) -> np.ndarray:
    """Both orders asked and averaged, so that ``P(a, b) + P(b, a) == 1`` whatever the judge.

    A pair of identical answers is a tie by definition and is not asked.
    """
    if not len(prompts) == len(a) == len(b):
        raise OracleError(
            f"{len(prompts)} prompts, {len(a)} and {len(b)} answers: one each, please"
        )
    ask = [i for i in range(len(prompts)) if a[i] != b[i]]
    result = np.full(len(prompts), 0.5)
    if ask:
        x, left, right = ([seq[i] for i in ask] for seq in (prompts, a, b))
        forward = checked_compare(oracle, x, left, right)
        backward = checked_compare(oracle, x, right, left)
        result[ask] = (forward + 1.0 - backward) / 2.0
    return result


def score_groups(
    oracle: Oracle, prompts: Sequence[Prompt], groups: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    """The small game that the answers to each prompt play: ``(K, K)`` win probabilities.

    Every unordered pair of different texts is asked once in both orders; equal texts tie. All
    pairs of all prompts go to the oracle in one call, so that it can batch them.

    Args:
        oracle: the judge.
        prompts: one per group.
        groups: answers to each prompt; groups may differ in size.

    Returns:
        One matrix per prompt, ``P + P.T == 1`` and ``diag(P) == 1/2`` exactly.
    """
    where: list[tuple[int, str, str]] = []
    index: dict[tuple[int, str, str], int] = {}
    for g, answers in enumerate(groups):
        distinct = sorted(set(answers))
        for i, left in enumerate(distinct):
            for right in distinct[i + 1 :]:
                index[g, left, right] = len(where)
                where.append((g, left, right))
    verdicts = compare_symmetric(
        oracle, [prompts[g] for g, _, _ in where], [a for _, a, _ in where], [b for *_, b in where]
    )

    def entry(g: int, a: str, b: str) -> float:
        if a == b:
            return 0.5
        return float(verdicts[index[g, a, b]]) if a < b else 1.0 - float(verdicts[index[g, b, a]])

    return [
        np.array([[entry(g, a, b) for b in answers] for a in answers])
        for g, answers in enumerate(groups)
    ]
