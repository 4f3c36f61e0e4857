"""Numbers of a refinement, from the lines of its output: nothing is kept per prompt."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from equilign.evaluation.best_of_n import DUELS, PLAYERS
from equilign.evaluation.intervals import Estimate
from equilign.evaluation.running import RunningMean
from equilign.experiments.refine.config import RefineConfig

_ANY = (-float("inf"), float("inf"))


@dataclass
class Tally:
    """Means over prompts of means over each prompt's chains, by name.

    Attributes:
        means: name -> what it is by now.
        prompts: lines so far.
        chains: answers of the Leader so far.
    """

    means: dict[str, RunningMean] = field(default_factory=dict)
    prompts: int = 0
    chains: int = 0

    def add(self, name: str, values: Iterable[float | None]) -> None:
        """The values of a prompt's chains; None is no verdict."""
        known = [float(v) for v in values if v is not None]
        mean = self.means.setdefault(name, RunningMean())
        if known:
            mean.add(sum(known) / len(known))

    def value(self, name: str) -> float | None:
        """A mean; None where there is nothing."""
        found = self.means.get(name)
        return found.mean if found is not None and found.count else None

    def estimate(self, name: str, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate | None:
        """A mean with its interval; None where there is nothing."""
        found = self.means.get(name)
        return None if found is None else found.estimate(bounds)


def add_line(tally: Tally, config: RefineConfig, line: Mapping[str, Any]) -> None:
    """Count one line of the output."""
    numbers = line["refinement"]
    tally.prompts += 1
    tally.chains += len(numbers["tokens"])
    for number in range(config.rounds + 1):
        for name in ("tokens", "empty", "cut"):
            tally.add(f"{name} {number}", [row[number] for row in numbers[name]])
    for number in range(1, config.rounds + 1):
        tally.add(f"unchanged {number}", [row[number - 1] for row in numbers["unchanged"]])
        stopped = [s is not None and s <= number for s in numbers["stopped"]]
        tally.add(f"stopped {number}", stopped)
        if "wins" in numbers:
            wins = [row[number - 1] for row in numbers["wins"]]
            tally.add(f"win {number}", wins)
            tally.add(f"no verdict {number}", [w is None for w in wins])
    if "picked" in numbers:
        _add_picked(tally, config, numbers)
    if "budgets" in numbers:
        for name in (*PLAYERS, *DUELS):
            for n in range(1, config.rounds + 2):
                tally.add(f"{name} {n}", [chain[name][n - 1] for chain in numbers["budgets"]])


def _add_picked(tally: Tally, config: RefineConfig, numbers: Mapping[str, Any]) -> None:
    picked = numbers["picked"]
    places = [config.rounds if p is None else p for p in picked]
    tally.add("undecided", [p is None for p in picked])
    tally.add("picked tokens", [row[p] for row, p in zip(numbers["tokens"], places, strict=True)])
    # The Leader's own answer ties with itself.
    wins = [0.5 if p == 0 else row[p - 1] for row, p in zip(numbers["wins"], places, strict=True)]
    tally.add("picked win", wins)
    for number in range(config.rounds + 1):
        tally.add(f"picked {number}", [p == number for p in picked])


def _named(name: str, found: Estimate | None) -> dict[str, float | None]:
    if found is None:
        return {name: None, "low": None, "high": None}
    return {name: found.value, "low": found.low, "high": found.high}


def summarise(tally: Tally, config: RefineConfig) -> dict[str, Any]:
    """The numbers of a refinement as JSON.

    Returns:
        ``leader, rounds, picked, compare, prompts, chains``; see the reference of the command.
    """
    return {
        "leader": {**_answers(tally, 0), "cut_share": _cut_of_leader(tally, config)},
        "rounds": [_round(tally, number) for number in range(1, config.rounds + 1)],
        "picked": _picked(tally, config),
        "compare": _compare(tally, config),
        "prompts": tally.prompts,
        "chains": tally.chains,
    }


def _cut_of_leader(tally: Tally, config: RefineConfig) -> float | None:
    # A file of answers does not say which were cut.
    return None if config.answers is not None else tally.value("cut 0")


def _answers(tally: Tally, number: int) -> dict[str, Any]:
    length = tally.estimate(f"tokens {number}", _ANY)
    return {
        "mean_tokens": None if length is None else length.value,
        "tokens_interval": None if length is None or length.count < 2 else _ends(length),
        "empty_share": tally.value(f"empty {number}"),
        "cut_share": tally.value(f"cut {number}"),
    }


def _ends(estimate: Estimate) -> list[float]:
    return [estimate.low, estimate.high]


def _round(tally: Tally, number: int) -> dict[str, Any]:
    win = tally.estimate(f"win {number}")
    return {
        "round": number,
        **_named("win_rate_vs_leader", win),
        "judged_prompts": 0 if win is None else win.count,
        "no_verdict_share": tally.value(f"no verdict {number}"),
        **_answers(tally, number),
        "unchanged_share": tally.value(f"unchanged {number}"),
        "too_long_share": tally.value(f"stopped {number}"),
    }


def _picked(tally: Tally, config: RefineConfig) -> dict[str, Any] | None:
    if "undecided" not in tally.means:
        return None
    return {
        **_named("win_rate_vs_leader", tally.estimate("picked win")),
        "mean_tokens": tally.value("picked tokens"),
        "round_shares": [tally.value(f"picked {n}") for n in range(config.rounds + 1)],
        "no_verdict_share": tally.value("undecided"),
    }


def _compare(tally: Tally, config: RefineConfig) -> dict[str, Any] | None:
    if not config.compare:
        return None
    budgets = range(1, config.rounds + 2)

    def row(name: str) -> dict[str, Sequence[float | None]]:
        found = [_named("win_rate", tally.estimate(f"{name} {n}")) for n in budgets]
        return {key: [f[key] for f in found] for key in ("win_rate", "low", "high")}

    return {
        "answers": list(budgets),
        "opponents": config.opponents,
        "players": {name: {"title": title, **row(name)} for name, title in PLAYERS.items()},
        "head_to_head": {name: row(name) for name in DUELS},
    }
