"""Comparisons and people's answers in one SQLite file that several processes share.

An answer is on the disk when its receipt is given. Whoever sends it makes its key, so one that is
sent twice counts once. A comparison is lent to one person at a time (to several where several
answers are wanted) and goes to somebody else when that person leaves it.
"""

import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from equilign.chat import Prompt
from equilign.errors import ConfigError
from equilign.labelling.rows import (
    add_pair,
    check_answer,
    count_again,
    give,
    last_answer,
    lend,
    pair_key,
)
from equilign.labelling.tables import (
    LABELS,
    Answer,
    AnswerConflict,
    Assignment,
    Standing,
    Tally,
    UnknownComparison,
)
from equilign.sqlite_files import SqliteFile
from equilign.text import text_hash

LONGEST_NAME = 64


def check_annotator(name: object) -> str:
    """A person's name as it is stored: trimmed, one line.

    Raises:
        ConfigError: empty, too long, or with control characters.
    """
    text = " ".join(name.split()) if isinstance(name, str) else ""
    if not 0 < len(text) <= LONGEST_NAME or not text.isprintable():
        raise ConfigError(
            f"a name has 1 to {LONGEST_NAME} printable characters; got {str(name)[:80]!r}"
        )
    return text


class LabelStore:
    """Comparisons, who is shown which, and their answers.

    Args:
        path: the file; created if it is not there.
        lease: seconds for which a comparison that was shown is kept for that person.

    Raises:
        ConfigError: a lease that is not positive.
        DataError: the file is damaged, another program's, or of a newer version.
        DiskFullError: no space left.
    """

    def __init__(self, path: Path | str, lease: float = 600.0) -> None:
        if not 0.0 < lease < math.inf:
            raise ConfigError(f"lease must be a positive number of seconds; got {lease}")
        self.file = SqliteFile(path, LABELS)
        self.lease = lease

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    def close(self) -> None:
        """Close the file; a later use opens it again."""
        self.file.close()

    # -- comparisons ------------------------------------------------------------------------

    def add(
        self, pairs: Iterable[tuple[Prompt, str, str]], *, wanted: int = 1, source: str = ""
    ) -> int:
        """Comparisons that somebody should answer; those that are there already stay.

        Args:
            pairs: prompt and two answers, in any order; equal answers are left out.
            wanted: answers wanted of each, by different people.
            source: where they come from, for the record.

        Returns:
            How many of them are new.
        """
        if wanted < 1:
            raise ConfigError(f"at least one answer must be wanted; got {wanted}")
        new = 0
        with self.file.transaction() as connection:
            for prompt, one, other in pairs:
                if one == other:
                    continue
                number, made = add_pair(connection, prompt, one, other, source)
                new += made
                connection.execute(
                    "UPDATE pairs SET wanted=max(wanted, ?) WHERE id=?", (wanted, number)
                )
        return new

    def want(self, wanted: int) -> None:
        """Change how many people should answer each comparison that came from a file."""
        if wanted < 1:
            raise ConfigError(f"at least one answer must be wanted; got {wanted}")
        with self.file.transaction() as connection:
            connection.execute("UPDATE pairs SET wanted=? WHERE wanted>0", (wanted,))

    def ask(
        self, pairs: Sequence[tuple[str, str, str]], *, needed: int, priority: Sequence[float]
    ) -> None:
        """Comparisons that somebody waits for: they come before all others.

        Args:
            pairs: prompt and two different answers, in any order.
            needed: answers needed of each, by different people.
            priority: of each; higher comes first.
        """
        with self.file.transaction() as connection:
            for (prompt, one, other), rank in zip(pairs, priority, strict=True):
                number, _ = add_pair(connection, prompt, one, other, "oracle")
                connection.execute(
                    "UPDATE pairs SET needed=max(needed, ?), priority=? WHERE id=?",
                    (needed, float(rank), number),
                )

    def stop_asking(self, pairs: Sequence[tuple[str, str, str]]) -> None:
        """Nobody waits for these any more; those that no file wants are not shown again."""
        with self.file.transaction() as connection:
            for prompt, one, other in pairs:
                connection.execute(
                    "UPDATE pairs SET needed=min(needed, votes), priority=0 "
                    "WHERE prompt=? AND a=? AND b=?",
                    pair_key(prompt, one, other),
                )

    def tallies(self, pairs: Sequence[tuple[str, str, str]]) -> list[Tally]:
        """What people said about each pair so far, from the side of its first answer."""
        found = []
        with self.file.reading() as connection:
            for prompt, one, other in pairs:
                key = pair_key(prompt, one, other)
                row = connection.execute(
                    "SELECT votes, points, (SELECT count(*) FROM answers x WHERE x.pair=p.id "
                    "AND x.value IS NULL AND x.undone IS NULL) FROM pairs p "
                    "WHERE prompt=? AND a=? AND b=?",
                    key,
                ).fetchone()
                votes, points, skips = row or (0, 0.0, 0)
                share = points / votes if votes else math.nan
                turned = text_hash(one) != key[1]
                found.append(Tally(votes, 1.0 - share if turned else share, skips))
        return found

    # -- one person -------------------------------------------------------------------------

    def assign(self, annotator: str) -> Assignment | None:
        """What this person compares next; None where there is nothing for them now."""
        with self.file.transaction() as connection:
            return lend(connection, annotator, self.lease)

    def answer(
        self, annotator: str, pair: int, choice: str, key: str, seconds: float | None = None
    ) -> bool:
        """Store an answer; it is on the disk when this returns.

        Args:
            annotator: who.
            pair: number of the comparison.
            choice: ``left``, ``right``, ``tie`` or ``skip``; sides as this person saw them.
            key: made by the sender, unique to this answer.
            seconds: from showing to answering.

        Returns:
            Whether it is new; False if this very answer had arrived before.

        Raises:
            ConfigError: an unknown choice, or a key that is none.
            UnknownComparison: there is no such pair.
            AnswerConflict: this person was not shown it or answered it already, or the key
                belongs to another answer.
        """
        check_answer(choice, key)
        with self.file.transaction() as connection:
            return give(connection, annotator, pair, choice, key, seconds)

    def answer_and_assign(
        self, annotator: str, pair: int, choice: str, key: str, seconds: float | None = None
    ) -> tuple[bool, Assignment | None]:
        """`answer`, then `assign`, in one transaction: the disk is waited for once."""
        check_answer(choice, key)
        with self.file.transaction() as connection:
            new = give(connection, annotator, pair, choice, key, seconds)
            return new, lend(connection, annotator, self.lease)

    def undo(self, annotator: str, key: str) -> bool:
        """Take one's own last answer back; it stays in the history, and its pair is shown again.

        Args:
            annotator: who.
            key: of that answer.

        Returns:
            Whether this did it; False if it had been taken back before.

        Raises:
            UnknownComparison: there is no such answer.
            AnswerConflict: it is somebody else's, or not the last one.
        """
        with self.file.transaction() as connection:
            row = connection.execute(
                "SELECT id, pair, annotator, undone FROM answers WHERE key=?", (key,)
            ).fetchone()
            if row is None:
                raise UnknownComparison("there is no such answer")
            number, pair, owner, undone = row
            if owner != annotator:
                raise AnswerConflict("only one's own answers can be undone")
            if undone is not None:
                return False
            if last_answer(connection, annotator) != (number, key):
                raise AnswerConflict("only the last answer can be undone")
            now = time.time()
            connection.execute("UPDATE answers SET undone=? WHERE id=?", (now, number))
            connection.execute(
                "UPDATE shown SET since=?, expires=? WHERE annotator=? AND pair=?",
                (now, now + self.lease, annotator, pair),
            )
            count_again(connection, pair)
        return True

    def standing(self, annotator: str = "") -> Standing:
        """How far all are, and this person."""
        with self.file.reading() as connection:
            answered, wanted = connection.execute(
                "SELECT coalesce(sum(min(votes, max(wanted, needed))), 0), "
                "coalesce(sum(max(wanted, needed)), 0) FROM pairs"
            ).fetchone()
            (mine,) = connection.execute(
                "SELECT count(*) FROM answers WHERE annotator=? AND undone IS NULL", (annotator,)
            ).fetchone()
            last = last_answer(connection, annotator)
        return Standing(answered, wanted, mine, None if last is None else last[1])

    # -- everything -------------------------------------------------------------------------

    def answers(self, *, undone: bool = False) -> list[Answer]:
        """All answers, in the order in which they were given.

        Args:
            undone: also those that were taken back.
        """
        where = "" if undone else "WHERE x.undone IS NULL"
        with self.file.reading() as connection:
            rows = connection.execute(
                "SELECT x.key, x.pair, p.prompt, p.a, p.b, x.annotator, x.value, x.weight, "
                "x.a_left, x.seconds, x.created, x.undone FROM answers x "
                f"JOIN pairs p ON p.id=x.pair {where} ORDER BY x.id"
            ).fetchall()
        found = []
        for row in rows:
            values: list[Any] = list(row)
            values[8] = None if row[8] is None else bool(row[8])  # SQLite has no truth values
            found.append(Answer(*values))
        return found

    def note(self, name: str, value: str | None = None) -> str | None:
        """A named remark in the file; ``value`` replaces it."""
        if value is not None:
            with self.file.transaction() as connection:
                connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))
            return value
        with self.file.reading() as connection:
            row = connection.execute("SELECT value FROM notes WHERE name=?", (name,)).fetchone()
        return None if row is None else str(row[0])
