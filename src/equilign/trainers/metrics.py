"""metrics.jsonl: one row per log entry, each written once even if a run is resumed."""

import json
from pathlib import Path
from typing import Any

from equilign.files import read_jsonl, write_jsonl


class MetricsFile:
    """Append-only metrics with the method's name on every row.

    A row is identified by (method, kind, round, step). Adding one that is already there does
    nothing, and `rewind` drops the rows of steps that a resumed run is going to repeat.
    """

    def __init__(self, path: Path, method: str) -> None:
        self.path = path
        self.method = method
        self._repair()
        self._keys = {self._key(r) for r in self.rows()}

    def _repair(self) -> None:
        if self.path.exists():
            raw = self.path.read_bytes()
            if raw and not raw.endswith(b"\n"):  # cut by a kill in the middle of a line
                with self.path.open("r+b") as handle:
                    handle.truncate(raw.rfind(b"\n") + 1)

    def rows(self) -> list[dict[str, Any]]:
        """All rows, other methods' included."""
        return read_jsonl(self.path) if self.path.exists() else []

    def _key(self, row: dict[str, Any]) -> tuple[Any, ...]:
        return (row.get("method"), row.get("kind"), row.get("round"), row.get("step"))

    def rewind(self, step: int) -> None:
        """Forget this method's rows of kind "step" after optimiser step ``step``."""
        rows = self.rows()
        kept = [
            r
            for r in rows
            if r.get("method") != self.method or r.get("kind") != "step" or r["step"] <= step
        ]
        if len(kept) != len(rows):
            write_jsonl(self.path, kept)
            self._keys = {self._key(r) for r in kept}

    def add(self, kind: str, round_number: int, step: int, values: dict[str, Any]) -> None:
        """Append a row unless it is there."""
        row = {
            "method": self.method,
            "kind": kind,
            "round": round_number,
            "step": step,
            **values,
        }
        if self._key(row) in self._keys:
            return
        self._keys.add(self._key(row))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
