"""What the verdicts on a prompt's responses say to train on; missing ones are never made up."""

from typing import Any

import numpy as np

Row = dict[str, Any]


def as_json(game: np.ndarray) -> list[list[float | None]]:
    """Win probabilities as JSON: ``nan`` (no verdict) becomes null."""
    return [[None if np.isnan(v) else float(v) for v in line] for line in game]


def as_game(prefs: list[list[float | None]]) -> np.ndarray:
    """Back from `as_json`."""
    return np.array([[np.nan if v is None else v for v in line] for line in prefs], dtype=float)


def harden(game: np.ndarray) -> np.ndarray:
    """Verdicts as votes: 1 above one half, 0 below, one half at one half; ``nan`` stays."""
    return np.asarray(0.5 + 0.5 * np.sign(game - 0.5))


def add_win_rates(row: Row, slot: str, block: np.ndarray, weights: np.ndarray) -> None:
    """Each response's mean win probability against a slot's responses, into ``row``.

    The mean is over the opponents' responses that got a verdict, with their weights. A response
    without any verdict but those against its own text is not trained on: its loss weight becomes 0
    and the others' grow to sum to 1. A prompt none of whose responses was judged keeps no weight.

    Args:
        row: the prompt's row; ``win_rates[slot]`` is set and ``loss_weights`` may change.
        slot: whose responses are the opponents.
        block: ``(K, K')`` win probabilities, ``nan`` for no verdict.
        weights: of the K' opponents' responses, summing to 1.
    """
    seen = ~np.isnan(block)
    mass = seen @ weights
    rates = np.nan_to_num(block) @ weights / np.where(mass > 0.0, mass, 1.0)
    judged = _judged(seen, slot)
    row["win_rates"][slot] = [float(r) if j else 0.5 for r, j in zip(rates, judged, strict=True)]
    if not judged.all():
        kept = np.where(judged, row["loss_weights"], 0.0)
        row["loss_weights"] = (kept / kept.sum() if kept.sum() > 0.0 else kept).tolist()


def _judged(seen: np.ndarray, slot: str) -> np.ndarray:
    if slot != "current":
        return np.asarray(seen.any(axis=1))
    # Against itself a response always has a verdict, one half.
    others = seen & ~np.eye(len(seen), dtype=bool)
    return np.asarray(others.any(axis=1))


def choose_responses(row: Row, game: np.ndarray, kind: str, *, hard: bool) -> None:
    """Which responses are trained on: ``row["trained"]``, and their weights.

    Args:
        row: the prompt's row, with win rates.
        game: ``(K, K)`` win probabilities among the responses.
        kind: ``"all"``, or ``"best_worst"``: the highest and the lowest mean win rate of the
            judged responses, half of the weight each (Wu et al. 2024, arXiv:2405.00675, section
            4; the first of equals is best, the last of equals worst, so they always differ).
        hard: with ``best_worst``, the best wins for certain and the worst loses (the
            paper's and TRL's hard variant).
    """
    size = len(row["completions"])
    row["trained"] = list(range(size))
    if kind == "all":
        return
    weights = np.array(row["loss_weights"])
    law = np.array(row["weights"])
    own = np.nan_to_num(game) @ law / np.maximum(~np.isnan(game) @ law, 1e-300)
    judged = np.flatnonzero(weights > 0.0)
    if len(judged) < 2:
        row["trained"], row["loss_weights"] = [0, size - 1], [0.0] * size
        return
    order = judged[np.argsort(-own[judged], kind="stable")]
    best, worst = int(order[0]), int(order[-1])
    row["trained"] = [best, worst]
    if hard and own[best] == own[worst]:
        row["loss_weights"] = [0.0] * size  # a tie has no winner
        return
    row["loss_weights"] = [0.5 if i in (best, worst) else 0.0 for i in range(size)]
    if hard:
        for rates in row["win_rates"].values():
            rates[best], rates[worst] = 1.0, 0.0
