"""Games with names, most of them with an equilibrium that is known exactly."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from equilign.errors import ConfigError
from equilign.games import named_builders as build
from equilign.games.preference_game import PreferenceGame


@dataclass(frozen=True)
class NamedGame:
    """A family of games with a name.

    Attributes:
        name: as on the command line.
        title: as in prose.
        description: what it is good for, in a sentence or two.
        source: where it is from.
        build: the game, from keyword options that all have defaults.
        solution: an equilibrium in closed form, from the same options; None where none is known.
        unique: whether that equilibrium is the only one, whatever the options.
    """

    name: str
    title: str
    description: str
    source: str
    build: Callable[..., PreferenceGame]
    solution: Callable[..., Float[np.ndarray, " n"]] | None = None
    unique: bool = False

    @property
    def options(self) -> Mapping[str, object]:
        """Names of the options of `build` and `solution` with their defaults."""
        return {p.name: p.default for p in inspect.signature(self.build).parameters.values()}


def named_game(name: str, **options: Any) -> PreferenceGame:  # noqa: ANN401
    """The game of that name.

    Args:
        name: one of `NAMED_GAMES`.
        **options: keyword options of that game, see `NamedGame.options`.

    Raises:
        ConfigError: no such game, it has no such option, or an option is out of range.
    """
    if name not in NAMED_GAMES:
        near = difflib.get_close_matches(name, NAMED_GAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"no game {name!r}{hint} There are: {', '.join(NAMED_GAMES)}")
    game = NAMED_GAMES[name]
    for option in options:
        if option not in game.options:
            known = ", ".join(f"{k}={v!r}" for k, v in game.options.items()) or "none"
            raise ConfigError(f"game {name!r} has no option {option!r}; it has: {known}")
    return game.build(**options)


_GAMES = (
    NamedGame(
        "rock-paper-scissors",
        "Rock, paper, scissors",
        "The smallest game without a best response; every policy but uniform can be beaten.",
        "folklore",
        build.rock_paper_scissors,
        build.rock_paper_scissors_solution,
        unique=True,
    ),
    NamedGame(
        "weighted-rock-paper-scissors",
        "Rock, paper, scissors with unequal odds",
        "Each duel has its own winning probability. One plays each response as often as the "
        "margin of the other two's duel says, not as often as it wins.",
        "folklore; Fisher and Ryan 1992 for weighted tournaments",
        build.weighted_rock_paper_scissors,
        build.weighted_rock_paper_scissors_solution,
        unique=True,
    ),
    NamedGame(
        "condorcet-cycle",
        "Condorcet cycle",
        "A beats B beats C beats A. The Stackelberg follower answers each with its conqueror.",
        "SLHF, arXiv:2512.16626",
        build.condorcet_cycle,
        build.condorcet_cycle_solution,
        unique=True,
    ),
    NamedGame(
        "comal",
        "COMAL's example",
        "A skewed cycle on which regularised methods keep a visible distance to the equilibrium.",
        "COMAL, arXiv:2410.23223",
        build.comal,
        build.comal_solution,
        unique=True,
    ),
    NamedGame(
        "condorcet-winner",
        "A Condorcet winner",
        "One response beats both others: the equilibrium is pure and every method finds it.",
        "standard",
        build.condorcet_winner,
        lambda: build.first_of(3),
        unique=True,
    ),
    NamedGame(
        "favourite-loses",
        "The favourite of the scores loses",
        "A Condorcet winner wins everything narrowly; another response crushes the weak ones, "
        "so that Borda, Bradley-Terry, RLHF and DPO prefer it.",
        "standard in voting theory (Condorcet against Borda)",
        build.favourite_loses,
        lambda narrow=0.52, wide=0.95: build.first_of(4),
        unique=True,
    ),
    NamedGame(
        "bradley-terry",
        "Bradley-Terry",
        "Preferences that scores explain without rest; the highest score is the equilibrium.",
        "Bradley and Terry 1952, Biometrika 39",
        build.bradley_terry,
        build.bradley_terry_solution,
    ),
    NamedGame(
        "majority-of-annotators",
        "Three annotators",
        "Each annotator is transitive (ABC, BCA, CAB); a random one prefers in a cycle.",
        "Condorcet 1785",
        build.majority_of_annotators,
        build.majority_solution,
        unique=True,
    ),
    NamedGame(
        "rotational",
        "A ring",
        "An odd ring on which each beats the half that follows: rock-paper-scissors-lizard-spock "
        "for n = 5. The equilibrium is uniform.",
        "Fisher and Ryan 1992, tournament games",
        build.rotational,
        build.rotational_solution,
        unique=True,
    ),
    NamedGame(
        "clones",
        "Rock, paper, scissors with copies of rock",
        "Equilibria are not unique: only the copies' total is determined. Scores and Borda "
        "change with the number of copies, the equilibrium does not.",
        "independence of clones, Tideman 1987",
        build.clones,
        build.clones_solution,
    ),
    NamedGame(
        "all-ties",
        "All ties",
        "Every policy is an equilibrium: the most degenerate game.",
        "standard",
        build.all_ties,
        build.all_ties_solution,
    ),
    NamedGame(
        "tournament",
        "A random tournament",
        "Every pair has a winner, drawn by a coin. The equilibrium is unique and mixes an odd "
        "number of responses.",
        "Fisher and Ryan 1992, tournament games",
        build.tournament,
    ),
    NamedGame(
        "random",
        "Random preferences",
        "Win probabilities uniform in [0, 1]; about half of the responses are played.",
        "the generator of EGPO, arXiv:2503.08942",
        build.random,
    ),
    NamedGame(
        "full-support",
        "Random preferences with an interior equilibrium",
        "A = Q B Q with a random skew B and Q the projection off x: then A x = 0, so x is an "
        "equilibrium that plays everything. Unique for odd n; for even n it never is.",
        "the assumption of OMWU's last-iterate theorem, arXiv:2512.24818",
        build.full_support,
        build.full_support_solution,
    ),
)

NAMED_GAMES: dict[str, NamedGame] = {game.name: game for game in _GAMES}
"""Name -> game: the list that the command line reads."""
