"""Format of the cache's SQLite file: tables, version, and migration of older versions.

Version 1 has no application id. Its keys leave out the tokenizer and the configuration of models that run on this
machine, so that an entry of such a model may answer for another tokenizer. Version 2 has the same tables: the migration
drops the entries of models of the catalog that run here, and of libraries. Those of services keep their keys. Entries
of other models of this machine, such as folders, have other keys now: they are never found, and are evicted in time.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from typing import TYPE_CHECKING

from embedway import formats
from embedway.errors import CacheError
from embedway.sqlite import Format

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from embedway.catalog import Catalog

_log = logging.getLogger("embedway.cache")

#: Version 2 has the tables of version 1. A table with rowids reads faster than one without.
_SCHEMA = formats.CACHE.schema
#: An index beside the schema, where entries have a time to live.
CREATED_INDEX = "CREATE INDEX IF NOT EXISTS entries_created ON entries (created)"
#: Prefixes of the names of models that a library runs.
_LIBRARIES = ("fastembed:", "sentence-transformers:")
#: A migration shrinks the file where no more than this has to be copied for it.
_CHEAP_BYTES = 64 * 2**20


def _migrate_1_to_2(connection: sqlite3.Connection, path: Path) -> Callable[[], None] | None:
    """Drop the entries whose keys leave facts out. Returns what to do after the commit."""
    for statement in _SCHEMA:
        connection.execute(statement)
    from embedway.catalog import default_catalog  # noqa: PLC0415  few files are of version 1

    catalog = default_catalog()
    groups = connection.execute("SELECT id, model FROM groups").fetchall()
    # Row ids, which SQLite gave. They stand in the statements, because the number of parameters is bounded.
    kept = ",".join(str(int(number)) for number, model in groups if not _runs_locally(str(model), catalog))
    (before,) = connection.execute("SELECT COUNT(*) FROM entries").fetchone()
    (staying,) = connection.execute(f"SELECT COUNT(*) FROM entries WHERE grp IN ({kept})").fetchone()  # noqa: S608
    dropped = int(before - staying)
    if staying and staying > dropped:
        connection.execute(f"DELETE FROM entries WHERE grp NOT IN ({kept})")  # noqa: S608
    elif dropped:
        # SQLite empties a whole table at once, and deletes rows one by one.
        connection.execute(f"CREATE TEMP TABLE staying AS SELECT * FROM entries WHERE grp IN ({kept})")  # noqa: S608
        connection.execute("DELETE FROM entries")
        connection.execute("INSERT INTO entries SELECT * FROM staying")
        connection.execute("DROP TABLE temp.staying")
    connection.execute(f"DELETE FROM groups WHERE id NOT IN ({kept})")  # noqa: S608
    if not dropped:
        return None
    # Other processes hold entries in memory too.
    connection.execute("INSERT INTO cleared VALUES (1, 1) ON CONFLICT DO UPDATE SET times = times + 1")

    def afterwards() -> None:
        _log.warning(
            "%s is brought from version 1 to 2: %d of its %d vectors are dropped, because keys of version 1 leave out "
            "the tokenizer and the configuration of models that run on this machine; they are computed anew on use",
            path,
            dropped,
            before,
        )
        _shrink_if_cheap(connection)

    return afterwards


def _runs_locally(model: str, catalog: Catalog) -> bool:
    return model in catalog or model.startswith(_LIBRARIES)


def _shrink_if_cheap(connection: sqlite3.Connection) -> None:
    if used_bytes(connection) <= _CHEAP_BYTES:
        shrink(connection)


def used_bytes(connection: sqlite3.Connection) -> int:
    """The bytes of the file's pages in use. SQLite knows them; a sum over entries would read them all."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((pages - free) * size)


def shrink(connection: sqlite3.Connection) -> None:
    """Give pages back to the disk, where most of the file is free."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free * 2 > pages:
        with contextlib.suppress(sqlite3.Error):  # another process is at it, or the disk has no room for a copy
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


FORMAT = Format(formats.CACHE, 2, _SCHEMA, CacheError, {1: _migrate_1_to_2})
