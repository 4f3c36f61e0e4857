"""Judges with a utility: a number per answer, and the choices of somebody who goes by it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from equilign.errors import ConfigError
from equilign.oracles.base import ScoredOracle
from equilign.oracles.judge_text import win_probability


class UtilityOracle:
    """Pr(a beats b) = ``sigmoid(rationality * (u_a - u_b))``: a quantal choice between utilities.

    A subclass says what the utility is.

    Args:
        rationality: inverse of the choices' noise, per unit of utility; ``inf`` always takes the
            better one and tosses a coin between equals.

    Raises:
        ConfigError: ``rationality`` is not positive.
    """

    def __init__(self, rationality: float = 1.0) -> None:
        if not rationality > 0.0:
            raise ConfigError(f"rationality = {rationality}; it must be > 0")
        self.rationality = float(rationality)

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """The utility of each answer, shape ``(n,)``."""
        pairs = zip(prompts, answers, strict=True)
        return np.array([self.utility(x, y) for x, y in pairs], dtype=np.float64)

    def utility(self, prompt: str, answer: str) -> float:
        """Of one answer."""
        raise NotImplementedError

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """See `equilign.oracles.base.Oracle.compare`; exactly antisymmetric."""
        gain = self.score(prompts, a) - self.score(prompts, b)
        if math.isinf(self.rationality):
            return np.asarray(0.5 + 0.5 * np.sign(gain))
        return win_probability(self.rationality * gain)


@dataclass(frozen=True)
class ProspectOracle:
    r"""Kahneman and Tversky's value of another oracle's score (1992, J. Risk Uncertainty 5:297).

    With ``z = score - reference`` the value is ``z^curvature`` for gains and
    ``-loss_aversion * (-z)^curvature`` for losses: losses loom larger, and both flatten out. The
    choices are quantal in the value, as those of `UtilityOracle`.

    Attributes:
        of: whose scores are felt.
        reference: the score that is neither gain nor loss.
        curvature: of both branches, in (0, 1]; 0.88 as measured by the authors.
        loss_aversion: at least 0; 2.25 as measured by the authors, 1 for none.
        rationality: see `UtilityOracle`.

    Raises:
        ConfigError: an option is out of range, or ``of`` has no scores.
    """

    of: ScoredOracle
    reference: float = 0.0
    curvature: float = 0.88
    loss_aversion: float = 2.25
    rationality: float = 1.0
    abstains: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        if not isinstance(self.of, ScoredOracle):
            raise ConfigError(
                f"{type(self.of).__name__} only compares; prospect theory needs an oracle with "
                "scores, such as a task or a reward model"
            )
        if not 0.0 < self.curvature <= 1.0:
            raise ConfigError(f"curvature = {self.curvature}; it must be in (0, 1]")
        for name in ("loss_aversion", "reference"):
            if not math.isfinite(vars(self)[name]):
                raise ConfigError(f"{name} = {vars(self)[name]}; it must be finite")
        if self.loss_aversion < 0.0:
            raise ConfigError(f"loss_aversion = {self.loss_aversion}; it must be >= 0")
        if not self.rationality > 0.0:
            raise ConfigError(f"rationality = {self.rationality}; it must be > 0")
        object.__setattr__(self, "abstains", bool(getattr(self.of, "abstains", False)))

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """The value of each answer, shape ``(n,)``."""
        gain = np.asarray(self.of.score(prompts, answers), dtype=np.float64) - self.reference
        felt = np.abs(gain) ** self.curvature
        return np.asarray(np.where(gain < 0.0, -self.loss_aversion * felt, felt))

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """See `equilign.oracles.base.Oracle.compare`."""
        return win_probability(self.rationality * (self.score(prompts, a) - self.score(prompts, b)))
