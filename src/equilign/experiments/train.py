"""`equilign train`: one method, any model, data and judge, and how it compares with its start."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Trainer, set_seed
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
from equilign.experiments.training import train_once, trained_seconds
from equilign.files import explain_disk_full
from equilign.rollout import Group, pad_token, score_answers
from equilign.runs import environment, peak_memory_mb
from equilign.trainers.game_trainer import Progress
from equilign.trainers.setup import sampling_config
from equilign.trainers.team import Team


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
    run, settings = TrainDirectory(folder), resolved(job)
    run.check(settings, resume=resume)
    # Before anything is written: a trainer may refuse its options.
    finished = trained_seconds(folder, config.method) is not None
    trainer = None if finished else _trainer(job)
    on_main(job.team, lambda: run.open(settings, resume=resume))
    with explain_disk_full(folder):
        contest = _contest(job, trainer)
        seconds = _train(job, contest, trainer)
        if not job.team.is_main:
            return None
        name = config.method
        methods = {name: method_summary(folder, name, contest, job.rounds, seconds)}
        measured = {"seconds": time.perf_counter() - began, "peak_memory_mb": peak_memory_mb()}
        return write_summary(folder, _facts(job, contest), methods, measured)


def on_main(team: Team, work: Callable[[], object]) -> None:
    """Do something in the main process only, while the others wait for it."""
    team.together(lambda: (work(), None)[1] if team.is_main else None)


def resolved(job: Job) -> dict[str, Any]:
    """The settings with every option of the method, as config.yaml holds them."""
    return {**job.config.settings(), "args": resolved_args(job.config)}


def _trainer(job: Job) -> Any:  # noqa: ANN401 - the trainer of any method
    """The method's trainer, with the start model as its policy.

    Raises:
        ConfigError: options that the method, or peft, refuses.
    """
    created = not job.folder.exists()
    lora = lora_config(job.config)
    set_seed(job.args.seed)  # a new adapter is random
    try:
        return job.trainer_class(
            job.start_model(),
            job.args,
            job.data.rows,
            job.oracle,
            job.tokenizer,
            peft_config=lora,
            progress=job.progress,
            **job.second_model(),
        )
    except ValueError as error:
        # transformers makes the folder as soon as there is a trainer.
        if created and job.folder.is_dir() and not any(job.folder.iterdir()):
            job.folder.rmdir()
        if lora is None or isinstance(error, EquilignError):
            raise
        raise ConfigError(f"peft cannot adapt this model: {error}") from error


def _contest(job: Job, trainer: Any) -> Contest | None:  # noqa: ANN401
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
        job.progress("start model answers", 0, 0, 1)
        # A finished run's answers are on disk: no model is asked.
        policy: Any = None if trainer is None else trainer.policy
        adapted = job.config.peft is not None and policy is not None
        with policy.disable_adapter() if adapted else nullcontext():
            start.extend(evaluation.answers("start", policy, job.tokenizer))
        job.progress("start model answers", 0, 1, 1)

    on_main(job.team, answer)
    return Contest(evaluation, start, job.held_out)


class StartLogps:
    """Log-probabilities under the start model: the policy without its adapter, or a second copy.

    Args:
        job: the training.
        policy: what is trained; with LoRA its adapter can be switched off.
    """

    def __init__(self, job: Job, policy: Any) -> None:  # noqa: ANN401 - any transformers model
        self._job = job
        self._policy = policy
        self._model: PreTrainedModel | None = None

    def __call__(self, groups: Sequence[Group]) -> list[float]:
        """Of every answer, nats, in order."""
        job = self._job
        if job.config.peft is not None:
            with self._policy.disable_adapter():
                return self._score(self._policy, groups)
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


def _train(job: Job, contest: Contest | None, trainer: Any) -> float:  # noqa: ANN401
    name = job.method.name

    def tell(number: int, result: dict[str, Any]) -> None:
        job.progress(f"evaluated: win rate {result['win_rate']:.3f}", number, 1, 1)
        # Trackers get it too; the game trainer's own log would close its running means.
        names = ("win_rate", "kl_nats", "mean_tokens")
        Trainer.log(trainer, {f"eval_{k}": float(result[k]) for k in names})

    def card(folder: Path, seconds: float) -> None:
        write_card(_card(job, contest, seconds), folder)

    if contest is not None and trainer is not None:
        labels = every(job.config.evaluation.every, job.rounds)
        start_logps = StartLogps(job, trainer.policy)
        trainer.add_callback(RoundEvaluation(name, contest, start_logps, labels, job.team, tell))
    return train_once(job.folder, name, job.args.seed, lambda: trainer, card, job.team)


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
        adapter=config.peft is not None or vars(job.args).get("players") == "adapters",
        players=vars(job.args).get("players"),
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
