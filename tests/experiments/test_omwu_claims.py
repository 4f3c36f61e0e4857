"""Verdicts follow the numbers: the same rules, other measurements, other verdicts."""

import numpy as np
import pytest

from equilign.experiments.omwu import claims, claims_networks
from equilign.experiments.omwu.claims import judge
from equilign.experiments.omwu.judging import IMPLIED, amount
from equilign.experiments.omwu.linear_phase import summarise


def verdict(rule, results):
    return rule(results).holds


def set_all(results, method, key, value):
    for found in results["tabular"].values():
        row = found["contestants"][found["chosen"][method]]
        target = row[key]
        if isinstance(target, dict):
            for name in target:
                target[name] = [value] * len(target[name])
        else:
            row[key] = [value] * len(target)


def many_games(results, count=20):
    """Repeat the games of every contestant, so that sign tests can decide."""
    for found in results["tabular"].values():
        for row in found["contestants"].values():
            for key in ("final", "early"):
                row[key] = (row[key] * count)[:count]
            row["arrival"] = {t: (a * count)[:count] for t, a in row["arrival"].items()}


def good_fit():
    return {
        "burn_in": 100.0,
        "end": 1000.0,
        "rate": 0.98,
        "r_squared": 0.999,
        "halves": 1.0,
        "predicted": 0.98,
        "final": 1e-14,
        "floor": 1e-4,
        "falling": True,
        "unique": True,
        "support": 11,
    }


def set_fits(results, **changes):
    for study in results["linear"].values():
        study["fits"] = [{**good_fit(), **changes} for _ in range(10)]
        study["games"] = 10


def test_every_claim_has_its_parts(tiny_results):
    found = judge(tiny_results)
    assert len(found) == len(claims.RULES)
    for claim in found:
        assert set(claim) == {"claim", "holds", "evidence", "source"}
        assert claim["holds"] in (True, False, None)
        assert "Rule:" in claim["evidence"]
        assert "nan" not in claim["evidence"]
        assert claim["source"] in ("paper", "background", IMPLIED)
    assert len({claim["claim"] for claim in found}) == len(found)


def test_convergence(tiny_results):
    set_fits(tiny_results)
    assert verdict(claims._convergence, tiny_results) is True
    assert verdict(claims._assumption, tiny_results) is True
    set_fits(tiny_results, final=1e-3)
    assert verdict(claims._convergence, tiny_results) is None
    set_fits(tiny_results, final=1e-3, falling=False)
    assert verdict(claims._convergence, tiny_results) is False
    assert verdict(claims._assumption, tiny_results) is False
    set_fits(tiny_results, final=None, falling=False)
    assert verdict(claims._convergence, tiny_results) is False, "divergence is no convergence"


def test_linear_phase(tiny_results):
    set_fits(tiny_results)
    assert verdict(claims._linear, tiny_results) is True
    set_fits(tiny_results, r_squared=0.8)
    assert verdict(claims._linear, tiny_results) is False
    set_fits(tiny_results, halves=30.0)
    assert verdict(claims._linear, tiny_results) is False
    nothing = dict.fromkeys(("burn_in", "end", "rate", "r_squared", "halves"))
    set_fits(tiny_results, **nothing)
    assert verdict(claims._linear, tiny_results) is None
    assert verdict(claims._instances, tiny_results) is None


def test_instance_dependence(tiny_results):
    set_fits(tiny_results)
    assert verdict(claims._instances, tiny_results) is False
    for study in tiny_results["linear"].values():
        for k, fit in enumerate(study["fits"]):
            fit["rate"] = 1.0 - 10.0 ** -(1 + k / 3)
    assert verdict(claims._instances, tiny_results) is True


def test_floors(tiny_results):
    for rows in tiny_results["floors"].values():
        for row in rows:
            row["agree"], row["settled_below"] = 1.0, 0.0
    set_fits(tiny_results, final=1e-12)
    assert verdict(claims._floors, tiny_results) is True
    set_fits(tiny_results, final=0.3)
    assert verdict(claims._floors, tiny_results) is None
    for rows in tiny_results["floors"].values():
        for row in rows:
            row["agree"], row["settled_below"] = 0.5, 0.5
    assert verdict(claims._floors, tiny_results) is False


def test_slow_regularised_methods(tiny_results):
    def set_agreement(egpo, others):
        for rows in tiny_results["floors"].values():
            for row in rows:
                row["agree"] = egpo if row["method"] == "egpo" else others

    for egpo, others, expected in ((1.0, 0.1, True), (1.0, 0.9, False), (0.3, 0.1, None)):
        set_agreement(egpo, others)
        assert verdict(claims._other_floors, tiny_results) is expected


@pytest.mark.parametrize(
    ("rule", "rivals"),
    [
        (claims._nested, ("mpo", "comal")),
        (claims._nested_free, ("mpo", "comal")),
        (claims._regularised, ("omd", "nash-md", "egpo")),
    ],
)
def test_races(tiny_results, rule, rivals):
    many_games(tiny_results)
    set_all(tiny_results, "omwu", "arrival", 100.0)
    for expected, calls in ((True, 5000.0), (False, 50.0)):
        for rival in rivals:
            set_all(tiny_results, rival, "arrival", calls)
        assert verdict(rule, tiny_results) is expected
    # All rivals equal in one family: no winner there, no verdict overall.
    for rival in rivals:
        set_all(tiny_results, rival, "arrival", 5000.0)
        row = tiny_results["tabular"]["random"]
        row = row["contestants"][row["chosen"][rival]]
        free = 10.0 if rule is claims._nested_free else 1.0
        row["arrival"]["0.001"] = [100.0 * free] * 20
    assert verdict(rule, tiny_results) is None


def test_a_race_needs_more_than_a_few_games(tiny_results):
    set_all(tiny_results, "omwu", "arrival", 10.0)
    for rival in ("mpo", "comal"):
        set_all(tiny_results, rival, "arrival", 5000.0)
    assert verdict(claims._nested, tiny_results) is None, "four games do not decide at 5 %"


def test_last_and_average(tiny_results):
    many_games(tiny_results)
    set_all(tiny_results, "mwu", "final", 0.5)
    set_all(tiny_results, "mwu-average", "final", 1e-3)
    set_all(tiny_results, "mwu-average", "early", 1e-2)
    assert verdict(claims._mwu, tiny_results) is True
    set_all(tiny_results, "mwu", "final", 1e-3)
    assert verdict(claims._mwu, tiny_results) is False
    for last, expected in ((1e-9, True), (1e-1, False)):
        set_all(tiny_results, "omwu", "final", last)
        set_all(tiny_results, "omwu-average", "final", 1e-5)
        assert verdict(claims._average, tiny_results) is expected


def test_regrowth(tiny_results):
    def runs(times):
        return [
            {"rule": "omwu", "power": k, "regrown_at": t}
            for k, t in zip((5, 10, 30, 100), times, strict=True)
        ]

    study = tiny_results["regrowth"]
    for times, expected in (
        ((50, 100, 300, 1000), True),
        ((50, 100, 300, None), False),
        ((10, 10_000, 20, 10_000), False),
        ((50, 100, None, None), None),
    ):
        study["runs"] = runs(times)
        assert verdict(claims._regrows, tiny_results) is expected


def test_networks(tiny_results):
    def set_final(method, value):
        for found in tiny_results["neural"].values():
            for row in found["contestants"].values():
                if row["method"] == method:
                    row["final"] = [value] * 4
                elif len(row["final"]) != 4:
                    row["final"] = [0.1] * 4

    set_final("omwu", 0.001)
    assert verdict(claims_networks.closest, tiny_results) is True
    assert verdict(claims_networks.beats_mwu, tiny_results) is True
    assert verdict(claims_networks.beats_nested, tiny_results) is True
    set_final("comal", 0.0001)
    assert verdict(claims_networks.closest, tiny_results) is False
    assert verdict(claims_networks.beats_nested, tiny_results) is True, "this one has single steps"
    set_final("comal-fit", 1e-4)
    assert verdict(claims_networks.beats_nested, tiny_results) is False
    set_final("mwu", 1e-5)
    assert verdict(claims_networks.beats_mwu, tiny_results) is False
    for found in tiny_results["neural"].values():
        found["contestants"]["omwu"]["final"] = [0.5, 1e-6, 0.5, 1e-6]
    assert verdict(claims_networks.closest, tiny_results) is None


def test_summaries_count_what_did_not_get_through(tiny_results):
    set_fits(tiny_results)
    study = tiny_results["linear"]["full-odd"]
    study["fits"][0] = {**good_fit(), "rate": None, "final": 0.01, "falling": False}
    found = summarise(study)
    assert (found["games"], found["through"], found["stalled"]) == (10, 9, 1)
    assert found["below_1e-6"] == 9
    assert found["measured_over_predicted"][1] == pytest.approx(1.0)


def test_amounts_read_well():
    assert amount(None) == "never"
    assert amount(np.inf) == "never"
    assert amount(0.0) == "0"
    assert amount(12345.6) == "12,346"
    assert amount(0.001234) == "0.0012"
    assert amount(3e-17) == "3e-17"
