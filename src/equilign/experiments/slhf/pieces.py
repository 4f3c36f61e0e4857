"""One method trained with one seed: its weights, its answers to held-out prompts, its costs.

A piece is finished when its file is there. What a stop leaves unfinished goes on from the last
checkpoint, with the answers that are already in their files.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer, set_seed

from equilign.evaluation.refine import Refiner
from equilign.experiments.held_out import KL_PROMPTS, HeldOut, Tell, kl_to_start, quiet
from equilign.experiments.piece_training import RoundTeller, save_whole, train_on
from equilign.experiments.slhf.contestants import FOLLOWER_INSTRUCTION, Contestant
from equilign.experiments.slhf.costs import costs, learning_curve
from equilign.experiments.slhf.scales import Scale
from equilign.files import write_json
from equilign.methods import get_method
from equilign.models import SHIPPED, load_model, load_tokenizer
from equilign.rollout import Group, TransformersSampler, encode_prompt
from equilign.rollout.follower import FollowerPrompt
from equilign.runs import peak_memory_mb
from equilign.tasks.restaurant_panel import restaurant_panel
from equilign.trainers.players import Role, player_folders

START = "start"
OPPONENTS = "start-again"
"""More answers of the start model: those that choose the best of N, and those it then plays."""


class Setting(HeldOut[Scale]):
    """What all pieces of a run share."""

    def model_folder(self, name: str, seed: int) -> Path:
        """Where the weights of a finished training are."""
        return self.folder / "models" / f"{name}-seed-{seed}"

    def load_sampler(self, name: str, seed: int, role: Role = "leader") -> TransformersSampler:
        """A player of a finished training, or the start model."""
        folder = self.model_folder(name, seed)
        where = SHIPPED if name == START else player_folders(folder)[role]
        return self.sampler(load_model(where), load_tokenizer(SHIPPED))

    def refiner(self, name: str, seed: int) -> Refiner:
        """A policy as a Follower: SLHF's own, and others asked as that one is."""
        sampler = self.load_sampler(name, seed, "follower")
        return Refiner(sampler, FollowerPrompt(FOLLOWER_INSTRUCTION))

    def shown(self, player: str, seed: int, count: int | None = None) -> list[Group]:
        """The answers of a policy that Followers are shown: its last ones, which play nobody."""
        count = self.scale.chains if count is None else count
        return [
            Group(g.prompt, g.prompt_ids, g.completions[len(g.completions) - count :])
            for g in self.load_answers(player, seed)
        ]


def answer_start(setting: Setting, seed: int, *, tell: Tell) -> None:
    """The start model's answers for one seed, two independent sets of them."""
    quiet()
    model, tokenizer = load_model(SHIPPED), load_tokenizer(SHIPPED)
    counts = {START: setting.scale.pool, OPPONENTS: 2 * setting.scale.samples}
    for number, (name, count) in enumerate(counts.items()):
        setting.sample_answers(name, seed, model, tokenizer, count)
        tell(number + 1, len(counts))


def train_piece(
    setting: Setting,
    contestant: Contestant,
    learning_rate: float,
    seed: int,
    *,
    tell: Tell,
) -> None:
    """Train one method with one seed; keep its weights and its answers.

    Args:
        setting: what all pieces share.
        contestant: who.
        learning_rate: of its optimiser.
        seed: of prompts, answers and order.
        tell: called with finished rounds.
    """
    path = setting.piece_file(contestant.name, seed)
    if path.exists():
        return
    quiet()
    began = time.perf_counter()
    set_seed(seed)
    options = contestant.options(setting.scale, learning_rate)
    trainer = _trainer(setting, contestant, options, seed, tell)
    folder = train_on(trainer)
    where = setting.model_folder(contestant.name, seed)
    save_whole(trainer, where)
    sampler = setting.load_sampler(contestant.name, seed)
    setting.sample_answers(
        contestant.name, seed, sampler.model, sampler.tokenizer, setting.scale.pool
    )
    answers = setting.load_answers(contestant.name, seed, 1)[:KL_PROMPTS]
    write_json(
        path,
        {
            "name": contestant.name,
            "method": contestant.method,
            "options": options,
            "seed": seed,
            "costs": costs(folder, contestant.method),
            "curve": learning_curve(folder, contestant.method),
            "kl_nats": kl_to_start(sampler, answers),
            "seconds": time.perf_counter() - began,
            "peak_memory_mb": peak_memory_mb(),
        },
    )
    # Optimiser states and references of all runs are gigabytes.
    shutil.rmtree(folder, ignore_errors=True)


def as_replies(
    sampler: TransformersSampler, form: FollowerPrompt, led: Sequence[Group], mine: Sequence[Group]
) -> list[Group]:
    """Replies as groups of one whose prompt is the Follower's, as `kl_to_start` needs them."""
    found = []
    for shown, reply in zip(led, mine, strict=True):
        for answer, better in zip(shown.completions, reply.completions, strict=True):
            prompt = form.of(shown.prompt, answer.text)
            found.append(Group(prompt, encode_prompt(sampler.tokenizer, prompt), (better,)))
    return found


def _trainer(
    setting: Setting, contestant: Contestant, options: Mapping[str, Any], seed: int, tell: Tell
) -> Trainer:
    scale = setting.scale
    trainer_class, config_class = get_method(contestant.method).load()
    args = config_class(
        output_dir=str(setting.folder / "training" / f"{contestant.name}-seed-{seed}"),
        num_rounds=scale.rounds,
        prompts_per_round=scale.prompts_per_round,
        epochs_per_round=1,
        max_completion_length=scale.max_tokens,
        per_device_train_batch_size=scale.prompts_per_round,
        chunk_prompts=scale.prompts_per_round,
        generation_batch_size=160,
        save_strategy="steps",
        save_steps=scale.save_every,
        save_total_limit=1,
        logging_steps=1,
        seed=seed,
        disable_tqdm=True,
        use_cpu=True,
        **options,
    )
    trainer: Trainer = trainer_class(
        load_model(SHIPPED),
        args,
        [{"prompt": p} for p in setting.train],
        restaurant_panel(),
        load_tokenizer(SHIPPED),
        callbacks=[RoundTeller(scale.rounds, tell)],
    )
    return trainer
