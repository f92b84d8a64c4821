"""Values of the weights store: settings, model folders and the progress sink."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

from embedway._public import public
from embedway.errors import ConfigError
from embedway.third_party import guarded

if TYPE_CHECKING:
    from pathlib import Path

PlaceName: TypeAlias = Literal["folder", "hub", "wheel"]

HUB_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Root folder of the store, and its sources.

    The sources in `places` are tried in order. `folders` may contain `OWNER/NAME` or `NAME` with a model's files.
    `hub_cache` is the download folder of huggingface_hub. Raises ConfigError for an invalid endpoint.
    """

    root: Path
    offline: bool = False
    hub_endpoint: str = HUB_ENDPOINT
    hub_token: str | None = field(default=None, repr=False)
    hub_cache: Path | None = None
    places: tuple[PlaceName, ...] = ("folder", "hub", "wheel")
    folders: tuple[Path, ...] = ()
    #: Timeout of the hub between two reads, in seconds.
    timeout_s: float = 10.0
    #: Wait before the first retry of a broken download, in seconds; it doubles with each retry.
    retry_wait_s: float = 1.0
    #: Maximum consecutive attempts of a request to the hub.
    attempts: int = 5

    def __post_init__(self) -> None:
        """Refuse an endpoint to which no token may be sent."""
        key = "weights.hub_endpoint"
        try:
            parts = urlsplit(self.hub_endpoint)
            wrong = parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0
        except ValueError:
            wrong = True
        # The messages do not repeat the URL: it may contain a password.
        if wrong:
            raise ConfigError("must be a URL such as https://huggingface.co", key=key)
        if "@" in parts.netloc:
            raise ConfigError("must not contain a user or password: set weights.hub_token", key=key)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """Folder with a model's files.

    `weights_sha256` (64 hex digits) is the hash of the weights file. If several files contain the weights (shards, or
    an ONNX file with external data), it is the sha256 over their sorted `name sha256` lines, each ended by a line feed.
    `origin` is `hub`, `wheel NAME==VERSION`, `folder`, or `store` if the store already had all files. `onnx_file` is
    set if an ONNX file was chosen instead of the folder's default.
    """

    path: Path
    repository: str
    weights_sha256: str
    origin: str
    onnx_file: str | None = None


@public
class ProgressSink(Protocol):
    """Receiver of progress. One file at a time: start, any number of advances, done."""

    def start(self, name: str, total_bytes: int | None, /) -> None:
        """Start a file; its size is None if unknown."""

    def advance(self, size_bytes: int, /) -> None:
        """Add `size_bytes` to the file's bytes."""

    def done(self) -> None:
        """End the file, whether it succeeded or failed."""


class GuardedProgress:
    """Progress sink around the caller's own. A method that raises never fails the download."""

    def __init__(self, sink: ProgressSink) -> None:
        name = f"progress {type(sink).__name__}"
        self._start, self._advance, self._done = (
            guarded(method, name) for method in (sink.start, sink.advance, sink.done)
        )

    def start(self, name: str, total_bytes: int | None, /) -> None:
        """Start a file."""
        self._start(name, total_bytes)

    def advance(self, size_bytes: int, /) -> None:
        """Add `size_bytes` to the file's bytes."""
        self._advance(size_bytes)

    def done(self) -> None:
        """End the file."""
        self._done()


class NoProgress:
    """Progress sink that shows nothing."""

    def start(self, name: str, total_bytes: int | None, /) -> None:
        """Do nothing."""

    def advance(self, size_bytes: int, /) -> None:
        """Do nothing."""

    def done(self) -> None:
        """Do nothing."""
