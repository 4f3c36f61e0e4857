"""What `LabelStore` does inside a transaction: find, lend, store and count."""

import json
import secrets
import sqlite3
import time

from equilign.chat import Prompt, is_conversational, prompt_text
from equilign.errors import ConfigError
from equilign.labelling.tables import AnswerConflict, Assignment, UnknownComparison
from equilign.text import storable, text_hash

CHOICES = ("left", "right", "tie", "skip")
LONGEST_KEY = 128

_LIVE = "SELECT 1 FROM answers x WHERE x.pair=p.id AND x.annotator=:who AND x.undone IS NULL"
_OWN = f"""
SELECT p.id FROM shown s JOIN pairs p ON p.id=s.pair
WHERE s.annotator=:who AND s.expires>:now AND p.votes < max(p.wanted, p.needed)
  AND NOT EXISTS ({_LIVE}) ORDER BY s.since DESC LIMIT 1"""
_FREE = f"""
SELECT p.id FROM pairs p
WHERE p.votes < max(p.wanted, p.needed) AND NOT EXISTS ({_LIVE})
  AND p.votes + (SELECT count(*) FROM shown s WHERE s.pair=p.id AND s.expires>:now
                 AND s.annotator<>:who) < max(p.wanted, p.needed)
ORDER BY p.needed > p.votes DESC, p.priority DESC, p.id LIMIT 1"""


def check_answer(choice: str, key: str) -> None:
    """Whether this may be an answer at all.

    Raises:
        ConfigError: an unknown choice, or a key that is none.
    """
    if choice not in CHOICES:
        raise ConfigError(f"an answer is one of {', '.join(CHOICES)}; got {choice!r}")
    if not 0 < len(key) <= LONGEST_KEY:
        raise ConfigError(f"a key has 1 to {LONGEST_KEY} characters; got {len(key)}")


def lend(connection: sqlite3.Connection, annotator: str, lease: float) -> Assignment | None:
    """What this person compares next, kept for them for ``lease`` seconds."""
    now = time.time()
    who = {"who": annotator, "now": now}
    row = connection.execute(_OWN, who).fetchone() or connection.execute(_FREE, who).fetchone()
    if row is None:
        return None
    connection.execute(
        "INSERT INTO shown VALUES (?, ?, ?, ?, ?) ON CONFLICT (annotator, pair) "
        "DO UPDATE SET since=excluded.since, expires=excluded.expires",
        (annotator, row[0], secrets.randbits(1), now, now + lease),
    )
    return _assignment(connection, annotator, row[0])


def give(
    connection: sqlite3.Connection,
    annotator: str,
    pair: int,
    choice: str,
    key: str,
    seconds: float | None,
) -> bool:
    """Store an answer; False if this very answer is there already. See `LabelStore.answer`."""
    _existing(connection, pair)
    shown = connection.execute(
        "SELECT a_left FROM shown WHERE annotator=? AND pair=?", (annotator, pair)
    ).fetchone()
    if shown is None:
        raise AnswerConflict(f"comparison {pair} was not shown to {annotator}")
    value = _value_of(choice, bool(shown[0]))
    if _same_answer(connection, key, annotator, pair, value):
        return False
    _check_unanswered(connection, annotator, pair)
    connection.execute(
        "INSERT INTO answers (key, pair, annotator, value, a_left, seconds, created) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (key, pair, annotator, value, shown[0], seconds, time.time()),
    )
    connection.execute("UPDATE shown SET expires=0 WHERE annotator=? AND pair=?", (annotator, pair))
    count_again(connection, pair)
    return True


def pair_key(prompt: Prompt, one: str, other: str) -> tuple[bytes, bytes, bytes]:
    """Both orders of a pair have one key: people see a random one."""
    low, high = sorted([text_hash(one), text_hash(other)])
    return text_hash(prompt_text(prompt)), low, high


def add_pair(
    connection: sqlite3.Connection, prompt: Prompt, one: str, other: str, source: str
) -> tuple[int, bool]:
    """The number of a pair, and whether it was made just now."""
    key = pair_key(prompt, one, other)
    chat = json.dumps(prompt) if is_conversational(prompt) else None
    row = connection.execute(
        "SELECT id, chat FROM pairs WHERE prompt=? AND a=? AND b=?", key
    ).fetchone()
    if row is not None:
        if row[1] is None and chat is not None:  # an oracle asked first, with the plain text
            connection.execute("UPDATE pairs SET chat=? WHERE id=?", (chat, row[0]))
        return int(row[0]), False
    texts = [prompt_text(prompt), one, other]
    connection.executemany(
        "INSERT OR IGNORE INTO texts VALUES (?, ?)", [(text_hash(t), storable(t)) for t in texts]
    )
    made = connection.execute(
        "INSERT INTO pairs (prompt, a, b, chat, source, created) VALUES (?, ?, ?, ?, ?, ?)",
        (*key, chat, source, time.time()),
    )
    return int(made.lastrowid or 0), True


def count_again(connection: sqlite3.Connection, pair: int) -> None:
    """Votes and points of a pair from its answers: sums that drift would be sums to doubt."""
    connection.execute(
        "UPDATE pairs SET (votes, points) = (SELECT coalesce(sum(weight), 0), "
        "coalesce(sum(weight * value), 0) FROM answers "
        "WHERE pair=:pair AND undone IS NULL AND value IS NOT NULL) WHERE id=:pair",
        {"pair": pair},
    )


def _existing(connection: sqlite3.Connection, pair: int) -> None:
    if connection.execute("SELECT 1 FROM pairs WHERE id=?", (pair,)).fetchone() is None:
        raise UnknownComparison(f"there is no comparison {pair}")


def _value_of(choice: str, a_left: bool) -> float | None:
    if choice in ("tie", "skip"):
        return 0.5 if choice == "tie" else None
    return float((choice == "left") == a_left)


def _same_answer(
    connection: sqlite3.Connection, key: str, annotator: str, pair: int, value: float | None
) -> bool:
    """Whether this very answer is stored already.

    Raises:
        AnswerConflict: the key belongs to another one.
    """
    row = connection.execute(
        "SELECT annotator, pair, value FROM answers WHERE key=?", (key,)
    ).fetchone()
    if row is not None and row != (annotator, pair, value):
        raise AnswerConflict("this key belongs to another answer")
    return row is not None


def _check_unanswered(connection: sqlite3.Connection, annotator: str, pair: int) -> None:
    row = connection.execute(
        "SELECT 1 FROM answers WHERE pair=? AND annotator=? AND undone IS NULL", (pair, annotator)
    ).fetchone()
    if row is not None:
        raise AnswerConflict(f"{annotator} answered comparison {pair} already; undo it first")


def last_answer(connection: sqlite3.Connection, annotator: str) -> tuple[int, str] | None:
    """Number and key of this person's last answer on the page that counts."""
    row = connection.execute(
        "SELECT id, key FROM answers WHERE annotator=? AND undone IS NULL AND imported=0 "
        "ORDER BY id DESC LIMIT 1",
        (annotator,),
    ).fetchone()
    return None if row is None else (int(row[0]), str(row[1]))


def _assignment(connection: sqlite3.Connection, annotator: str, pair: int) -> Assignment:
    prompt, a, b, a_left = connection.execute(
        "SELECT (SELECT text FROM texts WHERE hash=p.prompt), (SELECT text FROM texts "
        "WHERE hash=p.a), (SELECT text FROM texts WHERE hash=p.b), s.a_left "
        "FROM pairs p JOIN shown s ON s.pair=p.id WHERE p.id=? AND s.annotator=?",
        (pair, annotator),
    ).fetchone()
    return Assignment(pair, prompt, a, b) if a_left else Assignment(pair, prompt, b, a)
