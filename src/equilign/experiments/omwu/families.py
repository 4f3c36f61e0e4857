"""The games: three families of matrices, drawn from a seed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from equilign.games import PreferenceGame
from equilign.games.named import named_game


@dataclass(frozen=True)
class Family:
    """A kind of random game.

    Attributes:
        name: key in the results.
        title: as in prose.
        kind: name of the game in `equilign.games.named.NAMED_GAMES`.
        n: responses.
        assumption: whether an equilibrium that plays everything is guaranteed.
    """

    name: str
    title: str
    kind: str
    n: int
    assumption: bool


FAMILIES: tuple[Family, ...] = (
    Family("full-odd", "full support, n = 11", "full-support", 11, True),
    Family("full-even", "full support, n = 10", "full-support", 10, True),
    Family("random", "random, n = 10", "random", 10, False),
)
"""Odd: one interior equilibrium; even: a set of them; random (EGPO's generator): none."""


def draw_games(
    family: Family, count: int, seed: int, stream: int, n: int | None = None
) -> tuple[PreferenceGame, Float[np.ndarray, "x n"]]:
    """A batch of games, whose reference is the start policy, as in EGPO's simulations.

    Args:
        family: kind of game.
        count: how many.
        seed: of the whole experiment.
        stream: separates the parts of the experiment: no two share a game.
        n: responses, if not the family's.

    Returns:
        The games (``beta`` 0), and the start policies: softmax of standard normal logits.
    """
    size = family.n if n is None else n
    place = [seed, stream, sorted(f.name for f in FAMILIES).index(family.name)]
    rng = np.random.default_rng(place)
    seeds = rng.integers(0, 2**62, size=count)
    options: dict[str, Any] = {"n": size}
    prefs = np.stack([named_game(family.kind, seed=int(s), **options).prefs for s in seeds])
    logits = rng.normal(size=(count, size))
    start = np.exp(logits - logits.max(axis=1, keepdims=True))
    start /= start.sum(axis=1, keepdims=True)
    return PreferenceGame(prefs, start), start
