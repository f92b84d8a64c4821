"""Differences between the documents of sources and those of a collection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from embedway.collections.stored_chunks import key_of_row
from embedway.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from embedway.collections.documents import DocumentKey, RawDocument
    from embedway.collections.record import ChunkSettings, SourceRecord
    from embedway.collections.stores.base import Store
    from embedway.collections.stores.tally import StoredDocument

#: `resumed`: some rows of the document are already there, with its present fingerprint.
Change: TypeAlias = Literal["added", "updated", "resumed", "unchanged"]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Documents of a collection, and the ids of the rows of incomplete ones that are current."""

    documents: Mapping[DocumentKey, StoredDocument] = field(default_factory=dict)
    rows: Mapping[DocumentKey, Collection[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store) -> Manifest:
        """Read the manifest of an open store. Raises SinkError."""
        documents = {document.key: document for document in store.documents()}
        partial = [key for key, document in documents.items() if document.is_partial]
        rows: dict[DocumentKey, set[str]] = {key: set() for key in partial}
        if partial:
            columns = ("id", "source", "document_id", "fingerprint")
            for some in store.read(columns=columns, vectors=False, documents=partial):
                for row in some.fields:
                    key = key_of_row(row)
                    if row["fingerprint"] == documents[key].fingerprint:
                        rows[key].add(row["id"])
        return cls(documents, rows)


class Changes:
    """Comparison of documents that are read, one by one, with a manifest."""

    def __init__(self, manifest: Manifest, settings: ChunkSettings, sources: Iterable[SourceRecord]) -> None:
        self._manifest = manifest
        self._settings = settings
        self._sources = tuple(sources)
        self._seen: set[DocumentKey] = set()
        #: Documents that a fault may concern, and those that a fault concerns.
        self._kept: set[DocumentKey] = set()
        self._failed: set[DocumentKey] = set()
        self.counts: dict[Change, int] = dict.fromkeys(("added", "updated", "resumed", "unchanged"), 0)

    def fingerprint(self, raw: RawDocument) -> str:
        """Return the fingerprint of a document's rows."""
        return self._settings.fingerprint(raw.content_hash)

    def decide(self, raw: RawDocument, fingerprint: str) -> Change:
        """Return the change of a document. Raises `SourceError` for a document that was read before."""
        if raw.key in self._seen:
            raise SourceError(
                f"the document {raw.key.document_id!r} appears twice in this source; give each document an id of its "
                "own, or each file a source name: NAME=PATH",
                path=raw.key.source,
            )
        self._seen.add(raw.key)
        stored = self._manifest.documents.get(raw.key)
        if stored is None:
            return "added"
        if stored.fingerprint != fingerprint or stored.damaged:
            return "updated"
        return "unchanged" if stored.is_complete else "resumed"

    def rows_of(self, key: DocumentKey) -> Collection[str]:
        """Return the ids of the rows of a resumed document that are current."""
        return self._manifest.rows.get(key, ())

    def forget(self, key: DocumentKey) -> None:
        """Treat a document as not found: it has nothing to embed."""
        self._seen.discard(key)

    def keep(self, key: DocumentKey) -> None:
        """Keep the rows of a document that cannot be used."""
        self._seen.add(key)
        if key in self._manifest.documents:
            self._failed.add(key)

    def keep_of_fault(self, fault: SourceError) -> None:
        """Keep the rows of all documents that a fault may concern: of a row, a file, or everything below a folder."""
        if fault.key is None:
            names, begins = {source.name for source in self._sources}, ""
        else:
            names, begins = {fault.key[0]}, fault.key[1]
        for key in self._manifest.documents:
            if key.source not in names or key in self._seen:
                continue
            if key.document_id == begins or (
                (fault.key is None or fault.key_is_prefix) and _is_below(key.document_id, begins)
            ):
                self._kept.add(key)

    @property
    def kept(self) -> int:
        """Number of documents that keep their rows because they cannot be used."""
        return len((self._kept - self._seen) | self._failed)

    def removed(self) -> list[DocumentKey]:
        """Return the documents of these sources that were neither found nor kept."""
        names = {source.name for source in self._sources}
        gone = (key for key in self._manifest.documents if key.source in names)
        return [key for key in gone if key not in self._seen and key not in self._kept]

    def emptied(self) -> list[SourceRecord]:
        """Return the sources of which nothing was found, though the collection has documents of them."""
        found = {key.source for key in self._seen} | {key.source for key in self._kept}
        stored = {key.source for key in self._manifest.documents}
        return [source for source in self._sources if source.name in stored - found]


def _is_below(document_id: str, begins: str) -> bool:
    """Return whether a document is a row of the file, or a file of the folder, at the path `begins`."""
    return not begins or begins == "." or document_id.startswith(begins if begins.endswith("/") else f"{begins}/")
