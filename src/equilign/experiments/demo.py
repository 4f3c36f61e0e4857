"""`equilign demo`: a small chat model aligned by preference games, and what happened.

Start model -> answers to held-out prompts -> for every method: rounds of sample, compare, train,
each round compared with the start model on prompts that are not trained on -> summary and page.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from transformers.utils import logging as transformers_logging

from equilign.errors import ConfigError, DataError
from equilign.evaluation.callback import Evaluation, mean_tokens
from equilign.experiments.demo_options import demo_options
from equilign.experiments.demo_pairs import judged_pairs
from equilign.experiments.evaluating import Contest, RoundEvaluation, steps_of
from equilign.experiments.model_card import Card, write_card
from equilign.experiments.summary import Facts, method_summary, write_summary
from equilign.experiments.training import train_once
from equilign.files import explain_disk_full
from equilign.methods import Method, get_method
from equilign.models import load_model, load_tokenizer
from equilign.oracles import Panel
from equilign.rollout import Group, Prompt, SamplingConfig, pad_token, score_answers
from equilign.runs import RunDirectory, environment, peak_memory_mb
from equilign.tasks.prompts import as_chat, check_attribute_list, load_prompts, restaurant_prompts
from equilign.tasks.restaurant_panel import restaurant_panel
from equilign.trainers import Progress
from equilign.trainers.team import Team

_JUDGE = "restaurant panel"


@dataclass(frozen=True)
class DemoConfig:
    """Options of the demo; everything here decides the result and is written to config.yaml.

    Each method's own options are those of `equilign.experiments.demo_options`.

    Attributes:
        methods: in the order they are run.
        model: ``"shipped"`` or a model folder.
        prompts: attribute lists to align on; the package's own when not given.
        eval_prompts: attribute lists to evaluate on; a third of ``prompts`` when only those
            are given.
        seed: of everything.
        rounds: rounds of sample, compare, train.
        eval_samples: answers per evaluation prompt and side.
        prompts_per_round: prompts played per round; at most those there are.
        max_completion_length: tokens.
    """

    methods: tuple[str, ...] = ("sppo",)
    model: str = "shipped"
    prompts: str | None = None
    eval_prompts: str | None = None
    seed: int = 0
    rounds: int = 3
    eval_samples: int = 4
    prompts_per_round: int = 136
    max_completion_length: int = 80

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"rounds = {self.rounds}; it must be >= 1")
        if self.prompts_per_round < 1:
            raise ConfigError(f"prompts_per_round = {self.prompts_per_round}; it must be >= 1")
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}; it must be >= 0")
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise ConfigError(f"methods = {list(self.methods)}; name each method once")
        for name in self.methods:
            get_method(name).load()
        if self.eval_prompts is not None and self.prompts is None:
            raise ConfigError("--eval-prompts needs --prompts: what should be aligned on?")


@dataclass(frozen=True)
class Stage:
    """What all methods of one demo share.

    Attributes:
        config: options.
        folder: the run directory.
        align: prompts trained on.
        start: the start model, never trained.
        tokenizer: of the model.
        panel: the judge.
        contest: held-out prompts, the start model's answers, and how to compare.
        progress: told what happens.
    """

    config: DemoConfig
    folder: Path
    align: Sequence[Prompt]
    start: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    panel: Panel
    contest: Contest
    progress: Progress

    @property
    def prompts_per_round(self) -> int:
        """Prompts that a round of the demo plays."""
        return min(self.config.prompts_per_round, len(self.align))

    @property
    def sampling(self) -> SamplingConfig:
        """How answers are drawn for judging."""
        return self.contest.evaluation.sampling

    def start_logps(self, groups: Sequence[Group]) -> list[float]:
        """Log-probabilities of answers under the start model, nats."""
        scores = score_answers(self.start, groups, pad_id=pad_token(self.tokenizer))
        return [value for row in scores for value in row]


def demo_prompts(config: DemoConfig) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts to align on and to evaluate on, as chat messages.

    Raises:
        DataError: a file is unreadable, empty or malformed, or too small to share out.
    """
    if config.prompts is None:
        return restaurant_prompts("align"), restaurant_prompts("evaluate")
    align = load_prompts(Path(config.prompts), check_attribute_list)
    if config.eval_prompts is not None:
        held_out = load_prompts(Path(config.eval_prompts), check_attribute_list)
    else:
        held_out, align = align[::3], [p for i, p in enumerate(align) if i % 3]
    if len(align) < config.rounds or len(held_out) < 2:
        raise DataError(
            f"{config.prompts}: {len(align)} prompts to align on and {len(held_out)} to evaluate "
            f"on are too few for {config.rounds} rounds; give more prompts"
        )
    return [as_chat(p) for p in align], [as_chat(p) for p in held_out]


def run_demo(
    config: DemoConfig, output_dir: Path, *, resume: bool = False, progress: Progress
) -> dict[str, Any]:
    """Run or resume the demo in ``output_dir``; returns the summary that is also written there.

    Raises:
        EquilignError: something the user can put right; see the types in `equilign.errors`.
    """
    began = time.perf_counter()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    align, held_out = demo_prompts(config)
    start, tokenizer = load_model(config.model), load_tokenizer(config.model)
    if not tokenizer.chat_template:
        raise ConfigError(f"{config.model} has no chat template; the demo needs a chat model")
    weights_mb = sum(p.numel() for p in start.parameters()) * 4 / 1e6
    run = RunDirectory(output_dir)
    options = {name: dict(demo_options(name).args) for name in config.methods}
    settings = {**asdict(config), "methods": list(config.methods), "options": options}
    # Per method: rounds of weights, optimiser state and reference; then the final model.
    need = weights_mb * len(config.methods) * (4 * config.rounds + 1) + 50
    run.open(settings, resume=resume, need_mb=need)
    with explain_disk_full(output_dir):
        stage = _prepare(config, output_dir, align, held_out, start, tokenizer, progress)
        methods = {name: _method(stage, get_method(name)) for name in config.methods}
        measured = {
            "seconds": time.perf_counter() - began,
            "peak_memory_mb": peak_memory_mb(),
        }
        facts = Facts(
            command="demo",
            seed=config.seed,
            model=config.model,
            settings=settings,
            oracle=stage.panel,
            oracle_name=_JUDGE,
            prompts={"train": len(align), "evaluation": len(held_out)},
            samples_per_prompt=config.eval_samples,
            start_tokens=mean_tokens(stage.contest.start),
        )
        return write_summary(output_dir, facts, methods, measured)


def _prepare(
    config: DemoConfig,
    folder: Path,
    align: list[Prompt],
    held_out: list[Prompt],
    start: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
) -> Stage:
    panel = restaurant_panel()
    sampling = SamplingConfig(max_new_tokens=config.max_completion_length, batch_size=128)
    evaluation = Evaluation(
        held_out, panel, sampling, config.eval_samples, config.seed, folder / "evaluation"
    )
    progress("start model answers", 0, 0, 1)
    answers = evaluation.answers("start", start, tokenizer)
    progress("start model answers", 0, 1, 1)
    contest = Contest(evaluation, answers)
    return Stage(config, folder, align, start, tokenizer, panel, contest, progress)


def _method(stage: Stage, method: Method) -> dict[str, Any]:
    """Train one method to the end unless it is there; returns its part of the summary."""
    own = demo_options(method.name)

    def card(folder: Path, seconds: float) -> None:
        write_card(_card(stage, method, seconds), folder)

    seconds = train_once(
        stage.folder,
        method.name,
        stage.config.seed,
        lambda: _trainer(stage, method),
        card,
        Team(),
    )
    rounds = stage.config.rounds
    return method_summary(
        stage.folder, method.name, stage.contest, rounds, seconds, own.rounds_per_step
    )


def _trainer(stage: Stage, method: Method) -> Trainer:
    config, own = stage.config, demo_options(method.name)
    trainer_class, config_class = method.load()
    size = max(1, stage.prompts_per_round // own.rounds_per_step)
    args = config_class(
        output_dir=str(stage.folder),
        num_rounds=config.rounds * own.rounds_per_step,
        prompts_per_round=size,
        logging_steps=1,
        seed=config.seed,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        save_total_limit=None if own.rounds_per_step == 1 else config.rounds,
        **{"max_completion_length": config.max_completion_length, **own.args},
    )

    def tell(number: int, result: dict[str, Any]) -> None:
        stage.progress(f"evaluated: win rate {result['win_rate']:.3f}", number, 1, 1)

    def by_step(what: str, number: int, done: int, total: int) -> None:
        """The trainer's rounds as parts of the demo's."""
        step, part = divmod(number - 1, own.rounds_per_step)
        whole = total * own.rounds_per_step
        told = what if len(config.methods) == 1 else f"{method.name}: {what}"
        stage.progress(told, step + 1, part * total + done, whole)

    labels = steps_of(own.rounds_per_step)
    watcher = RoundEvaluation(method.name, stage.contest, stage.start_logps, labels, Team(), tell)
    rows: list[dict[str, Any]] = [{"prompt": p} for p in stage.align]
    if trainer_class.data_format == "pairs":
        rows = _start_pairs(stage)
    trainer: Trainer = trainer_class(
        load_model(config.model),
        args,
        rows,
        stage.panel if trainer_class.needs_oracle else None,
        stage.tokenizer,
        callbacks=[watcher],
        progress=by_step,
    )
    return trainer


def _start_pairs(stage: Stage) -> list[dict[str, Any]]:
    """What methods that learn from given pairs get: the start model's own answers, judged."""
    return judged_pairs(
        stage.folder / "evaluation" / "start-pairs.jsonl",
        stage.start,
        stage.tokenizer,
        stage.panel,
        list(stage.align),
        stage.sampling,
        seed=stage.config.seed,
    )


def _card(stage: Stage, method: Method, seconds: float) -> Card:
    config = stage.config
    numbers = range(1, config.rounds + 1)
    return Card(
        method=method,
        base_model=config.model,
        adapter=False,
        data=f"{config.prompts or 'the shipped restaurant prompts'}: {len(stage.align)} prompts",
        oracle=_JUDGE,
        held_out_oracle=None,
        options={"rounds": config.rounds, **demo_options(method.name).args},
        rounds=stage.contest.results(method.name, numbers),
        prompts=len(stage.contest.evaluation.prompts),
        samples=config.eval_samples,
        seconds=seconds,
        environment=environment(),
    )
