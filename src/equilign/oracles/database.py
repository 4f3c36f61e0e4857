"""The SQLite file behind paid verdicts."""

from pathlib import Path

from equilign.sqlite_files import Form, SqliteFile

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

VERDICTS = Form(
    application_id=0x65714C76,  # "eqLv"
    version=1,
    schema=_SCHEMA,
    what="a cache of verdicts",
)


class Database(SqliteFile):
    """A file of verdicts; see `equilign.sqlite_files.SqliteFile`.

    Args:
        path: created, with its folder, if it is not there.
        patience: seconds to wait for other processes' transactions.

    Raises:
        DataError: the file is damaged, is another program's, or was written by a newer version.
        DiskFullError: no space left.
    """

    def __init__(self, path: Path | str, patience: float = 60.0) -> None:
        super().__init__(path, VERDICTS, patience)
