"""`equilign train`: one method, any model, data and judge, and how it compares with its start."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Trainer
from transformers.utils import logging as transformers_logging

from equilign.errors import ConfigError, EquilignError
from equilign.evaluation.callback import Evaluation, mean_tokens
from equilign.experiments.evaluating import Contest, RoundEvaluation, every
from equilign.experiments.judges import oracle_name
from equilign.experiments.model_card import Card, write_card
from equilign.experiments.resolved import resolved_args
from equilign.experiments.run_files import TrainDirectory
from equilign.experiments.summary import Facts, method_summary, write_summary
from equilign.experiments.train_config import TrainConfig
from equilign.experiments.train_job import Job, lora_config, prepare
from equilign.experiments.training import train_once
from equilign.files import explain_disk_full
from equilign.rollout import Group, pad_token, score_answers
from equilign.runs import environment, peak_memory_mb
from equilign.trainers.game_trainer import Progress
from equilign.trainers.setup import sampling_config


def run_train(
    config: TrainConfig,
    folder: Path,
    *,
    resume: bool = False,
    download: bool = False,
    progress: Progress,
) -> dict[str, Any] | None:
    """Run or resume a training in ``folder``.

    Args:
        config: the configuration.
        folder: the run directory.
        resume: go on with the run that is there.
        download: whether models named on a hub may be fetched.
        progress: called while it works.

    Returns:
        The summary, which is also written; None in all processes but the main one.

    Raises:
        EquilignError: something that the user can put right.
    """
    began = time.perf_counter()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    job = prepare(config, folder, download=download, progress=progress)

    def claim() -> None:
        if job.team.is_main:
            TrainDirectory(folder).open(resolved(job), resume=resume)

    job.team.together(claim)
    with explain_disk_full(folder):
        contest = _contest(job)
        seconds = _train(job, contest)
        if not job.team.is_main:
            return None
        measured = {"seconds": time.perf_counter() - began, "peak_memory_mb": peak_memory_mb()}
        return write_summary(
            folder, _facts(job, contest), {config.method: _result(job, contest, seconds)}, measured
        )


def resolved(job: Job) -> dict[str, Any]:
    """The settings with every option of the method, as config.yaml holds them."""
    return {**job.config.settings(), "args": resolved_args(job.config)}


def _contest(job: Job) -> Contest | None:
    """The start model's answers to the held-out prompts; None where nobody compares."""
    if job.judge is None:
        return None
    evaluation = Evaluation(
        job.data.held_out,
        job.judge,
        sampling_config(job.args),
        job.config.evaluation.num_samples,
        job.args.seed,
        job.folder / "evaluation",
    )
    start: list[Group] = []

    def answer() -> None:
        if job.team.is_main:
            job.progress("start model answers", 0, 0, 1)
            path = evaluation.folder / "start.answers.jsonl"
            model = None if path.exists() else job.start_model()
            start.extend(evaluation.answers("start", model, job.tokenizer))  # type: ignore[arg-type]
            job.progress("start model answers", 0, 1, 1)

    job.team.together(answer)
    return Contest(evaluation, start, job.held_out)


class StartLogps:
    """Log-probabilities under the start model: the policy without its adapter, or a second copy.

    Args:
        job: the training.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._trainer: Any = None
        self._model: PreTrainedModel | None = None

    def watch(self, trainer: Any) -> None:  # noqa: ANN401 - the trainer of any method
        """Tell whose adapter can be switched off."""
        self._trainer = trainer

    def __call__(self, groups: Sequence[Group]) -> list[float]:
        """Of every answer, nats, in order."""
        job = self._job
        if job.config.peft is not None:
            with self._trainer.policy.disable_adapter():
                return self._score(self._trainer.policy, groups)
        if self._model is None:
            self._model = job.start_model()
        return self._score(self._model, groups)

    def _score(self, model: Any, groups: Sequence[Group]) -> list[float]:  # noqa: ANN401
        scores = score_answers(
            model,
            groups,
            pad_id=pad_token(self._job.tokenizer),
            temperature=self._job.args.temperature,
            batch_size=self._job.args.generation_batch_size,
        )
        return [value for row in scores for value in row]


def _train(job: Job, contest: Contest | None) -> float:
    start_logps = StartLogps(job)

    def tell(number: int, result: dict[str, Any]) -> None:
        job.progress(f"evaluated: win rate {result['win_rate']:.3f}", number, 1, 1)

    def make_trainer() -> Trainer:
        callbacks = []
        if contest is not None:
            labels = every(job.config.evaluation.every, job.rounds)
            name = job.method.name
            callbacks.append(RoundEvaluation(name, contest, start_logps, labels, job.team, tell))
        lora = lora_config(job.config)
        try:
            trainer: Trainer = job.trainer_class(
                job.start_model(),
                job.args,
                job.data.rows,
                job.oracle,
                job.tokenizer,
                peft_config=lora,
                callbacks=callbacks,
                progress=job.progress,
            )
        except EquilignError:
            raise
        except ValueError as error:
            if lora is None:
                raise
            raise ConfigError(f"peft cannot adapt this model: {error}") from error
        start_logps.watch(trainer)
        return trainer

    def card(folder: Path, seconds: float) -> None:
        write_card(_card(job, contest, seconds), folder)

    return train_once(job.folder, job.method.name, job.args.seed, make_trainer, card, job.team)


def _result(job: Job, contest: Contest | None, seconds: float) -> dict[str, Any]:
    return method_summary(job.folder, job.method.name, contest, job.rounds, seconds)


def _facts(job: Job, contest: Contest | None) -> Facts:
    config = job.config
    return Facts(
        command="train",
        seed=job.args.seed,
        model=config.model,
        settings=resolved(job),
        oracle=job.judge,
        oracle_name=oracle_name(config.oracle or config.evaluation.oracle),
        prompts={"train": len(job.data.rows), "evaluation": len(job.data.held_out)},
        samples_per_prompt=config.evaluation.num_samples,
        start_tokens=None if contest is None else mean_tokens(contest.start),
    )


def _card(job: Job, contest: Contest | None, seconds: float) -> Card:
    config = job.config
    options = {k: v for k, v in config.settings().items() if k not in ("method", "base_dir")}
    known = resolved_args(config)
    options["args"] = {k: known[k] for k in (str(k).replace("-", "_") for k in config.args)}
    return Card(
        method=job.method,
        base_model=config.model,
        adapter=config.peft is not None,
        data=job.data.description,
        oracle=oracle_name(config.oracle),
        held_out_oracle=None if job.held_out is None else oracle_name(config.evaluation.oracle),
        options=options,
        rounds=[] if contest is None else contest.results(job.method.name, job.labels),
        prompts=len(job.data.held_out),
        samples=config.evaluation.num_samples,
        seconds=seconds,
        environment=environment(),
    )
