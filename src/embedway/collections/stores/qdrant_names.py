"""Names of collections of a Qdrant server: aliases, and the marks of collections without one in their records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.collections.stores.server_records import (
    COMPLETE_FOR,
    RECORD_KEY,
    is_staging_name,
    record_text,
    staging_mark,
)

if TYPE_CHECKING:
    from embedway.collections.record import Record

#: Point whose payload has the record, on servers without metadata of collections.
RECORD_POINT = "ffffffff-ffff-ffff-ffff-ffffffffffff"


def resolve(client: Any, name: str) -> str | None:
    """Return the collection behind a name, which may be an alias; None if there is none."""
    for alias in client.get_aliases().aliases:
        if alias.alias_name == name:
            return str(alias.collection_name)
    return name if client.collection_exists(name) else None


def find(client: Any, name: str) -> str | None:
    """Return the collection of a name, also a complete one that a killed process left without it; None if none."""
    return resolve(client, name) or _find_nameless(client, name)


def restore(client: Any, name: str) -> str | None:
    """Return the collection of a name as `find` does, and give it the name if it has none."""
    found = resolve(client, name)
    if found is None and (found := _find_nameless(client, name)) is not None:
        set_alias(client, name, found)
    return found


def _find_nameless(client: Any, name: str) -> str | None:
    return next(iter(find_marked(client, name, COMPLETE_FOR)), None)


def set_alias(client: Any, name: str, collection: str, *, replaces: bool = False) -> None:
    """Make a name the alias of a collection, in one request. `replaces` if it is the alias of another one."""
    from qdrant_client import models  # noqa: PLC0415 - heavy, and an extra

    created = models.CreateAlias(collection_name=collection, alias_name=name)
    changes: list[Any] = [models.CreateAliasOperation(create_alias=created)]
    if replaces:
        changes.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name)))
    client.update_collection_aliases(change_aliases_operations=changes)


def find_marked(client: Any, name: str, *marks: str) -> list[str]:
    """Return the collections without alias that have one of these marks for a name."""
    used = {alias.collection_name for alias in client.get_aliases().aliases}
    names = [one.name for one in client.get_collections().collections]
    # The records of other collections are not read.
    unused = [one for one in names if one not in used and is_staging_name(one, name)]
    return [one for one in unused if staging_mark(one, name, read_record(client, one)[0]) in marks]


def read_record(client: Any, name: str) -> tuple[str | None, bool]:
    """Return the text of a collection's record, and whether it is in a point."""
    metadata = client.get_collection(name).config.metadata or {}
    in_point = RECORD_KEY not in metadata
    if in_point:
        found = client.retrieve(name, [RECORD_POINT])
        metadata = (found[0].payload or {}) if found else {}
    text = metadata.get(RECORD_KEY)
    return (text if isinstance(text, str) else None), in_point


def write_record(client: Any, name: str, record: Record, **marks: str) -> bool:
    """Write the record of a collection with its marks; return whether it is in a point."""
    from qdrant_client import models  # noqa: PLC0415 - heavy, and an extra

    text = record_text(record, **marks)
    client.update_collection(name, metadata={RECORD_KEY: text})
    # Servers before 1.16 ignore the metadata.
    if (client.get_collection(name).config.metadata or {}).get(RECORD_KEY) == text:
        return False
    vector = [1.0, *[0.0] * (record.space.dimensions - 1)]
    point = models.PointStruct(id=RECORD_POINT, vector=vector, payload={RECORD_KEY: text})
    client.upsert(name, points=[point], wait=True)
    return True
