"""A store in memory, by destination `memory:NAME`: the smallest implementation of the contract of stores."""

import copy
import secrets
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedway.collections.columns import CHUNK_COLUMNS, HIT_COLUMNS
from embedway.collections.documents import DocumentKey
from embedway.collections.search import Hit, TopRows, cosines
from embedway.collections.stores.base import READ_ROWS, Rows, Store
from embedway.collections.stores.tally import TALLY_COLUMNS, DocumentTally
from embedway.collections.where import matches
from embedway.errors import CollectionLockedError, SinkError

#: Collections by destination: record, and rows by id as (fields, vector).
PLACES = {}
_LOCKED = set()


class MemoryStore(Store):
    transactional = True

    def __init__(self, destination):
        super().__init__(destination)
        self._rows = {}
        self._writing = False

    @property
    def rejects_path(self):
        return Path(f"{self.destination.removeprefix('memory:')}.rejects.jsonl")

    @contextmanager
    def lock(self):
        if self.destination in _LOCKED:
            raise CollectionLockedError(destination=self.destination)
        _LOCKED.add(self.destination)
        try:
            yield
        finally:
            _LOCKED.discard(self.destination)

    def exists(self):
        return self.destination in PLACES

    def prepare(self, *, overwrite):
        if self.exists() and not overwrite:
            raise SinkError("already exists", destination=self.destination)

    def begin(self, record):
        self.record, self._rows, self._writing = record, {}, True

    def begin_update(self, record):
        self.record, self._writing = self.check_update(record), True
        self._rows = dict(self._rows)

    def write(self, chunks, vectors):
        self.check_rows(chunks, vectors)
        names = (*HIT_COLUMNS, *CHUNK_COLUMNS)
        for chunk, vector in zip(chunks, vectors, strict=True):
            fields = {name: getattr(chunk, name) for name in names}
            fields |= {name: chunk.metadata.get(name) for name in self.record.keep}
            self._rows[chunk.id] = (fields, np.array(vector, np.float32))

    def remove(self, documents):
        self._rows = {key: row for key, row in self._rows.items() if _key(row[0]) not in documents}

    def commit(self):
        self.record = replace(self.record, revision=secrets.token_hex(8))
        PLACES[self.destination] = (self.record, dict(self._rows))
        self._writing = False

    def abort(self):
        self._writing = False

    def open(self):
        if not self.exists():
            raise SinkError("there is no such collection", destination=self.destination)
        self.record, self._rows = copy.copy(PLACES[self.destination])
        self.count = len(self._rows)

    def close(self):
        pass

    def documents(self):
        tally = DocumentTally()
        for fields, _ in self._rows.values():
            tally.add(*(fields[name] for name in TALLY_COLUMNS))
        return tally.documents()

    def read(self, *, columns=None, vectors=True, documents=None, strict=True):
        rows = [row for row in self._rows.values() if documents is None or _key(row[0]) in documents]
        for first in range(0, len(rows), READ_ROWS):
            some = rows[first : first + READ_ROWS]
            names = (*HIT_COLUMNS, *CHUNK_COLUMNS, *self.record.keep) if columns is None else columns
            fields = [{name: row.get(name) for name in names} for row, _ in some]
            matrix = np.array([v for _, v in some], np.float32) if vectors else np.empty((len(some), 0), np.float32)
            yield Rows(fields, matrix)

    def fetch(self, ids):
        return {row_id: dict(self._rows[row_id][0]) for row_id in ids if row_id in self._rows}

    def write_record(self, record):
        self.record = record
        PLACES[self.destination] = (record, PLACES[self.destination][1])

    def search_unit(self, query, top_n, where):
        rows = [row for row in self._rows.values() if where is None or matches(where, row[0])]
        if not rows:
            return []
        best = TopRows(top_n)
        best.add(cosines(np.array([vector for _, vector in rows]), query), 0)
        found = zip(best.scores.tolist(), best.rows.tolist(), strict=True)
        return [Hit.of(score, rows[row][0], self.record.keep) for score, row in found]


def _key(fields):
    return DocumentKey(fields["source"], fields["document_id"])
