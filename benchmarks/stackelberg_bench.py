"""The closed-form sequential game on a batch, beside one read of the data and plain NumPy.

    python benchmarks/stackelberg_bench.py --repeats 5

Three works are timed in turn, so that a busy machine slows all of them: summing every entry of
the batch once with the same threads ("read"), the library, and a NumPy implementation of the
same formulas. Ratios within one run are what counts. The result goes to
`benchmarks/results/stackelberg.json` with machine, versions and commit.
"""

import argparse
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from equilign.compiled import over_games, workers
from equilign.files import write_json
from equilign.games import PreferenceGame
from equilign.games.stackelberg import stackelberg
from equilign.runs import environment

RESULTS = Path(__file__).with_name("results") / "stackelberg.json"
BETA = 0.1


def random_batch(games: int, size: int, dtype: type) -> np.ndarray:
    """Uniform win probabilities, made in slices so that memory holds the batch once."""
    rng = np.random.default_rng(0)
    prefs = np.empty((games, size, size), dtype=dtype)
    for start in range(0, games, 1000):
        lower = np.tril(rng.random((min(1000, games - start), size, size)) - 0.5, -1)
        prefs[start : start + 1000] = 0.5 + lower - lower.swapaxes(1, 2)
    return prefs


def read(prefs: np.ndarray) -> float:
    """Every entry once, with the threads that the library uses."""
    totals: list[float] = []
    over_games(lambda a, b: totals.append(float(prefs[a:b].sum())), len(prefs))
    return sum(totals)


def plain(prefs: np.ndarray, chunk: int) -> np.ndarray:
    """Leader policies by the same formulas: uniform references, one weight for both players."""
    policies = np.empty(prefs.shape[:2])
    for start in range(0, len(prefs), chunk):
        logits = prefs[start : start + chunk].astype(np.float64) / -BETA
        top = logits.max(axis=2, keepdims=True)
        values = -BETA * (top[..., 0] + np.log(np.exp(logits - top).mean(axis=2)))
        weights = np.exp((values - values.max(axis=1, keepdims=True)) / BETA)
        policies[start : start + chunk] = weights / weights.sum(axis=1, keepdims=True)
    return policies


def extra_megabytes(work: Callable[[], object]) -> float:
    """Most memory that ``work`` held on top of what there was, its result included."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def cell(games: int, size: int, dtype: type, repeats: int) -> dict:
    """Median seconds of the three works, their ratios, and how far the answers differ."""
    prefs = random_batch(games, size, dtype)
    game = PreferenceGame(prefs, beta=BETA)
    chunk = max(1, 2**21 // size**2)
    works: dict[str, Callable[[], object]] = {
        "read": lambda: read(prefs),
        "equilign": lambda: stackelberg(game, follower=False),
        "numpy": lambda: plain(prefs, chunk),
    }
    solution, other = stackelberg(game, follower=False), plain(prefs, chunk)
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    best = {name: min(t) for name, t in times.items()}
    return {
        "games": games,
        "size": size,
        "dtype": np.dtype(dtype).name,
        "median_seconds": {name: statistics.median(t) for name, t in times.items()},
        "best_seconds": best,
        "times_one_read": best["equilign"] / best["read"],
        "speedup_over_numpy": best["numpy"] / best["equilign"],
        "largest_difference_to_numpy": float(np.abs(solution.policy - other).max()),
        "largest_gap": float(np.max(solution.gap)),
        "batch_mb": prefs.nbytes / 1e6,
        "extra_mb": extra_megabytes(lambda: stackelberg(game, follower=False)),
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--games", type=int, default=60_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 8, 16, 32, 64])
    args = parser.parse_args()
    cells = [
        cell(args.games, size, dtype, args.repeats)
        for size in args.sizes
        for dtype in (np.float64, np.float32)
    ]
    result = {"threads": workers(), "cells": cells, "environment": environment()}
    write_json(RESULTS, result)
    print(json.dumps(cells, indent=2))


if __name__ == "__main__":
    main()
