"""Files that are either whole or not there: atomic writes and append-only journals."""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equilign.errors import DataError, DiskFullError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Libraries that write for us report a full disk as text only.
_FULL_WORDS = ("no space left on device", "os error 28", "os error 27", "disk quota exceeded")


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception, or what caused it, says that the disk or a quota is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # "raise e from e" is its own cause
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(words in str(error).lower() for words in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return False


@contextmanager
def explain_disk_full(folder: Path) -> Iterator[None]:
    """Turn "no space left" from any library into one message with the cure.

    Raises:
        DiskFullError: the disk of ``folder`` is full.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, DiskFullError) and is_disk_full(error):
            raise DiskFullError(
                f"no space left on the disk of {folder}. Everything written so far is intact: "
                "free some space and continue with --resume."
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: str | bytes) -> None:
    """Replace ``path`` by ``data``: at every moment it holds the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    raw = data.encode("utf-8", errors="backslashreplace") if isinstance(data, str) else data
    try:
        with temporary.open("wb") as handle:
            handle.write(raw)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - any JSON value
    """`write_atomically` as indented JSON."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """`write_atomically`, one JSON object per line."""
    write_atomically(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file.

    Raises:
        DataError: unreadable file, or a line that is no JSON object; names file and line.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, got {line[:60]!r}")
        rows.append(row)
    return rows


class Journal:
    """Finished pieces of a long job, by key; survives a kill at any byte.

    One JSON object per line, appended and flushed. A last line that was cut by a kill is
    dropped when the journal is opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.entries, whole = self._read(path)
        # Unbuffered: a write that failed must not be tried again by the next one or by close.
        self._handle = path.open("ab", buffering=0)
        self._handle.truncate(whole)
        self._end = whole

    @staticmethod
    def _read(path: Path) -> tuple[dict[int, Any], int]:
        entries: dict[int, Any] = {}
        whole = 0
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                try:
                    record = json.loads(line)
                except ValueError:
                    break
                entries[record["key"]] = record["value"]
                whole += len(line)
        return entries, whole

    @classmethod
    def peek(cls, path: Path) -> dict[int, Any]:
        """The whole entries of a journal that another process may be writing; empty if none."""
        return cls._read(path)[0]

    def add(self, key: int, value: Any) -> None:  # noqa: ANN401 - any JSON value
        """Append one finished piece; all of it is on disk when this returns, or none."""
        line = (json.dumps({"key": key, "value": value}, ensure_ascii=False) + "\n").encode(
            errors="backslashreplace"
        )
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._handle.write(rest) :]
            os.fsync(self._handle.fileno())
        except OSError:
            os.truncate(self.path, self._end)
            raise
        self._end += len(line)
        self.entries[key] = value

    def close(self) -> None:
        """Close the file; the journal stays on disk."""
        self._handle.close()

    def remove(self) -> None:
        """Delete the journal, once its content is safe elsewhere."""
        self.close()
        self.path.unlink(missing_ok=True)
