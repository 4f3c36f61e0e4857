"""One training run of one side, for `slhf_bench.py`; prints one JSON object.

    python benchmarks/slhf_work.py SIDE KIND SIZE MODEL_FOLDER STEPS --game 4 2 2

Runs in a process of its own, so that its peak memory is its own, and in the environment of the
authors' trainer, which has no equilign: that is imported only where it is measured.
"""

import argparse
import contextlib
import gc
import io
import json
import math
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from step_work import (
    COMMON,
    NEW_TOKENS,
    Clock,
    Judge,
    TimedSampler,
    load_words,
    reward,
    words,
)
from transformers import AutoModelForCausalLM
from transformers.trainer_utils import set_seed
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

KINDS = ("shared", "adapters", "separate", "rloo-leader", "rloo-follower")
KAPPA, BETA = 5.0, 0.001
INSTRUCTION = " ".join(f"w{i}" for i in range(5, 21))
"""In words that the tokenizer knows, so that both sides see as many tokens."""
TEMPLATE = (
    "{% for m in messages %}w2 {{ m['content'] }} w3 {% endfor %}"
    "{% if add_generation_prompt %}w4 {% endif %}"
)
Rows = list[dict[str, Any]]
Made = tuple[Any, Callable[[], dict[str, Any]]]


def message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def chats(size: str, rows: int, *, answered: bool) -> Rows:
    """Prompts as a Leader sees them, or (``answered``) as long as a Follower's are."""
    generator = random.Random(0)
    made = []
    for _ in range(rows):
        chat = [message("user", words(generator, size, 8, 24))]
        if answered:
            answer = words(generator, size, NEW_TOKENS, NEW_TOKENS)
            chat += [message("assistant", answer), message("user", INSTRUCTION)]
        made.append({"prompt": chat})
    return made


def lora() -> Any:  # noqa: ANN401
    """The adapter of the authors' script, without dropout."""
    from peft import LoraConfig, TaskType

    return LoraConfig(
        r=64, lora_alpha=128, target_modules="all-linear", task_type=TaskType.CAUSAL_LM
    )


def tokenizer_of(folder: str) -> Any:  # noqa: ANN401
    tokenizer = load_words(folder)
    tokenizer.chat_template = TEMPLATE
    # As Qwen2's: TRL 0.19 does not know what to do with token types.
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def equilign(asked: argparse.Namespace, steps: int, folder: str) -> Made:
    """Our trainer, and what is known after its run."""
    from equilign.methods import get_method
    from equilign.models import load_model

    prompts, answers, replies = asked.game
    own: dict[str, Any] = {"num_generations": answers}
    if asked.kind == "rloo-follower":
        prompts, own = prompts * answers, {"num_generations": replies}
    single = asked.kind.startswith("rloo")
    if not single:
        own |= {
            "num_follower_generations": replies,
            "players": asked.kind,
            "follower_instruction": INSTRUCTION,
            "kappa": KAPPA,
            "beta_leader": BETA,
            "beta_follower": BETA,
        }
    trainer_class, config_class = get_method("rloo" if single else "slhf").load()
    args = config_class(
        output_dir=folder,
        num_rounds=steps,
        prompts_per_round=prompts,
        per_device_train_batch_size=asked.micro or prompts,
        gradient_accumulation_steps=prompts // (asked.micro or prompts),
        max_completion_length=NEW_TOKENS,
        **{**COMMON, "warmup_steps": 0},
        **own,
    )
    clock, judge = Clock(), Judge()
    judge.score = clock.around("compare", judge.score)  # type: ignore[method-assign]
    rows = chats(asked.size, prompts * steps, answered=asked.kind == "rloo-follower")
    trainer = trainer_class(
        load_model(asked.model),
        args,
        rows,
        judge,
        tokenizer_of(asked.model),
        peft_config=lora() if asked.lora else None,
    )
    trainer.sampler = _timed(trainer.sampler, clock)
    trainer.play_chunk = clock.around("play", trainer.play_chunk)

    def known() -> dict[str, Any]:
        return {"stages_s": clock.seconds, **_count(Path(folder))}

    return trainer, known


def _timed(sampler: Any, clock: Clock) -> Any:  # noqa: ANN401
    """The same sampler with a clock; SLHF makes a longer one of it, so its type stays."""
    if not hasattr(sampler, "config"):
        return TimedSampler(sampler, clock)
    kind = type(sampler)
    timed = type(kind.__name__, (kind,), {"sample": clock.around("sample", kind.sample)})
    return timed(sampler.model, sampler.tokenizer, sampler.config)


def _count(folder: Path) -> dict[str, int]:
    """Tokens of all rounds as they were written: of prompts (once per response), of responses."""
    found = {"prompt_tokens": 0, "response_tokens": 0, "responses": 0}
    for path in sorted((folder / "rounds").glob("*.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            for side in [row["leader"], *row["followers"]] if "leader" in row else [row]:
                number = len(side["completion_ids"])
                found["responses"] += number
                found["prompt_tokens"] += number * len(side["prompt_ids"])
                found["response_tokens"] += sum(map(len, side["completion_ids"]))
    return found


class PairJudge:
    """Our judge as the authors' trainer asks one."""

    def judge(self, prompts: Any, completions: Any, **_: Any) -> list[float]:  # noqa: ANN401, D102
        scores = [[reward(chat[0]["content"]) for chat in pair] for pair in completions]
        return [1.0 / (1.0 + math.exp(b - a)) for a, b in scores]


def authors(asked: argparse.Namespace, steps: int, folder: str) -> Made:
    """The authors' trainer with the options of their script, and what is known after its run."""
    import trl
    from datasets import Dataset

    sys.path.insert(0, asked.checkout)
    from src.trainer.stackelberg_gda_config import StackelbergGDAConfig
    from src.trainer.stackelberg_gda_trainer import StackelbergGDATrainer

    prompts, answers, replies = asked.game
    if answers != 1 or replies != 1 or asked.kind != "shared":
        raise SystemExit("theirs has one answer and one reply, and one model in one process")
    args = StackelbergGDAConfig(
        **COMMON,
        output_dir=folder,
        num_train_epochs=1,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=asked.micro or prompts,
        gradient_accumulation_steps=prompts // (asked.micro or prompts),
        max_new_tokens=NEW_TOKENS,
        temperature=1.0,
        beta=BETA,
        follower_weight=KAPPA,
        follower_prompt=INSTRUCTION,
        kl_estimator="k3",
        standard_follower_kl_regularization=True,
    )
    trainer = StackelbergGDATrainer(
        model=AutoModelForCausalLM.from_pretrained(asked.model, torch_dtype=torch.float32),
        judge=PairJudge(),
        args=args,
        processing_class=tokenizer_of(asked.model),
        train_dataset=Dataset.from_list(chats(asked.size, prompts * steps, answered=False)),
        peft_config=lora() if asked.lora else None,
    )
    counted = {"prompt_tokens": 0, "response_tokens": 0, "responses": 0}
    inner = trainer._process_completions

    def counting(*given: Any, **named: Any) -> Any:  # noqa: ANN401
        made = inner(*given, **named)
        mask, start = made["attention_mask"], made["context_length"]
        counted["responses"] += mask.shape[0]
        counted["prompt_tokens"] += int(mask[:, :start].sum())
        counted["response_tokens"] += int(mask[:, start:].sum())
        return made

    trainer._process_completions = counting
    return trainer, lambda: {"trl_version": trl.__version__, **counted}


def options() -> argparse.Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("equilign", "authors"))
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("size")
    parser.add_argument("model")
    parser.add_argument("steps", type=int)
    parser.add_argument("--game", type=int, nargs=3, help="Prompts, answers, replies to each.")
    parser.add_argument("--micro", type=int, help="Prompts of a micro-batch; all by default.")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--checkout", help="Of the authors' repository.")
    return parser.parse_args()


def main() -> None:
    """Warm up, run, print."""
    asked = options()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    set_verbosity_error()
    disable_progress_bar()
    make = {"equilign": equilign, "authors": authors}[asked.side]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        set_seed(0)
        make(asked, 1, folder + "/warm")[0].train()
        gc.collect()
        trainer, known = make(asked, asked.steps, folder + "/run")
        cpu, wall = time.process_time(), time.perf_counter()
        trainer.train()
        result = {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "optimiser_steps": int(trainer.state.global_step),
            **known(),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
