"""Rounds: the data of one round, on disk before it is trained on."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from equilign.files import Journal, read_jsonl, write_jsonl
from equilign.trainers.team import Team

Row = dict[str, Any]
"""One prompt's game: the fields of `equilign.trainers.mirror.MirrorTrainer.play_chunk`."""


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) that depends on every part and is the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class RoundPlan:
    """Which prompts each round plays, and in which order its rows are trained on.

    Attributes:
        num_prompts: size of the data set.
        prompts_per_round: prompts played per round.
        epochs_per_round: passes over a round's rows.
        seed: of the run.
    """

    num_prompts: int
    prompts_per_round: int
    epochs_per_round: int
    seed: int

    def prompts(self, index: int) -> list[int]:
        """Data set indices of round ``index`` (0-based): fresh ones until all were seen."""
        chosen: list[int] = []
        start = index * self.prompts_per_round
        for position in range(start, start + self.prompts_per_round):
            lap, place = divmod(position, self.num_prompts)
            chosen.append(self._lap(lap)[place])
        return chosen

    def _lap(self, lap: int) -> list[int]:
        order = list(range(self.num_prompts))
        random.Random(derive_seed(self.seed, "lap", lap)).shuffle(order)
        return order

    def order(self, index: int) -> list[int]:
        """Positions of the round's rows in training order, `epochs_per_round` passes."""
        result: list[int] = []
        for epoch in range(self.epochs_per_round):
            pass_order = list(range(self.prompts_per_round))
            random.Random(derive_seed(self.seed, "order", index, epoch)).shuffle(pass_order)
            result += pass_order
        return result


class RoundDataset(Dataset[Row]):
    """The rows of the current round in training order; its length never changes."""

    def __init__(self, plan: RoundPlan) -> None:
        self._plan = plan
        self._rows: list[Row] = []

    def set_round(self, index: int, rows: list[Row]) -> None:
        """Show the rows of round ``index`` from now on."""
        self._rows = [rows[i] for i in self._plan.order(index)]

    def __len__(self) -> int:
        """Rows per round, over all its epochs."""
        return self._plan.prompts_per_round * self._plan.epochs_per_round

    def __getitem__(self, index: int) -> Row:
        """One row; only after `set_round`."""
        return self._rows[index]


def chunks(items: Sequence[int], size: int) -> Iterator[tuple[int, list[int]]]:
    """``(chunk number, items)``."""
    for number, start in enumerate(range(0, len(items), size)):
        yield number, list(items[start : start + size])


def play_or_load(
    path: Path,
    prompts: Sequence[int],
    chunk_size: int,
    play: Callable[[int, list[int]], list[Row]],
    progress: Callable[[int, int], None],
    team: Team = Team(),  # noqa: B008 - frozen
) -> list[Row]:
    """The rows of a round: from its file, or played now, chunk by chunk, and written to it.

    Each finished chunk goes into a journal beside the file at once, so that a killed run asks
    the model and the oracle only for what is missing. The rows returned are always those read
    back from the file, so that a run and its resumption train on the same numbers.

    Several processes share the chunks out: chunk ``n`` is played by process ``n mod size``, with
    the seeds of the chunk, so that the round is the same for any number of processes, and every
    group is whole where it is judged. They meet in a folder that all of them see.

    Args:
        path: the round's file.
        prompts: data set indices.
        chunk_size: prompts per chunk.
        play: ``(chunk number, data set indices) -> rows``; deterministic.
        progress: called with (prompts done, prompts in all).
        team: the processes of the run.

    Raises:
        EquilignError: another process failed.
    """
    if not path.exists():
        team.together(lambda: _play_share(path, prompts, chunk_size, play, progress, team))
        if team.is_main:
            entries = _finished(path)
            count = -(-len(prompts) // chunk_size)
            write_jsonl(path, [row for n in range(count) for row in entries[n]])
    team.wait()
    if team.is_main:
        for partial in _journals(path):
            partial.unlink(missing_ok=True)
    return read_jsonl(path)


def _journals(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}.partial*.jsonl"))


def _finished(path: Path) -> dict[int, list[Row]]:
    """Chunks that any process has played, this run's or an interrupted one's."""
    return {n: rows for journal in _journals(path) for n, rows in Journal.peek(journal).items()}


def _play_share(
    path: Path,
    prompts: Sequence[int],
    chunk_size: int,
    play: Callable[[int, list[int]], list[Row]],
    progress: Callable[[int, int], None],
    team: Team,
) -> None:
    suffix = ".partial.jsonl" if team.is_main else f".partial-{team.rank}.jsonl"
    done = _finished(path)
    journal = Journal(path.with_suffix(suffix))
    try:
        for number, members in chunks(prompts, chunk_size):
            if number % team.size == team.rank and number not in done:
                journal.add(number, play(number, members))
            progress(min(len(prompts), (number + 1) * chunk_size), len(prompts))
    finally:
        journal.close()
