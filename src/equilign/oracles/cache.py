"""Paid verdicts, kept: a rerun asks nothing twice.

A question is a judge with its settings, a prompt and two answers in the order shown. Its verdict
is stored by content as soon as it arrives. Processes that share the file also share the work:
each claims what it asks for, and the others wait for that verdict instead of buying it again.
"""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equilign.errors import BudgetError, ConfigError, OracleError
from equilign.oracles.base import Oracle, checked_compare
from equilign.oracles.verdict_store import Key, Question, VerdictStore, content_key, unique

Arrivals = Generator[list[tuple[int, float]], None, None]
"""Verdicts with their positions, as they arrive."""

_WINDOW = 256
_SHORTEST_POLL, _LONGEST_POLL = 0.02, 0.5


@dataclass(frozen=True)
class CacheStatistics:
    """What a `CachedOracle` did in this process.

    Attributes:
        asked: questions put to the judge.
        cached: questions answered from the file, or by an equal question of the same call.
        abstained: questions to which the judge gave no verdict.
        stored: verdicts of this judge in the file, by whichever process.
        abstained_ever: as `abstained`, by whichever process.
    """

    asked: int
    cached: int
    abstained: int
    stored: int
    abstained_ever: int


class CachedOracle:
    """An oracle whose every verdict is stored by content in an SQLite file.

    Safe under several threads and processes and under a kill at any moment: what has arrived is
    committed before anything else is asked for. An oracle with a method ``stream(prompts, a, b)``
    that yields lists of (position, verdict) as they arrive loses nothing at all; others are asked
    in batches, which are stored one by one. Abstentions (nan) are not stored, so that they are
    asked again, but they are counted.

    An oracle's ``score`` is cached in the same way and is there only if the oracle has one. Its
    ``compare_groups`` is not used: each pair is a verdict of its own.

    Args:
        oracle: the judge.
        path: the file; created if it is not there.
        key: names the judge and every setting that its verdicts depend on; verdicts of other
            keys in the file are not seen. An oracle that has an ``identity`` is known by that
            instead: it alone knows which of its settings change no verdict.
        store_abstentions: keep them, too; then they are never asked again.
        batch_size: questions per call of an oracle without ``stream``.
        lease: seconds after which questions claimed by a process that was killed on another
            machine are free again; on this machine they are free at once.

    Raises:
        ConfigError: no key, or a batch size below 1.
        DataError: the file is damaged, or is no such cache.
    """

    def __init__(
        self,
        oracle: Oracle,
        path: Path | str,
        key: str | None = None,
        *,
        store_abstentions: bool = False,
        batch_size: int = 64,
        lease: float = 60.0,
    ) -> None:
        key = getattr(oracle, "identity", None) or key
        if not key:
            raise ConfigError(
                f"a cache needs a key that names the judge ({type(oracle).__name__}) and its "
                "settings, or it would mix up the verdicts of different judges"
            )
        if batch_size < 1:
            raise ConfigError(f"batch_size must be >= 1; got {batch_size}")
        self.oracle = oracle
        self.key = str(key)
        self.store = VerdictStore(path, self.key, lease)
        self._store_abstentions = store_abstentions
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._asked = self._cached = self._abstained = 0
        share = getattr(oracle, "share_budget", None)
        if share is not None:
            share(self.store.database, self.key)

    @property
    def path(self) -> Path:
        """The file."""
        return self.store.database.path

    @property
    def abstains(self) -> bool:
        """As of the judge."""
        return bool(getattr(self.oracle, "abstains", False))

    @property
    def identity(self) -> str:
        """As of the judge: a cache changes no verdict."""
        return self.key

    @property
    def statistics(self) -> CacheStatistics:
        """Counts so far."""
        counts = self.store.counts()
        return CacheStatistics(
            self._asked,
            self._cached,
            self._abstained,
            counts["verdicts"],
            counts["abstentions"],
        )

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the judge has
        # `score` exists only where the judge has one: that is how scored oracles are told.
        if name == "score" and hasattr(self.__dict__.get("oracle"), "score"):
            return self._score
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def close(self) -> None:
        """Close the file; a later use opens it again."""
        self.store.database.close()

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """See `equilign.oracles.base.Oracle.compare`.

        Raises:
            BudgetError: the judge may ask no more; the message says how much is left.
            DataError: the file became unusable.
        """
        rows = zip(prompts, a, b, strict=True)
        return self._answer([Question(content_key(*r), *r) for r in rows], self._compare)

    def _score(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        rows = zip(prompts, answers, strict=True)
        questions = [Question(content_key(x, y, None), x, y, None) for x, y in rows]
        return self._answer(questions, self._judge_scores)

    # -- questions --------------------------------------------------------------------------

    def _answer(
        self, questions: list[Question], ask: Callable[[list[Question]], Arrivals]
    ) -> np.ndarray:
        distinct = unique(questions)
        stored = self.store.find([q.key for q in distinct])
        call = _Call(
            ask, {q.key: v for q, v in zip(distinct, stored, strict=True) if v is not None}
        )
        pending = [q for q in distinct if q.key not in call.known]
        if pending:
            with self.store.owner() as owner:
                self._resolve(pending, call, owner)
        with self._lock:
            self._cached += len(questions) - call.asked
        return np.array([call.known[q.key] for q in questions], dtype=np.float64)

    def _resolve(self, pending: list[Question], call: "_Call", owner: str) -> None:
        """Ask what is free, window by window, then wait for what others are asking for."""
        poll = _SHORTEST_POLL
        while pending:
            progress, busy = False, []
            for start in range(0, len(pending), _WINDOW):
                window = pending[start : start + _WINDOW]
                found = self.store.claim(window, owner)
                call.known.update((window[i].key, value) for i, value in found.known.items())
                try:
                    self._ask([window[i] for i in found.mine], call, owner)
                except BudgetError as error:
                    left = sum(q.key not in call.known for q in pending)
                    raise BudgetError(
                        f"{error} In all, {left} questions of this call lack a verdict; "
                        f"those answered are safe in {self.path}."
                    ) from None
                progress |= bool(found.known or found.mine)
                busy += [window[i] for i in found.busy]
            pending = busy
            poll = _SHORTEST_POLL if progress else min(2.0 * poll, _LONGEST_POLL)
            if pending:
                time.sleep(poll)

    def _ask(self, mine: list[Question], call: "_Call", owner: str) -> None:
        if not mine:
            return
        missing = set(range(len(mine)))
        with closing(call.ask(mine)) as arrivals:
            for batch in arrivals:
                answers = [(mine[i], value) for i, value in batch]
                stored = self.store.save(answers, owner, abstentions=self._store_abstentions)
                call.known.update((q.key, v) for (q, _), v in zip(answers, stored, strict=True))
                call.asked += len(batch)
                missing -= {i for i, _ in batch}
                with self._lock:
                    self._asked += len(batch)
                    self._abstained += sum(bool(np.isnan(v)) for _, v in batch)
        if missing:
            raise OracleError(
                f"{type(self.oracle).__name__}.stream ended without {len(missing)} of "
                f"{len(mine)} verdicts; an abstention must be given as nan"
            )

    def _compare(self, mine: list[Question]) -> Arrivals:
        stream = getattr(self.oracle, "stream", None)
        prompts, a = [q.prompt for q in mine], [q.a for q in mine]
        b = [q.b or "" for q in mine]
        if stream is not None:
            yield from self._checked(stream(prompts, a, b), prompts, a, b)
            return
        for start in range(0, len(mine), self._batch_size):
            part = slice(start, start + self._batch_size)
            verdicts = checked_compare(self.oracle, prompts[part], a[part], b[part])
            yield list(enumerate(verdicts.tolist(), start))

    def _checked(
        self, arrivals: Arrivals, prompts: list[str], a: list[str], b: list[str]
    ) -> Arrivals:
        for batch in arrivals:
            where = [i for i, _ in batch]
            given = _Given(np.array([v for _, v in batch]), self.oracle)
            texts = ([seq[i] for i in where] for seq in (prompts, a, b))
            checked_compare(given, *texts)
            yield batch

    def _judge_scores(self, mine: list[Question]) -> Arrivals:
        for start in range(0, len(mine), self._batch_size):
            part = mine[start : start + self._batch_size]
            scores = np.asarray(
                self.oracle.score([q.prompt for q in part], [q.a for q in part]),  # type: ignore[attr-defined]
                dtype=np.float64,
            )
            if scores.shape != (len(part),) or not np.isfinite(scores).all():
                raise OracleError(
                    f"{type(self.oracle).__name__}.score must return one finite number per "
                    f"answer; got {scores} for {len(part)} answers"
                )
            yield list(enumerate(scores.tolist(), start))


@dataclass
class _Call:
    """One call of `compare` or `score`: how to ask, what is known by now, how much was asked."""

    ask: Callable[[list[Question]], Arrivals]
    known: dict[Key, float]
    asked: int = 0


class _Given:
    """Verdicts that have arrived, in the shape that `checked_compare` checks."""

    def __init__(self, verdicts: np.ndarray, oracle: object) -> None:
        self._verdicts = verdicts
        self.abstains = bool(getattr(oracle, "abstains", False))

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """The verdicts, whatever is asked."""
        return self._verdicts
