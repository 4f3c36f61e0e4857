"""`equilign demo`: a small chat model aligned by a preference game, and what happened.

Start model -> answers to held-out prompts -> for every method: rounds of sample, compare, train,
each round compared with the start model on prompts that are not trained on -> summary and page.
"""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, set_seed
from transformers.utils import logging as transformers_logging

from equilign.errors import ConfigError, DataError
from equilign.evaluation.callback import Evaluation, WinRateCallback, mean_tokens, results
from equilign.experiments.summary import write_summary
from equilign.files import explain_disk_full, write_json
from equilign.methods import Method, get_method
from equilign.models import load_model, load_tokenizer
from equilign.oracles import Panel
from equilign.rollout import Group, Prompt, SamplingConfig, pad_token, score_answers
from equilign.runs import RunDirectory, peak_memory_mb
from equilign.tasks.prompts import as_chat, check_attribute_list, load_prompts, restaurant_prompts
from equilign.tasks.restaurant_panel import restaurant_panel
from equilign.trainers import Progress


@dataclass(frozen=True)
class DemoConfig:
    """Options of the demo; everything here decides the result and is written to config.yaml.

    Attributes:
        methods: in the order they are run.
        model: ``"shipped"`` or a model folder.
        prompts: attribute lists to align on; the package's own when not given.
        eval_prompts: attribute lists to evaluate on; a third of ``prompts`` when only those
            are given.
        seed: of everything.
        rounds: rounds of sample, compare, train.
        num_generations: K, responses per prompt.
        eval_samples: answers per evaluation prompt and side.
        eta: mirror step, nats per unit of win probability.
        learning_rate: optimiser step.
        prompts_per_round: prompts played per round; at most those there are.
        epochs_per_round: passes over a round's responses.
        batch_prompts: prompts per optimiser step.
        max_completion_length: tokens.
    """

    methods: tuple[str, ...] = ("sppo",)
    model: str = "shipped"
    prompts: str | None = None
    eval_prompts: str | None = None
    seed: int = 0
    rounds: int = 3
    num_generations: int = 5
    eval_samples: int = 4
    eta: float = 20.0
    learning_rate: float = 1e-4
    prompts_per_round: int = 136
    epochs_per_round: int = 1
    batch_prompts: int = 8
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
        evaluation: held-out prompts and how to compare on them.
        start_answers: the start model's.
        progress: told what happens.
    """

    config: DemoConfig
    folder: Path
    align: Sequence[Prompt]
    start: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    panel: Panel
    evaluation: Evaluation
    start_answers: list[Group]
    progress: Progress

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
    settings = {**asdict(config), "methods": list(config.methods)}
    # Per method: rounds of weights, optimiser state and reference; then the final model.
    need = weights_mb * len(config.methods) * (4 * config.rounds + 1) + 50
    run.open(settings, resume=resume, need_mb=need)
    with explain_disk_full(output_dir):
        stage = _prepare(config, output_dir, align, held_out, start, tokenizer, progress)
        seconds = {name: _train(stage, get_method(name)) for name in config.methods}
        measured = {
            "seconds": time.perf_counter() - began,
            "peak_memory_mb": peak_memory_mb(),
        }
        return write_summary(
            output_dir,
            settings,
            stage.panel,
            {
                "train": len(align),
                "evaluation": len(held_out),
                "start_mean_tokens": mean_tokens(stage.start_answers),
            },
            {name: _rounds(stage, name) for name in config.methods},
            seconds,
            measured,
        )


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
    return Stage(config, folder, align, start, tokenizer, panel, evaluation, answers, progress)


def _callback(stage: Stage, name: str) -> WinRateCallback:
    def tell(number: int, result: dict[str, Any]) -> None:
        stage.progress(f"evaluated: win rate {result['win_rate']:.3f}", number, 1, 1)

    return WinRateCallback(name, stage.evaluation, stage.start_answers, stage.start_logps, tell)


def _rounds(stage: Stage, name: str) -> list[dict[str, Any]]:
    return results(_callback(stage, name), stage.config.rounds)


def _train(stage: Stage, method: Method) -> float:
    """Train one method to the end unless it is there; returns its seconds."""
    done = stage.folder / "models" / f"{method.name}.json"
    if done.exists():
        return float(json.loads(done.read_text(encoding="utf-8"))["seconds"])
    began = time.perf_counter()
    set_seed(stage.config.seed)
    trainer_class, config_class = method.load()
    config = stage.config
    args = config_class(
        output_dir=str(stage.folder),
        num_rounds=config.rounds,
        num_generations=config.num_generations,
        max_completion_length=config.max_completion_length,
        prompts_per_round=min(config.prompts_per_round, len(stage.align)),
        epochs_per_round=config.epochs_per_round,
        per_device_train_batch_size=config.batch_prompts,
        generation_batch_size=160,
        eta=config.eta,
        learning_rate=config.learning_rate,
        optim="adamw_torch",
        warmup_steps=0.1,
        lr_scheduler_type="linear",
        logging_steps=1,
        seed=config.seed,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = trainer_class(
        load_model(config.model),
        args,
        [{"prompt": p} for p in stage.align],
        stage.panel,
        stage.tokenizer,
        callbacks=[_callback(stage, method.name)],
        progress=stage.progress,
    )
    trainer.remove_callback(PrinterCallback)  # prints to stdout, which belongs to the result
    trainer.train(resume_from_checkpoint=True)
    target = stage.folder / "models" / method.name
    aside = target.with_name(f".{method.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    trainer.save_model(str(aside))
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    seconds = time.perf_counter() - began
    write_json(done, {"seconds": seconds})
    return seconds
