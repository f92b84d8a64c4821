"""Error bodies of real services, and what they become."""

from dataclasses import dataclass

import orjson
import pytest

from embedway.errors import (
    AuthenticationError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
)
from embedway.providers.error_body import error_inside
from embedway.providers.error_table import RULES
from embedway.providers.error_words import WORDS
from embedway.providers.http_errors import SentRequest, error_in_success, error_of
from embedway.types import ServiceLimits

REQUEST = SentRequest("https://api.example.com/v1", "/embeddings", b'{"input": ["alpha one", "beta two"]}')


@dataclass(frozen=True)
class Case:
    """A body, its status, the error's class, and a part of its message."""

    status: int
    body: object
    kind: type
    says: str
    limits: ServiceLimits | None = None
    wait_s: float | None = None
    loading: bool = False
    billed: bool = False


def in_error(message, **fields):
    return {"error": {"message": message, **fields}}


def inputs(number):
    return ServiceLimits(max_inputs=number)


def tokens(number):
    return ServiceLimits(max_tokens=number)


def request_tokens(number):
    return ServiceLimits(max_request_tokens=number)


LITELLM = "Budget has been exceeded! Current cost: 10.5, Max budget: 10.0"
MATRYOSHKA = 'Model "x" does not support matryoshka representation, changing dimensions will lead to bad results.'
OPENAI_429 = "Rate limit reached for x on tokens per min (TPM): Limit 1000000, Used 999000. Please try again in 240ms."
AZURE_429 = (
    "Requests to the Embeddings_Create Operation under Azure OpenAI API version 2024-02-15-preview have exceeded call "
    "rate limit of your current OpenAI S0 pricing tier. Please retry after 54 seconds. Please go here: x"
)
VOYAGE = (
    "Request to model 'voyage-code-3' failed. The max allowed tokens per submitted batch is 120000. Your batch has "
    "121138 tokens after truncation. Please lower the number of tokens in the batch."
)
VOYAGE_LONG = (
    "Request to model 'voyage-code-2' failed. The example at index 0 in your batch has too many tokens and does not "
    "fit into the model's context window of 16000 tokens."
)
GOOGLE_KEY = {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}
GOOGLE_KEY["details"] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
GOOGLE_WAIT = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota"}
GOOGLE_WAIT["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}]
DASHSCOPE = (
    "<400> InternalError.Algo.InvalidParameter: Value error, batch size is invalid, it should not be larger than 10."
)

CASES = {
    # Money, keys and rights.
    "litellm budget, 400": Case(
        400, in_error(LITELLM, type="budget_exceeded", param=None, code="400"), QuotaExceededError, "budget_exceeded"
    ),
    "litellm budget, 429": Case(
        429, in_error(LITELLM, type="budget_exceeded", param=None, code="429"), QuotaExceededError, "budget of the key"
    ),
    "openai no money": Case(
        429,
        in_error("You exceeded your current quota", type="insufficient_quota", code="insufficient_quota"),
        QuotaExceededError,
        "insufficient_quota",
    ),
    "openrouter": Case(402, in_error("Insufficient credits", code=402), QuotaExceededError, "quota"),
    "jina": Case(403, {"detail": "no money", "code": "AUTHZ_INSUFFICIENT_BALANCE"}, QuotaExceededError, "quota"),
    "siliconflow": Case(
        403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}, QuotaExceededError, "quota"
    ),
    "deepseek": Case(402, in_error("Insufficient Balance", type="unknown_error"), QuotaExceededError, "quota"),
    "api management quota": Case(
        403,
        {"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 02:13:44."},
        QuotaExceededError,
        "quota",
    ),
    "cohere trial month": Case(
        429,
        {"message": "You are using a Trial key, which is limited to 1000 API calls / month."},
        QuotaExceededError,
        "for this period",
    ),
    "cohere trial minute": Case(
        429,
        {"message": "You are using a Trial key, which is limited to 40 API calls / minute."},
        RateLimitedError,
        "too many requests",
    ),
    "hugging face month": Case(
        402,
        {"error": "You have exceeded your monthly included credits for Inference Providers"},
        QuotaExceededError,
        "",
    ),
    "gemini key in a list": Case(400, [{"error": GOOGLE_KEY}], AuthenticationError, "API_KEY_INVALID; check api_key"),
    "gemini key": Case(400, {"error": GOOGLE_KEY}, AuthenticationError, "API_KEY_INVALID; check api_key"),
    "gemini expired": Case(400, in_error("API key expired. Please renew the API key."), AuthenticationError, "expired"),
    "azure key": Case(
        401,
        in_error("Access denied due to invalid subscription key or wrong API endpoint.", code="401"),
        AuthenticationError,
        "the key was refused; check api_key",
    ),
    "api management key": Case(
        401,
        {"statusCode": 401, "message": "Access denied due to missing subscription key."},
        AuthenticationError,
        "key",
    ),
    "azure network": Case(
        403,
        in_error("Access denied due to Virtual Network/Firewall rules.", code="403"),
        AuthenticationError,
        "network rule",
    ),
    "openai scopes": Case(
        403, in_error("You have insufficient permissions. Missing scopes: model.request"), AuthenticationError, "rights"
    ),
    "google service": Case(
        403,
        in_error(
            "Generative Language API has not been used in project 1 or it is disabled.", status="PERMISSION_DENIED"
        ),
        AuthenticationError,
        "rights",
    ),
    "aws": Case(403, {"__type": "com.amazon#UnrecognizedClientException"}, AuthenticationError, "the key was refused"),
    "country openai": Case(
        403,
        in_error("Country not supported", code="unsupported_country_region_territory", type="request_forbidden"),
        ProtocolError,
        "country or region: unsupported_country_region_territory",
    ),
    "country gemini": Case(
        400,
        in_error("User location is not supported for the API use.", status="FAILED_PRECONDITION"),
        ProtocolError,
        "country or region",
    ),
    # Waits.
    "gemini wait": Case(429, [{"error": GOOGLE_WAIT}], RateLimitedError, "too many requests", wait_s=17),
    "openai wait": Case(
        429, in_error(OPENAI_429, type="tokens", code="rate_limit_exceeded"), RateLimitedError, "", wait_s=0.24
    ),
    "openai long wait": Case(429, in_error("Please try again in 1m2.5s."), RateLimitedError, "", wait_s=62.5),
    "openai hours": Case(429, in_error("Please try again in 1h0m5s. Visit x"), RateLimitedError, "", wait_s=3605),
    "azure wait": Case(429, in_error(AZURE_429, code="429"), RateLimitedError, "", wait_s=54),
    "words wait": Case(429, {"message": "Retry in 2 minutes and 5 seconds."}, RateLimitedError, "", wait_s=125),
    "litellm cooldown": Case(
        429,
        in_error("No deployments available for selected model, Try again in 5 seconds."),
        RateLimitedError,
        "",
        wait_s=5,
    ),
    "field wait": Case(429, {"message": "slow down", "retry_after": 1.5}, RateLimitedError, "", wait_s=1.5),
    "absurd wait": Case(429, {"message": "slow down", "retry_after": 1e300}, RateLimitedError, "", wait_s=None),
    "aws throttled": Case(400, {"__type": "ThrottlingException"}, RateLimitedError, "too many requests"),
    "hugging face loads": Case(
        503,
        {"error": "Model x/y is currently loading", "estimated_time": 20.5},
        UnavailableError,
        "is loading the model",
        wait_s=20.5,
        loading=True,
    ),
    "llama.cpp loads": Case(
        503,
        in_error("Loading model", code=503, type="unavailable_error"),
        UnavailableError,
        "is loading the model",
        loading=True,
    ),
    "llama.cpp cannot load": Case(500, in_error("error loading model: x", code=500), ProtocolError, "not loaded"),
    "tei overloaded": Case(429, {"error": "Model is overloaded", "error_type": "overloaded"}, RateLimitedError, ""),
    "tei backend": Case(
        424, {"error": "Inference failed", "error_type": "backend"}, UnavailableError, "failed", billed=True
    ),
    "ollama busy": Case(
        503,
        {"error": "server busy, please try again. maximum pending requests exceeded"},
        UnavailableError,
        "",
        billed=True,
    ),
    # Texts at fault.
    "ollama nan": Case(
        500,
        {"error": "failed to encode response: json: unsupported value: NaN"},
        RefusedInputError,
        "not a number",
        billed=True,
    ),
    "ollama long": Case(400, {"error": "the input length exceeds the context length"}, RefusedInputError, "too long"),
    "ollama long, old": Case(
        400, {"error": "input length exceeds maximum context length"}, RefusedInputError, "too long"
    ),
    "llama.cpp long, old": Case(
        500,
        in_error("input is too large to process. increase the physical batch size", code=500, type="server_error"),
        RefusedInputError,
        "too long",
    ),
    "llama.cpp long": Case(
        500,
        in_error(
            "input (992 tokens) is too large to process. increase the physical batch size (current batch size: 512)"
        ),
        RefusedInputError,
        "too long",
        tokens(512),
    ),
    "llama.cpp context": Case(
        400,
        in_error(
            "request (992 tokens) exceeds the available context size (512 tokens), try increasing it",
            type="exceed_context_size_error",
            n_ctx=512,
        ),
        RefusedInputError,
        "too long",
        tokens(512),
    ),
    "llama-box": Case(
        400, in_error("Illegal param: prefill 744 tokens exceed n_ctx_per_seq", code=400), RefusedInputError, "too long"
    ),
    "vllm long": Case(
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 512 tokens. However, you requested 1451 tokens in the "
            "input for embedding generation. Please reduce the length of the input.",
            "type": "BadRequestError",
            "code": 400,
        },
        RefusedInputError,
        "too long",
        tokens(512),
    ),
    "openai long": Case(
        400,
        in_error("This model's maximum context length is 8192 tokens, however you requested 8610 tokens"),
        RefusedInputError,
        "too long",
        tokens(8192),
    ),
    "openai long, later": Case(
        400, in_error("Invalid 'input[3]': maximum input length is 8192 tokens."), RefusedInputError, "", tokens(8192)
    ),
    "tei long": Case(
        413,
        {
            "error": "Input validation error: `inputs` must have less than 512 tokens. Given: 534",
            "error_type": "Validation",
        },
        RefusedInputError,
        "too long",
        tokens(512),
    ),
    "nim long": Case(
        400,
        {"error": "Input length 548 exceeds maximum allowed token size 512"},
        RefusedInputError,
        "too long",
        tokens(512),
    ),
    "jina long": Case(
        400,
        {"detail": "Single text cannot exceed 8192 tokens. 9237 tokens given."},
        RefusedInputError,
        "",
        tokens(8192),
    ),
    "voyage long": Case(400, {"detail": VOYAGE_LONG}, RefusedInputError, "too long", tokens(16000)),
    "cohere long": Case(
        400,
        {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292."},
        RefusedInputError,
        "too long",
        tokens(4081),
    ),
    "content filter": Case(
        400, in_error("...", code="content_filter"), RefusedInputError, "content filter refused a text: content_filter"
    ),
    "openrouter moderation": Case(
        403, in_error("Your input was flagged", code=403, metadata={"reasons": ["x"]}), RefusedInputError, "filter"
    ),
    "tei empty": Case(400, {"error": "`inputs` cannot be empty", "error_type": "Empty"}, RefusedInputError, "empty"),
    "unknown refusal": Case(400, in_error("no"), RefusedInputError, "refused the request"),
    # Batches.
    "tei batch": Case(
        413,
        {"error": "batch size 64 > maximum allowed batch size 32", "error_type": "Validation"},
        RefusedInputError,
        "too many texts",
        inputs(32),
    ),
    "siliconflow batch": Case(
        400,
        {"code": 20042, "message": "input batch size 136 > maximum allowed batch size 64", "data": None},
        RefusedInputError,
        "too many texts",
        inputs(64),
    ),
    "dashscope batch": Case(
        400, in_error(DASHSCOPE, type="InvalidParameter"), RefusedInputError, "too many texts", inputs(10)
    ),
    "gemini batch": Case(
        400,
        in_error("* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch\n", code=400),
        RefusedInputError,
        "too many texts",
        inputs(100),
    ),
    "cohere batch": Case(
        400,
        {"message": "invalid request: total number of texts must be at most 96 - received 131"},
        RefusedInputError,
        "too many texts",
        inputs(96),
    ),
    "jina batch": Case(
        400,
        {"detail": "input length is larger than the largest allowed size 2048"},
        RefusedInputError,
        "too many texts",
        inputs(2048),
    ),
    "pydantic batch": Case(
        422,
        {
            "detail": [
                {"type": "too_long", "loc": ["body", "input"], "msg": "List should have at most 2048 items after x"}
            ]
        },
        RefusedInputError,
        "too many texts",
        inputs(2048),
    ),
    "mistral texts": Case(
        400,
        {"message": "Too many inputs in request, split into more batches.", "code": "3210"},
        RefusedInputError,
        "texts",
    ),
    "mistral tokens": Case(
        400,
        {"message": "Too many tokens in batch. Max is 16384 got 17555", "type": "invalid_request_error", "code": None},
        RefusedInputError,
        "too many tokens in a request",
        request_tokens(16384),
    ),
    "mistral tokens, later": Case(
        400,
        {"message": "Too many tokens overall, split into more batches.", "code": "3210"},
        RefusedInputError,
        "tokens in",
    ),
    "openai tokens": Case(
        400,
        in_error("Requested 416735 tokens, max 300000 tokens per request", code="max_tokens_per_request"),
        RefusedInputError,
        "too many tokens in a request: max_tokens_per_request",
        request_tokens(300_000),
    ),
    "voyage tokens": Case(400, {"detail": VOYAGE}, RefusedInputError, "tokens in a request", request_tokens(120_000)),
    "gemini bytes": Case(
        413, in_error("Request payload size exceeds the limit: 4194304 bytes."), RefusedInputError, "large"
    ),
    "gemini bytes, 400": Case(
        400,
        in_error("Request payload size exceeds the limit: 4194304 bytes.", code=400),
        RefusedInputError,
        "too large",
    ),
    "gemini invalid": Case(
        400,
        in_error("Request contains an invalid argument.", status="INVALID_ARGUMENT"),
        RefusedInputError,
        "refused the",
    ),
    "openai over a minute": Case(
        429,
        in_error(
            "Request too large for text-embedding-3-small in organization x on tokens per min (TPM): Limit 10000, "
            "Requested 12000. The input or output tokens must be reduced in order to run successfully.",
            type="tokens",
            code="rate_limit_exceeded",
        ),
        RefusedInputError,
        "too many tokens in a request",
        request_tokens(10_000),
    ),
    "azure tokens a minute": Case(
        429, in_error("have exceeded token rate limit of your current OpenAI S0 pricing tier."), RateLimitedError, ""
    ),
    # Models, paths and parameters.
    "ollama model": Case(
        404, in_error('model "x" not found, try pulling it first', type="not_found_error"), ProtocolError, "ollama pull"
    ),
    "openai model": Case(
        404, in_error("x", code="model_not_found"), ProtocolError, "model_not_found; check upstream_model"
    ),
    "vllm model": Case(404, {"message": "The model `x` does not exist.", "code": 404}, ProtocolError, "no such model"),
    "cohere model": Case(
        404, {"message": "model 'x' not found, make sure the correct model ID was used"}, ProtocolError, ""
    ),
    "infinity model": Case(
        400, in_error("Invalid model: Engine for model name `x` not found.", code=400), ProtocolError, "no such model"
    ),
    "litellm model": Case(
        400, in_error("/embeddings: Invalid model name passed in model=x.", code="400"), ProtocolError, "no such model"
    ),
    "one-api model": Case(
        503, in_error("当前分组 default 下对于模型 x 无可用渠道", type="one_api_error"), ProtocolError, "no such model"
    ),
    "azure deployment": Case(
        404,
        in_error("The API deployment for this resource does not exist.", code="DeploymentNotFound"),
        ProtocolError,
        "no such model: DeploymentNotFound",
    ),
    "openrouter model": Case(404, in_error("No endpoints found for x/y.", code=404), ProtocolError, "no such model"),
    "gemini model": Case(
        404,
        in_error(
            "models/x is not found for API version v1beta, or is not supported for embedContent.", status="NOT_FOUND"
        ),
        ProtocolError,
        "upstream_model",
    ),
    "lm studio not loaded": Case(
        400,
        {"error": "No models loaded. Please load a model in the developer page or use the 'lms load' command."},
        ProtocolError,
        "has not loaded the model",
    ),
    "lm studio no embeddings": Case(
        404,
        in_error('Failed to load model "x". Error: Model is not embedding.', code="model_not_found"),
        ProtocolError,
        "does not compute embeddings",
    ),
    "llama.cpp no embeddings": Case(
        501,
        in_error("This server does not support embeddings. Start it with `--embeddings`", type="not_supported_error"),
        ProtocolError,
        "start the server with its option for embeddings",
    ),
    "ollama no embeddings": Case(400, {"error": "this model does not support embeddings"}, ProtocolError, "embeddings"),
    "localai no embeddings": Case(
        500,
        in_error("endpoint disabled for this model by API configuration", code=500, type=""),
        ProtocolError,
        "compute",
    ),
    "azure no embeddings": Case(
        400,
        in_error("The embeddings operation does not work with the specified model", code="OperationNotSupported"),
        ProtocolError,
        "does not compute embeddings",
    ),
    "vllm dimensions": Case(
        400,
        {"object": "error", "message": MATRYOSHKA, "type": "BadRequestError", "code": 400},
        ProtocolError,
        "dimensions",
    ),
    "openai dimensions": Case(
        400, in_error("This model does not support specifying dimensions."), ProtocolError, "remove dimensions"
    ),
    "infinity dimensions": Case(
        400, in_error("MatryoshkaDimError -> matryoshka_dim=9999 is not in a valid range."), ProtocolError, "dimensions"
    ),
    "fastapi field": Case(
        422,
        {"detail": [{"loc": ["body", "input"], "msg": "field required", "type": "value_error.missing"}]},
        ProtocolError,
        "does not support a parameter",
    ),
    "nim input_type": Case(
        400, {"error": "'input_type' parameter is required for asymmetric models"}, ProtocolError, "parameter"
    ),
    "fastapi path": Case(404, {"detail": "Not Found"}, ProtocolError, "no such path"),
    "fastapi method": Case(405, {"detail": "Method Not Allowed"}, ProtocolError, "no such path"),
    "azure path": Case(404, in_error("Resource not found", code="404"), ProtocolError, "no such path"),
    "gin path": Case(404, b"404 page not found", ProtocolError, "no such path"),
    "api gateway path": Case(403, {"message": "Missing Authentication Token"}, ProtocolError, "no such path"),
    "go https": Case(400, b"Client sent an HTTP request to an HTTPS server.\n", ProtocolError, "https://"),
    "nginx https": Case(
        400, b"<html><h1>400</h1>The plain HTTP request was sent to HTTPS port</html>", ProtocolError, "https://"
    ),
    # Web pages.
    "cloudflare 403": Case(403, b"<html>Attention Required! Cloudflare</html>", ProtocolError, "a web page"),
    "nginx 413": Case(413, b"<html>413 Request Entity Too Large</html>", RefusedInputError, "a web page"),
    "nginx 502": Case(502, b"<html>Bad gateway</html>", UnavailableError, "a web page", billed=True),
    "nginx 401": Case(401, b"<html>401 Authorization Required</html>", AuthenticationError, "a web page"),
    "cloudflare 1015": Case(429, b"<!DOCTYPE html>You are being rate limited", RateLimitedError, "a web page"),
    "express 404": Case(404, b"<html><pre>Cannot POST /embeddings</pre></html>", ProtocolError, "a web page"),
    "captive portal": Case(511, b"<html>Log in</html>", ProtocolError, "the network requires a login: a web page"),
    "xml": Case(403, b"<?xml?><Error><Code>AccessDenied</Code></Error>", AuthenticationError, "to this: AccessDenied"),
    # More shapes.
    "litellm, old": Case(
        401,
        in_error("Authentication Error, ExceededTokenBudget: Current spend for token: 7.2e-05", type="auth_error"),
        QuotaExceededError,
        "budget of the key",
    ),
    "litellm, 500": Case(500, in_error(LITELLM, type="budget_exceeded", code="500"), QuotaExceededError, "budget"),
    "litellm, another way": Case(
        400, in_error("ExceededBudget: User=x over budget. Spend=2, Budget=1", code="400"), QuotaExceededError, "budget"
    ),
    "gemini without a free tier": Case(
        429, in_error("Quota exceeded for metric: x, limit: 0", status="RESOURCE_EXHAUSTED"), QuotaExceededError, ""
    ),
    "ollama cloud": Case(
        429, {"error": "you've reached your weekly usage limit, please upgrade"}, QuotaExceededError, "quota"
    ),
    "new-api": Case(
        403, in_error("用户额度不足", type="new_api_error", code="insufficient_user_quota"), QuotaExceededError, ""
    ),
    "rate limit as 400": Case(400, in_error("slow", type="rate_limit_error", code="400"), RateLimitedError, ""),
    "key as 400": Case(
        400, in_error("no", type="authentication_error", code="400"), AuthenticationError, "check api_key"
    ),
    "wait, retry your request": Case(
        429, {"detail": "Please retry your request after 3 seconds"}, RateLimitedError, "", wait_s=3
    ),
    "wait, wait": Case(429, {"detail": "Please wait 1.5 min"}, RateLimitedError, "", wait_s=90),
    "kserve loads": Case(503, {"error": "Model x is not ready"}, UnavailableError, "is loading", loading=True),
    "loading": Case(503, in_error("loading"), UnavailableError, "is loading", loading=True),
    "endpoint starts": Case(503, b"Endpoint is initializing", UnavailableError, "is loading", loading=True),
    "memory": Case(500, in_error("CUDA out of memory. Tried"), UnavailableError, "out of memory; lower", billed=True),
    "ollama memory": Case(
        500, {"error": "model requires more system memory (9 GiB) than is available"}, ProtocolError, "has not loaded"
    ),
    "titan long": Case(
        400,
        {"message": "400 Bad Request: Too many input tokens. Max input tokens: 8192, request input token count: 9000"},
        RefusedInputError,
        "too long",
        tokens(8192),
    ),
    "bedrock batch": Case(
        400,
        {"message": "Malformed input request: #/texts: expected maximum item count: 96, found: 100, please reformat"},
        RefusedInputError,
        "too many texts",
        inputs(96),
    ),
    "azure batch, old": Case(
        400,
        in_error("Too many inputs. The max number of inputs is 16. We hope to increase the number of inputs soon."),
        RefusedInputError,
        "too many texts",
        inputs(16),
    ),
    "voyage batch": Case(
        400,
        {"detail": "The batch size limit is 1000. Your batch size is 1024."},
        RefusedInputError,
        "too many texts",
        inputs(1000),
    ),
    "openai batch": Case(
        400,
        in_error("Invalid 'input': array too long. Expected an array with maximum length 2048, but got one of 3000."),
        RefusedInputError,
        "too many texts",
        inputs(2048),
    ),
    "litellm dimensions": Case(
        400,
        in_error("litellm.UnsupportedParamsError: Setting dimensions is not supported for OpenAI", code="400"),
        ProtocolError,
        "remove dimensions",
    ),
    "llama.cpp path": Case(
        404, in_error("File Not Found", code=404, type="not_found_error"), ProtocolError, "such path"
    ),
    "kong path": Case(404, {"message": "no Route matched with those values"}, ProtocolError, "no such path"),
    "json in a string": Case(
        502,
        in_error("upstream", metadata={"raw": '{"error": {"message": "x", "code": "content_filter"}}'}),
        RefusedInputError,
        "content filter",
    ),
    "byte-order mark": Case(
        429, b'\xef\xbb\xbf{"error": {"code": "insufficient_quota"}}', QuotaExceededError, "insufficient_quota"
    ),
    "json as html": Case(
        400,
        b'{"error": {"code": "content_filter"}}',
        RefusedInputError,
        "content filter refused a text: content_filter",
    ),
    "nan in it": Case(402, b'{"error": {"message": "x", "balance": NaN}}', QuotaExceededError, "quota"),
    "conflict": Case(409, in_error("x"), UnavailableError, "the service failed"),
    "too early": Case(425, in_error("x"), UnavailableError, "the service failed"),
    "timeout": Case(408, in_error("x"), UnavailableError, "the service failed", billed=True),
    # Nothing to read.
    "empty": Case(403, b"", AuthenticationError, "check api_key"),
    "cut json": Case(403, b"[1, 2", AuthenticationError, "check api_key"),
    "not an object": Case(500, [1, 2, None], UnavailableError, "the service failed", billed=True),
    "deep": Case(500, b"[" * 2000 + b"]" * 2000, UnavailableError, "the service failed", billed=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_body_becomes_an_error_with_a_remedy(case):
    content = case.body if isinstance(case.body, bytes) else orjson.dumps(case.body)
    headers = {"Content-Type": "text/html; charset=utf-8"} if b"content_filter" in content else {}
    error = error_of(case.status, headers, content, route="r", request=REQUEST)
    assert type(error) is case.kind, str(error)
    assert case.says in str(error)
    assert (error.status, error.limits, error.billed) == (case.status, case.limits, case.billed)
    assert error.retry_after_s == (None if case.wait_s is None else pytest.approx(case.wait_s))
    assert getattr(error, "loading", False) == case.loading


def test_the_wait_of_a_header_precedes_that_of_the_body():
    body = orjson.dumps(in_error("Please try again in 240ms"))
    assert error_of(429, {"Retry-After": "7"}, body, route="r").retry_after_s == 7


@pytest.mark.parametrize("status", [400, 403, 429, 500])
def test_a_phrase_in_a_text_that_the_message_repeats_decides_nothing(status):
    text = "Insufficient credits; maximum allowed batch size 3; loading model; unsupported value: NaN"
    body = orjson.dumps({"error": f"cannot process: {text[:60]}…"})
    plain = type(error_of(status, {}, orjson.dumps({"error": "cannot process"}), route="r", request=REQUEST))
    request = SentRequest("https://api.example.com/v1", "/embeddings", orjson.dumps({"input": [text]}))
    error = error_of(status, {}, body, route="r", request=request)
    assert (type(error), error.limits) == (plain, None)
    assert type(error_of(status, {}, body, route="r", request=REQUEST)) is not plain or status == 500


@pytest.mark.parametrize("number", ["0", "99999999", "12345678901234567890"])
def test_implausible_limits_are_ignored(number):
    body = orjson.dumps({"error": f"batch size 64 > maximum allowed batch size {number}"})
    assert error_of(413, {}, body, route="r").limits is None


@pytest.mark.parametrize(
    ("base_url", "path", "advice"),
    [
        ("http://127.0.0.1:1234", "/embeddings", "usually ends in /v1"),
        ("http://127.0.0.1:1234/api", "/rerank", "usually ends in /v1"),
        ("http://127.0.0.1:1234/v1/embeddings", "/embeddings", "must end before /embeddings"),
        ("http://127.0.0.1:1234/v1", "/embeddings", "check base_url"),
        ("https://api.cohere.com", "/v2/embed", "check base_url"),
    ],
)
def test_the_advice_for_a_path_depends_on_the_base_url(base_url, path, advice):
    error = error_of(404, {}, b"404 page not found", route="r", request=SentRequest(base_url, path))
    assert str(error).split(" (HTTP")[0].endswith(advice) or f"{advice}," in str(error)


def test_codes_of_rules_are_in_lower_case_and_their_words_are_shown():
    codes = {code for rule in RULES for code in rule.codes}
    assert codes == {code.lower() for code in codes}
    assert not {word for word in WORDS if not word.islower()}


def test_no_phrase_is_slow_on_a_long_message():
    body = orjson.dumps({"message": "model tokens exceeds the maximum model context invalid dimension " * 400})
    error_of(500, {}, body, route="r")


INSIDE = {
    "lm studio": ({"error": "Unexpected endpoint or method. (POST /embeddings)"}, ProtocolError, "no such path", False),
    "openrouter 429": (in_error("Provider returned error", code=429), RateLimitedError, "too many requests", False),
    "a code as text": (in_error("x", code="429"), RateLimitedError, "too many requests", False),
    "openrouter 402": ({**in_error("x", code=402), "user_id": "u"}, QuotaExceededError, "quota", False),
    "openrouter 502": (in_error("Provider returned error", code=502), UnavailableError, "the service failed", True),
    "openrouter 400": (in_error("x", code=400), RefusedInputError, "refused the request", False),
    "a type": (in_error("x", type="authentication_error"), AuthenticationError, "check api_key", False),
    "a list": ([{"error": {"code": 400, "status": "INVALID_ARGUMENT"}}], RefusedInputError, "INVALID_ARGUMENT", False),
    "cloudflare": (
        {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}], "result": None},
        AuthenticationError,
        "check api_key",
        False,
    ),
    "a status in capitals": ({"statusCode": 503, "message": "x"}, UnavailableError, "the service failed", True),
    "siliconflow": (
        {"code": 20042, "message": "input batch size 9 > maximum allowed batch size 4", "data": None},
        RefusedInputError,
        "too many texts",
        False,
    ),
    "minimax": (
        {"vectors": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
        QuotaExceededError,
        "quota",
        False,
    ),
    "baidu": (
        {"error_code": 18, "error_msg": "Open api qps request limit reached"},
        ProtocolError,
        "no known code",
        True,
    ),
    "fastchat": ({"object": "error", "message": "Not Found", "code": 50001}, ProtocolError, "no such path", False),
    "fastapi": ({"detail": [{"msg": "field required", "type": "missing"}]}, ProtocolError, "a parameter", False),
    "lambda": ({"errorMessage": "x", "errorType": "Runtime"}, ProtocolError, "no known code", True),
    "a message": ({"message": "please try later"}, ProtocolError, "no known code", True),
    "loading": ({"error": "Model x is currently loading", "estimated_time": 3}, UnavailableError, "is loading", False),
    "a text at fault": ({"error": "json: unsupported value: NaN"}, RefusedInputError, "not a number", True),
    "data null": ({"object": "list", "data": None, "usage": None}, ProtocolError, "no known code", True),
    "no data and a status": ({"data": [], "status": "error"}, ProtocolError, "no known code", True),
}
GOOD = {
    "openai": {"object": "list", "data": [{"index": 0, "embedding": [1.0]}], "error": None, "message": "ok"},
    "cohere": {"id": "x", "embeddings": {"float": [[1.0]]}, "meta": {"warnings": ["x"]}},
    "gemini": {"embeddings": [{"values": [1.0]}]},
    "a warning": {"data": [{"index": 0, "embedding": [1.0]}], "error": {"message": "deprecated"}},
    "scores": [{"index": 0, "score": 0.5, "text": "the error"}],
    "no rows": {"object": "list", "data": [], "usage": {"total_tokens": 0}},
    "no rows, and success": {"code": 0, "message": "success", "data": []},
    "base64, and a message": {"vectors": "AACAPw==" * 40, "message": "done"},
    "an empty list": [],
    "a number": 7,
}


@pytest.mark.parametrize(("body", "kind", "says", "billed"), INSIDE.values(), ids=INSIDE)
def test_an_error_inside_http_200_is_decided_by_what_it_says(body, kind, says, billed):
    found = error_inside(body)
    error = error_in_success(found, {}, status=200, route="r", request=REQUEST)
    assert (type(error), error.billed) == (kind, billed), str(error)
    assert "an error inside HTTP 200: " in str(error)
    assert says in str(error)


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_an_answer_with_rows_and_one_without_any_error_is_not_an_error(body):
    assert error_inside(body) is None
