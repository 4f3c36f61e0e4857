"""A panel of attribute scorers: each casts a vote, the verdict is their mean.

The form of SLHF's five-attribute judge (arXiv:2512.16626). Since every attribute only says which
answer is *higher*, majorities can cycle (Condorcet) although each attribute is transitive.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from equilign.errors import ConfigError, OracleError

Scorer = Callable[[Sequence[str], Sequence[str]], np.ndarray]
"""``score(prompts, answers) -> (n,)``; higher is better, only the order matters."""


@dataclass(frozen=True)
class Attribute:
    """One voter of a panel.

    Attributes:
        name: as in reports.
        score: higher is better.
        description: one plain sentence.
        kind: ``"learned"`` from human ratings, or a ``"rule"``.
        held_out: accuracy on held-out human comparisons (accuracy, low, high), when learned.
    """

    name: str
    score: Scorer
    description: str = ""
    kind: str = "rule"
    held_out: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Panel:
    """Weighted mean over attributes of "a scores higher than b"; a tie counts one half.

    Hence ``P(a, b) + P(b, a) == 1`` and ``P(a, a) == 1/2``.

    Attributes:
        attributes: the voters.
        weights: by attribute name, non-negative; equal when not given.

    Raises:
        ConfigError: no attribute, two of one name, or weights that name none or are not
            non-negative with a positive sum.
    """

    attributes: Sequence[Attribute]
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [a.name for a in self.attributes]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"a panel needs attributes with different names; got {names}")
        unknown = set(self.weights) - set(names)
        if unknown:
            raise ConfigError(f"weights name no attribute: {sorted(unknown)}; there are {names}")
        values = self._weight_vector()
        if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
            raise ConfigError(f"weights must be >= 0 with a positive sum; got {self.weights}")

    def _weight_vector(self) -> np.ndarray:
        missing = 0.0 if self.weights else 1.0
        return np.array([self.weights.get(a.name, missing) for a in self.attributes])

    def weighted(self, weights: Mapping[str, float]) -> "Panel":
        """The same voters with the weights of one person, by attribute name; others count nothing.

        What was trained against everybody can so be chosen from for somebody, at inference time.

        Raises:
            ConfigError: see `Panel`; no weight at all is nobody's.
        """
        if not weights:
            raise ConfigError("a person's weights name at least one attribute")
        return Panel(self.attributes, dict(weights))

    def scores(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Every attribute's score of every answer, shape ``(attributes, n)``.

        Raises:
            OracleError: a scorer returned a wrong shape or a value that is not finite.
        """
        rows = []
        for attribute in self.attributes:
            row = np.asarray(attribute.score(prompts, answers), dtype=np.float64)
            if row.shape != (len(prompts),):
                raise OracleError(
                    f"attribute {attribute.name!r} must return one score per answer, shape "
                    f"({len(prompts)},); got shape {row.shape}"
                )
            if not np.isfinite(row).all():
                i = int(np.argmin(np.isfinite(row)))
                raise OracleError(
                    f"attribute {attribute.name!r} scored {row[i]} for answer {answers[i][:60]!r}; "
                    "every score must be finite"
                )
            rows.append(row)
        return np.stack(rows)

    def votes(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """Each attribute's verdict: 1 for ``a``, 0 for ``b``, 1/2 a tie; ``(attributes, n)``."""
        # Each distinct answer is scored once: groups repeat every answer K - 1 times.
        keys = dict.fromkeys([*zip(prompts, a, strict=True), *zip(prompts, b, strict=True)])
        column = {key: i for i, key in enumerate(keys)}
        scores = self.scores([x for x, _ in keys], [y for _, y in keys])
        left = scores[:, [column[k] for k in zip(prompts, a, strict=True)]]
        right = scores[:, [column[k] for k in zip(prompts, b, strict=True)]]
        return np.asarray((left > right) + 0.5 * (left == right))

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """See `equilign.oracles.base.Oracle.compare`."""
        if not prompts:
            return np.zeros(0)
        weights = self._weight_vector()
        # Rounding may lift a unanimous vote just above 1.
        verdicts = (weights / weights.sum()) @ self.votes(prompts, a, b)
        return np.asarray(np.minimum(verdicts, 1.0))
