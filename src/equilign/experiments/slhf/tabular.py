"""The paper's matrix games, exactly: what each solution concept picks, and what refinement hits."""

from collections.abc import Callable
from typing import Any

import numpy as np

from equilign.evaluation.curves import hit_chances
from equilign.games import PreferenceGame, fit_bradley_terry, named_game, simulate_wins, solve

Tell = Callable[[int, int], None]

GAMES: dict[str, str] = {
    "majority-of-annotators": "Condorcet’s paradox: annotators ABC, BCA, CAB",
    "comal": "A skewed cycle",
    "favourite-loses": "A Condorcet winner that scores overlook",
}
"""Name -> title of the games that the concepts are shown side by side on."""

CONCEPTS = ("nash", "stackelberg", "condorcet", "copeland", "borda", "bradley-terry")
WEIGHTS = (1.0, 0.1, 0.01, 0.0)
"""KL weights of both players."""

PARADOX = "majority-of-annotators"
ORDERS = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
"""The annotators' rankings there, best first; one of them, drawn evenly, is who is asked for."""

ROUNDS = 5
CHAINS = 20_000
LAWS = 400
"""How many ways of sampling pairs are tried."""

COMPARISONS = 2_000
"""Comparisons drawn in each of them, for estimates from finite data."""


def study(seed: int, *, tell: Tell) -> dict[str, Any]:
    """All figures.

    Args:
        seed: of what is drawn (chains, ways of sampling pairs); the rest is exact.
        tell: called with parts done.

    Returns:
        ``concepts, weights, hits, sampling``.
    """
    parts: list[tuple[str, Callable[[], Any]]] = [
        ("concepts", lambda: {name: side_by_side(named_game(name)) for name in GAMES}),
        ("weights", lambda: [by_weight(weight) for weight in WEIGHTS]),
        ("hits", lambda: hits(np.random.default_rng([seed, 0]))),
        ("sampling", lambda: pair_sampling(np.random.default_rng([seed, 1]))),
    ]
    found = {}
    for number, (name, make) in enumerate(parts):
        found[name] = make()
        tell(number + 1, len(parts))
    return found


def side_by_side(game: PreferenceGame) -> list[dict[str, Any]]:
    """What each concept plays: ``concept, policy, value, status``; the Follower's rows with it."""
    rows = []
    for concept in CONCEPTS:
        found = solve(game, concept)
        row: dict[str, Any] = {
            "concept": concept,
            "policy": dict(zip(found.labels, found.policy.tolist(), strict=True)),
            "value": None if np.isnan(found.value) else found.value,
            "status": found.status,
        }
        if found.follower is not None:
            row["follower"] = found.follower.tolist()
        rows.append(row)
    return rows


def by_weight(weight: float) -> dict[str, Any]:
    """The paper's cycle (each wins with .9) at one KL weight for both players, uniform reference.

    Returns:
        ``beta``, the Leader's ``policy`` and ``value``, the Follower's answer to A, and by Nash
        the same: ``nash``.
    """
    game = named_game("condorcet-cycle", win=0.9)
    game = PreferenceGame(game.prefs, labels=game.names, beta=weight)
    led = solve(game, "stackelberg")
    assert led.follower is not None  # noqa: S101 - stackelberg has one
    return {
        "beta": weight,
        "policy": led.policy.tolist(),
        "value": float(led.value),
        "answer_to_a": led.follower[0].tolist(),
        "nash": solve(game, "nash").policy.tolist(),
    }


def hits(rng: np.random.Generator) -> dict[str, Any]:
    """How soon a random annotator is shown their favourite.

    Three annotators with different favourites; the Leader and the Follower are those of the
    Stackelberg equilibrium without KL weight, independent answers those of the Nash policy.

    Returns:
        ``refinement`` and ``independent`` for N = 1 .. `ROUNDS`: ``exact``, ``drawn`` (share of
        `CHAINS` simulated ones) and for independent answers ``formula``, ``1 - (2/3)^N``.
    """
    game = named_game(PARADOX)
    led, nash = solve(game, "stackelberg"), solve(game, "nash").policy
    assert led.follower is not None  # noqa: S101 - stackelberg has one
    wanted = np.array([order[0] for order in ORDERS])
    laws = {
        "refinement": (led.policy, led.follower),
        "independent": (nash, np.tile(nash, (len(nash), 1))),
    }
    found: dict[str, Any] = {}
    for name, (first, step) in laws.items():
        exact = hit_chances(first, step, ROUNDS)[:, wanted].mean(axis=1)
        found[name] = {"exact": exact.tolist(), "drawn": _drawn(first, step, wanted, rng)}
    found["independent"]["formula"] = [1.0 - (2.0 / 3.0) ** n for n in range(1, ROUNDS + 1)]
    return found


def _drawn(
    first: np.ndarray, step: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> list[float]:
    favourite = rng.choice(wanted, CHAINS)
    now = rng.choice(len(first), CHAINS, p=first)
    hit = now == favourite
    shares = [float(hit.mean())]
    rows = np.cumsum(step, axis=1)
    for _ in range(ROUNDS - 1):
        now = np.minimum((rng.random(CHAINS)[:, None] > rows[now]).sum(axis=1), len(first) - 1)
        hit |= now == favourite
        shares.append(float(hit.mean()))
    return shares


def pair_sampling(rng: np.random.Generator) -> dict[str, Any]:
    """What happens to each concept when some responses are compared more often than others.

    Pairs are drawn with probability proportional to ``m_i m_j``, for `LAWS` laws ``m`` uniform on
    the simplex. With infinitely many comparisons Bradley-Terry's scores still depend on ``m``;
    win probabilities, and all that is computed from them, do not. With `COMPARISONS` of them the
    win probabilities are estimated too.

    Returns:
        ``favourite``: concept -> response -> share of the laws under which it is played most;
        ``moved``: concept -> mean total variation from what it plays under uniform sampling, for
        ``infinite`` and ``finite`` data (``nash`` and ``stackelberg`` at beta 0.1, where they do
        not jump); ``examples``.
    """
    game = named_game("comal")
    names = list(game.names)
    base = _solutions(game.prefs, np.ones_like(game.prefs))
    favourites = {concept: np.zeros(len(names)) for concept in base}
    moved: dict[str, dict[str, list[float]]] = {
        kind: {concept: [] for concept in base} for kind in ("infinite", "finite")
    }
    examples: list[dict[str, list[float]]] = []
    for _ in range(LAWS):
        m = rng.dirichlet(np.ones(len(names)))
        weight = np.outer(m, m) * (1.0 - np.eye(len(names)))
        weight /= weight.sum() / 2.0
        wins = simulate_wins(game.prefs, COMPARISONS * weight, rng)
        seen = wins + wins.T
        estimate = np.divide(wins, seen, out=np.full_like(wins, 0.5), where=seen > 0.0)
        for kind, prefs, counts in (
            ("infinite", game.prefs, weight),
            ("finite", estimate, seen),
        ):
            for concept, policy in _solutions(prefs, counts).items():
                change = 0.5 * float(np.abs(policy - base[concept]).sum())
                moved[kind][concept].append(change)
                if kind == "infinite":
                    favourites[concept][int(policy.argmax())] += 1.0 / LAWS
        if len(examples) < 3:
            scores = fit_bradley_terry(game.prefs * weight).scores
            examples.append({"m": m.tolist(), "scores": scores.tolist()})
    return {
        "responses": names,
        "favourite": {
            c: dict(zip(names, v.round(12).tolist(), strict=True)) for c, v in favourites.items()
        },
        "moved": {k: {c: float(np.mean(v)) for c, v in by.items()} for k, by in moved.items()},
        "examples": examples,
    }


def _solutions(prefs: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Policies of three concepts from win probabilities and how often each pair was compared."""
    game = PreferenceGame(prefs, beta=0.1)
    favourite = fit_bradley_terry(prefs * counts).favourite
    return {
        "bradley-terry": np.eye(len(prefs))[favourite],
        "nash": solve(game, "nash").policy,
        "stackelberg": solve(game, "stackelberg").policy,
    }
