"""A mirror rule on a matrix: the equation, exactly, one step at a time.

This is the readable interpreter: it takes exact or sampled feedback and any single game.
`equilign.play.mirror_kernel` runs the same stages compiled, over batches and many steps; the tests
hold the two together.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from equilign.games import PreferenceGame
from equilign.rules import Closing, MirrorRule, MirrorStage, Slot, Step

LogPolicy = Float[np.ndarray, " n"]
Feedback = Callable[[LogPolicy], Float[np.ndarray, " n"]]
"""Win probability of every response against a policy given by its log-probabilities."""

LEAST_LOG = -690.0
"""Exponents are raised to this: below it, exp is denormal, slow, and soon exactly 0."""


def log_normalise(logits: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """``logits - logsumexp(logits)``; entries of ``-inf`` stay."""
    top = logits.max()
    return logits - top - np.log(np.exp(logits - top).sum())


def project_to_simplex(point: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The nearest point of the simplex in Euclidean distance (Held, Wolfe & Crowder 1974)."""
    falling = np.sort(point)[::-1]
    excess = (np.cumsum(falling) - 1.0) / np.arange(1, point.size + 1)
    return np.maximum(point - excess[np.flatnonzero(falling > excess)[-1]], 0.0)


def regress_to_simplex(
    target: Float[np.ndarray, " n"], log_weights: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    r"""The policy with the least ``sum_i w_i (log pi_i - target_i)^2``, as log-probabilities.

    Stationarity is ``log pi_i = target_i - omega(log lam - log w_i + target_i)`` with Wright's
    omega function; the multiplier ``lam`` makes the probabilities sum to 1.

    Args:
        target: nats; ``sum exp(target) >= 1``, as the mirror step with too small a normaliser has.
        log_weights: logarithms of the weights, nats.
    """
    from scipy.special import wrightomega  # not at start-up: few rules need it

    def at(log_multiplier: float) -> Float[np.ndarray, " n"]:
        return target - wrightomega(log_multiplier - log_weights + target)

    def excess(log_multiplier: float) -> float:
        logits = at(log_multiplier)
        top = logits.max()
        return float(top + np.log(np.exp(logits - top).sum()))

    low, high = -50.0, 1.0
    while excess(high) > 0.0:
        high += 2.0 * (abs(high) + 1.0)
    if excess(low) <= 0.0:  # the target is normalised already
        return log_normalise(target)
    for _ in range(200):
        middle = (low + high) / 2.0
        low, high = (middle, high) if excess(middle) > 0.0 else (low, middle)
    return log_normalise(at(high))


def _combine(
    weights: Mapping[Slot, float], values: Callable[[Slot], Float[np.ndarray, " n"]]
) -> Float[np.ndarray, " n"]:
    # Zero weights are skipped: 0 * -inf would be nan.
    used = [weight * values(slot) for slot, weight in weights.items() if weight != 0.0]
    return np.sum(used, axis=0)


def apply_stage(
    stage: MirrorStage,
    policies: Mapping[Slot, LogPolicy],
    feedback: Feedback,
    step: Step,
    closing: Closing = Closing.NORMALISE,
) -> Float[np.ndarray, " n"]:
    """One stage: ``sum a_k log q_k + eta * sum b_m P q_m``, made a policy again.

    Args:
        stage: weights of anchors and payoffs.
        policies: log-probabilities in nats of every slot in use, each ``(n,)``.
        feedback: win rates against a policy.
        step: ``eta``, ``beta``, ``mixture``.
        closing: how the right-hand side becomes a policy.

    Returns:
        Log-probabilities of the new policy, shape ``(n,)``, nats.
    """
    slots = dict(policies)
    if stage.mixture is not None:
        slots[Slot.MIXTURE] = log_normalise(_combine(stage.mixture(step), slots.__getitem__))
    payoffs = stage.payoff(step)
    payoff = step.eta * _combine(payoffs, lambda slot: feedback(slots[slot]))
    if closing == Closing.PROJECT:
        anchor = _combine(stage.anchor(step), lambda slot: np.exp(slots[slot]))
        with np.errstate(divide="ignore"):
            return np.log(project_to_simplex(anchor + payoff))
    target = _combine(stage.anchor(step), slots.__getitem__) + payoff
    current = slots[Slot.CURRENT]
    if closing == Closing.REGRESS:
        return regress_to_simplex(target - step.eta * sum(payoffs.values()) / 2.0, current)
    if closing == Closing.GRADIENT:
        policy, change = np.exp(current), target - current
        return log_normalise(current + policy * (change - policy @ change))
    return log_normalise(target)


def start_slots(start: LogPolicy, reference: LogPolicy) -> dict[Slot, LogPolicy]:
    """Slots before the first step: everything but the reference is the start policy."""
    return {
        Slot.CURRENT: start,
        Slot.PREVIOUS: start,
        Slot.BASE: start,
        Slot.REFERENCE: reference,
    }


def mirror_step(
    rule: MirrorRule, slots: Mapping[Slot, LogPolicy], feedback: Feedback, step: Step
) -> dict[Slot, LogPolicy]:
    """The slots after one step of ``rule``: its stages in order.

    The reference is left where it is; who repeats steps moves it (`MirrorRule.moves_reference`).

    Args:
        rule: the algorithm.
        slots: as `start_slots` or an earlier step gives them.
        feedback: win rates against a policy; `exact_feedback` for a game's own.
        step: hyperparameters.
    """
    now = dict(slots)
    for stage in rule.stages[:-1]:
        now[stage.writes] = apply_stage(stage, now, feedback, step, rule.closing)
    new = apply_stage(rule.stages[-1], now, feedback, step, rule.closing)
    now.pop(Slot.HALF, None)
    return {**now, Slot.CURRENT: new, Slot.PREVIOUS: slots[Slot.CURRENT]}


def exact_feedback(game: PreferenceGame) -> Feedback:
    """The game's true win rates against a policy."""
    return lambda log_policy: game.win_rates(np.exp(np.maximum(log_policy, LEAST_LOG)))


class SampledFeedback:
    """Win rates estimated from ``samples`` opponents and one verdict on each.

    Every response meets its own draws from the policy and gets a Bernoulli verdict per meeting,
    so the estimate is unbiased with variance ``p (1 - p) / samples``. The last policies judged are
    remembered by identity: a policy that a rule uses twice (optimism) is judged once.
    """

    def __init__(self, game: PreferenceGame, samples: int, generator: np.random.Generator) -> None:
        self.game = game
        self.samples = samples
        self.generator = generator
        self._judged: list[tuple[LogPolicy, Float[np.ndarray, " n"]]] = []

    def __call__(self, log_policy: LogPolicy) -> Float[np.ndarray, " n"]:
        """See the class."""
        for known, rates in self._judged:
            if known is log_policy:
                return rates
        # A draw of an opponent and then of a verdict is one draw with the mean win rate.
        mean = np.clip(exact_feedback(self.game)(log_policy), 0.0, 1.0)
        rates = self.generator.binomial(self.samples, mean) / self.samples
        self._judged = [(log_policy, rates), *self._judged[:3]]
        return rates
