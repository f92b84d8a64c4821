"""Rerankers over HTTP: Cohere, Voyage, Jina, and compatible servers.

Requests, answers and limits, read 2026-11-23: Cohere's https://docs.cohere.com/reference/rerank (POST /v2/rerank);
Voyage's https://docs.voyageai.com/reference/reranker-api (POST /v1/rerank; at most 1,000 documents and 600,000 tokens,
the query counted with each document); Jina's https://api.jina.ai/openapi.json (POST /v1/rerank); and the `/rerank` of
vLLM, Infinity and Text Embeddings Inference, from their source code. Requests ask for the scores of all documents,
because the best ones are selected after all documents have scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from embedway.errors import ConfigError
from embedway.providers.base import Declared
from embedway.providers.cohere import COHERE_URL
from embedway.providers.http import HttpModel, make_http, make_http_with_key
from embedway.providers.jina import JINA_URL
from embedway.providers.options import known, most_inputs, one_of, whole_or_none
from embedway.providers.usage import read_searches, read_tokens
from embedway.providers.voyage import VOYAGE_URL
from embedway.rerank.base import Scores, read_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.providers.base import Endpoint
    from embedway.providers.http import JsonHttp


@dataclass(frozen=True, slots=True)
class RerankDialect:
    """Path, field names and extra fields of a service's rerank API."""

    path: str
    #: Field of the answer with the list of results; empty if the answer is that list.
    results: str
    documents: str = "documents"
    score: str = "relevance_score"
    #: Fields of every request besides model, query and documents.
    more: Mapping[str, Any] = field(default_factory=dict)


COHERE = RerankDialect("/v2/rerank", "results")
# By default, Voyage truncates long texts, and Jina returns the documents.
VOYAGE = RerankDialect("/rerank", "data", more={"truncation": False})
JINA = RerankDialect("/rerank", "results", more={"return_documents": False})
COMPATIBLE = RerankDialect("/rerank", "results")
TEI = RerankDialect("/rerank", "", documents="texts", score="score", more={"truncate": False})


class HttpReranker(HttpModel):
    """A reranker of a service."""

    def __init__(self, endpoint: Endpoint, http: JsonHttp, dialect: RerankDialect, declared: Declared) -> None:
        super().__init__(endpoint, http, declared)
        self._dialect = dialect

    async def rerank(self, query: str, documents: Sequence[str]) -> Scores:
        dialect = self._dialect
        body = {"query": query, dialect.documents: list(documents), **dialect.more}
        if dialect is not TEI:  # TEI serves one model, and rejects this field
            body["model"] = self._endpoint.model
        reply = await self._http.post(dialect.path, body, texts=len(documents))
        results = reply.body
        if dialect.results:
            results = results.get(dialect.results) if isinstance(results, dict) else None
        scores = read_scores(results, score=dialect.score, count=len(documents), route=self._endpoint.route)
        return Scores(
            scores,
            tokens=read_tokens(reply.body),
            searches=read_searches(reply.body),
            rates=reply.rates,
        )


def cohere(endpoint: Endpoint) -> HttpReranker:
    """Create the reranker, an entry of `embedway.rerankers`. Raises ConfigError without a key.

    Option: `max_tokens_per_doc`, above which the service truncates a document silently; the catalog sets it to the
    model's limit.
    """
    http = make_http_with_key(endpoint, COHERE_URL, variable="COHERE_API_KEY", options=("max_tokens_per_doc",))
    most = whole_or_none(endpoint, "max_tokens_per_doc")
    more = {} if most is None else {"max_tokens_per_doc": most}
    return HttpReranker(endpoint, http, replace(COHERE, more=more), Declared(max_inputs=1000))


def voyage(endpoint: Endpoint) -> HttpReranker:
    """Create the reranker, an entry of `embedway.rerankers`. Raises ConfigError without a key."""
    http = make_http_with_key(endpoint, VOYAGE_URL, variable="VOYAGE_API_KEY")
    return HttpReranker(endpoint, http, VOYAGE, Declared(1000, max_request_tokens=600_000))


def jina(endpoint: Endpoint) -> HttpReranker:
    """Create the reranker, an entry of `embedway.rerankers`. Raises ConfigError without a key.

    Its reference has no limit on documents; 512 is the limit of its embeddings. jina-reranker-v3 reads all documents of
    a request together (https://huggingface.co/jinaai/jina-reranker-v3), so scores of two requests are not comparable.
    """
    http = make_http_with_key(endpoint, JINA_URL, variable="JINA_API_KEY")
    together = endpoint.model.startswith("jina-reranker-v3")
    return HttpReranker(endpoint, http, JINA, Declared(max_inputs=512, batch_dependent=together))


def compatible(endpoint: Endpoint) -> HttpReranker:
    """Create the reranker for vLLM and Infinity, or Text Embeddings Inference with `dialect` = `tei`.

    It is an entry of `embedway.rerankers`. Options: `max_inputs` or `batch_size` (32), `max_request_tokens`,
    `dialect`, `allow_http`.
    Raises ConfigError without a base URL.
    """
    known(endpoint, ("dialect", "allow_http"))
    if not endpoint.base_url:
        raise ConfigError("is not set; set it to the server's URL", where=endpoint.route, key="base_url")
    dialect = TEI if one_of(endpoint, "dialect", ("", "tei")) else COMPATIBLE
    tokens = whole_or_none(endpoint, "max_request_tokens")
    declared = Declared(most_inputs(endpoint, 32), max_request_tokens=tokens)
    return HttpReranker(endpoint, make_http(endpoint), dialect, declared)
