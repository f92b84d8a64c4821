"""Settings from the variables and the token file of huggingface_hub, and fastembed's, read as they read them."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING, Any

from embedway.config.layers import Layer, Problem, place
from embedway.config.paths import expanded
from embedway.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


def hub_layer(environ: Mapping[str, str]) -> tuple[Layer, list[Problem]]:
    """The hub's own settings, by the names that they have here, and what is wrong with them."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[Problem] = []
    for key, value, origin in (*_plain(environ), *_cache(environ)):
        place(values, key, value)
        origins[key] = origin
    try:
        found = _token(environ)
    except _TokenFileError as error:
        problems.append(Problem(error.path, "", f"the hub's token file cannot be read: {error}"))
        found = None
    if found is not None:
        place(values, "weights.hub_token", found[0])
        origins["weights.hub_token"] = found[1]
    return Layer("environment", values, origins), problems


def _plain(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    offline = next((name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if environ.get(name)), None)
    if offline is not None and environ[offline].upper() in _TRUE:
        yield "weights.offline", True, offline
    if environ.get("HF_ENDPOINT"):
        yield "weights.hub_endpoint", environ["HF_ENDPOINT"], "HF_ENDPOINT"
    if environ.get("FASTEMBED_CACHE_PATH"):
        yield "weights.fastembed_cache", environ["FASTEMBED_CACHE_PATH"], "FASTEMBED_CACHE_PATH"


def _path(environ: Mapping[str, str], name: str) -> str | None:
    text = environ.get(name)
    return Template(text).safe_substitute(environ) if text else None


def _home(environ: Mapping[str, str]) -> tuple[Path, str | None]:
    """The hub's folder, and the variable that moved it from its default."""
    home = _path(environ, "HF_HOME")
    if home:
        return expanded(home), "HF_HOME"
    cache = _path(environ, "XDG_CACHE_HOME")
    if cache:
        return expanded(cache) / "huggingface", "XDG_CACHE_HOME"
    return expanded("~/.cache/huggingface"), None


def _cache(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
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
    """The token and what gave it; None without one, or where the user forbade its use unasked."""
    if environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in _TRUE:
        return None
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        token = environ.get(name, "").strip()
        if token:
            return token, name
    path = expanded(_path(environ, "HF_TOKEN_PATH") or _home(environ)[0] / "token")
    try:
        token = read_bounded(path).decode().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _TokenFileError(path, error.strerror or type(error).__name__) from error
    except UnicodeError:
        # The chained error would hold the bytes.
        raise _TokenFileError(path, "it is not UTF-8") from None
    except ValueError:
        raise _TokenFileError(path, "no file has that name") from None
    return (token, str(path)) if token else None
