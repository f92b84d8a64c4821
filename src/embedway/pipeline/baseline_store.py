"""Baselines in the store of records: read one or all, store one beside those of other processes, and remove them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.errors import LedgerError, UsageError
from embedway.ledger.records import Record, UnreadableRecordError, read_each
from embedway.quality.baseline import Baseline
from embedway.text import printable, shown_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from embedway.ledger.records import Records

_log = logging.getLogger("embedway.quality")
#: Time for which one process may create a baseline while others are refused, in seconds. If it takes longer, they may
#: measure the same routes, and both results are merged.
CREATION_S = 600.0


class BaselineStore:
    """The stored baselines, by the id of their space."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def get(self, space_id: str) -> Baseline | None:
        """Return a baseline; None if there is none. Raises LedgerError, UnreadableRecordError for a damaged one."""
        try:
            record = await self._records.get("baseline", space_id)
        except UnreadableRecordError as error:
            raise UnreadableRecordError(f"{error}; `embedway quality baseline --replace` creates it again") from None
        return None if record is None else await asyncio.to_thread(_parsed, record)

    async def all(self) -> list[Baseline]:
        """Return all baselines. Those that cannot be read are logged and left out."""
        return [one for _, one in await self._each() if one is not None]

    async def spaces_of(self, name: str) -> list[str]:
        """Return the ids of the spaces with a baseline that have this id, or this name of the model.

        The id of the space decides for a baseline that cannot be read: it contains the last part of the model's name.
        """
        known = [one for one, _ in await self._records.names("baseline")]
        if name in known:
            return [name]
        found = []
        for space_id, one in await self._each():
            short = space_id.rpartition("@")[0]
            names = (short,) if one is None else (one.model, one.model.rpartition("/")[2])
            if name in names or (one is None and name.rpartition("/")[2] == short):
                found.append(space_id)
        return found

    async def put(self, baseline: Baseline, *, replaces: bool) -> Baseline:
        """Store a baseline, and return it as stored.

        Without `replaces`, routes that another process stored meanwhile are kept. Raises UsageError if they were
        measured with other texts.
        """
        space_id = baseline.space.id
        other = None if replaces else await self.get(space_id)
        if other is not None:
            if not other.has_texts_of(baseline):
                raise UsageError(
                    f"another process has replaced the baseline of {shown_name(space_id)} meanwhile, so this one is "
                    "not stored: run the same command again"
                )
            baseline = replace(baseline, routes={**baseline.routes, **other.routes})
        document = await asyncio.to_thread(baseline.to_json)
        await self._records.put(Record("baseline", space_id, document))
        return baseline

    async def remove(self, space_id: str) -> bool:
        """Remove a baseline without reading it. Return False if there is none."""
        return await self._records.remove("baseline", space_id)

    @contextlib.asynccontextmanager
    async def creation(self, space_id: str) -> AsyncIterator[None]:
        """Allow one process at a time to create a baseline, because its requests cost money. Raises UsageError."""
        name = f"{space_id}|creation"
        if not await self._records.lease("baseline", name, CREATION_S):
            raise UsageError(
                f"another process creates the baseline of {shown_name(space_id)} now: run the same command again after "
                f"it has ended, or {CREATION_S / 60:.0f} minutes after it was killed"
            )
        try:
            yield
        finally:
            with contextlib.suppress(LedgerError):  # the lease ends by itself
                await self._records.end_lease("baseline", name)

    async def _each(self) -> list[tuple[str, Baseline | None]]:
        found: list[tuple[str, Baseline | None]] = []
        for name, record in await read_each(self._records, "baseline"):
            try:
                if isinstance(record, UnreadableRecordError):
                    raise record
                found.append((name, await asyncio.to_thread(_parsed, record)))
            except UnreadableRecordError as error:
                shown = printable(name)
                _log.warning("the baseline of %s is left out (`embedway quality remove` removes it): %s", shown, error)
                found.append((name, None))
        return found


def _parsed(record: Record) -> Baseline:
    baseline = Baseline.from_json(record.document)
    if baseline.space.id != record.name:
        raise UnreadableRecordError(
            f"the baseline of {shown_name(record.name)} is damaged, because it is of the space "
            f"{shown_name(baseline.space.id)}: create it again with `embedway quality baseline --replace`"
        )
    return baseline
