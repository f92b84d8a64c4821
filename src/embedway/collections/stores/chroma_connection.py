"""Connections to Chroma: destinations, settings without telemetry, and errors in plain words."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedway.collections.stores.redaction import shown
from embedway.config.addresses import normalized, parse_address
from embedway.errors import EmbedwayError, MissingExtraError, SinkError, UsageError
from embedway.opt_out import opt_out_of_telemetry
from embedway.third_party import must_pass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORM = "chroma:DIR#NAME or chroma:http://HOST:8000#NAME"
#: Source: the rules of Chroma; a new collection has a suffix until it is complete.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{1,480}[A-Za-z0-9])")
_DATABASE = "chroma.sqlite3"


@dataclass(frozen=True, slots=True)
class Place:
    """A collection in a folder, or of a server; one of `folder` and `url` is set."""

    name: str
    folder: Path | None
    url: str

    @classmethod
    def of(cls, destination: str) -> Place:
        """Return the place of a destination. Raises `UsageError`, which never repeats a secret."""
        before, _, name = destination.partition(":")[2].rpartition("#")
        is_url = "://" in before or before.lower().startswith(("http:", "https:"))
        if is_url:
            try:
                parse_address(before, example="http://localhost:8000")
            except ValueError as error:
                raise UsageError(f"the URL of a Chroma server {error}; the form is {FORM}") from None
            if "@" in before:  # behind the host: a part of a password that is not escaped
                raise UsageError(f"the URL of a Chroma server must not contain a user or password; the form is {FORM}")
        if not before or "\0" in before or not _NAME.fullmatch(name):
            rule = "a name has 3 to 480 of the characters a-z, A-Z, 0-9, '.', '_', '-'"
            reason = f"does not name a collection of Chroma; the form is {FORM}, and {rule}"
            raise UsageError(f"{shown(destination)!r} {reason}")
        return cls(name, None, before) if is_url else cls(name, Path(before), "")

    @property
    def identity(self) -> str:
        """The same text for all spellings of the folder or URL."""
        place = normalized(self.url, http_port=8000) if self.folder is None else os.path.realpath(self.folder)
        return f"chroma:{place}#{self.name}"

    @property
    def is_there(self) -> bool:
        """Whether there can be a collection; a client would create the folder."""
        return self.folder is None or (self.folder / _DATABASE).is_file()


def connect(place: Place) -> Any:
    """Return a client. Raises MissingExtraError, and the errors of Chroma."""
    opt_out_of_telemetry()
    try:
        import chromadb  # noqa: PLC0415 - heavy, and an extra
        from chromadb.config import Settings  # noqa: PLC0415 - heavy, and an extra
    except ImportError:
        raise MissingExtraError("a collection in Chroma", extra="chroma", package="chromadb") from None
    # A file .env in the working directory must not choose implementations or hosts.
    options: dict[str, Any] = {"_env_file": None, "anonymized_telemetry": False}
    if place.folder is not None:
        return chromadb.PersistentClient(place.folder, settings=Settings(**options))
    url = parse_address(place.url, example="http://localhost:8000")
    secure = url.scheme == "https"
    port = url.port or (443 if secure else 8000)
    return chromadb.HttpClient(url.host, port, ssl=secure, settings=Settings(**options))


@contextmanager
def chroma_errors(connected: Callable[[], Any], destination: str, action: str) -> Iterator[Any]:
    """Give a client, and convert its errors to `SinkError`, also panics of its Rust code."""
    try:
        yield connected()
    except EmbedwayError:
        raise
    except BaseException as error:
        if must_pass(error) or isinstance(error, GeneratorExit):
            raise
        reason = _reason(error)
    else:
        return
    raise SinkError(f"{action} failed: {reason}", destination=destination) from None


def _reason(error: BaseException) -> str:  # noqa: PLR0911  one line for each reason
    name, text = type(error).__name__, str(error)
    if "Could not connect" in text or "Connect" in name:
        return "no server listens there; check host and port, and that the server runs"
    if "Timeout" in name:
        return "the server does not answer; check host, port and firewall, and run the same command again"
    if name == "NotFoundError":
        return "the collection was removed by another program"
    if name == "AuthorizationError":
        return "the server refuses this user"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "readonly" in text:
        return "the folder is not writable"
    return f"Chroma has a fault; the folder may be damaged, or of another version ({name})"
