"""Keys of services, and the URLs that each key may be sent to.

A key from the environment is sent to its service's own hosts, or to a URL that the same layer sets. So a settings
file cannot redirect a key to a URL unless the file itself names the key's variable beside it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embedway.config.addresses import belongs_to_hosts, check_address, redact_address
from embedway.config.base_urls import BaseUrl, complete_base_url
from embedway.config.known_services import SERVICES, KnownService, key_header
from embedway.config.layers import ENVIRONMENT, SettingSource
from embedway.config.request_headers import check_header_value, check_key
from embedway.config.secret_files import read_secret
from embedway.config.types import TRUE
from embedway.errors import ConfigError
from embedway.text import printable
from embedway.weights.types import HUB_ENDPOINT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pydantic import SecretStr

    from embedway.config.routes import RouteSettings


@dataclass(frozen=True, slots=True)
class Access:
    """URL and authorization of a route. `base_url` is empty for the provider's default; secrets are in no repr."""

    base_url: str = ""
    secret: str = field(default="", repr=False)
    #: Provider options that the environment or the URL sets.
    options: Mapping[str, str] = field(default_factory=dict)
    #: Headers of each request, by lower-case name.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Deployment in the URL; empty if there is none.
    model: str = ""
    #: How requests are authorized, as `auth` of a route.
    auth: str = "key"
    #: Files of the key (under an empty name) and of headers, which are read again when they change.
    files: Mapping[str, Path] = field(default_factory=dict)
    ca_file: Path | None = None
    allow_http: bool = False
    #: Whether requests are authorized without a key.
    needs_no_key: bool = False
    #: Source of the key, the token or the headers in words, for the error if a service refuses them.
    credential: str = "api_key"
    #: Whether the key in the provider's usual variable is sent to this URL, without `api_key_env`.
    takes_usual_key: bool = True

    @property
    def is_authorized(self) -> bool:
        """Whether requests have a key, a token, or headers in place of one."""
        return bool(self.secret) or self.needs_no_key


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
        given, source = self._given_url(provider, service, name, route)
        named = bool(given) and source.layer == ENVIRONMENT
        own = not given or named or belongs_to_hosts(given, service.hosts)
        auth = route.auth if route is not None else "key"
        replaced = route is not None and key_header(provider, auth) in route.header_names
        needs_no_key = auth in {"entra", "none"} or replaced
        secret, variable = ("", "") if needs_no_key else self._key(service, name, route)
        if not own:
            self._check_secrets_of_environment(provider, name, route, source, variable)
        completed = self._complete(provider, given, name, route, source)
        allow_http = route is not None and (route.allow_http or is_true(route.options.get("allow_http", "")))
        if named:
            check_address(completed.url, where=source.variable, allow_http=allow_http)
        usual = self._headers(service) if own and variable in service.keys else {}
        files = {} if route is None else {key.casefold(): path for key, path in route.headers_file.items()}
        if secret and route is not None and route.api_key is None and route.api_key_file is not None:
            files[""] = route.api_key_file
        return Access(
            completed.url,
            secret,
            completed.options,
            {**usual, **self._headers_of(name, route)},
            model=completed.model,
            auth=auth,
            files=files,
            ca_file=None if route is None else route.ca_file,
            allow_http=allow_http,
            needs_no_key=needs_no_key,
            credential=describe_credential(route, variable, key_header(provider, auth)),
            takes_usual_key=own,
        )

    def _given_url(
        self, provider: str, service: KnownService, name: str, route: RouteSettings | None
    ) -> tuple[str, SettingSource]:
        """Return a route's URL as it is written, or that of the environment, and its source."""
        if route is not None and route.base_url:
            return route.base_url, self.sources.get(f"routes.{name}.base_url", SettingSource())
        return self._address(provider, service), SettingSource(ENVIRONMENT, service.address)

    def _complete(
        self, provider: str, given: str, name: str, route: RouteSettings | None, source: SettingSource
    ) -> BaseUrl:
        """Return the URL at which the API starts. Raises ConfigError with the URL to write instead."""
        is_route = route is not None and bool(route.base_url)
        version = "" if route is None else route.options.get("api_version", "")
        if provider == "azure-openai" and not is_route:
            version = version or self._value(SERVICES[provider].version)
        try:
            found = complete_base_url(provider, given, version=version)
        except ValueError as error:
            where = f"routes.{name}" if is_route else source.variable
            raise ConfigError(str(error), where=where, key="base_url" if is_route else "") from None
        named = None if route is None else route.upstream_model
        if found.model and named not in {None, found.model}:
            message = "contains another deployment than upstream_model; write one of them"
            raise ConfigError(message, where=f"routes.{name}", key="base_url")
        return found

    def _check_secrets_of_environment(
        self, provider: str, name: str, route: RouteSettings | None, source: SettingSource, variable: str
    ) -> None:
        """Raise ConfigError for a secret of the environment that must not be sent to a URL of another layer."""
        if variable and not self._same_layer(name, route):
            message = _explain_withheld_key(provider, variable, route, source)
            raise ConfigError(message, where=source.layer, key=f"routes.{name}.base_url")
        if route is None:
            return
        layer = source.layer or "the settings"
        for header, named in route.headers_env.items():
            if not self._is_beside(name, f"headers_env.{header}"):
                message = (
                    f"is in another layer than headers_env, so the value of {named} is not sent there; to allow it, "
                    f"write headers_env beside base_url in {layer}"
                )
                raise ConfigError(message, where=source.layer, key=f"routes.{name}.base_url")
        if route.auth == "entra" and not self._is_beside(name, "auth"):
            message = (
                f"is not on {provider}'s own hosts, so the token of Microsoft Entra ID is not sent there; to allow it, "
                f'write auth = "entra" beside base_url in {layer}'
            )
            raise ConfigError(message, where=source.layer, key=f"routes.{name}.base_url")

    def addresses(self) -> dict[str, tuple[str, str]]:
        """Return the services' URLs from the environment: the variable and the URL without secrets, by provider."""
        found = {}
        for provider, service in SERVICES.items():
            base_url = self._address(provider, service)
            if base_url:
                named = service.address if self._value(service.address) else service.version
                with contextlib.suppress(ConfigError):  # the error comes when the URL is used
                    base_url = self._complete(provider, base_url, "", None, SettingSource()).url
                found[provider] = (named, redact_address(base_url))
        return found

    def _key(self, service: KnownService, name: str, route: RouteSettings | None) -> tuple[str, str]:
        """Return a route's key and its variable, which is empty for a key from the settings or a missing key."""
        if route is not None and route.api_key is not None:
            return _checked_key(route.api_key.get_secret_value(), "api_key of a route"), ""
        if route is not None and route.api_key_file is not None:
            return read_secret(route.api_key_file, check_key, where=f"routes.{name}", key="api_key_file"), ""
        if route is not None and route.api_key_env is not None:
            return self._required(route.api_key_env, name, "api_key_env", check_key), route.api_key_env
        variable = next((named for named in service.keys if self._value(named)), "")
        return _checked_key(self._value(variable), variable), variable

    def _required(self, variable: str, name: str, key: str, check: Callable[[str], str]) -> str:
        """Return the checked value of a variable that the `key` of a route names. Raises ConfigError."""
        value = self._value(variable)
        reason = "" if value else "is not set"
        if value:
            try:
                return check(value)
            except ValueError as error:
                reason = str(error)
        raise ConfigError(f"the variable {variable} {reason}", where=f"routes.{name}", key=key)

    def _headers_of(self, name: str, route: RouteSettings | None) -> dict[str, str]:
        """Return a route's own headers, by lower-case name. Raises ConfigError, without any value."""
        if route is None:
            return {}
        found = {"openai-organization": route.organization, "openai-project": route.project}
        headers = {header: value for header, value in found.items() if value}
        headers |= {header.casefold(): value.get_secret_value() for header, value in route.headers.items()}
        for header, variable in route.headers_env.items():
            headers[header.casefold()] = self._required(variable, name, f"headers_env.{header}", check_header_value)
        for header, path in route.headers_file.items():
            key = f"headers_file.{header}"
            headers[header.casefold()] = read_secret(path, check_header_value, where=f"routes.{name}", key=key)
        return headers

    def _address(self, provider: str, service: KnownService) -> str:
        """Return the URL of a service from the environment, as the official client reads it."""
        url, version = self._value(service.address).rstrip("/"), self._value(service.version)
        if provider == "gemini" and (url or version):
            # The client appends the version to the URL.
            version = "v1beta" if version in {"", "beta"} else version
            return f"{url or 'https://generativelanguage.googleapis.com'}/{version}"
        return url

    def _same_layer(self, name: str, route: RouteSettings | None) -> bool:
        """Return whether one layer sets both a route's URL and the variable of its key."""
        return route is not None and route.api_key_env is not None and self._is_beside(name, "api_key_env")

    def _is_beside(self, name: str, key: str) -> bool:
        """Return whether one layer sets both a route's URL and another key of the route."""
        layer = self.sources.get(f"routes.{name}.base_url", SettingSource()).layer
        return bool(layer) and layer == self.sources.get(f"routes.{name}." + key, SettingSource()).layer

    def _headers(self, service: KnownService) -> dict[str, str]:
        named = {header: (self._value(variable), variable) for variable, header in service.headers.items()}
        return {header: _checked_key(value, variable) for header, (value, variable) in named.items() if value}

    def _value(self, variable: str) -> str:
        secret = self.variables.get(variable) if variable else None
        return secret.get_secret_value().strip() if secret is not None else ""


def describe_credential(route: RouteSettings | None, variable: str, header: str) -> str:
    """Return the source of a route's key, token or headers in words. `header` is the lower-case one of its key."""
    if route is not None and route.auth == "entra":
        return "the role of the identity in Microsoft Entra ID"
    if route is not None and (route.auth == "none" or header in route.header_names):
        sources = {name: f"headers.{name}" for name in route.headers}
        sources |= {name: f"the variable {value} (headers_env.{name})" for name, value in route.headers_env.items()}
        sources |= {
            name: f"the file {printable(str(path))} (headers_file.{name})" for name, path in route.headers_file.items()
        }
        found = [shown for name, shown in sources.items() if route.auth == "none" or name.casefold() == header]
        return " and ".join(found) or "headers"
    if route is not None and route.api_key is None and route.api_key_file is not None:
        return f"the key in {printable(str(route.api_key_file))} (api_key_file)"
    if route is not None and route.api_key is None and route.api_key_env is not None:
        return f"the variable {route.api_key_env} (api_key_env)"
    return f"the variable {variable}" if variable else "api_key"


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


def _checked_key(key: str, where: str) -> str:
    """Return a key without white space around it. Raises ConfigError for text that is not a key alone."""
    try:
        return check_key(key)
    except ValueError as error:
        reason = str(error)
    # Outside of `except`: nothing of the key is in a chained error.
    raise ConfigError(reason, where=where)


def is_true(text: str) -> bool:
    """Return whether the text of an option means true."""
    return text.casefold() in TRUE
