"""Options of training a policy on games, checked before anything is computed."""

from dataclasses import dataclass

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
        loss: ``pairs``, squared differences under uniform pairs; ``own-pairs``, under the policy's
            own; ``pointwise``, SPPO's regression under the policy's own responses, with the
            normaliser that the rule's closing has; ``kl``, KL(policy || target), exact
            expectations only. By default the first that suits how the rule's stages end.
        learning_rate: of the optimiser. By default the one that, with plain gradient descent on
            a table of logits, makes the rule's step: ``n/4, 1/4, 1/2, 1`` for the four losses.
        gradient_steps: optimiser steps on each stage's target.
        optimiser: ``sgd``, without momentum, or ``adam``. Of every sequence of policies that a
            rule carries, parameters and optimiser state are kept apart.
        samples: None for exact expectations, else sampled pairs (``pointwise``: responses) per
            game and gradient step, each judged once against one sampled opponent per slot.
    """

    loss: str | None = None
    learning_rate: float | None = None
    gradient_steps: int = 1
    optimiser: str = "sgd"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss is not None and self.loss not in LOSSES:
            raise ConfigError(f"loss = {self.loss!r}; there are: {', '.join(LOSSES)}")
        if self.optimiser not in OPTIMISERS:
            raise ConfigError(f"optimiser = {self.optimiser!r}; there are: {', '.join(OPTIMISERS)}")
        if self.learning_rate is not None and not 0.0 < self.learning_rate < float("inf"):
            raise ConfigError(f"learning_rate = {self.learning_rate}; it must be finite and > 0")
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

    def resolved_learning_rate(self, loss: str, responses: int) -> float:
        """See the class."""
        if self.learning_rate is not None:
            return self.learning_rate
        return {"pairs": responses / 4.0, "own-pairs": 0.25, "pointwise": 0.5, "kl": 1.0}[loss]
