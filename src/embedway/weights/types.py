"""Values of the weights store: its settings, its folders, and the sink of progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

from embedway._public import public
from embedway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

PlaceName: TypeAlias = Literal["folder", "hub", "wheel"]

HUB_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The root folder of the store, and its sources.

    The sources in `places` are tried in order. `folders` may hold `OWNER/NAME` or `NAME` with a model's files.
    `hub_cache` is the download folder of huggingface_hub. Raises ConfigError for an endpoint that is no address.
    """

    root: Path
    offline: bool = False
    hub_endpoint: str = HUB_ENDPOINT
    hub_token: str | None = field(default=None, repr=False)
    hub_cache: Path | None = None
    places: tuple[PlaceName, ...] = ("folder", "hub", "wheel")
    folders: tuple[Path, ...] = ()
    #: Timeout of the hub between two reads.
    timeout_s: float = 10.0
    #: The wait before the first retry of a broken download; it doubles with each.
    retry_wait_s: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an endpoint that no token may be sent to."""
        key = "weights.hub_endpoint"
        try:
            parts = urlsplit(self.hub_endpoint)
            wrong = parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0
        except ValueError:
            wrong = True
        # Neither message repeats the address: it may hold a password.
        if wrong:
            raise ConfigError("must be an address such as https://huggingface.co", key=key)
        if "@" in parts.netloc:
            raise ConfigError("must not hold a user or password; set weights.hub_token", key=key)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder with a model's files.

    `weights_sha256` (64 hex digits) is the hash of the weights file. Where several files hold the weights
    (shards, or an ONNX file with external data), it is the sha256 over their sorted `name sha256` lines, each
    ended by a line feed. `origin` is `hub`, `wheel NAME==VERSION`, `folder`, or `store` where the store had all files
    before. `onnx_file` is set where an ONNX file was named to be used instead of the folder's default.
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
        """Start a file; its size is None where it is not known."""

    def advance(self, size_bytes: int, /) -> None:
        """Add `size_bytes` to the bytes of the file."""

    def done(self) -> None:
        """End the file, whether it succeeded or failed."""


class NoProgress:
    """A sink that shows nothing."""

    def start(self, name: str, total_bytes: int | None, /) -> None:
        """Do nothing."""

    def advance(self, size_bytes: int, /) -> None:
        """Do nothing."""

    def done(self) -> None:
        """Do nothing."""
