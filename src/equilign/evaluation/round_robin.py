"""Everyone against everyone on the same prompts, and the best of several answers."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from equilign.errors import ConfigError
from equilign.oracles import Oracle, score_groups
from equilign.rollout import Group, prompt_text


def first(group: Group, count: int) -> Group:
    """The group's first ``count`` answers."""
    return Group(group.prompt, group.prompt_ids, group.completions[:count])


def best_of(oracle: Oracle, groups: Sequence[Group]) -> list[Group]:
    """Each group's answer with the highest mean win rate within the group; the first of equals.

    A person's own pick is that of their own oracle: ``panel.weighted({"conciseness": 1.0})``.
    """
    prompts = [prompt_text(g.prompt) for g in groups]
    games = score_groups(oracle, prompts, [[c.text for c in g.completions] for g in groups])
    kept = []
    for group, game in zip(groups, games, strict=True):
        seen = ~np.isnan(game)
        rates = np.where(seen, game, 0.0).sum(axis=1) / seen.sum(axis=1)
        best = group.completions[int(rates.argmax())]
        kept.append(Group(group.prompt, group.prompt_ids, (best,)))
    return kept


def round_robin(
    oracle: Oracle, answers: Mapping[str, Sequence[Group]], home: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Everyone against everyone on every prompt.

    Args:
        oracle: who judges.
        answers: player -> its answers to the same prompts.
        home: the player that lengths are compared with.

    Returns:
        Win rates ``(prompts, players, players)`` (row beats column, ties one half, both orders
        asked; nan where no pair got a verdict), and for each other player its length-controlled
        win rates over ``home``, see `length_controlled`.

    Raises:
        ConfigError: ``home`` is no player, or players answered other prompts.
    """
    names = list(answers)
    if home not in answers:
        raise ConfigError(f"no player {home!r} to compare with; there are: {', '.join(names)}")
    prompts = [prompt_text(g.prompt) for g in answers[home]]
    for name in names:
        if [prompt_text(g.prompt) for g in answers[name]] != prompts:
            raise ConfigError(f"{name} and {home} must answer the same prompts in the same order")
    texts = [
        [c.text for n in names for c in answers[n][i].completions] for i in range(len(prompts))
    ]
    games = score_groups(oracle, prompts, texts)
    sizes = [len(answers[n][0].completions) for n in names]
    spans = [slice(a, b) for a, b in pairwise(np.cumsum([0, *sizes]).tolist())]
    shares = np.array([[[_mean(game[a, b]) for b in spans] for a in spans] for game in games])
    controlled = {}
    start = spans[names.index(home)]
    for name, span in zip(names, spans, strict=True):
        if name != home:
            verdicts = np.stack([game[span, start] for game in games])
            lengths = [_lengths(answers[n]) for n in (name, home)]
            extra = lengths[0][:, :, None] - lengths[1][:, None, :]
            controlled[name] = length_controlled(verdicts, extra)
    return shares, controlled


def _mean(verdicts: np.ndarray) -> float:
    seen = verdicts[~np.isnan(verdicts)]
    return float(seen.mean()) if seen.size else float("nan")


def length_controlled(verdicts: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Win rates per prompt with the part that goes with length taken out, shape ``(prompts,)``.

    A line is fitted to all verdicts by least squares, with ``tanh(extra / sd(extra))`` as in
    length-controlled AlpacaEval (Dubois et al. 2024, arXiv:2404.04475); what is left when its
    slope is taken out has the line's height at equal length as its mean.

    Args:
        verdicts: ``(prompts, answers, answers of the other side)``.
        extra: tokens that the first answer is longer by, of the same shape.
    """
    spread = float(extra.std())
    if spread == 0.0:
        return np.asarray(verdicts.mean(axis=(1, 2)))
    x = np.tanh(extra / spread)
    centred = x - x.mean()
    variance = float((centred**2).sum())
    slope = float((centred * verdicts).sum()) / variance if variance > 0.0 else 0.0
    return np.asarray((verdicts - slope * x).mean(axis=(1, 2)))


def _lengths(groups: Sequence[Group]) -> np.ndarray:
    return np.array([[len(c.ids) for c in g.completions] for g in groups], dtype=float)


def per_prompt_tokens(groups: Sequence[Group]) -> np.ndarray:
    """Mean length of the answers to each prompt, in tokens, end token included."""
    return np.asarray(_lengths(groups).mean(axis=1))
