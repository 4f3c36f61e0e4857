"""A diagnosis as plain values."""

from dataclasses import asdict
from typing import Any

from equilign.diagnosis.diagnose import Diagnosis, Pool


def as_json(d: Diagnosis) -> dict[str, Any]:
    """Plain values by stable keys; None where something does not apply."""
    data, pool, prompts = d.data, d.pool, d.prompts
    total = None
    if data.comparisons is not None:
        total = data.comparisons.total
    elif data.wins is not None:
        total = float(data.wins.sum())
    found: dict[str, Any] = {
        "source": data.source,
        "comparisons": total,
        "players": None if pool is None else list(data.labels),
        "number_of_players": len(data.labels),
        "pooled": pool is not None,
        "coverage": None if pool is None else asdict(pool.coverage),
        "condorcet_winner": None,
        "weak_condorcet_winners": None,
        "smith_set": None,
        "cycles": {"count": 0, "significant": None, "triples": 0},
        "bradley_terry": None,
        "hodge": None,
        "lottery": None,
        "lottery_unique": None,
    }
    if pool is not None:
        found |= _pool(pool, data.labels)
    elif prompts is not None:
        found["cycles"] = {
            "count": prompts.cyclic_triples,
            "significant": prompts.significant_cycles,
            "triples": prompts.strict_triples,
        }
    for key, part in (
        ("position_bias", d.position),
        ("prompts", prompts),
        ("annotators", d.annotators),
        ("attributes", d.attributes),
    ):
        found[key] = None if part is None else asdict(part)
    return found | {
        "verdict": d.verdict,
        "recommendation": d.recommendation,
        "reasons": list(d.reasons),
        "tolerance": d.tolerance,
        "seed": d.seed,
        "notes": list(d.notes),
    }


def _pool(pool: Pool, names: tuple[str, ...]) -> dict[str, Any]:
    winner = pool.condorcet_winner
    hodge = asdict(pool.intransitivity)
    hodge["ratings"] = dict(zip(names, pool.intransitivity.ratings, strict=True))
    return {
        "condorcet_winner": None if winner is None else names[winner],
        "weak_condorcet_winners": [names[i] for i in pool.weak_winners],
        "smith_set": [names[i] for i in pool.smith],
        "cycles": _cycles(pool, names),
        "bradley_terry": _bradley_terry(pool, names),
        "hodge": hodge,
        "lottery": dict(zip(names, pool.lottery.tolist(), strict=True)),
        "lottery_unique": pool.lottery_unique,
    }


def _cycles(pool: Pool, names: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "count": pool.cyclic_triples,
        "significant": None,
        "triples": pool.strict_triples,
        "longer_significant": None,
        "method": None,
        "under_bradley_terry": None,
        "p_value": None,
        "examples": [],
    }
    tests, null = pool.cycles, pool.rating.null
    if tests is None or null is None:
        return found
    from equilign.diagnosis.rating import upper_p_value

    found |= {
        "significant": tests.significant,
        "longer_significant": tests.longer,
        "method": tests.method,
        "under_bradley_terry": float(null.cyclic_triples.mean()),
        "p_value": upper_p_value(float(pool.cyclic_triples), null.cyclic_triples),
    }
    for cycle in tests.best:
        i, j, k = cycle.players
        found["examples"].append(
            {
                "players": [names[i], names[j], names[k]],
                "win_rates": [float(pool.prefs[x, y]) for x, y in ((i, j), (j, k), (k, i))],
                "p_value": cycle.p_value,
                "adjusted_p": cycle.adjusted_p,
            }
        )
    return found


def _bradley_terry(pool: Pool, names: tuple[str, ...]) -> dict[str, Any]:
    rating = pool.rating
    fit, loss = rating.fit, rating.loss
    scores = [float(s) for s in fit.scores]
    return {
        "favourite": names[int(fit.favourite)],
        "worst_opponent": names[loss.opponent],
        "worst_loss": loss.loss,
        "worst_loss_low": loss.low,
        "worst_loss_high": loss.high,
        "worst_loss_margin": 2.0 * loss.loss,
        "p_value": rating.p_value,
        "deviance": float(fit.deviance),
        "degrees_of_freedom": int(fit.degrees_of_freedom),
        "mean_error": rating.errors.mean,
        "rms_error": rating.errors.rms,
        "largest_error": rating.errors.largest,
        "wrong_side": rating.errors.wrong_side,
        "misfit": rating.misfit,
        "misfit_bound": rating.misfit_bound,
        "bootstrap": rating.bootstrap,
        "separated": bool(fit.separated),
        "converged": bool(fit.converged),
        "scores": dict(zip(names, scores, strict=True)),
    }
