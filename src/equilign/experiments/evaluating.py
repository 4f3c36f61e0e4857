"""Comparing what is trained with the start model, round by round, in one process or several."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from equilign.evaluation.callback import Evaluation, WinRateCallback, load_groups
from equilign.files import write_json
from equilign.oracles import Oracle
from equilign.rollout import Group
from equilign.trainers.team import Team

StartLogps = Callable[[Sequence[Group]], list[float]]
"""Log-probabilities of answers under the start model, nats."""

Labels = Callable[[int], int | None]
"""Number under which a round (from 1) is evaluated; None: it is not."""


def every(count: int, last: int) -> Labels:
    """Every ``count``-th round and the last one, under their own numbers."""
    return lambda number: number if number % count == 0 or number == last else None


def steps_of(count: int) -> Labels:
    """Each ``count`` rounds are one step of a method; steps are counted from 1."""
    return lambda number: None if number % count else number // count


@dataclass(frozen=True)
class Contest:
    """What the methods of a run are compared on.

    Attributes:
        evaluation: held-out prompts and how answers are drawn and judged.
        start: the start model's answers; empty in processes that do not judge.
        held_out: a second judge that nothing is trained against.
    """

    evaluation: Evaluation
    start: Sequence[Group]
    held_out: Oracle | None = None

    def answers_file(self, name: str, number: int) -> Path:
        """Where the answers of method ``name`` after round ``number`` are."""
        return self.evaluation.folder / f"{name}-{number:03d}.answers.jsonl"

    def result_file(self, name: str, number: int) -> Path:
        """Where the result of method ``name`` after round ``number`` is."""
        return self.evaluation.folder / f"{name}-{number:03d}.json"

    def second_opinion(self, name: str, number: int) -> dict[str, float] | None:
        """The second judge's win rate for a round: from its file, or asked now; None: no judge."""
        if self.held_out is None:
            return None
        path = self.evaluation.folder / f"{name}-{number:03d}.held-out.json"
        if not path.exists():
            judged = replace(self.evaluation, oracle=self.held_out)
            policy = load_groups(self.answers_file(name, number))
            result = judged.compare(policy, self.start)
            write_json(path, {k: result[k] for k in ("win_rate", "low", "high")})
        found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def results(self, name: str, labels: Sequence[int]) -> list[dict[str, Any]]:
        """Results of the rounds ``labels`` that were evaluated, in order."""
        found = []
        for number in labels:
            path = self.result_file(name, number)
            if path.exists():
                row = json.loads(path.read_text(encoding="utf-8"))
                second = self.second_opinion(name, number)
                found.append(row if second is None else {**row, "held_out": second})
        return found


class RoundEvaluation(WinRateCallback):
    """`WinRateCallback` for some rounds only, by the main process of several.

    Args:
        name: the method.
        contest: what is compared on.
        start_logps: of the start model.
        labels: which rounds are evaluated, and as what.
        team: the processes; all wait until the main one has judged.
        on_result: called with a label and its result.
    """

    def __init__(
        self,
        name: str,
        contest: Contest,
        start_logps: StartLogps,
        labels: Labels,
        team: Team,
        on_result: Callable[[int, dict[str, Any]], None] = lambda index, result: None,
    ) -> None:
        super().__init__(name, contest.evaluation, contest.start, start_logps, on_result)
        self.contest = contest
        self.labels = labels
        self.team = team

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - signature of transformers
    ) -> None:
        """Evaluate the round that just ended, if it has a label."""
        number = self.labels(round(state.epoch or 0))
        if number is None:
            return

        def judge() -> None:
            if self.team.is_main:
                self.evaluate_round(number, kwargs["model"], kwargs["processing_class"])
                self.contest.second_opinion(self.name, number)

        self.team.together(judge)
