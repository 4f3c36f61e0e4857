"""A mirror rule on a matrix: the equation, exactly."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from equilign.games import PreferenceGame
from equilign.rules import MirrorRule, MirrorStage, Slot, Step

LogPolicy = Float[np.ndarray, " n"]


def log_normalise(logits: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """``logits - logsumexp(logits)``; entries of ``-inf`` stay."""
    top = logits.max()
    return logits - top - np.log(np.exp(logits - top).sum())


def _combine(
    weights: Mapping[Slot, float], values: Mapping[Slot, Float[np.ndarray, " n"]]
) -> Float[np.ndarray, " n"]:
    # Zero weights are skipped: 0 * -inf would be nan.
    used = [weight * values[slot] for slot, weight in weights.items() if weight != 0.0]
    return np.sum(used, axis=0)


def apply_stage(
    stage: MirrorStage, game: PreferenceGame, policies: Mapping[Slot, LogPolicy], step: Step
) -> Float[np.ndarray, " n"]:
    """One stage: ``sum a_k log q_k + eta * sum b_m P q_m``, normalised.

    Args:
        stage: weights of anchors and payoffs.
        game: ``n`` responses.
        policies: log-probabilities in nats of every slot in use, each ``(n,)``.
        step: ``eta`` and ``beta``.

    Returns:
        Log-probabilities of the new policy, shape ``(n,)``, nats.
    """
    win_rates = {slot: game.win_rates(np.exp(logp)) for slot, logp in policies.items()}
    anchor = _combine(stage.anchor(step), policies)
    return log_normalise(anchor + step.eta * _combine(stage.payoff(step), win_rates))


def mirror_step(
    rule: MirrorRule, game: PreferenceGame, policies: Mapping[Slot, LogPolicy], step: Step
) -> Float[np.ndarray, " n"]:
    """One step of ``rule``: its stages in order, each from the same slots.

    Args, returns: as `apply_stage`.
    """
    result = policies[Slot.CURRENT]
    for stage in rule.stages:
        result = apply_stage(stage, game, policies, step)
    return result
