"""Prompts and answers to refine, read line by line."""

import gzip
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from equilign.chat import as_messages, check_answer
from equilign.errors import DataError
from equilign.experiments.refine.config import SHIPPED, STDIN
from equilign.formats import Prompt, Rows, load_rows, prompts_only
from equilign.games.records import excerpt, explain_unreadable
from equilign.tasks.prompts import restaurant_prompts

_ANSWERS = ("completion", "completions", "output")
_OURS = ("refinement", "chains")
"""Columns of an earlier refinement's output, which is an input like any other."""
_CURE = (
    'Give "prompt" with "completion" or "completions", or "instruction" with "output" (AlpacaEval).'
)


@dataclass(frozen=True)
class Row:
    """One prompt.

    Attributes:
        where: file and line, for messages.
        prompt: text or chat messages.
        answers: given ones; empty where a Leader is to answer.
        columns: what else the row holds.
        alpaca: whether it is AlpacaEval's, whose prompt is the column `instruction`.
    """

    where: str
    prompt: Prompt
    answers: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    alpaca: bool = False


@dataclass(frozen=True)
class Source:
    """A file of prompts, or of prompts with answers.

    JSON lines (also ``.gz``, also stdin) are read one by one, so that a file may be larger than
    memory; other formats (see `equilign.formats.load_rows`) are read at once.

    Attributes:
        path: the file; '-' is stdin, 'shipped' the package's held-out prompts.
        answered: whether each row must hold answers.
        chat: whether plain-text prompts become one user message.
        limit: read the first so many rows only.
    """

    path: str
    answered: bool
    chat: bool = False
    limit: int | None = None

    @property
    def again(self) -> bool:
        """Whether it can be read more than once."""
        return self.path != STDIN

    @property
    def name(self) -> str:
        """As messages call it."""
        return "stdin" if self.path == STDIN else self.path

    def __iter__(self) -> Iterator[Row]:
        """The rows.

        Raises:
            DataError: unreadable or malformed; names file and line.
        """
        return islice(self._rows(), self.limit)

    def _rows(self) -> Iterator[Row]:
        for where, raw in _raw_rows(self.path, self.name):
            yield self.read(raw, where)

    def read(self, raw: Mapping[str, Any], where: str) -> Row:
        """A row of the file.

        Raises:
            DataError: it has no prompt, or no answer where it must have one.
        """
        alpaca = raw.get("prompt") is None and raw.get("instruction") is not None
        prompt, columns = _instruction(raw, where) if alpaca else _prompt(raw, where)
        if self.chat and isinstance(prompt, str):
            prompt = as_messages(prompt)
        answers = _answers(raw, where, prompt) if self.answered else ()
        kept = {k: v for k, v in columns.items() if k not in (*_ANSWERS, *_OURS)}
        return Row(where, prompt, answers, kept, alpaca)

    def scan(self, check: Callable[[Row], None]) -> tuple[int, str]:
        """Number of rows, and a fingerprint of what they hold.

        Args:
            check: called with every row.
        """
        count, found = 0, hashlib.blake2b(digest_size=12)
        for row in self:
            check(row)
            count += 1
            found.update(fingerprint([row]).encode())
        return count, found.hexdigest()


def fingerprint(rows: Iterable[Row]) -> str:
    """Tells other prompts, answers or columns from these."""
    plain = [[r.prompt, list(r.answers), dict(r.columns)] for r in rows]
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class _Located(Rows):
    """One row that knows its place."""

    def where(self, index: int) -> str:
        """See `Rows.where`."""
        return self.path


def _instruction(raw: Mapping[str, Any], where: str) -> tuple[Prompt, dict[str, Any]]:
    """As `_prompt`, of AlpacaEval's format; its own column stays."""
    value = raw["instruction"]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f'{where}: "instruction" is {excerpt(value)}; it must be text')
    return as_messages(value), dict(raw)


def _prompt(raw: Mapping[str, Any], where: str) -> tuple[Prompt, dict[str, Any]]:
    """The prompt, and all columns that are neither prompt nor preference."""
    if raw.get("prompt") is None and raw.get("chosen") is None:
        there = ", ".join(map(str, list(raw)[:12])) or "nothing"
        raise DataError(f'{where}: there is no "prompt"; the row has {there}. {_CURE}')
    (row,) = prompts_only(_Located([dict(raw)], where))
    return row.pop("prompt"), row


def _answers(raw: Mapping[str, Any], where: str, prompt: Prompt) -> tuple[str, ...]:
    name = next((n for n in _ANSWERS if raw.get(n) is not None), None)
    if name is None:
        raise DataError(f"{where}: there is no answer to refine. {_CURE}")
    value = raw[name]
    if name != "completions":
        return (check_answer(value, name, where, prompt),)
    if not isinstance(value, list) or not value:
        raise DataError(f'{where}: "completions" is {excerpt(value)}; it must be a list of answers')
    return tuple(check_answer(v, name, where, prompt) for v in value)


# -- files ---------------------------------------------------------------------------------


def _raw_rows(path: str, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path == SHIPPED:
        for i, prompt in enumerate(restaurant_prompts("evaluate"), 1):
            yield f"shipped prompt {i}", {"prompt": prompt}
        return
    file = Path(path).expanduser()
    if path == STDIN or file.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _json_lines(path, name)
        return
    rows = load_rows(file)
    for i, row in enumerate(rows):
        yield rows.where(i), row


def _json_lines(path: str, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    nothing = True
    with explain_unreadable(Path(name)), _opened(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            nothing = False
            yield f"{name}, line {number}", parse_line(line, f"{name}, line {number}")
    if nothing:
        raise DataError(f'{name} holds no rows; write one JSON object per line: {{"prompt": ...}}')


@contextmanager
def _opened(path: str) -> Iterator[IO[str]]:
    if path == STDIN:
        lines = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="\n")
        try:
            yield lines
        finally:
            lines.detach()  # a wrapper closes its stream when it goes; this one is the process's
        return
    file = Path(path).expanduser()
    opener: Any = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8-sig", newline="\n") as opened:
        yield opened


def parse_line(line: str, where: str) -> dict[str, Any]:
    """A line of JSON lines; fields that are null are left out.

    Raises:
        DataError: it is no JSON object.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(
            f"{where}: {excerpt(line.strip())} is not JSON; write one object per line, such as "
            '{"prompt": "..."}'
        ) from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: {excerpt(row)} is no JSON object")
    return {k: v for k, v in row.items() if v is not None}
