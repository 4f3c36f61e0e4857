"""Everything that is measured on one seed, from the answers in its files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from equilign.evaluation.callback import load_groups
from equilign.evaluation.corrections import correction_matrix, reply
from equilign.evaluation.curves import chain_curve, independent_curve
from equilign.evaluation.graphs import pooled, prompt_graphs
from equilign.evaluation.round_robin import first, per_prompt_tokens, round_robin
from equilign.evaluation.win_rate import by_attribute
from equilign.experiments.held_out import Tell, quiet
from equilign.experiments.slhf.contestants import BASELINES, main_slhf, shared
from equilign.experiments.slhf.measures import rewards, scores, wins_over
from equilign.experiments.slhf.pieces import OPPONENTS, START, Setting
from equilign.experiments.slhf.playing import (
    FOLLOWER,
    LEADER,
    LEADERS,
    LONG,
    OTHER,
    OTHERS,
    chain_name,
    led_answers,
    reply_name,
)
from equilign.experiments.sppo.held_out import held_out_panel
from equilign.files import write_json
from equilign.oracles import Panel
from equilign.rollout import Group
from equilign.runs import peak_memory_mb
from equilign.tasks.restaurant_panel import restaurant_panel
from equilign.trainers.rounds import derive_seed

REFINED_START = "start, refined"
TRAINING, HELD_OUT = "training", "held-out"
PLAYERS = (START, *(c.name for c in BASELINES), LEADER, FOLLOWER, REFINED_START)
"""Of the round robin. Replies are to answers that do not play themselves."""

Answers = Mapping[str, Sequence[Group]]


def judge_seed(setting: Setting, seed: int, *, tell: Tell) -> None:
    """Measure everything on one seed, unless that is done."""
    path = setting.piece_file("judged", seed)
    if path.exists():
        return
    panel, answers = restaurant_panel(), players(setting, seed)
    found: dict[str, Any] = {
        "players": list(answers),
        "tokens": {p: per_prompt_tokens(groups).tolist() for p, groups in answers.items()},
        "oracles": {},
    }
    for name, judge in ((TRAINING, panel), (HELD_OUT, held_out_panel())):
        found["oracles"][name] = _robin(judge, answers)
        tell(len(found["oracles"]), 5)
    found["graphs"] = _graphs(setting, panel, answers, seed)
    tell(3, 5)
    found["corrections"] = _corrections(setting, panel, seed)
    tell(4, 5)
    found["curves"] = curves(setting, panel, seed)
    tell(5, 5)
    write_json(path, {**found, "peak_memory_mb": peak_memory_mb()})


def players(setting: Setting, seed: int) -> dict[str, list[Group]]:
    """The answers of everyone in the round robin."""
    count = setting.scale.samples
    found = {START: setting.load_answers(START, seed, count)}
    found |= {c.name: setting.load_answers(c.name, seed, count) for c in BASELINES}
    found[LEADER] = setting.load_answers(main_slhf().name, seed, count)
    for player, leader in ((FOLLOWER, LEADER), (REFINED_START, START)):
        found[player] = _chain(setting, leader, 1, seed)
    return found


def _chain(setting: Setting, leader: str, number: int, seed: int) -> list[Group]:
    return load_groups(setting.answers_file(chain_name(leader, number), seed))


def _robin(panel: Panel, answers: Answers) -> dict[str, Any]:
    wins, controlled = round_robin(panel, answers, START)
    few = {p: [first(g, 2) for g in groups] for p, groups in answers.items()}
    return {
        "wins": wins.round(6).tolist(),
        "controlled": {p: values.round(6).tolist() for p, values in controlled.items()},
        "attributes": {
            p: {k: e.value for k, e in by_attribute(panel, few[p], few[START]).items()}
            for p in answers
            if p != START
        },
    }


def _graphs(setting: Setting, panel: Panel, answers: Answers, seed: int) -> dict[str, Any]:
    """Preference graphs: one answer of each policy, and all answers of one policy."""
    policies = {p: groups for p, groups in answers.items() if p != REFINED_START}
    kinds = {
        "one answer of each policy": pooled(policies),
        "answers of the start model": setting.load_answers(START, seed),
        "answers of the Leader": setting.load_answers(main_slhf().name, seed),
        "all of these": pooled({**policies, REFINED_START: answers[REFINED_START]}, 99),
    }
    return {kind: [asdict(g) for g in prompt_graphs(panel, gs)] for kind, gs in kinds.items()}


def _corrections(setting: Setting, panel: Panel, seed: int) -> dict[str, dict[str, list[float]]]:
    own = {FOLLOWER: {leader: _chain(setting, leader, 1, seed) for leader in LEADERS}}
    found = correction_matrix(panel, own, _led(setting, seed, None))
    others = {
        who: {
            leader: load_groups(setting.answers_file(reply_name(who, leader), seed))
            for leader in LEADERS
        }
        for who in (OTHER, *OTHERS)
    }
    found |= correction_matrix(panel, others, _led(setting, seed, 1))
    return {f: {k: v.round(6).tolist() for k, v in row.items()} for f, row in found.items()}


def _led(setting: Setting, seed: int, count: int | None) -> dict[str, list[Group]]:
    return {leader: led_answers(setting, leader, seed, count) for leader in LEADERS}


def curves(setting: Setting, panel: Panel, seed: int) -> dict[str, Any]:
    """Win rate and reward against the number of answers, per prompt.

    Half of the start model's further answers choose, the other half are played: the oracle's
    choice is not judged by the comparisons that made it. A *person* is one voter of the panel, who
    chooses for themselves: mean over persons.

    Returns:
        Name of the curve -> measure -> ``(prompts, N)``: ``win_rate, reward, personal``; for
        chains also ``last_win_rate`` and ``last_reward``, of the answer that stands.
    """
    count = setting.scale.samples
    opponents = scores(panel, setting.load_answers(OPPONENTS, seed))
    choosers, rivals = opponents[..., :count], opponents[..., count:]
    found: dict[str, Any] = {}
    sources = {START: START, LEADER: main_slhf().name, **{c.name: c.name for c in BASELINES}}
    for who, policy in sources.items():
        mine = scores(panel, setting.load_answers(policy, seed))
        sizes = range(1, setting.scale.pool + 1)
        value = wins_over(mine, choosers).mean(axis=0)
        worth = {
            "win_rate": wins_over(mine, rivals).mean(axis=0),
            "reward": rewards(mine, opponents),
        }
        own = wins_over(mine, opponents)
        persons = [independent_curve(own[v], mine[v], sizes) for v in range(len(mine))]
        found[f"independent, {who}"] = _lists(
            {k: independent_curve(w, value, sizes) for k, w in worth.items()}
            | {"personal": np.mean(persons, axis=0)}
        )
    for who in LONG:
        found[f"refinement, {who}"] = _lists(
            _chain_curves(setting, panel, who, seed, choosers, rivals, opponents)
        )
    return found


def _chain_curves(
    setting: Setting,
    panel: Panel,
    who: str,
    seed: int,
    choosers: np.ndarray,
    rivals: np.ndarray,
    opponents: np.ndarray,
) -> dict[str, np.ndarray]:
    steps = [led_answers(setting, who, seed)]
    steps += [_chain(setting, who, n, seed) for n in range(1, setting.scale.steps + 1)]
    # (voters, prompts, chains, N)
    mine = np.stack([scores(panel, groups) for groups in steps], axis=-1)
    voters, prompts, chains, length = mine.shape
    flat = mine.reshape(voters, prompts, chains * length)
    shape = (prompts, chains, length)
    value = wins_over(flat, choosers).mean(axis=0).reshape(shape)
    win = wins_over(flat, rivals).mean(axis=0).reshape(shape)
    reward = rewards(flat, opponents).reshape(shape)
    own = wins_over(flat, opponents).reshape(mine.shape)
    persons = [chain_curve(own[v], mine[v]) for v in range(voters)]
    return {
        "win_rate": chain_curve(win, value),
        "reward": chain_curve(reward, value),
        "personal": np.mean(persons, axis=0),
        "last_win_rate": win.mean(axis=1),
        "last_reward": reward.mean(axis=1),
    }


def _lists(measures: Mapping[str, np.ndarray]) -> dict[str, list[list[float]]]:
    return {name: values.round(6).tolist() for name, values in measures.items()}


def judge_kappa(setting: Setting, kappa: float, seed: int, *, tell: Tell) -> None:
    """Leader and Follower of one kappa against the start model and each other."""
    who = shared(kappa)
    path = setting.piece_file(f"judged-{who.name}", seed)
    if path.exists():
        return
    quiet()
    panel = restaurant_panel()
    led = setting.shown(who.name, seed)
    replies = reply(setting.refiner(who.name, seed), led, derive_seed(seed, "kappa", who.name))
    answers = {
        START: setting.load_answers(START, seed, setting.scale.samples),
        LEADER: setting.load_answers(who.name, seed, setting.scale.samples),
        FOLLOWER: replies,
    }
    wins, _ = round_robin(panel, answers, START)
    write_json(path, {"players": list(answers), "wins": wins.round(6).tolist()})
    tell(1, 1)
