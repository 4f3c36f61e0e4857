"""What a step of SLHF costs: beside two single players, and beside the authors' trainer.

    python benchmarks/slhf_bench.py --slhf-python /tmp/slhf/bin/python --slhf-checkout CHECKOUT

Beside two single players: one step of both players over the sum of two RLOO steps of ours with
the same token counts, one on the Leader's prompts, one on prompts as long as the Follower's.

Beside the authors' released trainer (github.com/lasgroup/stackelberg-learning), where both
options are given: one answer and one reply to each prompt, as theirs has, with the same model,
prompts and judge. It needs TRL 0.19, in an environment of its own with the same torch; vLLM and
wandb are not used, but wandb is imported:

    python -m venv /tmp/slhf
    python -c "import site; print(site.getsitepackages()[0])" \
        > /tmp/slhf/lib/python3.11/site-packages/zz_same.pth
    /tmp/slhf/bin/python -m pip install --no-deps transformers==4.52.4 trl==0.19.1 \
        tokenizers==0.21.1 huggingface_hub==0.33.0 peft==0.15.2 accelerate==1.7.0 \
        datasets==3.6.0 requests
    touch /tmp/slhf/lib/python3.11/site-packages/wandb.py

Each run is a process of its own (`slhf_work.py`), so that peak memory is its own, and the sides
take turns; the least of the repetitions counts, in seconds. Ratios of one run are what can be
quoted; processor time feels least who else uses the machine. Results go to
`benchmarks/results/slhf.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from step_work import NEW_TOKENS, SIZES, make_model

from equilign.files import write_json
from equilign.runs import environment

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "slhf.json"
GAME = (4, 2, 2)
"""Prompts of a step, answers to each, replies to each answer."""
PEER_CASES = (
    ("full", False, (8, 1, 1), 8),
    ("lora", True, (8, 1, 1), 8),
    ("script", True, (4, 1, 1), 1),
)
"""Beside the authors': name, whether with an adapter, game, prompts of a micro-batch."""
PLAYERS = ("shared", "adapters", "separate")
SINGLES = ("rloo-leader", "rloo-follower")
Run = dict[str, float]


class Runner:
    """Runs of one model size, each in a process of its own."""

    def __init__(self, size: str, folder: Path, args: argparse.Namespace) -> None:
        self.size, self.folder, self.args = size, folder, args
        self.steps = args.steps[size]

    def run(
        self,
        side: str,
        kind: str,
        game: tuple[int, int, int],
        *,
        lora: bool = False,
        micro: int | None = None,
    ) -> Run:
        """One; ends the benchmark with the end of its error output where it fails.

        Args:
            side: ours or the authors'.
            kind: of players.
            game: prompts of an optimiser step, answers, replies.
            lora: train an adapter.
            micro: prompts of a micro-batch; all of the step's by default.
        """
        python = self.args.slhf_python if side == "authors" else sys.executable
        command = [python, str(HERE / "slhf_work.py"), side, kind, self.size, str(self.folder)]
        command += [str(self.steps), "--game", *map(str, game)]
        command += ["--lora"] * lora
        command += [] if micro is None else ["--micro", str(micro)]
        if side == "authors":
            command += ["--checkout", str(self.args.slhf_checkout.resolve())]
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        found: Run = json.loads(done.stdout.splitlines()[-1])
        return found


def summary(runs: list[Run]) -> dict[str, float]:
    """Seconds of the run that others disturbed least, and tokens of responses per second."""
    result = {key: min(r[key] for r in runs) for key in ("wall_s", "cpu_s")}
    for key in ("peak_mib", "prompt_tokens", "response_tokens", "responses"):
        result[key] = statistics.median(r[key] for r in runs)
    for per, key in (("second", "wall_s"), ("cpu_second", "cpu_s")):
        result[f"tokens_per_{per}"] = max(r["response_tokens"] / r[key] for r in runs)
    return result


def beside_singles(runner: Runner) -> dict[str, dict]:
    """Every mode of players over two single players, which run one after the other.

    With adapters the single players train one of the same shape.
    """
    runs: dict[str, list[Run]] = {}
    adapted = {players: players == "adapters" for players in runner.args.players}
    work = [(single, lora) for lora in sorted(set(adapted.values())) for single in SINGLES]
    work += [(players, False) for players in adapted]
    for repeat in range(runner.args.repeats):
        for kind, lora in work[:: 1 if repeat % 2 == 0 else -1]:
            found = runner.run("equilign", kind, GAME, lora=lora)
            runs.setdefault(f"{kind}{'-lora' * lora}", []).append(found)
    return {
        players: over_singles(
            {"slhf": runs[players], **{s: runs[f"{s}{'-lora' * lora}"] for s in SINGLES}}
        )
        for players, lora in adapted.items()
    }


def over_singles(runs: dict[str, list[Run]]) -> dict:
    """One SLHF run over the sum of the two; its peak memory over the higher one."""
    found = {name: summary(r) for name, r in runs.items()}
    both, one = found["slhf"], [found[s] for s in SINGLES]
    sums = {key: sum(o[key] for o in one) for key in both}
    sums["peak_mib"] = max(o["peak_mib"] for o in one)
    names = ("wall_s", "cpu_s", "peak_mib", "prompt_tokens", "response_tokens")
    ratios = {key: both[key] / sums[key] for key in names}
    return {**found, "slhf_over_singles": ratios, "runs": runs}


def beside_authors(runner: Runner) -> dict[str, dict]:
    """Ours over theirs: all weights, an adapter, and an adapter as in their script.

    Their script accumulates over four prompts, one at a time; they sample each by itself, we
    sample an optimiser step's together in either case.
    """
    result = {}
    for name, lora, game, micro in PEER_CASES:
        runs: dict[str, list[Run]] = {"equilign": [], "authors": []}
        for repeat in range(runner.args.repeats):
            for side in list(runs)[:: 1 if repeat % 2 == 0 else -1]:
                runs[side].append(runner.run(side, "shared", game, lora=lora, micro=micro))
        result[name] = over_authors(runs)
    return result


def over_authors(runs: dict[str, list[Run]]) -> dict:
    """Our speed and memory over theirs."""
    found = {side: summary(r) for side, r in runs.items()}
    keys = ("tokens_per_second", "tokens_per_cpu_second", "peak_mib")
    ratios = {key: found["equilign"][key] / found["authors"][key] for key in keys}
    return {**found, "equilign_over_authors": ratios, "runs": runs}


def show(size: str, found: dict[str, dict], what: str) -> None:
    """One line each, for people."""
    for name, result in found.items():
        ratios = "  ".join(f"{k} {v:.2f}" for k, v in result[what].items())
        print(f"{size:5} {name:9} {what.replace('_', ' ')}: {ratios}", flush=True)


def options() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--players", nargs="+", choices=PLAYERS, default=PLAYERS)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--tiny-steps", type=int, default=40)
    parser.add_argument("--large-steps", type=int, default=4)
    parser.add_argument("--slhf-python", help="Python of an environment with TRL 0.19.")
    parser.add_argument("--slhf-checkout", type=Path, help="The authors' repository.")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    if (args.slhf_python is None) != (args.slhf_checkout is None):
        parser.error("--slhf-python and --slhf-checkout go together")
    args.steps = {"tiny": args.tiny_steps, "20m": args.large_steps}
    return args


def main() -> None:
    """Measure, print and keep."""
    args = options()
    if args.slhf_python is None:
        print("without the authors' trainer: give --slhf-python and --slhf-checkout")
    settings = {
        "max_new_tokens": NEW_TOKENS,
        "steps": args.steps,
        "repeats": args.repeats,
        "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
        "game": GAME,
        "cases_beside_authors": {
            name: {"lora": lora, "game": game, "micro_batch": micro}
            for name, lora, game, micro in PEER_CASES
        },
    }
    found: dict[str, dict[str, dict]] = {}
    kept = {"settings": settings, "slhf": found, "environment": environment()}
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            make_model(size, Path(folder) / size)
            runner = Runner(size, Path(folder) / size, args)
            found[size] = {"beside_singles": beside_singles(runner)}
            show(size, found[size]["beside_singles"], "slhf_over_singles")
            write_json(args.output, kept)
            if args.slhf_python is not None:
                found[size]["beside_authors"] = beside_authors(runner)
                show(size, found[size]["beside_authors"], "equilign_over_authors")
                write_json(args.output, kept)


if __name__ == "__main__":
    main()
