"""Groups of entries in Redis: counting and clearing them, by one scan of the server's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.cache.base import CacheFilter, Group, GroupSize
from embedway.cache.redis_layout import CLEARED, GROUPS, KEYED_PREFIX, PREFIX, STORED_AT, parse_stored_at, parse_texts
from embedway.cache.redis_server import BATCH

if TYPE_CHECKING:
    from embedway.cache.redis_server import RedisServer


async def read_group_sizes(server: RedisServer) -> list[GroupSize]:
    """The sizes of all groups, with and without a secret. Reads the lengths of all values."""
    found: dict[Group, GroupSize] = {}
    for prefix in (PREFIX, KEYED_PREFIX):
        for group, names in (await _matching_keys(server, prefix, CacheFilter())).items():
            size = 0
            for start in range(0, len(names), BATCH):
                lengths = await server.command_each("STRLEN", names[start : start + BATCH])
                size += sum(length for length in lengths if isinstance(length, int))
            before = found.get(group, GroupSize(group, 0, 0))
            found[group] = GroupSize(group, before.entries + len(names), before.bytes + size)
    return list(found.values())


async def clear_matching(server: RedisServer, which: CacheFilter) -> int:
    """Delete entries, with and without a secret, and count a clearing. Returns how many entries there were."""
    deleted = 0
    for prefix in (PREFIX, KEYED_PREFIX):
        for names in (await _matching_keys(server, prefix, which)).values():
            for start in range(0, len(names), BATCH):
                batch = names[start : start + BATCH]
                if which.older_than_s is not None:
                    batch = await _older(server, batch, which.older_than_s)
                deleted += await server.delete(batch)
    await _count_clearing(server)
    return deleted


async def _read_groups(server: RedisServer, prefix: str) -> list[Group]:
    facts = [(field, parse_texts(value, 3)) for field, value in (await server.fields(prefix + GROUPS)).items()]
    groups = [(field, Group(*texts)) for field, texts in facts if texts is not None]
    return [group for field, group in groups if group.id.encode() == field]


async def _matching_keys(server: RedisServer, prefix: str, which: CacheFilter) -> dict[Group, list[bytes]]:
    """The keys of each group that matches; one scan of all keys of the server, however many groups there are."""
    groups = {group.id.encode(): group for group in await _read_groups(server, prefix) if which.matches(group)}
    found: dict[Group, dict[bytes, None]] = {group: {} for group in groups.values()}
    if groups:
        async for name in server.client.scan_iter(match=f"{prefix}*", count=1000):
            group = groups.get(name[len(prefix) :].partition(b":")[0])
            if group is not None:
                found[group][name] = None  # a server may name a key twice
    return {group: list(names) for group, names in found.items() if names}


async def _older(server: RedisServer, names: list[bytes], older_than_s: float) -> list[bytes]:
    now = server.clock()
    values = await server.command_each("GETRANGE", names, 0, STORED_AT.size - 1)
    return [
        name for name, value in zip(names, values, strict=True) if parse_stored_at(value, now) <= now - older_than_s
    ]


async def _count_clearing(server: RedisServer) -> None:
    """Change the number of clearings, even where others have written something else there."""
    import redis.exceptions  # noqa: PLC0415  the client has it loaded

    try:
        await server.client.incr(CLEARED)
    except redis.exceptions.ResponseError:
        await server.client.set(CLEARED, round(server.clock() * 1000))
