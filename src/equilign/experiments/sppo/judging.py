"""All policies of one seed against each other, by the training oracle and by the held-out one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from equilign.evaluation.round_robin import best_of, first, per_prompt_tokens, round_robin
from equilign.evaluation.win_rate import by_attribute
from equilign.experiments.sppo.contestants import CONTESTANTS
from equilign.experiments.sppo.held_out import held_out_panel
from equilign.experiments.sppo.pieces import DRAWN_AGAIN, START, Setting, player
from equilign.files import write_json
from equilign.oracles import Panel
from equilign.rollout import Group
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
        shares, controlled = round_robin(panel, answers, START)
        last = [player(c.method, scale.rounds) for c in CONTESTANTS]
        found["oracles"][name] = {
            "wins": shares.round(6).tolist(),
            "controlled": {p: values.round(6).tolist() for p, values in controlled.items()},
            "attributes": {p: _attributes(panel, answers[p], answers[START]) for p in last},
        }
        tell(number + 1, len(ORACLES))
    write_json(path, {**found, "peak_memory_mb": peak_memory_mb()})


def _attributes(panel: Panel, policy: Sequence[Group], start: Sequence[Group]) -> dict[str, float]:
    policy, start = ([first(g, 2) for g in side] for side in (policy, start))
    return {name: e.value for name, e in by_attribute(panel, policy, start).items()}
