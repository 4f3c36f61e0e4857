"""One door to every solution concept."""

import inspect
from collections.abc import Callable
from typing import Any

from equilign.errors import ConfigError
from equilign.games.limits import best_response, bradley_terry, dpo, ipo
from equilign.games.nash import nash
from equilign.games.preference_game import PreferenceGame
from equilign.games.solution import Solution
from equilign.games.stackelberg import stackelberg
from equilign.games.voting import borda, condorcet, copeland

CONCEPTS: dict[str, Callable[..., Solution]] = {
    "nash": nash,
    "stackelberg": stackelberg,
    "bradley-terry": bradley_terry,
    "condorcet": condorcet,
    "borda": borda,
    "copeland": copeland,
    "best-response": best_response,
    "ipo": ipo,
    "dpo": dpo,
}
"""Name -> function of a game and keyword options: the list that the command line reads."""


def solve(game: PreferenceGame, concept: str = "nash", **options: Any) -> Solution:  # noqa: ANN401
    """The answer of a solution concept.

    Args:
        game: one game or a batch.
        concept: one of `CONCEPTS`.
        **options: keyword options of that concept's function.

    Raises:
        ConfigError: no such concept, or it has no such option; lists those there are.
    """
    if concept not in CONCEPTS:
        raise ConfigError(f"no concept {concept!r}; there are: {', '.join(CONCEPTS)}")
    function = CONCEPTS[concept]
    known = [p for p in inspect.signature(function).parameters if p != "game"]
    for name in options:
        if name not in known:
            raise ConfigError(
                f"concept {concept!r} has no option {name!r}; "
                f"it has: {', '.join(known) if known else 'none'}"
            )
    return function(game, **options)
