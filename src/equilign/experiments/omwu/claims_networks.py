"""Claims about networks."""

import numpy as np

from equilign.experiments.omwu.judging import IMPLIED, Claim, Results, all_of, amount, array


def _against(results: Results, rivals: tuple[str, ...]) -> tuple[bool | None, str]:
    """OMWU against the best of some last iterates: a verdict only where all games agree."""
    verdicts: list[bool | None] = []
    words = []
    for found in results["neural"].values():
        rows = [r for r in found["contestants"].values() if r["method"] in rivals]
        rival = min(rows, key=lambda r: np.median(array(r["final"])))
        ours, theirs = array(found["contestants"]["omwu"]["final"]), array(rival["final"])
        wins, losses = int((ours < theirs).sum()), int((ours > theirs).sum())
        agreed = len(ours) >= 3 and max(wins, losses) == len(ours)
        verdicts.append((wins > losses) if agreed else None)
        words.append(
            f"{found['title']}: OMWU ends at {amount(float(np.median(ours)))}, {rival['title']} at "
            f"{amount(float(np.median(theirs)))}; lower in {wins} of {len(ours)} games"
        )
    return all_of(verdicts), "; ".join(words)


_RULE = (
    ". Median gaps after the same number of gradient steps, each method with its best learning "
    "rate. Rule: per family, decided only if at least three games were kept for reporting and all "
    "of them agree; the best of the rivals counts."
)


def closest(results: Results) -> Claim:
    """The best of all last iterates is the rival."""
    own = ("mwu", "omd", "nash-md", "egpo", "mpo", "comal", "comal-fit", "mwu-fit")
    holds, words = _against(results, own)
    return Claim(
        "With networks too OMWU's last iterate gets closest to the original equilibrium.",
        holds,
        words + _RULE,
        IMPLIED,
    )


def beats_nested(results: Results) -> Claim:
    """Methods with ten gradient steps per target are the rivals."""
    holds, words = _against(results, ("comal-fit", "mwu-fit"))
    return Claim(
        "With networks, nested loops that fit a target by ten gradient steps do worse than OMWU.",
        holds,
        words + _RULE,
    )


def beats_mwu(results: Results) -> Claim:
    """MWU alone is the rival."""
    holds, words = _against(results, ("mwu",))
    return Claim(
        "With networks OMWU's last iterate ends lower than MWU's (SPPO's).",
        holds,
        words + _RULE,
        IMPLIED,
    )
