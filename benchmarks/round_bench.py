"""What a round costs, stage by stage, beside a plain transformers loop doing the same work.

    python benchmarks/round_bench.py --repeats 3

Ratios within one run are what counts; absolute times depend on the machine. The result goes to
`benchmarks/results/round.json` with machine, versions and commit.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import log_softmax

from equilign.files import write_json
from equilign.models import load_model, load_tokenizer
from equilign.oracles import score_groups
from equilign.rollout import (
    SamplingConfig,
    TransformersSampler,
    pad_pairs,
    prompt_text,
    score_completions,
)
from equilign.runs import environment
from equilign.tasks.prompts import restaurant_prompts
from equilign.tasks.restaurant_panel import restaurant_panel
from equilign.trainers import SPPOConfig, SPPOTrainer

RESULTS = Path(__file__).with_name("results") / "round.json"


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """Wall times of ``repeats`` runs after one warm-up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def plain_step(model: torch.nn.Module, rows: list[dict]) -> None:
    """Forward and backward of the same sequences, written out with transformers alone."""
    prompts = [r["prompt_ids"] for r in rows for _ in r["completion_ids"]]
    answers = [ids for r in rows for ids in r["completion_ids"]]
    ids, attention, answer = pad_pairs(prompts, answers, 0, "right")
    logits = model(input_ids=ids, attention_mask=attention.long(), use_cache=False).logits
    logps = log_softmax(logits[:, :-1].float(), -1).gather(-1, ids[:, 1:, None])[..., 0]
    ((logps * answer[:, 1:]).sum(-1) ** 2).mean().backward()
    model.zero_grad()


def our_step(trainer: SPPOTrainer, rows: list[dict]) -> None:
    """Forward and backward of the library's loss."""
    trainer.batch_loss(trainer.policy, rows)[0].backward()
    trainer.policy.zero_grad()


def measure(repeats: int, num_prompts: int) -> dict:
    """Times of every stage and the ratio of our step to the plain one."""
    model, tokenizer = load_model("shipped"), load_tokenizer("shipped")
    prompts = restaurant_prompts("align")[:num_prompts]
    panel = restaurant_panel()
    sampler = TransformersSampler(model, tokenizer, SamplingConfig(80, batch_size=160))
    groups = sampler.sample(prompts, 5, seed=0)
    flat = [(g.prompt_ids, c.ids) for g in groups for c in g.completions]
    texts = [[c.text for c in g.completions] for g in groups]
    with tempfile.TemporaryDirectory() as folder:
        args = SPPOConfig(output_dir=folder, num_rounds=1, use_cpu=True, max_completion_length=80)
        trainer = SPPOTrainer(model, args, [{"prompt": p} for p in prompts], panel, tokenizer)
        trainer.start_round(0)
        rows = trainer.play_chunk(0, 0, list(range(8)))
        stages = {
            "sample": lambda: sampler.sample(prompts, 5, seed=0),
            "compare": lambda: score_groups(panel, [prompt_text(p) for p in prompts], texts),
            "score": lambda: score_completions(
                model, [p for p, _ in flat], [c for _, c in flat], pad_id=0
            ),
            "train_step": lambda: our_step(trainer, rows),
            "plain_step": lambda: plain_step(model, rows),
        }
        times = {name: seconds(work, repeats) for name, work in stages.items()}
    medians = {name: statistics.median(t) for name, t in times.items()}
    return {
        "prompts": num_prompts,
        "answers": len(flat),
        "answer_tokens": sum(len(c) for _, c in flat),
        "seconds": medians,
        "all_seconds": times,
        "train_step_over_plain_step": medians["train_step"] / medians["plain_step"],
        "torch_threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=32)
    args = parser.parse_args()
    result = {"round": measure(args.repeats, args.prompts), "environment": environment()}
    write_json(RESULTS, result)
    print(json.dumps(result["round"], indent=2))


if __name__ == "__main__":
    main()
