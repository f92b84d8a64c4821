"""Settings from the variables and the token file of huggingface_hub and fastembed, parsed as in these libraries.

Exceptions: a variable that is neither true nor false is an error, because the libraries take it for false. Blanks
around such a variable are ignored: with blanks around HF_HUB_OFFLINE, huggingface_hub goes online.
"""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING, Any

from embedway.config.layers import ENVIRONMENT, Layer, Problem, set_key
from embedway.config.paths import expand_user
from embedway.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_TRUE, _FALSE = frozenset({"1", "ON", "YES", "TRUE"}), frozenset({"0", "OFF", "NO", "FALSE", ""})
#: Variables that are true or false.
_FLAGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN")


def hub_layer(environ: Mapping[str, str]) -> tuple[Layer, list[Problem]]:
    """Return the hub's own settings as a layer with embedway's keys, and their errors."""
    values: dict[str, Any] = {}
    variables: dict[str, str] = {}
    problems = list(_unclear_flags(environ))
    for key, value, variable in (*_simple_settings(environ), *_cache_folder(environ)):
        set_key(values, key, value)
        variables[key] = variable
    try:
        found = _token(environ)
    except _TokenFileError as error:
        problems.append(Problem(error.path, "", f"the hub's token file cannot be read: {error}"))
        found = None
    if found is not None:
        set_key(values, "weights.hub_token", found[0])
        variables["weights.hub_token"] = found[1]
    return Layer(ENVIRONMENT, values, variables), problems


def _unclear_flags(environ: Mapping[str, str]) -> Iterator[Problem]:
    """Iterate over the errors of variables that are neither true nor false."""
    for name in _FLAGS:
        if environ.get(name, "").strip().upper() not in _TRUE | _FALSE:
            rule = "must be 1, ON, YES or TRUE, or 0, OFF, NO or FALSE"
            yield Problem(ENVIRONMENT, name, rule)


def _simple_settings(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    offline = next((name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if environ.get(name)), None)
    if offline is not None and environ[offline].strip().upper() in _TRUE:
        yield "weights.offline", True, offline
    if environ.get("HF_ENDPOINT"):
        yield "weights.hub_endpoint", environ["HF_ENDPOINT"], "HF_ENDPOINT"
    if environ.get("FASTEMBED_CACHE_PATH"):
        yield "weights.fastembed_cache", environ["FASTEMBED_CACHE_PATH"], "FASTEMBED_CACHE_PATH"


def _path(environ: Mapping[str, str], name: str) -> str | None:
    text = environ.get(name)
    return Template(text).safe_substitute(environ) if text else None


def _home(environ: Mapping[str, str]) -> tuple[Path, str | None]:
    """Return the hub's folder, and the variable that overrides its default."""
    home = _path(environ, "HF_HOME")
    if home:
        return expand_user(home), "HF_HOME"
    cache = _path(environ, "XDG_CACHE_HOME")
    if cache:
        return expand_user(cache) / "huggingface", "XDG_CACHE_HOME"
    return expand_user("~/.cache/huggingface"), None


def _cache_folder(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    home, moved_by = _home(environ)
    cache = _path(environ, "HF_HUB_CACHE")
    if cache:
        yield "weights.hub_cache", cache, "HF_HUB_CACHE"
    elif moved_by:
        yield "weights.hub_cache", str(home / "hub"), moved_by


class _TokenFileError(Exception):
    def __init__(self, path: Path, reason: str) -> None:
        self.path = str(path)
        super().__init__(reason)


def _token(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the token and its variable or file; None if it is missing or the user forbids its implicit use."""
    if environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").strip().upper() in _TRUE:
        return None
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        token = environ.get(name, "").strip()
        if token:
            return token, name
    path = expand_user(_path(environ, "HF_TOKEN_PATH") or _home(environ)[0] / "token")
    try:
        token = read_bounded(path).decode().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _TokenFileError(path, error.strerror or type(error).__name__) from error
    except UnicodeError:
        # The chained error would contain the bytes.
        raise _TokenFileError(path, "it is not UTF-8") from None
    except ValueError:
        raise _TokenFileError(path, "the path is invalid") from None
    return (token, str(path)) if token else None
