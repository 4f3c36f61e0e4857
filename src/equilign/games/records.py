"""Tables of records from files, with one short message however much of a file is wrong."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from equilign.errors import DataError

_LONGEST_FIELD = 2**26
_SHOWN = 60


def excerpt(value: Any) -> str:  # noqa: ANN401 - anything that stood in a file
    """A value as it is written in Python, cut short."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


@dataclass
class Problems:
    """Counts what is wrong and keeps the first of it, so that a bad file gives one message.

    Attributes:
        path: the file.
        count: lines that are wrong.
        first: the first of them.
        message: what is wrong there.
    """

    path: str
    count: int = 0
    first: int = 0
    message: str = ""
    _lines: set[int] = field(default_factory=set, repr=False)

    def add(self, line: int, message: str) -> None:
        """One more thing that is wrong; a line counts once."""
        if line in self._lines:
            return
        self._lines.add(line)
        self.count += 1
        if not self.message or line < self.first:
            self.first, self.message = line, message

    def check(self, total: int, cure: str) -> None:
        """Raise if anything was wrong.

        Raises:
            DataError: names the file, the first bad line, how many there are, and the cure.
        """
        if not self.count:
            return
        more = f" {self.count} of {total} lines are wrong; this is the first." * (self.count > 1)
        raise DataError(f"{self.path}, line {self.first}: {self.message}.{more} {cure}")


@dataclass(frozen=True)
class Table:
    """Columns of a file.

    Attributes:
        path: the file, for messages.
        columns: values by column name, all of the same length; None where a record lacks it.
        lines: line of each record in the file, or its number where it has no line of its own.
    """

    path: str
    columns: dict[str, list[Any]]
    lines: list[int]

    def __len__(self) -> int:
        """Number of records."""
        return len(self.lines)

    def find(self, *names: str) -> str | None:
        """The first of ``names`` that is a column."""
        return next((name for name in names if name in self.columns), None)

    def texts(self, name: str, problems: Problems) -> list[str]:
        """A column of names: text that is not blank, or whole numbers."""
        values = self.columns[name]
        if all(type(v) is str and v and not v.isspace() for v in values):
            return values
        found = []
        for line, value in zip(self.lines, values, strict=True):
            if isinstance(value, int) and not isinstance(value, bool):
                value = str(value)
            if not isinstance(value, str) or not value.strip():
                wrong = "is missing" if value is None else f"is {excerpt(value)}"
                problems.add(line, f'"{name}" {wrong}; it must be text')
                value = ""
            found.append(value)
        return found

    def numbers(
        self, name: str, problems: Problems, default: float | None = None
    ) -> Float[np.ndarray, " m"]:
        """A column of finite numbers ``>= 0``; ``default`` where there is none."""

        def number(value: Any) -> float:  # noqa: ANN401
            if default is not None and (value is None or value == ""):
                return default
            if isinstance(value, bool):
                raise ValueError
            found = float(value)
            if not 0.0 <= found < np.inf:
                raise ValueError
            return found

        found = np.zeros(len(self))
        for i, value in enumerate(self.columns[name]):
            try:
                found[i] = number(value)
            except (TypeError, ValueError, OverflowError):
                problems.add(
                    self.lines[i], f'"{name}" is {excerpt(value)}; it must be a number >= 0'
                )
        return found


@contextmanager
def explain_unreadable(path: Path) -> Iterator[None]:
    """Turn what reading a file may raise into one message.

    Raises:
        DataError: the file is missing, a folder, unreadable, damaged or no UTF-8 text.
    """
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; name a file in it") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}. "
            "Save it as UTF-8; a compressed file needs the ending .gz"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or not compressed by gzip: {error}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def read_text(path: Path) -> str:
    """The text of a file, decompressed if its name ends in ``.gz``.

    Raises:
        DataError: unreadable, or empty.
    """
    with explain_unreadable(path):
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    if not text.strip():
        raise DataError(f"{path} is empty")
    return text


def parse_json(text: str, path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """A whole file as one JSON value.

    Raises:
        DataError: not JSON; names the line.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not JSON ({error.msg} at column {error.colno}). "
            "One JSON object per line belongs into a file that ends in .jsonl"
        ) from None
    except (RecursionError, ValueError) as error:  # too deep, or a number of 5,000 digits
        raise DataError(f"{path}: JSON that cannot be read ({error})") from None


def parse_jsonl(text: str, path: Path) -> Table:
    """Records of one JSON object per line; blank lines are skipped.

    Raises:
        DataError: lines that are no JSON objects; names the first and their number.
    """
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    problems = Problems(str(path))
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            problems.add(number, f"{excerpt(line)} is not JSON")
            continue
        if not isinstance(row, dict):
            problems.add(number, f"{excerpt(line)} is no JSON object")
            continue
        rows.append(row)
        lines.append(number)
    problems.check(len(rows) + problems.count, 'Each line must be an object: {"prompt": ...}')
    return to_table(rows, lines, path)


def to_table(rows: list[dict[str, Any]], lines: list[int], path: Path) -> Table:
    """Columns of records; the names are those of any record."""
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(str(path), {name: [row.get(name) for row in rows] for name in names}, lines)


def csv_rows(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """Rows of a CSV file with the line on which each ends; blank ones are skipped.

    Commas separate fields; semicolons or tabs do where the first line has no comma.

    Raises:
        DataError: no CSV; names the line.
    """
    head = text.lstrip().partition("\n")[0]
    delimiter = next((d for d in ",;\t" if d in head), ",")
    limit = csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: no CSV ({error})") from None
    finally:
        csv.field_size_limit(limit)


def csv_table(rows: list[tuple[int, list[str]]], path: Path) -> Table:
    """Records of a CSV file whose first row names the columns; a blank field is None.

    Raises:
        DataError: a column is named twice, or rows have another number of fields.
    """
    names = [name.strip() for name in rows[0][1]]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise DataError(f"{path}, line {rows[0][0]}: two columns are named {excerpt(name)}")
    problems = Problems(str(path))
    for line, row in rows[1:]:
        if len(row) != len(names):
            problems.add(line, f"{len(row)} fields, but the header names {len(names)}")
    problems.check(len(rows) - 1, "Put fields that hold commas into double quotes")
    if len(rows) == 1:
        raise DataError(f"{path} has a header, but no rows")
    columns = zip(*(row for _, row in rows[1:]), strict=True)
    found = {
        name: [v if v and not v.isspace() else None for v in column]
        for name, column in zip(names, columns, strict=True)
    }
    return Table(str(path), found, [line for line, _ in rows[1:]])


def codes(
    values: list[str], order: Callable[[list[str]], list[str]] = list
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Whole numbers for texts, and the text of each number, in the order asked for."""
    names = order(list(dict.fromkeys(values)))
    place = {name: i for i, name in enumerate(names)}
    return np.fromiter(map(place.__getitem__, values), np.int64, len(values)), tuple(names)
