"""Records in memory, for tests that need no store."""

import time
from dataclasses import replace


class MemoryRecords:
    """Records of one process."""

    def __init__(self, clock=time.time):
        self._clock = clock
        self._records = {}
        self._leases = {}

    async def get(self, kind, name):
        return self._records.get((kind, name))

    async def put(self, record):
        stored = replace(record, changed=self._clock())
        self._records[record.kind, record.name] = stored
        return stored

    async def remove(self, kind, name):
        return self._records.pop((kind, name), None) is not None

    async def all(self, kind):
        return [record for (own, _), record in sorted(self._records.items()) if own == kind]

    async def names(self, kind):
        return [(record.name, record.changed) for record in await self.all(kind)]

    async def lease(self, kind, name, lease_s):
        now = self._clock()
        if now < self._leases.get((kind, name), 0):
            return False
        self._leases[kind, name] = now + lease_s
        return True

    async def end_lease(self, kind, name):
        self._leases.pop((kind, name), None)

    async def aclose(self):
        pass
