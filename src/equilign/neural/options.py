"""Options of training a policy on games, checked before anything is computed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equilign.errors import ConfigError
from equilign.play import MirrorOptions
from equilign.rules import Closing, MirrorRule

LOSSES = ("pairs", "own-pairs", "pointwise", "kl")
"""What a gradient step descends; see `TrainOptions.loss`."""

OPTIMISERS = ("sgd", "adam")

_SUITED: dict[Closing, tuple[str, ...]] = {
    Closing.NORMALISE: LOSSES,
    Closing.GRADIENT: ("kl", "own-pairs"),
    Closing.REGRESS: ("pointwise",),
    Closing.PROJECT: (),
}
"""Losses by how a rule's stages end, the default first."""


@dataclass(frozen=True, eq=False)
class TrainOptions(MirrorOptions):
    """`MirrorOptions`, and how the parameters move. ``start`` and ``tolerance`` are not used.

    Attributes:
        loss: ``pairs``, squared differences under uniform pairs; ``own-pairs``, under the law of
            the policy at the start of the step; ``pointwise``, SPPO's regression under that law,
            with the normaliser that the rule's closing has; ``kl``, KL(policy || target), exact
            expectations only. By default the first that suits how the rule's stages end.
        learning_rate: of the optimiser, or one per game (plain gradient descent only; games that
            share a network share their rate). By default the one that, with plain gradient
            descent on a table of logits, makes the rule's step: ``n/4, 1/4, 1/2, 1`` for the
            four losses.
        gradient_steps: optimiser steps on each stage's target.
        optimiser: ``sgd``, without momentum, or ``adam``. Of every sequence of policies that a
            rule carries, parameters and optimiser state are kept apart.
        samples: None for exact expectations, else sampled pairs (``pointwise``: responses) per
            game and gradient step, each judged once against one sampled opponent per slot.
    """

    loss: str | None = None
    learning_rate: float | Float[np.ndarray, " x"] | None = None
    gradient_steps: int = 1
    optimiser: str = "sgd"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss is not None and self.loss not in LOSSES:
            raise ConfigError(f"loss = {self.loss!r}; there are: {', '.join(LOSSES)}")
        if self.optimiser not in OPTIMISERS:
            raise ConfigError(f"optimiser = {self.optimiser!r}; there are: {', '.join(OPTIMISERS)}")
        rates = np.asarray(1.0 if self.learning_rate is None else self.learning_rate)
        if not (np.isfinite(rates).all() and (rates > 0.0).all()):
            raise ConfigError(f"learning_rate = {self.learning_rate}; it must be finite and > 0")
        if rates.ndim and self.optimiser != "sgd":
            raise ConfigError("a learning rate per game needs optimiser='sgd'")
        if self.gradient_steps < 1:
            raise ConfigError(f"gradient_steps = {self.gradient_steps}; at least 1")
        if self.tolerance is not None:
            raise ConfigError("tolerance stops an exact game; a policy trains all its steps")
        if self.start != "random":
            raise ConfigError("start: a policy with parameters starts where its parameters are")

    def resolved_loss(self, rule: MirrorRule) -> str:
        """The loss to descend.

        Raises:
            ConfigError: it does not suit the rule, or cannot be sampled.
        """
        suited = _SUITED[rule.closing]
        if not suited:
            raise ConfigError(
                f"{rule.title} projects in Euclid's geometry; log-ratios cannot be fitted to that. "
                "Play it on the matrix: equilign.play.play"
            )
        loss = suited[0] if self.loss is None else self.loss
        if loss not in suited:
            raise ConfigError(f"{rule.title} cannot be fitted by {loss!r}; by: {', '.join(suited)}")
        if loss == "kl" and self.samples is not None:
            raise ConfigError("loss 'kl' needs exact expectations; sample with 'own-pairs'")
        return loss

    def resolved_learning_rate(self, loss: str, shape: tuple[int, int]) -> Float[np.ndarray, " x"]:
        """One per game; see the class.

        Raises:
            ConfigError: there are as many rates as neither 1 nor the games.
        """
        games, n = shape
        usual = {"pairs": n / 4.0, "own-pairs": 0.25, "pointwise": 0.5, "kl": 1.0}
        rates = np.asarray(usual[loss] if self.learning_rate is None else self.learning_rate)
        if rates.ndim and rates.shape != (games,):
            raise ConfigError(f"{rates.size} learning rates for {games} games; one, or one each")
        return np.broadcast_to(rates.astype(np.float64), (games,))
