"""From numbers to a recommendation in plain words.

Sizes decide, and significance says whether a size is known: with many comparisons any model is
rejected, also one that is wrong by a tenth of a point, and with few no model is.
"""

from dataclasses import dataclass
from typing import Literal

TOLERANCE = 0.05
"""Win probability that matters: five points."""

REJECTED = 0.01
"""p-value of the goodness of fit up to which Bradley-Terry is called rejected."""

Verdict = Literal["reward model", "game", "too little data"]

HEADLINES: dict[Verdict, str] = {
    "reward model": "A reward model is enough.",
    "game": "A game changes the answer.",
    "too little data": "Too little data to tell.",
}


@dataclass(frozen=True)
class Evidence:
    """What the recommendation for one pooled game rests on.

    Attributes:
        favourite: name of Bradley-Terry's favourite.
        opponent: name of its worst opponent.
        loss: what it loses to that one, in win probability.
        low: lower bound of its largest loss.
        high: upper bound.
        p_value: of Bradley-Terry's goodness of fit; None where counts are unknown.
        smallest_p: the smallest p-value that could come out: ``1 / (1 + data sets drawn)``.
        misfit: typical distance of true win rates from Bradley-Terry's, noise taken off.
        misfit_bound: upper bound of it.
        significant_cycles: cycles that are more than noise; None where counts are unknown.
        condorcet_winner: name, or None.
        favourite_share: probability of the favourite in the maximal lottery.
        components: connected parts of the graph of comparisons.
        typical_count: median of comparisons per pair; None where unknown.
    """

    favourite: str
    opponent: str
    loss: float
    low: float
    high: float
    p_value: float | None
    smallest_p: float
    misfit: float
    misfit_bound: float
    significant_cycles: int | None
    condorcet_winner: str | None
    favourite_share: float
    components: int
    typical_count: float | None

    @property
    def rejected(self) -> bool:
        """Whether the fit is rejected; with few data sets drawn, as clearly as they can."""
        return self.p_value is not None and self.p_value <= max(REJECTED, self.smallest_p)


def decide(e: Evidence, tolerance: float = TOLERANCE) -> tuple[Verdict, list[str]]:
    """The verdict and its reasons, the decisive one first."""
    known = e.typical_count is not None
    cyclic = (
        e.misfit > tolerance
        and e.favourite_share < 0.5
        and (e.p_value is None or e.rejected)
        and (e.condorcet_winner is None if e.significant_cycles is None else e.significant_cycles)
    )
    if e.low > 0.0 and e.loss > tolerance:
        verdict: Verdict = "game"
        first = (
            f"Bradley-Terry's favourite {e.favourite} wins only {_percent(0.5 - e.loss)} against "
            f"{e.opponent}" + (", which is more than noise." if known else ".")
        )
    elif cyclic:
        verdict = "game"
        first = (
            "Preferences go in circles: no rating comes closer to the win rates than "
            f"{_points(e.misfit)} on average, and the maximal lottery plays Bradley-Terry's "
            f"favourite {e.favourite} with probability {e.favourite_share:.2f} only (which would "
            f"lose {_points(e.loss)} at most, though)."
        )
    elif e.high <= tolerance:
        verdict = "reward model"
        most = f"at most {_points(e.high)} to anyone" if e.high >= 5e-4 else "to nobody"
        bound = " (95 % bound)." if known else "."
        first = f"Bradley-Terry's favourite {e.favourite} loses {most}{bound}"
    elif e.loss <= tolerance and e.misfit_bound <= tolerance and e.components == 1:
        verdict = "reward model"
        first = (
            f"Ratings predict the win rates to {_points(e.misfit_bound)} on average (95 % bound), "
            f"and Bradley-Terry's favourite {e.favourite} is seen to lose {_points(e.loss)} "
            "at most."
        )
    else:
        verdict, first = "too little data", _doubt(e, tolerance)
    return verdict, [first, *_further(e, tolerance)]


def _doubt(e: Evidence, tolerance: float) -> str:
    if e.components > 1:
        return (
            f"The players fall into {e.components} groups that were never compared with each other."
        )
    each = (
        f" With {e.typical_count:g} comparisons of a typical pair" if e.typical_count else " Here"
    )
    if e.loss > tolerance:
        return (
            f"Bradley-Terry's favourite {e.favourite} is seen to lose {_points(e.loss)} to "
            f"{e.opponent}, but that may be noise: anything from {_points(e.low)} to "
            f"{_points(e.high)} is possible.{each} no more can be said."
        )
    return (
        f"Bradley-Terry's favourite {e.favourite} may lose up to {_points(e.high)} to someone, and "
        f"win rates may be off the ratings by {_points(e.misfit_bound)}.{each} no more can be said."
    )


def _further(e: Evidence, tolerance: float) -> list[str]:
    reasons = []
    if e.p_value is not None:
        if not e.rejected:
            reasons.append(
                f"The Bradley-Terry model is not rejected (p = {e.p_value:.2g}); noise alone can "
                "explain what it misses."
            )
        elif e.misfit <= tolerance:
            reasons.append(
                f"The Bradley-Terry model is rejected (p = {e.p_value:.2g}), but it is off by "
                f"{_points(e.misfit)} on average only: with so much data small flaws show."
            )
        else:
            reasons.append(
                f"The Bradley-Terry model is rejected (p = {e.p_value:.2g}), and it is off by "
                f"{_points(e.misfit)} on average."
            )
    if e.significant_cycles is not None:
        reasons.append(
            f"{e.significant_cycles} majority cycles are more than noise."
            if e.significant_cycles
            else "No majority cycle is more than noise."
        )
    if e.condorcet_winner is None:
        reasons.append("Nobody beats everyone else in the data as they are.")
    elif e.condorcet_winner == e.favourite:
        reasons.append(f"{e.favourite} beats everyone else: it is the Condorcet winner as well.")
    else:
        reasons.append(
            f"The Condorcet winner is {e.condorcet_winner}, not Bradley-Terry's favourite; the "
            f"two differ by {_points(e.loss)} at most."
        )
    if e.typical_count is None:
        reasons.append("Numbers of comparisons are unknown; the win rates were taken as exact.")
    return reasons


def decide_per_prompt(
    complete: int, strict: int, cyclic: int, significant: int, share_bound: float, tolerance: float
) -> tuple[Verdict, list[str]]:
    """The verdict where every prompt is a game of its own.

    Args:
        complete: prompts with three or more answers, all of them compared.
        strict: decided triples on them.
        cyclic: cycles among those.
        significant: cycles that are more than noise.
        share_bound: upper 95 % bound of the share of cycles.
        tolerance: share of cycles that matters.
    """
    if significant:
        return "game", [
            f"On single prompts {significant} cycles of answers are more than noise; no rating of "
            "answers describes them."
        ]
    if not complete:
        return "too little data", [
            "No prompt has three answers that were all compared with each other, so no cycle "
            "could show. Compare at least three answers per prompt, each pair several times."
        ]
    if share_bound <= tolerance:
        return "reward model", [
            f"Of {strict} decided triples of answers {cyclic} are cycles, noise included; at most "
            f"{100 * share_bound:.1f} % are (95 % bound). (Verdicts made from rankings cannot "
            "show cycles.)"
        ]
    return "too little data", [
        f"Of {strict} decided triples of answers {cyclic} are cycles (coin flips would give a "
        "quarter), but pairs were compared too rarely to tell cycles from noise. Compare each "
        "pair of answers several times."
    ]


def _points(size: float) -> str:
    return f"{100.0 * size:.1f} points"


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f} %"
