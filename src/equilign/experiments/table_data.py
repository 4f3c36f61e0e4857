"""Tables of a reproduction, as data and as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from equilign.reports.tables import Table

Cell = str | float | int | None


def table_data(
    name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], digits: int = 3
) -> dict[str, Any]:
    """A table as results.json has it: ``name, caption, columns, rows, digits``."""
    return {
        "name": name,
        "caption": caption,
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "digits": digits,
    }


def shown(table: Mapping[str, Any], numeric: int | None = None) -> Table:
    """The same for people; ``numeric`` columns, counted from the end, are numbers.

    All but the first by default, or what the table itself says.
    """
    digits = table["digits"]

    def text(cell: Cell) -> str:
        if cell is None:
            return "–"
        return f"{cell:.{digits}f}" if isinstance(cell, float) else str(cell)

    rows = [tuple(text(cell) for cell in row) for row in table["rows"]]
    columns = table["columns"]
    if numeric is None:
        numeric = table.get("numeric", len(columns) - 1)
    return Table(table["caption"], columns, rows, numeric)
