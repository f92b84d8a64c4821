"""Keys of services, the addresses that they may go to, and what the services' own clients read from the environment.

A key from the environment goes to its service's own hosts, or to an address that the same layer names. So a settings
file cannot lead a key elsewhere that it does not name itself.

The variables are those of the official clients, read 2026-11-24: openai 3.57.0 (`OPENAI_BASE_URL`, `OPENAI_ORG_ID`,
`OPENAI_PROJECT_ID`; for Azure `AZURE_OPENAI_ENDPOINT` and `OPENAI_API_VERSION`), cohere 7.3.1 (`CO_API_URL`) and
google-genai 3.6.1 (`GOOGLE_GEMINI_BASE_URL`, `GOOGLE_GENAI_API_VERSION`). voyageai 0.5.0 and mistralai 3.7.0 read no
address from the environment, and Jina has no client.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from embedway.config.sections import is_loopback
from embedway.errors import ConfigError
from embedway.files import read_bounded
from embedway.weights.types import HUB_ENDPOINT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import SecretStr

    from embedway.config.sections import Route

ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Service:
    """A provider's service: where its users keep its key, its own hosts, and the variables of its official client."""

    #: The first that is set counts.
    keys: tuple[str, ...]
    #: Whole names; one that begins with a dot stands for every name below it.
    hosts: tuple[str, ...]
    #: Where the client reads the address, and the version of the API beside it; empty for nowhere.
    address: str = ""
    version: str = ""
    #: Headers that the client sends, by the variable that holds each.
    headers: Mapping[str, str] = field(default_factory=dict)


SERVICES: Mapping[str, Service] = MappingProxyType(
    {
        "openai": Service(
            ("OPENAI_API_KEY",),
            # Regional hosts as openai/_data_residency.py lists them, such as eu.api.openai.com.
            ("api.openai.com", ".api.openai.com"),
            address="OPENAI_BASE_URL",
            headers={"OPENAI_ORG_ID": "openai-organization", "OPENAI_PROJECT_ID": "openai-project"},
        ),
        "azure-openai": Service(
            ("AZURE_OPENAI_API_KEY",),
            # https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle; a resource has a name below.
            (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"),
            address="AZURE_OPENAI_ENDPOINT",
            version="OPENAI_API_VERSION",
        ),
        "cohere": Service(("COHERE_API_KEY", "CO_API_KEY"), ("api.cohere.com", "api.cohere.ai"), address="CO_API_URL"),
        # voyageai/util.py: keys of MongoDB Atlas go to the second host.
        "voyage": Service(("VOYAGE_API_KEY",), ("api.voyageai.com", "ai.mongodb.com")),
        "jina": Service(("JINA_API_KEY",), ("api.jina.ai",)),
        "gemini": Service(
            ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            ("generativelanguage.googleapis.com",),
            address="GOOGLE_GEMINI_BASE_URL",
            version="GOOGLE_GENAI_API_VERSION",
        ),
        # mistralai/client/sdkconfiguration.py lists three.
        "mistral": Service(("MISTRAL_API_KEY",), ("api.mistral.ai", "api.eu.mistral.ai", "api.us.mistral.ai")),
    }
)
#: The variables in which users of a service keep its key, the first that is set counts.
KEY_VARIABLES: dict[str, tuple[str, ...]] = {name: service.keys for name, service in SERVICES.items()}


@dataclass(frozen=True, slots=True)
class Access:
    """How a route reaches its service. `base_url` is empty for the provider's own address; `secret` is in no repr."""

    base_url: str = ""
    secret: str = field(default="", repr=False)
    #: What the environment says beside the address, as options of the provider and as headers.
    options: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a value: a layer, and the variable in it, where it was one."""

    where: str = ""
    name: str = ""

    def __str__(self) -> str:
        """As `Config.sources` tells it."""
        return ": ".join(part for part in (self.where, self.name) if part)


def variables_of_services() -> Iterator[str]:
    """Every variable that services' users know."""
    for service in SERVICES.values():
        yield from (*service.keys, *service.headers)
        yield from (name for name in (service.address, service.version) if name)


@dataclass(frozen=True, slots=True)
class Keyring:
    """The variables of services and of routes' keys, and what set each value of the routes."""

    variables: Mapping[str, SecretStr] = field(default_factory=dict, repr=False)
    origins: Mapping[str, Origin] = field(default_factory=dict, repr=False)

    def access(self, provider: str, name: str = "", route: Route | None = None) -> Access:
        """The address of a provider's route with the key that may go there; without a name, of the catalog's route.

        Raises ConfigError for a key that cannot be had, or that must not go to this address, and for an address of the
        environment that is not safe.
        """
        service = SERVICES.get(provider, Service((), ()))
        secret, variable = self._key(service, route)
        allow_http = route is not None and route.options.get("allow_http") == "true"
        if route is not None and route.base_url:
            base_url = route.base_url
            origin = self.origins.get(f"routes.{name}.base_url", Origin())
            options: Mapping[str, str] = {}
        else:
            origin = Origin(ENVIRONMENT, service.address)
            base_url, options = self._address(provider, service, route)
        named = bool(base_url) and origin.where == ENVIRONMENT
        if named:
            check_address(base_url, where=origin.name, allow_http=allow_http)
        own = not base_url or named or is_own(base_url, service.hosts)
        if variable and not own and not self._same_layer(name, route):
            where, key = origin.where, f"routes.{name}.base_url"
            raise ConfigError(_withheld(provider, variable, route, origin), where=where, key=key)
        headers = self._headers(service) if own and variable in service.keys else {}
        return Access(base_url, secret, options, headers)

    def addresses(self) -> dict[str, tuple[str, str]]:
        """Addresses of services that the environment names: the variable of each, and the address without secrets."""
        found = {}
        for provider, service in SERVICES.items():
            base_url, _ = self._address(provider, service, None)
            if base_url:
                named = service.address if self._value(service.address) else service.version
                found[provider] = (named, shown_address(base_url))
        return found

    def _key(self, service: Service, route: Route | None) -> tuple[str, str]:
        """A route's key, and the variable that holds it; empty for a key of the settings or for none."""
        if route is not None and route.api_key is not None:
            return _clean(route.api_key.get_secret_value(), "api_key of a route"), ""
        if route is not None and route.api_key_file is not None:
            try:
                return _clean(read_bounded(route.api_key_file).decode(), str(route.api_key_file)), ""
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not a text file"
                raise ConfigError(f"cannot be read: {reason}", where=str(route.api_key_file)) from None
        if route is not None and route.api_key_env is not None:
            if not self._value(route.api_key_env):
                raise ConfigError("is not set, and a route's api_key_env names it", where=route.api_key_env)
            return _clean(self._value(route.api_key_env), route.api_key_env), route.api_key_env
        variable = next((name for name in service.keys if self._value(name)), "")
        return _clean(self._value(variable), variable), variable

    def _address(self, provider: str, service: Service, route: Route | None) -> tuple[str, Mapping[str, str]]:
        """The address that the environment names, and options that come with it, as the official client takes them."""
        url, version = self._value(service.address).rstrip("/"), self._value(service.version)
        if provider == "gemini" and (url or version):
            # The client puts the version behind the address.
            version = "v1beta" if version in {"", "beta"} else version
            return f"{url or 'https://generativelanguage.googleapis.com'}/{version}", {}
        if not url:
            return "", {}
        if provider == "azure-openai":
            if version or (route is not None and "api_version" in route.options):
                return url, {"api_version": version} if version else {}
            return (url if url.endswith("/openai/v1") else f"{url}/openai/v1"), {}
        if provider == "cohere" and is_own(url, service.hosts):
            # The client does the same, for addresses of its first API.
            url = url.removesuffix("/v1")
        return url, {}

    def _same_layer(self, name: str, route: Route | None) -> bool:
        """Whether what names a route's address names the variable of its key too."""
        if route is None or route.api_key_env is None:
            return False
        where = self.origins.get(f"routes.{name}.base_url", Origin()).where
        return bool(where) and where == self.origins.get(f"routes.{name}.api_key_env", Origin()).where

    def _headers(self, service: Service) -> dict[str, str]:
        named = {header: (self._value(variable), variable) for variable, header in service.headers.items()}
        return {header: _clean(value, variable) for header, (value, variable) in named.items() if value}

    def _value(self, variable: str) -> str:
        secret = self.variables.get(variable) if variable else None
        return secret.get_secret_value().strip() if secret is not None else ""


def _withheld(provider: str, variable: str, route: Route | None, origin: Origin) -> str:
    given = route is not None and route.api_key_env is not None
    whose = f"{provider}'s own" if provider in SERVICES else "the provider's own"
    again = ", which another layer names," if given else ""
    beside = origin.where or "the settings"
    return (
        f"is no address of {whose}, so the key in {variable}{again} is not sent there; if it is meant to be, write "
        f'api_key_env = "{variable}" beside base_url in {beside}'
    )


def withheld_token(values: Mapping[str, str], origins: Mapping[str, tuple[str, str]]) -> str:
    """Why the hub's token of the environment must not go to the endpoint; empty where it may, or where there is none.

    `values` and `origins` are those of `weights.hub_endpoint` and `weights.hub_token`.
    """
    token = origins.get("weights.hub_token", ("", ""))
    endpoint = origins.get("weights.hub_endpoint", (ENVIRONMENT, ""))
    if token[0] != ENVIRONMENT or endpoint[0] == ENVIRONMENT:
        return ""
    if is_own(str(values.get("hub_endpoint", "")), (urlsplit(HUB_ENDPOINT).hostname or "",)):
        return ""
    name = token[1] or "the environment's token"
    return (
        f"{endpoint[0]}: weights.hub_endpoint: the token of {name} is not sent there, because the environment does not "
        "name this address; set HF_ENDPOINT to it, or weights.hub_token beside it"
    )


def is_own(base_url: str, hosts: tuple[str, ...]) -> bool:
    """Whether an address is https and of one of the hosts, by its parsed name and never by a part of its text."""
    if not base_url.isascii() or not base_url.isprintable() or " " in base_url or "\\" in base_url:
        return False  # parsers of addresses take these differently
    parts = _parts(base_url)
    if parts is None or parts.scheme != "https" or "@" in parts.netloc or parts.port not in {None, 443}:
        return False
    host = parts.hostname or ""
    return any(host.endswith(one) and host != one if one.startswith(".") else host == one for one in hosts)


def check_address(base_url: str, *, where: str, allow_http: bool) -> None:
    """Raise ConfigError, which names the variable `where`, unless an address is https, or http to this machine."""
    parts = _parts(base_url)
    if parts is None or not parts.hostname or parts.scheme not in {"http", "https"} or parts.query or parts.fragment:
        raise ConfigError("must be an address such as https://api.example.com/v1", where=where)
    if "@" in parts.netloc:
        raise ConfigError("must not hold a user or password", where=where)
    if parts.scheme == "http" and not (allow_http or is_loopback(parts.hostname)):
        raise ConfigError("must be https, or http to this machine, because keys and texts go there", where=where)


def shown_address(base_url: str) -> str:
    """An address without what may be secret in it: user, password and query."""
    parts = _parts(base_url)
    if parts is None:
        return "no address"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _parts(base_url: str) -> SplitResult | None:
    try:
        parts = urlsplit(base_url)
        _ = parts.hostname, parts.port
    except ValueError:
        return None
    return parts


def _clean(key: str, where: str) -> str:
    """A key without the white space around it, such as a line's end. Raises ConfigError for what no header can hold."""
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise ConfigError("holds a character that no key has, such as a line break; paste it anew", where=where)
    return key
