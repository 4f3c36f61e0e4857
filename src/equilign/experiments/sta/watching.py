"""What is seen of a training: held-out answers on the way, time per round, learning curves."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from equilign.evaluation.callback import mean_tokens
from equilign.experiments.held_out import KL_PROMPTS, HeldOut, Tell, kl_to_start
from equilign.experiments.sta.contestants import Contestant
from equilign.experiments.sta.scales import Scale
from equilign.experiments.sta.tasks import utilities
from equilign.files import read_jsonl, write_json
from equilign.rollout import prompt_text
from equilign.tasks.utilities import UtilityOracle

_LEARNT = ("reward_loss", "reward_accuracy", "learned_reward", "response_rms", "damping")
START = "start"
"""The start model, as a player."""


class Watcher(TrainerCallback):
    """Samples answers to the held-out prompts at equal distances, and times what lies between.

    Args:
        setting: where answers go, and how many.
        name: of the piece.
        contestant: who is watched.
        seed: of the piece.
        tell: called with finished rounds.
        rounds: where they are not the scale's: then nothing is sampled.
    """

    def __init__(
        self,
        setting: HeldOut[Scale],
        name: str,
        contestant: Contestant,
        seed: int,
        tell: Tell,
        rounds: int | None = None,
    ) -> None:
        self.setting, self.name, self.seed, self.tell = setting, name, seed, tell
        scale = setting.scale
        self.each = contestant.batches_per_round(scale)
        self.rounds = rounds or scale.rounds // self.each
        last = 0 if rounds else scale.rounds
        self.points = range(scale.between, last + 1, scale.between)
        self._mark = (0.0, 0.0)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - signature of transformers
    ) -> None:
        """Start the clock."""
        self._start_clock()

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - signature of transformers
    ) -> None:
        """Note the round's time; sample, unless that is done or not yet due."""
        number = round(state.epoch or 0)
        self._note(str(number))
        batches = number * self.each
        if batches in self.points:
            self._evaluate(batches, kwargs["model"], kwargs["processing_class"])
        self.tell(number, self.rounds)
        self._start_clock()

    def finish(self) -> None:
        """After the training: what it did after its last round counts as well."""
        self._note("end")

    def _start_clock(self) -> None:
        self._mark = (time.perf_counter(), time.process_time())

    def _note(self, what: str) -> None:
        now = (time.perf_counter(), time.process_time())
        times = self._times()
        times[what] = [now[i] - self._mark[i] for i in (0, 1)]
        write_json(self._file("times"), times)

    def _times(self) -> dict[str, list[float]]:
        path = self._file("times")
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def _file(self, kind: str) -> Path:
        return (
            self.setting.folder / "pieces" / "parts" / f"{self.name}-seed-{self.seed}.{kind}.json"
        )

    def _player(self, batches: int) -> str:
        return f"{self.name}-{batches:04d}"

    def _evaluate(self, batches: int, model: Any, tokenizer: Any) -> None:  # noqa: ANN401
        setting, who = self.setting, self._player(batches)
        setting.sample_answers(who, self.seed, model, tokenizer, setting.scale.samples)
        path = self._file(f"kl-{batches:04d}")
        if not path.exists():
            groups = setting.load_answers(who, self.seed, 1)[:KL_PROMPTS]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, kl_to_start(setting.sampler(model, tokenizer), groups))

    def evaluations(self, oracle: UtilityOracle) -> list[dict[str, Any]]:
        """The start model and every evaluated policy on the held-out prompts.

        ``examples`` (prompts seen), ``kl_nats`` per answer, ``reward`` per prompt, ``tokens``.
        """
        found = []
        for batches in (0, *self.points):
            who = self._player(batches) if batches else START
            groups = self.setting.load_answers(who, self.seed)
            path = self._file(f"kl-{batches:04d}")
            kl = json.loads(path.read_text(encoding="utf-8")) if batches else 0.0
            rewards = [float(worth.mean()) for worth in utilities(oracle, groups)]
            found.append(
                {
                    "examples": batches * self.setting.scale.batch,
                    "kl_nats": kl,
                    "reward": rewards,
                    "tokens": mean_tokens(groups),
                }
            )
        return found

    def samples(self, count: int) -> list[dict[str, str]]:
        """The last policy's continuations of the first prompts."""
        groups = self.setting.load_answers(self._player(self.points[-1]), self.seed, 1)[:count]
        return [
            {"prompt": prompt_text(g.prompt), "continuation": g.completions[0].text} for g in groups
        ]

    def cost(self) -> dict[str, Any]:
        """``seconds`` and ``cpu_seconds`` without evaluations, and ``cpu_per_round``."""
        times = self._times()
        wall, cpu = (float(sum(pair[i] for pair in times.values())) for i in (0, 1))
        each = [pair[1] for name, pair in times.items() if name != "end"]
        return {"rounds": len(each), "seconds": wall, "cpu_seconds": cpu, "cpu_per_round": each}


def played(
    folder: Path, contestant: Contestant, scale: Scale, oracle: UtilityOracle
) -> dict[str, list[float]]:
    """Ground-truth reward of what was sampled to learn from: ``examples`` and ``reward``."""
    examples, rewards = [], []
    if contestant.on_policy:
        files = sorted((folder / "rounds").glob(f"{contestant.method}-*.jsonl"))
        for number in range(1, scale.rounds // contestant.batches_per_round(scale) + 1):
            path = folder / "rounds" / f"{contestant.method}-{number:03d}.jsonl"
            if path not in files:
                break
            rows = read_jsonl(path)
            prompts = [prompt_text(r["prompt"]) for r in rows for _ in r["completions"]]
            texts = [text for r in rows for text in r["completions"]]
            rewards.append(float(oracle.score(prompts, texts).mean()))
            examples.append(float(number * contestant.batches_per_round(scale) * scale.batch))
    return {"examples": examples, "reward": rewards}


def learning(folder: Path, contestant: Contestant) -> dict[str, list[float]]:
    """What the reward model said after its steps, in order of the rounds; ``round`` counts them."""
    rows: Sequence[dict[str, Any]] = [
        m for m in read_jsonl(folder / "metrics.jsonl") if m["kind"] == "reward"
    ]
    rows = [m for m in rows if "reward_loss" in m]
    names = [n for n in _LEARNT if rows and all(n in m for m in rows)]
    found = {name: np.round([m[name] for m in rows], 6).tolist() for name in names}
    return {"round": [m["round"] for m in rows], **found} if contestant.game else {}
