"""The numbers behind each figure, as rows of text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from equilign.reports.run import Estimate, Method
from equilign.reports.words import DASH, decimal, duration, percent


@dataclass(frozen=True)
class Table:
    """A table of text; `numeric` columns, counted from the end, are aligned right."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: int


MOST_ROWS = 300


def _limited(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Make a table of the last rows, the ones that tell how a long run ended."""
    left_out = len(rows) - MOST_ROWS
    if left_out > 0:
        caption += f" (the last {MOST_ROWS} rows of {len(rows):,})"
    return Table(caption, header, rows[-MOST_ROWS:], len(header) - 1)


def _exact(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"


def _bounds(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return DASH
    return f"{100 * estimate.low:.1f}{DASH}{100 * estimate.high:.1f} %"


def _seconds(value: float | None) -> str:
    return DASH if value is None else duration(value)


def rounds_table(methods: Sequence[Method]) -> Table:
    """Everything recorded per round of training."""
    header = ("Method", "Round", "Win rate", "95 % interval", "KL (nats)", "Tokens", "Loss", "Time")
    rows = [
        (
            method.title,
            str(item.number),
            _exact(item.win.value),
            _bounds(item.win),
            decimal(item.kl, 2),
            decimal(item.tokens),
            decimal(item.loss, 3),
            _seconds(item.seconds),
        )
        for method in methods
        for item in method.rounds
    ]
    return _limited("Win rate against the start model, per round", header, rows)


def front_table(methods: Sequence[Method]) -> Table:
    """Win rate and distance, per round."""
    rows = [
        (method.title, str(item.number), decimal(item.kl, 2), _exact(item.win.value))
        for method in methods
        for item in method.rounds
        if item.kl is not None and item.win.value is not None
    ]
    header = ("Method", "Round", "KL (nats)", "Win rate")
    return _limited("Win rate against distance from the start model", header, rows)


def attributes_table(methods: Sequence[Method]) -> Table:
    """Win rate by each attribute alone."""
    rows = [
        (method.title, name, _exact(item.value), _bounds(item))
        for method in methods
        for name, item in method.attributes.items()
    ]
    header = ("Method", "Attribute", "Win rate", "95 % interval")
    kept = rows[:MOST_ROWS]
    more = f" (the first {MOST_ROWS} rows of {len(rows):,})" if len(rows) > MOST_ROWS else ""
    return Table(f"Win rate by each attribute alone{more}", header, kept, 2)


def _cycle_rows(methods: Sequence[Method]) -> Iterator[Sequence[str]]:
    for method in methods:
        for item in method.rounds:
            cycles = item.cycles
            if cycles.share.value is None:
                continue
            yield (
                method.title,
                str(item.number),
                DASH if cycles.prompts is None else f"{cycles.prompts:,}",
                DASH if cycles.with_cycle is None else f"{cycles.with_cycle:,}",
                _exact(cycles.share.value),
                _bounds(cycles.share),
                DASH if cycles.condorcet is None else percent(cycles.condorcet),
            )


def cycles_table(methods: Sequence[Method]) -> Table:
    """How cyclic each round's comparisons were."""
    header = (
        "Method",
        "Round",
        "Prompts",
        "With a cycle",
        "Share",
        "95 % interval",
        "One answer beats all",
    )
    return _limited("Prompts with a cycle, per round", header, list(_cycle_rows(methods)))
