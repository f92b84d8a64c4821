"""Keyword index of a collection: an FTS5 table in a private SQLite file, derived from the collection's rows.

FTS5 ranks rows by BM25 (https://www.sqlite.org/fts5.html#the_bm25_function). The table is contentless; the tokens of a
row, compressed, are kept beside it, because FTS5 needs them to remove the row. Stemming is Porter's.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sqlite3
import time
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from embedway import files
from embedway.collections.keyword_tokens import TOKENS_VERSION, index_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")

#: `eWKw` in ASCII: the application ID of these files.
APPLICATION_ID = 0x65574B77
#: Version of the tables; an index of another version is built again.
SCHEMA_VERSION = 1000 + TOKENS_VERSION
#: Weights of the columns in BM25: headings, text, names. Measured by `benchmarks/keywords.py`.
COLUMN_WEIGHTS = (2.0, 1.0, 1.0)
#: Tokens in more than this share of the rows are left out of a query that has others: they say little, and cost most.
MAX_SHARE = 0.4
#: Wait for another process that builds the index, in seconds, and the pause between two tries.
BUILD_WAIT_S = 3600.0
_RETRY_S = 0.05
#: Wait of one statement for another process, in seconds.
BUSY_S = 30.0
_CACHE_KIB = 16_384

#: Errors of the machine; any other error of SQLite means that the file is damaged or of another version.
_MACHINE_ERRORS = frozenset(
    {
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY),
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM),
        sqlite3.SQLITE_INTERRUPT,
    }
)
_TOKENIZER = "porter ascii tokenchars '_.-:/@+#'"
_SCHEMA = (
    f"CREATE VIRTUAL TABLE words USING fts5(headings, text, names, content='', tokenize=\"{_TOKENIZER}\")",
    "CREATE TABLE rows (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, fingerprint TEXT NOT NULL)",
    "CREATE TABLE contents (number INTEGER PRIMARY KEY, tokens BLOB NOT NULL)",
    "CREATE TABLE stamp (one INTEGER PRIMARY KEY CHECK (one = 1), revision TEXT NOT NULL)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class DamagedIndexError(Exception):
    """The file is damaged, or no index of this version."""


class IndexRow(NamedTuple):
    """A row of a collection as the index needs it; texts of the columns in the order of `COLUMN_WEIGHTS`."""

    id: str
    fingerprint: str
    texts: tuple[str, str, str]


def has_fts5() -> bool:
    """Return whether Python's SQLite has FTS5."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
        except sqlite3.OperationalError:
            return False
    return True


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open an index, which is created empty if it is missing; close it at the end of the block.

    Raises DamagedIndexError, OSError, and sqlite3.Error for faults of the machine.
    """
    files.make_private_folder(path.parent)
    if not files.create_private_file(path) and os.name == "posix" and path.stat().st_mode & 0o077:
        path.chmod(files.FILE_MODE)  # another program has copied or changed it
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        with _damage():
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.execute("PRAGMA synchronous = NORMAL")
            _retried(lambda: _check(connection))
            yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if isinstance(code, int) and code & 0xFF in _MACHINE_ERRORS:
            raise
        raise DamagedIndexError(str(error)) from error
    except (zlib.error, UnicodeDecodeError, TypeError) as error:
        raise DamagedIndexError(str(error)) from error


def _check(connection: sqlite3.Connection) -> None:
    """Create the tables of an empty file. Raises DamagedIndexError for any other file."""
    if _is_index(connection):
        return
    with transaction(connection):
        if _is_index(connection):
            return  # another process has just created them
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise DamagedIndexError("the tables are of another version")
        for statement in _SCHEMA:
            connection.execute(statement)


def _is_index(connection: sqlite3.Connection) -> bool:
    stamps = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    return stamps == [APPLICATION_ID, SCHEMA_VERSION]


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Change the index completely or not at all, after other processes have ended their changes."""
    _retried(lambda: connection.execute("BEGIN IMMEDIATE"))
    try:
        yield
        _retried(lambda: connection.execute("COMMIT"))
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _retried(work: Callable[[], T]) -> T:
    """Repeat work while another process holds the lock, which a build may do for longer than `BUSY_S`."""
    until = time.monotonic() + BUILD_WAIT_S
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            busy = (getattr(error, "sqlite_errorcode", 0) & 0xFF) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
            if not busy or time.monotonic() > until:
                raise
        time.sleep(_RETRY_S)


def read(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Return the result of work that only reads; wait for another process that changes the index."""
    return _retried(lambda: work(connection))


def revision(connection: sqlite3.Connection) -> str | None:
    """Return the revision of the rows in the index; None if it has none yet."""
    found = _retried(lambda: connection.execute("SELECT revision FROM stamp").fetchone())
    return None if found is None else str(found[0])


def set_revision(connection: sqlite3.Connection, value: str) -> None:
    """Record the revision of the rows in the index."""
    connection.execute("INSERT OR REPLACE INTO stamp VALUES (1, ?)", (value,))


def clear(connection: sqlite3.Connection) -> None:
    """Remove all rows."""
    connection.execute("INSERT INTO words(words) VALUES ('delete-all')")
    for table in ("rows", "contents", "stamp"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608  our names


def add(connection: sqlite3.Connection, rows: Iterable[IndexRow]) -> int:
    """Add rows, which replace those with their ids; return their number."""
    count = 0
    for row in rows:
        remove(connection, [row.id])
        tokens = [index_tokens(text) for text in row.texts]
        number = connection.execute("INSERT INTO rows (id, fingerprint) VALUES (?, ?)", row[:2]).lastrowid
        connection.execute("INSERT INTO words (rowid, headings, text, names) VALUES (?, ?, ?, ?)", (number, *tokens))
        packed = zlib.compress("\n".join(tokens).encode(), 1)
        connection.execute("INSERT INTO contents VALUES (?, ?)", (number, packed))
        count += 1
    return count


def remove(connection: sqlite3.Connection, ids: Iterable[str]) -> int:
    """Remove rows by id, and return the number of those that existed."""
    count = 0
    for row_id in ids:
        found = connection.execute(
            "SELECT number, tokens FROM rows JOIN contents USING (number) WHERE id = ?", (row_id,)
        ).fetchone()
        if found is None:
            continue
        number, packed = found
        tokens = zlib.decompress(packed).decode().split("\n")
        connection.execute(
            "INSERT INTO words (words, rowid, headings, text, names) VALUES ('delete', ?, ?, ?, ?)", (number, *tokens)
        )
        connection.execute("DELETE FROM contents WHERE number = ?", (number,))
        connection.execute("DELETE FROM rows WHERE number = ?", (number,))
        count += 1
    return count


def changes(
    connection: sqlite3.Connection, rows: Iterable[tuple[str, str, str, str]]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Compare the index with the rows of a collection: (id, fingerprint, source, document_id).

    Return the ids to remove, and the documents (source, document_id) with rows to add. The comparison is in a
    temporary table, so the memory is that of the differences.
    """
    connection.execute("PRAGMA temp_store = FILE")
    connection.execute("DROP TABLE IF EXISTS temp.now")
    connection.execute("CREATE TEMP TABLE now (id TEXT PRIMARY KEY, fingerprint TEXT, source TEXT, document_id TEXT)")
    connection.executemany("INSERT OR REPLACE INTO temp.now VALUES (?, ?, ?, ?)", rows)
    gone = [row[0] for row in connection.execute("SELECT id FROM rows WHERE id NOT IN (SELECT id FROM temp.now)")]
    different = (
        "FROM temp.now AS n LEFT JOIN rows AS r ON r.id = n.id "
        "WHERE r.id IS NULL OR r.fingerprint != n.fingerprint OR n.fingerprint = ''"
    )
    documents = connection.execute(f"SELECT DISTINCT n.source, n.document_id {different}").fetchall()
    return gone, documents


def is_current(connection: sqlite3.Connection, row: Mapping[str, Any]) -> bool:
    """Return whether the index has a row with this id and fingerprint."""
    fingerprint = row.get("fingerprint") or ""
    found = connection.execute("SELECT fingerprint FROM rows WHERE id = ?", (row["id"],)).fetchone()
    return bool(fingerprint) and found is not None and found[0] == fingerprint


def count(connection: sqlite3.Connection) -> int:
    """Return the number of rows."""
    return int(connection.execute("SELECT count(*) FROM rows").fetchone()[0])


def find(
    connection: sqlite3.Connection, tokens: Sequence[str], top: int, weights: Sequence[float] = COLUMN_WEIGHTS
) -> list[tuple[str, float]]:
    """Return ids and BM25 scores (higher is better) of rows with any of the tokens, best first; ties in row order."""
    if not tokens or top < 1:
        return []
    function = f"bm25({', '.join(repr(float(one)) for one in weights)})"
    statement = (
        "SELECT id, -score FROM (SELECT rowid AS number, rank AS score FROM words WHERE words MATCH ? AND rank MATCH ? "
        "ORDER BY rank, rowid LIMIT ?) JOIN rows USING (number) ORDER BY score, number"
    )
    expression = " OR ".join(map(_quoted, tokens))
    return [(str(row_id), float(score)) for row_id, score in connection.execute(statement, (expression, function, top))]


def frequencies(connection: sqlite3.Connection, tokens: Iterable[str]) -> dict[str, int]:
    """Return the number of rows that contain each token, or another word with its stem."""
    statement = "SELECT count(*) FROM words WHERE words MATCH ?"
    return {token: int(connection.execute(statement, (_quoted(token),)).fetchone()[0]) for token in tokens}


def _quoted(token: str) -> str:
    """Return a token as a string of FTS5's query language."""
    stem, star = (token[:-1], "*") if re.fullmatch(r".\*", token) else (token, "")
    return '"' + stem.replace('"', '""') + '"' + star


def inverse_frequency(rows: int, total: int) -> float:
    """Return the weight of a token that is in `rows` of `total` rows, as BM25 has it, and above 0."""
    return max(math.log((total - rows + 0.5) / (rows + 0.5)), 1e-6)
