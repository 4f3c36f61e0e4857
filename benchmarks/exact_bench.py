"""Exact equilibria: batches, single games, with a KL weight, beside other solvers, in one run.

    python benchmarks/exact_bench.py --repeats 5
    python benchmarks/exact_bench.py --peers   # and quantecon, nashpy, OpenSpiel where importable

Loops over other solvers are timed on a sample of the games and extrapolated to all of them; the
result says how many were run. The games are uniform random ones, whose supports are about half of
the responses: the hard case for pivoting. The result goes to `benchmarks/results/exact.json`.
"""

import argparse
import importlib
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linprog

from equilign.compiled import workers
from equilign.files import write_json
from equilign.games import PreferenceGame, exploitability
from equilign.games.nash import nash
from equilign.runs import environment

RESULTS = Path(__file__).with_name("results") / "exact.json"
GAMES = 60_000
TARGETS = {5: 0.02, 8: 0.05, 16: 0.2, 32: 0.8, 64: 4.0}
KL_TARGETS = {5: 0.15, 8: 0.2, 16: 0.7, 32: 3.0, 64: 12.0}


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """Wall times of ``repeats`` runs after one warm-up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def summary(times: list[float]) -> dict[str, float]:
    return {"median": statistics.median(times), "fastest": min(times), "slowest": max(times)}


def uniform_prefs(games: int, size: int, dtype: type, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    prefs = np.empty((games, size, size), dtype=dtype)
    upper = np.triu_indices(size, 1)
    for start in range(0, games, 2000):
        part = prefs[start : start + 2000]
        draws = rng.random((len(part), len(upper[0]))).astype(dtype)
        part[:] = 0.5
        part[:, upper[0], upper[1]] = draws
        part[:, upper[1], upper[0]] = 1 - draws
    return prefs


def scipy_loop(prefs: np.ndarray) -> None:
    """``max v : x @ P >= v`` by HiGHS, one game after the other."""
    for game in prefs:
        n = len(game)
        linprog(
            np.r_[np.zeros(n), -1.0],
            np.c_[-game.T, np.ones(n)],
            np.zeros(n),
            np.r_[np.ones(n), 0.0][None],
            [1],
            [(0, None)] * n + [(None, None)],
            method="highs",
        )


def quantecon_loop(prefs: np.ndarray) -> None:
    minmax = importlib.import_module("quantecon.optimize").minmax
    for game in prefs:
        minmax(game)


def nashpy_loop(prefs: np.ndarray) -> None:
    nashpy = importlib.import_module("nashpy")
    for game in prefs:
        nashpy.Game(game - 0.5).linear_program()


def open_spiel_loop(prefs: np.ndarray) -> None:
    pyspiel = importlib.import_module("pyspiel")
    solver = importlib.import_module("open_spiel.python.algorithms.lp_solver")
    for game in prefs:
        matrix = pyspiel.create_matrix_game(game - 0.5, 0.5 - game)
        solver.solve_zero_sum_matrix_game(matrix)


PEERS = {
    "quantecon": ("quantecon", quantecon_loop),
    "nashpy": ("nashpy", nashpy_loop),
    "open_spiel": ("open_spiel.python.algorithms.lp_solver", open_spiel_loop),
}


def loops(peers: bool) -> dict[str, Callable[[np.ndarray], None]]:
    found = {"scipy": scipy_loop}
    for name, (module, loop) in PEERS.items() if peers else ():
        try:
            importlib.import_module(module)
        except ImportError:
            continue
        found[name] = loop
    return found


def batches(repeats: int, peers: bool) -> list[dict[str, Any]]:
    rows = []
    for size, target in TARGETS.items():
        dtype = np.float32 if size == 64 else np.float64
        game = PreferenceGame(uniform_prefs(GAMES, size, dtype))
        solution = nash(game)
        ours = summary(seconds(lambda game=game: nash(game), repeats))
        row = {
            "size": size,
            "dtype": np.dtype(dtype).name,
            "seconds": ours,
            "target_seconds": target,
            "worst_duality_gap": float(solution.gap.max()),
            "unique": int(solution.unique.sum()),
            "loops": {},
        }
        for name, loop in loops(peers).items():
            sample = game.prefs[: 20 if name == "open_spiel" else 100].astype(np.float64)
            per_game = summary(seconds(lambda loop=loop, s=sample: loop(s), 3))["median"]
            whole = per_game / len(sample) * GAMES
            row["loops"][name] = {
                "extrapolated_seconds": whole,
                "sample": len(sample),
                "ratio": whole / ours["median"],
            }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def regularised_batches(repeats: int) -> list[dict[str, Any]]:
    rows = []
    for size, target in KL_TARGETS.items():
        prefs = uniform_prefs(GAMES, size, np.float32 if size == 64 else np.float64)
        for beta in (0.1, 0.01, 0.001):
            game = PreferenceGame(prefs, beta=beta)
            solution = nash(game)
            row = {
                "size": size,
                "beta": beta,
                "seconds": summary(seconds(lambda game=game: nash(game), max(1, repeats // 2))),
                "target_seconds": target,
                "worst_duality_gap": float(solution.gap.max()),
            }
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def single_games(repeats: int, peers: bool) -> list[dict[str, Any]]:
    rows = []
    for size in (10, 30, 100, 300, 1000, 2000):
        prefs = uniform_prefs(1, size, np.float64)
        for beta in (0.0, 0.01):
            game = PreferenceGame(prefs[0], beta=beta)
            solution = nash(game)
            row = {
                "size": size,
                "beta": beta,
                "seconds": summary(seconds(lambda game=game: nash(game), repeats)),
                "exploitability": exploitability(game, solution.policy),
                "loops": {},
            }
            for name, loop in loops(peers).items():
                if beta > 0.0 or size > (1000 if name == "quantecon" else 300):
                    continue
                other = summary(seconds(lambda loop=loop, p=prefs: loop(p), 1))["median"]
                row["loops"][name] = {"seconds": other, "ratio": other / row["seconds"]["median"]}
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def with_torch(repeats: int) -> dict[str, Any] | None:
    """One large game once torch is loaded, whose LU is then used."""
    try:
        importlib.import_module("torch")
    except ImportError:
        return None
    found = {}
    for size in (300, 1000, 2000):
        game = PreferenceGame(uniform_prefs(1, size, np.float64)[0])
        found[str(size)] = summary(seconds(lambda game=game: nash(game), repeats))
    return found


def versions() -> dict[str, str]:
    """Of what was timed, beside what `environment` lists."""
    found = {}
    for name in ("numba", "scipy", "quantecon", "nashpy", "open_spiel", "cvxpy", "ecos"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next(
        (s.split(":", 1)[1].strip() for s in lines if s.startswith("model name")), "unknown"
    )


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--note", default="", help="kept with the result")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    result = {
        "batches": batches(args.repeats, args.peers),
        "regularised_batches": regularised_batches(args.repeats),
        "single_games": single_games(args.repeats, args.peers),
        "single_games_with_torch": with_torch(args.repeats),
        "games": GAMES,
        "threads": workers(),
        "processor": processor(),
        "load_before_and_after": [load, os.getloadavg()[0]],
        "note": args.note,
        "versions": versions(),
        "environment": environment(),
    }
    write_json(RESULTS, result)
    print(json.dumps(result["single_games_with_torch"]))


if __name__ == "__main__":
    main()
