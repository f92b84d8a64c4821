"""Remove documents from a collection with everything that embedway keeps of them, and say what it cannot reach."""

from __future__ import annotations

import difflib
import shlex
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from embedway.arguments import check_name, check_names
from embedway.collections.chunks import join_context
from embedway.collections.journal import journal_path, repair_journal_path
from embedway.collections.keywords import forget_keywords
from embedway.collections.store_calls import locked, uncancelled
from embedway.collections.stored_chunks import place_of
from embedway.errors import CacheError, EmbedwayError, SinkError, UsageError
from embedway.remedies import by_place, option
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.documents import DocumentKey
    from embedway.collections.stores.base import Store

#: Copies that embedway cannot reach.
ALWAYS_LEFT = (
    "copies, backups and exports of the collection",
    "logs and caches of services that computed the vectors, and texts in the memory of running processes",
)
_CACHE_TEXTS = 2048
#: Documents whose names are compared with an unknown one.
_COMPARED_DOCUMENTS = 10_000
_NAMED_MODELS = 5


@dataclass(slots=True)
class ForgetReport:
    """Result of `forget`.

    `documents` are names. `rows` and `cached` are the numbers of rows and of cached vectors that were removed. `left`
    has sentences on what may still contain the texts. With `dry_run`, nothing was removed: `documents` and `rows` are
    what would be, `cached` is 0, and `left` is empty.
    """

    destination: str
    documents: list[str] = field(default_factory=list)
    rows: int = 0
    cached: int = 0
    left: list[str] = field(default_factory=list)
    dry_run: bool = False


def find_documents(store: Store, names: Sequence[str], *, source: str | None = None) -> list[DocumentKey]:
    """Return the documents of an open collection with these names, `document_id` or `source/document_id`.

    Raises `UsageError` for an unknown name, and for one that several sources have, unless `source` decides.
    """
    wanted: dict[str, list[DocumentKey]] = {name: [] for name in names}
    for found in store.documents():
        if source is not None and found.key.source != source:
            continue
        for name in {found.key.document_id, f"{found.key.source}/{found.key.document_id}"} & wanted.keys():
            wanted[name].append(found.key)
    for name, keys in wanted.items():
        if not keys:
            where = f" in the source {source!r}" if source is not None else ""
            lister = by_place(command="`embedway search --json`", python="`Collection.documents`")
            meant = _similar(store, name, source)
            raise UsageError(f"{store.destination} has no document {name!r}{where}{meant}; {lister} shows their names")
        if len(keys) > 1:
            places = ", ".join(sorted({key.source for key in keys}))
            raise UsageError(f"several sources have a document {name!r} ({places}); name one with {option('source')}")
    return list(dict.fromkeys(key for keys in wanted.values() for key in keys))


def _similar(store: Store, name: str, source: str | None) -> str:
    """Return ` (did you mean X?)` if one of the first documents has a similar name; else an empty text."""
    keys = [found.key for found in islice(store.documents(), _COMPARED_DOCUMENTS)]
    near = difflib.get_close_matches(name, [key.document_id for key in keys if source in {None, key.source}], 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def plan_forgetting(store: Store, names: Sequence[str], *, source: str | None = None) -> ForgetReport:
    """Return which documents of an open collection would be removed, with how many rows. Blocks.

    Raises as `find_documents`.
    """
    names, source = _checked_names(names, source)
    keys = find_documents(store, names, source=source)
    return ForgetReport(store.destination, sorted(map(place_of, keys)), len(_texts_of(store, keys)), dry_run=True)


async def forget_documents(
    embedder: AsyncEmbedder, store: Store, names: Sequence[str], *, model: str, source: str | None = None
) -> ForgetReport:
    """Remove documents from an open collection, its older versions, its keyword index, its journals and the cache.

    Cached vectors are found by the texts of the rows, so those of texts that are no longer in the collection remain;
    the report says so. Raises as `find_documents`, `SinkError`, and `CacheError` if the cache cannot be changed, after
    the rows are gone.
    """
    names, source = _checked_names(names, source)
    report = ForgetReport(store.destination)
    with closing(Worker("embedway-store")) as worker:
        async with locked(store, worker):
            await worker.call(store.open)
            keys = await worker.call(find_documents, store, names, source=source)
            report.documents = sorted(map(place_of, keys))
            texts = await worker.call(_texts_of, store, keys)
            report.rows = len(texts)
            await uncancelled(worker.call(_remove, store, keys))
            report.left += await worker.call(_purge, store)
            report.left += await worker.call(_remove_journals, store)
            await worker.call(forget_keywords, store, embedder.config.search.directory)
    await _forget_cached(embedder, store, texts, report, model=model)
    sources = ", ".join(sorted({key.source for key in keys}))
    report.left.append(f"the source {sources}: a sync adds the document again unless it is removed or excluded there")
    report.left += ALWAYS_LEFT
    return report


def _checked_names(names: Sequence[str], source: str | None) -> tuple[tuple[str, ...], str | None]:
    return check_names(names, "documents") or (), None if source is None else check_name(source, "source")


def _texts_of(store: Store, keys: Sequence[DocumentKey]) -> list[str]:
    """Return the texts that the model received for the rows of documents."""
    texts: list[str] = []
    for rows in store.read(columns=("text", "context"), vectors=False, documents=set(keys)):
        texts += [join_context(fields.get("context"), fields["text"]) for fields in rows.fields]
    return texts


def _remove(store: Store, keys: Sequence[DocumentKey]) -> None:
    store.begin_update(store.record)
    try:
        store.remove(set(keys))
        store.commit()
    except BaseException:
        store.abort()
        raise


def _purge(store: Store) -> list[str]:
    """Remove texts from older versions of the store; return what may still contain them."""
    try:
        return list(store.purge())
    except SinkError as error:
        return [f"older versions of the collection: {error}"]


def _remove_journals(store: Store) -> list[str]:
    """Remove the vectors that interrupted jobs and repairs keep; return what may still contain some."""
    left = []
    for path in (journal_path(store), repair_journal_path(store)):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            left.append(
                f"vectors that an interrupted job keeps in {path}, without the texts: {error.strerror or error}"
            )
    return left


async def _forget_cached(
    embedder: AsyncEmbedder, store: Store, texts: Sequence[str], report: ForgetReport, *, model: str
) -> None:
    """Delete the cached vectors of texts, and note other entries of the cache that may be of these texts."""
    try:
        for first in range(0, len(texts), _CACHE_TEXTS):
            report.cached += await embedder.cache.forget(texts[first : first + _CACHE_TEXTS], model=model)
        stats = await embedder.cache.stats()
    except UsageError:
        return  # there is no cache
    except CacheError:
        raise
    except EmbedwayError as error:
        report.left.append(f"the cache: {model} could not be opened to find its entries ({error})")
        return
    others = sorted(
        name for name, one in stats.models.items() if one.entries and not _is_model(name, store.space.model)
    )
    for name in others[:_NAMED_MODELS]:
        clear = by_place(
            command=f"`embedway cache clear --model {shlex.quote(name)}`",
            python=f"`embedder.cache.clear(model={name!r})`",
        )
        report.left.append(
            f"vectors that {name} cached, perhaps of the same texts, without the texts: {clear} deletes all of them"
        )
    if len(others) > _NAMED_MODELS:
        report.left.append(f"vectors of {len(others) - _NAMED_MODELS:,} more models: `embedway cache stats` lists them")


def _is_model(name: str, short: str) -> bool:
    """Return whether `short` is a model's name, or the part of it after the last slash."""
    return name == short or name.rpartition("/")[2] == short
