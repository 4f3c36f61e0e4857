"""SQLite files: opened safely, shared by processes, clear when broken.

Every write is one short transaction. The write-ahead log keeps what was committed through a kill
of the process at any moment.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from equilign.errors import DataError, DiskFullError
from equilign.files import explain_disk_full

# A connection that a fork inherited must neither be used nor closed by the child.
_inherited: list[object] = []


@dataclass(frozen=True)
class Form:
    """What a program's files look like.

    Attributes:
        application_id: in the header of every such file; tells it from other programs' files.
        version: of the tables.
        schema: statements that make the tables.
        what: what such a file is, for messages: ``a cache of verdicts``.
    """

    application_id: int
    version: int
    schema: str
    what: str


class SqliteFile:
    """One file; a connection for each thread and process.

    Args:
        path: created, with its folder, if it is not there.
        form: its tables.
        patience: seconds to wait for other processes' transactions.

    Raises:
        DataError: the file is damaged, is another program's, or was written by a newer version.
        DiskFullError: no space left.
    """

    def __init__(self, path: Path | str, form: Form, patience: float = 60.0) -> None:
        self.path = Path(path)
        self.form = form
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
            # What a judge was paid for, or a person said, is on the disk when this is told.
            connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")  # one snapshot: others may be creating the file just now
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("COMMIT")
        if application != self.form.application_id and (application or tables):
            raise DataError(
                f"{self.path} is a database of another program, not {self.form.what}; "
                "name another file"
            )
        if version > self.form.version:
            raise DataError(
                f"{self.path} was written by a newer version of equilign (format {version}, this "
                f"one reads {self.form.version}): upgrade, or name another file"
            )
        if tables and version == self.form.version:
            return
        self._log_ahead(connection)
        with self.transaction():
            for statement in self.form.schema.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {self.form.application_id}")
            connection.execute(f"PRAGMA user_version = {self.form.version}")

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
                cure = _cure(error, self.form.what)
                raise DataError(f"cannot use {self.path}: {error}. {cure}") from error


def _cure(error: Exception, what: str) -> str:
    text = str(error)
    if "locked" in text:
        return "Another process holds it for too long; stop that one, or name another file."
    if "unable to open" in text or "readonly" in text or isinstance(error, OSError):
        return "Check that it is a file in a folder that you may write to."
    if "no such" in text or "has no column" in text:
        return f"It lacks tables that {what} has; name another file."
    return (
        f"If it is not {what}, name another file. If it is and was damaged, move it "
        "away (what is readable can be saved with `sqlite3 FILE .recover`); a new one is started."
    )
