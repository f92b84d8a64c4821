"""Keys of services, and the URLs that each key may be sent to.

A key from the environment is sent to its service's own hosts, or to a URL that the same layer sets. So a settings
file cannot redirect a key to a URL unless the file itself names the key's variable beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embedway.config.addresses import belongs_to_hosts, check_address, redact_address
from embedway.config.known_services import SERVICES, KnownService
from embedway.config.layers import ENVIRONMENT, SettingSource
from embedway.errors import ConfigError
from embedway.files import read_bounded
from embedway.weights.types import HUB_ENDPOINT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import SecretStr

    from embedway.config.sections import RouteSettings


@dataclass(frozen=True, slots=True)
class Access:
    """URL and key of a route. `base_url` is empty for the provider's default; `secret` is in no repr."""

    base_url: str = ""
    secret: str = field(default="", repr=False)
    #: Provider options and headers that the environment sets.
    options: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Variables of services and of routes' keys, and the source of each route's settings."""

    variables: Mapping[str, SecretStr] = field(default_factory=dict, repr=False)
    sources: Mapping[str, SettingSource] = field(default_factory=dict, repr=False)

    def access(self, provider: str, name: str = "", route: RouteSettings | None = None) -> Access:
        """Return the URL of a provider's route, and the key to send there; without a name, of the catalog's route.

        Raises ConfigError for a key that is missing or must not be sent to this URL, and for an unsafe URL in the
        environment.
        """
        service = SERVICES.get(provider, KnownService((), ()))
        secret, variable = self._key(service, route)
        allow_http = route is not None and route.options.get("allow_http") == "true"
        if route is not None and route.base_url:
            base_url = route.base_url
            source = self.sources.get(f"routes.{name}.base_url", SettingSource())
            options: Mapping[str, str] = {}
        else:
            source = SettingSource(ENVIRONMENT, service.address)
            base_url, options = self._address(provider, service, route)
        named = bool(base_url) and source.layer == ENVIRONMENT
        if named:
            check_address(base_url, where=source.variable, allow_http=allow_http)
        own = not base_url or named or belongs_to_hosts(base_url, service.hosts)
        if variable and not own and not self._same_layer(name, route):
            message = _explain_withheld_key(provider, variable, route, source)
            raise ConfigError(message, where=source.layer, key=f"routes.{name}.base_url")
        headers = self._headers(service) if own and variable in service.keys else {}
        return Access(base_url, secret, options, headers)

    def addresses(self) -> dict[str, tuple[str, str]]:
        """Return the services' URLs from the environment: the variable and the URL without secrets, by provider."""
        found = {}
        for provider, service in SERVICES.items():
            base_url, _ = self._address(provider, service, None)
            if base_url:
                named = service.address if self._value(service.address) else service.version
                found[provider] = (named, redact_address(base_url))
        return found

    def _key(self, service: KnownService, route: RouteSettings | None) -> tuple[str, str]:
        """Return a route's key and its variable, which is empty for a key from the settings or a missing key."""
        if route is not None and route.api_key is not None:
            return _check_key(route.api_key.get_secret_value(), "api_key of a route"), ""
        if route is not None and route.api_key_file is not None:
            try:
                return _check_key(read_bounded(route.api_key_file).decode(), str(route.api_key_file)), ""
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not a text file"
                raise ConfigError(f"cannot be read: {reason}", where=str(route.api_key_file)) from None
        if route is not None and route.api_key_env is not None:
            if not self._value(route.api_key_env):
                raise ConfigError("is not set, but a route's api_key_env names it", where=route.api_key_env)
            return _check_key(self._value(route.api_key_env), route.api_key_env), route.api_key_env
        variable = next((name for name in service.keys if self._value(name)), "")
        return _check_key(self._value(variable), variable), variable

    def _address(
        self, provider: str, service: KnownService, route: RouteSettings | None
    ) -> tuple[str, Mapping[str, str]]:
        """Return the URL from the environment and the options that it implies, as the official client does."""
        url, version = self._value(service.address).rstrip("/"), self._value(service.version)
        if provider == "gemini" and (url or version):
            # The client appends the version to the URL.
            version = "v1beta" if version in {"", "beta"} else version
            return f"{url or 'https://generativelanguage.googleapis.com'}/{version}", {}
        if not url:
            return "", {}
        if provider == "azure-openai":
            if version or (route is not None and "api_version" in route.options):
                return url, {"api_version": version} if version else {}
            return (url if url.endswith("/openai/v1") else f"{url}/openai/v1"), {}
        if provider == "cohere" and belongs_to_hosts(url, service.hosts):
            # The client does the same, for URLs of its first API.
            url = url.removesuffix("/v1")
        return url, {}

    def _same_layer(self, name: str, route: RouteSettings | None) -> bool:
        """Return whether one layer sets both a route's URL and the variable of its key."""
        if route is None or route.api_key_env is None:
            return False
        layer = self.sources.get(f"routes.{name}.base_url", SettingSource()).layer
        return bool(layer) and layer == self.sources.get(f"routes.{name}.api_key_env", SettingSource()).layer

    def _headers(self, service: KnownService) -> dict[str, str]:
        named = {header: (self._value(variable), variable) for variable, header in service.headers.items()}
        return {header: _check_key(value, variable) for header, (value, variable) in named.items() if value}

    def _value(self, variable: str) -> str:
        secret = self.variables.get(variable) if variable else None
        return secret.get_secret_value().strip() if secret is not None else ""


def _explain_withheld_key(provider: str, variable: str, route: RouteSettings | None, source: SettingSource) -> str:
    given = route is not None and route.api_key_env is not None
    whose = f"{provider}'s own hosts" if provider in SERVICES else "the provider's own hosts"
    again = ", which another layer names," if given else ""
    layer = source.layer or "the settings"
    return (
        f"is not on {whose}, so the key in {variable}{again} is not sent there; to allow it, write "
        f'api_key_env = "{variable}" beside base_url in {layer}'
    )


def explain_withheld_token(values: Mapping[str, str], sources: Mapping[str, SettingSource]) -> str:
    """Return why the environment's token is not sent to the hub's endpoint; empty if it is sent or missing.

    `values` is the section `weights`; `sources` maps settings to their sources.
    """
    token = sources.get("weights.hub_token", SettingSource())
    endpoint = sources.get("weights.hub_endpoint", SettingSource(ENVIRONMENT))
    if token.layer != ENVIRONMENT or endpoint.layer == ENVIRONMENT:
        return ""
    if belongs_to_hosts(str(values.get("hub_endpoint", "")), (urlsplit(HUB_ENDPOINT).hostname or "",)):
        return ""
    name = token.variable or "the environment's token"
    return (
        f"{endpoint.layer}: weights.hub_endpoint: the token from {name} is not sent there, because the environment "
        "does not set this URL; set HF_ENDPOINT to it, or set weights.hub_token beside it"
    )


def _check_key(key: str, where: str) -> str:
    """Return a key without white space around it. Raises ConfigError for characters that are invalid in a header."""
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise ConfigError("contains a character that no key has, such as a line break; paste it again", where=where)
    return key
