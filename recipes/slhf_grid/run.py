"""Choose learning rates of RLOO, Nash-MD and SLHF, and SLHF's kappa, on one small grid.

    python recipes/slhf_grid/run.py --output-dir runs/slhf-grid

One seed, on inputs of the E2E data that are none of the package's own prompts, which the
reproduction reports on. By the training oracle, the baselines choose the highest win rate over the
start model; SLHF the highest win rate of its Follower over its Leader among the settings whose
Leader beats the start model (all of them if none does). The held-out oracle is not asked. Goes on
after a stop. Writes ``src/equilign/experiments/slhf/selection.json``.
"""

import argparse
import json
import runpy
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from equilign.evaluation.corrections import correction, reply
from equilign.evaluation.intervals import clustered_mean
from equilign.evaluation.round_robin import first
from equilign.evaluation.win_rate import head_to_head
from equilign.experiments.slhf.contestants import (
    BASELINES,
    BETA,
    COMMON,
    FOLLOWER_INSTRUCTION,
    LEARNING_RATES,
    SELECTION,
    SHARED,
    SLHF,
    STEPS,
    Contestant,
    shared,
    slhf,
)
from equilign.experiments.slhf.pieces import START, Setting, answer_start, train_piece
from equilign.experiments.slhf.scales import SCALES
from equilign.experiments.workers import Work, run_parallel
from equilign.files import write_json
from equilign.rollout import Group
from equilign.tasks.restaurant_panel import restaurant_panel

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET = REPOSITORY / "src" / "equilign" / "experiments" / "slhf" / SELECTION
SEED = 1_000_003
"""Of no run that is reported."""

SHARED_KAPPA = 5.0
"""The paper's choice."""

SCALE = replace(SCALES["quick"], seeds=1, kappa_seeds=1, eval_prompts=96)


def entries() -> list[tuple[str, Contestant, dict[str, float]]]:
    """Every setting: under which name it is chosen, its contestant with a name of its own."""
    found: list[tuple[str, Contestant, dict[str, float]]] = []
    for rate in LEARNING_RATES:
        found += [(c.method, c, {"learning_rate": rate}) for c in BASELINES]
        own = {"learning_rate": rate, "kappa": SHARED_KAPPA}
        found.append((SHARED, shared(SHARED_KAPPA), own))
    found += [(SLHF, slhf(k), {"learning_rate": rate, "kappa": k}) for rate, k in STEPS]
    return [
        (key, replace(c, name="_".join([c.name, *map(str, o.values())])), o) for key, c, o in found
    ]


def outcome(setting: Setting, who: Contestant) -> dict[str, Any]:
    """Win rates by the training oracle, with the lower ends of their intervals over prompts."""
    panel = restaurant_panel()
    start = setting.load_answers(START, SEED, SCALE.samples)
    mine = setting.load_answers(who.name, SEED, SCALE.samples)
    win, _ = head_to_head(panel, mine, start)
    found: dict[str, Any] = {"leader": win.value, "leader_low": win.low}
    if who.method == SLHF:
        refiner = setting.refiner(who.name, SEED)
        led = setting.shown(who.name, SEED, 1)
        replies = reply(refiner, led, SEED)
        ahead, _ = head_to_head(panel, replies, mine)
        shown: Sequence[Group] = [first(g, 1) for g in start]
        again = clustered_mean(correction(panel, reply(refiner, shown, SEED + 1), shown))
        found |= {"follower": ahead.value, "follower_low": ahead.low}
        found |= {"refined_start": again.value, "refined_start_low": again.low}
    piece = json.loads(setting.piece_file(who.name, SEED).read_text(encoding="utf-8"))
    return {**found, "kl_nats": piece["kl_nats"], "costs": piece["costs"]}


def best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """See the head of this file."""
    if "follower" not in rows[0]:
        return max(rows, key=lambda row: row["leader"])
    able = [row for row in rows if row["leader_low"] > 0.5] or rows
    return max(able, key=lambda row: row["follower"])


def main() -> None:
    """Run the grid and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/slhf-grid"))
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    prompts = runpy.run_path(str(REPOSITORY / "recipes" / "sppo_grid" / "run.py"))["inputs"]()
    setting = Setting(given.output_dir, SCALE, prompts[:272], prompts[::-1][: SCALE.eval_prompts])
    works = [Work("start", answer_start, {"setting": setting, "seed": SEED})]
    for _, who, options in entries():
        own = {"contestant": who, "learning_rate": options["learning_rate"]}
        works.append(Work(who.name, train_piece, {"setting": setting, "seed": SEED, **own}))
    run_parallel(
        works,
        given.processes,
        lambda *said: print(said[0], f"{said[2]}/{said[3]}", file=sys.stderr, flush=True),
    )
    rows = [{"method": key, "options": o, **outcome(setting, w)} for key, w, o in entries()]
    methods = [*(c.method for c in BASELINES), SLHF, SHARED]
    chosen = {m: best([row for row in rows if row["method"] == m])["options"] for m in methods}
    write_json(
        TARGET,
        {
            "rule": "baselines: highest win rate over the start model; SLHF: highest win rate of "
            "the Follower over its Leader where the Leader beats the start model; by the training "
            "oracle",
            "seed": SEED,
            "scale": vars(SCALE),
            "prompts": "inputs of the E2E data set that are not among the package's prompts: 272 "
            f"to train on, {SCALE.eval_prompts} to evaluate on",
            "common": {
                **COMMON,
                "beta": BETA,
                "follower_instruction": FOLLOWER_INSTRUCTION,
            },
            "grid": rows,
            "chosen": chosen,
        },
    )
    for row in rows:
        print({k: row.get(k) for k in ("method", "options", "leader", "follower")})


if __name__ == "__main__":
    main()
