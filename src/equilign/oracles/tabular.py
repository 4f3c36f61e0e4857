"""Oracles without a model: tables of win probabilities, and plain functions that score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from equilign.errors import ConfigError, OracleError
from equilign.games import PreferenceGame
from equilign.oracles.judge_text import win_probability
from equilign.oracles.panel import Scorer


class TabularOracle:
    """Win probabilities looked up in a table, for languages of finitely many answers.

    Args:
        texts: the answers that exist, all different, in the order of the matrices.
        games: one game for every prompt, or one by prompt.

    Raises:
        ConfigError: texts repeat, or a game has another size.
    """

    def __init__(
        self,
        texts: Sequence[str],
        games: PreferenceGame | np.ndarray | Mapping[str, PreferenceGame | np.ndarray],
    ) -> None:
        self.texts = tuple(texts)
        self._place = {text: i for i, text in enumerate(self.texts)}
        if len(self._place) != len(self.texts):
            raise ConfigError("the texts of a tabular oracle must all be different")
        self._shared = None if isinstance(games, Mapping) else self._matrix(games, "the game")
        self._games = (
            {p: self._matrix(g, f"the game of prompt {p[:60]!r}") for p, g in games.items()}
            if isinstance(games, Mapping)
            else {}
        )

    def _matrix(self, game: PreferenceGame | np.ndarray, name: str) -> np.ndarray:
        prefs = np.asarray(
            (game if isinstance(game, PreferenceGame) else PreferenceGame(game)).prefs
        )
        size = len(self.texts)
        if prefs.shape != (size, size):
            raise ConfigError(
                f"{name} has shape {prefs.shape}, and there are {size} texts: one row each, please"
            )
        return prefs

    def matrix(self, prompt: str) -> np.ndarray:
        """The win probabilities for a prompt, shape ``(texts, texts)``.

        Raises:
            OracleError: there is no game for it.
        """
        if self._shared is not None:
            return self._shared
        if prompt not in self._games:
            raise OracleError(f"the table has no game for the prompt {prompt[:60]!r}")
        return self._games[prompt]

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """See `equilign.oracles.base.Oracle.compare`.

        Raises:
            OracleError: an answer or a prompt that is not in the table.
        """
        rows = zip(prompts, a, b, strict=True)
        found = [self.matrix(x)[self._index(left), self._index(right)] for x, left, right in rows]
        return np.array(found, dtype=np.float64)

    def _index(self, text: str) -> int:
        if text not in self._place:
            raise OracleError(
                f"the table has no answer {text[:60]!r}; it has {len(self.texts)}, such as "
                f"{[t[:30] for t in self.texts[:3]]}"
            )
        return self._place[text]


@dataclass(frozen=True)
class ScoreOracle:
    """A plain function that scores answers, as a Bradley-Terry oracle.

    Attributes:
        function: ``function(prompts, answers) -> one finite score per answer``.
        scale: logits per unit of score, ``P = sigmoid(scale * (score_a - score_b))``; positive.

    Raises:
        ConfigError: the scale is not positive.
    """

    function: Scorer
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0.0):
            raise ConfigError(f"scale must be finite and positive; got {self.scale}")

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """The function's scores, shape ``(n,)``, float64.

        Raises:
            OracleError: not one finite score per answer; names the answer.
        """
        scores = np.asarray(self.function(prompts, answers), dtype=np.float64)
        if scores.shape != (len(answers),):
            raise OracleError(
                f"the scoring function returned shape {scores.shape} for {len(answers)} answers; "
                "it must return one score per answer"
            )
        if not np.isfinite(scores).all():
            i = int(np.argmin(np.isfinite(scores)))
            raise OracleError(
                f"the scoring function returned {scores[i]} for the answer {answers[i][:60]!r}; "
                "every score must be finite"
            )
        return scores

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """See `equilign.oracles.base.Oracle.compare`; each distinct answer is scored once."""
        keys = dict.fromkeys([*zip(prompts, a, strict=True), *zip(prompts, b, strict=True)])
        if not keys:
            return np.zeros(0)
        scores = self.score([x for x, _ in keys], [y for _, y in keys])
        value = dict(zip(keys, scores.tolist(), strict=True))
        rows = zip(prompts, a, b, strict=True)
        return win_probability(
            np.array([self.scale * (value[x, left] - value[x, right]) for x, left, right in rows])
        )
