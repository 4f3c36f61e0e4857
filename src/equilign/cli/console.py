"""Progress on stderr, results on stdout; nothing from a model reaches a terminal unescaped."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from equilign.text import visible


def plain(text: str, limit: int = 400) -> Text:
    """Text as it is: no markup, no control characters, cut at ``limit``."""
    shown = visible(text, newlines=False)
    return Text(shown if len(shown) <= limit else shown[: limit - 1] + "…")


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout; non-ASCII escaped, so that no terminal is driven by it."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


class RoundProgress:
    """A bar per stage of each round; plain lines where stderr is no terminal."""

    def __init__(self, rounds: int, console: Console) -> None:
        self.rounds = rounds
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._told: set[str] = set()

    def __call__(self, stage: str, number: int, done: int, total: int) -> None:
        """See `equilign.trainers.Progress`."""
        name = f"round {number} of {self.rounds}: {stage}" if number else stage
        if not self.console.is_terminal:
            if done >= total and name not in self._told:
                self._told.add(name)
                self.console.print(Text(name))
            return
        if name not in self._tasks:
            self._tasks[name] = self.bars.add_task(visible(name), total=total)
        self.bars.update(self._tasks[name], completed=done, total=total)


@contextmanager
def round_progress(rounds: int) -> Iterator[RoundProgress]:
    """Progress bars on stderr for the duration of a block."""
    progress = RoundProgress(rounds, Console(stderr=True))
    if progress.console.is_terminal:
        with progress.bars:
            yield progress
    else:
        yield progress


def win_rate_table(title: str, rounds: list[dict[str, Any]]) -> Table:
    """One line per round."""
    table = Table(title=title, title_justify="left")
    for name in ("round", "win rate", "95 % interval", "KL (nats)", "tokens", "cyclic prompts"):
        table.add_column(name, justify="right")
    for r in rounds:
        cycles = r["cycles"]
        table.add_row(
            str(r["round"]),
            f"{r['win_rate']:.3f}",
            f"{r['low']:.3f} to {r['high']:.3f}",
            f"{r['kl_nats']:.2f}",
            f"{r['mean_tokens']:.1f}",
            f"{cycles['with_cycle']} of {cycles['prompts']}",
        )
    return table
