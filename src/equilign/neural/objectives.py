"""From a stage's anchor and opponents to a loss per game, in exact expectation or sampled.

The losses themselves are those of `equilign.losses`, which language models are trained with.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equilign.losses import (
    Normaliser,
    kl_to_step,
    log_normaliser,
    mirror_regression_loss,
    mirror_residual,
    pair_loss,
    sampled_pair_loss,
)
from equilign.rules import Slot


@dataclass(frozen=True, eq=False)
class Target:
    """What a stage asks for, held constant while the parameters move.

    Attributes:
        prefs: Pr(i beats j), shape ``(X, n, n)``.
        anchor: ``sum_k a_k log q_k``, normalised, nats, ``(X, n)``.
        opponents: ``(weight b_m, log-policy q_m)`` in order.
        eta: mirror step, nats per unit of win probability.
        normaliser: of the pointwise loss.
        law: of sampled responses: the policy at the start of the step, ``(X, n)``.
    """

    prefs: Float[Tensor, "x n n"]
    anchor: Float[Tensor, "x n"]
    opponents: tuple[tuple[float, Tensor], ...]
    eta: float
    normaliser: Normaliser
    law: Float[Tensor, "x n"]

    def payoff(self) -> Float[Tensor, "x n"]:
        """``sum_m b_m P q_m``."""
        mixed = torch.zeros_like(self.anchor)
        for weight, log_policy in self.opponents:
            mixed = mixed + weight * log_policy.exp()
        return torch.bmm(self.prefs, mixed[:, :, None])[:, :, 0]


def exact_loss(
    name: str, logps: Float[Tensor, "x n"], target: Target, payoff: Float[Tensor, "x n"]
) -> Float[Tensor, " x"]:
    """Expected loss per game; ``payoff`` is the target's, computed once for many steps."""
    if name == "pointwise":
        log_z = log_normaliser(payoff, target.anchor.exp(), eta=target.eta, kind=target.normaliser)
        each = mirror_regression_loss(logps, target.anchor, payoff, log_z, eta=target.eta)
        return (target.law * each).sum(dim=1)
    residual = mirror_residual(logps, target.anchor, payoff, eta=target.eta)
    if name == "kl":
        return kl_to_step(logps, residual)
    uniform = torch.full_like(target.law, 1.0 / logps.shape[1])
    return pair_loss(residual, target.law if name == "own-pairs" else uniform)


def sampled_loss(
    name: str,
    logps: Float[Tensor, "x n"],
    target: Target,
    samples: int,
    generator: torch.Generator,
) -> Float[Tensor, " x"]:
    """The same from sampled responses and verdicts, ``samples`` of them per game."""
    games, responses = logps.shape
    law = torch.full_like(target.law, 1.0 / responses) if name == "pairs" else target.law
    drawn = 1 if name == "pointwise" else 2
    chosen = torch.multinomial(law, drawn * samples, replacement=True, generator=generator)
    shared = chosen.view(games, drawn, samples)
    payoffs = _judged(target, shared, generator)
    parts = []
    for k in range(drawn):
        y = shared[:, k]
        parts.append((logps.gather(1, y), target.anchor.gather(1, y), payoffs[:, k]))
    if name == "pointwise":
        log_z = log_normaliser(
            payoffs[:, 0],
            torch.full_like(payoffs[:, 0], 1.0 / samples),
            eta=target.eta,
            kind=target.normaliser,
        )
        return mirror_regression_loss(*parts[0], log_z, eta=target.eta).mean(dim=1)
    first, second = (mirror_residual(*part, eta=target.eta) for part in parts)
    return sampled_pair_loss(first, second).mean(dim=1)


def _judged(
    target: Target, responses: Int[Tensor, "x k s"], generator: torch.Generator
) -> Float[Tensor, "x k s"]:
    """Verdicts on sampled responses, combined over opponents; a pair shares its opponents."""
    games, members, samples = responses.shape
    total = torch.zeros(responses.shape, dtype=target.prefs.dtype)
    rows = torch.arange(games)[:, None, None]
    for weight, log_policy in target.opponents:
        opponent = torch.multinomial(
            log_policy.exp(), samples, replacement=True, generator=generator
        )
        chance = target.prefs[rows, responses, opponent[:, None, :].expand(-1, members, -1)]
        total = total + weight * torch.bernoulli(chance, generator=generator)
    return total


def combine(weights: Mapping[Slot, float], slots: Mapping[Slot, Tensor]) -> Tensor:
    """``sum weight * slots[slot]`` over the slots in use."""
    used = [weight * slots[slot] for slot, weight in weights.items() if weight != 0.0]
    return torch.stack(used).sum(dim=0)
