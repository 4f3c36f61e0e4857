"""People as the judge: questions go into a file, `equilign label` shows them, answers come back."""

import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from equilign.errors import ConfigError
from equilign.labelling.information import Votes, most_informative
from equilign.labelling.store import LabelStore
from equilign.labelling.tables import Tally

Pair = tuple[str, str, str]
"""Prompt and two different answers, the smaller text first: people see a random order."""


def to_stderr(message: str) -> None:
    """One line for whoever watches."""
    sys.stderr.write(f"equilign: {message}\n")
    sys.stderr.flush()


class Human:
    """An oracle that waits for people.

    Questions that lack answers are written into the file; whoever has its page open
    (``equilign label --database FILE``) answers them, and `compare` returns the share of votes.
    Answers stay in the file: a rerun asks nothing twice, and a run that was killed while it waited
    finds what was answered meanwhile. Both orders are one question, since every person sees a
    random order, so ``P(b, a) = 1 - P(a, b)``.

    A pair that gets too few answers has no verdict (``nan``). This object does not wait for it a
    second time, but uses its answers should they come later.

    Args:
        database: the file; created if it is not there.
        min_answers: answers, by different people, that make a verdict. Skips do not count.
        enough: share of the questions of a call that must have a verdict before it returns.
        timeout: seconds to wait in one call; None waits as long as it takes.
        budget: verdicts of people per call, those that are there already included; the most
            informative questions are asked (see `equilign.labelling.information`). None: all.
        poll: seconds between looks into the file.
        tell: gets lines about the waiting; to stderr by default.
        tell_every: seconds between such lines.

    Raises:
        ConfigError: an option out of range.
        DataError: the file is none of this kind, or damaged.
    """

    abstains = True

    def __init__(  # noqa: PLR0913 - options by name
        self,
        database: Path | str,
        *,
        min_answers: int = 1,
        enough: float = 1.0,
        timeout: float | None = None,
        budget: int | None = None,
        poll: float = 0.5,
        tell: Callable[[str], None] = to_stderr,
        tell_every: float = 30.0,
    ) -> None:
        _check(min_answers, enough, timeout, budget, poll)
        self.store = LabelStore(database)
        self.min_answers = min_answers
        self.enough = enough
        self.timeout = timeout
        self.budget = budget
        self.poll = poll
        self._tell = tell
        self._tell_every = tell_every
        self._given_up: set[Pair] = set()

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """See `equilign.oracles.base.Oracle.compare`; blocks until people have answered.

        Raises:
            DataError: the file became unusable.
        """
        rows = list(zip(prompts, a, b, strict=True))
        pairs = list({_pair(*row): None for row in rows if row[1] != row[2]})
        tallies = dict(zip(pairs, self.store.tallies(pairs), strict=True))
        asked = self._choose(pairs, tallies)
        if asked:
            self._wait(asked)
            tallies.update(zip(asked, self.store.tallies(asked), strict=True))
        return np.array([self._verdict(row, tallies) for row in rows], dtype=np.float64)

    def close(self) -> None:
        """Close the file; a later use opens it again."""
        self.store.close()

    def _verdict(self, row: tuple[str, str, str], tallies: dict[Pair, Tally]) -> float:
        prompt, one, other = row
        if one == other:
            return 0.5
        pair = _pair(prompt, one, other)
        tally = tallies[pair]
        if tally.votes < self.min_answers:
            return float("nan")
        return tally.share if pair[1] == one else 1.0 - tally.share

    def _choose(self, pairs: list[Pair], tallies: dict[Pair, Tally]) -> list[Pair]:
        """What to wait for, most informative first; the rest is given up."""
        open_pairs = [
            p for p in pairs if tallies[p].votes < self.min_answers and p not in self._given_up
        ]
        if not open_pairs:
            return []
        games, places = _games(pairs, tallies)
        wanted = set(open_pairs)
        candidates = [[k for k, p in enumerate(place) if p in wanted] for place in places]
        # Those there already count: a rerun must not ask more than the run that was stopped.
        known = sum(tallies[p].votes >= self.min_answers for p in pairs)
        budget = len(open_pairs) if self.budget is None else max(0, self.budget - known)
        chosen = most_informative(games, candidates, budget)
        asked = [places[game][pair] for game, pair, _ in chosen]
        rest = wanted - set(asked)
        self.store.stop_asking(sorted(rest))
        self._given_up |= rest
        return asked

    def _wait(self, asked: list[Pair]) -> None:
        ranks = [len(asked) - i for i in range(len(asked))]
        self.store.ask(asked, needed=self.min_answers, priority=ranks)
        goal = int(np.ceil(self.enough * len(asked) - 1e-9))
        start = told = time.monotonic()
        deadline = np.inf if self.timeout is None else start + self.timeout
        done = self._done(asked)
        if len(done) < goal:
            self._tell(self._message(asked, done))
        while len(done) < goal and time.monotonic() < deadline:
            time.sleep(min(self.poll, max(0.0, deadline - time.monotonic())))
            done |= self._done([p for p in asked if p not in done])
            if len(done) >= goal:
                done = self._done(asked)  # somebody may have taken an answer back
            if time.monotonic() - told >= self._tell_every and len(done) < goal:
                told = time.monotonic()
                self._tell(self._message(asked, done))
        # Only now: a run that is killed while it waits leaves its questions open.
        left = [p for p in asked if p not in done]
        self.store.stop_asking(left)
        self._given_up |= set(left)
        seconds = time.monotonic() - start
        self._tell(f"people answered {len(done)} of {len(asked)} comparisons in {seconds:.0f} s")

    def _done(self, asked: list[Pair]) -> set[Pair]:
        tallies = self.store.tallies(asked)
        return {p for p, t in zip(asked, tallies, strict=True) if t.votes >= self.min_answers}

    def _message(self, asked: list[Pair], done: set[Pair]) -> str:
        skipped = sum(t.skips > 0 for t in self.store.tallies([p for p in asked if p not in done]))
        note = f" ({skipped} skipped by somebody)" if skipped else ""
        return f"waiting for people: {len(done)} of {len(asked)}{note}; {self._where()}"

    def _where(self) -> str:
        """How to get to the page: its address if its server answers, else how to start it."""
        url = self.store.note("url")
        if url and _answers(url):
            return f"open {url}"
        return f"start the page with: equilign label --database {self.store.path}"


def _pair(prompt: str, one: str, other: str) -> Pair:
    return (prompt, one, other) if one < other else (prompt, other, one)


def _games(pairs: list[Pair], tallies: dict[Pair, Tally]) -> tuple[list[Votes], list[list[Pair]]]:
    """Pairs by prompt, with the votes there are, and which pair stands where."""
    places: dict[str, list[Pair]] = {}
    for pair in pairs:
        places.setdefault(pair[0], []).append(pair)
    games = []
    for group in places.values():
        texts = list(dict.fromkeys(t for p in group for t in p[1:]))
        number = {t: i for i, t in enumerate(texts)}
        votes = np.array([tallies[p].votes for p in group], dtype=np.float64)
        shares = np.nan_to_num(np.array([tallies[p].share for p in group]))
        first = np.array([number[p[1]] for p in group])
        second = np.array([number[p[2]] for p in group])
        games.append(Votes(len(texts), first, second, shares * votes, votes))
    return games, list(places.values())


def _answers(url: str) -> bool:
    host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except (OSError, ValueError):
        return False
    return True


def _check(
    min_answers: int, enough: float, timeout: float | None, budget: int | None, poll: float
) -> None:
    for name, value in (("min_answers", min_answers), ("budget", budget)):
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not good and not (name == "budget" and value is None):
            raise ConfigError(f"{name} must be a whole number >= 1; got {value!r}")
    if not _number(enough) or not 0.0 < enough <= 1.0:
        raise ConfigError(f"enough is a share in (0, 1]; got {enough!r}")
    if timeout is not None and not (_number(timeout) and timeout >= 0.0):
        raise ConfigError(f"timeout must be >= 0 seconds, or none; got {timeout!r}")
    if not _number(poll) or not poll > 0.0:
        raise ConfigError(f"poll must be a positive number of seconds; got {poll!r}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
