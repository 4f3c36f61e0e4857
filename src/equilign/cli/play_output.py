"""What `equilign play` prints: one JSON object, or tables."""

import math
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from equilign.cli.console import plain, print_json
from equilign.cli.play_options import family_options
from equilign.games import PreferenceGame, Solution, solve
from equilign.methods import METHODS
from equilign.play import Trajectory
from equilign.rules import RULES, LeaderFollowerRule, MirrorRule, Rule, Slot, Step

THRESHOLDS = (1e-3, 1e-6)
"""Gaps whose first recorded step is told."""

_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", "_.:-=+*#"
_LEAST_GAP = 1e-16
_INFINITE = 1e100
"""Gaps above stand for infinity: a response that the reference never gives is played."""
_WIDEST_CURVE, _NARROWEST_CURVE = 24, 6
_MOST_SHOWN = 3


@dataclass(frozen=True, eq=False)
class PlayedRule:
    """One rule's run and how long it took in seconds."""

    rule: Rule
    trajectory: Trajectory
    seconds: float


@dataclass(frozen=True, eq=False)
class PlayRun:
    """Everything that was played.

    Attributes:
        source: the game as the user named it.
        game: with its KL weight and reference.
        options: those that all rules shared.
        equilibrium: the game's.
        played: in the order asked for.
    """

    source: str
    game: PreferenceGame
    options: dict[str, Any]
    equilibrium: Solution
    played: list[PlayedRule]


def _stackelberg(game: PreferenceGame, trajectory: Trajectory) -> Solution:
    own = trajectory.options
    leads = replace(game, beta=own["beta"])
    return solve(leads, "stackelberg", beta_follower=own["beta_follower"], follower=False)


_TARGETS: dict[type, Callable[[PreferenceGame, Trajectory], Solution]] = {
    LeaderFollowerRule: _stackelberg
}
"""What a family's distance is measured from, where that is not the game's Nash equilibrium."""


def distance_to_target(run: PlayRun, played: PlayedRule) -> float | None:
    """Total variation from the last policy to the equilibria of the game that the rule plays.

    None where they are many and only the set of Nash equilibria could be searched.
    """
    last = played.trajectory
    target = _TARGETS.get(type(played.rule))
    if target is not None:
        goal = target(run.game, last)
        if not goal.unique:
            return None
        return float(np.abs(last.final_policy - goal.policy).sum() / 2.0)
    if last.log_policies is None:
        return None
    one = replace(
        last,
        steps=last.steps[-1:],
        duality_gap=last.duality_gap[-1:],
        average_duality_gap=last.average_duality_gap[-1:],
        log_policies=last.final_log_policy[None],
    )
    # The solution is known: where `Trajectory.equilibrium` keeps its own.
    vars(one)["equilibrium"] = run.equilibrium
    return float(one.distance_to_equilibrium()[0])


def first_steps(trajectory: Trajectory) -> dict[str, int | None]:
    """The first recorded step whose last policy has a gap of at most each of `THRESHOLDS`."""
    found: dict[str, int | None] = {}
    for threshold in THRESHOLDS:
        reached = np.flatnonzero(trajectory.duality_gap <= threshold)
        found[f"{threshold:g}"] = int(trajectory.steps[reached[0]]) if reached.size else None
    return found


def summarise(run: PlayRun) -> dict[str, Any]:
    """The JSON object: numbers that are not finite become null."""
    best = run.equilibrium
    found: dict[str, Any] = jsonable(
        {
            "game": run.source,
            "labels": run.game.names,
            "options": {
                **run.options,
                "game_beta": run.game.beta,
                "reference": run.game.reference,
            },
            "equilibrium": {
                "policy": best.policy,
                "unique": best.unique,
                "duality_gap": best.gap,
                "status": best.status,
                "notes": best.notes,
            },
            "rules": {p.rule.name: _of_rule(run, p) for p in run.played},
        }
    )
    return found


def _of_rule(run: PlayRun, played: PlayedRule) -> dict[str, Any]:
    t = played.trajectory
    return {
        "title": played.rule.title,
        "status": t.status,
        "steps": t.steps,
        "duality_gap": _finite(t.duality_gap),
        "average_duality_gap": _finite(t.average_duality_gap),
        "final_policy": t.final_policy,
        "average_policy": t.average_policy,
        "steps_to": first_steps(t),
        "distance_to_equilibrium": distance_to_target(run, played),
        "options": t.options,
        "seconds": played.seconds,
        **t.extra,
    }


def _finite(gaps: Float[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
    return np.where(gaps > _INFINITE, np.inf, gaps)


def jsonable(value: Any) -> Any:  # noqa: ANN401 - any nesting of dicts, lists, arrays and numbers
    """The same in plain Python, with None for every number that is not finite."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_tables(run: PlayRun, summary: dict[str, Any]) -> None:
    """Gaps of every rule, and where the last policies ended."""
    console = Console()
    title = f"{run.source}: {run.game.size} responses, KL weight {run.game.beta:g}"
    console.print(_heading(title))
    console.print(_gap_table(run, summary["rules"], console))
    for line in _remarks(run, summary):
        console.print(plain(line))
    console.print()
    console.print(_heading("Most probable responses of the last policy"))
    console.print(_policy_table(run))


def _heading(text: str) -> Text:
    heading = plain(text)
    heading.stylize("bold")
    return heading


_HEADS = (
    *("rule", "ended", "steps", "last\ngap", "average\ngap"),
    *("to\n1e-3", "to\n1e-6", "dis-\ntance", "sec"),
)


def _gap_table(run: PlayRun, rules: dict[str, Any], console: Console) -> Table:
    rows = [_cells(played, rules[played.rule.name]) for played in run.played]
    table = _table()
    for head in _HEADS:
        table.add_column(head, justify="left" if head in _HEADS[:2] else "right", no_wrap=True)
    widest = (
        max(len(part) for row in (_HEADS, *rows) for part in row[k].split("\n"))
        for k in range(len(_HEADS))
    )
    room = min(console.width - sum(widest) - len(_HEADS), _WIDEST_CURVE)
    curves = [[Text("")] for _ in rows]
    if room >= _NARROWEST_CURVE:
        table.add_column("curve", no_wrap=True, min_width=room)
        shown = _curves([p.trajectory for p in run.played], room, console)
        curves = [[Text(curve)] for curve in shown]
    for row, curve in zip(rows, curves, strict=True):
        table.add_row(*[plain(cell) for cell in row], *curve[: len(table.columns) - len(row)])
    return table


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)


def _cells(played: PlayedRule, found: dict[str, Any]) -> list[str]:
    steps_to = found["steps_to"].values()
    return [
        played.rule.name,
        found["status"],
        str(played.trajectory.steps[-1]),
        _short(float(played.trajectory.duality_gap[-1])),
        _short(float(played.trajectory.average_duality_gap[-1])),
        *["-" if step is None else str(step) for step in steps_to],
        _short(found["distance_to_equilibrium"]),
        f"{found['seconds']:.2f}",
    ]


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 1e-99:
        return "0"
    if value > _INFINITE:
        return "inf"
    return f"{value:.1e}" if value < 0.001 else f"{value:.3f}"


def _curves(trajectories: Sequence[Trajectory], width: int, console: Console) -> list[str]:
    """The last policies' gaps on one logarithmic scale, recorded steps from left to right."""
    logs = [np.log10(np.clip(t.duality_gap, _LEAST_GAP, 1e3)) for t in trajectories]
    low = min(float(log.min()) for log in logs)
    high = max(float(log.max()) for log in logs)
    marks = _ASCII if console.options.ascii_only else _BLOCKS
    most = max(t.steps.size for t in trajectories)
    return [_curve(log, low, high, marks, max(1, width * log.size // most)) for log in logs]


def _curve(log: Float[np.ndarray, " r"], low: float, high: float, marks: str, width: int) -> str:
    picked = log[np.linspace(0, log.size - 1, width).round().astype(int)]
    if high - low < 1e-9:
        return marks[0] * width
    levels = (picked - low) / (high - low) * (len(marks) - 1)
    return "".join(marks[int(level)] for level in levels.round())


def _remarks(run: PlayRun, summary: dict[str, Any]) -> list[str]:
    notes = []
    if any(type(played.rule) in _TARGETS for played in run.played):
        notes.append("Rules of the sequential game: last gap and distance are those of that game.")
    notes += [
        f"{played.rule.name} diverged after step {played.trajectory.steps[-1]}: a number stopped "
        "being finite. Take a smaller step size."
        for played in run.played
        if played.trajectory.status == "diverged"
    ]
    idle = [p.rule.name for p in run.played if _lacks_its_pull(p)]
    if idle:
        notes.append(
            "At KL weight 0 nothing pulls to the reference, and these are plain self-play: "
            f"{', '.join(idle)}. Give them a weight by --rule-beta, or the whole game by --beta."
        )
    if not run.equilibrium.unique:
        notes.append("The equilibrium is not unique; distances are to the set of them.")
    notes.append(f"{summary['seconds']:.1f} seconds in all. Distances are total variation.")
    return notes


def _lacks_its_pull(played: PlayedRule) -> bool:
    """Whether a rule that needs its reference to settle was played with KL weight 0."""
    rule = played.rule
    if not isinstance(rule, MirrorRule) or played.trajectory.options["beta"] > 0.0:
        return False
    anchors, opponents = rule.slots(Step(eta=0.1, beta=0.1))
    return Slot.REFERENCE in anchors and not opponents & {Slot.PREVIOUS, Slot.HALF}


def _policy_table(run: PlayRun) -> Table:
    table = _table()
    for head in ("rule", "step size"):
        table.add_column(head, no_wrap=True)
    table.add_column("probability and response")
    table.add_row("equilibrium", "", _top(run.game, np.asarray(run.equilibrium.policy)))
    for played in run.played:
        size = next(iter(played.trajectory.options.values()))
        shown = f"{size:.3g}" if isinstance(size, float) else str(size)
        policy = _top(run.game, played.trajectory.final_policy)
        table.add_row(plain(played.rule.name), plain(shown), policy)
    return table


def _top(game: PreferenceGame, policy: Float[np.ndarray, " n"]) -> Text:
    top = np.argsort(-policy, kind="stable")[:_MOST_SHOWN]
    return plain(", ".join(f"{policy[i]:.3f} {plain(game.names[i], 24)}" for i in top))


def print_listing(as_json: bool) -> None:
    """Every rule with its options and their defaults."""
    if as_json:
        print_json(
            {
                "rules": {
                    name: {
                        "title": rule.title,
                        "converges_to": rule.converges_to,
                        "options": _defaults(rule),
                    }
                    for name, rule in RULES.items()
                }
            }
        )
        return
    console = Console()
    for game in dict.fromkeys(METHODS[name].game for name in RULES):
        rules = [rule for name, rule in RULES.items() if METHODS[name].game == game]
        console.print(_heading(game[:1].upper() + game[1:]))
        table = _table()
        table.add_column("rule", no_wrap=True)
        table.add_column("converges to")
        for rule in rules:
            table.add_row(plain(rule.name), plain(rule.converges_to))
        console.print(table)
        options = ", ".join(
            name if value is None else f"{name} = {value}"
            for name, value in _defaults(rules[0]).items()
        )
        console.print(plain(f"Options for --set RULE.OPTION=VALUE: {options}"))
        console.print()
    console.print("Games: equilign solve --list. Papers and maturity: equilign methods.")


def _defaults(rule: Rule) -> dict[str, Any]:
    return {
        name: None if option.default is MISSING else option.default
        for name, option in family_options(rule).items()
    }
