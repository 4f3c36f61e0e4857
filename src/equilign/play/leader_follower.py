r"""The sequential game on a matrix: gradient steps of a Leader and of a Follower who sees it.

Payoff to the Leader (arXiv:2512.16626), maximised over ``pi``, minimised over ``omega(.|y)``:
``f = E_{y~pi} [ E_{z~omega(.|y)} P(y, z) + beta_F KL(omega(.|y) || ref) ] - beta_L KL(pi || ref)``.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equilign.errors import ConfigError
from equilign.games import PreferenceGame, duality_gap
from equilign.play.exact import LEAST_LOG, project_to_simplex
from equilign.play.loop import Dynamics, run
from equilign.play.options import PlayOptions, check_kl_weights, check_positive, start_policy
from equilign.play.trajectory import Trajectory
from equilign.rules import Closing, LeaderFollowerRule

Players = tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n n"]]
"""Log-policy of the Leader; rows of the Follower's, one per answer of the Leader."""


@dataclass(frozen=True, eq=False)
class LeaderFollowerOptions(PlayOptions):
    """Options of StackelbergGDA.

    Attributes:
        start: the Leader's first policy, and every row of the Follower's.
        eta: the Leader's step; 0.1 on logits and 0.01 on probabilities by default. On
            probabilities it must stay below the least probability that either player ends with,
            divided by its KL weight: the slope of KL grows without bound at the boundary.
        kappa: the Follower's step divided by the Leader's.
        beta: the Leader's KL weight; the game's by default.
        beta_follower: the Follower's KL weight; ``beta`` by default.
    """

    eta: float | None = None
    kappa: float = 1.0
    beta: float | None = None
    beta_follower: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(eta=1.0 if self.eta is None else self.eta, kappa=self.kappa)
        check_kl_weights(beta=self.beta or 0.0, beta_follower=self.beta_follower or 0.0)


def play_leader_follower(
    game: PreferenceGame, rule: LeaderFollowerRule, options: LeaderFollowerOptions
) -> Trajectory:
    """Play StackelbergGDA; see `equilign.play.play`.

    Returns:
        The Leader's trajectory. ``duality_gap`` is that of the sequential game: what the Leader
        could still gain against this Follower plus what the Follower could still gain against
        this Leader; ``average_duality_gap`` is that of the Leader's mean policy in the
        simultaneous game. ``extra`` holds ``follower``, its rows, and ``simultaneous_gap``, that
        of the Leader's last policy.

    Raises:
        ConfigError: a batch.
    """
    if game.is_batch:
        raise ConfigError(f"{rule.title} plays one game; take game[x] of a batch")
    leader = game.beta if options.beta is None else options.beta
    follower = leader if options.beta_follower is None else options.beta_follower
    eta = options.eta or (0.1 if rule.closing == Closing.NORMALISE else 0.01)
    generator, log_ref = options.generator(), _floored(game.reference)
    log_pi = _floored(np.array(start_policy(game, options.start, options.seed)))

    def advance(now: Players, t: int) -> Players:
        log_pi, log_omega = now
        prefs = game.prefs
        if options.samples is not None:
            prefs = sampled_prefs(game, options.samples, generator)
        loss = prefs + follower * (log_omega - log_ref)
        gain = (np.exp(log_omega) * loss).sum(axis=1) - leader * (log_pi - log_ref)
        return (
            _move(log_pi, eta * gain, rule.closing),
            _move(log_omega, -eta * options.kappa * loss, rule.closing),
        )

    def finish(now: Players) -> dict[str, object]:
        policy = np.exp(now[0])
        gap = duality_gap(game, policy / policy.sum())
        return {"follower": np.exp(now[1]), "simultaneous_gap": gap}

    dynamics = Dynamics(
        name=rule.name,
        start=(log_pi, np.tile(log_pi, (game.size, 1))),
        log_policy=lambda now: now[0],
        advance=advance,
        gap=lambda now: sequential_gap(game, now[0], now[1], leader, follower),
        finish=finish,
        reported={
            "eta": eta,
            "kappa": options.kappa,
            "beta": leader,
            "beta_follower": follower,
            "samples": options.samples,
            "seed": options.seed,
        },
    )
    return run(game, dynamics, options)


def _floored(policy: Float[np.ndarray, "*rows n"]) -> Float[np.ndarray, "*rows n"]:
    # Zero stays representable, so that KL terms are finite; they then pull it back up.
    return np.log(np.maximum(policy, np.exp(LEAST_LOG)))


def sampled_prefs(
    game: PreferenceGame, samples: int, generator: np.random.Generator
) -> Float[np.ndarray, "n n"]:
    """Win rates of every pair of answers over ``samples`` verdicts each."""
    upper = np.triu(generator.binomial(samples, game.prefs) / samples, 1)
    return upper + np.tril(1.0 - upper.T, -1) + 0.5 * np.eye(game.size)


def _move(
    logs: Float[np.ndarray, "*rows n"], change: Float[np.ndarray, "*rows n"], closing: Closing
) -> Float[np.ndarray, "*rows n"]:
    if closing == Closing.PROJECT:
        points = np.atleast_2d(np.exp(logs) + change)
        if not np.isfinite(points).all():
            return np.full(logs.shape, np.nan)
        moved = np.array([project_to_simplex(p) for p in points]).reshape(logs.shape)
        return _floored(moved)
    logits = logs + change
    top = logits.max(axis=-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))


def sequential_gap(
    game: PreferenceGame,
    log_pi: Float[np.ndarray, " n"],
    log_omega: Float[np.ndarray, "n n"],
    beta: float,
    beta_follower: float,
) -> float:
    """``max_pi' f(pi', omega) - min_omega' f(pi, omega')``, win probability, ``>= 0``.

    Zero exactly at the Stackelberg equilibrium: ``f`` is concave in ``pi`` and convex in
    ``omega``. Both optima are closed forms.
    """
    log_ref = _floored(game.reference)
    pi, omega = np.exp(log_pi), np.exp(log_omega)
    answered = (omega * (game.prefs + beta_follower * (log_omega - log_ref))).sum(axis=1)
    if beta_follower > 0.0:
        worst = -beta_follower * _log_mean(log_ref, -game.prefs / beta_follower)
    else:
        worst = np.where(game.reference > 0.0, game.prefs, np.inf).min(axis=1)
    held = float(pi @ worst) - beta * float(pi @ (log_pi - log_ref))
    if beta > 0.0:
        best = beta * float(_log_mean(log_ref, (answered / beta)[None])[0])
    else:
        best = float(answered.max())
    return max(best - held, 0.0)


def _log_mean(
    log_weights: Float[np.ndarray, " n"], values: Float[np.ndarray, "m n"]
) -> Float[np.ndarray, " m"]:
    terms = log_weights + values
    top = terms.max(axis=1, keepdims=True)
    return top[:, 0] + np.log(np.exp(terms - top).sum(axis=1))
