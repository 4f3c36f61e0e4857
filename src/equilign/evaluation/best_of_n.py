"""Refinement against independent sampling, at the same number of generated answers."""

from collections.abc import Sequence

import numpy as np

PLAYERS = {
    "last": "Refinement, last answer",
    "pick": "Refinement, the oracle's pick",
    "best_of_n": "Best of n of the Leader",
    "mean": "The Leader, mean of n",
}
"""What a budget of n answers is spent on."""

DUELS = {
    "last_vs_best_of_n": ("last", "best_of_n"),
    "pick_vs_best_of_n": ("pick", "best_of_n"),
}
"""Head to head: name -> (player, opponent)."""


def best_answer(game: np.ndarray, texts: Sequence[str]) -> int | None:
    """The answer with the highest mean win probability against the other different answers.

    A text counts once however often it occurs, a pair without a verdict (nan) does not count, and
    the first of equals is taken. This is the answer that wins most often against another one
    drawn from the group. It need not be a Condorcet winner, one that beats every other with more
    than 1/2, even where there is one: an answer that narrowly beats two others yields to one that
    it narrowly beats and that wins the third pair by far.

    Args:
        game: ``(K, K)``, entry ``[i, j]`` = Pr(i beats j).
        texts: the K answers.

    Returns:
        Its place; None where no pair of different answers has a verdict.
    """
    places = list({text: i for i, text in reversed(list(enumerate(texts)))}.values())
    places.sort()
    if len(places) == 1:
        return places[0]
    small = game[np.ix_(places, places)].copy()
    np.fill_diagonal(small, np.nan)
    seen = (~np.isnan(small)).sum(axis=1)
    if not seen.any():
        return None
    means = np.where(seen > 0, np.nansum(small, axis=1) / np.maximum(seen, 1), -np.inf)
    # Rounded: sums of the same verdicts in another order are equal.
    return places[int(means.round(12).argmax())]


def spend_budgets(
    game: np.ndarray, texts: Sequence[str], rounds: int, opponents: int
) -> dict[str, np.ndarray]:
    """What n generated answers are worth, for n = 1 to ``rounds + 1``.

    The oracle chooses only among the n answers, never by looking at the opponents. It is the
    oracle's own verdict on its choice, so the chosen ones look better than they are to anybody
    else; that flatters `pick` and `best_of_n` alike.

    Args:
        game: win probabilities among all texts, nan for no verdict.
        texts: the chain's ``rounds + 1`` answers, ``rounds`` further independent answers of the
            Leader (the chain's first is their first), then the opponents.
        rounds: of refinement.
        opponents: further independent answers of the Leader, whom everybody plays.

    Returns:
        For each of `PLAYERS` the win rate against the opponents, for each of `DUELS` the win
        rate of one over the other; shape ``(rounds + 1,)``, nan where there is no verdict.

    Raises:
        ValueError: another number of texts.
    """
    if len(texts) != 2 * rounds + 1 + opponents or opponents < 1:
        raise ValueError(f"{len(texts)} texts for {rounds} rounds and {opponents} opponents")
    chain = list(range(rounds + 1))
    alone = [0, *range(rounds + 1, 2 * rounds + 1)]
    rivals = slice(2 * rounds + 1, None)

    def worth(place: int | None) -> float:
        return np.nan if place is None else _mean(game[place, rivals])

    found: dict[str, list[float]] = {name: [] for name in (*PLAYERS, *DUELS)}
    for n in range(1, rounds + 2):
        chosen = {
            "last": chain[n - 1],
            "pick": _best(game, texts, chain[:n]),
            "best_of_n": _best(game, texts, alone[:n]),
        }
        for name, place in chosen.items():
            found[name].append(worth(place))
        found["mean"].append(_mean(np.array([worth(i) for i in alone[:n]])))
        for name, (one, other) in DUELS.items():
            a, b = chosen[one], chosen[other]
            found[name].append(np.nan if a is None or b is None else float(game[a, b]))
    return {name: np.array(values) for name, values in found.items()}


def _best(game: np.ndarray, texts: Sequence[str], places: list[int]) -> int | None:
    found = best_answer(game[np.ix_(places, places)], [texts[i] for i in places])
    return None if found is None else places[found]


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
