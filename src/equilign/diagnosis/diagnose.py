"""All of the diagnosis of one data set."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import betaincinv

from equilign.diagnosis.advice import (
    HEADLINES,
    TOLERANCE,
    Evidence,
    Verdict,
    decide,
    decide_per_prompt,
)
from equilign.diagnosis.coverage import Coverage, coverage
from equilign.diagnosis.favourite import WorstLoss, worst_loss
from equilign.diagnosis.groups import Prompts, Voters, prompt_structure, voter_structure
from equilign.diagnosis.position import PositionBias, position_bias
from equilign.diagnosis.rating import (
    FitErrors,
    Intransitivity,
    Null,
    Progress,
    draw_null,
    fit_errors,
    intransitivity,
    mean_squared_error,
    misfit,
    upper_p_value,
)
from equilign.diagnosis.significance import LEVEL, CycleTest, find_cycles
from equilign.errors import ConfigError, DataError
from equilign.games.bradley_terry import BradleyTerry, fit_bradley_terry
from equilign.games.loading import GameData
from equilign.games.measures import condorcet_winner, cyclic_triples
from equilign.games.voting import smith_set, weak_condorcet_winners

BOOTSTRAP = 500
"""Data sets drawn from the fitted model, for up to 150 players."""

_MANY_PLAYERS = 150
_LONGEST_NAME = 60


@dataclass(frozen=True, eq=False)
class Rating:
    """The Bradley-Terry side of a pooled game.

    Attributes:
        fit: the fitted model.
        errors: its distance from the win rates.
        loss: what its favourite loses.
        p_value: goodness of fit by parametric bootstrap; None where counts are unknown.
        misfit: typical distance of true win rates from the fitted ones, noise taken off.
        misfit_bound: upper bound of it.
        bootstrap: data sets drawn.
        null: what they show.
    """

    fit: BradleyTerry
    errors: FitErrors
    loss: WorstLoss
    p_value: float | None
    misfit: float
    misfit_bound: float
    bootstrap: int
    null: Null | None


@dataclass(frozen=True, eq=False)
class Pool:
    """What is known of players that mean the same on every prompt.

    Attributes:
        prefs: win rates; 1/2 where never compared.
        coverage: how much was compared.
        condorcet_winner: number of the player that beats everyone, or None.
        weak_winners: players that lose to no one.
        smith: the Smith set.
        cycles: majority cycles and their tests; None where counts are unknown.
        cyclic_triples: strict majority cycles of three.
        strict_triples: decided triples.
        rating: the Bradley-Terry side.
        intransitivity: Hodge's decomposition.
        lottery: maximal lottery (Nash equilibrium of the win rates), shape ``(n,)``.
        lottery_unique: whether it is the only one.
    """

    prefs: np.ndarray
    coverage: Coverage
    condorcet_winner: int | None
    weak_winners: tuple[int, ...]
    smith: tuple[int, ...]
    cycles: CycleTest | None
    cyclic_triples: int
    strict_triples: int
    rating: Rating
    intransitivity: Intransitivity
    lottery: np.ndarray
    lottery_unique: bool | None


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What `diagnose` found; `to_json` gives plain values by documented keys.

    Attributes:
        data: what was diagnosed.
        pool: the pooled game; None where every prompt is a game of its own.
        prompts: games of single prompts; None where no prompts are named.
        annotators: annotators as voters; None where fewer than two are named.
        attributes: attributes as voters; None as well.
        position: what being shown first is worth; None where both orders are not there.
        verdict: ``reward model``, ``game`` or ``too little data``.
        reasons: sentences, the decisive one first.
        tolerance: win probability that matters.
        seed: of the bootstrap.
        notes: choices that were made.
    """

    data: GameData
    pool: Pool | None
    prompts: Prompts | None
    annotators: Voters | None
    attributes: Voters | None
    position: PositionBias | None
    verdict: Verdict
    reasons: tuple[str, ...]
    tolerance: float
    seed: int
    notes: tuple[str, ...] = field(default=())

    @property
    def recommendation(self) -> str:
        """The verdict as a sentence, with its reasons."""
        return " ".join((HEADLINES[self.verdict], *self.reasons))

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are documented in the reference of the command line."""
        from equilign.diagnosis.plain import as_json

        return as_json(self)


def diagnose(
    data: GameData,
    *,
    bootstrap: int | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Diagnosis:
    """Is a reward model enough for these preferences, or does a game change the answer?

    Args:
        data: from `equilign.games.loading.load_data`.
        bootstrap: data sets to draw from the fitted Bradley-Terry model; `BOOTSTRAP` when not
            given, and fewer for more than 150 players.
        tolerance: win probability that matters to you.
        seed: of the bootstrap.
        progress: called with the number of data sets drawn and of all.

    Raises:
        ConfigError: a negative seed or bootstrap, or a tolerance outside (0, 1/2).
        DataError: a batch of games.
    """
    if bootstrap is not None and bootstrap < 20:
        raise ConfigError(f"bootstrap = {bootstrap}; a p-value needs at least 20 data sets")
    if not 0.0 < tolerance < 0.5:
        raise ConfigError(f"tolerance = {tolerance}; it must lie between 0 and 0.5")
    if seed < 0:
        raise ConfigError(f"seed = {seed}; it must be >= 0")
    if data.game is not None and data.game.is_batch:
        raise DataError(f"{data.source} holds {len(data.game)} games; diagnose one at a time")
    notes = list(data.notes)
    pool = None
    if data.game is not None:
        pool = _pool(data, bootstrap, np.random.default_rng(seed), progress, notes)
    c = data.comparisons
    prompts = None if c is None else prompt_structure(c)
    verdict, reasons = _verdict(data, pool, prompts, tolerance)
    return Diagnosis(
        data=data,
        pool=pool,
        prompts=prompts,
        annotators=None if c is None else voter_structure(c, c.annotator, len(c.annotators)),
        attributes=None if c is None else voter_structure(c, c.attribute, len(c.attributes)),
        position=None if c is None else position_bias(c),
        verdict=verdict,
        reasons=tuple(reasons),
        tolerance=tolerance,
        seed=seed,
        notes=tuple(notes),
    )


def _pool(
    data: GameData,
    bootstrap: int | None,
    rng: np.random.Generator,
    progress: Progress | None,
    notes: list[str],
) -> Pool:
    from equilign.games.nash import nash  # compiled: only where it is needed

    assert data.game is not None  # noqa: S101 - the caller checks
    prefs, wins, ties = data.game.prefs, data.wins, data.ties
    samples = bootstrap or BOOTSTRAP
    if bootstrap is None and len(prefs) > _MANY_PLAYERS:
        samples = max(20, int(BOOTSTRAP * (_MANY_PLAYERS / len(prefs)) ** 3))
        notes.append(f"{len(prefs)} players: {samples} data sets were drawn for p-values.")
    rating = _rating(data, samples, rng, progress)
    lottery = nash(data.game)
    tests = None if wins is None else find_cycles(wins, ties)
    if tests is not None:
        strict = tests.strict
    else:
        edges = (np.abs(prefs - 0.5) > 0.0).astype(np.float64)
        strict = round(float(((edges @ edges) * edges).sum())) // 6
    _note_choices(data, rating, notes)
    return Pool(
        prefs=prefs,
        coverage=coverage(data.counts, ties, len(prefs)),
        condorcet_winner=condorcet_winner(prefs),
        weak_winners=weak_condorcet_winners(prefs),
        smith=smith_set(prefs),
        cycles=tests,
        cyclic_triples=cyclic_triples(prefs),
        strict_triples=strict,
        rating=rating,
        intransitivity=intransitivity(prefs, wins, ties, rating.null),
        lottery=np.asarray(lottery.policy),
        lottery_unique=None if lottery.unique is None else bool(lottery.unique),
    )


def _rating(
    data: GameData, samples: int, rng: np.random.Generator, progress: Progress | None
) -> Rating:
    assert data.game is not None  # noqa: S101
    prefs, wins = data.game.prefs, data.wins
    # A matrix alone counts every pair once.
    table = wins if wins is not None else prefs - np.diag(np.diag(prefs))
    fit = fit_bradley_terry(table)
    errors = fit_errors(fit, table)
    loss = worst_loss(prefs, wins, int(fit.favourite))
    if wins is None:
        return Rating(fit, errors, loss, None, errors.rms, errors.rms, 0, None)
    null = draw_null(fit, wins, data.ties, samples, rng, progress)
    squared = float(mean_squared_error(wins[None], fit.prefs[None])[0])
    exact = data.ties is not None or bool((np.abs(wins - np.rint(wins)) < 1e-9).all())
    typical, bound = misfit(squared, null.squared_error, float(wins.sum()), exact)
    p_value = upper_p_value(float(fit.deviance), null.deviance)
    return Rating(fit, errors, loss, p_value, typical, bound, samples, null)


def _note_choices(data: GameData, rating: Rating, notes: list[str]) -> None:
    scores = np.asarray(rating.fit.scores)
    level = np.flatnonzero(scores >= scores.max() - 1e-9)
    if len(level) > 1:
        names = ", ".join(_short(data.labels[i]) for i in level[:5])
        notes.append(
            f"Bradley-Terry rates {len(level)} players highest ({names}); the first was "
            "taken as the favourite."
        )
    if rating.fit.separated:
        notes.append(
            "Some players never lost, or never won, against the rest: their "
            "Bradley-Terry scores are infinite and were cut off."
        )
    if data.wins is not None and data.ties is None and (data.wins % 1.0 > 1e-9).any():
        notes.append(
            "Ties are counted as halves and their number is unknown; tests take every "
            "comparison as decided, which makes them cautious."
        )


def _verdict(
    data: GameData, pool: Pool | None, prompts: Prompts | None, tolerance: float
) -> tuple[Verdict, list[str]]:
    if pool is None:
        p = prompts
        if p is None:
            return "too little data", ["Nothing was compared on any prompt."]
        bound = 1.0
        if p.cyclic_triples < p.strict_triples:
            rest = p.strict_triples - p.cyclic_triples
            bound = float(betaincinv(p.cyclic_triples + 1.0, rest, 1.0 - LEVEL))
        return decide_per_prompt(
            p.complete, p.strict_triples, p.cyclic_triples, p.significant_cycles, bound, tolerance
        )
    names, rating = data.labels, pool.rating
    favourite = int(rating.fit.favourite)
    winner = pool.condorcet_winner
    per_pair = pool.coverage.per_pair
    verdict, reasons = decide(
        Evidence(
            favourite=_short(names[favourite]),
            opponent=_short(names[rating.loss.opponent]),
            loss=rating.loss.loss,
            low=rating.loss.low,
            high=rating.loss.high,
            p_value=rating.p_value,
            smallest_p=1.0 / (1.0 + rating.bootstrap),
            misfit=rating.misfit,
            misfit_bound=rating.misfit_bound,
            significant_cycles=None if pool.cycles is None else pool.cycles.significant,
            condorcet_winner=None if winner is None else _short(names[winner]),
            favourite_share=float(pool.lottery[favourite]),
            components=pool.coverage.components,
            typical_count=None if per_pair is None else per_pair["median"],
        ),
        tolerance,
    )
    if prompts is not None and prompts.significant_cycles:
        reasons.append(
            f"On single prompts {prompts.significant_cycles} cycles are more than noise: a reward "
            "of prompt and answer cannot describe those."
        )
    return verdict, reasons


def _short(name: str) -> str:
    """A name for a sentence: players may be texts of any length."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
