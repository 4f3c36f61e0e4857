"""Everybody's answers to the same prompts, as the tournament keeps them."""

import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equilign.errors import DataError, RunDirectoryError
from equilign.experiments.refine.config import SHIPPED
from equilign.experiments.refine.source import Row, Source
from equilign.experiments.tournament.config import TournamentConfig
from equilign.experiments.tournament.specs import Entry
from equilign.files import write_atomically
from equilign.games.records import excerpt
from equilign.rollout import Prompt, prompt_text


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: what is judged.
        tokens: its length for the model that wrote it; None where nobody knows.
        finished: whether the model ended it; None likewise.
    """

    text: str
    tokens: int | None = None
    finished: bool | None = None


Answers = tuple[tuple[Answer, ...], ...]
"""One tuple per prompt, one answer or more in each."""


@dataclass(frozen=True)
class Prompts:
    """What everybody answers.

    Attributes:
        rows: as read.
        texts: as the judge and people see them.
        digest: tells other prompts from these.
    """

    rows: tuple[Row, ...]
    texts: tuple[str, ...]
    digest: str

    @property
    def prompts(self) -> list[Prompt]:
        """As models see them."""
        return [row.prompt for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)


def digest(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Sixteen bytes of what a value is, in hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def read_prompts(config: TournamentConfig, entries: Sequence[Entry]) -> Prompts:
    """The prompts of the options, or those of the first file of answers.

    Raises:
        DataError: unreadable, empty or malformed; or there is no file at all.
    """
    path = config.prompts or next((e.spec.answers for e in entries if e.spec.answers), None)
    if path is None:
        raise DataError(
            "which prompts? Give --prompts FILE, or --prompts shipped; a file of answers among "
            "the players would bring its own"
        )
    return prompts_of(path, config.chat, config.max_prompts)


def prompts_of(path: str, chat: bool, max_prompts: int | None) -> Prompts:
    """The prompts of a file, or 'shipped'; arguments as of `TournamentConfig`.

    Raises:
        DataError: unreadable, empty or malformed.
    """
    if path == "-":
        raise DataError("--prompts - (stdin) is read more than once here; give a file")
    rows = tuple(Source(path, False, chat, max_prompts))
    if not rows:
        raise DataError(f"{path} holds no prompts")
    texts = tuple(prompt_text(row.prompt) for row in rows)
    return Prompts(rows, texts, digest([row.prompt for row in rows]))


def read_answers(entry: Entry, prompts: Prompts) -> Answers:
    """A file's answers to the prompts, wherever they stand in it; what else it has is left.

    Raises:
        DataError: unreadable or malformed, or it lacks an answer; names file and prompt.
    """
    path = str(entry.spec.answers)
    if path in ("-", SHIPPED):
        raise DataError(f"--player {entry.name}: {path!r} is no file of answers")
    there: dict[str, deque[tuple[str, ...]]] = defaultdict(deque)
    for row in Source(path, True):
        there[prompt_text(row.prompt)].append(row.answers)
    found, missing = [], []
    for row, text in zip(prompts.rows, prompts.texts, strict=True):
        mine = there.get(text)
        if not mine:
            missing.append((row, text))
            continue
        # A prompt that stands twice is answered twice where the file has two answers.
        texts = mine.popleft() if len(mine) > 1 else mine[0]
        found.append(tuple(Answer(t) for t in texts))
    if missing:
        row, text = missing[0]
        raise DataError(
            f"{path} (player {entry.name}) answers other prompts: {len(missing)} of "
            f"{len(prompts)} have no answer in it, the first is {row.where}: {excerpt(text)}. "
            "All players must answer the same prompts"
        )
    return tuple(found)


# -- on disk -------------------------------------------------------------------------------


def pack(answers: Iterable[Sequence[Answer]]) -> list[Any]:
    """As JSON."""
    return [[[a.text, a.tokens, a.finished] for a in row] for row in answers]


def unpack(rows: Iterable[Any]) -> Answers:
    """What `pack` made."""
    return tuple(tuple(Answer(*item) for item in row) for row in rows)


def alpaca_rows(name: str, prompts: Prompts, answers: Answers) -> list[dict[str, Any]]:
    """Rows in AlpacaEval's output format: ``instruction, output, generator``.

    Beside them stand ``tokens`` and ``finished`` where they are known, and all
    ``completions`` where there are several; ``output`` is then the first.
    """
    rows = []
    for text, mine in zip(prompts.texts, answers, strict=True):
        row: dict[str, Any] = {"instruction": text, "output": mine[0].text, "generator": name}
        if len(mine) > 1:
            row["completions"] = [a.text for a in mine]
        if mine[0].tokens is not None:
            row["tokens"] = [a.tokens for a in mine]
            row["finished"] = [a.finished for a in mine]
        rows.append(row)
    return rows


@dataclass(frozen=True)
class Shelf:
    """Where finished answers are: ``answers/NAME.json``, and whose they are.

    Attributes:
        folder: the run directory.
    """

    folder: Path

    def path(self, name: str) -> Path:
        """The file of a player."""
        return self.folder / "answers" / f"{name}.json"

    def _note(self, name: str) -> Path:
        return self.folder / "answers" / ".made" / f"{name}.json"

    def held(self, name: str, made: dict[str, Any]) -> Answers | None:
        """The finished answers of a player; None where it has not finished.

        Args:
            name: of the player.
            made: everything that its answers depend on.

        Raises:
            RunDirectoryError: they were made otherwise, or the file is damaged.
        """
        note = self._note(name)
        if not note.exists():
            return None
        try:
            before = json.loads(note.read_text(encoding="utf-8"))
            rows = json.loads(self.path(name).read_text(encoding="utf-8"))
            answers = tuple(_of_row(row) for row in rows)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise RunDirectoryError(
                f"cannot read {self.path(name)}: {error!r}; remove it and {note} to have the "
                "player answer again"
            ) from error
        other = [k for k in {**before, **made} if before.get(k) != made.get(k)]
        if other:
            change = "; ".join(f"{k}: {before.get(k)!r} there, {made.get(k)!r} now" for k in other)
            raise RunDirectoryError(
                f"player {name} of {self.folder} is another one ({change}). Give the new one "
                "another name, or choose another --output-dir"
            )
        return answers

    def put(self, name: str, made: dict[str, Any] | None, rows: list[dict[str, Any]]) -> None:
        """Write a player's answers; ``made`` is None for those of a file, which is read anew."""
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
        raw = text.encode("utf-8", "backslashreplace")
        if not self.path(name).exists() or self.path(name).read_bytes() != raw:
            write_atomically(self.path(name), raw)
        if made is not None:
            write_atomically(self._note(name), json.dumps(made, sort_keys=True))


def _of_row(row: dict[str, Any]) -> tuple[Answer, ...]:
    texts = row.get("completions") or [row["output"]]
    blank = [None] * len(texts)
    numbers, ends = row.get("tokens", blank), row.get("finished", blank)
    return tuple(Answer(*item) for item in zip(texts, numbers, ends, strict=True))
