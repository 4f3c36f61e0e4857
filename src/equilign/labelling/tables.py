"""The tables behind `LabelStore`, and the rows that are read from them."""

from dataclasses import dataclass

from equilign.errors import DataError
from equilign.sqlite_files import Form

_SCHEMA = """
CREATE TABLE IF NOT EXISTS texts (hash BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pairs (
    id INTEGER PRIMARY KEY, prompt BLOB NOT NULL, a BLOB NOT NULL, b BLOB NOT NULL,
    chat TEXT, source TEXT NOT NULL, created REAL NOT NULL,
    wanted INTEGER NOT NULL DEFAULT 0, needed INTEGER NOT NULL DEFAULT 0,
    priority REAL NOT NULL DEFAULT 0, votes INTEGER NOT NULL DEFAULT 0,
    points REAL NOT NULL DEFAULT 0, UNIQUE (prompt, a, b));
CREATE INDEX IF NOT EXISTS open_pairs ON pairs (needed > votes DESC, priority DESC, id)
    WHERE votes < max(wanted, needed);
CREATE INDEX IF NOT EXISTS pair_progress ON pairs (wanted, needed, votes);
CREATE TABLE IF NOT EXISTS shown (
    annotator TEXT NOT NULL, pair INTEGER NOT NULL REFERENCES pairs, a_left INTEGER NOT NULL,
    since REAL NOT NULL, expires REAL NOT NULL, PRIMARY KEY (annotator, pair)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shown_pair ON shown (pair, expires);
CREATE INDEX IF NOT EXISTS shown_now ON shown (annotator, expires);
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE,
    pair INTEGER NOT NULL REFERENCES pairs, annotator TEXT NOT NULL,
    value REAL, weight INTEGER NOT NULL DEFAULT 1, a_left INTEGER, seconds REAL,
    created REAL NOT NULL, undone REAL, imported INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX IF NOT EXISTS one_answer_each ON answers (pair, annotator)
    WHERE undone IS NULL;
CREATE INDEX IF NOT EXISTS answers_of ON answers (annotator, id) WHERE undone IS NULL
"""

LABELS = Form(
    application_id=0x65714C61,  # "eqLa"
    version=1,
    schema=_SCHEMA,
    what="a file of people's comparisons",
)


class UnknownComparison(DataError):
    """There is no such comparison or answer."""


class AnswerConflict(DataError):
    """An answer contradicts what is stored: given already, not shown to this person, not theirs."""


@dataclass(frozen=True)
class Assignment:
    """What one person is shown.

    Attributes:
        pair: number of the comparison.
        prompt: plain text.
        left: the answer on the left side.
        right: the other one.
    """

    pair: int
    prompt: str
    left: str
    right: str


@dataclass(frozen=True)
class Standing:
    """How far the work is.

    Attributes:
        answered: answers there are, counted up to what is wanted of each comparison.
        wanted: answers wanted in all.
        mine: comparisons that this person answered or skipped.
        last: key of this person's last answer, which may be undone; None without one.
    """

    answered: int
    wanted: int
    mine: int
    last: str | None


@dataclass(frozen=True)
class Tally:
    """What people said about one pair so far.

    Attributes:
        votes: answers, skips not counted.
        share: of them for the first answer, ties half; nan without votes.
        skips: people who skipped it.
    """

    votes: int
    share: float
    skips: int


@dataclass(frozen=True)
class Answer:
    """One person's answer to one comparison.

    Attributes:
        key: made by who sent it; the same answer sent twice has the same one.
        pair: number of the comparison.
        prompt: hash of the prompt's text.
        a: hash of one answer.
        b: hash of the other.
        annotator: who.
        value: 1 where a was preferred, 0 where b was, 1/2 for a tie; None if skipped.
        weight: votes that it stands for.
        a_left: whether a was shown on the left; None where unknown.
        seconds: from showing to answering; None where unknown.
        created: seconds since 1970.
        undone: when it was taken back; None if it counts.
    """

    key: str
    pair: int
    prompt: bytes
    a: bytes
    b: bytes
    annotator: str
    value: float | None
    weight: int
    a_left: bool | None
    seconds: float | None
    created: float
    undone: float | None
