"""What the paper says of matrix games, judged from exact solutions."""

from collections.abc import Callable

import numpy as np

from equilign.experiments.slhf.results import Results
from equilign.experiments.slhf.tabular import CHAINS
from equilign.experiments.verdicts import Claim

EXACT = 1e-9


def hits_sooner(results: Results) -> Claim:
    """Refinement shows every annotator their favourite in three answers."""
    hits = results.tabular["hits"]
    refined, alone = hits["refinement"], hits["independent"]
    wanted = [1 / 3, 2 / 3, 1.0]
    exact = np.allclose(refined["exact"][:3], wanted, atol=EXACT)
    formula = np.allclose(alone["exact"], alone["formula"], atol=EXACT)
    drawn = all(
        abs(d - e) <= 4.0 * np.sqrt(max(e * (1.0 - e), 1.0 / CHAINS) / CHAINS)
        for found in (refined, alone)
        for d, e in zip(found["drawn"], found["exact"], strict=True)
    )
    return Claim(
        "In Condorcet’s paradox refinement shows a random annotator their favourite with "
        "probability 1/3, 2/3, 1 after one, two, three answers; independent answers of the Nash "
        "policy with 1 - (2/3)^N.",
        bool(exact and formula and drawn),
        f"Refinement {_row(refined['exact'])}, of {CHAINS:,} simulated chains "
        f"{_row(refined['drawn'])}; independent {_row(alone['exact'])}, simulated "
        f"{_row(alone['drawn'])}. Rule: exact to {EXACT:g}, simulations within four standard "
        "errors.",
    )


def _row(values: list[float]) -> str:
    return ", ".join(f"{v:.3f}" for v in values)


def scores_move(results: Results) -> Claim:
    """Bradley-Terry's favourite depends on how pairs are sampled; the equilibria do not."""
    found = results.tabular["sampling"]
    favourite, moved = found["favourite"], found["moved"]["infinite"]
    several = sum(share > 0.0 for share in favourite["bradley-terry"].values()) > 1
    still = all(moved[c] <= EXACT for c in ("nash", "stackelberg"))
    shares = ", ".join(f"{k} {v:.0%}" for k, v in favourite["bradley-terry"].items())
    finite = ", ".join(f"{k} {v:.3f}" for k, v in found["moved"]["finite"].items())
    return Claim(
        "Which answer Bradley-Terry scores highest depends on how often each pair is compared; the "
        "Nash and the Stackelberg policy do not.",
        bool(several and still),
        f"Over ways of sampling pairs, Bradley-Terry’s favourite is {shares}; Nash and Stackelberg "
        f"policies move by {moved['nash']:.1g} and {moved['stackelberg']:.1g} (total variation). "
        f"From finite data, mean change: {finite}. Rule: more than one favourite; no change of the "
        f"others above {EXACT:g} with infinitely many comparisons.",
    )


def commits(results: Results) -> Claim:
    """In the skewed cycle the Leader commits to one response, where Nash must mix."""
    rows = {row["concept"]: row for row in results.tabular["concepts"]["comal"]}
    led, nash = rows["stackelberg"]["policy"], rows["nash"]["policy"]
    best = max(led, key=led.__getitem__)
    mixed = sum(p > EXACT for p in nash.values())
    return Claim(
        "Without a Condorcet winner the Nash policy mixes, while the Stackelberg Leader commits to "
        "the answer with the best worst case.",
        bool(led[best] > 1.0 - EXACT and mixed > 1),
        f"COMAL’s cycle: Leader {_law(led)}, worst case {rows['stackelberg']['value']:.3f}; Nash "
        f"{_law(nash)}; Bradley-Terry {_law(rows['bradley-terry']['policy'])}. Rule: the Leader "
        "plays one response, Nash more than one.",
    )


def _law(policy: dict[str, float]) -> str:
    return " ".join(f"{name} {share:.3f}" for name, share in policy.items())


TABULAR_RULES: tuple[Callable[[Results], Claim], ...] = (hits_sooner, commits, scores_move)
"""In the order of the page."""
