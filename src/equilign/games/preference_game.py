"""Preference games: who beats whom, and how often."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from equilign.errors import ConfigError, PolicyError, PreferenceMatrixError
from equilign.games import build
from equilign.games.checks import check_labels, check_mask, check_policy, check_prefs

_CHUNK_BYTES = 2**25


@dataclass(frozen=True, eq=False)
class PreferenceGame:
    """Two players each name a response; the first wins with probability ``prefs[i, j]``.

    One game, or a batch of them with one matrix per prompt. With ``beta > 0`` each player pays
    ``beta * KL(policy || ref)`` (Munos et al. 2024, arXiv:2312.00886, the regularised preference).

    A batch given as a float32 or float64 array is not copied: whoever changes that array changes
    the game. Everything computed from it uses the exactly skew margin ``(P - P.T) / 2``, in
    float64, so that the value of every game is exactly 1/2 whatever the rounding of ``prefs``.

    Attributes:
        prefs: Pr(i beats j), shape ``(n, n)`` or ``(X, n, n)``, with ``prefs + prefs.T == 1``.
        ref: regularising policy, shape ``(n,)`` or ``(X, n)``; uniform when not given.
        beta: KL weight in win probability per nat, ``>= 0``.
        mask: which responses exist, shape ``(X, n)``, for prompts with different numbers of
            responses; everything when not given. Entries of ``prefs`` off the mask are ignored.
        labels: names of the ``n`` responses.

    Raises:
        PreferenceMatrixError, PolicyError, ConfigError: see `equilign.games.checks`.
    """

    prefs: Float[np.ndarray, "*batch n n"]
    ref: Float[np.ndarray, "*some n"] | None = None
    beta: float = 0.0
    mask: Bool[np.ndarray, "x n"] | None = None
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        prefs = np.asarray(self.prefs)
        if prefs.dtype not in (np.float32, np.float64):
            prefs = _as_float64(prefs)
        if prefs.ndim not in (2, 3) or prefs.shape[-1] != prefs.shape[-2] or 0 in prefs.shape:
            raise PreferenceMatrixError(
                f"prefs has shape {prefs.shape}; a game needs a square matrix, one row per "
                "response: (n, n), or (X, n, n) for a batch of X games"
            )
        if not (np.isfinite(self.beta) and self.beta >= 0.0):
            raise ConfigError(f"beta = {self.beta}; the KL weight must be finite and >= 0")
        mask = None if self.mask is None else check_mask(self.mask, prefs.shape)
        labels = None if self.labels is None else check_labels(self.labels, prefs.shape[-1])
        if prefs.ndim == 2:
            check_prefs(prefs)
            prefs = prefs.astype(np.float64)
            prefs = 0.5 + (prefs - prefs.T) / 2.0
        else:
            for rows in _chunks(prefs):
                check_prefs(prefs[rows], None if mask is None else mask[rows], rows.start)
        object.__setattr__(self, "prefs", prefs)
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "ref", self._checked_ref())

    @classmethod
    def from_counts(
        cls,
        wins: Float[np.ndarray, "*batch n n"],
        *,
        labels: Sequence[str] | None = None,
        missing: float | None = 0.5,
        prior: float = 0.0,
    ) -> "PreferenceGame":
        """The game of observed win rates, see `equilign.games.build.prefs_from_counts`.

        Args:
            wins: comparisons in which i was preferred to j; a tie adds one half to both.
            labels: names of the responses.
            missing: the entry for pairs without comparisons: 0.5, or None to refuse them.
            prior: wins of every player over every other one that are taken for granted.
        """
        prefs = build.prefs_from_counts(
            _as_float64(np.asarray(wins), "wins"), missing=missing, prior=prior
        )
        return cls(prefs, labels=_tuple(labels))

    @classmethod
    def from_margins(
        cls,
        margins: Float[np.ndarray, "*batch n n"],
        *,
        labels: Sequence[str] | None = None,
        sure_win: float = 0.5,
    ) -> "PreferenceGame":
        """The game of a skew-symmetric matrix, see `equilign.games.build.prefs_from_margins`.

        Args:
            margins: ``P - 1/2``, as `margin`; or on another scale.
            labels: names of the responses.
            sure_win: margin of a sure win: 0.5, or 1 where margins are ``2 P - 1``.
        """
        prefs = build.prefs_from_margins(
            _as_float64(np.asarray(margins), "margins"), sure_win=sure_win
        )
        return cls(prefs, labels=_tuple(labels))

    @classmethod
    def from_scores(
        cls,
        scores: Float[np.ndarray, "*batch n"],
        *,
        labels: Sequence[str] | None = None,
        temperature: float = 1.0,
    ) -> "PreferenceGame":
        """The Bradley-Terry game ``sigmoid((score_i - score_j) / temperature)``.

        Args:
            scores: rewards, shape ``(n,)`` or ``(X, n)``.
            labels: names of the responses.
            temperature: noise of the judge, in the unit of the scores.
        """
        prefs = build.prefs_from_scores(
            _as_float64(np.asarray(scores), "scores"), temperature=temperature
        )
        return cls(prefs, labels=_tuple(labels))

    @classmethod
    def from_rankings(
        cls,
        rankings: Sequence[build.Ranking],
        weights: build.Weights | None = None,
        *,
        labels: Sequence[str] | None = None,
        unranked: build.Unranked = "last",
    ) -> "PreferenceGame":
        """The game of ballots: the share of them that rank i above j.

        Args:
            rankings: labels, best first; a tuple, list or set of labels is a tie.
            weights: how often each ballot was cast.
            labels: all alternatives; those that appear if not given.
            unranked: ``last``, ``uncounted`` or ``unknown``, see
                `equilign.games.build.wins_from_rankings`.
        """
        wins, names = build.wins_from_rankings(rankings, weights, labels=labels, unranked=unranked)
        return cls.from_counts(wins, labels=names)

    @classmethod
    def from_annotators(
        cls,
        prefs_list: Sequence[Float[np.ndarray, "n n"]],
        weights: build.Weights | None = None,
        *,
        labels: Sequence[str] | None = None,
    ) -> "PreferenceGame":
        """The game of a random annotator: the weighted mean of their win probabilities.

        Args:
            prefs_list: one matrix per annotator.
            weights: how often each is asked; the same for all if not given.
            labels: names of the responses.
        """
        matrices = [_as_float64(np.asarray(prefs)) for prefs in prefs_list]
        return cls(build.mix_prefs(matrices, weights), labels=_tuple(labels))

    @classmethod
    def from_comparisons(
        cls,
        records: Iterable[build.Record],
        *,
        labels: Sequence[str] | None = None,
        missing: float | None = 0.5,
        prior: float = 0.0,
    ) -> "PreferenceGame":
        """The game of single comparisons.

        Args:
            records: ``(winner, loser[, weight])``, or ``(first, second, weight, share)`` where
                ``share`` is the part of the weight that the first one won: 0.5 for a tie.
            labels: all alternatives; those that appear if not given.
            missing: as in `from_counts`.
            prior: as in `from_counts`.
        """
        wins, names = build.wins_from_comparisons(records, labels=labels)
        return cls.from_counts(wins, labels=names, missing=missing, prior=prior)

    def _checked_ref(self) -> Float[np.ndarray, "*some n"]:
        if self.ref is None:
            if self.mask is not None:
                return self.mask / self.mask.sum(axis=1, keepdims=True)
            return np.full(self.size, 1.0 / self.size)
        ref = np.asarray(self.ref, dtype=np.float64)
        if ref.ndim == 1 and self.mask is None:
            check_policy(ref, self.size)
        elif ref.ndim == 2 and self.is_batch:
            self.check_policy(ref)
        else:
            raise PolicyError(
                f"ref has shape {ref.shape}; prefs of shape {self.prefs.shape}"
                f"{' with a mask' if self.mask is not None else ''} needs one of shape "
                f"{self.prefs.shape[:-1]}"
            )
        return ref

    @property
    def size(self) -> int:
        """Number of responses (of columns, where a mask leaves some out)."""
        return int(self.prefs.shape[-1])

    @property
    def is_batch(self) -> bool:
        """Whether there is one matrix per prompt."""
        return self.prefs.ndim == 3

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, or ``"0", "1", ...``."""
        return self.labels or tuple(str(i) for i in range(self.size))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a policy: ``(n,)`` or ``(X, n)``."""
        return tuple(self.prefs.shape[:-1])

    @property
    def margin(self) -> Float[np.ndarray, "n n"]:
        """``prefs - 1/2`` of a single game: exactly skew, float64."""
        if self.is_batch:
            raise ConfigError("a batch has no one margin; take game[x].margin")
        return self.prefs - 0.5

    def margins(self) -> Iterator[tuple[slice, Float[np.ndarray, "b n n"]]]:
        """Slices of a batch with their exactly skew float64 margins, zero off the mask.

        A few at a time, so that a large float32 batch is never held twice.
        """
        for rows in _chunks(self.prefs):
            part = self.prefs[rows].astype(np.float64)
            part = (part - part.swapaxes(1, 2)) / 2.0
            if self.mask is not None:
                exist = self.mask[rows]
                part[~(exist[:, :, None] & exist[:, None, :])] = 0.0
            yield rows, part

    def __len__(self) -> int:
        """Number of games: 1 unless this is a batch."""
        return int(self.prefs.shape[0]) if self.is_batch else 1

    def __getitem__(self, index: int) -> "PreferenceGame":
        """One game of a batch, without the responses that its mask leaves out."""
        if not self.is_batch:
            raise ConfigError("this is one game, not a batch; there is nothing to index")
        if not -len(self) <= index < len(self):
            raise IndexError(f"game {index} of a batch of {len(self)}")
        keep = np.arange(self.size) if self.mask is None else np.flatnonzero(self.mask[index])
        prefs = self.prefs[index][np.ix_(keep, keep)].astype(np.float64)
        ref = self.reference[index] if self.reference.ndim == 2 else self.reference
        labels = None if self.labels is None else tuple(self.labels[i] for i in keep)
        return PreferenceGame(prefs, ref[keep], self.beta, labels=labels)

    @property
    def reference(self) -> Float[np.ndarray, "*some n"]:
        """`ref`, which is set whether it was given or not."""
        assert self.ref is not None  # noqa: S101 - set in __post_init__; tells the type checker
        return self.ref

    def uniform(self) -> Float[np.ndarray, "*batch n"]:
        """The policy that gives every existing response the same probability."""
        if self.mask is not None:
            return self.mask / self.mask.sum(axis=1, keepdims=True)
        return np.full(self.shape, 1.0 / self.size)

    def check_policy(self, policy: Float[np.ndarray, "*batch n"]) -> None:
        """Raise unless ``policy`` is one distribution per game over its responses.

        Raises:
            PolicyError: wrong shape, a negative entry, a sum off 1, mass off the mask.
        """
        check_policy(policy, self.shape if self.is_batch else self.size, self.mask)

    def win_rates(self, opponent: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n"]:
        """Pr(each response beats a draw from ``opponent``), of the shape of a policy.

        Responses that the mask leaves out read 1/2.
        """
        if not self.is_batch:
            return self.prefs @ opponent
        rates = np.empty(self.shape)
        for rows, margin in self.margins():
            rates[rows] = 0.5 + np.matmul(margin, opponent[rows, :, None])[..., 0]
        return rates


def _tuple(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if labels is None else tuple(labels)


def _as_float64(prefs: np.ndarray, name: str = "prefs") -> np.ndarray:
    try:
        return prefs.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise PreferenceMatrixError(f"{name} holds something that is no number: {error}") from None


def _chunks(prefs: np.ndarray) -> Iterator[slice]:
    games = max(1, _CHUNK_BYTES // (8 * prefs.shape[1] * prefs.shape[2]))
    for start in range(0, prefs.shape[0], games):
        yield slice(start, min(start + games, prefs.shape[0]))
