"""Data formats: TRL's prompt-only and preference columns, soft pairs, and scored groups.

| format | columns |
|---|---|
| prompt-only | ``prompt`` |
| preference | ``prompt, chosen, rejected``; ``prompt`` may be the answers' common beginning |
| soft pair | the same and ``chosen_prob``, Pr(chosen beats rejected) |
| scored group | ``prompt, completions`` (K), ``prefs`` (K x K, entry i, j = Pr(i beats j)) |

Each is *standard* (plain text) or *conversational* (chat messages). No torch is imported here.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from equilign.chat import (
    CURE,
    Message,
    Prompt,
    as_messages,
    as_text,
    check_answer,
    check_messages,
    check_prompt,
    is_conversational,
)
from equilign.data_files import Rows, load_rows
from equilign.errors import DataError
from equilign.games.records import excerpt

__all__ = [
    "Message",
    "PreferencePair",
    "Prompt",
    "Rows",
    "ScoredGroup",
    "answer_pairs",
    "as_messages",
    "as_text",
    "is_conversational",
    "load_rows",
    "preference_pairs",
    "preference_rows",
    "prompts_only",
    "scored_groups",
]

_TOLERANCE = 1e-6
_PREFERENCE = ("chosen", "rejected", "chosen_prob")
_GROUP = ("completions", "prefs")


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to a prompt, and how probably the first is preferred.

    Attributes:
        prompt: text or chat messages.
        chosen: the preferred answer, the plain text of one assistant message.
        rejected: the other one.
        chosen_prob: Pr(chosen beats rejected), in [0, 1]; 1 is a plain (hard) label.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    chosen_prob: float = 1.0


@dataclass(frozen=True)
class ScoredGroup:
    """K answers to one prompt and what a judge says about every two of them.

    Attributes:
        prompt: text or chat messages.
        completions: K answers.
        prefs: K rows of K win probabilities, entry ``[i][j]`` = Pr(i beats j), ``prefs[i][j] +
            prefs[j][i] == 1``; nan where there is no verdict.
    """

    prompt: Prompt
    completions: tuple[str, ...]
    prefs: tuple[tuple[float, ...], ...]

    def pairs(self, *, ties: bool = True) -> list[PreferencePair]:
        """Every two different answers with a verdict, as soft pairs, the likelier winner first.

        Args:
            ties: whether verdicts of exactly 1/2 are kept.
        """
        found = []
        for i, j in combinations(range(len(self.completions)), 2):
            prob = self.prefs[i][j]
            a, b = self.completions[i], self.completions[j]
            if math.isnan(prob) or a == b or (prob == 0.5 and not ties):
                continue
            if prob < 0.5:
                a, b, prob = b, a, self.prefs[j][i]
            found.append(PreferencePair(self.prompt, a, b, prob))
        return found

    def row(self) -> dict[str, Any]:
        """As a row of a scored-group file; no verdict is None."""
        prefs = [[None if math.isnan(p) else p for p in row] for row in self.prefs]
        return {"prompt": self.prompt, "completions": list(self.completions), "prefs": prefs}


def _located(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for i, row in enumerate(rows):
        where = rows.where(i) if isinstance(rows, Rows) else f"row {i + 1}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: {excerpt(row)} is no mapping of columns to values. {CURE}")
        yield where, row


def prompts_only(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of any format as prompt-only rows: the prompt and the columns that are no answers.

    Raises:
        DataError: a row has no prompt, or a malformed one; names the row.
    """
    found = []
    for where, row in _located(rows):
        if row.get("prompt") is not None:
            prompt = check_prompt(row["prompt"], where)
        elif _has(row, "chosen", "rejected"):
            prompt = _implicit(row, where).prompt
        else:
            raise DataError(f'{where}: there is no "prompt"; {_columns(row)}. {CURE}')
        extra = {k: v for k, v in row.items() if k not in ("prompt", *_PREFERENCE, *_GROUP)}
        found.append({"prompt": prompt, **extra})
    return found


# -- pairs and groups ----------------------------------------------------------------------


def _has(row: Mapping[str, Any], *names: str) -> bool:
    return all(row.get(name) is not None for name in names)


def _columns(row: Mapping[str, Any]) -> str:
    return f"it has {', '.join(map(str, list(row)[:12])) or 'nothing'}"


def preference_pairs(rows: Iterable[Mapping[str, Any]]) -> list[PreferencePair]:
    """Pairs from rows in preference, soft-pair or scored-group format, standard or chat.

    A scored group gives every two of its answers that have a verdict; see `ScoredGroup.pairs`.

    Raises:
        DataError: a row is none of them, or malformed; names file, row and column.
    """
    found: list[PreferencePair] = []
    for where, row in _located(rows):
        if _has(row, "chosen", "rejected"):
            found.append(_pair(row, where))
        elif _has(row, *_GROUP):
            found += _group(row, where).pairs()
        else:
            raise DataError(
                f'{where}: a preference needs "chosen" and "rejected" (or "completions" and '
                f'"prefs"); {_columns(row)}. {CURE}'
            )
    return found


def answer_pairs(rows: Iterable[Mapping[str, Any]]) -> list[tuple[Prompt, str, str]]:
    """Every two different answers to a prompt, whatever is known about who wins.

    Args:
        rows: preference rows, or rows with ``prompt`` and ``completions`` (two or more), such as
            those that a training run writes.

    Returns:
        Prompt and two answers.

    Raises:
        DataError: a row is neither, or malformed; names file, row and column.
    """
    found: list[tuple[Prompt, str, str]] = []
    for where, row in _located(rows):
        if _has(row, "completions"):
            prompt, texts = _answers(row, where)
            found += [(prompt, a, b) for a, b in combinations(dict.fromkeys(texts), 2)]
        elif _has(row, "chosen", "rejected"):
            pair = _pair(row, where)
            if pair.chosen != pair.rejected:
                found.append((pair.prompt, pair.chosen, pair.rejected))
        else:
            raise DataError(
                f'{where}: two answers are needed: "chosen" and "rejected", or "prompt" and '
                f'"completions"; {_columns(row)}. {CURE}'
            )
    return found


def scored_groups(rows: Iterable[Mapping[str, Any]]) -> list[ScoredGroup]:
    """Groups from rows in scored-group format; the files in ``rounds/`` of a run are such rows.

    Raises:
        DataError: a row is none, or malformed; names file, row and column.
    """
    found = []
    for where, row in _located(rows):
        if not _has(row, *_GROUP):
            raise DataError(
                f'{where}: a scored group needs "prompt", "completions" and "prefs"; '
                f"{_columns(row)}. {CURE}"
            )
        found.append(_group(row, where))
    return found


def preference_rows(
    pairs: Iterable[PreferencePair], *, conversational: bool | None = None
) -> list[dict[str, Any]]:
    """Pairs as rows in TRL's columns, and ``chosen_prob``.

    Args:
        pairs: the pairs.
        conversational: chat messages (True) or plain text (False) for all; None follows each
            prompt.

    Raises:
        DataError: a chat of several messages was to become plain text.
    """
    found: list[dict[str, Any]] = []
    for pair in pairs:
        chat = is_conversational(pair.prompt) if conversational is None else conversational
        answers: list[Any] = [pair.chosen, pair.rejected]
        if chat:
            answers = [[{"role": "assistant", "content": text}] for text in answers]
        found.append(
            {
                "prompt": as_messages(pair.prompt) if chat else as_text(pair.prompt),
                "chosen": answers[0],
                "rejected": answers[1],
                "chosen_prob": pair.chosen_prob,
            }
        )
    return found


def _pair(row: Mapping[str, Any], where: str) -> PreferencePair:
    if row.get("prompt") is None:
        pair = _implicit(row, where)
    else:
        prompt = check_prompt(row["prompt"], where)
        chosen, rejected = (
            check_answer(row[name], name, where, prompt) for name in ("chosen", "rejected")
        )
        pair = PreferencePair(prompt, chosen, rejected)
    prob = row.get("chosen_prob")
    if prob is None:
        return pair
    value = _probability(prob, "chosen_prob", where)
    return PreferencePair(pair.prompt, pair.chosen, pair.rejected, value)


def _probability(value: Any, name: str, where: str) -> float:  # noqa: ANN401
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not 0.0 <= number <= 1.0:
        raise DataError(f'{where}: "{name}" is {excerpt(value)}; a probability is in [0, 1]')
    return number


def _implicit(row: Mapping[str, Any], where: str) -> PreferencePair:
    """The prompt is what both answers begin with: whole messages, or characters."""
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _implicit_text(chosen, rejected, where)
    a, b = check_messages(chosen, "chosen", where), check_messages(rejected, "rejected", where)
    same = 0
    while same < min(len(a), len(b)) - 1 and a[same] == b[same]:
        same += 1
    if not same:
        raise DataError(
            f'{where}: there is no "prompt", and "chosen" and "rejected" begin differently; the '
            "prompt must be a column, or the messages that both begin with"
        )
    prompt: Prompt = a[:same]
    return PreferencePair(
        prompt,
        check_answer(a[same:], "chosen", where, prompt),
        check_answer(b[same:], "rejected", where, prompt),
    )


def _implicit_text(chosen: str, rejected: str, where: str) -> PreferencePair:
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    # A space belongs to the word that it begins, as in TRL.
    if same and chosen[same - 1] == " ":
        same -= 1
    prompt, a, b = chosen[:same], chosen[same:], rejected[same:]
    if not prompt.strip() or not a or not b:
        raise DataError(
            f'{where}: there is no "prompt", and "chosen" and "rejected" have no common beginning '
            "followed by two different answers"
        )
    return PreferencePair(prompt, a, b)


def _answers(row: Mapping[str, Any], where: str) -> tuple[Prompt, tuple[str, ...]]:
    if row.get("prompt") is None:
        raise DataError(f'{where}: a group of answers needs a "prompt"; {_columns(row)}')
    prompt = check_prompt(row["prompt"], where)
    answers = row["completions"]
    if not isinstance(answers, list) or len(answers) < 2:
        raise DataError(
            f'{where}: "completions" is {excerpt(answers)}; it must be a list of two or more'
        )
    return prompt, tuple(check_answer(a, "completions", where, prompt) for a in answers)


def _group(row: Mapping[str, Any], where: str) -> ScoredGroup:
    prompt, texts = _answers(row, where)
    return ScoredGroup(prompt, texts, _matrix(row["prefs"], len(texts), where))


def _matrix(value: Any, size: int, where: str) -> tuple[tuple[float, ...], ...]:  # noqa: ANN401
    shape = isinstance(value, list) and len(value) == size
    if not shape or not all(isinstance(r, list) and len(r) == size for r in value):
        raise DataError(
            f'{where}: "prefs" must be {size} lists of {size} probabilities, one per completion'
        )
    matrix = [
        [
            math.nan if p is None or p != p else _probability(p, f"prefs[{i}][{j}]", where)
            for j, p in enumerate(row)
        ]
        for i, row in enumerate(value)
    ]
    for i in range(size):
        for j in range(i + 1):
            total = matrix[i][j] + matrix[j][i]
            one_sided = math.isnan(matrix[i][j]) != math.isnan(matrix[j][i])
            if one_sided or abs(total - 1.0) > _TOLERANCE:
                raise DataError(
                    f'{where}: "prefs"[{i}][{j}] is {value[i][j]} and [{j}][{i}] is '
                    f"{value[j][i]}; Pr(i beats j) + Pr(j beats i) must be 1 (1/2 each on the "
                    "diagonal), or both null for no verdict"
                )
    return tuple(map(tuple, matrix))
