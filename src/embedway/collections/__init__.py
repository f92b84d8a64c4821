"""Collections: read documents, split them into chunks, embed and store them, and search the store.

`open` and `open_async` open a collection for Python programs. Names are imported when they are used, because `import
embedway` and the command line must start quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedway.collections.blocking_collection import Collection
    from embedway.collections.blocking_collection import open_collection as open  # noqa: A004  as `open` of the language
    from embedway.collections.collection import AsyncCollection, open_async
    from embedway.collections.search_results import SearchAnswer, SearchHit

__all__ = ["AsyncCollection", "Collection", "SearchAnswer", "SearchHit", "open", "open_async"]


def __getattr__(name: str) -> object:
    if name in {"AsyncCollection", "open_async"}:
        from embedway.collections import collection  # noqa: PLC0415  see above

        return getattr(collection, name)
    if name in {"Collection", "open"}:
        from embedway.collections import blocking_collection  # noqa: PLC0415  see above

        return getattr(blocking_collection, "open_collection" if name == "open" else name)
    if name in {"SearchAnswer", "SearchHit"}:
        from embedway.collections import search_results  # noqa: PLC0415  see above

        return getattr(search_results, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
