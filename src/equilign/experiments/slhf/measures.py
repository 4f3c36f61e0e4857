"""What every answer is worth to every voter of a panel, as arrays.

Scoring each answer once gives all verdicts of the panel on all pairs: a voter prefers the answer
that it scores higher, a tie counts one half.
"""

from collections.abc import Sequence

import numpy as np

from equilign.oracles import Panel
from equilign.rollout import Group, prompt_text


def scores(panel: Panel, groups: Sequence[Group]) -> np.ndarray:
    """Every voter's score of every answer, ``(voters, prompts, answers)``."""
    prompts = [prompt_text(g.prompt) for g in groups for _ in g.completions]
    texts = [c.text for g in groups for c in g.completions]
    keys = list(dict.fromkeys(zip(prompts, texts, strict=True)))
    place = {key: i for i, key in enumerate(keys)}
    found = panel.scores([x for x, _ in keys], [y for _, y in keys])
    columns = [place[key] for key in zip(prompts, texts, strict=True)]
    return found[:, columns].reshape(len(found), len(groups), -1)


def wins_over(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Each voter's share of wins of each answer over all of ``theirs``; ties one half.

    Args:
        mine: scores ``(voters, prompts, answers)``.
        theirs: scores ``(voters, prompts, opponents)``.

    Returns:
        ``(voters, prompts, answers)``.
    """
    left, right = mine[..., :, None], theirs[..., None, :]
    return np.asarray(((left > right) + 0.5 * (left == right)).mean(axis=-1))


def rewards(mine: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Mean over voters of standardised scores, ``(prompts, answers)``.

    Each voter's scores are taken in standard deviations of the start model's answers, from their
    mean over all prompts; a voter that gives them all one score counts nothing.
    """
    mean = start.mean(axis=(1, 2), keepdims=True)
    deviation = start.std(axis=(1, 2), keepdims=True)
    known = deviation > 0.0
    return np.asarray(np.where(known, (mine - mean) / np.where(known, deviation, 1.0), 0.0).mean(0))
