"""Columns and indexes of a table in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.collections.stores import postgres_compose as compose
from embedway.collections.stores import postgres_rows as pg
from embedway.collections.stores.postgres_connection import MAX_NAME_BYTES, Place, require_psycopg
from embedway.collections.stores.server_columns import stored_columns
from embedway.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.collections.record import Record

#: Rows from which an HNSW index is built. Below, an exact search takes some milliseconds.
INDEX_ROWS = 10_000
_MAX_BUILD_MIB = 2_048
#: Type names of the catalog that differ from those in `SQL_TYPES`.
_CATALOG_NAMES = {"timestamptz": "timestamp with time zone"}


def schema_of(link: Any, place: Place) -> str:
    """Return the schema of a table."""
    schema: str = place.schema or link.execute("SELECT current_schema()").fetchone()[0] or "public"
    return schema


def find(link: Any, schema: str, name: str) -> int | None:
    """Return the number of the table, index or sequence with a name; None if there is none."""
    query = "SELECT c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    row = link.execute(query + "WHERE n.nspname = %s AND c.relname = %s", [schema, name]).fetchone()
    return None if row is None else int(row[0])


def comment(link: Any, oid: int | None) -> str | None:
    """Return the comment of a table, which has the collection's record."""
    text: str | None = link.execute("SELECT obj_description(%s::oid, 'pg_class')", [oid]).fetchone()[0]
    return text


def write_comment(link: Any, table: Any, text: str) -> None:
    """Replace the comment of a table, which is a quoted name."""
    from psycopg import sql  # noqa: PLC0415 - an extra

    link.execute(compose.sql("COMMENT ON TABLE {} IS {}", table, sql.Literal(text)))


def column_types(link: Any, oid: int | None) -> dict[str, str]:
    """Return the columns of a table and their types, such as `bigint` and `vector(384)`."""
    query = "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
    query += "WHERE attrelid = %s::oid AND attnum > 0 AND NOT attisdropped"
    # The type of an extension may have its schema in front.
    return {name: kind.rpartition(".")[2] for name, kind in link.execute(query, [oid])}


def check_types(link: Any, oid: int | None, record: Record, *, destination: str) -> None:
    """Raise `SinkError` if a column of the record does not exist, or has another type.

    The binary form of a value has no type, so PostgreSQL would read it as a value of the wrong one.
    """
    found = column_types(link, oid)
    wanted = {name: pg.SQL_TYPES[kind] for name, kind in stored_columns(record).items()}
    wanted["vector"] = f"{pg.VECTOR_TYPES[record.vector_type]}({record.space.dimensions})"
    for name, sql_type in wanted.items():
        kind = _CATALOG_NAMES.get(sql_type, sql_type)
        if found.get(name) != kind:
            exists = f"has the type {found[name]}" if name in found else "does not exist"
            raise SinkError(
                f"the table's column {name!r} {exists}, and the collection needs {kind}; rename it or change its type",
                destination=destination,
            )


def rename_parts(link: Any, schema: str, temporary: str, table: str) -> None:
    """Name the indexes and the sequence of a renamed table after the table, as PostgreSQL does for a new one."""
    query = "SELECT c.relname, c.relkind = 'S' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    query += "WHERE n.nspname = %s AND c.relkind IN ('i', 'S') AND starts_with(c.relname, %s)"
    for old, is_sequence in link.execute(query, [schema, f"{temporary}_"]).fetchall():
        ending = old.removeprefix(temporary)
        start = table.encode()[: MAX_NAME_BYTES - len(ending.encode())].decode(errors="ignore")
        if find(link, schema, start + ending) is None:
            change = f"ALTER {'SEQUENCE' if is_sequence else 'INDEX'} {{}} RENAME TO {{}}"
            link.execute(compose.sql(change, compose.identifier(schema, old), start + ending))


def merge_stage(link: Any, table: Any, stage: Any, names: Sequence[str]) -> None:
    """Move the rows of a staging table, with the columns `names`, to a table. They replace rows with the same ids."""
    changes = compose.comma(compose.sql("{0} = excluded.{0}", name) for name in names if name != "id")
    columns = compose.names(names)
    query = "INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT (id) DO UPDATE SET {}"
    link.execute(compose.sql(query, table, columns, columns, stage, changes))
    link.execute(compose.sql("TRUNCATE {}", stage))


def add_indexes(link: Any, table: Any) -> None:
    """Add the indexes of a new table. Of rows that were written twice, only the last stays."""
    psycopg = require_psycopg()
    unique = compose.sql("ALTER TABLE {} ADD UNIQUE (id)", table)
    try:
        with link.transaction():
            link.execute(unique)
    except psycopg.errors.UniqueViolation:
        older = f"DELETE FROM {{0}} a USING {{0}} b WHERE a.id = b.id AND a.{pg.POSITION} < b.{pg.POSITION}"  # noqa: S608  constants and quoted identifiers
        link.execute(compose.sql(older, table))
        link.execute(unique)
    link.execute(compose.sql(f"ALTER TABLE {{}} ADD PRIMARY KEY ({pg.POSITION})", table))
    link.execute(compose.sql("CREATE INDEX ON {} (source, document_id)", table))


def build_vector_index(link: Any, table: Any, record: Record) -> None:
    """Build the HNSW index of a table that has none, if it has enough rows."""
    dimensions = record.space.dimensions
    what = pg.index_definition(record.vector_type, dimensions)
    (rows,) = link.execute(compose.sql("SELECT count(*) FROM {}", table)).fetchone()
    if what is None or rows < INDEX_ROWS:
        return
    needed = min(rows * (dimensions * 4 + 300) * 3 // 2 >> 20, _MAX_BUILD_MIB)
    query = "SELECT setting::bigint / 1024 FROM pg_settings WHERE name = 'maintenance_work_mem'"
    if link.execute(query).fetchone()[0] < needed:
        link.execute(f"SET LOCAL maintenance_work_mem = '{needed}MB'")
    link.execute(compose.sql(f"CREATE INDEX ON {{}} USING hnsw ({what})", table))


def has_vector_index(link: Any, oid: int | None) -> bool:
    """Return whether a table has a usable HNSW index."""
    query = "SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
    query += "WHERE i.indrelid = %s AND a.amname = 'hnsw' AND i.indisvalid"
    return link.execute(query, [oid]).fetchone() is not None
