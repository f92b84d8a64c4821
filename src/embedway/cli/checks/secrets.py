"""Collection of all secrets in the settings and the environment, which `masking.py` then replaces in the report.

They may appear anywhere, also in messages of other programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, SecretStr

from embedway.cli.checks.masking import ANYWHERE
from embedway.config.environment import PREFIX
from embedway.config.known_services import BUILT_IN, SERVICES, service_variables
from embedway.config.layers import is_among, pattern_of
from embedway.config.load import KEYS
from embedway.config.routes import VARIABLE
from embedway.config.variables import all_variables, may_be_secret, set_variables
from embedway.files import read_bounded, read_regular

if TYPE_CHECKING:
    from pathlib import Path

    from embedway.config import Config

_MOST_BYTES = 2**20
#: Schemes of URLs whose host and path are not secret.
_SERVERS = frozenset({"redis", "rediss", "valkey", "valkeys", "unix"})
#: Part of a path that is no token: a word, or several.
_WORD = re.compile(r"[a-z]+(?:[-_.][a-z]+)*|[A-Z][a-z]+")
#: Words of embedway's own sentences: names of settings and of providers.
_OWN_WORDS = frozenset({part.casefold() for key in KEYS.all for part in key.split(".")} | {*BUILT_IN})
#: Endings of names whose values are URLs, maybe without a scheme.
_BARE = ("_PROXY", "URL", "ENDPOINT")


def collect(config: Config | None, files: tuple[Path, ...]) -> set[str]:
    """Return all secrets that settings, files and the environment contain. Sources that cannot be read have none."""
    found: set[str] = set()
    for source in (_of_environment(all_variables()), _of_files(files), _of_config(config)):
        # One by one: an error in the middle keeps what was found before.
        with contextlib.suppress(Exception):
            for secret in source:
                found.add(secret)
    return {secret for secret in found if secret.strip().casefold() not in _OWN_WORDS}


def _of_environment(environ: Mapping[str, str]) -> Iterator[str]:
    services = {*service_variables()}
    for name, value in environ.items():
        key = ".".join(name.removeprefix(PREFIX).lower().split("__")) if name.startswith(PREFIX) else name
        # The URL of a service is no secret; a key may have been pasted in its place.
        is_named = name in services and not (name.endswith(_BARE) and "://" in value)
        if (is_named or _is_secret(key)) and not _is_path(value):
            yield from _of_header(value) if _is_header(key) else _of_secret(value)
        yield from _of_url(value, bare=name.upper().endswith(_BARE))


def _is_secret(key: str) -> bool:
    """Return whether a value may be secret: by the type of a known setting, else by the name."""
    pattern = pattern_of(key)
    if is_among(pattern, KEYS.secrets):
        return True
    return not is_among(pattern, frozenset(KEYS.all)) and may_be_secret(key.rpartition(".")[2])


def _is_header(key: str) -> bool:
    return pattern_of(key).startswith("routes.*.headers.")


def _names_variable(key: str) -> bool:
    return key.endswith("api_key_env") or ".headers_env." in key


def _is_path(value: str) -> bool:
    return value.startswith(("/", "~")) and os.path.exists(value)  # noqa: PTH110  accepts any text


def _of_files(files: tuple[Path, ...]) -> Iterator[str]:
    """Iterate over the secrets in settings files, which may be invalid or not trusted."""
    from pathlib import Path

    for path in files or (Path("embedway.toml"),):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            data = read_regular(path, most_bytes=_MOST_BYTES) or b""
            text = data.decode("utf-8-sig")
            values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
            yield from _of_values(values)


def _of_values(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _of_values(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _of_values(inner, key)
    elif isinstance(value, SecretStr):
        yield from _of_values(value.get_secret_value(), key)
    elif isinstance(value, str):
        if _is_secret(key) or (_names_variable(key) and not VARIABLE.fullmatch(value)):
            # A key may have been pasted in place of the name of its variable.
            yield from _of_header(value) if _is_header(key) else _of_secret(value)
        yield from _of_url(value, bare=key.upper().endswith(_BARE))


def _of_config(config: Config | None) -> Iterator[str]:
    if config is None:
        return
    yield from _of_values(_plain(config))
    for route in config.routes.values():
        yield from set_variables(filter(None, (route.api_key_env,))).values()
    named = [(route.provider, name) for name, route in config.routes.items()]
    for provider, name in (*((provider, "") for provider in SERVICES), *named):
        with contextlib.suppress(Exception):
            access = config.access(provider, name)
            yield access.secret
            yield from _of_url(access.base_url)
    for path in (config.cache.secret_file, *(route.api_key_file for route in config.routes.values())):
        if path is not None:
            yield from _lines_of(path)
    for route in config.routes.values():
        headers = [*set_variables(route.headers_env.values()).values()]
        headers += (line for path in route.headers_file.values() for line in _lines_of(path))
        for value in headers:
            yield from _of_header(value)


def _lines_of(path: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError):
        return read_bounded(path).decode().splitlines()
    return []


def _plain(model: BaseModel) -> dict[str, Any]:
    """Return a model as nested dictionaries; secrets stay secret."""

    def convert(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return _plain(value)
        if isinstance(value, Mapping):
            return {name: convert(inner) for name, inner in value.items()}
        return value

    return {name: convert(getattr(model, name)) for name in type(model).model_fields}


def _of_header(value: str) -> Iterator[str]:
    """Iterate over the parts of a header's value; a short one, such as a date or a team, is no secret."""
    if len(value.strip()) >= ANYWHERE:
        yield from _of_secret(value)


def _of_secret(text: str) -> Iterator[str]:
    """Iterate over a secret and its parts: of a webhook's URL, the path is secret too, but not its words."""
    scheme, _, rest = text.partition("://")
    yield from _of_url(text)
    # A password with an unescaped slash ends the host for a parser, which then repeats a part of it in its error.
    credentials, at, _ = rest.rpartition("@")
    if at:
        yield from re.split(r"[:/?#@]", credentials)
    if scheme not in _SERVERS:
        yield text
        path = re.split(r"[?#]", rest.partition("/")[2])[0]
        tokens = [part for part in path.split("/") if len(part) >= ANYWHERE and not _WORD.fullmatch(part)]
        yield from tokens
        if tokens:
            yield path


def _of_url(text: str, *, bare: bool = False) -> Iterator[str]:
    """Iterate over the credentials and the query of a URL; with `bare`, also of `user:password@host`."""
    _, scheme, rest = text.partition("://")
    if not scheme:
        if not bare or "@" not in text:
            return
        rest = text
    credentials, at, _ = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    if at:
        user, colon, password = credentials.partition(":")
        yield from (credentials, password) if colon else (user,)
    for part in re.split(r"[?#]", rest)[1:]:
        yield part
        yield from (value for _, value in parse_qsl(part))
