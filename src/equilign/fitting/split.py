"""Dividing preference pairs by prompt: what is held out shares no prompt with what was fitted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equilign.errors import ConfigError, DataError
from equilign.formats import PreferencePair, Prompt

FEWEST_PROMPTS = 10


@dataclass(frozen=True)
class Split:
    """Pairs in three parts, no prompt in two of them.

    Attributes:
        train: fitted on.
        validation: stops the training and sets the judge's scale.
        held_out: looked at once, at the end.
    """

    train: tuple[PreferencePair, ...]
    validation: tuple[PreferencePair, ...]
    held_out: tuple[PreferencePair, ...]


def prompt_unit(prompt: Prompt) -> str:
    """What makes two prompts "the same": the first message's text, but for case and spaces.

    Later turns do not count: two points of one conversation would share its beginning.
    """
    text = prompt if isinstance(prompt, str) else prompt[0]["content"]
    return " ".join(text.casefold().split())


def split_pairs(
    pairs: Sequence[PreferencePair],
    *,
    seed: int,
    held_out: float = 0.2,
    validation: float = 0.1,
) -> Split:
    """A random division by prompt.

    Args:
        pairs: all of them.
        seed: same seed, same prompts: same division, whatever the order of the pairs.
        held_out: share of the prompts to be measured on.
        validation: share of the prompts to stop on.

    Raises:
        ConfigError: a share is not in (0, 1), or nothing would be left to fit.
        DataError: fewer than `FEWEST_PROMPTS` prompts.
    """
    if not (0.0 < held_out < 1.0 and 0.0 < validation < 1.0 and held_out + validation < 1.0):
        raise ConfigError(
            "the shares of held-out and of validation prompts must be positive and leave "
            f"something to fit on; got {held_out} and {validation}"
        )
    units = sorted({prompt_unit(p.prompt) for p in pairs})
    if len(units) < FEWEST_PROMPTS:
        raise DataError(
            f"the data have {len(units)} different prompts; at least {FEWEST_PROMPTS} are needed "
            "to fit on some, stop on others, and measure on yet others"
        )
    order = np.random.default_rng(seed).permutation(len(units))
    count_out = max(1, round(held_out * len(units)))
    count_stop = max(1, round(validation * len(units)))
    part = {units[i]: 2 for i in order[:count_out]}
    part |= {units[i]: 1 for i in order[count_out : count_out + count_stop]}
    parts: tuple[list[PreferencePair], ...] = ([], [], [])
    for pair in pairs:
        parts[part.get(prompt_unit(pair.prompt), 0)].append(pair)
    if not parts[0]:
        raise ConfigError("no prompt is left to fit on; choose smaller shares")
    return Split(tuple(parts[0]), tuple(parts[1]), tuple(parts[2]))
