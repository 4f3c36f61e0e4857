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
        template are its own business. An oracle that may fail on a pair says so by a class
        attribute ``abstains = True`` and returns ``nan`` for it: no verdict, never a made-up one.
        An oracle that can judge the K answers to a prompt in fewer than K (K - 1) comparisons may
        also have ``compare_groups(prompts, groups) -> list of (K, K)``.
        """
        ...


@runtime_checkable
class ScoredOracle(Oracle, Protocol):
    """An oracle that has a scalar reward behind its verdicts."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        """The reward of each answer, shape ``(n,)``, finite; higher is better."""
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
    """``oracle.compare`` with its answer checked; ``nan`` is let through from those that abstain.

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
    bad = ~_allowed(verdicts, oracle)
    if bad.any():
        i = int(np.argmax(bad))
        raise OracleError(
            f"{name}.compare returned {verdicts[i]} for pair {i} "
            f"(prompt {prompts[i][:60]!r}, a {a[i][:30]!r}, b {b[i][:30]!r}); "
            "a verdict must be Pr(a beats b) in [0, 1]. Turn scores into probabilities first, "
            "for instance 1 / (1 + exp(score_b - score_a))."
        )
    return verdicts


def _allowed(verdicts: np.ndarray, oracle: object) -> np.ndarray:
    good = np.isfinite(verdicts) & (verdicts >= 0.0) & (verdicts <= 1.0)
    if getattr(oracle, "abstains", False):
        good |= np.isnan(verdicts)
    return np.asarray(good)


def compare_symmetric(
    oracle: Oracle, prompts: Sequence[Prompt], a: Sequence[str], b: Sequence[str]
) -> np.ndarray:
    """Both orders asked and averaged, so that ``P(a, b) + P(b, a) == 1`` whatever the judge.

    A pair of identical answers is a tie by definition and is not asked. A pair that got no verdict
    in one of the orders has none (``nan``): half of it would carry the judge's bias for a place.
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
        oracle: the judge; its ``compare_groups`` is used where it has one.
        prompts: one per group.
        groups: answers to each prompt; groups may differ in size.

    Returns:
        One matrix per prompt, ``P + P.T == 1`` and ``diag(P) == 1/2`` exactly; ``nan`` where an
        oracle that abstains gave no verdict.

    Raises:
        OracleError: see `checked_compare`.
    """
    distinct = [sorted(set(answers)) for answers in groups]
    together = getattr(oracle, "compare_groups", None)
    if together is None:
        games = _round_robins(oracle, prompts, distinct)
    else:
        games = [
            _checked_game(g, len(d), oracle)
            for g, d in zip(together(prompts, distinct), distinct, strict=True)
        ]
    result = []
    for answers, texts, game in zip(groups, distinct, games, strict=True):
        place = [texts.index(text) for text in answers]
        result.append(game[np.ix_(place, place)])
    return result


def _round_robins(
    oracle: Oracle, prompts: Sequence[Prompt], groups: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    """`score_groups` of different texts, pair by pair."""
    sides = [np.triu_indices(len(texts), 1) for texts in groups]
    x = [p for p, (left, _) in zip(prompts, sides, strict=True) for _ in left]
    a = [texts[int(i)] for texts, (left, _) in zip(groups, sides, strict=True) for i in left]
    b = [texts[int(j)] for texts, (_, right) in zip(groups, sides, strict=True) for j in right]
    verdicts = compare_symmetric(oracle, x, a, b)
    games, start = [], 0
    for texts, (left, right) in zip(groups, sides, strict=True):
        game = np.full((len(texts), len(texts)), 0.5)
        mine = verdicts[start : start + len(left)]
        game[left, right], game[right, left] = mine, 1.0 - mine
        games.append(game)
        start += len(left)
    return games


def _checked_game(game: np.ndarray, size: int, oracle: object) -> np.ndarray:
    game = np.asarray(game, dtype=np.float64)
    name = type(oracle).__name__
    if game.shape != (size, size):
        raise OracleError(
            f"{name}.compare_groups returned shape {game.shape} for {size} answers; "
            f"it must return ({size}, {size})"
        )
    if not _allowed(game, oracle).all():
        raise OracleError(f"{name}.compare_groups returned values outside [0, 1]: {game}")
    if np.nan_to_num(np.abs(game + game.T - 1.0)).max(initial=0.0) > 1e-6:
        raise OracleError(f"{name}.compare_groups must return P with P + P.T = 1; got {game}")
    upper = np.triu(game, 1)
    return upper + np.tril(1.0 - upper.T, -1) + 0.5 * np.eye(size)
