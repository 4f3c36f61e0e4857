r"""The game between a policy and the reward fitted to its own answers, tabular and exact.

With the logistic function ``s``:
``R_RM(r; pi) = E_{i,j~pi} [P_ij log s(r_i - r_j) + P_ji log s(r_j - r_i)] - ridge / 2 |r|^2`` and
``R_LM(theta; r) = E_{pi_theta} r - beta KL(pi_theta || ref)``.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equilign.errors import ConfigError
from equilign.games import PreferenceGame
from equilign.play.exact import LEAST_LOG, log_normalise
from equilign.play.leader_follower import sampled_prefs
from equilign.play.loop import Dynamics, run
from equilign.play.options import PlayOptions, check_kl_weights, check_positive, start_policy
from equilign.play.trajectory import Trajectory
from equilign.rules import Player, RewardGameRule

Vector = Float[np.ndarray, " n"]


def reward_gradient(
    prefs: Float[np.ndarray, "n n"], policy: Vector, reward: Vector, ridge: float
) -> Vector:
    """Gradient of ``R_RM`` in the reward: ``2 pi (M pi) - ridge r``, ``M = P - s(r_i - r_j)``."""
    return 2.0 * policy * (_misfit(prefs, reward) @ policy) - ridge * reward


def _logistic(x: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    return 0.5 + np.tanh(x / 2.0) / 2.0


def _misfit(prefs: Float[np.ndarray, "n n"], reward: Vector) -> Float[np.ndarray, "n n"]:
    return prefs - _logistic(reward[:, None] - reward[None, :])


def reward_hessian(policy: Vector, reward: Vector, ridge: float) -> Float[np.ndarray, "n n"]:
    """Second derivative of ``R_RM`` in the reward: negative definite for ``ridge > 0``."""
    fitted = _logistic(reward[:, None] - reward[None, :])
    pairs = 2.0 * policy[:, None] * policy[None, :] * fitted * (1.0 - fitted)
    return pairs - np.diag(pairs.sum(axis=1)) - ridge * np.eye(policy.size)


def fit_reward(
    prefs: Float[np.ndarray, "n n"], policy: Vector, ridge: float, start: Vector | None = None
) -> Vector:
    """The reward that maximises ``R_RM`` for the data of ``policy``, by damped Newton steps.

    Raises:
        ConfigError: ``ridge`` is not positive (the reward is defined up to a constant, and up to
            more where the policy's support leaves answers uncompared).
    """
    if not ridge > 0.0:
        raise ConfigError(f"ridge = {ridge}; it must be > 0 for the fit to have one answer")
    reward = np.zeros(policy.size) if start is None else start.copy()
    for _ in range(500):
        gradient = reward_gradient(prefs, policy, reward, ridge)
        move = np.linalg.solve(reward_hessian(policy, reward, ridge), -gradient)
        reward = reward + move * min(1.0, 2.0 / max(float(np.abs(move).max()), 1e-300))
        if np.abs(move).max() < 1e-13 * max(1.0, float(np.abs(reward).max())):
            break
    return reward


def policy_gradient(policy: Vector, advantage: Vector, samples_of: Vector | None = None) -> Vector:
    """``E_{y~q} [advantage(y) grad log pi(y)]`` on logits; ``q`` is the policy unless given."""
    law = policy if samples_of is None else samples_of
    return law * advantage - policy * float(law @ advantage)


def response_term(
    prefs: Float[np.ndarray, "n n"], policy: Vector, reward: Vector, ridge: float
) -> Vector:
    r"""What the total derivative adds: ``- (d2_{r theta} R_RM)^T (d2_r R_RM)^{-1} d_r R_LM``.

    ``d_r R_LM`` is the policy itself. Its component along the constant, the direction in which
    the reward is not determined, is projected out: the cross term has none.
    """
    hessian = reward_hessian(policy, reward, ridge)
    inner = np.linalg.solve(hessian, policy - policy.mean())
    misfit = _misfit(prefs, reward)
    back = 2.0 * (misfit @ policy) * inner + 2.0 * misfit.T @ (policy * inner)
    return -policy_gradient(policy, back)


@dataclass(frozen=True, eq=False)
class RewardGameOptions(PlayOptions):
    """Options of STA-RLHF and its relatives.

    Attributes:
        steps: rounds.
        learning_rate: of the policy's logits.
        reward_learning_rate: of the reward, which is a table and starts at 0.
        inner_steps: of the player that follows, where the rule does not fix them.
        beta: KL weight of the policy; the game's by default.
        ridge: weight of ``|r|^2 / 2`` in the reward's fit, ``> 0``.
    """

    learning_rate: float = 0.5
    reward_learning_rate: float = 1.0
    inner_steps: int = 5
    beta: float | None = None
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kl_weights(beta=self.beta or 0.0)
        check_positive(
            learning_rate=self.learning_rate,
            reward_learning_rate=self.reward_learning_rate,
            inner_steps=self.inner_steps,
            ridge=self.ridge,
        )


def play_reward_game(
    game: PreferenceGame, rule: RewardGameRule, options: RewardGameOptions
) -> Trajectory:
    """Play a variant of STA-RLHF; see `equilign.play.play`.

    Returns:
        The policy's trajectory; gaps are those of the game as it is. ``extra`` holds the final
        ``reward``.

    Raises:
        ConfigError: a batch.
    """
    if game.is_batch:
        raise ConfigError(f"{rule.title} plays one game; take game[x] of a batch")
    beta = game.beta if options.beta is None else options.beta
    generator = options.generator()
    log_ref = np.log(np.maximum(game.reference, np.exp(LEAST_LOG)))
    policy = np.array(start_policy(game, options.start, options.seed))
    reward = np.zeros(game.size)
    if not rule.refit:
        reward = fit_reward(game.prefs, policy, options.ridge)

    def advance(now: tuple[Vector, Vector], t: int) -> tuple[Vector, Vector]:
        prefs = game.prefs
        if options.samples is not None:
            prefs = sampled_prefs(game, options.samples, generator)
        return _round(_Round(rule, options, prefs, beta, log_ref), *now)

    inner = rule.inner_steps or options.inner_steps
    dynamics = Dynamics(
        name=rule.name,
        start=(np.log(np.maximum(policy, np.exp(LEAST_LOG))), reward),
        log_policy=lambda now: now[0],
        advance=advance,
        gap=None,
        finish=lambda now: {"reward": now[1]},
        reported={
            "learning_rate": options.learning_rate,
            "reward_learning_rate": options.reward_learning_rate,
            "inner_steps": inner,
            "beta": beta,
            "ridge": options.ridge,
            "samples": options.samples,
            "seed": options.seed,
        },
    )
    return run(game, dynamics, options)


@dataclass(frozen=True, eq=False)
class _Round:
    rule: RewardGameRule
    options: RewardGameOptions
    prefs: Float[np.ndarray, "n n"]
    beta: float
    log_ref: Vector


def _round(this: _Round, log_pi: Vector, reward: Vector) -> tuple[Vector, Vector]:
    """Inner steps of the player that follows, then one of the one that leads."""
    rule = this.rule
    if not rule.refit:
        return _improve(this, log_pi, reward, None), reward
    inner = rule.inner_steps or this.options.inner_steps
    if rule.leader == Player.REWARD:
        batch = None if rule.fresh else np.exp(log_pi)
        for _ in range(inner):
            log_pi = _improve(this, log_pi, reward, batch)
        return log_pi, _fit(this, log_pi, reward)
    old = reward
    for _ in range(inner):
        reward = _fit(this, log_pi, reward)
    return _improve(this, log_pi, old if rule.old_reward else reward, None), reward


def _fit(this: _Round, log_pi: Vector, reward: Vector) -> Vector:
    gradient = reward_gradient(this.prefs, np.exp(log_pi), reward, this.options.ridge)
    return reward + this.options.reward_learning_rate * gradient


def _improve(this: _Round, log_pi: Vector, reward: Vector, batch: Vector | None) -> Vector:
    policy = np.exp(log_pi)
    gradient = policy_gradient(policy, reward - this.beta * (log_pi - this.log_ref), batch)
    if this.rule.total_derivative:
        gradient = gradient + response_term(this.prefs, policy, reward, this.options.ridge)
    return log_normalise(log_pi + this.options.learning_rate * gradient)
