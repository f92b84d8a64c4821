"""Probes of routes: fixed texts whose results are compared before the routes of a model are used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from embedway.dispatch.probes import Probe
from embedway.errors import BadVectorsError, ProtocolError, RefusedInputError
from embedway.quality.probe_texts import MAX_ROUTE_PROBE_TOKENS, digest, long_text, route_probe_texts
from embedway.quality.space_proofs import Reference, digest_of_facts
from embedway.rerank.base import check_scores
from embedway.space import INPUT_TYPES
from embedway.types import Space
from embedway.vectors import SAME_COSINE, cosines, to_size, unit_vectors, validate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import numpy.typing as npt

    from embedway.dispatch.probes import SendProbe
    from embedway.dispatch.request import ServiceRoute
    from embedway.providers.base import Answer, Provider
    from embedway.providers.counting import TokenCounter
    from embedway.rerank.base import Scoring
    from embedway.types import InputType, Vectors

#: A query with a relevant and an irrelevant document.
_PAIRS = (
    "Where does a vector belong?",
    ("In its own vector space, among its like.", "Straße 42 was closed for a day."),
)
#: Maximum difference of scores from 0 to 1, for half precision.
_SAME_SCORE = 0.02
#: Most texts that a service may refuse: an unusual one, and the longest.
_MOST_REFUSED = 3


@dataclass(frozen=True)
class ProbeBatch:
    """Fixed texts for one route: as sent, their tokens, and the call of the provider for some of them."""

    texts: tuple[str, ...]
    lengths: npt.NDArray[np.int32]
    call: Callable[[Sequence[str]], Awaitable[Answer]]

    async def send(self, route: ServiceRoute, send: SendProbe) -> tuple[Vectors, bool]:
        """Send the texts within the limits of a route. Return a row for each, and whether their order is unknown.

        A request that is refused is halved; a row of a refused text is NaN.
        """
        rows = np.arange(len(self.texts), dtype=np.int64)
        parts = [found for part in route.split(rows, self.lengths) for found in await self._send(part, route, send)]
        answered = [answer.vectors for _, answer in parts if answer is not None]
        if not answered or len(self.texts) - sum(map(len, answered)) > _MOST_REFUSED:
            error = BadVectorsError("refused the texts of a probe", route=route.name)
            error.billed, error.of_probe = False, True
            raise error
        if len({vectors.shape[1:] for vectors in answered}) > 1:
            raise BadVectorsError("answered probes with vectors of different sizes", route=route.name)
        results = np.full((len(self.texts), *answered[0].shape[1:]), np.nan, np.float32)
        for part, answer in parts:
            if answer is not None:
                results[part] = answer.vectors
        return results, any(answer is not None and answer.by_position and len(part) > 1 for part, answer in parts)

    async def _send(
        self, rows: npt.NDArray[np.int64], route: ServiceRoute, send: SendProbe
    ) -> list[tuple[npt.NDArray[np.int64], Answer | None]]:
        texts = [self.texts[row] for row in rows]
        try:
            answer = await send(route, Probe(len(texts), int(self.lengths[rows].sum()), partial(self.call, texts)))
        except ProtocolError as error:
            if not isinstance(error.__cause__, RefusedInputError) or len(self.texts) == 1:
                raise
            if len(rows) == 1:
                return [(rows, None)]
            middle = len(rows) // 2
            first = await self._send(rows[:middle], route, send)
            if all(answer is None for _, answer in first):
                raise  # no single text is the reason
            return [*first, *await self._send(rows[middle:], route, send)]
        if len(answer.vectors) != len(texts):
            count = BadVectorsError(
                f"returned {len(answer.vectors)} vectors for a probe of {len(texts)} texts", route=route.name
            )
            count.of_probe = True
            raise count
        return [(rows, answer)]

    async def compute(self, max_inputs: int) -> Vectors:
        """Compute the texts on this machine."""
        starts = range(0, len(self.texts), max_inputs)
        return np.concatenate([(await self.call(self.texts[at : at + max_inputs])).vectors for at in starts])


class RouteProbes(Protocol):
    """Fixed texts whose results are compared."""

    @property
    def digest(self) -> str:
        """Digest of all texts."""

    @property
    def rows(self) -> Mapping[str, int]:
        """Number of texts by kind."""

    def batches(self, provider: Provider, *, is_short: bool = False) -> dict[str, ProbeBatch]:
        """Return the texts for a provider by kind; the first one alone if `is_short`.

        Kinds with the same requests share one object.
        """

    def check(self, answered: Vectors, route: str) -> str:
        """Return the fault of an answer in itself, or an empty text. Raises BadVectorsError for invalid vectors."""

    def difference(self, kind: str, answered: Reference, reference: Reference, source: str) -> str:
        """Return the difference to the reference, or an empty text."""


@dataclass(frozen=True)
class EmbeddingProbes:
    """Probes of an embedding model: texts as queries and as documents.

    A route that supports no input type gets the prompt in the text; without prompts, each text is sent once.
    """

    #: Name of the model or space for messages.
    name: str
    #: Sizes that a route may return if none is requested, the model's full size first.
    sizes: Sequence[int]
    prompts: Mapping[InputType, str]
    counter: TokenCounter
    max_tokens: int = 0

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The texts; the last one shows where a route cuts texts, if that is before `MAX_ROUTE_PROBE_TOKENS`.

        It is shorter than the limit, because a service may count more tokens.
        """
        limit = min(self.max_tokens or MAX_ROUTE_PROBE_TOKENS, MAX_ROUTE_PROBE_TOKENS)
        prompt = max(self.prompts.values(), key=len, default="")
        part = 1.0 if self.counter.exact else 0.6
        longest = long_text(max(1, int(part * limit) - 1), lambda text: counted_tokens(self.counter, prompt + text))
        return (*route_probe_texts(), longest)

    @property
    def digest(self) -> str:
        """Digest of all texts; the long one depends on the limit and on the counter."""
        return digest_of_facts([digest(), self.texts[-1]])

    @property
    def rows(self) -> Mapping[str, int]:
        """Number of texts as queries and as documents."""
        return dict.fromkeys(INPUT_TYPES, len(self.texts))

    def batches(self, provider: Provider, *, is_short: bool = False) -> dict[str, ProbeBatch]:
        """Return the texts as queries and as documents."""
        has_input_type = provider.declared.input_type
        texts = route_probe_texts()[:1] if is_short else self.texts
        batches: dict[str, ProbeBatch] = {}
        by_prompt: dict[str, ProbeBatch] = {}
        for input_type in INPUT_TYPES:
            prompt = "" if has_input_type else self.prompts[input_type]
            # A service's own prompt for the input type is not counted.
            if has_input_type or prompt not in by_prompt:
                sent = tuple(prompt + text for text in texts)
                call = partial(provider.embed, input_type=input_type, dimensions=None)
                by_prompt[prompt] = ProbeBatch(sent, self.counter.count(sent).lengths, call)
            batches[input_type] = by_prompt[prompt]
        return batches

    def check(self, answered: Vectors, route: str) -> str:
        """Return the fault of an answer in itself, or an empty text. Raises BadVectorsError for invalid vectors."""
        width = answered.shape[-1]
        if width not in self.sizes:
            return f"returns {width} dimensions, but {self.name} has {self.sizes[0]}"
        refused = np.isnan(answered).all(axis=1)
        there = answered[~refused] if refused.sum() <= _MOST_REFUSED < len(answered) else answered
        validate(there, count=len(there), space=_any_space(width), route=route)
        return ""

    def difference(self, kind: str, answered: Reference, reference: Reference, source: str) -> str:
        """Return the difference to the reference, or an empty text."""
        theirs, ours = answered.results[kind], reference.results[kind]
        shared = _any_space(min(theirs.shape[1], ours.shape[1]))
        theirs, ours = to_size(theirs, shared), to_size(ours, shared)
        if answered.is_unordered or reference.is_unordered:
            found = _nearest(theirs, ours)
        else:
            found = cosines(theirs, ours[: len(theirs)])
        found = found[np.isfinite(found)]
        if (found >= SAME_COSINE).all() and len(found):
            return ""
        lowest = f"{found.min():.3f}" if len(found) else "unknown"
        if len(theirs) == 1:
            measured = f"for a probe ({kind}), the cosine to the vector of {source} is {lowest}"
        else:
            differing = int((found < SAME_COSINE).sum())
            measured = (
                f"for {differing} of {len(found)} probes ({kind}), the vectors differ from those of {source} "
                f"(lowest cosine {lowest})"
            )
        return (
            f"returns vectors of another space than {self.name}: {measured}; it runs another model, or uses other "
            "prompts or pooling, or cuts texts at another length"
        )


def _nearest(theirs: Vectors, ours: Vectors) -> npt.NDArray[np.float32]:
    """Return the cosine of each vector to the nearest one of the others, in both directions.

    The order of rows is a proof of its own; here only the space is compared.
    """
    theirs, ours = (one[np.isfinite(one).all(axis=1)] for one in (theirs, ours))
    scores = unit_vectors(theirs) @ unit_vectors(ours).T
    if not scores.size:
        return np.empty(0, np.float32)
    return (np.concatenate([scores.max(axis=1), scores.max(axis=0)]) if len(theirs) > 1 else scores.max(axis=1)).astype(
        np.float32
    )


def counted_tokens(counter: TokenCounter, text: str) -> int:
    """Return the tokens of a text, also of one over the limit of its counter, by the part that was counted."""
    counted = counter.count([text])
    tokens = int(counted.lengths[0])
    if not counted.truncations:
        return tokens
    return tokens * len(text) // max(1, counted.truncations[0].kept_characters) + 1


def _any_space(dimensions: int) -> Space:
    """Return a space of a size for checks of any vectors."""
    return Space(model="", weights="", dimensions=dimensions, pooling="service", normalized=False)


@dataclass(frozen=True)
class RerankingProbes:
    """Probes of a reranker: a query with two documents."""

    counter: TokenCounter

    @property
    def digest(self) -> str:
        """Digest of all texts."""
        return digest_of_facts(_PAIRS)

    @property
    def rows(self) -> Mapping[str, int]:
        """Number of documents."""
        return {"scores": len(_PAIRS[1])}

    def batches(self, provider: Provider, *, is_short: bool = False) -> dict[str, ProbeBatch]:
        """Return the documents."""
        del is_short
        query, documents = _PAIRS
        scoring = cast("Scoring", provider).asking(query)
        lengths = self.counter.count([f"{query} {document}" for document in documents]).lengths
        call = partial(scoring.embed, input_type="document", dimensions=None)
        return {"scores": ProbeBatch(documents, lengths, call)}

    def check(self, answered: Vectors, route: str) -> str:
        """Return an empty text. Raises BadVectorsError for invalid scores."""
        check_scores(answered, count=len(_PAIRS[1]), space=_any_space(1), route=route)
        return ""

    def difference(self, kind: str, answered: Reference, reference: Reference, source: str) -> str:
        """Return the difference to the reference, or an empty text."""
        theirs, ours = answered.results[kind], reference.results[kind]
        if theirs.shape == ours.shape and np.allclose(theirs, ours, atol=_SAME_SCORE):
            return ""
        shown, wanted = (scores[:, 0].round(3).tolist() for scores in (theirs, ours))
        return (
            f"returns other scores than {source}: {shown} for a probe, not {wanted}; it runs another model, "
            "or uses another scale"
        )
