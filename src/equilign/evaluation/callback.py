"""Win rate against the start model after every round of a training."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from equilign.evaluation.intervals import Estimate, clustered_mean, wilson
from equilign.evaluation.win_rate import by_attribute, head_to_head, mean_verdicts
from equilign.files import read_jsonl, write_json, write_jsonl
from equilign.games import cycle_report
from equilign.oracles import Oracle, Panel, score_groups
from equilign.rollout import (
    Completion,
    Group,
    Prompt,
    SamplingConfig,
    TransformersSampler,
    pad_token,
    prompt_text,
    score_answers,
)


def save_groups(path: Path, groups: Sequence[Group]) -> None:
    """Write answers as JSON lines."""
    write_jsonl(
        path,
        (
            {
                "prompt": g.prompt,
                "prompt_ids": list(g.prompt_ids),
                "completions": [c.text for c in g.completions],
                "completion_ids": [list(c.ids) for c in g.completions],
                "finished": [c.finished for c in g.completions],
            }
            for g in groups
        ),
    )


def load_groups(path: Path) -> list[Group]:
    """Read what `save_groups` wrote."""
    return [
        Group(
            row["prompt"],
            tuple(row["prompt_ids"]),
            tuple(
                Completion(tuple(ids), text, finished)
                for ids, text, finished in zip(
                    row["completion_ids"], row["completions"], row["finished"], strict=True
                )
            ),
        )
        for row in read_jsonl(path)
    ]


@dataclass(frozen=True)
class Evaluation:
    """What is compared, and how.

    Attributes:
        prompts: prompts that are not trained on.
        oracle: the judge.
        sampling: how answers are drawn.
        num_samples: answers per prompt and side.
        seed: of the sampling.
        folder: answers and results go here.
    """

    prompts: Sequence[Prompt]
    oracle: Oracle
    sampling: SamplingConfig
    num_samples: int
    seed: int
    folder: Path

    def answers(
        self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> list[Group]:
        """Answers of ``model`` to the prompts: from ``NAME.answers.jsonl``, or sampled into it."""
        path = self.folder / f"{name}.answers.jsonl"
        if not path.exists():
            sampler = TransformersSampler(model, tokenizer, self.sampling)
            save_groups(path, sampler.sample(self.prompts, self.num_samples, self.seed))
        return load_groups(path)

    def compare(self, policy: Sequence[Group], start: Sequence[Group]) -> dict[str, Any]:
        """Win rates of ``policy`` over ``start``, in all and by attribute, lengths and cycles."""
        overall, matrix = head_to_head(self.oracle, policy, start)
        games = score_groups(
            self.oracle,
            [prompt_text(g.prompt) for g in policy],
            [[c.text for c in g.completions] for g in policy],
        )
        # A pair without a verdict is no edge of a cycle, and beats nobody.
        cycles = cycle_report([np.nan_to_num(g, nan=0.5) for g in games])
        share = wilson(cycles.with_cycle, cycles.prompts)
        result: dict[str, Any] = {
            **_named(overall, "win_rate"),
            "mean_tokens": mean_tokens(policy),
            "cycles": {
                "prompts": cycles.prompts,
                "with_cycle": cycles.with_cycle,
                "triples": cycles.triples,
                "cyclic_triples": cycles.cyclic_triples,
                **_named(share, "share"),
                "condorcet_share": cycles.with_condorcet_winner / cycles.prompts,
            },
            "per_prompt": [None if np.isnan(v) else float(v) for v in mean_verdicts(matrix)],
        }
        if missing := float(np.isnan(matrix).mean()):
            result["no_verdict_share"] = missing
        if isinstance(self.oracle, Panel):
            named = by_attribute(self.oracle, policy, start)
            result["attributes"] = {k: _named(v, "win_rate") for k, v in named.items()}
        return result


def _named(estimate: Estimate, name: str) -> dict[str, float]:
    return {name: estimate.value, "low": estimate.low, "high": estimate.high}


def mean_tokens(groups: Sequence[Group]) -> float:
    """Mean length of the answers, end token included."""
    return float(np.mean([len(c.ids) for g in groups for c in g.completions]))


def kl_nats(
    model: PreTrainedModel,
    start_logps: Callable[[Sequence[Group]], list[float]],
    groups: Sequence[Group],
    *,
    pad_id: int,
    temperature: float,
) -> Estimate:
    """KL(policy || start) per completion in nats, from the policy's own samples.

    The mean of ``log policy - log start`` over whole completions (the estimator k1), which is
    unbiased at temperature and top-p 1.
    """
    scores = score_answers(model, groups, pad_id=pad_id, temperature=temperature)
    own = np.array(scores).reshape(-1)
    ratio = np.subtract(own, start_logps(groups)).reshape(len(groups), -1).mean(axis=1)
    return clustered_mean(ratio, bounds=(-np.inf, np.inf))


class WinRateCallback(TrainerCallback):
    """After every round: sample, compare with the start model's answers, keep the result.

    Results go to ``FOLDER/METHOD-001.json`` and the answers beside them; a resumed run reads
    what is already there. The model's random state is not touched.

    Args:
        name: prefix of the files, the method's name.
        evaluation: what to compare.
        start: the start model's answers.
        start_logps: log-probabilities of answers under the start model, nats.
        on_result: called with the round (from 1) and its result.
    """

    def __init__(
        self,
        name: str,
        evaluation: Evaluation,
        start: Sequence[Group],
        start_logps: Callable[[Sequence[Group]], list[float]],
        on_result: Callable[[int, dict[str, Any]], None] = lambda index, result: None,
    ) -> None:
        self.name = name
        self.evaluation = evaluation
        self.start = start
        self.start_logps = start_logps
        self.on_result = on_result

    def result_file(self, number: int) -> Path:
        """The result of round ``number`` (from 1)."""
        return self.evaluation.folder / f"{self.name}-{number:03d}.json"

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - signature of transformers
    ) -> None:
        """Evaluate the round that just ended, before its checkpoint is written."""
        self.evaluate_round(round(state.epoch or 0), kwargs["model"], kwargs["processing_class"])

    def evaluate_round(
        self, number: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """Evaluate the model as round ``number`` unless that is done, and tell `on_result`."""
        path = self.result_file(number)
        if not path.exists():
            policy = self.evaluation.answers(f"{self.name}-{number:03d}", model, tokenizer)
            divergence = kl_nats(
                model,
                self.start_logps,
                policy,
                pad_id=pad_token(tokenizer),
                temperature=self.evaluation.sampling.temperature,
            )
            result = {"round": number, **self.evaluation.compare(policy, self.start)}
            result["kl_nats"] = divergence.value
            result["kl_interval"] = [divergence.low, divergence.high]
            write_json(path, result)
        self.on_result(number, json.loads(path.read_text(encoding="utf-8")))


def results(callback: WinRateCallback, num_rounds: int) -> list[dict[str, Any]]:
    """All rounds' results, in order."""
    paths = [callback.result_file(n + 1) for n in range(num_rounds)]
    return [json.loads(p.read_text(encoding="utf-8")) for p in paths if p.exists()]


__all__ = ["Evaluation", "WinRateCallback", "kl_nats", "mean_tokens", "results"]
