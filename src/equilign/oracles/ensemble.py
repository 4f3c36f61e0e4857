"""Several oracles as one: the weighted mean of their verdicts."""

from collections.abc import Mapping, Sequence

import numpy as np

from equilign.errors import ConfigError, OracleError
from equilign.oracles.base import Oracle, ScoredOracle, checked_compare, score_groups


class Ensemble:
    """The weighted mean of several oracles' win probabilities.

    A member that abstains on a pair is left out of that pair's mean; where all abstain, so does
    the ensemble. A `Panel` counts which answer is *higher* per attribute; here every member says
    by how much.

    Args:
        members: by name, at least one.
        weights: by member name, non-negative with a positive sum; equal when not given.

    Attributes:
        members: by name.
        weights: one per member, summing to 1.
        abstains: whether any member may.

    Raises:
        ConfigError: no member, or weights that name none or are not as above.
    """

    def __init__(
        self, members: Mapping[str, Oracle], weights: Mapping[str, float] | None = None
    ) -> None:
        self.members = dict(members)
        names = list(self.members)
        if not names:
            raise ConfigError("an ensemble needs at least one oracle")
        given = dict.fromkeys(names, 1.0) if weights is None else dict(weights)
        unknown = set(given) - set(names)
        if unknown:
            raise ConfigError(f"weights name no member: {sorted(unknown)}; there are {names}")
        values = np.array([given.get(name, 0.0) for name in names], dtype=np.float64)
        if not np.isfinite(values).all() or (values < 0.0).any() or values.sum() <= 0.0:
            raise ConfigError(f"weights must be >= 0 with a positive sum; got {given}")
        self.weights = values / values.sum()
        self.abstains = any(getattr(m, "abstains", False) for m in self.members.values())

    def votes(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """Each member's verdict, shape ``(members, n)``; nan where it abstained.

        Raises:
            OracleError: a verdict is no probability.
        """
        found = [checked_compare(m, prompts, a, b) for m in self.members.values()]
        return np.stack(found)

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """See `equilign.oracles.base.Oracle.compare`."""
        if not prompts:
            return np.zeros(0)
        return self._mean(self.votes(prompts, a, b))

    def compare_groups(
        self, prompts: Sequence[str], groups: Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        """``(K, K)`` win probabilities per prompt, each member asked in its cheapest way."""
        games = [score_groups(m, prompts, groups) for m in self.members.values()]
        return [self._mean(np.stack(game)) for game in zip(*games, strict=True)]

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Weighted mean of the members' scores, shape ``(n,)``.

        Raises:
            OracleError: a member has no score.
        """
        silent = [n for n, m in self.members.items() if not isinstance(m, ScoredOracle)]
        if silent:
            raise OracleError(
                f"members {silent} of the ensemble only compare and have no score; a method that "
                "needs scalar rewards needs reward models or scoring functions throughout"
            )
        scored = [m.score(prompts, answers) for m in self.members.values()]  # type: ignore[attr-defined]
        return np.asarray(self.weights @ np.stack(scored))

    def _mean(self, votes: np.ndarray) -> np.ndarray:
        """Over members that voted, along the first axis; nan where the votes' weights sum to 0."""
        weights = self.weights.reshape(-1, *[1] * (votes.ndim - 1)) * np.isfinite(votes)
        total = weights.sum(axis=0)
        mean = (weights * np.nan_to_num(votes)).sum(axis=0)
        decided = total > 0.0
        result = np.full(total.shape, np.nan)
        # Rounding may lift a unanimous verdict just above 1.
        result[decided] = np.minimum(mean[decided] / total[decided], 1.0)
        return result
