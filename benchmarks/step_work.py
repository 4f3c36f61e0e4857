"""One training run of one side, for `step_bench.py`; prints one JSON object.

    python benchmarks/step_work.py SIDE METHOD SIZE MODEL_FOLDER STEPS

Runs in a process of its own, so that its peak memory is its own, and in TRL 1.13's environment,
which has no equilign: that is imported only where it is measured.
"""

import contextlib
import gc
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1", TOKENIZERS_PARALLELISM="false")

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config
from transformers.trainer_utils import set_seed
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

SIZES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "heads": 4},
    "20m": {"vocab_size": 8192, "hidden_size": 384, "num_hidden_layers": 8, "heads": 6},
}
PROMPTS, SAMPLES, NEW_TOKENS = 4, 4, 32
"""Of a step: prompts, responses to each, and their length limit. Methods of two responses have
twice the prompts, TRL's Nash-MD, with one response of each player, four times."""
COMMON = {
    "learning_rate": 1e-5,
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "logging_steps": 10,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": not torch.cuda.is_available(),
    "disable_tqdm": True,
    "seed": 0,
}


def make_model(size: str, folder: Path) -> None:
    """Write a randomly initialised Qwen2 and a tokenizer of words ``w0 w1 ...``."""
    shape = dict(SIZES[size])
    heads = shape.pop("heads")
    torch.manual_seed(0)
    config = Qwen2Config(
        **shape,
        intermediate_size=4 * shape["hidden_size"],
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
        tie_word_embeddings=False,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words = {"<end>": 0, "<pad>": 1, **{f"w{i}": i for i in range(2, shape["vocab_size"])}}
    raw = Tokenizer(models.WordLevel(words, unk_token="w2"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<end>", pad_token="<pad>", padding_side="left"
    )
    made.save_pretrained(folder)


def load_words(folder: str) -> PreTrainedTokenizerFast:
    """Not by `AutoTokenizer`, which takes every Qwen2 folder's tokenizer for Qwen2's."""
    return PreTrainedTokenizerFast.from_pretrained(folder)


def words(generator: random.Random, size: str, low: int, high: int) -> str:
    top = SIZES[size]["vocab_size"] - 1
    return " ".join(f"w{generator.randint(2, top)}" for _ in range(generator.randint(low, high)))


def data(method: str, size: str, rows: int) -> list[dict[str, str]]:
    generator = random.Random(0)
    made = []
    for _ in range(rows):
        row = {"prompt": words(generator, size, 8, 24)}
        if method == "dpo":
            for side in ("chosen", "rejected"):
                row[side] = " " + words(generator, size, NEW_TOKENS // 2, NEW_TOKENS - 1)
        made.append(row)
    return made


def per_step(method: str, side: str) -> tuple[int, int]:
    """Prompts of a step, and responses (of each player) to each."""
    if method in ("dpo", "online-dpo"):
        return 2 * PROMPTS, SAMPLES // 2
    if method == "nash-md-pg":
        return (2 * PROMPTS, 1) if side == "trl" else (PROMPTS, SAMPLES // 2)
    return PROMPTS, SAMPLES


def reward(text: str) -> float:
    return (sum(map(ord, text)) % 997) / 997.0


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def around(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:  # noqa: D102
        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            began = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

        return timed


class Judge:
    """The same nearly free reward for both sides."""

    def score(self, prompts: Any, answers: Any) -> Any:  # noqa: ANN401, D102
        import numpy as np

        return np.array([reward(y) for y in answers])

    def compare(self, prompts: Any, a: Any, b: Any) -> Any:  # noqa: ANN401, D102
        import numpy as np

        return 1.0 / (1.0 + np.exp(self.score(prompts, b) - self.score(prompts, a)))


def ours(method: str, size: str, model_path: str, steps: int, folder: str) -> tuple[Any, Clock]:
    from equilign.methods import get_method
    from equilign.models import load_model

    prompts, samples = per_step(method, "equilign")
    trainer_class, config_class = get_method(method).load()
    online = {} if method == "dpo" else {"num_generations": samples}
    args = config_class(
        output_dir=folder,
        num_rounds=1 if method == "dpo" else steps,
        prompts_per_round=prompts * steps if method == "dpo" else prompts,
        per_device_train_batch_size=prompts,
        max_completion_length=NEW_TOKENS,
        **{**COMMON, "warmup_steps": 0},
        **online,
    )
    clock, judge = Clock(), Judge()
    judge.score = clock.around("compare", judge.score)  # type: ignore[method-assign]
    rows = data(method, size, prompts * steps)
    oracle = None if method == "dpo" else judge
    model, tokenizer = load_model(model_path), load_words(model_path)
    trainer = trainer_class(model, args, rows, oracle, tokenizer)
    trainer.sampler = TimedSampler(trainer.sampler, clock)
    trainer.play_chunk = clock.around("play", trainer.play_chunk)
    return trainer, clock


class TimedSampler:
    """A sampler with a clock."""

    def __init__(self, sampler: Any, clock: Clock) -> None:  # noqa: ANN401
        self.sample = clock.around("sample", sampler.sample)
        self.sample_mixture = clock.around("sample", sampler.sample_mixture)


def trl(method: str, size: str, model_path: str, steps: int, folder: str) -> tuple[Any, Clock]:
    from datasets import Dataset

    prompts, samples = per_step(method, "trl")
    rows = Dataset.from_list(data(method, size, prompts * steps))
    tokenizer = load_words(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    common = {
        **COMMON,
        "output_dir": folder,
        "num_train_epochs": 1,
        "bf16": False,
        "gradient_checkpointing": False,
    }
    build = {"dpo": _trl_dpo, "rloo": _trl_rloo, "online-dpo": _trl_online, "nash-md-pg": _trl_nash}
    return build[method](model, rows, tokenizer, common, prompts, samples), Clock()


def _trl_dpo(model, rows, tokenizer, common, prompts, samples):  # noqa: ANN001, ANN202
    from trl import DPOConfig, DPOTrainer

    args = DPOConfig(**common, per_device_train_batch_size=prompts, max_length=128)
    return DPOTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)


def _rewards(prompts, completions, **_):  # noqa: ANN001, ANN003, ANN202
    return [reward(y) for y in completions]


def _trl_rloo(model, rows, tokenizer, common, prompts, samples):  # noqa: ANN001, ANN202
    from trl import RLOOConfig, RLOOTrainer

    args = RLOOConfig(
        **common,
        per_device_train_batch_size=prompts * samples,
        num_generations=samples,
        steps_per_generation=1,
        max_completion_length=NEW_TOKENS,
        beta=0.05,
    )
    return RLOOTrainer(
        model=model,
        reward_funcs=_rewards,
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
    )


def _trl_online(model, rows, tokenizer, common, prompts, samples):  # noqa: ANN001, ANN202
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    args = OnlineDPOConfig(
        **common, per_device_train_batch_size=prompts, max_new_tokens=NEW_TOKENS, max_length=128
    )
    return OnlineDPOTrainer(
        model=model,
        reward_funcs=_rewards,
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
    )


class FreeReward(torch.nn.Module):
    """A reward "model" that costs nothing: the last token's number."""

    base_model_prefix = "backbone"

    def __init__(self, config: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.config = config

    def backbone(self, input_ids: torch.Tensor, **_: Any) -> Any:  # noqa: ANN401, D102
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=input_ids[..., None] % 997 / 997.0)

    def score(self, states: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return states


def _trl_nash(model, rows, tokenizer, common, prompts, samples):  # noqa: ANN001, ANN202
    from trl.experimental.nash_md import NashMDConfig, NashMDTrainer

    args = NashMDConfig(
        **common, per_device_train_batch_size=prompts, max_new_tokens=NEW_TOKENS, max_length=128
    )
    return NashMDTrainer(
        model=model,
        reward_funcs=FreeReward(model.config),
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
    )


def count(folder: Path) -> dict[str, int]:
    """Response tokens of all rounds, as they were written."""
    rows = [
        json.loads(text)
        for path in sorted((folder / "rounds").glob("*.jsonl"))
        for text in path.read_text().splitlines()
    ]
    return {"response_tokens": sum(len(ids) for r in rows for ids in r["completion_ids"])}


def peer_version() -> dict[str, str]:
    import trl

    return {"trl_version": trl.__version__}


def main() -> None:
    """Warm up, run, print."""
    side, method, size, model_path, steps = sys.argv[1:6]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    set_verbosity_error()
    disable_progress_bar()
    make = {"equilign": ours, "trl": trl}[side]
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(printed):
        set_seed(0)
        make(method, size, model_path, 2, folder + "/warm")[0].train()
        gc.collect()
        trainer, clock = make(method, size, model_path, int(steps), folder + "/run")
        clock.seconds.clear()
        cpu, wall = time.process_time(), time.perf_counter()
        trainer.train()
        result = {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "stages_s": clock.seconds,
            "optimiser_steps": int(trainer.state.global_step),
            **(count(Path(folder) / "run") if side == "equilign" else peer_version()),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
