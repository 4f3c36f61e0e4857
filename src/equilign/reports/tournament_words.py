"""What a tournament found, in sentences."""

from collections.abc import Mapping
from typing import Any

from equilign.reports.run import Estimate
from equilign.reports.words import NBSP, percent, plural, share

_NEVER = 1e-6


def estimate(value: float | None, low: float | None, high: float | None) -> Estimate:
    """Three numbers as the page's estimate."""
    return Estimate(value, low, high)


def lead(results: Mapping[str, Any]) -> list[str]:
    """The summary: who wins by both rankings, and whether they agree."""
    players, prompts = results["players"], results["prompts"]
    first = (
        f"{plural(len(players), 'player')} answered the same {plural(prompts, 'prompt')}; "
        f"the judge “{results['oracle']}” compared every two of them in both orders."
    )
    words = [f"{first} {_favourite(results)}", _rankings(results)]
    return words if len(players) < 3 else [*words, _certain(results)]


def _favourite(results: Mapping[str, Any]) -> str:
    rated = {n: e for n, e in results["against_all"].items() if e["win_rate"] is not None}
    best = max(rated, key=lambda n: rated[n]["win_rate"])
    e = rated[best]
    found = share(estimate(e["win_rate"], e["low"], e["high"]))
    return f"{best} wins most: it is preferred in {found} of its comparisons."


def _rankings(results: Mapping[str, Any]) -> str:
    favourite = results["bradley_terry"]["favourite"]
    lottery = {n: p for n, p in results["lottery"].items() if p > _NEVER}
    winner = results["condorcet_winner"]
    if winner is not None:
        words = (
            f"{winner} beats every other player head to head, so the maximal lottery plays nobody "
            "else"
        )
        sure = _sure(results, winner)
        if winner == favourite:
            return f"{words}; it is also the first by Bradley-Terry. {sure}"
        return f"{words}. Bradley-Terry, which counts by how much, puts {favourite} first. {sure}"
    ordered = sorted(lottery, key=lambda n: -lottery[n])
    mixture = ", ".join(f"{n} ({percent(lottery[n])})" for n in ordered[:5])
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return (
        f"No player beats every other one. Bradley-Terry puts {favourite} first; the maximal "
        f"lottery plays {mixture}{more}."
    )


def _sure(results: Mapping[str, Any], winner: str) -> str:
    """Whether the intervals of all its win rates lie above one half."""
    i = results["players"].index(winner)
    lows = [low for j, low in enumerate(results["low"][i]) if j != i]
    open_ones = sum(low is None or low <= 0.5 for low in lows)
    if not open_ones:
        return f"The intervals of all its win rates lie above 50{NBSP}%."
    return (
        f"Against {open_ones} of the {len(lows)} the interval contains 50{NBSP}%: chance may have "
        "decided that."
        if len(lows) > 1
        else f"But the interval contains 50{NBSP}%: chance may have decided that."
    )


def _certain(results: Mapping[str, Any]) -> str:
    cycles = results["cycles"]
    if not cycles["count"]:
        return "No three players beat each other in a circle."
    sure = cycles["significant"]
    return (
        f"{plural(cycles['count'], 'cycle')} of three players, each preferred to the next on more "
        f"prompts; {sure} of them {_are(sure)} more than noise."
    )


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def judge_words(results: Mapping[str, Any]) -> list[str]:
    """Whether the judge minds the order, how often it has nothing to say, what was asked."""
    order, counts = results["order"], results["comparisons"]
    found = []
    swapped, first = order["swapped"], order["first_wins"]
    if swapped["share"] is not None:
        found.append(
            f"Every pair was shown in both orders. The winner changed with the order in "
            f"{share(estimate(swapped['share'], swapped['low'], swapped['high']))} of the pairs "
            f"that were decided, and the answer shown first won "
            f"{share(estimate(first['share'], first['low'], first['high']))} of the time."
        )
    if counts["no_verdict"]:
        found.append(
            f"{plural(counts['no_verdict'], 'pair')} got no verdict in one of the orders, and "
            "count nowhere."
        )
    else:
        found.append("Every pair that was asked got a verdict.")
    if counts["equal_texts"]:
        found.append(
            f"{plural(counts['equal_texts'], 'pair')} of equal texts are ties and were not asked."
        )
    graphs = results["prompt_cycles"]
    if graphs["able"]:
        cyclic, winner = graphs["cyclic"], graphs["condorcet_winner"]
        found.append(
            f"On {share(estimate(cyclic['share'], cyclic['low'], cyclic['high']))} of the prompts "
            "the players’ answers beat each other in a circle; on "
            f"{share(estimate(winner['share'], winner['low'], winner['high']))} one answer beats "
            "all others."
        )
    return found


def view_words(results: Mapping[str, Any], shown: int, cut: int, texts_cut: int) -> str:
    """What the view of single prompts holds, and where the rest is."""
    total = results["prompts"]
    words = f"All {plural(total, 'prompt')} with all answers."
    if shown < total:
        words = f"The first {shown:,} of {plural(total, 'prompt')} with their answers."
    if texts_cut:
        words += (
            f" To keep the page small, {plural(texts_cut, 'text')} longer than {cut:,} characters "
            f"{_are(texts_cut)} cut; the search sees what is here."
        )
    if shown < total or texts_cut:
        words += f" The file prompts.jsonl beside this page has everything,{NBSP}whole."
    return words
