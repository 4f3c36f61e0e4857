"""All policies of one seed against each other, by the training oracle and by the held-out one."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from equilign.evaluation.win_rate import by_attribute
from equilign.experiments.sppo.contestants import CONTESTANTS
from equilign.experiments.sppo.held_out import held_out_panel
from equilign.experiments.sppo.pieces import DRAWN_AGAIN, START, Setting, first, player
from equilign.files import write_json
from equilign.oracles import Oracle, Panel, score_groups
from equilign.rollout import Group, prompt_text
from equilign.runs import peak_memory_mb
from equilign.tasks.restaurant_panel import restaurant_panel

TRAINING, HELD_OUT = "training", "held-out"
ORACLES: Mapping[str, Callable[[], Panel]] = {
    TRAINING: restaurant_panel,
    HELD_OUT: held_out_panel,
}

Tell = Callable[[int, int], None]


def policies(rounds: int) -> list[str]:
    """The start model, and every method after every iteration."""
    return [START] + [player(c.method, n) for c in CONTESTANTS for n in range(1, rounds + 1)]


def pickers(rounds: int) -> list[str]:
    """Those whose best answer of several is looked at: the start model and the last iterations."""
    return [START] + [player(c.method, rounds) for c in CONTESTANTS]


def best_name(policy: str) -> str:
    """Name of a policy that answers with the best of several."""
    return f"{policy}-best"


def judge_seed(setting: Setting, seed: int, *, tell: Tell) -> None:
    """Let all policies of a seed play each other and keep the numbers, unless that is done."""
    path = setting.piece_file("judged", seed)
    if path.exists():
        return
    scale = setting.scale
    answers = {
        p: setting.load_answers(p, seed, scale.best_of if p == START else scale.samples)
        for p in policies(scale.rounds)
    }
    training = restaurant_panel()
    for name in pickers(scale.rounds):
        source = DRAWN_AGAIN if name == START else name
        many = setting.load_answers(source, seed, scale.best_of)
        answers[best_name(name)] = best_of(training, many)
    found: dict[str, Any] = {
        "players": list(answers),
        "tokens": {p: per_prompt_tokens(groups).tolist() for p, groups in answers.items()},
        "oracles": {},
    }
    for number, (name, make) in enumerate(ORACLES.items()):
        panel = make()
        shares, controlled = round_robin(panel, answers)
        last = [player(c.method, scale.rounds) for c in CONTESTANTS]
        found["oracles"][name] = {
            "wins": shares.round(6).tolist(),
            "controlled": {p: values.round(6).tolist() for p, values in controlled.items()},
            "attributes": {p: _attributes(panel, answers[p], answers[START]) for p in last},
        }
        tell(number + 1, len(ORACLES))
    write_json(path, {**found, "peak_memory_mb": peak_memory_mb()})


def best_of(oracle: Oracle, groups: Sequence[Group]) -> list[Group]:
    """Each group's answer with the highest mean win rate within the group; the first of equals."""
    prompts = [prompt_text(g.prompt) for g in groups]
    games = score_groups(oracle, prompts, [[c.text for c in g.completions] for g in groups])
    kept = []
    for group, game in zip(groups, games, strict=True):
        best = int(game.mean(axis=1).argmax())
        kept.append(Group(group.prompt, group.prompt_ids, (group.completions[best],)))
    return kept


def round_robin(
    oracle: Oracle, answers: Mapping[str, Sequence[Group]]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Everyone against everyone on every prompt.

    Args:
        oracle: who judges.
        answers: player -> its answers to the same prompts; `START` among them.

    Returns:
        Win rates ``(prompts, players, players)`` (row beats column, ties one half), and for each
        player its length-controlled win rates over the start model, see `length_controlled`.
    """
    names = list(answers)
    prompts = [g.prompt for g in answers[START]]
    texts = [
        [c.text for n in names for c in answers[n][i].completions] for i in range(len(prompts))
    ]
    games = score_groups(oracle, [prompt_text(p) for p in prompts], texts)
    sizes = [len(answers[n][0].completions) for n in names]
    spans = [slice(a, b) for a, b in pairwise(np.cumsum([0, *sizes]).tolist())]
    shares = np.array([[[game[a, b].mean() for b in spans] for a in spans] for game in games])
    controlled = {}
    home = spans[names.index(START)]
    for name, span in zip(names, spans, strict=True):
        if name != START:
            verdicts = np.stack([game[span, home] for game in games])
            lengths = [_lengths(answers[n]) for n in (name, START)]
            extra = lengths[0][:, :, None] - lengths[1][:, None, :]
            controlled[name] = length_controlled(verdicts, extra)
    return shares, controlled


def length_controlled(verdicts: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Win rates per prompt with the part that goes with length taken out, shape ``(prompts,)``.

    A line is fitted to all verdicts by least squares, with ``tanh(extra / sd(extra))`` as in
    length-controlled AlpacaEval (Dubois et al. 2024, arXiv:2404.04475); what is left when its
    slope is taken out has the line's height at equal length as its mean.

    Args:
        verdicts: ``(prompts, answers, answers of the start model)``.
        extra: tokens that the first answer is longer by, of the same shape.
    """
    spread = float(extra.std())
    if spread == 0.0:
        return np.asarray(verdicts.mean(axis=(1, 2)))
    x = np.tanh(extra / spread)
    centred = x - x.mean()
    variance = float((centred**2).sum())
    slope = float((centred * verdicts).sum()) / variance if variance > 0.0 else 0.0
    return np.asarray((verdicts - slope * x).mean(axis=(1, 2)))


def _lengths(groups: Sequence[Group]) -> np.ndarray:
    return np.array([[len(c.ids) for c in g.completions] for g in groups], dtype=float)


def per_prompt_tokens(groups: Sequence[Group]) -> np.ndarray:
    """Mean length of the answers to each prompt, in tokens, end token included."""
    return np.asarray(_lengths(groups).mean(axis=1))


def _attributes(panel: Panel, policy: Sequence[Group], start: Sequence[Group]) -> dict[str, float]:
    policy, start = ([first(g, 2) for g in side] for side in (policy, start))
    return {name: e.value for name, e in by_attribute(panel, policy, start).items()}
