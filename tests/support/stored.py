"""Content of cache stores, for tests: entries without their times, and all entries of a group."""

from embedway.cache.memory import MemoryCache
from embedway.cache.redis_server import parse_entry
from embedway.cache.sqlite import SqliteCache


async def read_entries(store, group, keys):
    """Return the entry of each key, without its storage time."""
    return [stored and stored[0] for stored in await store.get_many(group, keys)]


async def some_entries(store, group, count):
    """Return up to `count` keys of a group with their entries, read without the store's contract."""
    store = getattr(store, "backing", store)
    if isinstance(store, MemoryCache):
        pairs = [(key, entry) for key, (entry, of, *_) in store._entries.items() if of == group]
    elif isinstance(store, SqliteCache):
        query = "SELECT e.key, e.value FROM entries e JOIN groups g ON g.id = e.grp WHERE g.name = ? ORDER BY e.used"
        pairs = await store._reading.call("inspect", lambda connection: list(connection.execute(query, (group.id,))))
    else:
        client = store._server.client
        names = [name async for name in client.scan_iter(match=f"{store._prefix}{group.id}:*")]
        keys = [bytes.fromhex(name.rpartition(b":")[2].decode()) for name in names]
        pairs = [(key, parse_entry(await client.get(name))) for key, name in zip(keys, names, strict=True)]
    return pairs[:count]
