"""Preference matrices from what people have: counts, margins, scores, ballots, annotators, records.

Plain functions from data to arrays; `PreferenceGame.from_counts` and its sisters wrap them.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from equilign.errors import ConfigError, DataError, PolicyError, PreferenceMatrixError
from equilign.games.bradley_terry import bradley_terry_prefs, check_wins
from equilign.games.checks import TOLERANCE, check_labels, check_prefs

Ranking = Sequence[object]
"""A ballot, best first: labels, or tuples, lists or sets of labels that are tied."""

Record = Sequence[object]
"""``(first, second[, weight[, share]])``: ``first`` won ``share`` of ``weight`` comparisons."""

Weights = Sequence[float] | Sequence[int] | np.ndarray
"""One number ``>= 0`` each."""

Unranked = Literal["last", "uncounted", "unknown"]
"""What a ballot says of those it leaves out, see `wins_from_rankings`."""

_CHUNK_BYTES = 2**24


def prefs_from_counts(
    wins: Float[np.ndarray, "*batch n n"], *, missing: float | None = 0.5, prior: float = 0.0
) -> Float[np.ndarray, "*batch n n"]:
    """Win rates of a table of wins.

    Args:
        wins: ``wins[i, j]`` comparisons in which i was preferred to j, ``>= 0``; a tie adds one
            half to both; the diagonal is not looked at.
        missing: the entry for a pair that was never compared: 0.5, or None to refuse such pairs.
        prior: comparisons that every player is taken to have won, and lost, against every
            other one beforehand; 1 is Laplace's rule, 0.5 Jeffreys'.

    Raises:
        DataError: ``wins`` is no table of weights; or a pair is missing and may not be.
        ConfigError: ``missing`` is another number, or ``prior`` is negative.
    """
    if missing not in (0.5, None):
        raise ConfigError(
            f"missing = {missing}; a pair without comparisons can only be 0.5 on both sides, "
            "or None to refuse it"
        )
    if not (np.isfinite(prior) and prior >= 0.0):
        raise ConfigError(f"prior = {prior}; it must be finite and >= 0")
    check_wins(wins)
    won = wins.astype(np.float64) + prior
    total = won + won.swapaxes(-1, -2)
    diagonal = np.arange(won.shape[-1])
    total[..., diagonal, diagonal] = 0.0
    empty = total == 0.0
    empty[..., diagonal, diagonal] = False
    if missing is None and empty.any():
        where = tuple(int(k) for k in np.argwhere(empty)[0])
        game = f" in game {where[0]}" if wins.ndim == 3 else ""
        number = int(empty.sum()) // 2
        raise DataError(
            f"players {where[-2]} and {where[-1]} were never compared{game} ({number} such "
            "pairs); pass missing=0.5 to count them as ties, or a prior > 0"
        )
    return np.divide(won, total, out=np.full_like(won, 0.5), where=total > 0.0)


def prefs_from_margins(
    margins: Float[np.ndarray, "*batch n n"], *, sure_win: float = 0.5
) -> Float[np.ndarray, "*batch n n"]:
    """Win probabilities of a skew-symmetric matrix of margins.

    Args:
        margins: ``margins[i, j] == -margins[j, i]``, 0 for a tie, ``sure_win`` for a sure win.
        sure_win: 0.5 for margins ``P - 1/2`` (as `PreferenceGame.margin`), 1 for
            ``Pr(win) - Pr(loss) = 2 P - 1``, the number of voters for differences of votes.

    Raises:
        ConfigError: ``sure_win`` is not positive.
        PreferenceMatrixError: not square, not skew, not finite, or beyond ``sure_win``.
    """
    if not (np.isfinite(sure_win) and sure_win > 0.0):
        raise ConfigError(f"sure_win = {sure_win}; it must be finite and > 0")
    if margins.ndim not in (2, 3) or margins.shape[-1] != margins.shape[-2] or 0 in margins.shape:
        raise PreferenceMatrixError(
            f"margins has shape {margins.shape}; a square matrix is needed: (n, n), or (X, n, n)"
        )
    beyond = ~(np.abs(margins) <= sure_win * (1.0 + TOLERANCE))
    if beyond.any():
        where = tuple(int(k) for k in np.argwhere(beyond)[0])
        cure = "pass sure_win=1 if margins are Pr(win) - Pr(loss)" if sure_win == 0.5 else ""
        cure = cure or "sure_win is the margin of a sure win"
        raise PreferenceMatrixError(
            f"margins[{', '.join(map(str, where))}] = {margins[where]} is outside "
            f"[-{sure_win:g}, {sure_win:g}]; {cure}"
        )
    error = np.abs(margins + margins.swapaxes(-1, -2))
    where = tuple(int(k) for k in np.unravel_index(int(error.argmax()), error.shape))
    if error[where] > TOLERANCE * sure_win:
        other = (*where[:-2], where[-1], where[-2])
        raise PreferenceMatrixError(
            f"margins[i, j] must be -margins[j, i]; worst pair is "
            f"({where[-2]}, {where[-1]}): {margins[where]:g} and {margins[other]:g}. "
            "For win probabilities use PreferenceGame(prefs)"
        )
    return np.clip(0.5 + margins.astype(np.float64) / (2.0 * sure_win), 0.0, 1.0)


def prefs_from_scores(
    scores: Float[np.ndarray, "*batch n"], *, temperature: float = 1.0
) -> Float[np.ndarray, "*batch n n"]:
    """The Bradley-Terry matrix ``sigmoid((score_i - score_j) / temperature)``.

    Args:
        scores: rewards, in nats times ``temperature``; shape ``(n,)`` or ``(X, n)``.
        temperature: noise of the judge, ``> 0``.

    Raises:
        ConfigError: the temperature is not positive.
        DataError: a score is not finite, or there are none.
    """
    if not (np.isfinite(temperature) and temperature > 0.0):
        raise ConfigError(f"temperature = {temperature}; it must be finite and > 0")
    if scores.ndim not in (1, 2) or 0 in scores.shape:
        raise DataError(f"scores has shape {scores.shape}; one per response: (n,), or (X, n)")
    if not np.isfinite(scores).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(scores))[0])
        raise DataError(f"scores[{', '.join(map(str, where))}] = {scores[where]}; must be finite")
    return bradley_terry_prefs(scores.astype(np.float64) / temperature)


def mix_prefs(
    annotators: Sequence[Float[np.ndarray, "n n"]], weights: Weights | None = None
) -> Float[np.ndarray, "n n"]:
    """What a random annotator prefers: the weighted mean of their matrices.

    Args:
        annotators: one matrix of win probabilities each, all of one size.
        weights: how often each one is asked, ``>= 0``; normalised. The same for all if not given.

    Raises:
        DataError: no annotators, or matrices of different sizes.
        PolicyError: the weights are not one number ``>= 0`` per annotator with a positive sum.
        PreferenceMatrixError: an annotator's matrix is none; names the annotator.
    """
    if len(annotators) == 0:
        raise DataError("no annotators; at least one matrix of win probabilities is needed")
    share = check_weights(weights, len(annotators), "annotator")
    mixed = np.zeros_like(annotators[0], dtype=np.float64)
    for k, prefs in enumerate(annotators):
        if prefs.ndim != 2 or prefs.shape != annotators[0].shape:
            raise DataError(
                f"annotator {k} has a matrix of shape {prefs.shape}, annotator 0 "
                f"{annotators[0].shape}; all judge the same responses"
            )
        try:
            check_prefs(prefs)
        except PreferenceMatrixError as error:
            raise PreferenceMatrixError(f"annotator {k}: {error}") from None
        mixed += share[k] * prefs
    return np.clip(mixed, 0.0, 1.0)


def check_weights(weights: Weights | None, size: int, what: str) -> np.ndarray:
    """Weights that sum to one.

    Raises:
        PolicyError: not one finite number ``>= 0`` per ``what``, or all of them zero.
    """
    if weights is None:
        return np.full(size, 1.0 / size)
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (size,):
        raise PolicyError(f"weights has shape {given.shape}; one per {what} is needed: ({size},)")
    bad = ~((given >= 0.0) & (given < np.inf))
    if bad.any():
        k = int(bad.argmax())
        raise PolicyError(f"weights[{k}] = {given[k]}; weights must be finite and >= 0")
    if given.sum() == 0.0:
        raise PolicyError(f"all weights are zero; at least one {what} must count")
    return given / given.sum()


# -- ballots ------------------------------------------------------------------------------


def wins_from_rankings(
    rankings: Sequence[Ranking],
    weights: Weights | None = None,
    *,
    labels: Sequence[str] | None = None,
    unranked: Unranked = "last",
) -> tuple[Float[np.ndarray, "n n"], tuple[str, ...]]:
    """How many ballots rank i above j; tied on a ballot counts one half on both sides.

    Args:
        rankings: ballots, best first. An entry is a label, or a tuple, list or set of labels
            that are tied. A ballot may leave some out.
        weights: how often each ballot was cast; once if not given.
        labels: all alternatives, in the order of the matrix; in order of first appearance if
            not given.
        unranked: what a ballot says of those it leaves out: ``last`` below all ranked ones and
            tied with one another; ``uncounted`` the same, but a pair of them is not counted;
            ``unknown`` nothing, so that no pair with one of them is counted.

    Returns:
        The wins, and the labels in the order of their rows.

    Raises:
        DataError: no ballots, an unknown alternative, or one that is ranked twice; names the
            ballot.
        ConfigError: no such ``unranked``.
    """
    if unranked not in ("last", "uncounted", "unknown"):
        raise ConfigError(f"unranked = {unranked!r}; there are: last, uncounted, unknown")
    if len(rankings) == 0:
        raise DataError("no rankings; at least one ballot is needed")
    cast = np.ones(len(rankings))
    if weights is not None:
        cast = check_weights(weights, len(rankings), "ballot") * float(np.sum(weights))
    index = _Names(labels)
    ballots = [_ranks(ballot, k, index) for k, ballot in enumerate(rankings)]
    size = len(index.names)
    ranks = np.full((len(ballots), size), size, dtype=np.int64)  # `size`: left out
    for row, ballot in zip(ranks, ballots, strict=True):
        row[list(ballot)] = list(ballot.values())
    wins = np.zeros((size, size))
    step = max(1, _CHUNK_BYTES // (8 * size * size))
    for start in range(0, len(ranks), step):
        part, weight = ranks[start : start + step], cast[start : start + step]
        above = (part[:, :, None] < part[:, None, :]).astype(np.float64)
        above += 0.5 * (part[:, :, None] == part[:, None, :])
        out = part == size
        if unranked == "uncounted":
            above *= ~(out[:, :, None] & out[:, None, :])
        elif unranked == "unknown":
            above *= ~(out[:, :, None] | out[:, None, :])
        wins += np.einsum("b,bij->ij", weight, above)
    np.fill_diagonal(wins, 0.0)
    return wins, tuple(index.names)


def _ranks(ballot: Ranking, number: int, index: "_Names") -> dict[int, int]:
    place: dict[int, int] = {}
    if isinstance(ballot, str):
        raise DataError(
            f"ballot {number} is the text {ballot!r}; a ballot is a sequence of labels, best first"
        )
    for rank, entry in enumerate(ballot):
        tied = isinstance(entry, Collection) and not isinstance(entry, str)
        for name in entry if isinstance(entry, Collection) and tied else (entry,):
            i = index.find(name, f"ballot {number}")
            if i in place:
                raise DataError(f"ballot {number} ranks {name!r} twice; once at most")
            place[i] = rank
    return place


# -- records ------------------------------------------------------------------------------


def wins_from_comparisons(
    records: Iterable[Record], *, labels: Sequence[str] | None = None
) -> tuple[Float[np.ndarray, "n n"], tuple[str, ...]]:
    """Wins out of single comparisons.

    Args:
        records: ``(winner, loser)``, ``(winner, loser, weight)`` or
            ``(first, second, weight, share)`` where ``first`` won ``share`` of it: 1 unless given,
            0.5 for a tie, a probability for a soft label.
        labels: all alternatives, in the order of the matrix; in order of first appearance if
            not given.

    Returns:
        The wins, and the labels in the order of their rows.

    Raises:
        DataError: no records, or one that is malformed; names the record, counting from 0.
    """
    index = _Names(labels)
    entries = [_entry(record, k, index) for k, record in enumerate(records)]
    if not entries:
        raise DataError("no comparisons; at least one (winner, loser) is needed")
    size = len(index.names)
    wins = np.zeros((size, size))
    first, second, weight, share = (np.array(column) for column in zip(*entries, strict=True))
    np.add.at(wins, (first, second), weight * share)
    np.add.at(wins, (second, first), weight * (1.0 - share))
    return wins, tuple(index.names)


def _entry(record: Record, number: int, index: "_Names") -> tuple[int, int, float, float]:
    if isinstance(record, str) or not isinstance(record, Sequence) or not 2 <= len(record) <= 4:
        raise DataError(
            f"record {number} is {record!r}; needed: (winner, loser), (winner, loser, weight) or "
            "(first, second, weight, share of the first)"
        )
    where = f"record {number}"
    first, second = index.find(record[0], where), index.find(record[1], where)
    if first == second:
        raise DataError(f"record {number} compares {record[0]!r} with itself; leave it out")
    numbers = [1.0, 1.0]
    for k, value in enumerate(record[2:]):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise DataError(f"record {number} has {value!r} where a number belongs")
        numbers[k] = float(value)
    weight, share = numbers
    if not (0.0 <= weight < np.inf):
        raise DataError(f"record {number} has weight {weight}; it must be finite and >= 0")
    if not 0.0 <= share <= 1.0:
        raise DataError(
            f"record {number} gives its first a share of {share}; "
            "it must be in [0, 1], 0.5 for a tie"
        )
    return first, second, weight, share


class _Names:
    """Labels to rows; collects them in order of appearance unless they are given."""

    def __init__(self, labels: Sequence[str] | None) -> None:
        self.fixed = labels is not None
        self.names = list(check_labels(labels, len(labels))) if labels is not None else []
        self._row = {name: i for i, name in enumerate(self.names)}

    def find(self, name: object, where: str) -> int:
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where} names {name!r}; an alternative is a text that is not empty")
        row = self._row.get(name)
        if row is None:
            if self.fixed:
                shown = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
                raise DataError(f"{where} names {name!r}, which is no label; there are: {shown}")
            row = self._row[name] = len(self.names)
            self.names.append(name)
        return row
