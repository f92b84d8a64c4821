"""Meanings of services' errors: class, message and remedy; and the meanings of HTTP statuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.errors import (
    AuthenticationError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
)

if TYPE_CHECKING:
    from embedway.errors import UpstreamError


@dataclass(frozen=True, slots=True)
class Meaning:
    """Class, message and remedy of an error."""

    error: type[UpstreamError]
    message: str
    remedy: str = ""
    #: Whether the texts may have been computed, and billed.
    computed: bool = False
    loading: bool = False


KEY = Meaning(AuthenticationError, "the key was refused", "check api_key")
EXPIRED = Meaning(AuthenticationError, "the key has expired", "create another key and set api_key")
NO_RIGHT = Meaning(AuthenticationError, "the key was refused or has no right to this", "check api_key and its rights")
NETWORK_RULE = Meaning(AuthenticationError, "a network rule of the service refuses this address", "check its firewall")
COUNTRY = Meaning(ProtocolError, "the service does not serve this country or region", "use another service or route")
QUOTA = Meaning(QuotaExceededError, "the account's quota is used up", "add credit or raise its limit")
BUDGET = Meaning(QuotaExceededError, "the budget of the key is used up", "raise it at the gateway")
TRIAL = Meaning(QuotaExceededError, "the key's limit for this period is used up", "use a key without this limit")
RATE = Meaning(RateLimitedError, "too many requests")
FAILED = Meaning(UnavailableError, "the service failed", computed=True)
MEMORY = Meaning(
    UnavailableError, "the service ran out of memory", "lower max_inputs in the route's options", computed=True
)
#: Transient refusals, which are not billed. 408 is not one: LiteLLM sends it if the service behind it takes too long.
UNREAD = Meaning(UnavailableError, "the service failed")
LOADING = Meaning(UnavailableError, "the service is loading the model", loading=True)
REFUSED = Meaning(RefusedInputError, "the service refused the request")
TOO_LONG = Meaning(
    RefusedInputError, "a text is too long for the service", "shorten it, or lower the model's max_tokens"
)
NOT_A_NUMBER = Meaning(
    RefusedInputError, "the model's result for a text is not a number", "change the text, or use another route", True
)
EMPTY_TEXT = Meaning(RefusedInputError, "the service refuses an empty text", "remove it")
FILTERED = Meaning(RefusedInputError, "a content filter refused a text", "remove it, or change the service's filter")
BATCH = Meaning(RefusedInputError, "too many texts in a request", "lower max_inputs in the route's options")
BATCH_TOKENS = Meaning(
    RefusedInputError, "too many tokens in a request", "lower max_request_tokens in the route's options"
)
TOO_LARGE = Meaning(RefusedInputError, "the request is too large", "lower max_inputs in the route's options")
NO_MODEL = Meaning(ProtocolError, "the service has no such model", "check upstream_model of the route")
NOT_PULLED = Meaning(
    ProtocolError, "the service has no such model", "check upstream_model of the route, or run `ollama pull`"
)
NOT_LOADED = Meaning(ProtocolError, "the service has not loaded the model", "load it there, and see the server's log")
NO_EMBEDDINGS = Meaning(
    ProtocolError,
    "the model or server does not compute embeddings",
    "check upstream_model, or start the server with its option for embeddings",
)
DIMENSIONS = Meaning(
    ProtocolError, "the model does not support this number of dimensions", "remove dimensions from the route's options"
)
PARAMETER = Meaning(
    ProtocolError,
    "the service does not support a parameter, or needs another",
    "check the route's provider and options",
)
#: Their remedies depend on the base URL.
NO_PATH = Meaning(ProtocolError, "the service has no such path")
NOT_FOUND = Meaning(ProtocolError, "the service has no such model or path", "check upstream_model")
HTTPS = Meaning(ProtocolError, "the service requires https", "start base_url with https://")
UNEXPECTED = Meaning(ProtocolError, "unexpected answer")
#: Inside HTTP 200. Nothing says that the texts were not computed.
UNKNOWN = Meaning(ProtocolError, "the answer has no rows and no known code", computed=True)

#: Meanings of statuses without a rule. Others below 500, and 501 and 505, are unexpected; the rest are failures.
BY_STATUS = {
    400: REFUSED,
    401: KEY,
    402: QUOTA,
    403: NO_RIGHT,
    404: NOT_FOUND,
    405: NO_PATH,
    408: FAILED,
    409: UNREAD,
    413: TOO_LARGE,
    422: REFUSED,
    424: FAILED,  # text-embeddings-inference: inference failed (router/src/http/server.rs)
    425: UNREAD,
    429: RATE,
    451: COUNTRY,
    499: FAILED,  # Cohere: cancelled (docs.cohere.com/reference/errors); nginx: closed by the client
    501: UNEXPECTED,
    505: UNEXPECTED,
    511: Meaning(ProtocolError, "the network requires a login", "log in with a web browser"),  # RFC 6585 6
}
