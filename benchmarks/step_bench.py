"""What a training step costs, by stage, and beside TRL's trainers on the same models and batches.

    python benchmarks/step_bench.py --repeats 3 --nash-md-python /tmp/trl113/bin/python

Each run is a process of its own (`step_work.py`), so that peak memory is its own, and the sides
take turns. TRL's DPO, RLOO and online DPO are those of the installed TRL; its Nash-MD was taken
out after 1.13, which needs an environment of its own with the same torch and transformers:

    python -m venv /tmp/trl113
    python -c "import site; print(site.getsitepackages()[0])" \
        > /tmp/trl113/lib/python3.11/site-packages/zz_same.pth
    /tmp/trl113/bin/python -m pip install --no-deps trl==1.13.0 requests

Ratios of one run are what counts: seconds depend on the machine and on who else uses it, which
the seconds of processor time feel less. Results go to `benchmarks/results/step.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from step_work import NEW_TOKENS, SIZES, make_model, per_step

from equilign.files import write_json
from equilign.runs import environment

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "step.json"
PEERS = ("dpo", "rloo", "online-dpo", "nash-md-pg")
METHODS = (*PEERS, "sppo", "nash-md")


def run(python: str, side: str, method: str, size: str, folder: Path, steps: int) -> dict:
    """One run; raises with the end of its error output."""
    command = [python, str(HERE / "step_work.py"), side, method, size, str(folder), str(steps)]
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
    return json.loads(done.stdout.splitlines()[-1])


def stages(found: dict, method: str) -> dict[str, float]:
    """Median seconds of each stage of our side; scoring is what is left of playing."""
    part = found["stages_s"]
    play = part.get("play", 0.0)
    sample, compare = part.get("sample", 0.0), part.get("compare", 0.0)
    return {
        "sample": sample,
        "compare": compare,
        "score": play - sample - compare,
        "learn": found["wall_s"] - play,
    }


def summarise(method: str, runs: dict[str, list[dict]]) -> dict:
    """Medians, tokens per second by stage, and ratios to the peer."""

    def middle(side: str, key: str) -> float:
        return statistics.median(r[key] for r in runs[side])

    ours = runs["equilign"]
    by_stage = [stages(r, method) for r in ours]
    tokens = statistics.median(r["response_tokens"] for r in ours)
    seconds = {name: statistics.median(s[name] for s in by_stage) for name in by_stage[0]}
    keys = ("wall_s", "cpu_s", "peak_mib")
    prompts, samples = per_step(method, "equilign")
    result = {
        "prompts_per_step": prompts,
        "responses_per_prompt": samples,
        "response_tokens": tokens,
        "seconds_by_stage": seconds,
        "tokens_per_second_by_stage": {n: tokens / s for n, s in seconds.items() if s > 0.0},
        "tokens_per_second": tokens / middle("equilign", "wall_s"),
        "equilign": {k: middle("equilign", k) for k in keys},
        "runs": runs,
    }
    if runs.get("trl"):
        result["trl"] = {k: middle("trl", k) for k in keys}
        result["trl_version"] = runs["trl"][0]["trl_version"]
        result["equilign_over_trl"] = {k: middle("equilign", k) / middle("trl", k) for k in keys}
    return result


def measure(size: str, method: str, args: argparse.Namespace, folder: Path) -> dict:
    """All repetitions of one method on one model, sides in turn."""
    peer = args.nash_md_python if method == "nash-md-pg" else sys.executable
    sides = {"equilign": sys.executable}
    if method in PEERS and peer:
        sides["trl"] = peer
    runs: dict[str, list[dict]] = {side: [] for side in sides}
    for repeat in range(args.repeats):
        for side in list(sides)[:: 1 if repeat % 2 == 0 else -1]:
            steps = args.steps[size]
            runs[side].append(run(sides[side], side, method, size, folder, steps))
    return summarise(method, runs)


def line(size: str, method: str, found: dict) -> str:
    """One line for people."""
    text = f"{size:5} {method:11} {found['tokens_per_second']:8.0f} tokens/s"
    for name, seconds in found["seconds_by_stage"].items():
        text += f"  {name} {seconds:.2f} s"
    if "trl" in found:
        ratios = found["equilign_over_trl"]
        text += f"  | over TRL {found['trl_version']}:"
        text += "".join(f" {k} {v:.2f}" for k, v in ratios.items())
    return text


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--tiny-steps", type=int, default=40)
    parser.add_argument("--large-steps", type=int, default=8)
    parser.add_argument("--nash-md-python", help="Python of an environment with TRL 1.13.")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.steps = {"tiny": args.tiny_steps, "20m": args.large_steps}
    if "nash-md-pg" in args.methods and not args.nash_md_python:
        print("nash-md-pg without its peer: give --nash-md-python (see the top of this file)")
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            make_model(size, Path(folder) / size)
            for method in args.methods:
                result = measure(size, method, args, Path(folder) / size)
                found.setdefault(size, {})[method] = result
                print(line(size, method, result), flush=True)
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    settings = {"max_new_tokens": NEW_TOKENS, "steps": args.steps, "threads": threads}
    write_json(args.output, {"settings": settings, "step": found, "environment": environment()})


if __name__ == "__main__":
    main()
