"""Rerankers, local and from services: the differences from embedding models.

A reranker computes rows of one number: the score of each document for the query of the request.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np

from embedway.catalog import default_catalog
from embedway.catalog.services import default_services
from embedway.errors import InputError
from embedway.models.local import LocalModel
from embedway.models.service import ServiceModel, profile_of
from embedway.providers.counting import FileCounter, about_tokens
from embedway.rerank.base import check_scores
from embedway.space import score_space
from embedway.types import TokenizedTexts, Truncation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.batching.ready_rows import ReadyRows
    from embedway.batching.work import Work
    from embedway.catalog.types import Task
    from embedway.compute import ComputeRequest
    from embedway.dispatch.request import UpstreamRequest, UpstreamResponse
    from embedway.ledger.account import Account
    from embedway.local.cross_encoder import CrossEncoder
    from embedway.models.base import Profile
    from embedway.models.service import Service
    from embedway.rerank.base import Scoring

#: Maximum characters to tokenize for each token of the limit, so that a book costs little.
_CHARACTERS_PER_TOKEN = 16


class LocalReranker(LocalModel):
    """A cross-encoder on this machine."""

    task: ClassVar[Task] = "rerank"
    check = staticmethod(check_scores)
    _encoder: CrossEncoder

    def tokenize(self, texts: Sequence[str], request: ComputeRequest) -> TokenizedTexts:
        """Return ids of query-document pairs; a document is truncated if the pair exceeds the limit."""
        return self._encoder.pairs(request.query, texts)


class ServiceReranker(ServiceModel):
    """A reranker that services run. Requests are not merged, because documents are compared with one another."""

    task: ClassVar[Task] = "rerank"
    check = staticmethod(check_scores)
    merges = False
    by_search = True

    def _profile(self, service: Service) -> Profile:
        return profile_of(service, score_space(service.facts.name, f"service:{service.facts.name}"))

    def tokenize(self, texts: Sequence[str], request: ComputeRequest) -> TokenizedTexts:
        """Return the tokens of each document with the query, and the truncation of each pair over the limit.

        Raises InputError for a query of more than half of the limit.
        """
        counter, query = self.service.counter, request.query
        if isinstance(counter, FileCounter):
            return counter.count_pairs(query, texts)
        asked = int(counter.count([query]).lengths[0])
        if asked > self.max_tokens // 2:
            raise InputError(
                f"the query has {asked} tokens, more than half of the {self.max_tokens} that the model accepts with a "
                "document; shorten it"
            )
        lengths = counter.count(texts).lengths + asked
        most = self.max_tokens - asked
        cuts = []
        for row in np.flatnonzero(lengths > self.max_tokens).tolist():
            cut = self._cut(texts[row], row, most)
            cuts.append(replace(cut, kept_tokens=self.max_tokens))
            lengths[row] = self.max_tokens
        return TokenizedTexts((), lengths.astype(np.int32), tuple(cuts))

    def _cut(self, document: str, row: int, most: int) -> Truncation:
        """Return the truncation of a document at `most` tokens, special tokens included."""
        window = document[: self.max_tokens * _CHARACTERS_PER_TOKEN]
        offsets = self.service.counter.plain.encode(window, add_special_tokens=False).offsets
        keep = min(len(offsets), max(1, most - self.service.counter.special_tokens))
        characters = offsets[keep - 1][1]
        lost = len(offsets) - keep if len(window) == len(document) else None
        return Truncation(row, most, characters, len(document) - characters, lost)

    def _upstream(
        self, work: Work, request: ComputeRequest, on_ready: ReadyRows | None, accounts: tuple[Account, ...]
    ) -> UpstreamRequest:
        upstream = super()._upstream(work, request, on_ready, accounts)
        return replace(
            upstream,
            full_width=1,
            default_width=None,
            one_answer=True,
            uncounted=about_tokens(request.query),
            check=check_scores,
        )

    async def _send(self, upstream: UpstreamRequest, request: ComputeRequest) -> UpstreamResponse:
        routes = [
            replace(route, provider=cast("Scoring", route.provider).asking(request.query)) for route in self.routes
        ]
        return await self._environment.client.send(upstream, routes)


def names() -> tuple[str, ...]:
    """Return the names of the rerankers in the catalog."""
    here = (facts.name for facts in default_catalog() if facts.task == "rerank")
    served = (facts.name for facts in default_services().values() if facts.task == "rerank")
    return tuple(dict.fromkeys((*here, *served)))
