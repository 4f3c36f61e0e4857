"""Steps per second of the dynamics, beside plain C, NumPy and automatic differentiation.

    python benchmarks/play_bench.py --repeats 5

All in one run: optimistic multiplicative weights on uniform random games, the gap recorded every
tenth step (one game) or at the end (batches). `C` is the same loop for one game written out and
compiled with -O3, on one core per thread of ours; `numpy` a loop over steps, batched by matmul;
`autograd` the uniform-pairs loss of the same step minimised by one gradient step of PyTorch, as
simulations of neural policies do it. The result goes to `benchmarks/results/play.json`.
"""

import argparse
import ctypes
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from equilign import PreferenceGame, play
from equilign.compiled import workers
from equilign.files import write_json
from equilign.runs import environment

RESULTS = Path(__file__).with_name("results") / "play.json"
CELLS = [(1, 10, 200_000), (1, 100, 30_000), (1, 1000, 1000), (1000, 10, 2000), (1000, 100, 200)]
ETA = 0.1

C_SOURCE = r"""
#include <math.h>
#include <stdlib.h>
/* One game at a time: margin a, logits l, the last rates p. Returns the gap of the last policy. */
double omwu(const double *restrict a, double *restrict l, long n, long steps, double eta) {
    double *q = malloc(3 * n * sizeof(double)), *r = q + n, *old = r + n, gap = 0.0;
    for (long t = 0; t <= steps; t++) {
        double top = -INFINITY, total = 0.0;
        for (long i = 0; i < n; i++) top = l[i] > top ? l[i] : top;
        for (long i = 0; i < n; i++) {
            l[i] -= top;
            q[i] = exp(l[i] > -690.0 ? l[i] : -690.0);
            total += q[i];
        }
        for (long i = 0; i < n; i++) q[i] /= total;
        gap = 0.0;
        for (long i = 0; i < n; i++) {
            double s = 0.0;
            for (long j = 0; j < n; j++) s += a[i * n + j] * q[j];
            r[i] = s;
            gap = s > gap ? s : gap;
        }
        if (t == steps) break;
        for (long i = 0; i < n; i++) {
            l[i] += eta * (2.0 * r[i] - (t ? old[i] : r[i]));
            old[i] = r[i];
        }
    }
    free(q);
    return 2.0 * gap;
}
"""


def games(number: int, size: int) -> np.ndarray:
    """Lower triangles uniform, as in EGPO's simulations."""
    lower = np.tril(np.random.default_rng(0).random((number, size, size)), -1)
    return lower + np.triu(1.0 - lower.swapaxes(1, 2), 1) + 0.5 * np.eye(size)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall time after one warm-up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def compile_c(folder: str) -> Callable[..., float] | None:
    """The C loop, or None where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    source, library = Path(folder) / "omwu.c", Path(folder) / "omwu.so"
    source.write_text(C_SOURCE)
    flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library), "-lm"], check=True)
    function = ctypes.CDLL(str(library)).omwu
    pointer = np.ctypeslib.ndpointer(np.float64, flags="C")
    function.argtypes = [pointer, pointer, ctypes.c_long, ctypes.c_long, ctypes.c_double]
    function.restype = ctypes.c_double
    return function


def c_batch(
    function: Callable[..., float], margins: np.ndarray, logits: np.ndarray, steps: int
) -> list:
    """Every game by the C loop, a thread per slice."""
    threads = workers() if len(margins) > 1 else 1

    def part(k: int) -> list[float]:
        return [
            function(margins[x], logits[x].copy(), margins.shape[1], steps, ETA)
            for x in range(k, len(margins), threads)
        ]

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(part, range(threads)))


def numpy_loop(margins: np.ndarray, logits: np.ndarray, steps: int) -> np.ndarray:
    """Batched NumPy in log space."""
    logits, old = logits.copy(), None
    for t in range(steps + 1):
        logits -= logits.max(axis=1, keepdims=True)
        policy = np.exp(np.maximum(logits, -690.0))
        policy /= policy.sum(axis=1, keepdims=True)
        rates = np.matmul(margins, policy[:, :, None])[:, :, 0]
        if t == steps:
            return 2.0 * rates.max(axis=1)
        logits += ETA * (2.0 * rates - (rates if old is None else old))
        old = rates
    raise AssertionError


def autograd_loop(margins: np.ndarray, logits: np.ndarray, steps: int) -> object:
    """One gradient step of size n / 4 on the uniform-pairs loss is the exact step."""
    import torch

    torch.set_num_threads(workers())
    a, theta = torch.from_numpy(margins), torch.from_numpy(logits).requires_grad_()
    size, old = margins.shape[1], None
    optimiser = torch.optim.SGD([theta], lr=size / 4.0)
    for _ in range(steps):
        with torch.no_grad():
            start = theta.log_softmax(1)
            rates = torch.bmm(a, start.exp()[:, :, None])[:, :, 0]
            payoff = 2.0 * rates - (rates if old is None else old)
        u = theta.log_softmax(1) - start - ETA * payoff
        loss = ((u[:, :, None] - u[:, None, :]) ** 2).mean(dim=(1, 2)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        old = rates
    return theta


def measure(repeats: int) -> list[dict]:
    """One row per cell: steps of the whole batch per second, and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        c = compile_c(folder)
        return [cell(c, *sizes, repeats) for sizes in CELLS]


def cell(c: Callable[..., float] | None, number: int, size: int, steps: int, repeats: int) -> dict:
    """One row: a batch of games of one size."""
    prefs = games(number, size)
    game = PreferenceGame(prefs if number > 1 else prefs[0])
    margins = np.ascontiguousarray((prefs - prefs.swapaxes(1, 2)) / 2.0)
    logits = np.random.default_rng(1).normal(size=(number, size))
    record = 10 if number == 1 else steps
    few = max(3, steps // (500 if number == 1 else 50))
    fewest = max(2, few // 10)
    works = {
        "ours": (steps, partial(play, game, "omwu", eta=ETA, steps=steps, record=record)),
        "numpy": (few, partial(numpy_loop, margins, logits, few)),
        "autograd": (fewest, partial(autograd_loop, margins, logits, fewest)),
    }
    if c is not None:
        works["c"] = (steps, partial(c_batch, c, margins, logits, steps))
    rates = {name: count / seconds(work, repeats) for name, (count, work) in works.items()}
    row = {
        "games": number,
        "actions": size,
        "steps_per_second": rates,
        "ours_times": {k: rates["ours"] / v for k, v in rates.items() if k != "ours"},
    }
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = measure(options.repeats)
    write_json(
        options.output,
        {
            "benchmark": "play",
            "rule": "omwu",
            "threads": workers(),
            "rows": rows,
            "environment": environment(),
        },
    )


if __name__ == "__main__":
    main()
