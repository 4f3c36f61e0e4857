r"""Contrastive rules on a matrix, exactly: every round goes to the minimiser of its loss.

With pairs of two independent draws from ``mu`` and labels drawn from ``P``, the loss over all
policies has its minimum at

- DPO: ``ref * exp(score / beta)``, the Bradley-Terry scores of ``P`` under the pairs' law
  (Rafailov et al. 2023, arXiv:2305.18290);
- IPO: ``ref * exp(P mu / tau)`` (Azar et al. 2023, arXiv:2310.12036).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from equilign.errors import ConfigError
from equilign.games import PreferenceGame
from equilign.games.bradley_terry import VANISHING_RIDGE
from equilign.play.exact import LEAST_LOG, log_normalise
from equilign.play.leader_follower import sampled_prefs
from equilign.play.loop import Dynamics, run
from equilign.play.options import (
    PlayOptions,
    Start,
    check_positive,
    start_policy,
)
from equilign.play.trajectory import Trajectory
from equilign.rules.contrastive import ContrastiveRule, PairLoss, Pairs

Vector = Float[np.ndarray, " n"]
Prefs = Float[np.ndarray, "n n"]

_EXACT = 1e-12
_MOST_STEPS = {True: 60, False: 3000}
"""Of Newton's method on log-odds, and of the damped one, which moves half a nat a step or more."""


def law_scores(prefs: Prefs, law: Vector, start: Vector | None = None) -> Vector:
    r"""Bradley-Terry scores fitted to pairs of two independent draws from ``law``.

    The maximum of ``sum_ij law_i law_j P_ij log sigmoid(r_i - r_j)``. Its equations, divided by
    the probability of their answer, ``sum_j law_j (P_ij - sigmoid(r_i - r_j)) = 0``, stay well
    scaled however rare an answer is, where the likelihood itself no longer notices it: a policy
    near a corner of the simplex is what iterated methods arrive at. (`fit_bradley_terry` takes any
    weights of comparisons, and is the one to use for data.)

    Newton's method, first on the log-odds of both sides, which are linear in the scores for a law
    in a corner; should that fail, on the sides themselves with steps of ``log(1 + m) / m``, ``m``
    the step's spread in nats, under which a logistic likelihood cannot fall. Where it has no finite
    maximum, a vanishing ridge (`VANISHING_RIDGE`, shared out by ``law``) makes one.

    Args:
        prefs: ``P``, ``P + P.T == 1``.
        law: positive everywhere, sums to 1.
        start: where Newton's method starts, nats.

    Returns:
        Scores in nats of mean zero.
    """
    first = np.zeros(len(prefs)) if start is None else start
    if not _all_can_win(prefs > 0.0):
        return _newton(_Fit(prefs, law, VANISHING_RIDGE / len(prefs)), first, odds=False)[0]
    fit = _Fit(prefs, law)
    scores, converged = _newton(fit, first, odds=True)
    return scores if converged else _newton(fit, first, odds=False)[0]


@dataclass(frozen=True, eq=False)
class _Fit:
    """The equations of `law_scores`."""

    prefs: Prefs
    law: Vector
    ridge: float = 0.0

    def step(self, scores: Vector, *, odds: bool) -> Vector:
        """Newton's step on the log-odds of both sides, or on the sides themselves."""
        apart = scores[:, None] - scores[None, :]
        tail = np.exp(-np.abs(apart))
        wins = np.where(apart >= 0.0, 1.0, tail) / (1.0 + tail)
        slopes = wins * wins.T * self.law
        np.fill_diagonal(slopes, 0.0)
        matrix = np.diag(slopes.sum(axis=1) + self.ridge) - slopes
        rest = self._odds(wins) if odds else self._difference(wins)
        if self.ridge > 0.0:
            return np.linalg.solve(matrix, rest - self.ridge * (scores - self.law @ scores))
        # Scores are defined up to a constant and the equations are dependent: the score of the
        # most frequent answer stays, and its equation is left out.
        others = np.arange(scores.size) != int(self.law.argmax())
        step = np.zeros(scores.size)
        step[others] = np.linalg.solve(matrix[np.ix_(others, others)], rest[others])
        return step

    def _difference(self, wins: Prefs) -> Vector:
        # P (1 - s) - (1 - P) s in place of P - s: nothing cancels where both are near 0 or 1.
        return (self.prefs * wins.T - self.prefs.T * wins) @ self.law

    def _odds(self, wins: Prefs) -> Vector:
        # An answer against itself is on both sides; left out, it cannot drown rarer ones.
        own = 1.0 - np.eye(len(wins))
        seen, missed = (own * self.prefs) @ self.law, (own * self.prefs.T) @ self.law
        said, denied = (own * wins) @ self.law, (own * wins.T) @ self.law
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.log(seen / missed) - np.log(said / denied)
            return said / (said + denied) * denied * apart


def _newton(fit: _Fit, scores: Vector, *, odds: bool) -> tuple[Vector, bool]:
    """Scores of mean zero, and whether the last step was below rounding."""
    for _ in range(_MOST_STEPS[odds]):
        try:
            step = fit.step(scores, odds=odds)
        except np.linalg.LinAlgError:  # so far out that no slope is left
            return scores - scores.mean(), False
        spread = float(np.ptp(step))
        if not np.isfinite(spread):
            return scores - scores.mean(), False
        length = 1.0 if odds or spread == 0.0 else np.log1p(spread) / spread
        scores = scores + length * step
        if spread <= _EXACT * (1.0 + float(np.abs(scores).max())):
            return scores - scores.mean(), True
    return scores - scores.mean(), False


def _all_can_win(beats: Bool[np.ndarray, "n n"]) -> bool:
    """Whether a chain of possible wins leads from every answer to every other one (Ford 1957)."""
    reach = beats | np.eye(len(beats), dtype=bool)
    for _ in range(int(np.ceil(np.log2(max(len(beats), 2))))):
        reach = (reach.astype(np.float64) @ reach) > 0.0
    return bool(reach.all())


def win_rates(prefs: Prefs, law: Vector, start: Vector | None = None) -> Vector:
    """Win rates ``P law``: what IPO fits. ``start`` is not looked at."""
    return prefs @ law


FITS: dict[PairLoss, Callable[[Prefs, Vector, Vector | None], Vector]] = {
    PairLoss.DPO: law_scores,
    PairLoss.IPO: win_rates,
}
"""What the minimiser adds to the reference's log-probabilities, times ``beta``."""

_DEFAULT_BETA = {PairLoss.DPO: 1.0, PairLoss.IPO: 0.25}
# The same strength near ties: the log-odds of a win rate are four times its margin.


@dataclass(frozen=True, eq=False)
class ContrastiveOptions(PlayOptions):
    """Options of DPO, IPO and their iterated and online forms.

    Attributes:
        steps: rounds; rules with fixed pairs and reference stand still after the first.
        start: the first policy, and the first reference where the reference moves.
        beta: KL weight: reward nats per nat for DPO, win probability per nat for IPO (its tau);
            the game's by default, and where that is 0, 1 for DPO and 1/4 for IPO.
        sampler: who drew the fixed pairs of offline rules: as ``start``, which it is by default.
        share: how much of the way to the loss's minimiser a round goes, in log-probabilities;
            1 is a round fitted to convergence.

    Raises:
        ConfigError: a value is out of range.
    """

    beta: float | None = None
    sampler: Start | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(beta=1.0 if self.beta is None else self.beta, share=self.share)
        if self.share > 1.0:
            raise ConfigError(f"share = {self.share}; at most 1, the whole way")
        if isinstance(self.sampler, str) and self.sampler not in _WORDS:
            raise ConfigError(f"sampler = {self.sampler!r}; {', '.join(_WORDS)}, or a policy")

    def kl_weight(self, game: PreferenceGame, loss: PairLoss) -> float:
        """``beta``, or its default."""
        given = game.beta or None if self.beta is None else self.beta
        return _DEFAULT_BETA[loss] if given is None else given


_WORDS = ("random", "uniform", "reference")


@dataclass(frozen=True, eq=False)
class _State:
    log_policy: Vector
    payoff: Vector


@dataclass(frozen=True, eq=False)
class _Data:
    """Labelled pairs, and what the rule's loss makes of them."""

    game: PreferenceGame
    rule: ContrastiveRule
    options: ContrastiveOptions
    generator: np.random.Generator

    def drawn_by(self, log_policy: Vector, near: Vector | None = None) -> Vector:
        """The payoff fitted to pairs of a policy; ``near`` is where the fit may start."""
        prefs, samples = 0.5 + self.game.margin, self.options.samples
        if samples is not None:
            prefs = sampled_prefs(self.game, samples, self.generator)
        law = np.exp(np.maximum(log_policy, LEAST_LOG))
        return FITS[self.rule.loss](prefs, law / law.sum(), near)

    def given(self, log_start: Vector) -> Vector:
        """The payoff fitted to the fixed pairs of an offline rule."""
        who = self.options.sampler
        if who is None:
            return self.drawn_by(log_start)
        return self.drawn_by(_floored(start_policy(self.game, who, self.options.seed)))


def play_contrastive(
    game: PreferenceGame, rule: ContrastiveRule, options: ContrastiveOptions
) -> Trajectory:
    """Play DPO, IPO or one of their kin; see `equilign.play.play`.

    Returns:
        The policy's trajectory; gaps are those of the game as it is. ``extra`` holds the last
        round's ``payoff``: Bradley-Terry scores in nats (DPO), or win rates (IPO). The option
        ``eta`` that is reported is ``1 / beta``: with a moving reference, a round is a mirror step
        of that size along the payoff.

    Raises:
        ConfigError: a batch.
    """
    if game.is_batch:
        raise ConfigError(f"{rule.title} plays one game; take game[x] of a batch")
    beta, data = options.kl_weight(game, rule.loss), _Data(game, rule, options, options.generator())
    log_start = _floored(start_policy(game, options.start, options.seed))
    log_ref = _floored(game.reference)
    fixed = data.given(log_start) if rule.pairs == Pairs.OFFLINE else None

    def advance(now: _State, t: int) -> _State:
        payoff = data.drawn_by(now.log_policy, now.payoff) if fixed is None else fixed
        anchor = now.log_policy if rule.moves_reference else log_ref
        target = log_normalise(anchor + (payoff - payoff.max()) / beta)
        mixed = (1.0 - options.share) * now.log_policy + options.share * target
        return _State(log_normalise(mixed), payoff)

    dynamics = Dynamics(
        name=rule.name,
        start=_State(log_start, np.zeros(game.size) if fixed is None else fixed),
        log_policy=lambda now: now.log_policy,
        advance=advance,
        gap=None,
        finish=lambda now: {"payoff": now.payoff},
        reported={
            "eta": 1.0 / beta,
            "beta": beta,
            "share": options.share,
            "samples": options.samples,
            "seed": options.seed,
        },
    )
    return run(game, dynamics, options)


def _floored(policy: Float[np.ndarray, "*some n"]) -> Vector:
    # An answer that is never given gets the limit of one that is given ever more rarely.
    return log_normalise(np.log(np.maximum(np.asarray(policy, np.float64), np.exp(LEAST_LOG))))
