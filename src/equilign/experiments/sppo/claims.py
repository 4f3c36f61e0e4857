"""The paper's findings, each judged from measured numbers by the rule in its function.

Differences are paired: the same seed, the same prompt. ``holds`` is None where the interval over
seeds and prompts contains zero. The paper's own measure is a judge that nothing was trained
against (AlpacaEval 2.0, length-controlled); the held-out oracle stands for it here.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from equilign.evaluation.spread import spread
from equilign.experiments.sppo.contestants import CONTESTANTS, contestant
from equilign.experiments.sppo.judging import HELD_OUT, TRAINING, best_name
from equilign.experiments.sppo.pieces import START, player
from equilign.experiments.sppo.results import Results
from equilign.experiments.verdicts import Claim, all_of, said, sign

RULE = (
    "Rule: 95 % intervals of the paired differences, over seeds and prompts; above zero holds, "
    "below zero does not, else undecided"
)
_BY = {TRAINING: "by the training oracle", HELD_OUT: "by the held-out oracle"}
MAIN = "sppo"


def _path(results: Results, oracle: str, method: str) -> list[np.ndarray]:
    """Win rates over the start model: the start itself, then after every iteration."""
    names = [START, *(player(method, n) for n in results.rounds)]
    return [results.over(oracle, name) for name in names]


def _path_said(results: Results, oracle: str, method: str) -> str:
    rates = [said(spread(x)) for x in _path(results, oracle, method)[1:]]
    return f"{contestant(method).title}: {', '.join(rates)}"


def monotone(results: Results, oracle: str) -> Claim:
    """Every iteration of SPPO is better than the one before."""
    path = _path(results, oracle, MAIN)
    steps = [spread(after - before) for before, after in pairwise(path)]
    gains = ", ".join(f"{s.value:+.3f} ({s.both[0]:+.3f} to {s.both[1]:+.3f})" for s in steps)
    return Claim(
        f"SPPO improves with every iteration, {_BY[oracle]}.",
        all_of(sign(s) for s in steps),
        f"Win rate over the start model after each iteration, {_path_said(results, oracle, MAIN)}; "
        f"gains {gains}. {RULE}; every step must gain. Paper: 17.1, then 24.8, 26.9, 28.5 % "
        "(length-controlled AlpacaEval 2.0).",
    )


def ahead_of(results: Results, oracle: str, rival: str) -> Claim:
    """SPPO's last policy against a baseline's last, as the paper compares: against a third."""
    mine, other = results.last(MAIN), results.last(rival)
    raw = spread(results.over(oracle, mine) - results.over(oracle, other))
    controlled = spread(results.controlled(oracle, mine) - results.controlled(oracle, other))
    length = spread(results.tokens[mine] - results.tokens[other])
    title = contestant(rival).named
    counted = controlled if oracle == HELD_OUT else raw
    how = "length-controlled win rate" if oracle == HELD_OUT else "win rate"
    paper = {"iterated-dpo": "28.5 against 22.3", "iterated-ipo": "28.5 against 20.1"}[rival]
    return Claim(
        f"After the last iteration SPPO is ahead of {title}, {_BY[oracle]}"
        f"{' at equal length' if oracle == HELD_OUT else ''}.",
        sign(counted),
        f"Difference of the win rates over the start model: {said(raw)}; length-controlled "
        f"{said(controlled)}. Head to head SPPO wins "
        f"{said(results.win_rate(oracle, mine, other))}. Its answers are longer by "
        f"{said(length, 1)} tokens. {RULE}; the {how} counts. Paper: {paper} % "
        "(length-controlled AlpacaEval 2.0).",
    )


def ipo_beats_sppo(results: Results) -> Claim:
    """The paper's own table by its training oracle, PairRM."""
    mine, other = results.last("iterated-ipo"), results.last(MAIN)
    found = spread(results.over(TRAINING, mine, other) - 0.5)
    return Claim(
        "By the oracle that all were trained with, iterated IPO’s last policy beats SPPO’s head to "
        "head.",
        sign(found),
        f"Iterated IPO wins {said(results.win_rate(TRAINING, mine, other))}. Rule: the 95 % "
        "interval over seeds and prompts lies above one half; does not hold if it lies below. "
        "Paper: 0.552, by PairRM.",
    )


def falls(results: Results, oracle: str, method: str) -> Claim:
    """A baseline's last iteration is worse than its best one before."""
    path = _path(results, oracle, method)[1:]
    earlier = path[:-1]
    best = max(earlier, key=lambda x: float(x.mean()))
    changes = [spread(path[-1] - x) for x in earlier]
    drop = spread(path[-1] - best)
    fell = sign(drop, -1.0)
    holds = fell if fell is not False else (False if all(sign(c) for c in changes) else None)
    paper = {
        "iterated-dpo": "23.8, 24.2, 22.3",
        "iterated-ipo": "23.8, 21.1, 20.1",
    }[method]
    return Claim(
        f"{contestant(method).title} gets worse again: its last iteration is below its best, "
        f"{_BY[oracle]}.",
        holds,
        f"Win rate over the start model after each iteration, {_path_said(results, oracle, method)}"
        f"; last less the best before {said(drop)}. {RULE} (here: below zero holds; above every "
        f"earlier iteration does not). Paper: {paper} % (length-controlled AlpacaEval 2.0).",
    )


def longer(results: Results) -> Claim:
    """SPPO's answers grow."""
    names = [START, *(player(MAIN, n) for n in results.rounds)]
    grown = spread(results.tokens[names[-1]] - results.tokens[START])
    lengths = ", ".join(said(spread(results.tokens[n]), 1) for n in names)
    others = ", ".join(
        f"{c.named} {said(spread(results.tokens[results.last(c.method)]), 1)}"
        for c in CONTESTANTS
        if c.method != MAIN
    )
    return Claim(
        "SPPO’s answers grow longer over the iterations.",
        sign(grown),
        f"Tokens per answer, start model and after each iteration: {lengths}; growth "
        f"{said(grown, 1)}. After the last iteration {others}. {RULE}; last against start. One of "
        "the five votes of the training oracle here is for fewer words; PairRM has no such part.",
    )


def best_of_gains(results: Results) -> Claim:
    """Taking the best of several answers by the training oracle helps the last policy."""
    name, verdicts, words = results.last(MAIN), [], []
    for oracle in (HELD_OUT, TRAINING):
        single, best = (results.over(oracle, n) for n in (name, best_name(name)))
        gain = spread(best - single)
        verdicts.append(sign(gain))
        start = results.win_rate(oracle, best_name(START))
        words.append(
            f"{_BY[oracle]} {said(spread(best))} against {said(spread(single))}, gain "
            f"{said(gain)}; the start model’s best {said(start)}"
        )
    return Claim(
        f"The best of {results.scale.best_of} answers of SPPO’s last policy, chosen by the "
        "training oracle, is better than one answer, by the held-out oracle.",
        verdicts[0],
        f"Win rate over one answer of the start model: {'; '.join(words)}. {RULE}; the held-out "
        "oracle counts. Paper: 32.1 against 28.5 % with the best of 16 (length-controlled "
        "AlpacaEval 2.0).",
    )


def transfers(results: Results) -> Claim:
    """What is gained by the training oracle is gained by the held-out one too."""
    verdicts, words = [], []
    for c in CONTESTANTS:
        name = results.last(c.method)
        gains = [spread(results.over(o, name) - 0.5) for o in (TRAINING, HELD_OUT)]
        verdicts.append(sign(gains[1]))
        share = gains[1].value / gains[0].value if gains[0].value > 0.0 else float("nan")
        kept = f", {share:.0%} of it" if np.isfinite(share) else ""
        words.append(f"{c.named} {said(gains[0])} and {said(gains[1])}{kept}")
    return Claim(
        "The gain over the start model by the training oracle shows by the held-out oracle too, "
        "for every method.",
        all_of(verdicts),
        f"Win rate over the start model less one half, training and held-out oracle: "
        f"{'; '.join(words)}. {RULE}; by the held-out oracle, every method.",
        "implied by its comparisons",
    )


def rules() -> list[Callable[[Results], Claim]]:
    """Every claim, in the order of the page."""
    rivals = [c.method for c in CONTESTANTS if c.method != MAIN]
    found: list[Callable[[Results], Claim]] = []
    oracles = (TRAINING, HELD_OUT)
    found += [partial(monotone, oracle=o) for o in oracles]
    found += [partial(ahead_of, oracle=o, rival=m) for m in rivals for o in oracles]
    found.append(ipo_beats_sppo)
    found += [partial(falls, oracle=o, method=m) for m in rivals for o in oracles]
    return [*found, longer, best_of_gains, transfers]


def judge(results: Results) -> list[dict[str, Any]]:
    """Every claim as ``claim, holds, evidence, source``."""
    return [asdict(rule(results)) for rule in rules()]
