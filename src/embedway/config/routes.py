"""Section `[routes.NAME]`: a route to a model of a service, with its URL, key, headers, limits and options."""

from __future__ import annotations

import datetime as dt
import difflib
import importlib.metadata
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from embedway.config.addresses import parse_http_url, suggest_scheme
from embedway.config.known_services import BUILT_IN, SERVED_BY, SERVICES, key_header
from embedway.config.problems import ContradictionError
from embedway.config.request_headers import check_header_name, check_header_value
from embedway.config.types import File, Flag, Positive, Section
from embedway.text import shown_name

#: Name of an environment variable.
VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
#: Similarity above which an unknown name is a misspelled one.
_TYPO = 0.75
#: Fields with the key of a route, and with headers.
_KEYS, _HEADERS = ("api_key", "api_key_env", "api_key_file"), ("headers", "headers_env", "headers_file")
_GROUPS = ("embedway.providers", "embedway.rerankers")


def _to_text(value: Any) -> Any:
    """Convert a plain value to the text of an option: `true`, `10`, `2024-10-21`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value.isoformat()
    if not isinstance(value, str):
        raise ValueError("must be a string, a number, or true or false")  # noqa: TRY004  pydantic wraps it
    return value.strip()


def _check_provider(name: str) -> str:
    """Raise ValueError for a misspelled provider, and for the name of a server that another provider calls.

    Any other unknown name may be a package's that is not installed here, so it is reported when the route is used.
    """
    if name in BUILT_IN or any(importlib.metadata.entry_points(group=group, name=name) for group in _GROUPS):
        return name
    word = name.strip().casefold()
    served = SERVED_BY.get(re.sub("[-_. ]", "", word))
    if served == "openai-compatible":
        hint = f'write provider = "{served}", which calls any server with OpenAI\'s interface, and its URL as base_url'
        raise ValueError(f"no provider is called {shown_name(name)}; {hint}")
    near = [served] if served else difflib.get_close_matches(word.replace("_", "-"), sorted(BUILT_IN), 1, _TYPO)
    if near:
        raise ValueError(f"no provider is called {shown_name(name)}; the nearest is {near[0]}")
    return name


Option = Annotated[str, BeforeValidator(_to_text, json_schema_input_type=str | bool | int | float)]
HeaderName = Annotated[str, BeforeValidator(check_header_name, json_schema_input_type=str)]


class RouteSettings(Section):
    """`[routes.NAME]`: a route to a model of a service, tried before the catalog's routes."""

    #: Name of the model; all routes of a model must return vectors of its one space.
    model: str = Field(min_length=1)
    #: Provider that calls the service, such as `openai` or `openai-compatible`.
    provider: str = Field(min_length=1)
    #: The service's own name of the model; unset for the catalog's name.
    upstream_model: str | None = None
    #: URL of the service; empty for the provider's default.
    base_url: str = ""
    #: Allow plain http for `base_url` on another machine.
    allow_http: Flag = False
    #: How requests are authorized: the key in the service's own header; the key as a bearer token; a token of Microsoft
    #: Entra ID; or only by `headers`.
    auth: Literal["key", "bearer", "entra", "none"] = "key"
    #: Key of the service.
    api_key: SecretStr | None = None
    #: Environment variable that contains the key.
    api_key_env: str | None = None
    #: File that contains the key. It is read again when it changes.
    api_key_file: File | None = None
    #: Headers of each request. Their values are secrets, as is the key.
    headers: dict[HeaderName, SecretStr] = Field(default_factory=dict)
    #: Headers whose values are in environment variables, by name.
    headers_env: dict[HeaderName, str] = Field(default_factory=dict)
    #: Headers whose values are in files, which are read again when they change.
    headers_file: dict[HeaderName, File] = Field(default_factory=dict)
    #: Organization of a key of OpenAI.
    organization: str | None = Field(default=None, min_length=1)
    #: Project of a key of OpenAI.
    project: str | None = Field(default=None, min_length=1)
    #: File of the certificates of authorities (PEM) that sign the server's certificate; no others are trusted then.
    ca_file: File | None = None
    #: Maximum requests per minute, besides the limits that the service reports.
    requests_per_minute: Positive | None = None
    #: Maximum tokens per minute, besides the limits that the service reports.
    tokens_per_minute: Positive | None = None
    #: Your declaration that the route answers in the space of the model's other routes, so that it needs no proof.
    same_space: Flag = False
    #: Options of the provider: strings, numbers, true and false, which are kept as strings.
    options: dict[str, Option] = Field(default_factory=dict)

    @field_validator("provider")
    @classmethod
    def _check_provider(cls, name: str) -> str:
        return _check_provider(name)

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, url: str, info: ValidationInfo) -> str:
        """Check an http URL, and any URL of a provider that uses http; a plug-in may use another protocol."""
        url = url.strip()
        over_http = info.data.get("provider") in {*SERVICES, "openai-compatible"}
        if url and (over_http or url.casefold().startswith(("http:", "https:"))):
            # A valid URL with a user or of an unsafe host fails when the route is opened, so that `doctor` works.
            try:
                parse_http_url(url, rule="must be a URL such as https://api.example.com/v1")
            except ValueError as error:
                raise ValueError(f"{error}{suggest_scheme(url)}") from None
        return url

    @field_validator("api_key_env", "headers_env")
    @classmethod
    def _check_variables(cls, named: str | dict[str, str] | None) -> str | dict[str, str] | None:
        for name in named.values() if isinstance(named, dict) else (named,):
            if name is not None and not VARIABLE.fullmatch(name):
                raise ValueError("must be the name of an environment variable, not a key or a value itself")
        return named

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        return {name: SecretStr(check_header_value(value.get_secret_value())) for name, value in headers.items()}

    @field_validator("organization", "project")
    @classmethod
    def _check_account(cls, value: str | None) -> str | None:
        return None if value is None else check_header_value(value)

    @model_validator(mode="after")
    def _check_headers_once(self) -> Self:
        names = [name.casefold() for table in (self.headers, self.headers_env, self.headers_file) for name in table]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise ContradictionError(f"the header {double} is set twice; set it once", *_HEADERS)
        return self

    @model_validator(mode="after")
    def _check_one_key(self) -> Self:
        header = key_header(self.provider, self.auth)
        if not self.has_own_key:
            return self
        if self.auth in {"entra", "none"}:
            raise ContradictionError(
                f'api_key, api_key_env and api_key_file must be unset if auth is "{self.auth}"', "auth", *_KEYS
            )
        if header in self.header_names:
            raise ContradictionError(
                f"has a key and the header {header}, which would contain the key; set one of them", *_KEYS, *_HEADERS
            )
        return self

    @model_validator(mode="after")
    def _check_openai_account(self) -> Self:
        if self.provider not in {"openai", "openai-compatible"} and (self.organization or self.project):
            raise ContradictionError(
                "organization and project are accounts of OpenAI; set headers for other services",
                "provider",
                "organization",
                "project",
            )
        return self

    @property
    def has_own_key(self) -> bool:
        """Whether the route names a key itself."""
        return any(key is not None for key in (self.api_key, self.api_key_env, self.api_key_file))

    @property
    def header_names(self) -> frozenset[str]:
        """Lower-case names of the route's own headers."""
        return frozenset(name.casefold() for one in (self.headers, self.headers_env, self.headers_file) for name in one)
