"""An endpoint of the gateway as data: its address, body, handler and the form of its errors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pydantic import BaseModel

    from embedway.server.caller import Caller
    from embedway.server.calls import EmbedCall, ScoreCall
    from embedway.server.gateway import Gateway
    from embedway.server.problems import Problem
    from embedway.server.replies import Reply
    from embedway.types import EmbedResult, Receipt, RerankResult

    Handler: TypeAlias = Callable[["Exchange"], Awaitable[Reply]]
    #: Returns the body of an error in the form of an API.
    ErrorForm: TypeAlias = Callable[[Problem], bytes]

Method: TypeAlias = Literal["GET", "POST"]
#: Who may use an endpoint: everyone, callers with a key if keys are required, or callers with an admin key.
AccessLevel: TypeAlias = Literal["open", "caller", "admin"]


@dataclass(slots=True)
class Exchange:
    """A request that is being answered."""

    gateway: Gateway
    caller: Caller
    #: Complete body.
    body: bytes
    request_id: str
    query: bytes = b""
    #: Value of the parameter in the path; empty without one.
    argument: str = ""
    #: Model that answered, or should have, for logs and statistics; empty if it is not known.
    model: str = ""
    texts: int = 0
    tokens: int = 0
    cache_hits: int = 0
    cost_nanousd: int = 0
    saved_nanousd: int = 0

    async def embed(self, call: EmbedCall) -> EmbedResult:
        """Embed texts for the caller."""
        result = await self.gateway.embed(self.caller, call)
        self.note(result.receipt)
        return result

    async def rerank(self, call: ScoreCall) -> RerankResult:
        """Score documents for the caller."""
        result = await self.gateway.rerank(self.caller, call)
        self.note(result.receipt)
        return result

    def note(self, receipt: Receipt) -> None:
        """Note the facts of a receipt for logs and statistics."""
        self.model, self.texts, self.tokens = receipt.model, receipt.texts, receipt.input_tokens
        self.cache_hits, self.cost_nanousd = receipt.cache_hits, receipt.cost_nanousd or 0
        self.saved_nanousd = receipt.saved_nanousd


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and path with its handler. `body` and `answer` describe the JSON in the OpenAPI document.

    A path may contain one parameter in braces; see `routing`.
    """

    method: Method
    path: str
    handler: Handler
    summary: str
    errors: ErrorForm
    tag: str
    body: type[BaseModel] | None = None
    #: JSON schema of the answer; None for other media.
    answer: Mapping[str, Any] | None = None
    access: AccessLevel = "caller"
    #: Media type of an answer without a schema.
    media: str = "application/json"
    #: JSON schema of an error.
    error_schema: Mapping[str, Any] = field(default_factory=dict)
    #: Statuses of an API whose errors have other ones than ours, by the code of the problem.
    statuses: Mapping[str, int] = field(default_factory=dict)
    #: Statuses of answers; others are errors.
    answered: tuple[int, ...] = (200,)

    def status_of(self, problem: Problem) -> int:
        """Return the status of the answer to a problem."""
        return self.statuses.get(problem.code, problem.status)

    def under(self, prefix: str) -> Endpoint:
        """Return this endpoint at a path that begins with a prefix."""
        return replace(self, path=prefix + self.path.removesuffix("/"))
