"""What a response is worth: a scalar from an oracle that scores, or a win rate from any oracle."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from equilign.errors import ConfigError, OracleError
from equilign.oracles import Oracle, score_groups
from equilign.oracles.base import ScoredOracle
from equilign.rollout import Group, prompt_text

RewardKind = Literal["score", "win_rate"]


def choose_reward(oracle: Oracle, wanted: str) -> RewardKind:
    """Which of the two rewards, for ``auto``, ``score`` or ``win_rate``.

    Raises:
        ConfigError: scores are wanted and the oracle has none.
    """
    scores = isinstance(oracle, ScoredOracle)
    if wanted == "score" and not scores:
        raise ConfigError(
            f"reward = 'score', but {type(oracle).__name__} has no score(prompts, answers): it "
            "only compares. Use reward = 'win_rate', or an oracle with a scalar reward"
        )
    return "score" if wanted == "score" or (wanted == "auto" and scores) else "win_rate"


def group_rewards(oracle: Oracle, kind: RewardKind, groups: Sequence[Group]) -> list[np.ndarray]:
    """The reward of every response, ``(K,)`` per group; ``nan`` where there is no verdict.

    Raises:
        OracleError: the oracle answered something that is no reward, or no win probability.
    """
    return _scores(oracle, groups) if kind == "score" else _win_rates(oracle, groups)


def _scores(oracle: Oracle, groups: Sequence[Group]) -> list[np.ndarray]:
    assert isinstance(oracle, ScoredOracle)  # noqa: S101 - by choose_reward
    keys = [(prompt_text(g.prompt), c.text) for g in groups for c in g.completions]
    place = {key: i for i, key in enumerate(dict.fromkeys(keys))}  # equal texts are asked once
    if not place:
        return []
    scores = np.asarray(oracle.score([x for x, _ in place], [y for _, y in place]), np.float64)
    name = type(oracle).__name__
    if scores.shape != (len(place),):
        raise OracleError(
            f"{name}.score returned shape {scores.shape} for {len(place)} answers; "
            "it must return one reward per answer"
        )
    silent = np.isnan(scores) & bool(getattr(oracle, "abstains", False))
    bad = ~(np.isfinite(scores) | silent)
    if bad.any():
        i = int(np.argmax(bad))
        x, y = list(place)[i]
        raise OracleError(
            f"{name}.score returned {scores[i]} for prompt {x[:60]!r}, answer {y[:60]!r}; "
            "a reward must be finite"
        )
    flat = iter(scores[[place[key] for key in keys]])
    return [np.array([next(flat) for _ in g.completions]) for g in groups]


def _win_rates(oracle: Oracle, groups: Sequence[Group]) -> list[np.ndarray]:
    games = score_groups(
        oracle,
        [prompt_text(g.prompt) for g in groups],
        [[c.text for c in g.completions] for g in groups],
    )
    return [_mean_verdicts(game, g) for game, g in zip(games, groups, strict=True)]


def _mean_verdicts(game: np.ndarray, group: Group) -> np.ndarray:
    """Mean over the other samples that it was judged against, which is unbiased.

    Of responses that are listed with their probabilities: the expectation, itself included.
    """
    size = len(game)
    law = np.tile(np.array(group.weights), (size, 1)) if group.weights else 1.0 - np.eye(size)
    law = np.where(np.isnan(game), 0.0, law)
    total = law.sum(axis=1)
    rates = (law * np.nan_to_num(game)).sum(axis=1)
    return np.where(total > 0.0, rates / np.where(total > 0.0, total, 1.0), np.nan)
