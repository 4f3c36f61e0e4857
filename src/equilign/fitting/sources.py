"""Preference data from files: TRL's formats, and the shapes that published data sets come in.

A file whose columns are those of a known source is converted; anything else must be in one of the
formats of `equilign.formats`. Rows of one file are all of one kind.

| source | columns | soft label Pr(first beats second) |
|---|---|---|
| TRL preference, soft pair, scored group | see `equilign.formats` | ``chosen_prob``, else 1 |
| several annotators (PandaLM) | ``instruction, response_1, response_2, human`` | share of votes |
| graded (Tulu human evaluation) | ``prompt, response_1, response_2, preference`` | `GRADES` |
| rankings (OpenAssistant) | ``messages, replies`` with ``rank`` | 1, for every two ranks |
| rated attributes (NLG ratings) | ``prompt, a, b, margin`` | share of attributes |
| dialogues (Anthropic HH) | ``prompt`` of "Human:", "Assistant:" turns, ``chosen, rejected`` | 1 |

A tie counts one half.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from equilign.errors import DataError
from equilign.formats import Message, PreferencePair, Prompt, load_rows, preference_pairs

Row = Mapping[str, Any]
GRADES = {2: 1.0, 1: 0.75, 0: 0.5, -1: 0.25, -2: 0.0}
"""Five-point preference -> label: "slightly better" is taken as three of four people."""

_VOTES = {1: 1.0, 2: 0.0, 0: 0.5}
_DATA_FILES = ("*.jsonl", "*.jsonl.gz", "*.json", "*.json.gz", "*.csv", "*.csv.gz", "*.parquet")
_TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True)
class Source:
    """One known shape of preference data.

    Attributes:
        name: for messages.
        columns: a row of this source has all of them.
        convert: the pairs of one row; raises KeyError, TypeError or ValueError where malformed.
        applies: a further condition on the first row.
    """

    name: str
    columns: tuple[str, ...]
    convert: Callable[[Row], Iterable[PreferencePair]]
    applies: Callable[[Row], bool] = lambda row: True


def soft_pair(prompt: Prompt, first: str, second: str, prob: float) -> PreferencePair:
    """A pair with its likelier winner as ``chosen``, by the probability that the first wins."""
    if prob < 0.5:
        return PreferencePair(prompt, second, first, 1.0 - prob)
    return PreferencePair(prompt, first, second, prob)


def _answer(row: Row, name: str) -> str:
    """An answer that was written as true or 1 is that word; a blank one was left out on reading."""
    value = row.get(name, "")
    if not isinstance(value, str | bool | int | float):
        raise TypeError(f"{name} is {value!r}, which is no text")
    return str(value)


def _responses(row: Row) -> tuple[str, str]:
    return _answer(row, "response_1"), _answer(row, "response_2")


def _several_annotators(row: Row) -> list[PreferencePair]:
    votes = [_VOTES[int(v)] for v in row["human"]]
    more = str(row.get("input") or "").strip()
    prompt = f"{row['instruction']}\n\n{more}" if more else str(row["instruction"])
    return [soft_pair(prompt, *_responses(row), sum(votes) / len(votes))]


def _graded(row: Row) -> list[PreferencePair]:
    prob = GRADES[int(row["preference"])]
    return [soft_pair(row["prompt"], *_responses(row), prob)]


def _ranking(row: Row) -> list[PreferencePair]:
    prompt = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
    replies = sorted(row["replies"], key=lambda reply: float(reply["rank"]))
    return [
        PreferencePair(prompt, a["text"], b["text"], 1.0 if a["rank"] < b["rank"] else 0.5)
        for a, b in combinations(replies, 2)
    ]


def _attributes(row: Row) -> list[PreferencePair]:
    votes = [0.5 + 0.5 * ((m > 0.0) - (m < 0.0)) for m in row["margin"].values()]
    return [soft_pair(row["prompt"], _answer(row, "a"), _answer(row, "b"), sum(votes) / len(votes))]


def dialogue(text: str) -> list[Message]:
    r"""Messages of a text like ``"\n\nHuman: ... \n\nAssistant: ...\n\nHuman: ...\n\nAssistant:"``.

    Raises:
        ValueError: it does not begin with a turn, or the last speaker is not to answer.
    """
    before, *rest = _TURN.split(text)
    if before.strip() or len(rest) < 4 or rest[-2] != "Assistant" or rest[-1].strip():
        raise ValueError("the dialogue must be turns that end in an open 'Assistant:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(rest[:-2:2], rest[1:-2:2], strict=True)
    return [{"role": roles[who], "content": said.strip()} for who, said in turns]


def _dialogue_pair(row: Row) -> list[PreferencePair]:
    chosen, rejected = _answer(row, "chosen"), _answer(row, "rejected")
    return [PreferencePair(dialogue(row["prompt"]), chosen, rejected)]


def _is_dialogue(row: Row) -> bool:
    prompt = row["prompt"]
    return isinstance(prompt, str) and prompt.lstrip("\n").startswith("Human:")


SOURCES = (
    Source(
        "several annotators",
        ("instruction", "response_1", "response_2", "human"),
        _several_annotators,
    ),
    Source("graded", ("prompt", "response_1", "response_2", "preference"), _graded),
    Source("rankings", ("messages", "replies"), _ranking),
    Source("rated attributes", ("prompt", "a", "b", "margin"), _attributes),
    Source("dialogues", ("prompt", "chosen", "rejected"), _dialogue_pair, _is_dialogue),
)
"""The first one whose columns a file's first row has is used."""


def load_pairs(path: str | Path) -> list[PreferencePair]:
    """The preference pairs of a file, or of the one data file in a folder.

    Args:
        path: as `equilign.formats.load_rows`, in one of its formats or as one of `SOURCES`.

    Returns:
        Pairs of two different answers; pairs of equal answers say nothing and are left out.

    Raises:
        DataError: unreadable, malformed, or without a single pair; names file and row.
    """
    rows = load_rows(_data_file(Path(path).expanduser()))
    source = next(
        (s for s in SOURCES if all(c in rows[0] for c in s.columns) and s.applies(rows[0])), None
    )
    if source is None:
        pairs = preference_pairs(rows)
    else:
        pairs = []
        for i, row in enumerate(rows):
            try:
                pairs.extend(source.convert(row))
            except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
                raise DataError(
                    f"{rows.where(i)}: not a row of {source.name} data "
                    f"({', '.join(source.columns)}), as the first row of the file is: {error!r}"
                ) from error
    found = [p for p in pairs if p.chosen != p.rejected]
    if not found:
        raise DataError(f"{path} holds no pair of two different answers")
    return found


def _data_file(path: Path) -> Path:
    if not path.is_dir() or (path / "dataset_info.json").is_file():
        return path
    if (path / "dataset_dict.json").is_file():
        return path
    files = sorted(f for pattern in _DATA_FILES for f in path.glob(pattern))
    if len(files) != 1:
        names = ", ".join(f.name for f in files[:5]) or "none"
        raise DataError(f"{path} must hold exactly one data file; there are {names}. Name the file")
    return files[0]
