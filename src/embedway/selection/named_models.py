"""Models that a selection is limited to: their candidates by name, alias or `hf:OWNER/NAME`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from embedway.catalog import default_catalog
from embedway.config.local_models import is_reranker
from embedway.errors import UnknownModelError, UsageError
from embedway.local.loading import HUB_PREFIX
from embedway.providers.names import full_name
from embedway.text import printable, shown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.config import Config
    from embedway.selection.candidate import Candidate

_NEAREST = 5


def named_candidates(candidates: Sequence[Candidate], names: Sequence[str], config: Config) -> tuple[Candidate, ...]:
    """Return the candidates with these names, in their order, each once.

    Raises UnknownModelError with the nearest names, and UsageError for a reranker and for a model without a benchmark.
    """
    by_name = {candidate.benchmark.model_name.casefold(): candidate for candidate in candidates}
    chosen: dict[str, Candidate] = {}
    for name in names:
        spelling = name.casefold()
        found = by_name.get(spelling) or by_name.get(spelling.removeprefix(HUB_PREFIX))
        if found is None:
            found = by_name.get(_full_name(name, candidates, config).casefold())
        if found is None:
            raise UsageError(
                f"{shown_name(name)} has no benchmark, so it cannot be compared: add its numbers in "
                f'[embedding.model_benchmarks."{printable(name)}"], or use it without a selection, as the model'
            )
        chosen.setdefault(found.benchmark.model_name, found)
    return tuple(chosen.values())


def _full_name(name: str, candidates: Sequence[Candidate], config: Config) -> str:
    repository = name.removeprefix(HUB_PREFIX)
    listed = repository if repository != name and repository in default_catalog() else name
    try:
        full = full_name(listed, config)
    except UnknownModelError as error:
        known = {one.benchmark.model_name.casefold(): one.benchmark.model_name for one in candidates}
        near = [known[one] for one in difflib.get_close_matches(name.casefold(), known, n=_NEAREST)]
        others = [one for one in error.nearest if one not in near and not is_reranker(one, config)]
        raise UnknownModelError(name, nearest=[*near, *others][:_NEAREST]) from None
    if is_reranker(full, config):
        raise UsageError(f"{full} is a reranker: it returns no vectors, so it cannot be selected")
    return full
