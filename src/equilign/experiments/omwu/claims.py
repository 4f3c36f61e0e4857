"""The paper's claims, each judged from measured numbers by the rule in its function.

``holds`` is None where this run's budget or spread does not decide; what was measured is said in
``evidence`` either way. Sources: "paper" for what its abstract and reviews state; what its
comparisons imply; "background" for what was known before.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import binomtest

from equilign.experiments.omwu import claims_networks
from equilign.experiments.omwu.contestants import REGULARISED_BETAS
from equilign.experiments.omwu.judging import (
    ALPHA,
    IMPLIED,
    MOST,
    Claim,
    Results,
    all_of,
    amount,
    array,
)
from equilign.experiments.omwu.linear_phase import WINDOW, summarise
from equilign.experiments.omwu.regrowth import regrowth_line


def _rows(results: Results, method: str, family: str) -> dict[str, Any]:
    tabular = results["tabular"][family]
    row: dict[str, Any] = tabular["contestants"][tabular["chosen"][method]]
    return row


def _families(results: Results, assumption: bool | None = None) -> Iterator[tuple[str, str]]:
    for name, found in results["tabular"].items():
        if assumption is None or found["assumption"] == assumption:
            yield name, found["title"]


def _settled(found: dict[str, Any]) -> bool | None:
    """True if most games end below 1e-6, False if more than a tenth stopped falling above."""
    if found["below_1e-6"] >= MOST * found["games"]:
        return True
    return False if found["stalled"] > (1.0 - MOST) * found["games"] else None


_SETTLED = (
    "Rule: holds if nine games in ten end below 1e-6; fails if more than one in ten has stopped "
    "falling above that (the largest gap of the second half of the run is not below 0.9 times that "
    "of the first); else the budget does not decide."
)


def _convergence(results: Results) -> Claim:
    verdicts, words = [], []
    for name, title in _families(results, assumption=True):
        study = results["linear"][name]
        found = summarise(study)
        verdicts.append(_settled(found))
        words.append(
            f"{title}: {found['below_1e-6']} of {found['games']} games below 1e-6 after "
            f"{study['steps']:,} steps (eta {study['eta']:g}), {found['stalled']} stalled, slowest "
            f"tenth still at {amount((found['final'] or [None] * 3)[2])}"
        )
    return Claim(
        "With a full-support equilibrium OMWU's last iterate converges to the original game's "
        "equilibrium, without regularisation.",
        all_of(verdicts),
        "; ".join(words)
        + f". {_SETTLED} Games with nearly degenerate equilibria take longer than any fixed "
        "budget.",
    )


def _linear(results: Results) -> Claim:
    """Straight lines over six decades: R^2, equal halves, and agreement with the prediction."""
    verdicts: list[bool | None] = []
    words = []
    for name, title in _families(results, assumption=True):
        found = summarise(results["linear"][name])
        if found["through"] < max(3, 0.5 * found["games"]):
            verdicts.append(None)
            words.append(f"{title}: only {found['through']} of {found['games']} got through")
            continue
        straight = found["r_squared"][0] >= 0.98 and 0.67 <= found["halves"][1] <= 1.5
        verdicts.append(straight)
        words.append(
            f"{title}: {found['through']} of {found['games']} games got through; R² of the line "
            f"{found['r_squared'][0]:.4f} to {found['r_squared'][2]:.4f}; the second three decades "
            f"took {found['halves'][1]:.2f} times as long as the first; the fitted 1 - rate is "
            f"{found['measured_over_predicted'][1]:.3f} times that of the linearised dynamics"
        )
    holds = False if False in verdicts else (None if None in verdicts else True)
    return Claim(
        "After a burn-in the convergence is linear: the gap falls by a constant factor per step.",
        holds,
        "; ".join(words)
        + f". Rule: fits between gaps {WINDOW[0]:g} and {WINDOW[1]:g}; holds if nine fits in ten "
        "have R² of at least 0.98 and the median of the halves' ratio is within 0.67 to 1.5 (1 is "
        "a straight line, 1000 a 1/t law); undecided if fewer than half of the games get through.",
    )


def _instances(results: Results) -> Claim:
    words, spreads = [], []
    for name, title in _families(results, assumption=True):
        found = summarise(results["linear"][name])
        if found["through"] >= 3:
            low, middle, high = found["one_minus_rate"]
            spreads.append(high / low)
            words.append(
                f"{title}: 1 - rate {amount(low)} to {amount(high)} (median {amount(middle)}), "
                f"burn-in {amount(found['burn_in'][0])} to {amount(found['burn_in'][2])} steps"
            )
    return Claim(
        "The rate and the burn-in depend on the instance.",
        (max(spreads) >= 5.0) if spreads else None,
        ("; ".join(words) or "no game got through the window")
        + ". Deciles over games of one size and one generator. Rule: holds if some family's upper "
        "decile of 1 - rate is at least 5 times the lower.",
    )


def _floors(results: Results) -> Claim:
    """EGPO stops where the theory says; OMWU goes below in most games."""
    agree, under, below, words = [], [], [], []
    for name, title in _families(results):
        rows = [r for r in results["floors"][name] if r["method"] == "egpo"]
        agree += [r["agree"] for r in rows]
        under += [r["settled_below"] for r in rows]
        found = summarise(results["linear"][name])
        below.append(found["below_floor"] / found["games"])
        words.append(
            f"{title}: exact floors "
            + ", ".join(f"{amount(r['exact_quantiles'][1])} (beta {r['beta']:g})" for r in rows)
            + f"; OMWU's long runs end below the smallest floor in {found['below_floor']} of "
            f"{found['games']} games"
        )
    reached = min(agree) >= MOST and min(below) >= MOST
    holds = True if reached else (False if max(under) > 1.0 - MOST else None)
    return Claim(
        "Regularised methods stop at a bias of the regularised equilibrium; OMWU has none.",
        holds,
        "Medians. "
        + "; ".join(words)
        + f". EGPO's measured floor is within 5 % of the exact one in {min(agree):.0%} or more of "
        "the games at every KL weight. Rule: holds if that share and the share of games with OMWU "
        "below the smallest floor are at least 90 %; fails if EGPO settles below its floor in more "
        "than 10 % of games.",
    )


def _other_floors(results: Results) -> Claim:
    counts: dict[str, list[float]] = {"omd": [], "nash-md": [], "egpo": []}
    for name, _ in _families(results):
        for row in results["floors"][name]:
            if row["method"] in counts and row["beta"] == min(REGULARISED_BETAS):
                counts[row["method"]].append(row["agree"])
    egpo = min(counts.pop("egpo"))
    worst = {method: max(shares) for method, shares in counts.items()}
    return Claim(
        "At a small KL weight OMD and Nash-MD do not even reach their floor; extragradient does.",
        max(worst.values()) <= 0.5 if egpo >= MOST else None,
        f"Share of games at the exact floor of beta {min(REGULARISED_BETAS):g} within the budget, "
        f"best family: OMD {worst['omd']:.0%}, Nash-MD {worst['nash-md']:.0%}; EGPO, worst family: "
        f"{egpo:.0%}. Rule: holds if the first two are at most a half; undecided if EGPO is below "
        "90 %.",
        "background",
    )


def _sign_test(ours: np.ndarray, theirs: np.ndarray) -> tuple[int, int, float]:
    better, worse = int((ours < theirs).sum()), int((ours > theirs).sum())
    return better, worse, binomtest(better, better + worse).pvalue if better + worse else 1.0


def _against(results: Results, rivals: tuple[str, ...], target: str) -> tuple[list[Any], list[str]]:
    """Per family: True, False or None by a sign test on calls to a target, and what was seen."""
    verdicts: list[bool | None] = []
    words = []
    for name, title in _families(results):
        rows = [_rows(results, rival, name) for rival in rivals]
        rival = min(
            rows, key=lambda r: [np.median(array(v)) for v in (r["arrival"][target], r["final"])]
        )
        ours, theirs = (array(r["arrival"][target]) for r in (_rows(results, "omwu", name), rival))
        better, worse, p = _sign_test(ours, theirs)
        verdicts.append((better > worse) if p < ALPHA else None)
        words.append(
            f"{title}: OMWU needs fewer calls in {better} games, {rival['title']} (beta "
            f"{rival['beta']:g}) in {worse}, medians {amount(float(np.median(ours)))} and "
            f"{amount(float(np.median(theirs)))}"
        )
    return verdicts, words


def _nested(results: Results) -> Claim:
    verdicts, words = _against(results, ("mpo", "comal"), "0.001")
    tried = [
        row
        for found in results["tabular"].values()
        for row in found["sweep"]
        if row["contestant"].split(":")[0] in ("mpo", "comal")
    ]
    arrived = sum(row["calls"]["0.001"][1] is not None for row in tried)
    return Claim(
        "OMWU beats nested loops with ten inner steps at equal oracle calls.",
        all_of(verdicts),
        "Calls to a lasting gap of 1e-3. "
        + "; ".join(words)
        + f". But nested loops must be tuned: {arrived} of {len(tried)} settings of step and KL "
        "weight reached 1e-3 in the median game while choosing. Rule: sign test per family at "
        "5 %; holds if OMWU wins everywhere, fails if it loses anywhere. The best nested method "
        "and setting per family is the rival.",
        IMPLIED,
    )


def _nested_free(results: Results) -> Claim:
    verdicts: list[bool | None] = []
    words = []
    for name, title in _families(results):
        ours = array(_rows(results, "omwu", name)["arrival"]["0.001"])
        rows = [_rows(results, rival, name) for rival in ("mpo", "comal")]
        theirs = min((array(r["arrival"]["0.001"]) / 10.0 for r in rows), key=np.median)
        better, worse, p = _sign_test(ours, theirs)
        verdicts.append((better > worse) if p < ALPHA else None)
        words.append(
            f"{title}: medians {amount(float(np.median(ours)))} and "
            f"{amount(float(np.median(theirs)))}"
        )
    return Claim(
        "Nested loops do poorly even when their ten inner steps are granted, one outer step "
        "against one of OMWU's.",
        all_of(verdicts),
        "Steps of OMWU and outer steps of the best nested method to a lasting gap of 1e-3. "
        + "; ".join(words)
        + ". Rule: as for equal calls.",
    )


def _regularised(results: Results) -> Claim:
    verdicts, words = _against(results, ("omd", "nash-md", "egpo"), "0.001")
    return Claim(
        "OMWU reaches a small gap of the original game sooner than regularised methods.",
        all_of(verdicts),
        "Calls to a lasting gap of 1e-3. "
        + "; ".join(words)
        + ". Rule: sign test per family at 5 %, as for nested loops.",
        IMPLIED,
    )


def _mwu(results: Results) -> Claim:
    outward, mean, words = [], [], []
    for name, title in _families(results):
        last, average = (_rows(results, m, name) for m in ("mwu", "mwu-average"))
        outward.append(float(np.mean(array(last["final"]) > 0.05)))
        fallen = array(average["final"]) < array(average["early"])
        mean.append(float(np.mean(fallen)))
        words.append(
            f"{title}: last {amount(last['final_quantiles'][1])}, average "
            f"{amount(average['final_quantiles'][1])} (median gaps at the best step of each)"
        )
    return Claim(
        "MWU (SPPO with the exact normaliser) fails in the last iterate; only its average "
        "converges.",
        min(outward) >= MOST and min(mean) >= MOST,
        "; ".join(words)
        + f". The last gap is above 0.05 in {min(outward):.0%} or more of the games, the average's "
        f"still falls from a tenth of the budget to its end in {min(mean):.0%} or more. Rule: "
        "holds if both shares are at least 90 %.",
        "background",
    )


def _average(results: Results) -> Claim:
    words = []
    verdicts: list[bool | None] = []
    for name, title in _families(results):
        last, average = (_rows(results, m, name) for m in ("omwu", "omwu-average"))
        better, worse, p = _sign_test(array(last["final"]), array(average["final"]))
        verdicts.append((better > worse) if p < ALPHA else None)
        words.append(
            f"{title}: last below average in {better} games, above in {worse} (medians "
            f"{amount(last['final_quantiles'][1])} and {amount(average['final_quantiles'][1])})"
        )
    return Claim(
        "OMWU's last iterate ends closer than its average.",
        all_of(verdicts),
        "; ".join(words)
        + ". The step of each was chosen for it. Rule: sign test per family at 5 %.",
        IMPLIED,
    )


def _assumption(results: Results) -> Claim:
    found, equilibrium = (
        summarise(results["linear"]["random"]),
        results["tabular"]["random"]["equilibrium"],
    )
    sizes = sorted(set(equilibrium["support"]))
    return Claim(
        "OMWU also converges where the assumption fails: random games of even size.",
        _settled(found),
        f"{equilibrium['full_support']} of {len(equilibrium['support'])} random games of 10 "
        f"responses have a full-support equilibrium (supports of {sizes} responses, all odd: an "
        "even skew matrix is almost never singular). OMWU still ends below 1e-6 in "
        f"{found['below_1e-6']} of {found['games']} of them after "
        f"{results['linear']['random']['steps']:,} steps. The theorem does not cover these games; "
        f"each has one equilibrium, for which older results do. {_SETTLED}",
        "background",
    )


def _regrows(results: Results) -> Claim:
    study = results["regrowth"]
    line = regrowth_line(study, "omwu")
    times = {r["power"]: r["regrown_at"] for r in study["runs"] if r["rule"] == "omwu"}
    slow = [r["power"] for r in study["runs"] if r["rule"] == "self-play-pg" and r["regrown_at"]]
    everyone = all(t is not None for t in times.values())
    holds = None if line is None else everyone and line["r_squared"] >= 0.95
    said = ", ".join(f"1e-{k}: {amount(t)}" for k, t in times.items())
    fitted = (
        ""
        if line is None
        else (f", {line['steps_per_decade']:.0f} steps per decade (R² {line['r_squared']:.3f})")
    )
    return Claim(
        "Under OMWU a rarely played response grows back from an exponentially small probability, "
        "in a time linear in the number of its decades.",
        holds,
        f"Steps until it has half its equilibrium probability: {said}{fitted}. Policy gradient "
        f"with pairs of the policy's own, in {study['steps']:,} steps: "
        + (f"from {', '.join(f'1e-{k}' for k in slow)} only" if slow else "from none of them")
        + ". Rule: holds if it regrows from every start and the line has R² of at least 0.95; "
        "undecided with fewer than three regrowths.",
    )


RULES: tuple[Callable[[Results], Claim], ...] = (
    _convergence,
    _linear,
    _instances,
    _floors,
    _other_floors,
    _regularised,
    _nested,
    _nested_free,
    _mwu,
    _average,
    _assumption,
    _regrows,
    claims_networks.closest,
    claims_networks.beats_nested,
    claims_networks.beats_mwu,
)
"""One function per claim."""


def judge(results: Results) -> list[dict[str, Any]]:
    """Every claim with its verdict.

    Args:
        results: ``tabular``, ``floors`` and ``linear`` by family, ``regrowth``, and ``neural`` by
            family, as the studies return them.
    """
    return [asdict(rule(results)) for rule in RULES]
