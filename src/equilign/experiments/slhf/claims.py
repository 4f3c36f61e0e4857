"""The paper's findings, each judged from measured numbers by the rule in its function.

Win rates are by the training oracle. Differences are paired: the same seed, the same prompt.
``holds`` is None where the interval over seeds and prompts does not decide.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from equilign.evaluation.intervals import clustered_mean, wilson
from equilign.evaluation.spread import RATE, Spread, spread
from equilign.experiments.slhf.claims_tabular import TABULAR_RULES
from equilign.experiments.slhf.contestants import NASH, RLOO
from equilign.experiments.slhf.half import HALF
from equilign.experiments.slhf.judging import HELD_OUT, REFINED_START
from equilign.experiments.slhf.pieces import START
from equilign.experiments.slhf.playing import FOLLOWER, LEADER, OTHER, OTHERS, PEOPLE
from equilign.experiments.slhf.results import TITLES, Results
from equilign.experiments.verdicts import Claim, all_of, said, sign

RULE = "Rule: the 95 % interval over seeds and prompts"
MARGIN = 0.02
"""How far below one half still counts as "not worse"."""

CYCLIC = (0.4, 0.7)
"""What counts as "about half" of the prompts; the paper has 0.57."""


def ahead(results: Results, a: str, b: str, paper: str) -> Claim:
    """One player beats another in the round robin."""
    found = spread(results.over(a, b) - 0.5)
    held_out = results.win_rate(a, b, HELD_OUT)
    return Claim(
        f"{_capital(_title(a))} beats {_title(b)}.",
        sign(found),
        f"Win rate {said(results.win_rate(a, b))}; seed by seed {_by_seed(results.over(a, b))}; by "
        f"the held-out oracle {said(held_out)}. {RULE} lies above one half; does not hold if it "
        f"lies below. Paper: {paper}.",
    )


def _title(name: str) -> str:
    words = {
        START: "the start model",
        LEADER: "the Leader",
        FOLLOWER: "the Follower",
        HALF: "the model of half the size",
        OTHER: "the Follower of another seed",
    }
    return words.get(name, TITLES[name])


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _by_seed(values: np.ndarray) -> str:
    found = [clustered_mean(row) for row in values]
    return ", ".join(f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})" for e in found)


def not_worse(results: Results) -> Claim:
    """Leader against Nash-MD: equal in the paper."""
    found = spread(results.over(LEADER, NASH) - (0.5 - MARGIN))
    below = spread(results.over(LEADER, NASH) - 0.5)
    holds = True if sign(found) else (False if sign(below) is False else None)
    return Claim(
        "The Leader is not worse than Nash-MD.",
        holds,
        f"Win rate {said(results.win_rate(LEADER, NASH))}; over the start model "
        f"{said(results.win_rate(LEADER))} against {said(results.win_rate(NASH))}. {RULE} lies "
        f"above {0.5 - MARGIN:.2f}; does not hold if it lies below one half. Paper: 0.503.",
    )


def each_seed(results: Results) -> Claim:
    """Follower > Leader > start with every seed on its own."""
    verdicts, words = [], []
    for a, b in ((FOLLOWER, LEADER), (LEADER, START)):
        found = [clustered_mean(row) for row in results.over(a, b)]
        verdicts += [e.low > 0.5 or (None if e.high >= 0.5 else False) for e in found]
        words.append(f"{TITLES[a]} over {TITLES[b]} {_by_seed(results.over(a, b))}")
    return Claim(
        "With every seed on its own the Follower beats its Leader, and the Leader the start model.",
        all_of(verdicts),
        f"{'; '.join(words)}. Rule: every 95 % interval over prompts lies above one half; does not "
        "hold if one lies below.",
        "ours",
    )


def _gains(values: np.ndarray) -> list[Spread]:
    """Of each round over the one before; ``(seeds, prompts, N)``."""
    return [spread(values[..., n] - values[..., n - 1]) for n in range(1, values.shape[-1])]


def monotone(results: Results, who: str) -> Claim:
    """Each round of refinement is better than the one before."""
    path = results.curves[f"refinement, {who}"]["last_win_rate"]
    gains = _gains(path)
    rates = ", ".join(said(spread(path[..., n], RATE)) for n in range(path.shape[-1]))
    rose = ", ".join(f"{g.value:+.3f} ({g.both[0]:+.3f} to {g.both[1]:+.3f})" for g in gains)
    return Claim(
        f"Refining the answers of {_title(who)} improves them round after round.",
        all_of(sign(g) for g in gains),
        f"Win rate over the start model of its own answers and after each round: {rates}; gains "
        f"{rose}. {RULE} of every gain lies above zero; does not hold if one lies below.",
    )


def improves(results: Results, follower: str, leader: str) -> Claim:
    """Replies beat the answers that they were shown."""
    found = results.corrections[follower][leader]
    return Claim(
        f"{_capital(_title(follower))} improves the answers of {_title(leader)}.",
        sign(spread(found - 0.5)),
        "Win rate of the reply over the answer that it was shown: "
        f"{said(spread(found, RATE))}; seed by seed {_by_seed(found)}. {RULE} lies "
        "above one half; does not hold if it lies below. Paper: its own Leader’s 0.605, those of "
        "other models up to about 0.60.",
    )


def refined_start(results: Results) -> Claim:
    """The untrained model, refined, against itself."""
    return Claim(
        "The start model with one round of refinement beats the start model.",
        sign(spread(results.over(REFINED_START) - 0.5)),
        f"Win rate {said(results.win_rate(REFINED_START))} over other answers of the start model; "
        f"seed by seed {_by_seed(results.over(REFINED_START))}; by the held-out oracle "
        f"{said(results.win_rate(REFINED_START, START, HELD_OUT))}. {RULE} lies above one half.",
    )


def transfers(results: Results) -> Claim:
    """One Follower improves models that it was not trained with, and another seed's Leader."""
    cells = [(FOLLOWER, leader) for leader in (RLOO, NASH, HALF, PEOPLE)] + [(OTHER, LEADER)]
    found = [spread(results.corrections[f][leader], RATE) for f, leader in cells]
    words = [
        f"{_title(f)} on {_title(leader)} {said(s)}"
        for (f, leader), s in zip(cells, found, strict=True)
    ]
    verdicts = [sign(spread(results.corrections[f][leader] - 0.5)) for f, leader in cells]
    return Claim(
        "A Follower improves answers that it was not trained on: of models trained by other "
        "methods, of a model of half the size, of people, and of another seed’s Leader.",
        all_of(verdicts),
        f"Win rate of the reply over the answer that it was shown: {'; '.join(words)}. {RULE} lies "
        "above one half for every one; does not hold if one lies below. Paper: up to about 0.60.",
    )


def only_followers(results: Results) -> Claim:
    """Models that were not trained to reply make answers worse when asked to improve them."""
    found = {who: results.corrections[who][START] for who in OTHERS}
    words = ", ".join(f"{_title(who)} {said(spread(x, RATE))}" for who, x in found.items())
    return Claim(
        "Models that were not trained as Followers make answers worse when they are asked to "
        "improve them.",
        all_of(sign(spread(x - 0.5), -1.0) for x in found.values()),
        f"Win rate of their replies over the start model’s answers that they were shown: {words}. "
        f"{RULE} lies below one half for each; does not hold if one lies above. Paper: often.",
    )


def kappa_lowers(results: Results) -> Claim:
    """A faster Follower costs the Leader."""
    claim = "With one model for both players, a larger kappa lowers the Leader."
    if not results.sweep:
        return Claim(claim, None, "The sweep over kappa is not part of this scale; full has it.")
    low, high = results.sweep[0], results.sweep[-1]
    shared = [s for s in low.seeds if s in high.seeds]
    least, most = (s.leader()[[list(s.seeds).index(seed) for seed in shared]] for s in (low, high))
    found = spread(most - least)
    words = ", ".join(
        f"kappa {s.kappa:g}: Leader {said(spread(s.leader(), RATE))}, Follower "
        f"{said(spread(s.follower(), RATE))}"
        for s in results.sweep
    )
    return Claim(
        claim,
        sign(found, -1.0),
        f"Win rates over the start model, {words}. Kappa {high.kappa:g} less {low.kappa:g}: "
        f"{said(found)} for the Leader, with the seeds that both have. {RULE} of that difference "
        "lies below zero; does not hold if it lies above.",
    )


def cyclic(results: Results, kind: str) -> Claim:
    """Preference graphs of many prompts have a cycle."""
    report = results.report(kind)
    # Seeds share the prompts: their answers differ, and each prompt counts once.
    share = _prompt_share(results, kind)
    low, high = CYCLIC
    inside = low <= share[0] and share[1] <= high
    outside = share[1] < low or share[0] > high
    return Claim(
        f"About half of the prompts have a cyclic preference graph, {kind}.",
        True if inside else (False if outside else None),
        f"Cyclic {report.cycle.value:.1%} ({share[0]:.1%} to {share[1]:.1%}) of "
        f"{report.prompts} graphs with {report.answers:.1f} different answers on average; a "
        f"Condorcet winner in {report.condorcet.value:.1%}; {report.ties:.1%} of the pairs tie. "
        f"Rule: Wilson’s 95 % interval over prompts lies within {low:.0%} to {high:.0%}; does not "
        "hold if it lies outside. Paper: 57 %.",
    )


def _prompt_share(results: Results, kind: str) -> tuple[float, float]:
    count = len(results.seeds)
    graphs = results.graphs[kind]
    prompts = len(graphs) // count
    cycles = sum(g.cycle for g in graphs) / count
    found = wilson(cycles, prompts)
    return found.low, found.high


def beats_sampling(results: Results, measure: str, words: str) -> Claim:
    """Refinement against as many independent answers of the Leader, the oracle choosing."""
    refined = results.curves[f"refinement, {LEADER}"][measure]
    alone = results.curves[f"independent, {LEADER}"][measure]
    count = min(refined.shape[-1], alone.shape[-1])
    found = spread(refined[..., count - 1] - alone[..., count - 1])
    pairs = ", ".join(
        f"N = {n}: {refined[..., n - 1].mean():.3f} against {alone[..., n - 1].mean():.3f}"
        for n in range(1, count + 1)
    )
    return Claim(
        f"The best of N answers by refinement is better than the best of N independent ones, "
        f"{words}.",
        sign(found),
        f"From the Leader, {pairs}; difference at N = {count} {said(found)}. {RULE} of that "
        "difference lies above zero; does not hold if it lies below.",
        "what its refinement is for",
    )


def rules() -> list[Callable[[Results], Claim]]:
    """Every claim, in the order of the page."""
    found: list[Callable[[Results], Claim]] = [
        partial(ahead, a=FOLLOWER, b=LEADER, paper="0.605 (its own Leader’s very answer)"),
        partial(ahead, a=LEADER, b=START, paper="0.734"),
        each_seed,
        not_worse,
        partial(ahead, a=NASH, b=RLOO, paper="0.607"),
        partial(ahead, a=RLOO, b=START, paper="its order"),
        partial(ahead, a=FOLLOWER, b=NASH, paper="0.594"),
        partial(improves, follower=FOLLOWER, leader=LEADER),
        partial(improves, follower=FOLLOWER, leader=START),
        refined_start,
        partial(monotone, who=LEADER),
        partial(monotone, who=START),
        transfers,
        only_followers,
        partial(beats_sampling, measure="win_rate", words="by win rate over the start model"),
        partial(beats_sampling, measure="personal", words="by what one voter alone wants"),
        kappa_lowers,
        partial(cyclic, kind="one answer of each policy"),
        partial(cyclic, kind="all of these"),
    ]
    return [*found, *TABULAR_RULES]


def judge(results: Results) -> list[dict[str, Any]]:
    """Every claim as ``claim, holds, evidence, source``."""
    return [asdict(rule(results)) for rule in rules()]
