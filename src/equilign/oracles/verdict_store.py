"""Verdicts by content, and who is asking for which: what `CachedOracle` keeps on disk."""

import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from equilign.oracles.database import Database
from equilign.text import storable, text_hash

Key = tuple[bytes, bytes, bytes]
"""Hashes of the prompt and of both answers, in the order asked; one answer alone for a score."""


def content_key(prompt: str, a: str, b: str | None) -> Key:
    """The key of a question; ``b`` is None for the score of one answer."""
    return text_hash(prompt), text_hash(a), b"" if b is None else text_hash(b)


@dataclass(frozen=True)
class Question:
    """A question with its texts, which are kept for audits."""

    key: Key
    prompt: str
    a: str
    b: str | None


@dataclass(frozen=True)
class Sorted:
    """What `VerdictStore.claim` made of some questions.

    Attributes:
        known: verdicts by position; nan for a stored abstention.
        mine: positions that the caller must now ask for.
        busy: positions that another process or thread is asking for right now.
    """

    known: dict[int, float]
    mine: list[int]
    busy: list[int]


class VerdictStore:
    """Verdicts of one judge in a database file.

    Args:
        path: the file.
        judge: names the judge and its settings; verdicts of others are not seen.
        lease: seconds after which a claim that is not renewed is free again.
    """

    def __init__(self, path: Path | str, judge: str, lease: float = 60.0) -> None:
        self.database = Database(path)
        self.judge = judge
        self.lease = lease

    def claim(self, questions: Sequence[Question], owner: str) -> Sorted:
        """Look questions up, and claim those that nobody has answered or is asking for."""
        known: dict[int, float] = {}
        mine: list[int] = []
        busy: list[int] = []
        with self.database.transaction() as connection:
            now = time.time()
            for i, question in enumerate(questions):
                value = _lookup(connection, self.judge, question.key)
                if value is not None:
                    known[i] = value
                elif self._take(connection, question.key, owner, now):
                    mine.append(i)
                else:
                    busy.append(i)
        return Sorted(known, mine, busy)

    def find(self, keys: Sequence[Key]) -> list[float | None]:
        """Stored verdicts; None where there is none."""
        with self.database.reading() as connection:
            return [_lookup(connection, self.judge, key) for key in keys]

    def save(
        self, answers: Sequence[tuple[Question, float]], owner: str, *, abstentions: bool
    ) -> list[float]:
        """Store verdicts and give their claims back, in one transaction.

        Args:
            answers: questions with their verdicts; nan for an abstention.
            owner: of the claims.
            abstentions: store them too, so that they are not asked again.

        Returns:
            What is stored now: the first verdict, should another process have been faster.
        """
        with self.database.transaction() as connection:
            for question, value in answers:
                if np.isnan(value):
                    _count_abstention(connection, self.judge)
                if abstentions or not np.isnan(value):
                    self._insert(connection, question, value)
                connection.execute(
                    "DELETE FROM claims WHERE judge=? AND prompt=? AND a=? AND b=? AND owner=?",
                    (self.judge, *question.key, owner),
                )
            found = [_lookup(connection, self.judge, q.key) for q, _ in answers]
        return [v if f is None else f for f, (_, v) in zip(found, answers, strict=True)]

    def release(self, owner: str) -> None:
        """Give back all claims of ``owner``."""
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM claims WHERE owner=?", (owner,))

    @contextmanager
    def owner(self) -> Iterator[str]:
        """A name to claim with; its claims are renewed meanwhile and given back at the end."""
        name = f"{_place()}|{os.getpid()}|{_started(os.getpid())}|{uuid.uuid4().hex[:8]}"
        done = threading.Event()
        heart = threading.Thread(target=self._renew, args=(name, done), daemon=True)
        heart.start()
        try:
            yield name
        finally:
            done.set()
            heart.join()
            self.release(name)

    def counts(self) -> dict[str, int]:
        """Stored verdicts and abstentions of this judge so far, all processes together."""
        with self.database.reading() as connection:
            (stored,) = connection.execute(
                "SELECT count(value) FROM verdicts WHERE judge=?", (self.judge,)
            ).fetchone()
            row = connection.execute(
                "SELECT times FROM abstentions WHERE judge=?", (self.judge,)
            ).fetchone()
        return {"verdicts": int(stored), "abstentions": int(row[0]) if row else 0}

    # -- inside a transaction ---------------------------------------------------------------

    def _take(self, connection: sqlite3.Connection, key: Key, owner: str, now: float) -> bool:
        row = connection.execute(
            "SELECT owner, expires FROM claims WHERE judge=? AND prompt=? AND a=? AND b=?",
            (self.judge, *key),
        ).fetchone()
        if row is not None and row[1] > now and not _is_dead(row[0]):
            return False
        connection.execute(
            "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?)",
            (self.judge, *key, owner, now + self.lease),
        )
        return True

    def _insert(self, connection: sqlite3.Connection, question: Question, value: float) -> None:
        texts = [question.prompt, question.a, *([] if question.b is None else [question.b])]
        connection.executemany(
            "INSERT OR IGNORE INTO texts VALUES (?, ?)",
            [(h, storable(t)) for h, t in zip(question.key, texts, strict=False)],
        )
        connection.execute(
            "INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?, ?)",
            (self.judge, *question.key, None if np.isnan(value) else float(value), time.time()),
        )

    def _renew(self, owner: str, done: threading.Event) -> None:
        while not done.wait(self.lease / 3.0):
            try:
                with self.database.transaction() as connection:
                    connection.execute(
                        "UPDATE claims SET expires=? WHERE owner=?",
                        (time.time() + self.lease, owner),
                    )
            except Exception:
                continue
        self.database.close_thread()


def _lookup(connection: sqlite3.Connection, judge: str, key: Key) -> float | None:
    row = connection.execute(
        "SELECT value FROM verdicts WHERE judge=? AND prompt=? AND a=? AND b=?", (judge, *key)
    ).fetchone()
    if row is None:
        return None
    return float("nan") if row[0] is None else float(row[0])


def _count_abstention(connection: sqlite3.Connection, judge: str) -> None:
    connection.execute(
        "INSERT INTO abstentions VALUES (?, 1) ON CONFLICT (judge) DO UPDATE SET times=times+1",
        (judge,),
    )


def unique(questions: Iterable[Question]) -> list[Question]:
    """Each question once, in order."""
    return list({q.key: q for q in questions}.values())


# -- who is alive -----------------------------------------------------------------------------


@cache
def _place() -> str:
    """Machine and process-id namespace: only there does a process id say anything."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}{namespace}".replace("|", "")


def _started(pid: int) -> str:
    """When a process started, so that a reused id is not taken for it; "" if unknown or ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_dead(owner: str) -> bool:
    """Whether the process behind a claim is known to be gone; otherwise the lease decides."""
    place, pid, started, _ = owner.split("|")
    if place != _place():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return bool(started) and _started(int(pid)) != started
