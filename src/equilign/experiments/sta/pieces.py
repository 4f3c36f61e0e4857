"""One method on one task with one seed: its answers as it learns, and what they cost.

A piece is finished when its file is there. What a stop leaves unfinished goes on from the last
checkpoint, with the answers that are already in their files.
"""

import random
import shutil
import time
from typing import Any

import numpy as np
import torch
from transformers import Trainer, set_seed

from equilign.experiments.held_out import HeldOut, Tell, quiet
from equilign.experiments.piece_training import train_on
from equilign.experiments.sta.contestants import DPO, Contestant
from equilign.experiments.sta.scales import Scale
from equilign.experiments.sta.tasks import task_named, utilities
from equilign.experiments.sta.watching import START, Watcher, learning, played
from equilign.files import write_json
from equilign.formats import PreferencePair, preference_rows
from equilign.methods import get_method
from equilign.models import SHIPPED, load_model, load_tokenizer
from equilign.rollout import Group
from equilign.runs import peak_memory_mb
from equilign.tasks.utilities import UtilityOracle
from equilign.trainers.rounds import derive_seed

GIVEN = "start-train"
"""The start model's answers to training prompts, of which DPO's pairs are."""

SHOWN = 3
"""Prompts whose continuations are kept for the page."""


class Setting(HeldOut[Scale]):
    """What all pieces of a run share."""


def piece_name(task: str, contestant: str) -> str:
    """Of the file of one method on one task."""
    return f"{task}.{contestant}"


def answer_start(setting: Setting, seed: int, *, tell: Tell) -> None:
    """The start model's answers for one seed: to held-out prompts, and to DPO's."""
    path = setting.piece_file(START, seed)
    if path.exists():
        return
    quiet()
    model, tokenizer = load_model(SHIPPED), load_tokenizer(SHIPPED)
    setting.sample_answers(START, seed, model, tokenizer, setting.scale.samples)
    tell(1, 2)
    began, cpu = time.perf_counter(), time.process_time()
    where = setting.answers_file(GIVEN, seed)
    given = Setting(setting.folder, setting.scale, setting.train, _order(setting, seed))
    given.sample_answers(GIVEN, seed, model, tokenizer, setting.scale.answers)
    write_json(
        path,
        {
            "answers": str(where.name),
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
            "peak_memory_mb": peak_memory_mb(),
        },
    )
    tell(2, 2)


def _order(setting: Setting, seed: int) -> list[Any]:
    """As many training prompts as there are to play, in the seed's order."""
    prompts = list(setting.train)
    random.Random(derive_seed(seed, GIVEN)).shuffle(prompts)
    return prompts[: setting.scale.rounds * setting.scale.batch]


def given_pairs(groups: list[Group], oracle: UtilityOracle, wanted: int) -> list[dict[str, Any]]:
    """DPO's rows: the best and the worst of each prompt's answers, ``wanted`` of them.

    A prompt whose answers are all worth the same gives its place to another one's pair, as in the
    paper; where all are, labels are one half and nothing can be learnt.
    """
    pairs: list[PreferencePair] = []
    ties: list[PreferencePair] = []
    for group, worth in zip(groups, utilities(oracle, groups), strict=True):
        best, worst = int(np.argmax(worth)), int(np.argmin(worth))
        decided = bool(worth[best] > worth[worst])
        first, second = (best, worst) if decided else (0, -1)
        texts = group.completions[first].text, group.completions[second].text
        pair = PreferencePair(group.prompt, texts[0], texts[1], 1.0 if decided else 0.5)
        (pairs if decided else ties).append(pair)
    rows = preference_rows(pairs or ties)
    return [rows[i % len(rows)] for i in range(wanted)]


def train_piece(
    setting: Setting, task: str, contestant: Contestant, seed: int, *, tell: Tell
) -> None:
    """Train one method on one task with one seed.

    Args:
        setting: what all pieces share.
        task: its name.
        contestant: who.
        seed: of prompts, answers and order.
        tell: called with finished rounds.
    """
    name = piece_name(task, contestant.name)
    path = setting.piece_file(name, seed)
    if path.exists():
        return
    quiet()
    set_seed(seed)
    oracle = task_named(task).make()
    watcher = Watcher(setting, name, contestant, seed, tell)
    trainer = _trainer(setting, name, contestant, oracle, seed, watcher)
    folder = train_on(trainer)
    watcher.finish()
    write_json(
        path,
        {
            "name": contestant.name,
            "task": task,
            "seed": seed,
            "options": contestant.options(setting.scale),
            "evaluations": watcher.evaluations(oracle),
            "played": played(folder, contestant, setting.scale, oracle),
            "learning": learning(folder, contestant),
            "samples": watcher.samples(SHOWN),
            **watcher.cost(),
            "peak_memory_mb": peak_memory_mb(),
        },
    )
    # Optimiser states and references of all runs are gigabytes.
    shutil.rmtree(folder, ignore_errors=True)


def time_piece(
    setting: Setting, task: str, contestant: Contestant, seed: int, *, tell: Tell
) -> None:
    """What a round of a method costs, over ``cg_rounds`` of them."""
    name = piece_name(task, contestant.name)
    path = setting.piece_file(name, seed)
    if path.exists():
        return
    quiet()
    set_seed(seed)
    oracle = task_named(task).make()
    rounds = setting.scale.cg_rounds
    watcher = Watcher(setting, name, contestant, seed, tell, rounds=rounds)
    folder = train_on(_trainer(setting, name, contestant, oracle, seed, watcher, rounds))
    watcher.finish()
    own = {**watcher.cost(), "learning": learning(folder, contestant)}
    write_json(path, {"name": contestant.name, "task": task, "seed": seed, **own,
                      "peak_memory_mb": peak_memory_mb()})  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)


def _room(contestant: Contestant, scale: Scale) -> int:
    """Length limit of an answer; DPO's are texts, which an end token and other tokens lengthen."""
    return 2 * scale.max_tokens + 1 if contestant.method == DPO else scale.max_tokens


def _trainer(
    setting: Setting,
    name: str,
    contestant: Contestant,
    oracle: UtilityOracle,
    seed: int,
    watcher: Watcher,
    rounds: int | None = None,
) -> Trainer:
    scale = setting.scale
    each = contestant.batches_per_round(scale)
    trainer_class, config_class = get_method(contestant.method).load()
    args = config_class(
        output_dir=str(setting.folder / "training" / f"{name}-seed-{seed}"),
        num_rounds=rounds or scale.rounds // each,
        prompts_per_round=scale.batch * each,
        max_completion_length=_room(contestant, scale),
        per_device_train_batch_size=scale.batch,
        chunk_prompts=scale.batch * each,
        generation_batch_size=160,
        save_strategy="steps",
        save_steps=contestant.steps_per_round(scale) * scale.between // each,
        save_total_limit=1,
        logging_steps=1,
        seed=seed,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **contestant.options(scale),
    )
    rows: list[dict[str, Any]] = [{"prompt": p} for p in setting.train]
    if contestant.method == DPO:
        groups = setting.load_answers(GIVEN, seed)
        rows = given_pairs(groups, oracle, scale.rounds * scale.batch)
    trainer: Trainer = trainer_class(
        load_model(SHIPPED),
        args,
        rows,
        oracle,
        load_tokenizer(SHIPPED),
        callbacks=[watcher],
    )
    return trainer
