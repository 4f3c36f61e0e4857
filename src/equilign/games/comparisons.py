"""Comparisons: who was preferred to whom, on which prompt, by whom, shown in which order."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from equilign.errors import DataError

MOST_PLAYERS = 2000
"""Players above which no table of pairs is made: it would not fit."""


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Verdicts, one per row, as whole numbers that point into lists of names.

    Attributes:
        first: one player of the row, shape ``(m,)``, as a number in ``players``.
        second: the other one.
        score: 1 where ``first`` was preferred, 0 where ``second`` was, 1/2 for a tie.
        weight: how many comparisons the row stands for, ``> 0``.
        shown: 1 where ``first`` was shown first, -1 where ``second`` was, 0 where it is unknown.
        prompt: number in ``prompts``, or -1 where none was named.
        annotator: number in ``annotators``, or -1.
        attribute: number in ``attributes``, or -1.
        players: names of systems, or the answers themselves (see ``pooled``).
        prompts: texts or identifiers.
        annotators: names.
        attributes: names.
        pooled: whether players mean the same across prompts. Answers do not: every one belongs
            to its prompt, and each prompt is a game of its own.
        notes: plain sentences about choices made when the file was read.

    Raises:
        DataError: arrays of different lengths, a number that points nowhere, a player compared
            with itself, a score outside [0, 1], a weight that is not positive.
    """

    first: Int[np.ndarray, " m"]
    second: Int[np.ndarray, " m"]
    score: Float[np.ndarray, " m"]
    weight: Float[np.ndarray, " m"]
    shown: Int[np.ndarray, " m"]
    prompt: Int[np.ndarray, " m"]
    annotator: Int[np.ndarray, " m"]
    attribute: Int[np.ndarray, " m"]
    players: tuple[str, ...]
    prompts: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    pooled: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows = len(self.first)
        for name, most in (
            ("first", len(self.players)),
            ("second", len(self.players)),
            ("prompt", len(self.prompts)),
            ("annotator", len(self.annotators)),
            ("attribute", len(self.attributes)),
        ):
            values = getattr(self, name)
            least = 0 if name in ("first", "second") else -1
            if len(values) != rows or (rows and not least <= values.min() <= values.max() < most):
                raise DataError(f"{name} needs {rows} numbers between {least} and {most - 1}")
        if not len(self.score) == len(self.weight) == len(self.shown) == rows:
            raise DataError(f"score, weight and shown need {rows} entries each")
        if (self.first == self.second).any():
            raise DataError("a player is compared with itself; leave such rows out")
        if not ((self.score >= 0.0) & (self.score <= 1.0)).all():
            raise DataError("a score must lie in [0, 1]: 1 where the first player was preferred")
        if not ((self.weight > 0.0) & (self.weight < np.inf)).all():
            raise DataError("a weight must be positive and finite")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.first)

    @property
    def total(self) -> float:
        """Number of comparisons: the sum of the weights."""
        return float(self.weight.sum())

    def subset(self, keep: Bool[np.ndarray, " m"] | Int[np.ndarray, " k"]) -> "Comparisons":
        """The rows in ``keep``, a mask or row numbers; the names stay as they are."""
        rows = ("first", "second", "score", "weight", "shown", "prompt", "annotator", "attribute")
        return replace(self, **{name: getattr(self, name)[keep] for name in rows})

    def wins(self) -> Float[np.ndarray, "n n"]:
        """Weight of rows in which i was preferred to j; a tie adds one half to both.

        Raises:
            DataError: players are answers to different prompts, or too many for a table.
        """
        self._check_pooled()
        return tabulate(self, len(self.players))[0]

    def ties(self) -> Float[np.ndarray, "n n"]:
        """Weight of ties of each pair, symmetric.

        Raises:
            DataError: as `wins`.
        """
        self._check_pooled()
        return tabulate(self, len(self.players))[1]

    def _check_pooled(self) -> None:
        if not self.pooled:
            raise DataError(
                f"the {len(self.players)} players are answers to {len(self.prompts)} different "
                "prompts, so they form no one game; each prompt has its own. Name the systems "
                "that wrote them (chosen_model, rejected_model) to compare systems"
            )
        if len(self.players) > MOST_PLAYERS:
            raise DataError(
                f"{len(self.players)} players are too many for a table of all pairs "
                f"(at most {MOST_PLAYERS}); keep the players that matter"
            )

    def by_prompt(self, least: int = 2) -> Iterator[tuple[int, "PromptGame"]]:
        """The games of single prompts, in the order of ``prompts``; rows without one are left out.

        Args:
            least: leave out prompts with fewer players.
        """
        # Prompts with few players are sifted out at once: there may be a million of them.
        both = np.concatenate([self.first, self.second])
        keys = np.unique(np.tile(self.prompt, 2) * len(self.players) + both)
        sizes = np.bincount(np.maximum(keys // len(self.players), -1) + 1)
        sizes[0] = 0
        rows = np.flatnonzero(sizes[self.prompt + 1] >= least)
        rows = rows[np.argsort(self.prompt[rows], kind="stable")]
        edges = np.flatnonzero(np.diff(self.prompt[rows])) + 1
        for part in np.split(rows, edges) if rows.size else ():
            players, local = np.unique(
                np.concatenate([self.first[part], self.second[part]]), return_inverse=True
            )
            table = (local[: len(part)], local[len(part) :], self.score[part], self.weight[part])
            wins, ties = _table(*table, len(players))
            yield int(self.prompt[part[0]]), PromptGame(part, players, wins, ties)


@dataclass(frozen=True, eq=False)
class PromptGame:
    """Comparisons of the answers to one prompt.

    Within a prompt players are numbered anew.

    Attributes:
        rows: which rows of the data these are.
        players: their numbers in the whole data, shape ``(k,)``.
        wins: as `Comparisons.wins`, among them, shape ``(k, k)``.
        ties: as `Comparisons.ties`.
    """

    rows: Int[np.ndarray, " r"]
    players: Int[np.ndarray, " k"]
    wins: Float[np.ndarray, "k k"]
    ties: Float[np.ndarray, "k k"]

    @property
    def counts(self) -> Float[np.ndarray, "k k"]:
        """Comparisons per pair."""
        return self.wins + self.wins.T


def tabulate(
    comparisons: Comparisons, size: int
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    """Wins and ties of ``size`` players over all rows."""
    c = comparisons
    return _table(c.first, c.second, c.score, c.weight, size)


def _table(
    first: np.ndarray, second: np.ndarray, score: np.ndarray, weight: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    def sums(rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> np.ndarray:
        flat = np.bincount(rows * size + columns, values, minlength=size * size)
        return flat.reshape(size, size)

    wins = sums(first, second, weight * score) + sums(second, first, weight * (1.0 - score))
    tied = sums(first, second, weight * (score == 0.5))
    return wins, tied + tied.T
