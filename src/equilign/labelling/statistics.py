"""Who answered how much, how far people agree, and whether a side of the page wins."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import binomtest

from equilign.diagnosis.groups import voter_structure
from equilign.games.comparisons import Comparisons
from equilign.labelling.tables import Answer


@dataclass(frozen=True)
class SideBias:
    """How often the left answer wins. Sides are drawn at random, so 1/2 is no bias.

    Attributes:
        decided: answers with a winner whose side is known.
        left_share: share of them in which the left answer won; None without any.
        low: lower end of the 95 % interval (Wilson).
        high: upper end.
        p_value: of "no bias", exact, two-sided.
    """

    decided: int
    left_share: float | None
    low: float | None
    high: float | None
    p_value: float | None


@dataclass(frozen=True)
class Person:
    """What one person did.

    Attributes:
        answers: skips not counted.
        ties: among them.
        skips: comparisons skipped.
        undone: answers taken back.
        median_seconds: per answer or skip, where known.
        bias: towards a side.
    """

    answers: int
    ties: int
    skips: int
    undone: int
    median_seconds: float | None
    bias: SideBias


@dataclass(frozen=True)
class Agreement:
    """How often two people say the same of the same pair.

    Attributes:
        first: one person.
        second: the other.
        pairs: that both answered.
        share: of them on which both preferred the same, or both saw a tie.
    """

    first: str
    second: str
    pairs: int
    share: float


@dataclass(frozen=True)
class LabelStatistics:
    """Statistics of people's answers.

    Attributes:
        answers: skips not counted.
        comparisons: pairs with an answer.
        annotators: name -> what that person did.
        agreements: of every two people with a pair in common.
        shared: pairs that two or more answered.
        agreement: probability that two people agree on a pair both answered; None without any.
        alpha: Krippendorff's alpha for nominal data: 1 is perfect, 0 is chance; None as well.
        bias: towards a side, of all together.
        median_seconds: per answer or skip, where known.
    """

    answers: int
    comparisons: int
    annotators: dict[str, Person]
    agreements: tuple[Agreement, ...]
    shared: int
    agreement: float | None
    alpha: float | None
    bias: SideBias
    median_seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def label_statistics(answers: Sequence[Answer]) -> LabelStatistics:
    """Statistics of answers; those that were taken back count as such only."""
    counted = [x for x in answers if x.undone is None]
    given = [x for x in counted if x.value is not None]
    names = sorted({x.annotator for x in answers})
    people = {n: _person([x for x in answers if x.annotator == n]) for n in names}
    voters = voter_structure(*_as_voters(given)) if given else None
    return LabelStatistics(
        answers=len(given),
        comparisons=len({x.pair for x in given}),
        annotators=people,
        agreements=_agreements(given),
        shared=0 if voters is None else voters.items,
        agreement=None if voters is None else voters.agreement,
        alpha=None if voters is None else voters.alpha,
        bias=_bias(given),
        median_seconds=_median(counted),
    )


def as_comparisons(answers: Sequence[Answer]) -> Comparisons:
    """Answers with a verdict as comparisons of texts, each prompt a game of its own."""
    prompts = sorted({x.prompt for x in answers})
    # The same words on another prompt are another answer.
    players = sorted({(x.prompt, t) for x in answers for t in (x.a, x.b)})
    names = sorted({x.annotator for x in answers})
    place = {p: i for i, p in enumerate(prompts)}
    player = {p: i for i, p in enumerate(players)}
    who = {n: i for i, n in enumerate(names)}
    shown = [0 if x.a_left is None else 1 if x.a_left else -1 for x in answers]
    return Comparisons(
        first=np.array([player[x.prompt, x.a] for x in answers], dtype=np.int64),
        second=np.array([player[x.prompt, x.b] for x in answers], dtype=np.int64),
        score=np.array([x.value for x in answers], dtype=np.float64),
        weight=np.array([x.weight for x in answers], dtype=np.float64),
        shown=np.array(shown, dtype=np.int64),
        prompt=np.array([place[x.prompt] for x in answers], dtype=np.int64),
        annotator=np.array([who[x.annotator] for x in answers], dtype=np.int64),
        attribute=np.full(len(answers), -1, dtype=np.int64),
        players=tuple(f"{p.hex()}:{t.hex()}" for p, t in players),
        prompts=tuple(p.hex() for p in prompts),
        annotators=tuple(names),
        pooled=False,
    )


def _as_voters(given: Sequence[Answer]) -> tuple[Comparisons, np.ndarray, int]:
    comparisons = as_comparisons(given)
    return comparisons, comparisons.annotator, len(comparisons.annotators)


def _verdict(answer: Answer) -> str:
    value = 0.5 if answer.value is None else answer.value
    return "a" if value > 0.5 else "b" if value < 0.5 else "tie"


def _agreements(given: Sequence[Answer]) -> tuple[Agreement, ...]:
    said: dict[str, dict[int, str]] = {}
    for answer in given:
        said.setdefault(answer.annotator, {})[answer.pair] = _verdict(answer)
    found = []
    for one, other in combinations(sorted(said), 2):
        both = said[one].keys() & said[other].keys()
        if both:
            same = sum(said[one][p] == said[other][p] for p in both)
            found.append(Agreement(one, other, len(both), same / len(both)))
    return tuple(found)


def _person(answers: Sequence[Answer]) -> Person:
    counted = [x for x in answers if x.undone is None]
    given = [x for x in counted if x.value is not None]
    return Person(
        answers=len(given),
        ties=sum(_verdict(x) == "tie" for x in given),
        skips=len(counted) - len(given),
        undone=len(answers) - len(counted),
        median_seconds=_median(counted),
        bias=_bias(given),
    )


def _median(answers: Sequence[Answer]) -> float | None:
    seconds = [x.seconds for x in answers if x.seconds is not None]
    return float(np.median(seconds)) if seconds else None


def _bias(given: Sequence[Answer]) -> SideBias:
    sides = [
        (_verdict(x) == "a") == x.a_left
        for x in given
        if x.a_left is not None and _verdict(x) != "tie"
    ]
    if not sides:
        return SideBias(0, None, None, None, None)
    test = binomtest(sum(sides), len(sides), 0.5)
    interval = test.proportion_ci(0.95, method="wilson")
    return SideBias(
        decided=len(sides),
        left_share=sum(sides) / len(sides),
        low=float(interval.low),
        high=float(interval.high),
        p_value=float(test.pvalue),
    )
