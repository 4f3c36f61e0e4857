"""Comparisons from tables of records: which columns there may be, and what they mean.

- preferred and not: ``chosen, rejected`` (or ``winner, loser``), with ``chosen_model,
  rejected_model`` where the texts have authors;
- a winner of two: ``model_a, model_b, winner`` (also ``player_``, ``system_``, ``_1`` and ``_2``);
- counts of a pair: ``player_a, player_b, wins_a, wins_b`` and maybe ``ties``.

Any of them may have ``prompt, annotator, attribute, weight, tie, position``.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from equilign.errors import DataError
from equilign.games.comparisons import Comparisons
from equilign.games.records import Problems, Table, codes, excerpt

Players = Literal["auto", "names", "texts"]

STEMS = ("player", "model", "system")
PROMPT = ("prompt", "prompt_id", "question_id", "question")
ANNOTATOR = ("annotator", "annotator_id", "judge", "rater")
ATTRIBUTE = ("attribute", "criterion", "aspect")
WEIGHT = ("weight", "count")
TIE = ("tie", "is_tie")
POSITION = ("position", "shown_first")

_TIES = {"tie", "ties", "draw", "tie (bothbad)", "bothbad", "both_bad", "both bad"}
_FIRST = {"a", "1", "first", "left"}
_SECOND = {"b", "2", "second", "right"}
_CURE = "The columns are explained in the documentation of `equilign diagnose`."


def is_comparisons(columns: Mapping[str, Any] | list[str]) -> bool:
    """Whether a file with these columns holds comparisons."""
    names = set(columns)
    pair = _pair_columns(names) is not None
    if {"chosen", "rejected"} <= names or {"winner", "loser"} <= names:
        return True
    return pair and bool({"winner", "wins_a"} & names)


def read_comparisons(table: Table, players: Players = "auto") -> Comparisons:
    """Comparisons from the records of a file.

    Args:
        table: its columns.
        players: whether ``chosen`` and ``rejected`` are ``names`` of players that mean the same
            on every prompt, or ``texts`` that belong to their prompt. ``auto`` decides: names if
            there are no prompts, or if answers recur on two prompts each on average.

    Raises:
        DataError: columns are missing, or records are malformed; names the file, the first bad
            line, how many there are, and the cure.
    """
    names = set(table.columns)
    if not is_comparisons(list(names)):
        raise DataError(
            f"{table.path} has the columns {', '.join(sorted(names)[:12]) or 'of nothing'}; "
            "comparisons need chosen and rejected, or model_a, model_b and winner, or player_a, "
            "player_b, wins_a and wins_b"
        )
    problems = Problems(table.path)
    if {"winner", "loser"} <= names and not {"chosen", "rejected"} <= names:
        renamed = {"winner": "chosen", "loser": "rejected"}
        columns = {renamed.get(name, name): v for name, v in table.columns.items()}
        table, names = Table(table.path, columns, table.lines), set(columns)
    if {"chosen", "rejected"} <= names:
        rows = _chosen_rows(table, players, problems)
    elif "winner" in names:
        rows = _winner_rows(table, problems)
    else:
        rows = _count_rows(table, problems)
    problems.check(len(table), _CURE)
    return _finish(rows, table)


# -- one kind of record each ---------------------------------------------------------------


def _chosen_rows(table: Table, players: Players, problems: Problems) -> dict[str, Any]:
    prompts = _prompts(table, problems)
    authors = next(
        (s for s in STEMS if {f"chosen_{s}", f"rejected_{s}"} <= set(table.columns)), None
    )
    notes: tuple[str, ...] = ()
    if authors is not None:
        chosen = table.texts(f"chosen_{authors}", problems)
        rejected = table.texts(f"rejected_{authors}", problems)
        pooled = True
    else:
        chosen, rejected, implicit = _answers(table, problems)
        if prompts is None and implicit is not None:
            prompts = implicit
        pooled, notes = _are_names(prompts, chosen, rejected, players)
    tie = table.find(*TIE)
    score = np.ones(len(table))
    if tie is not None:
        score[_truths(table, tie, problems)] = 0.5
    return {
        "names": (chosen, rejected),
        "prompts": prompts,
        "score": score,
        "weight": _weights(table, problems),
        "shown": _positions(table, problems, "chosen", "rejected"),
        "pooled": pooled,
        "notes": notes,
    }


def _winner_rows(table: Table, problems: Problems) -> dict[str, Any]:
    a, b = _pair_columns(set(table.columns)) or ("", "")
    first, second = table.texts(a, problems), table.texts(b, problems)
    score = np.ones(len(table))
    for i, value in enumerate(table.columns["winner"]):
        said = str(value).strip()
        low = said.lower()
        # A name comes first: players may be called "a" and "b", whoever is listed first.
        if said in (first[i], second[i]):
            score[i] = float(said == first[i])
        elif low == a or low in _FIRST:
            continue
        elif low == b or low in _SECOND:
            score[i] = 0.0
        elif low in _TIES:
            score[i] = 0.5
        else:
            problems.add(
                table.lines[i], f'"winner" is {excerpt(value)}; it must be {a}, {b} or tie'
            )
    shown = np.ones(len(table), dtype=np.int64)  # such logs list the answer shown first first
    if table.find(*POSITION):
        shown = _positions(table, problems, a, b)
    return {
        "names": (first, second),
        "prompts": _prompts(table, problems),
        "score": score,
        "weight": _weights(table, problems),
        "shown": shown,
        "pooled": True,
        "notes": (),
    }


def _count_rows(table: Table, problems: Problems) -> dict[str, Any]:
    a, b = _pair_columns(set(table.columns)) or ("", "")
    if "wins_b" not in table.columns:
        raise DataError(f"{table.path} has a column wins_a but no wins_b")
    first, second = table.texts(a, problems), table.texts(b, problems)
    kinds = {"wins_a": 1.0, "wins_b": 0.0, "ties": 0.5}
    parts = [
        (table.numbers(name, problems, default=0.0 if name == "ties" else None), score)
        for name, score in kinds.items()
        if name in table.columns
    ]
    repeats = len(parts)
    prompts = _prompts(table, problems)
    return {
        "names": (first * repeats, second * repeats),
        "prompts": None if prompts is None else prompts * repeats,
        "score": np.repeat([score for _, score in parts], len(table)),
        "weight": np.concatenate([weight for weight, _ in parts]),
        "shown": np.zeros(repeats * len(table), dtype=np.int64),
        "pooled": True,
        "notes": (),
        "repeats": repeats,
    }


# -- columns -------------------------------------------------------------------------------


def _pair_columns(names: set[str]) -> tuple[str, str] | None:
    for stem in (*(s + "_" for s in STEMS), ""):
        for ends in (("a", "b"), ("1", "2")):
            a, b = (stem + end for end in ends)
            if {a, b} <= names:
                return a, b
    return None


def _prompts(table: Table, problems: Problems) -> list[str] | None:
    name = table.find(*PROMPT)
    if name is None:
        return None
    values = table.columns[name]
    if any(isinstance(v, list) for v in values):
        texts = []
        for line, value in zip(table.lines, values, strict=True):
            if not isinstance(value, list | str) or not value:
                problems.add(line, f'"{name}" is {excerpt(value)}; it must be text or messages')
            texts.append(value if isinstance(value, str) else json.dumps(value, sort_keys=True))
        return texts
    return table.texts(name, problems)


def _answers(table: Table, problems: Problems) -> tuple[list[str], list[str], list[str] | None]:
    """Chosen, rejected, and the prompts that chat messages begin with alike."""
    chosen, rejected = table.columns["chosen"], table.columns["rejected"]
    if not any(isinstance(v, list) for v in (*chosen, *rejected)):
        return table.texts("chosen", problems), table.texts("rejected", problems), None
    pairs: tuple[list[str], list[str]] = ([], [])
    prompts = []
    for line, *both in zip(table.lines, chosen, rejected, strict=True):
        good = [_are_messages(value) for value in both]
        if not all(good):
            which = "chosen" if not good[0] else "rejected"
            problems.add(line, f'"{which}" is not a list of messages with a role and a content')
        same = 0
        if all(good):
            while same < min(map(len, both)) - 1 and both[0][same] == both[1][same]:
                same += 1
        for found, value in zip(pairs, both, strict=True):
            found.append(
                json.dumps(value[same:] if isinstance(value, list) else "", sort_keys=True)
            )
        prompts.append(json.dumps(both[0][:same]) if same else f"line {line}")
    return *pairs, prompts


def _are_messages(value: Any) -> bool:  # noqa: ANN401
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(m, dict)
            and isinstance(m.get("role"), str)
            and isinstance(m.get("content"), str)
            for m in value
        )
    )


def _are_names(
    prompts: list[str] | None, chosen: list[str], rejected: list[str], players: Players
) -> tuple[bool, tuple[str, ...]]:
    """Whether answers mean the same on every prompt, with a note if that had to be guessed."""
    if prompts is None or len(set(prompts)) == 1:
        return True, ()
    if players != "auto":
        return players == "names", ()
    here = set(zip(prompts, chosen, strict=True)) | set(zip(prompts, rejected, strict=True))
    answers = len({answer for _, answer in here})
    if len(here) >= 2 * answers:
        return True, (
            f"chosen and rejected hold {answers} texts that recur on many prompts, so they were "
            "taken as names of players",
        )
    return False, (
        "chosen and rejected were taken as answers that belong to their prompt, so that each "
        "prompt is a game of its own",
    )


def _truths(table: Table, name: str, problems: Problems) -> np.ndarray:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    known |= {"": False, "none": False}
    found = np.zeros(len(table), dtype=bool)
    for i, value in enumerate(table.columns[name]):
        said = str(value).strip().lower()
        if said not in known:
            problems.add(table.lines[i], f'"{name}" is {excerpt(value)}; it must be true or false')
        found[i] = known.get(said, False)
    return found


def _weights(table: Table, problems: Problems) -> np.ndarray:
    name = table.find(*WEIGHT)
    if name is None:
        return np.ones(len(table))
    return table.numbers(name, problems, default=1.0)


def _positions(table: Table, problems: Problems, first: str, second: str) -> np.ndarray:
    """1 where the first player of a row was shown first, -1 where the second was, 0 unknown."""
    name = table.find(*POSITION)
    found = np.zeros(len(table), dtype=np.int64)
    if name is None:
        return found
    known = dict.fromkeys(_FIRST | {first}, 1) | dict.fromkeys(_SECOND | {second}, -1)
    known |= {"none": 0, "": 0}
    for i, value in enumerate(table.columns[name]):
        said = str(value).strip().lower()
        if said not in known:
            problems.add(
                table.lines[i],
                f'"{name}" is {excerpt(value)}; it must say whether the {first} answer was shown '
                "first or second",
            )
        found[i] = known.get(said, 0)
    return found


# -- all kinds -----------------------------------------------------------------------------


def _finish(rows: dict[str, Any], table: Table) -> Comparisons:
    repeats = rows.get("repeats", 1)
    first, second = rows["names"]
    notes = rows["notes"]
    prompt, prompts = _codes_or_none(rows["prompts"], len(first))
    if rows["pooled"]:
        both, players = codes([*first, *second], sorted)
    else:  # the same words under two prompts are two answers
        assert prompts  # noqa: S101 - answers belong to prompts
        keys = [
            (p, text) for texts in (first, second) for p, text in zip(prompt, texts, strict=True)
        ]
        place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        both = np.fromiter(map(place.__getitem__, keys), np.int64, len(keys))
        players = tuple(text for _, text in place)
    a, b = both[: len(first)], both[len(first) :]
    annotator, annotators = _group(table, ANNOTATOR, repeats)
    attribute, attributes = _group(table, ATTRIBUTE, repeats)
    keep = (a != b) & (rows["weight"] > 0.0)
    if same := int((a == b).sum()):
        notes = (*notes, f"{same} rows compare a player with itself and were left out")
    if not keep.any():
        raise DataError(f"{table.path} holds no comparison of two different players")
    return Comparisons(
        first=a[keep],
        second=b[keep],
        score=rows["score"][keep],
        weight=rows["weight"][keep],
        shown=rows["shown"][keep],
        prompt=prompt[keep],
        annotator=annotator[keep],
        attribute=attribute[keep],
        players=players,
        prompts=prompts,
        annotators=annotators,
        attributes=attributes,
        pooled=rows["pooled"],
        notes=notes,
    )


def _group(
    table: Table, aliases: tuple[str, ...], repeats: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    name = table.find(*aliases)
    if name is None:
        return np.full(len(table) * repeats, -1, dtype=np.int64), ()
    values = [None if v is None or v == "" else str(v) for v in table.columns[name]]
    return _codes_or_none(values * repeats, len(table) * repeats)


def _codes_or_none(values: list[Any] | None, rows: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers of names in sorted order, -1 for None."""
    if values is None or all(v is None for v in values):
        return np.full(rows, -1, dtype=np.int64), ()
    if None not in set(values):
        return codes(values, sorted)
    names = sorted({v for v in values if v is not None})
    place: dict[Any, int] = {name: i for i, name in enumerate(names)} | {None: -1}
    return np.fromiter(map(place.__getitem__, values), np.int64, len(values)), tuple(names)
