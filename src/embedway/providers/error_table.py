"""Meanings of services' errors, as data: a code, type or phrase becomes one of embedway's errors with a remedy.

The rows apply to every service, because gateways repeat the errors of the services behind them. A phrase is only
matched: it may repeat a user's text. Sources are documentation pages, source code and public issues (read 2026-11-26).
"""

from __future__ import annotations

from dataclasses import dataclass

from embedway.providers.error_meanings import (
    BATCH,
    BATCH_TOKENS,
    BUDGET,
    COUNTRY,
    DIMENSIONS,
    EMPTY_TEXT,
    EXPIRED,
    FILTERED,
    HTTPS,
    KEY,
    LOADING,
    MEMORY,
    NETWORK_RULE,
    NO_EMBEDDINGS,
    NO_MODEL,
    NO_PATH,
    NO_RIGHT,
    NOT_A_NUMBER,
    NOT_LOADED,
    NOT_PULLED,
    PARAMETER,
    QUOTA,
    RATE,
    TOO_LARGE,
    TOO_LONG,
    TRIAL,
    Meaning,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """An error is of this meaning if its status is one of `statuses` and it has one of the codes or the phrase.

    Codes are in lower case. The phrase is a regular expression for the message in lower case. Its groups `inputs`,
    `request_tokens` and `tokens` are limits of a request, and of a text. `statuses` has 200 for errors inside HTTP 200
    without a status; it is empty for every status.
    """

    meaning: Meaning
    codes: frozenset[str] = frozenset()
    phrase: str = ""
    statuses: frozenset[int] = frozenset()


_PAID = frozenset({200, 400, 401, 402, 403, 404, 412, 429, 500})
_KEYS = frozenset({200, 400, 401, 403, 404, 500})
_TEXTS = frozenset({200, 400, 403, 404, 413, 422, 424, 500, 501, 502, 503})
_MISSING = frozenset({200, 400, 401, 403, 404, 405, 422, 500, 501, 503})
_N = r"(\d[\d,]{0,9})"
_TOKENS, _INPUTS, _REQUEST_TOKENS = (
    _N.replace("(", f"(?P<{name}>", 1) for name in ("tokens", "inputs", "request_tokens")
)


def _rule(meaning: Meaning, *phrases: str, codes: str = "", statuses: frozenset[int] = frozenset()) -> list[Rule]:
    """Return the rules of a meaning, one for each phrase, because groups must be unique in an expression."""
    first = [Rule(meaning, codes=frozenset(codes.split()), statuses=statuses)] if codes else []
    return first + [Rule(meaning, phrase=phrase, statuses=statuses) for phrase in phrases]


#: The first rule that matches decides, so that a precise one stands before a general one.
RULES: tuple[Rule, ...] = tuple(
    rule
    for rules in (
        # Transport and paths. Go and nginx; LM Studio (lmstudio-bug-tracker #2085); Go's gin, as in Ollama and LocalAI
        # (ollama_embed in logancyang/obsidian-copilot #805); API Gateway (repost.aws, "Missing Authentication Token").
        _rule(HTTPS, r"http request (?:was sent )?to (?:an )?https (?:server|port)", r"plain http to an ssl-enabled"),
        _rule(
            NO_PATH,
            r"unexpected endpoint or method",
            r"404 page not found",
            r"missing authentication token",
            r"could not route to ",
            r"unknown request url",
            r"(?:no|invalid) route (?:matched|found|for)",
            r"^(?:resource |file )?not found\.?$",
            r"^method not allowed\.?$",
            codes="route_not_found unknown_url invalid_url unsupported_api_version",
            statuses=frozenset({200, 400, 403, 404, 405, 501}),
        ),
        # Money. OpenAI (platform.openai.com/docs/guides/error-codes), LiteLLM (proxy/_types.py: ProxyErrorTypes), Jina,
        # OpenRouter (openrouter.ai/docs/api-reference/errors), Moonshot, DashScope, new-api, Cloudflare Workers AI.
        _rule(
            BUDGET,
            r"budget (?:has been |was |is )?exceeded",
            r"exceeded ?(?:token ?)?budget",
            r"over budget",
            codes="budget_exceeded exceededbudget token_budget_exceeded",
            statuses=_PAID,
        ),
        _rule(
            QUOTA,
            r"insufficient[ _](?:account )?(?:balance|credits?|funds|quota)",
            r"balance (?:is )?(?:too low|insufficient|not enough)",
            r"(?:out of|no|not enough|used up your|used all) (?:remaining )?credits",
            r"(?:spend(?:ing)?|billing|usage)(?: hard)? limit (?:has been |was |is )?(?:reached|exceeded|hit)",
            r"daily free allocation",
            r"out of call volume quota",
            r"^limit exceeded$|\blimit: 0\b",
            r"(?:reached|exceeded|hit) (?:your |the )?[a-z ]{0,20}(?:spend(?:ing)?|usage|billing|credit|weekly) limit",
            r"account is (?:not active|suspended|in arrears)|in good standing",
            r"余额不足|欠费|额度(?:已用尽|不足)",
            codes="insufficient_quota billing_hard_limit_reached billing_not_active quota_exceeded "
            "authz_insufficient_balance authz_resource_limit_exceeded insufficient_credits insufficient_balance "
            "insufficient_user_quota pre_consume_token_quota_failed exceeded_current_quota_error arrearage "
            "credit_limit insufficient_funds payment_required allocationquota.freetieronly "
            "servicequotaexceededexception limitexceededexception",
            statuses=_PAID,
        ),
        # Cohere's trial keys (docs.cohere.com/docs/rate-limits); Hugging Face's included credits.
        _rule(
            TRIAL,
            r"limited to [\d,]+ (?:api )?calls ?(?:/|per|a) ?month",
            r"(?:monthly|per[- ]month|/ ?month)[^.]{0,40}(?:limit|credits|quota|usage)",
            r"(?:limit|credits|quota|usage)[^.]{0,40}(?:monthly|per[- ]month|/ ?month|for (?:this|the) month)",
            statuses=_PAID,
        ),
        # Keys. Google's ErrorInfo reasons; OpenAI; Azure and API Management (learn.microsoft.com); AWS; LiteLLM.
        _rule(
            COUNTRY,
            r"(?:user location|country|region)[^.]{0,40} not supported",
            r"not available in your (?:country|region)",
            codes="unsupported_country_region_territory",
            statuses=frozenset({200, 400, 401, 403, 404, 451}),
        ),
        _rule(NETWORK_RULE, r"virtual network|firewall rules|public access is disabled", statuses=frozenset({403})),
        _rule(
            EXPIRED,
            r"(?:api[ _-]?key|token|credentials?)[^.]{0,30} (?:has |have |is |are )?expired",
            r"expired (?:api[ _-]?)?(?:key|token)",
            codes="api_key_expired expired_api_key expired_key token_expired expiredtokenexception",
            statuses=_KEYS,
        ),
        _rule(
            KEY,
            r"(?:incorrect|invalid|wrong|missing|no|bad) (?:api[ _-]?key|api[ _-]?token|access token|credentials)",
            r"api[ _-]?key (?:is |was )?(?:not valid|invalid|missing|required|not found)",
            r"invalid subscription key|missing subscription key",
            r"authentication (?:error|failed|required)|^unauthori[sz]ed\.?$|无效的令牌",
            codes="api_key_invalid invalid_api_key invalidapikey invalid_token invalid_x_api_key authentication_error "
            "unauthenticated unauthorized auth_error unrecognizedclientexception invalidsignatureexception "
            "invalid_authentication account_deactivated",
            statuses=_KEYS,
        ),
        _rule(
            NO_RIGHT,
            r"(?:insufficient|missing|lacks?|no) (?:permissions?|scopes?)",
            r"(?:do|does) not have (?:access|permission)",
            r"has not been used in project|it is disabled",
            r"not (?:authorized|allowed) to (?:access|perform|use|call)",
            codes="permission_denied permissiondenied permission_error permission_denied_error accessdenied "
            "access_denied accessdeniedexception service_disabled api_key_service_blocked "
            "insufficient_permissions forbidden key_model_access_denied team_model_access_denied",
            statuses=frozenset({200, 400, 401, 403}),
        ),
        # One text at fault, also with a status of failures. Ollama (ollama #9639, #14657), llama.cpp (llama.cpp #7389,
        # lemonade #3591), vLLM (vllm #19798), llama-box (gpustack #1845), TEI (core/src/tokenization.rs), NVIDIA NIM
        # (llama_index #15180), Jina (autoflow #282), Voyage (sweep #3412), Gemini, OpenAI, DashScope, SiliconFlow.
        _rule(
            NOT_A_NUMBER,
            r"unsupported value: [+-]?(?:nan|inf)",
            r"out of range float values are not json compliant",
            r"\bnan\b[^.]{0,30}(?:embedding|result|output|vector|value)",
            r"(?:embedding|result|output|vector|value)s?[^.]{0,30} (?:nan|not finite|not a number)\b",
            statuses=_TEXTS,
        ),
        # Batches before texts: their phrases contain those of texts. TEI; SiliconFlow (ApeRAG #716); DashScope
        # (memobase #142); Gemini (langchainjs #4491); Cohere (RAGTune #2); Jina (refly #831); Voyage; pydantic;
        # OpenAI; Mistral's code 3210 (edgequake-llm #74).
        _rule(
            BATCH,
            rf"maximum allowed batch size {_INPUTS}",
            rf"batch size is invalid, it should not be larger than {_INPUTS}",
            rf"batch size limit is {_INPUTS}",
            rf"at most {_INPUTS} requests can be in one batch",
            rf"number of (?:texts|inputs|documents) must be at most {_INPUTS}",
            rf"input length is larger than the largest allowed size {_INPUTS}",
            rf"expected an array with maximum length {_INPUTS}",
            rf"list should have at most {_INPUTS} items?",
            rf"ensure this value has at most {_INPUTS} items",
            rf"maximum item count: {_INPUTS}",
            rf"too many (?:inputs|texts|documents|strings)\b.{{0,60}}?max(?:imum)?[a-z :]{{0,30}} {_INPUTS}",
            rf"(?:max(?:imum)?|at most|up to|limit(?: of| to| is)?) {_INPUTS} (?:inputs|texts|documents|strings)",
            r"too many (?:inputs|texts|documents|strings)|batch (?:size )?(?:is )?too large",
            codes="array_above_max_length too_long",
            statuses=_TEXTS,
        ),
        # OpenAI (langchain #31227), Mistral (semantic-router #297, nextcloud/context_chat_backend #276), Voyage (aichat
        # #825), Vertex AI.
        _rule(
            BATCH_TOKENS,
            rf"max {_REQUEST_TOKENS} tokens per request",
            rf"too many tokens in batch\. max is {_REQUEST_TOKENS}",
            rf"max(?:imum)? allowed tokens per submitted batch is {_REQUEST_TOKENS}",
            rf"the model supports up to {_REQUEST_TOKENS}",
            r"too many tokens overall|too many tokens in (?:the )?(?:batch|request)",
            codes="max_tokens_per_request too_many_tokens_in_batch",
            statuses=_TEXTS,
        ),
        # OpenAI: a request over the tokens of a minute never succeeds (community.openai.com, "Request too large").
        _rule(
            BATCH_TOKENS, rf"request too large.{{0,120}}limit:? {_REQUEST_TOKENS}", statuses=frozenset({200, 400, 429})
        ),
        _rule(
            TOO_LARGE,
            r"payload (?:size )?(?:exceeds|is too large|too large)|request (?:body|entity) (?:is )?too large",
            codes="payload_too_large request_too_large",
            statuses=_TEXTS,
        ),
        _rule(
            TOO_LONG,
            rf"maximum (?:context|model|input|sequence) length (?:is|of|\() ?{_TOKENS}",
            rf"(?:maximum|model'?s?) context length \({_TOKENS}",
            rf"(?:at most|maximum of|maximum is|max|up to|limit of|limit is|limited to) {_TOKENS} (?:input )?tokens",
            rf"max input tokens: {_TOKENS}",
            rf"tokens? > {_TOKENS}",
            rf"must have less than {_TOKENS} tokens",
            rf"cannot exceed {_TOKENS} tokens",
            rf"exceeds maximum allowed token size {_TOKENS}",
            rf"context window of {_TOKENS} tokens",
            rf"maximum number of tokens allowed \({_TOKENS}\)",
            rf"tokens in the prompt cannot exceed {_TOKENS}",
            rf"available context size \({_TOKENS}",
            rf"range of input length should be \[\d+, ?{_TOKENS}\]",
            rf"must be less than max_seq_len[^\d]{{0,20}}{_TOKENS}",
            rf"(?:too large to process|physical batch size)[^\d]{{0,80}}current batch size: {_TOKENS}",
            r"too large to process.{0,40}batch size",
            r"input length exceeds|exceeds? (?:the |its |this )?(?:maximum |model'?s? |available |maximum model )*"
            r"(?:context|input|sequence|token) (?:length|size|limit|window)",
            r"maximum context length|exceed n_ctx|too big compared to kv size|longer than the maximum model length",
            r"string should have at most|too many (?:input )?tokens|expected maxlength",
            r"(?:input|text|prompt) (?:is )?too long",
            codes="context_length_exceeded exceed_context_size_error contextwindowexceedederror string_too_long "
            "string_above_max_length input_too_long",
            statuses=_TEXTS,
        ),
        # Azure and OpenAI (learn.microsoft.com, "Content filtering"), LiteLLM, OpenRouter's moderation, DashScope.
        _rule(
            FILTERED,
            r"content (?:management )?(?:policy|filter)|requires moderation|(?:input|content|text) was flagged",
            r"inappropriate content",
            codes="content_filter content_policy_violation responsibleaipolicyviolation contentpolicyviolationerror "
            "datainspectionfailed data_inspection_failed moderation content_filtered",
            statuses=_TEXTS,
        ),
        _rule(
            EMPTY_TEXT,
            r"(?:input|text|string|content)s?`? (?:cannot|can not|must not|should not|can't) be (?:an )?empty",
            r"empty (?:string|text|input)s? (?:is|are) not",
            codes="empty string_too_short",
            statuses=_TEXTS,
        ),
        # The model. Ollama (ollama #7549, #12757), llama.cpp (llama.cpp #14223), LM Studio (lms #205, openhuman #3687),
        # LocalAI (LocalAI #575), Infinity (infinity_server.py), Azure (langchain #1577), vLLM.
        _rule(
            NO_EMBEDDINGS,
            r"not support (?:the )?`?(?:embed|pooling)",
            r"(?:is not|not an) embedding|endpoint disabled for this model|pooling type .{0,20}not oai compatible",
            r"operation does not work with the specified model",
            r"not supported for embedcontent",
            codes="operationnotsupported",
            statuses=_MISSING,
        ),
        _rule(
            DIMENSIONS,
            r"matryoshka",
            r"(?:not support|unsupported|invalid)[^.]{0,40}\b(?:output_?)?dimension",
            r"\b(?:output_?)?dimension(?:s|ality)?\b[^.]{0,40}(?:not supported|unsupported|invalid|must be)",
            statuses=frozenset({200, 400, 404, 422, 500}),
        ),
        _rule(NOT_PULLED, r"try pulling it first", statuses=_MISSING),
        _rule(
            NOT_LOADED,
            r"no models? (?:is |are )?loaded",
            r"(?:failed|error|unable|could not|cannot)(?: to)? load(?:ing)?\b.{0,30}model",
            r"model[^.]{0,60} (?:is )?not loaded|requires more (?:system |gpu )?memory",
            codes="model_not_loaded",
            statuses=_MISSING,
        ),
        _rule(
            NO_MODEL,
            r"\bmodels?\b[^.]{0,10}(?:\S{0,100}[^.]{0,10})?(?:does not exist|doesn't exist|(?:is|was) not found)",
            r"\bmodel\b \S{0,100} not found|invalid model\b|unknown model\b|no such model|model not found",
            r"no endpoints (?:found|available)|deployment[^.]{0,40} does not exist",
            r"no available channels? |无可用渠道",
            r"model \S{0,100} is not supported",
            codes="model_not_found deploymentnotfound model_not_available invalid_model unknown_model "
            "unsupported_model resourcenotfoundexception",
            statuses=_MISSING,
        ),
        # pydantic's error types (docs.pydantic.dev, "Validation Errors"); OpenAI; LiteLLM; NVIDIA NIM; Cohere.
        _rule(
            PARAMETER,
            r"unrecognized request argument|extra (?:inputs|fields) (?:are )?not permitted|field required",
            r"(?:unknown|unsupported|unexpected) (?:parameter|argument|field)\b|invalid (?:parameter|field) name",
            r"'?input_type'? parameter is required|valid input_type must be provided|not support parameters",
            codes="unsupported_parameter unknown_parameter missing_required_parameter missing extra_forbidden "
            "value_error.missing value_error.extra unsupported_value unsupportedparamserror",
            statuses=frozenset({200, 400, 422}),
        ),
        # Waits. Hugging Face (transformers #23793), llama.cpp (llama-swap #146), AWS Bedrock.
        _rule(
            LOADING,
            r"(?<!error )loading (?:the )?model|model[^.]{0,120} is (?:currently |still |being )*load(?:ing|ed)\b",
            r"model[^.]{0,60} (?:is )?(?:not ready|warming up|still starting|being downloaded)",
            r"^(?:still |currently )?loading\b|\b(?:is|still|currently) loading\b|\bcold start|\bstarting up\b",
            r"endpoint is (?:initiali[sz]ing|starting|scaled to zero)",
            codes="modelnotreadyexception model_loading",
            statuses=frozenset({200, 400, 404, 408, 409, 425, 429, 500, 502, 503, 504}),
        ),
        _rule(MEMORY, r"out of memory|failed to allocate", statuses=frozenset({200, 400, 424, 500, 502, 503})),
        _rule(
            RATE,
            r"rate[ _-]?limit (?:is |was |has been )?(?:reached|exceeded)|exceeded[^.]{0,60}rate limit",
            codes="rate_limit_exceeded rate_limit_error too_many_requests throttlingexception throttling_error "
            "throttling.ratequota throttling.allocationquota throttling toomanyrequestsexception rate_limited",
            statuses=frozenset({200, 400, 403, 429, 500, 503}),
        ),
    )
    for rule in rules
)
