"""Collections: read documents, split them into chunks, embed and store them, and search the store.

`open` and `open_async` open a collection for Python programs. Names are imported when they are used, because `import
embedway` and the command line must start quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedway.collections.blocking_collection import Collection
    from embedway.collections.blocking_collection import open_collection as open  # noqa: A004  as `open` of the language
    from embedway.collections.collection import AsyncCollection, open_async
    from embedway.collections.documents import DocumentKey
    from embedway.collections.export import ExportSummary
    from embedway.collections.forgetting import ForgetReport
    from embedway.collections.recomputing import VerifyPlan
    from embedway.collections.record import Record
    from embedway.collections.report import RunStatus
    from embedway.collections.search import Hit
    from embedway.collections.search_results import Neighbour, SearchAnswer, SearchHit
    from embedway.collections.snippets import Highlight, Snippet
    from embedway.collections.stores.base import Store
    from embedway.collections.stores.tally import StoredDocument
    from embedway.collections.sync import SyncSummary
    from embedway.collections.sync_plan import SyncPlan
    from embedway.collections.verification_report import RowFault, VerifyReport
    from embedway.collections.where import And, Compare, Condition, In, IsNull, Not, Or, parse_where

#: Module, below this package, of each public name.
_MODULES = {
    "And": "where",
    "AsyncCollection": "collection",
    "Collection": "blocking_collection",
    "Compare": "where",
    "Condition": "where",
    "DocumentKey": "documents",
    "ExportSummary": "export",
    "ForgetReport": "forgetting",
    "Highlight": "snippets",
    "Hit": "search",
    "In": "where",
    "IsNull": "where",
    "Neighbour": "search_results",
    "Not": "where",
    "Or": "where",
    "Record": "record",
    "RowFault": "verification_report",
    "RunStatus": "report",
    "SearchAnswer": "search_results",
    "SearchHit": "search_results",
    "Snippet": "snippets",
    "Store": "stores.base",
    "StoredDocument": "stores.tally",
    "SyncPlan": "sync_plan",
    "SyncSummary": "sync",
    "VerifyPlan": "recomputing",
    "VerifyReport": "verification_report",
    "open_async": "collection",
    "parse_where": "where",
}

__all__ = [
    "And",
    "AsyncCollection",
    "Collection",
    "Compare",
    "Condition",
    "DocumentKey",
    "ExportSummary",
    "ForgetReport",
    "Highlight",
    "Hit",
    "In",
    "IsNull",
    "Neighbour",
    "Not",
    "Or",
    "Record",
    "RowFault",
    "RunStatus",
    "SearchAnswer",
    "SearchHit",
    "Snippet",
    "Store",
    "StoredDocument",
    "SyncPlan",
    "SyncSummary",
    "VerifyPlan",
    "VerifyReport",
    "open",
    "open_async",
    "parse_where",
]


def __getattr__(name: str) -> object:
    if name == "open":
        from embedway.collections import blocking_collection  # noqa: PLC0415  see above

        return blocking_collection.open_collection
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
