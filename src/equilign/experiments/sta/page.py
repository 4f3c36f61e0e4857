"""The results as tables, figures and a page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from equilign.evaluation.spread import spread
from equilign.experiments.finishing import PageBody, PageHead, SectionPlan, make_page, size_facts
from equilign.experiments.sta.charts import charts, deviation
from equilign.experiments.sta.contestants import (
    BETA,
    CG,
    CONTESTANTS,
    DAMPING,
    DPO,
    DPO_BETA,
    RIVALS,
    STA,
    TITLES,
)
from equilign.experiments.sta.results import Results
from equilign.experiments.sta.tasks import TASKS, Task
from equilign.experiments.table_data import Cell, table_data
from equilign.reports.reproduction import ReproductionPage

Data = dict[str, Any]

HEAD = PageHead(
    "sta-rlhf",
    "STA-RLHF, reproduced",
    "STA-RLHF",
    "The paper trains OPT-125m on prompts of UltraChat. This run trains the shipped model of six "
    "million weights on beginnings of stories; a finding that reappears here does not need the "
    "paper’s sizes, one that does not may need them. The recipe with the paper’s sizes is in "
    "recipes/sta_paper; it was not run here.",
)


def _final_table(results: Results, task: Task) -> Data:
    rows: list[list[Cell]] = []
    for name, course in results.courses[task.name].items():
        found, gain = spread(course.last), spread(course.gain)
        off = float(deviation(course.last.mean(axis=1)))
        row: list[Cell] = [TITLES[name], found.value, off, *found.both]
        row += [gain.value, *gain.both]
        rows.append([*row, float(course.kl[:, -1].mean()), float(course.tokens[:, -1].mean())])
    columns = ["Method", "Reward", "Deviation over seeds", "low", "high", "Above the start"]
    columns += ["low ", "high ", "KL to start (nats)", "Tokens"]
    start = next(iter(results.courses[task.name].values())).reward[:, 0].mean()
    caption = (
        f"{task.title}: reward at the end on held-out prompts, 95 % intervals over seeds and "
        f"prompts; the start model has {start:.3f}"
    )
    return table_data(f"reward-{task.name}", caption, columns, _finite(rows))


def _difference_table(results: Results, task: Task, kind: str) -> Data:
    rows: list[list[Cell]] = []
    for rival in (*RIVALS, STA[0]):
        row: list[Cell] = [TITLES[rival]]
        for variant in STA:
            if kind == "ahead":
                found = results.ahead(task.name, variant, rival)
            else:
                found, _ = results.above(task.name, variant, rival)
            row += [None, None, None] if rival == variant else [found.value, *found.both]
        rows.append(row)
    columns = ["Against"]
    for number, variant in enumerate(STA):
        columns += [TITLES[variant], "low" + " " * number, "high" + " " * number]
    what = {
        "ahead": "reward at the end, difference",
        "above": "height of the front over the other’s points",
    }[kind]
    caption = f"{task.title}: {what}, 95 % intervals over seeds and prompts"
    return table_data(f"{kind}-{task.name}", caption, columns, _finite(rows))


def _finite(rows: list[list[Cell]]) -> list[list[Cell]]:
    """Without the infinite ends of intervals over one seed, which JSON has no number for."""
    return [
        [None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in row]
        for row in rows
    ]


def _time_table(results: Results) -> Data:
    base = results.batch_time(DPO)
    rows: list[list[Cell]] = []
    for name in (*(c.name for c in CONTESTANTS), CG):
        each = results.batch_time(name)
        ratio = np.exp((np.log(each) - np.log(base)).mean(axis=0))
        rows.append([TITLES[name], *ratio.tolist(), *each.mean(axis=0).tolist()])
    columns = ["Method", *(f"{t.title}, ratio to DPO" for t in TASKS)]
    columns += [f"{t.title}, s per batch" for t in TASKS]
    caption = (
        "Processor time per batch of prompts, evaluations left out; geometric mean of the ratios "
        "over seeds, mean of the seconds. DPO’s includes sampling its pairs"
    )
    return table_data("times", caption, columns, rows, 2)


def _sample_table(results: Results, task: Task) -> Data:
    rows: list[list[Cell]] = []
    for name in results.courses[task.name]:
        for found in results.pieces[task.name][name][0]["samples"]:
            rows.append([found["prompt"], TITLES[name], found["continuation"]])
    rows.sort(key=lambda row: str(row[0]))
    caption = f"{task.title}: continuations by the first seed’s last policies"
    columns = ["Prompt", "Method", "Continuation"]
    return table_data(f"samples-{task.name}", caption, columns, rows) | {"numeric": 0}


def tables(results: Results) -> list[Data]:
    """Every table: ``name, caption, columns, rows, digits``."""
    found = [_final_table(results, task) for task in TASKS]
    found += [_difference_table(results, task, k) for task in TASKS for k in ("ahead", "above")]
    return [*found, _time_table(results), *(_sample_table(results, task) for task in TASKS)]


_SECTIONS: tuple[SectionPlan, ...] = (
    (
        "reward",
        "Reward",
        ("reward-", "ahead-"),
        (
            "All methods start from the same model, see the same number of batches of prompts and "
            "sample the same number of answers to each. RLHF fits its reward model to further "
            "answers of the start model, DPO learns from the start model’s alone; reversed and "
            "PARL play one batch more at the end. Rewards are the task’s own, on prompts that "
            "nobody learnt from. The learning rate is the same for all: it was chosen of two by a "
            "look at one run of STA naive, and tuned for nobody.",
        ),
    ),
    (
        "fronts",
        "Reward against distance from the start",
        ("above-",),
        (
            "One point per evaluation. A front’s height over another’s points counts the lines "
            "between neighbouring points as reached: a policy that mixes the two has the mean of "
            "their rewards and at most the mean of their distances.",
        ),
    ),
    (
        "convergence",
        "Convergence",
        (),
        (
            "The reward model’s loss is measured on the batch it steps on, before the step; the "
            "reward of what was sampled to learn from is the task’s. PPO, the iterated DPO and DPO "
            "fit no reward model; DPO samples nothing while it learns.",
        ),
    ),
    (
        "times",
        "Run times",
        ("times",),
        (
            "Processor time, because the methods share a machine. STA total is solved among the "
            "pairs (Woodbury) everywhere; the paper’s conjugate gradients are timed over a few "
            "rounds.",
        ),
    ),
    ("samples", "Continuations", ("samples-",), ()),
)


def build_page(
    results: Results,
    claims: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    measured: Mapping[str, float],
) -> tuple[ReproductionPage, list[Data]]:
    """The page, and the tables as data."""
    data = tables(results)
    facts = [
        ("KL weight", f"{BETA:g} per nat; DPO and iterated DPO {DPO_BETA:g} nats per nat"),
        ("damping of the total derivative", f"{DAMPING:g}"),
        *size_facts(results.scale),
    ]
    body = PageBody(claims, _SECTIONS, charts(results), data, facts)
    return make_page(HEAD, body, settings, environment, measured), data
