"""Rows of data files and of `datasets` folders, with where each one stood."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from equilign.errors import DataError
from equilign.games.records import (
    Table,
    csv_rows,
    csv_table,
    excerpt,
    explain_unreadable,
    parse_json,
    parse_jsonl,
    read_text,
)


class Rows(list[dict[str, Any]]):
    """Rows of a file that remember where they stood, for messages.

    Attributes:
        path: the file.
        lines: the line of each row; None where the file has none.
    """

    def __init__(
        self, rows: Iterable[dict[str, Any]], path: str, lines: Sequence[int] | None = None
    ) -> None:
        super().__init__(rows)
        self.path = path
        self.lines = lines

    def where(self, index: int) -> str:
        """Row ``index`` (from 0) as a message calls it."""
        if self.lines is None:
            return f"{self.path}, row {index + 1}"
        return f"{self.path}, line {self.lines[index]}"


def load_rows(path: str | Path, split: str = "train") -> Rows:
    """The rows of a data file or of a `datasets` folder.

    Args:
        path: ``.jsonl``, ``.json`` (a list of objects), ``.csv`` or ``.tsv``, each also with
            ``.gz``; ``.parquet``; or a folder written by `datasets.save_to_disk`.
        split: which one, where a folder holds several.

    Returns:
        One dictionary per row; fields that are null or blank are left out.

    Raises:
        DataError: unreadable, empty, malformed, or of a kind that is not known; names the file.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _folder_rows(path, split)
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind not in (*_TEXT_READERS, ".parquet") or (kind == ".parquet" and path.suffix == ".gz"):
        if not path.exists():
            raise DataError(f"there is no file {path}")
        raise DataError(
            f"{path}: a data file ends in .jsonl, .json, .csv, .tsv (each maybe with .gz) or "
            ".parquet, or is a folder of the datasets library"
        )
    rows = _parquet_rows(path) if kind == ".parquet" else _TEXT_READERS[kind](path)
    if not rows:
        raise DataError(f"{path} holds no rows")
    return rows


def _table_rows(table: Table) -> Rows:
    names = list(table.columns)
    values = zip(*table.columns.values(), strict=True)
    rows = [_present(zip(names, row, strict=True)) for row in values]
    return Rows(rows, table.path, table.lines)


def _present(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in items if value is not None}


def _jsonl_rows(path: Path) -> Rows:
    return _table_rows(parse_jsonl(read_text(path), path))


def _json_rows(path: Path) -> Rows:
    found = parse_json(read_text(path), path)
    if not isinstance(found, list):
        raise DataError(
            f"{path} holds {excerpt(found)}; it must be a list of objects, one per row. One JSON "
            "object per line belongs into a file that ends in .jsonl"
        )
    for i, row in enumerate(found, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {i}: {excerpt(row)} is no JSON object")
    return Rows([_present(row.items()) for row in found], str(path))


def _csv_rows(path: Path) -> Rows:
    return _table_rows(csv_table(csv_rows(read_text(path), path), path))


_TEXT_READERS = {
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
}


def _parquet_rows(path: Path) -> Rows:
    from pyarrow import ArrowException  # comes with datasets
    from pyarrow.parquet import read_table

    with explain_unreadable(path):
        try:
            rows = read_table(path).to_pylist()
        except (ArrowException, UnicodeDecodeError) as error:
            raise DataError(f"{path} is no Parquet file that can be read: {error}") from None
    return Rows([_present(row.items()) for row in rows], str(path))


def _folder_rows(path: Path, split: str) -> Rows:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:
        raise DataError(
            f"{path} is no folder written by save_to_disk of the datasets library: {error}"
        ) from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise DataError(f"{path} has no split {split!r}; there are: {', '.join(found)}")
        found = found[split]
    if not len(found):
        raise DataError(f"{path} holds no rows")
    return Rows([_present(row.items()) for row in found], str(path))
