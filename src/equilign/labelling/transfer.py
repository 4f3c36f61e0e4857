"""Answers as rows in TRL's preference format, out and in."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from equilign.chat import Prompt, is_conversational
from equilign.errors import DataError
from equilign.formats import PreferencePair, preference_pairs, preference_rows
from equilign.labelling.rows import add_pair, count_again, pair_key
from equilign.labelling.store import LabelStore, check_annotator
from equilign.labelling.tables import Answer
from equilign.text import text_hash


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        answers: stored.
        repeated: there already, from an earlier import of the same rows.
        kept: not stored, since that person's own answer to the pair stays.
        pairs: comparisons that are new.
    """

    answers: int
    repeated: int
    kept: int
    pairs: int


def pair_rows(store: LabelStore, *, ties: bool = True) -> list[dict[str, Any]]:
    """One row per pair with votes: ``prompt, chosen, rejected, chosen_prob``, and who voted.

    ``chosen_prob`` is the share of votes for ``chosen``, ties half; ``votes`` says how many there
    are and ``annotator`` whose they are.

    Args:
        store: the answers.
        ties: whether pairs with a share of exactly one half are kept.
    """
    by_pair: dict[int, list[Answer]] = {}
    for answer in store.answers():
        if answer.value is not None:
            by_pair.setdefault(answer.pair, []).append(answer)
    texts = _Texts(store)
    pairs, more = [], []
    for number, answers in by_pair.items():
        votes = sum(a.weight for a in answers)
        share = sum(a.weight * (a.value or 0.0) for a in answers) / votes
        if share == 0.5 and not ties:
            continue
        pairs.append(texts.pair(number, share))
        names = sorted({a.annotator for a in answers})
        more.append({"votes": votes, "annotator": ", ".join(names)})
    return [{**row, **m} for row, m in zip(_rows(pairs), more, strict=True)]


def answer_rows(store: LabelStore, *, skips: bool = False) -> list[dict[str, Any]]:
    """One row per answer: the pair, ``chosen_prob`` 1 or (a tie) 1/2, and all that is known of it.

    ``annotator``, ``position`` (where ``chosen`` was shown: first is left), ``tie``, ``votes``,
    ``seconds``, ``time`` and ``key``; importing them gives the same answers once.

    Args:
        store: the answers.
        skips: also skipped comparisons, with ``chosen_prob`` null.
    """
    texts = _Texts(store)
    answers = [a for a in store.answers() if skips or a.value is not None]
    pairs = [texts.pair(a.pair, 0.5 if a.value is None else a.value) for a in answers]
    return [{**row, **_about(answer)} for row, answer in zip(_rows(pairs), answers, strict=True)]


def _rows(pairs: list[PreferencePair]) -> list[dict[str, Any]]:
    """All chat or all plain text, as a data set must be: one chat makes all of them chats."""
    chat = any(is_conversational(p.prompt) for p in pairs)
    return preference_rows(pairs, conversational=chat)


def _about(answer: Answer) -> dict[str, Any]:
    a_chosen = answer.value is None or answer.value >= 0.5
    position = None
    if answer.a_left is not None:
        position = "first" if answer.a_left == a_chosen else "second"
    return {
        **({"chosen_prob": None, "skip": True} if answer.value is None else {}),
        "annotator": answer.annotator,
        "position": position,
        "tie": answer.value == 0.5,
        "votes": answer.weight,
        "seconds": answer.seconds,
        "time": answer.created,
        "key": answer.key,
    }


class _Texts:
    """Pairs with their texts, the likelier winner first."""

    def __init__(self, store: LabelStore) -> None:
        with store.file.reading() as connection:
            rows = connection.execute(
                "SELECT p.id, p.chat, x.text, a.text, b.text FROM pairs p "
                "JOIN texts x ON x.hash=p.prompt JOIN texts a ON a.hash=p.a "
                "JOIN texts b ON b.hash=p.b"
            ).fetchall()
        self._pairs = {r[0]: r[1:] for r in rows}

    def pair(self, number: int, share: float) -> PreferencePair:
        """A pair whose answer a has this share of the votes."""
        chat, prompt, a, b = self._pairs[number]
        asked: Prompt = prompt if chat is None else json.loads(chat)
        if share < 0.5:
            return PreferencePair(asked, b, a, 1.0 - share)
        return PreferencePair(asked, a, b, share)


def import_rows(
    store: LabelStore, rows: Iterable[Mapping[str, Any]], *, annotator: str = "imported"
) -> Imported:
    """Answers from preference rows; the same rows again change nothing.

    A row's ``chosen_prob`` is the value of its answer (1 without one), ``votes`` its weight,
    ``annotator`` who gave it, ``position`` where ``chosen`` was shown. A row with a ``key``, as
    `answer_rows` writes it, is that very answer. Scored groups give one answer per pair.

    Args:
        store: where to.
        rows: in preference format; see `equilign.formats.preference_pairs`.
        annotator: who gave the answers of rows without that column. Several such rows on one
            pair count as several people.

    Raises:
        DataError: a row is malformed; names it.
    """
    name = check_annotator(annotator)
    made = Counter[str]()
    same, nameless = Counter[bytes](), Counter[int]()
    with store.file.transaction() as connection:
        for where, row, pair in _located_pairs(rows):
            if pair.chosen == pair.rejected:
                continue
            number, new = add_pair(connection, pair.prompt, pair.chosen, pair.rejected, "import")
            made["pairs"] += new
            a = _hashes(pair)[1]
            vote = _vote(row, where, name, pair, chosen_is_a=a == text_hash(pair.chosen))
            content = blake2b(repr((*_hashes(pair), *vote[:3])).encode(), digest_size=16).digest()
            same[content] += 1
            if not isinstance(row.get("annotator"), str):
                nameless[number] += 1
                who = vote[0] if nameless[number] == 1 else f"{vote[0]} #{nameless[number]}"
                vote = (who, *vote[1:])
            key = _key_of(row) or f"import-{content.hex()}-{same[content]}"
            made[_insert(connection, key, number, vote)] += 1
            count_again(connection, number)
    return Imported(made["answers"], made["repeated"], made["kept"], made["pairs"])


Vote = tuple[str, float, int, bool | None, float | None, float | None]
"""Annotator, value for a, weight, whether a was on the left, seconds, time."""


def _hashes(pair: PreferencePair) -> tuple[bytes, bytes, bytes]:
    return pair_key(pair.prompt, pair.chosen, pair.rejected)


def _located_pairs(
    rows: Iterable[Mapping[str, Any]],
) -> Iterable[tuple[str, Mapping[str, Any], PreferencePair]]:
    where = getattr(rows, "where", lambda i: f"row {i + 1}")
    for i, row in enumerate(rows):
        if isinstance(row, Mapping) and row.get("skip"):
            continue
        try:
            pairs = preference_pairs([row])
        except DataError as error:
            raise DataError(str(error).replace("row 1", where(i), 1)) from None
        for pair in pairs:
            yield where(i), row, pair


def _vote(
    row: Mapping[str, Any], where: str, name: str, pair: PreferencePair, *, chosen_is_a: bool
) -> Vote:
    who = row.get("annotator")
    value = pair.chosen_prob if chosen_is_a else 1.0 - pair.chosen_prob
    if row.get("tie") in (True, 1, "true", "True", "1"):
        value = 0.5
    position = row.get("position")
    left = None
    if position in ("first", "second"):
        left = (position == "first") == chosen_is_a
    weight = row.get("votes", 1)
    try:
        votes = int(weight)
    except (TypeError, ValueError):
        votes = 0
    if not 1 <= votes <= 1_000_000 or votes != float(weight):
        raise DataError(f'{where}: "votes" is {weight!r}; it must be a whole number >= 1')
    return (
        check_annotator(who[:64]) if isinstance(who, str) and who.strip() else name,
        value,
        votes,
        left,
        _number(row.get("seconds")),
        _number(row.get("time")),
    )


def _number(value: Any) -> float | None:  # noqa: ANN401 - a cell of a file
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0.0 <= number < 1e12 else None


def _key_of(row: Mapping[str, Any]) -> str | None:
    key = row.get("key")
    return key if isinstance(key, str) and 0 < len(key) <= 128 else None


def _insert(connection: Any, key: str, pair: int, vote: Vote) -> str:  # noqa: ANN401
    who, value, weight, left, seconds, when = vote
    if connection.execute("SELECT 1 FROM answers WHERE key=?", (key,)).fetchone():
        return "repeated"
    own = connection.execute(
        "SELECT 1 FROM answers WHERE pair=? AND annotator=? AND undone IS NULL", (pair, who)
    ).fetchone()
    if own:
        return "kept"
    connection.execute(
        "INSERT INTO answers (key, pair, annotator, value, weight, a_left, seconds, created, "
        "imported) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
        (key, pair, who, value, weight, left, seconds, time.time() if when is None else when),
    )
    return "answers"
