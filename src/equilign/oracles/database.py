"""The SQLite file behind paid verdicts: opened safely, shared by processes, clear when broken.

Every write is one short transaction. The write-ahead log keeps what was committed through a kill
of the process at any moment.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from equilign.errors import DataError, DiskFullError
from equilign.files import explain_disk_full

APPLICATION_ID = 0x65714C76
"""In the header of every such file ("eqLv"): tells it from other programs' databases."""

VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS texts (hash BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (
    judge TEXT NOT NULL, prompt BLOB NOT NULL, a BLOB NOT NULL, b BLOB NOT NULL,
    value REAL, created REAL NOT NULL, PRIMARY KEY (judge, prompt, a, b)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
    judge TEXT NOT NULL, prompt BLOB NOT NULL, a BLOB NOT NULL, b BLOB NOT NULL,
    owner TEXT NOT NULL, expires REAL NOT NULL, PRIMARY KEY (judge, prompt, a, b)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS claims_of ON claims (owner);
CREATE TABLE IF NOT EXISTS abstentions (
    judge TEXT PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (
    judge TEXT PRIMARY KEY, requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, cost REAL NOT NULL) WITHOUT ROWID;
"""

# A connection that a fork inherited must neither be used nor closed by the child.
_inherited: list[object] = []


class Database:
    """One file; a connection for each thread and process.

    Args:
        path: created, with its folder, if it is not there.
        patience: seconds to wait for other processes' transactions.

    Raises:
        DataError: the file is damaged, is another program's, or was written by a newer version.
        DiskFullError: no space left.
    """

    def __init__(self, path: Path | str, patience: float = 60.0) -> None:
        self.path = Path(path)
        self._patience = patience
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._process = os.getpid()
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._prepare(self._connection())

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all of it, or nothing.

        Raises:
            DataError: see the class.
            DiskFullError: no space left; nothing of the transaction was written.
        """
        with self._explained():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with."""
        with self._explained():
            yield self._connection()

    def close(self) -> None:
        """Close the connections of all threads; a later use opens new ones."""
        if self._process == os.getpid():
            for connection in self._open:
                connection.close()
        self._open, self._local = [], threading.local()

    def close_thread(self) -> None:
        """Close the connection of the calling thread, before it ends."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            self._open.remove(connection)
            connection.close()

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()

    def _connection(self) -> sqlite3.Connection:
        if self._process != os.getpid():
            _inherited.append((self._open, self._local))
            self._open, self._local = [], threading.local()
            self._process = os.getpid()
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self.path, timeout=self._patience, isolation_level=None, check_same_thread=False
            )
            self._local.connection = connection
            self._open.append(connection)
            # A verdict was paid for: it is on the disk before the next one is bought.
            connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")  # one snapshot: others may be creating the file just now
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("COMMIT")
        if application != APPLICATION_ID and (application or tables):
            raise DataError(
                f"{self.path} is a database of another program, not a cache of verdicts; "
                "name another file"
            )
        if version > VERSION:
            raise DataError(
                f"{self.path} was written by a newer version of equilign (format {version}, this "
                f"one reads {VERSION}): upgrade, or name another file"
            )
        if tables and version == VERSION:
            return
        self._log_ahead(connection)
        with self.transaction():
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")

    def _log_ahead(self, connection: sqlite3.Connection) -> None:
        """Switch to the write-ahead log; SQLite does not wait by itself for others doing it."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with explain_disk_full(self.path.parent):
            try:
                yield
            except DiskFullError:
                raise
            except (sqlite3.Error, OSError) as error:
                if "disk is full" in str(error):
                    raise OSError(28, "no space left on device") from error
                raise DataError(f"cannot use {self.path}: {error}. {_cure(error)}") from error


def _cure(error: Exception) -> str:
    text = str(error)
    if "locked" in text:
        return "Another process holds it for too long; stop that one, or name another file."
    if "unable to open" in text or "readonly" in text or isinstance(error, OSError):
        return "Check that it is a file in a folder that you may write to."
    if "no such" in text or "has no column" in text:
        return "It lacks tables that a cache of verdicts has; name another file."
    return (
        "If it is not a cache of verdicts, name another file. If it is and was damaged, move it "
        "away (what is readable can be saved with `sqlite3 FILE .recover`); a new one is started."
    )
