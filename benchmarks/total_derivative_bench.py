"""What the total derivative of STA-RLHF costs: outer steps of both gradients, on the shipped model.

    python benchmarks/total_derivative_bench.py --rounds 4

Each run is a process of its own, so that peak memory is its own. One outer step is what the trainer
does in a round: 75-token answers to a batch of story prompts (four each), ground truth, S reward
steps, one policy step. `naive` takes the fitted reward as given, `woodbury` and `cg` foresee its
response. The first round is left out of the medians. In the first round of `cg` it is also said how
far Gauss-Newton is from the exact Hessian at the damping that conjugate gradients needed: the angle
between the two corrections (one number per pair) and the ratio of their lengths. Results go to
`benchmarks/results/total_derivative.json`; ratios of processor time are what counts on a shared
machine.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from equilign.files import write_json
from equilign.runs import environment

RESULTS = Path(__file__).parent / "results" / "total_derivative.json"
KINDS = ("naive", "woodbury", "cg")


def work(kind: str, settings: dict, folder: str) -> dict:
    """One run; seconds per round, peak memory, and how the solvers compare in the first round."""
    import torch
    from transformers import TrainerCallback

    from equilign.tasks.stories import story_prompts
    from equilign.tasks.word_collector import WordCollector
    from equilign.trainers import reward_game as games

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    total = kind != "naive"
    names = (
        ("STATotalTrainer", "STATotalConfig") if total else ("STANaiveTrainer", "STANaiveConfig")
    )
    trainer_class, config_class = (vars(games)[name] for name in names)
    options = {"solver": kind} if total else {}
    args = config_class(
        output_dir=folder,
        num_rounds=settings["rounds"],
        per_device_train_batch_size=settings["prompts"],
        inner_steps=settings["inner_steps"],
        damping=settings["damping"],
        reward_learning_rate=1e-4,
        learning_rate=1e-6,
        reward_model=settings["reward_model"],
        generation_batch_size=256,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        **options,
    )
    marks: list[tuple[float, float]] = []

    class Clock(TrainerCallback):
        def on_epoch_begin(self, *args: object, **kwargs: object) -> None:
            marks.append((time.perf_counter(), time.process_time()))

    rows = [{"prompt": p} for p in story_prompts("align")]
    trainer = trainer_class("shipped", args, rows, WordCollector())
    # Before the callback that plays the round.
    trainer.callback_handler.callbacks.insert(0, Clock())
    agreement: list[dict] = []
    if kind == "cg":
        (player,) = trainer.players.values()
        plain = player.response

        def response(batch: object, shares: object, **options: object) -> tuple:
            flat, exact = plain(batch, shares, **options)
            if len(agreement) < 1:
                options.update(solver="woodbury", damping=exact.damping - player.ridge)
                _, near = plain(batch, shares, **options)
                weight = flat.pairs.weight
                agreement.append(
                    {
                        "damping": exact.damping,
                        **compare((weight * near.gain).tolist(), (weight * exact.gain).tolist()),
                    }
                )
            return flat, exact

        player.response = response
    trainer.train()
    marks.append((time.perf_counter(), time.process_time()))
    pairs = list(itertools.pairwise(marks))[1:]
    told = [m for m in trainer.metrics.rows() if m["kind"] == "reward"]
    return {
        "wall_s": statistics.median(b[0] - a[0] for a, b in pairs),
        "cpu_s": statistics.median(b[1] - a[1] for a, b in pairs),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **{
            name: [m[name] for m in told if name in m]
            for name in ("cg_residual", "damping", "response_rms", "reward_loss")
        },
        "gauss_newton_against_exact": agreement,
    }


def run(kind: str, settings: dict) -> dict:
    """`work` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--work", kind, json.dumps(settings), folder]
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{kind} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(near: list[float], exact: list[float]) -> dict[str, float]:
    """Angle in degrees between two corrections, and the ratio of their lengths."""
    import numpy as np

    a, b = np.array(near), np.array(exact)
    sizes = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if min(sizes) == 0.0:
        return {"angle_degrees": float("nan"), "length_ratio": float("nan")}
    cosine = float(a @ b) / (sizes[0] * sizes[1])
    return {
        "angle_degrees": float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))),
        "length_ratio": sizes[0] / sizes[1],
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--inner-steps", type=int, default=5)
    parser.add_argument("--damping", type=float, default=1e-3)
    parser.add_argument("--reward-model", default="same")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    settings = {
        "rounds": args.rounds,
        "prompts": args.prompts,
        "inner_steps": args.inner_steps,
        "damping": args.damping,
        "reward_model": args.reward_model,
    }
    found = {}
    for kind in args.kinds:
        found[kind] = run(kind, settings)
        print(kind, found[kind], flush=True)
    result: dict = {"settings": settings, "environment": environment()}
    for kind in found:
        if "naive" in found and kind != "naive":
            keys = ("wall_s", "cpu_s", "peak_mib")
            found[kind]["over_naive"] = {k: found[kind][k] / found["naive"][k] for k in keys}
    result["runs"] = found
    write_json(args.output, result)
    print(json.dumps({k: v for k, v in result.items() if k != "environment"}, indent=1))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--work":
        print(json.dumps(work(sys.argv[2], json.loads(sys.argv[3]), sys.argv[4])))
    else:
        main()
