"""Sections of the settings: every key with its type, rule and default."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from platformdirs import user_cache_path, user_data_path, user_state_path
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator

from embedway.config.addresses import is_loopback, parse_address
from embedway.config.alerts import WebhookUrl  # noqa: TC001  pydantic evaluates the annotations
from embedway.config.benchmark_layers import complete_benchmarks
from embedway.config.benchmarks import ModelBenchmark, shipped_benchmarks
from embedway.config.paths import expand_user
from embedway.config.problems import ContradictionError
from embedway.config.redis_urls import Cluster, RedisUrl  # noqa: TC001  pydantic evaluates the annotations
from embedway.config.types import (
    SECRET_RULE,
    Dollars,
    File,
    Flag,
    Folder,
    Namespace,
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

    from pydantic import ValidatorFunctionWrapHandler


def _path_in(folder: Callable[..., Path], name: str) -> Callable[[], Path]:
    """Return a default factory for a path in a user folder, which is resolved when settings are created."""
    return lambda: folder("embedway", appauthor=False) / name


class EmbeddingSettings(Section):
    """`[embedding]`: defaults for embedding calls."""

    #: Catalog name, `hf:OWNER/NAME`, folder, or `auto` for the default model.
    default_model: str = Field(default="auto", min_length=1)
    #: Handling of a text over the model's limit.
    on_overflow: Literal["truncate", "error", "mean"] = "truncate"
    #: Facts for selection, by the model's full name; settings override single fields of the shipped facts.
    model_benchmarks: dict[str, ModelBenchmark] = Field(default_factory=shipped_benchmarks)

    @field_validator("model_benchmarks", mode="before")
    @classmethod
    def _merge(cls, benchmarks: Any) -> Any:
        return complete_benchmarks(benchmarks) if isinstance(benchmarks, dict) else benchmarks

    @field_validator("model_benchmarks")
    @classmethod
    def _check_names(cls, benchmarks: dict[str, ModelBenchmark]) -> dict[str, ModelBenchmark]:
        for name, benchmark in benchmarks.items():
            if benchmark.model_name != name:
                raise ValueError(f"has {benchmark.model_name!r} as model_name of {name!r}; they must be the same")
        return benchmarks


class RerankSettings(Section):
    """`[rerank]`: defaults for `rerank` calls."""

    #: Name of the default reranker; unset for none.
    default_model: str | None = Field(default=None, min_length=1)


class LocalSettings(Section):
    """`[local]`: the built-in runtime. Values that are `auto` or unset are chosen for the CPU and the model."""

    backend: Literal["auto", "openvino", "onnxruntime"] = "auto"
    precision: Literal["auto", "f32", "bf16"] = "auto"
    #: Total number of threads; unset for the physical cores that this process may use.
    threads: Positive | None = None
    #: Batches computed concurrently; they share the threads.
    streams: Positive | None = None
    #: Maximum tokens of one batch, padding included; limits the memory of a batch.
    token_budget: Positive | None = None


class WeightsSettings(Section):
    """`[weights]`: the store of model files, and its sources."""

    #: Folder of the stored files, by hash.
    directory: Folder = Field(default_factory=_path_in(user_data_path, "weights"))
    #: Sources of files, in search order.
    places: tuple[PlaceName, ...] = Field(default=("folder", "hub", "wheel"), min_length=1)
    #: Folders that may contain a model's files, for the source `folder`.
    folders: tuple[Folder, ...] = ()
    #: Disable downloads; use only local files.
    offline: Flag = False
    #: Allow plain http for `hub_endpoint` on another machine.
    allow_http: Flag = False
    #: URL of the hub, or of a mirror.
    hub_endpoint: str = HUB_ENDPOINT
    #: Token sent to `hub_endpoint`, for private and gated repositories.
    hub_token: SecretStr | None = None
    #: Folder of huggingface_hub's downloads.
    hub_cache: Folder = Field(default_factory=lambda: expand_user("~/.cache/huggingface/hub"))
    #: Folder of fastembed's downloads.
    fastembed_cache: Folder = Field(default_factory=lambda: Path(tempfile.gettempdir()) / "fastembed_cache")

    @field_validator("places")
    @classmethod
    def _check_places(cls, places: tuple[PlaceName, ...]) -> tuple[PlaceName, ...]:
        if len(set(places)) < len(places):
            raise ValueError("must name each source once")
        return places

    @field_validator("hub_endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str, info: ValidationInfo) -> str:
        """Allow https, or http to this machine, because a token is sent to this URL."""
        parts = parse_address(endpoint, example=HUB_ENDPOINT, instead="; set weights.hub_token")
        if parts.scheme == "http" and not (info.data.get("allow_http") or is_loopback(parts.host)):
            raise ValueError("must be https, or set weights.allow_http = true")
        return endpoint.rstrip("/")

    @field_validator("hub_token")
    @classmethod
    def _check_token(cls, token: SecretStr | None) -> SecretStr | None:
        """Reject line breaks and spaces: the token is sent in an HTTP header, and they come from copying mistakes."""
        if token is not None:
            text = token.get_secret_value()
            if not text or not text.isascii() or not text.isprintable() or " " in text:
                raise ValueError("must be printable ASCII without spaces")
        return token


class TuneSettings(Section):
    """`[tune]`: the results of `embedway models tune`."""

    #: Folder of the stored choices, by CPU and model.
    directory: Folder = Field(default_factory=_path_in(user_cache_path, "tune"))


class SearchSettings(Section):
    """`[search]`: searches of collections."""

    #: Folder of keyword indexes, which contain words of the collections' texts. Each can be deleted at any time.
    directory: Folder = Field(default_factory=_path_in(user_cache_path, "keywords"))


#: Time to live in Redis, in seconds, if none is set: one day.
DEFAULT_REDIS_TTL_S = 86_400.0


class CacheSettings(Section):
    """`[cache]`: the vector cache. Each key is one attribute."""

    #: Storage of entries.
    backend: Literal["none", "memory", "sqlite", "redis"] = "sqlite"
    #: File, for `sqlite`.
    path: File = Field(default_factory=_path_in(user_cache_path, "vectors.sqlite"))
    #: URL of the server, for `redis`; it may contain a password.
    url: RedisUrl = SecretStr("redis://127.0.0.1:6379/0")
    #: Whether `url` is one server of a cluster.
    cluster: Cluster = False
    #: Storage format of numbers: `f32` is exact, `f16` and `i8` are lossy.
    codec: Literal["f32", "f16", "i8"] = "f32"
    #: Compress entries; needs the extra `zstd`; not allowed with `i8`.
    zstd: Flag = False
    #: Put a memory cache in front of `sqlite` and `redis`.
    tiered: Flag = True
    #: Maximum size of entries in memory, in MiB.
    memory_mib: Positive = 128
    #: Maximum size of entries in the file, for `sqlite`, in MiB.
    disk_mib: Positive = 4096
    #: Maximum size of entries on the server, for `redis`, in MiB. If the server has a maxmemory and does not evict, at
    #: most half of it is used.
    redis_mib: Positive = 4096
    #: Time to live of an entry, in seconds, or `never`. Unset: 86,400 for `redis`, otherwise no limit.
    ttl_s: Seconds | Literal["never"] | None = None
    #: Start the time to live again when an entry is read.
    refresh_on_hit: Flag = False
    #: Time that other processes wait for the vectors of a process that ended, in seconds; for `redis`.
    lease_s: Seconds = 10.0
    #: Namespace of entries; callers never see entries of another one. It does not begin with `@`.
    namespace: Namespace = ""
    #: Secret for the checksums of entries, for a store that others can write to; it prevents forged entries.
    secret: SecretStr | None = None
    #: Previous secret; its entries are still found, and rewritten under `secret`.
    secret_previous: SecretStr | None = None
    #: File that is read if `secret` is unset: the secret on line 1, and optionally the previous secret on line 2.
    secret_file: File | None = None

    @field_validator("ttl_s", mode="wrap")
    @classmethod
    def _check_ttl(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        """Report one mistake for a wrong value, not one for each type that it may have."""
        try:
            return check(value)
        except ValidationError:
            raise ValueError("must be a number of seconds above 0, or 'never'") from None

    @property
    def lifetime_s(self) -> float | None:
        """Time to live of an entry, in seconds; None for no limit."""
        if self.ttl_s is None:
            return DEFAULT_REDIS_TTL_S if self.backend == "redis" else None
        return None if self.ttl_s == "never" else self.ttl_s

    @field_validator("secret", "secret_previous")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and not is_secret(secret.get_secret_value()):
            raise ValueError(SECRET_RULE)
        return secret

    @model_validator(mode="after")
    def _check_secrets(self) -> Self:
        if self.secret_previous is not None and self.secret is None:
            raise ContradictionError("secret_previous must be unset if secret is unset", "secret_previous")
        if self.secret_previous is not None and self.secret_previous == self.secret:
            raise ContradictionError("secret_previous must differ from secret", "secret", "secret_previous")
        return self

    @model_validator(mode="after")
    def _compression_that_helps(self) -> Self:
        if self.zstd and self.codec == "i8":
            why = "compressed i8 entries are larger, not smaller; existing compressed entries are still read"
            raise ContradictionError(f"zstd must be false if codec is 'i8': {why}", "zstd", "codec")
        return self


class BatchingSettings(Section):
    """`[batching]`: batches of one caller's texts, and of concurrent callers'."""

    #: Batch concurrent callers together; if false, each call is computed separately.
    across_callers: Flag = True
    #: Maximum wait of a small request, in milliseconds, for others to join its batch while another request to its
    #: service is in flight. Local models collect requests only while all their streams are busy.
    max_wait_ms: Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)] = 2.0
    #: Maximum texts of a batch on this machine, and of a request to a service, of one caller or of several. A service,
    #: and `max_inputs` in the options of a route, may have a lower limit.
    max_batch_size: Positive = 1000


class UpstreamSettings(Section):
    """`[upstream]`: retries, back-off and timeouts for services."""

    #: Maximum requests per text, over all routes.
    max_attempts: Positive = 5
    #: First back-off between two attempts, in seconds; later ones double.
    first_wait_s: Seconds = 0.5
    #: Maximum back-off, in seconds.
    longest_wait_s: Seconds = 20.0
    #: Deadline of a complete request, waits included, in seconds.
    deadline_s: Seconds = 120.0
    #: Timeout of one response, in seconds.
    timeout_s: Seconds = 60.0
    #: Maximum concurrent requests per route.
    concurrency: Positive = 8
    #: Time after which a route of a model with several routes is compared with the model's space again, in seconds.
    verify_every_s: Seconds = 300.0


class SelectionSettings(Section):
    """`[selection]`: default criteria of calls that select a model.

    A preset, and single criteria that override it. `docs/selection.md` explains each.
    """

    #: Weights and requirements that the other keys override.
    preset: Literal["fast", "balanced", "best", "cheap", "private"] = "balanced"
    #: Weight of a high quality score.
    accuracy_weight: NotNegativeFloat | None = None
    #: Weight of a short latency.
    speed_weight: NotNegativeFloat | None = None
    #: Weight of a low price.
    cost_weight: NotNegativeFloat | None = None
    #: Maximum price, in dollars per million tokens.
    max_cost_per_million: Dollars | None = None
    #: Only multilingual models.
    require_multilingual: Flag | None = None
    #: Only models that keep texts on this machine.
    require_local: Flag | None = None
    #: Minimum quality score divided by 100.
    min_accuracy: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] | None = None
    #: Maximum latency of a query, in milliseconds.
    max_latency_ms: Seconds | None = None
    #: Minimum context length, in tokens.
    min_context: Positive | None = None
    #: Vector size that the model must support.
    dimensions: Positive | None = None
    #: BCP 47 tags of languages that the model must support.
    languages: tuple[str, ...] | None = None
    #: SPDX identifiers of allowed licences, or `any`.
    licences: tuple[str, ...] | None = None
    #: Maximum cost of embedding all texts once, in dollars.
    max_total_cost: Dollars | None = None
    #: Only models that support the languages of the texts.
    match_languages: Flag | None = None
    #: Only models that read the longest text completely.
    require_fit: Flag | None = None
    #: Names or aliases of the models that may be selected.
    models: tuple[str, ...] | None = None
    #: Compare quality scores of different scales.
    any_scale: Flag | None = None

    @property
    def criteria(self) -> dict[str, Any]:
        """Criteria that override those of the preset."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name != "preset"}
        return {name: value for name, value in given.items() if value is not None}


class LedgerSettings(Section):
    """`[ledger]`: the ledger of the costs of paid calls."""

    #: Storage of the ledger; `none` records nothing and enforces no budget.
    backend: Literal["none", "sqlite", "redis"] = "sqlite"
    #: File, for `sqlite`.
    path: File = Field(default_factory=_path_in(user_state_path, "ledger.sqlite"))
    #: URL of the server, for `redis`; it may contain a password.
    url: RedisUrl = SecretStr("redis://127.0.0.1:6379/0")
    #: Whether `url` is one server of a cluster.
    cluster: Cluster = False
    #: Time until the reservations of a process that ended are released, in seconds.
    lease_s: Seconds = 60.0
    #: URL that receives JSON when a part of a budget is spent; it may contain a token.
    webhook: WebhookUrl | None = None


class BudgetSettings(Section):
    """`[budgets.NAME]`: a spending limit for a period, over everything or for one model, collection or key."""

    #: Maximum spending in dollars, as a number or text; 0 allows none.
    usd: Dollars
    #: Period after which spending counts from 0 again.
    period: Literal["total", "day", "month"] = "total"
    #: Model that is limited; at most one of `model`, `collection` and `api_key` is set.
    model: str | None = Field(default=None, min_length=1)
    #: Collection that is limited.
    collection: str | None = Field(default=None, min_length=1)
    #: Name that calls give for their key; never the key itself.
    api_key: str | None = Field(default=None, min_length=1)
    #: Refuse calls over the budget; a soft budget only warns.
    hard: Flag = True
    #: Percentages of the budget at which to warn.
    warn_at: tuple[Annotated[int, Field(strict=True, ge=1, le=100)], ...] = (50, 80, 100)

    @field_validator("collection", "api_key")
    @classmethod
    def _check_scope(cls, name: str | None, info: ValidationInfo) -> str | None:
        named = [other for other in ("model", "collection") if info.data.get(other)]
        if named and name:
            raise ValueError(f"must be unset if {named[0]} is set; create a budget for each")
        return name

    @property
    def scope(self) -> str:
        """Scope of the budget, as stored in ledgers."""
        for kind in ("api_key", "collection", "model"):
            name = getattr(self, kind)
            if name:
                return f"{kind}:{name}"
        return "*"


class PinsSettings(Section):
    """`[pins]`: storage of pins, the vector space of each collection since its first write."""

    #: File on this machine, or a server for several machines.
    backend: Literal["sqlite", "redis"] = "sqlite"
    #: File, for `sqlite`.
    path: File = Field(default_factory=_path_in(user_state_path, "pins.sqlite"))
    #: URL of the server, for `redis`; it may contain a password.
    url: RedisUrl = SecretStr("redis://127.0.0.1:6379/0")
    #: Whether `url` is one server of a cluster.
    cluster: Cluster = False


class RunSettings(Section):
    """`[run]`: chunking and bad rows of `embedway run`."""

    #: Maximum tokens of a chunk; unset for 256, or the model's limit if lower.
    chunk_tokens: Positive | None = None
    #: Maximum tokens that neighbouring chunks share.
    overlap: NotNegative = 32
    #: Handling of a bad row: stop, or write it to the rejects file.
    on_error: Literal["stop", "skip"] = "stop"

    @field_validator("overlap")
    @classmethod
    def _check_overlap(cls, overlap: int, info: ValidationInfo) -> int:
        chunk_tokens = info.data.get("chunk_tokens")
        if chunk_tokens is not None and overlap >= chunk_tokens:
            raise ValueError(f"must be less than run.chunk_tokens, which is {chunk_tokens}")
        return overlap
